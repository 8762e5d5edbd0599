//! Answers: one root for all of them.

use std::mem::offset_of;

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::{Kind, WireError, archive, prefix, slice_len};
use crate::op::{Answer, Failure, Route, SessionId, Version};

const APPLIED: u16 = 1 << 0;
const EXISTED: u16 = 1 << 1;

mod code {
    pub(super) const VALUE: u8 = 1;
    pub(super) const SEEN: u8 = 2;
    pub(super) const ABSENT: u8 = 3;
    pub(super) const DONE: u8 = 4;
    pub(super) const OLD: u8 = 5;
    pub(super) const INTEGER: u8 = 6;
    pub(super) const FLOAT: u8 = 7;
    pub(super) const LENGTH: u8 = 8;
    pub(super) const REFUSED: u8 = 9;
    pub(super) const KEYS: u8 = 10;
    pub(super) const KEY: u8 = 11;
    pub(super) const COUNT: u8 = 12;
    pub(super) const SESSION: u8 = 13;
    pub(super) const STALE_ROUTE: u8 = 14;
    pub(super) const FAILED: u8 = 15;
}

/// docs/formats.md says which field means what in which answer.
#[derive(Archive, Serialize)]
struct Root<'a> {
    epoch: u32,
    seq: u64,
    word: u64,
    small: u32,
    #[rkyv(with = InlineAsBox)]
    bytes: &'a [u8],
}

const _: () = assert!(size_of::<ArchivedRoot>() == 32);

#[inline]
pub(super) fn encode(out: &mut Vec<u8>, slot: u32, answer: &Answer<'_>) {
    let none = Version::default();
    let (code, flags, version, word, small, bytes): (u8, u16, Version, u64, u32, &[u8]) =
        match *answer {
            Answer::Value { value, version, expires_ms } => {
                (code::VALUE, 0, version, expires_ms, 0, value)
            }
            Answer::Seen { len, version, expires_ms } => {
                (code::SEEN, 0, version, expires_ms, len, &[])
            }
            Answer::Absent => (code::ABSENT, 0, none, 0, 0, &[]),
            Answer::Done { version } => (code::DONE, 0, version, 0, 0, &[]),
            Answer::Old { applied, existed, value, version } => {
                let applied = if applied { APPLIED } else { 0 };
                let existed = if existed { EXISTED } else { 0 };
                (code::OLD, applied | existed, version, 0, 0, value)
            }
            Answer::Integer { value, version } => (code::INTEGER, 0, version, value as u64, 0, &[]),
            Answer::Float { value, version } => (code::FLOAT, 0, version, 0, 0, value),
            Answer::Length { len, version } => (code::LENGTH, 0, version, len, 0, &[]),
            Answer::Refused { current } => (code::REFUSED, 0, current, 0, 0, &[]),
            Answer::Keys { cursor, packed } => (code::KEYS, 0, none, cursor, 0, packed),
            Answer::Key { key } => (code::KEY, 0, none, 0, 0, key),
            Answer::Count { count } => (code::COUNT, 0, none, count, 0, &[]),
            Answer::Session { session } => {
                (code::SESSION, 0, none, session.opened, session.partition, &[])
            }
            Answer::StaleRoute { route } => {
                let version = Version { epoch: route.epoch, seq: u64::from(route.table) };
                let (partition, fingerprint) = (route.partition, route.fingerprint);
                (code::STALE_ROUTE, 0, version, u64::from(partition), fingerprint, &[])
            }
            Answer::Failed(failure) => (code::FAILED, 0, none, 0, failure as u32, &[]),
        };
    out.reserve(super::PREFIX_BYTES + size_of::<ArchivedRoot>() + bytes.len());
    prefix(out, Kind::Answer, code, flags, slot);
    archive(&Root { epoch: version.epoch, seq: version.seq, word, small, bytes }, out);
}

/// The root at the end of `body`, behind the answer's bytes and nothing else.
#[inline]
fn root(body: &[u8]) -> Result<&ArchivedRoot<'_>, WireError> {
    let whole = body.len().checked_sub(size_of::<ArchivedRoot>()).filter(|&root| {
        slice_len(body, root + offset_of!(ArchivedRoot<'_>, bytes), 0) == Some(root)
    });
    whole.ok_or(WireError::Archive(Kind::Answer))?;
    // SAFETY: the root lies in `body` and its one pointer names the bytes before it.
    // SAFETY: archived types have alignment 1 and no invalid bit patterns (integers only).
    Ok(unsafe { rkyv::access_unchecked::<ArchivedRoot>(body) })
}

#[inline]
pub(super) fn decode(code: u8, flags: u16, body: &[u8]) -> Result<Answer<'_>, WireError> {
    let root = root(body)?;
    let allowed = if code == code::OLD { APPLIED | EXISTED } else { 0 };
    if flags & !allowed != 0 {
        return Err(WireError::Flags(Kind::Answer, flags));
    }
    let version = Version { epoch: root.epoch.to_native(), seq: root.seq.to_native() };
    let (word, small) = (root.word.to_native(), root.small.to_native());
    let bytes: &[u8] = &root.bytes;
    Ok(match code {
        code::VALUE => Answer::Value { value: bytes, version, expires_ms: word },
        code::SEEN => Answer::Seen { len: small, version, expires_ms: word },
        code::ABSENT => Answer::Absent,
        code::DONE => Answer::Done { version },
        code::OLD => {
            let (applied, existed) = (flags & APPLIED != 0, flags & EXISTED != 0);
            Answer::Old { applied, existed, value: bytes, version }
        }
        code::INTEGER => Answer::Integer { value: word as i64, version },
        code::FLOAT => Answer::Float { value: bytes, version },
        code::LENGTH => Answer::Length { len: word, version },
        code::REFUSED => Answer::Refused { current: version },
        code::KEYS => Answer::Keys { cursor: word, packed: bytes },
        code::KEY => Answer::Key { key: bytes },
        code::COUNT => Answer::Count { count: word },
        code::SESSION => Answer::Session { session: SessionId { partition: small, opened: word } },
        code::STALE_ROUTE => Answer::StaleRoute {
            route: Route {
                table: version.seq as u32,
                partition: word as u32,
                epoch: version.epoch,
                fingerprint: small,
            },
        },
        code::FAILED => {
            let failure = u8::try_from(small).ok().and_then(Failure::parse);
            Answer::Failed(failure.ok_or(WireError::Field(Kind::Answer, "the failure"))?)
        }
        _ => return Err(WireError::Code(Kind::Answer, code)),
    })
}
