//! Requests: a core of route, key and value; details and the request's number only when needed.

use std::mem::offset_of;

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::{Kind, WireError, archive, prefix, slice_len};
use crate::op::{
    Condition, ExpireWhen, Expiry, Numbered, Op, Request, RequestId, Route, SessionId, Version,
};

const NUMBERED: u16 = 1 << 0;
const DETAILS: u16 = 1 << 1;
const WANT_OLD: u16 = 1 << 2;
const CONDITION_SHIFT: u16 = 3; // 2 bits
const EXPIRY_SHIFT: u16 = 5; // 2 bits
const NX: u16 = 1 << 7;
const XX: u16 = 1 << 8;
const GT: u16 = 1 << 9;
const LT: u16 = 1 << 10;
const TWO_BITS: u16 = 3;
const CONDITION: u16 = TWO_BITS << CONDITION_SHIFT;
const EXPIRY: u16 = TWO_BITS << EXPIRY_SHIFT;
const WHEN: u16 = NX | XX | GT | LT;

mod code {
    pub(super) const GET: u8 = 1;
    pub(super) const LOOK: u8 = 2;
    pub(super) const PUT: u8 = 3;
    pub(super) const REMOVE: u8 = 4;
    pub(super) const INCREMENT: u8 = 5;
    pub(super) const INCREMENT_FLOAT: u8 = 6;
    pub(super) const APPEND: u8 = 7;
    pub(super) const SET_RANGE: u8 = 8;
    pub(super) const EXPIRE: u8 = 9;
    pub(super) const SCAN: u8 = 10;
    pub(super) const COUNT: u8 = 11;
    pub(super) const RANDOM_KEY: u8 = 12;
    pub(super) const CLEAR: u8 = 13;
    pub(super) const OPEN_SESSION: u8 = 14;
    pub(super) const END_SESSION: u8 = 15;
}

#[derive(Archive, Serialize)]
struct Core<'a> {
    table: u32,
    partition: u32,
    epoch: u32,
    fingerprint: u32,
    #[rkyv(with = InlineAsBox)]
    key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    value: &'a [u8],
}

/// What an operation has besides key and value; docs/formats.md says which field means what.
#[derive(Archive, Serialize, Clone, Copy, Default)]
struct Details {
    a: u64,
    b: u64,
    c: u32,
}

#[derive(Archive, Serialize)]
struct Id {
    session_partition: u32,
    session_opened: u64,
    number: u32,
    answered_to: u32,
}

#[derive(Archive, Serialize)]
struct Detailed<'a> {
    core: Core<'a>,
    details: Details,
}

#[derive(Archive, Serialize)]
struct WithId<'a> {
    core: Core<'a>,
    id: Id,
}

#[derive(Archive, Serialize)]
struct DetailedWithId<'a> {
    core: Core<'a>,
    details: Details,
    id: Id,
}

const _: () = assert!(size_of::<ArchivedCore>() == 32);
const _: () = assert!(size_of::<ArchivedDetailed>() == 52);
const _: () = assert!(size_of::<ArchivedWithId>() == 52);
const _: () = assert!(size_of::<ArchivedDetailedWithId>() == 72);
const _: () = assert!(offset_of!(ArchivedDetailed<'_>, core) == 0);
const _: () = assert!(offset_of!(ArchivedWithId<'_>, core) == 0);
const _: () = assert!(offset_of!(ArchivedDetailedWithId<'_>, core) == 0);

struct Packed<'a> {
    code: u8,
    flags: u16,
    value: &'a [u8],
    details: Details,
}

fn condition_bits(condition: Condition, details: &mut Details) -> u16 {
    let bits = match condition {
        Condition::Always => 0,
        Condition::Absent => 1,
        Condition::Present => 2,
        Condition::Version(version) => {
            details.b = version.seq;
            details.c = version.epoch;
            return 3 << CONDITION_SHIFT | DETAILS;
        }
    };
    bits << CONDITION_SHIFT
}

fn when_bits(when: ExpireWhen) -> u16 {
    let bit = |on, bit| if on { bit } else { 0 };
    bit(when.nx, NX) | bit(when.xx, XX) | bit(when.gt, GT) | bit(when.lt, LT)
}

fn want_old_bit(want_old: bool) -> u16 {
    if want_old { WANT_OLD } else { 0 }
}

fn expiry_bits(expiry: Expiry, details: &mut Details) -> u16 {
    match expiry {
        Expiry::Never => 0,
        Expiry::Keep => 1 << EXPIRY_SHIFT,
        Expiry::At(ms) => {
            details.a = ms;
            2 << EXPIRY_SHIFT | DETAILS
        }
    }
}

#[inline]
fn pack<'a>(op: &Op<'a>) -> Packed<'a> {
    let mut details = Details::default();
    let none: &[u8] = &[];
    let (code, flags, value) = match *op {
        Op::Get => (code::GET, 0, none),
        Op::Look => (code::LOOK, 0, none),
        Op::Put { value, expiry, condition, want_old } => {
            let flags = condition_bits(condition, &mut details) | expiry_bits(expiry, &mut details);
            (code::PUT, flags | want_old_bit(want_old), value)
        }
        Op::Remove { condition, want_old } => {
            let flags = condition_bits(condition, &mut details);
            (code::REMOVE, flags | want_old_bit(want_old), none)
        }
        Op::Increment { by } => {
            details.a = by as u64;
            (code::INCREMENT, DETAILS, none)
        }
        Op::IncrementFloat { by } => {
            details.a = by.to_bits();
            (code::INCREMENT_FLOAT, DETAILS, none)
        }
        Op::Append { value } => (code::APPEND, 0, value),
        Op::SetRange { offset, value } => {
            details.c = offset;
            (code::SET_RANGE, DETAILS, value)
        }
        Op::Expire { at_ms, when } => {
            details.a = at_ms;
            (code::EXPIRE, DETAILS | when_bits(when), none)
        }
        Op::Scan { cursor, count } => {
            details.a = cursor;
            details.c = count;
            (code::SCAN, DETAILS, none)
        }
        Op::Count => (code::COUNT, 0, none),
        Op::RandomKey { cursor } => {
            details.a = cursor;
            (code::RANDOM_KEY, DETAILS, none)
        }
        Op::Clear => (code::CLEAR, 0, none),
        Op::OpenSession { client } => {
            details.a = client as u64;
            details.b = (client >> 64) as u64;
            (code::OPEN_SESSION, DETAILS, none)
        }
        Op::EndSession { session } => {
            details.b = session.opened;
            details.c = session.partition;
            (code::END_SESSION, DETAILS, none)
        }
    };
    Packed { code, flags, value, details }
}

#[inline]
pub(super) fn encode(out: &mut Vec<u8>, slot: u32, request: &Request<'_>) {
    let Packed { code, mut flags, value, details } = pack(&request.op);
    if request.numbered.is_some() {
        flags |= NUMBERED;
    }
    let key = request.key;
    out.reserve(
        super::PREFIX_BYTES + size_of::<ArchivedDetailedWithId>() + key.len() + value.len(),
    );
    prefix(out, Kind::Request, code, flags, slot);
    let Route { table, partition, epoch, fingerprint } = request.route;
    let core = Core { table, partition, epoch, fingerprint, key, value };
    let id = request.numbered.map(|n| Id {
        session_partition: n.id.session.partition,
        session_opened: n.id.session.opened,
        number: n.id.number,
        answered_to: n.answered_to,
    });
    match (id, flags & DETAILS != 0) {
        (None, false) => archive(&core, out),
        (None, true) => archive(&Detailed { core, details }, out),
        (Some(id), false) => archive(&WithId { core, id }, out),
        (Some(id), true) => archive(&DetailedWithId { core, details, id }, out),
    }
}

/// A root at the end of `body`, behind the key and the value and nothing else.
#[inline]
fn root<T: rkyv::Portable>(body: &[u8]) -> Result<&T, WireError> {
    let slices = |root: usize| {
        let key = slice_len(body, root + offset_of!(ArchivedCore<'_>, key), 0)?;
        let value = slice_len(body, root + offset_of!(ArchivedCore<'_>, value), key)?;
        (key.checked_add(value)? == root).then_some(())
    };
    let whole = body.len().checked_sub(size_of::<T>()).and_then(slices);
    whole.ok_or(WireError::Archive(Kind::Request))?;
    // SAFETY: the root lies in `body`, and its two pointers, which are at the same place in all four
    // roots, name the bytes before it.
    // SAFETY: archived types have alignment 1 and no invalid bit patterns (integers only).
    Ok(unsafe { rkyv::access_unchecked::<T>(body) })
}

#[inline]
pub(super) fn decode(code: u8, flags: u16, body: &[u8]) -> Result<Request<'_>, WireError> {
    let (core, details, id) = match flags & (NUMBERED | DETAILS) {
        0 => (root::<ArchivedCore>(body)?, None, None),
        NUMBERED => {
            let root = root::<ArchivedWithId>(body)?;
            (&root.core, None, Some(&root.id))
        }
        DETAILS => {
            let root = root::<ArchivedDetailed>(body)?;
            (&root.core, Some(&root.details), None)
        }
        _ => {
            let root = root::<ArchivedDetailedWithId>(body)?;
            (&root.core, Some(&root.details), Some(&root.id))
        }
    };
    let details = details.map_or(Details::default(), |d| Details {
        a: d.a.to_native(),
        b: d.b.to_native(),
        c: d.c.to_native(),
    });
    let numbered = id.map(|id| Numbered {
        id: RequestId {
            session: SessionId {
                partition: id.session_partition.to_native(),
                opened: id.session_opened.to_native(),
            },
            number: id.number.to_native(),
        },
        answered_to: id.answered_to.to_native(),
    });
    let route = Route {
        table: core.table.to_native(),
        partition: core.partition.to_native(),
        epoch: core.epoch.to_native(),
        fingerprint: core.fingerprint.to_native(),
    };
    let op = unpack(code, flags, details, &core.value)?;
    Ok(Request { route, numbered, key: &core.key, op })
}

fn condition(flags: u16, details: Details) -> Condition {
    match flags >> CONDITION_SHIFT & TWO_BITS {
        0 => Condition::Always,
        1 => Condition::Absent,
        2 => Condition::Present,
        _ => Condition::Version(Version { epoch: details.c, seq: details.b }),
    }
}

#[inline]
fn unpack(code: u8, flags: u16, details: Details, value: &[u8]) -> Result<Op<'_>, WireError> {
    let bad_flags = WireError::Flags(Kind::Request, flags);
    let extra = flags & !(NUMBERED | DETAILS);
    let allowed = match code {
        code::PUT => WANT_OLD | CONDITION | EXPIRY,
        code::REMOVE => WANT_OLD | CONDITION,
        code::EXPIRE => WHEN,
        _ => 0,
    };
    if extra & !allowed != 0 {
        return Err(bad_flags);
    }
    let Details { a, b, c } = details;
    Ok(match code {
        code::GET => Op::Get,
        code::LOOK => Op::Look,
        code::PUT => {
            let expiry = match flags >> EXPIRY_SHIFT & TWO_BITS {
                0 => Expiry::Never,
                1 => Expiry::Keep,
                2 => Expiry::At(a),
                _ => return Err(bad_flags),
            };
            let condition = condition(flags, details);
            Op::Put { value, expiry, condition, want_old: flags & WANT_OLD != 0 }
        }
        code::REMOVE => {
            Op::Remove { condition: condition(flags, details), want_old: flags & WANT_OLD != 0 }
        }
        code::INCREMENT => Op::Increment { by: a as i64 },
        // (Whether the sum is a number is the partition's to say.)
        code::INCREMENT_FLOAT => Op::IncrementFloat { by: f64::from_bits(a) },
        code::APPEND => Op::Append { value },
        code::SET_RANGE => Op::SetRange { offset: c, value },
        code::EXPIRE => Op::Expire {
            at_ms: a,
            when: ExpireWhen {
                nx: flags & NX != 0,
                xx: flags & XX != 0,
                gt: flags & GT != 0,
                lt: flags & LT != 0,
            },
        },
        code::SCAN => Op::Scan { cursor: a, count: c },
        code::COUNT => Op::Count,
        code::RANDOM_KEY => Op::RandomKey { cursor: a },
        code::CLEAR => Op::Clear,
        code::OPEN_SESSION => Op::OpenSession { client: u128::from(a) | u128::from(b) << 64 },
        code::END_SESSION => Op::EndSession { session: SessionId { partition: c, opened: b } },
        _ => return Err(WireError::Code(Kind::Request, code)),
    })
}
