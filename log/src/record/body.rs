//! Bodies: one rkyv root per kind, at the end of the record's bytes, slices inlined.

use rkyv::rancor::{Error, Failure};
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;
use rkyv::ser::{Positional, Serializer};
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::session::ArchivedSessionResult;
use super::{Kind, RequestId, SessionId, SessionResult};

/// Bytes behind the results of a `Sessions` record.
pub(crate) const SESSIONS_ROOT_BYTES: usize = 8;

#[derive(Archive, Serialize)]
struct Put<'a> {
    #[rkyv(with = InlineAsBox)]
    key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    value: &'a [u8],
}

#[derive(Archive, Serialize)]
struct PutX<'a> {
    put: Put<'a>,
    expires_ms: u64,
}

#[derive(Archive, Serialize)]
struct Id {
    session_partition: u32,
    session_opened: u64,
    number: u32,
}

#[derive(Archive, Serialize)]
#[cfg_attr(not(test), expect(dead_code, reason = "only its archived form is"))]
struct PutId<'a> {
    put: Put<'a>,
    id: Id,
}

#[derive(Archive, Serialize)]
#[cfg_attr(not(test), expect(dead_code, reason = "only its archived form is"))]
struct PutXId<'a> {
    put: PutX<'a>,
    id: Id,
}

#[derive(Archive, Serialize)]
struct Remove<'a> {
    #[rkyv(with = InlineAsBox)]
    key: &'a [u8],
}

#[derive(Archive, Serialize)]
struct RemoveId<'a> {
    remove: Remove<'a>,
    id: Id,
}

#[derive(Archive, Serialize)]
struct SessionOpen {
    client_low: u64,
    client_high: u64,
}

#[derive(Archive, Serialize)]
struct SessionEnd {
    session_partition: u32,
    session_opened: u64,
}

#[derive(Archive, Serialize)]
struct Sessions<'a> {
    #[rkyv(with = InlineAsBox)]
    results: &'a [SessionResult],
}

const _: () = assert!(size_of::<ArchivedSessionResult>() == SessionResult::BYTES);
const _: () = assert!(size_of::<ArchivedSessions>() == SESSIONS_ROOT_BYTES);
const _: () = assert!(size_of::<ArchivedPut>() == 16);
const _: () = assert!(size_of::<ArchivedPutX>() == 24);
const _: () = assert!(size_of::<ArchivedPutId>() == 32);
const _: () = assert!(size_of::<ArchivedPutXId>() == 40);

/// What a record is built from.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// A value for a key; kind by what is present.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// Expiry, Unix milliseconds; 0 is never.
        expires_ms: u64,
        /// The request that wrote it.
        id: Option<RequestId>,
    },
    /// A tombstone.
    Remove {
        /// The key.
        key: &'a [u8],
        /// The request that wrote it.
        id: Option<RequestId>,
    },
    /// Everything before is dead.
    Clear,
    /// A session begins.
    SessionOpen {
        /// The client's random id.
        client: u128,
    },
    /// A session ends.
    SessionEnd {
        /// Which.
        session: SessionId,
    },
    /// Remembered results.
    Sessions {
        /// All of them.
        results: &'a [SessionResult],
    },
    /// A primary took over.
    TakeOver,
}

/// A body's fields, borrowed from the record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Expiry, Unix milliseconds; 0 is never.
    pub expires_ms: u64,
    /// The request that wrote it.
    pub id: Option<RequestId>,
}

impl Body<'_> {
    /// The record kind this body makes.
    pub fn kind(&self) -> Kind {
        match self {
            Body::Put { expires_ms: 0, id: None, .. } => Kind::Put,
            Body::Put { id: None, .. } => Kind::PutX,
            Body::Put { expires_ms: 0, .. } => Kind::PutId,
            Body::Put { .. } => Kind::PutXId,
            Body::Remove { id: None, .. } => Kind::Remove,
            Body::Remove { .. } => Kind::RemoveId,
            Body::Clear => Kind::Clear,
            Body::SessionOpen { .. } => Kind::SessionOpen,
            Body::SessionEnd { .. } => Kind::SessionEnd,
            Body::Sessions { .. } => Kind::Sessions,
            Body::TakeOver => Kind::TakeOver,
        }
    }

    /// The exact length of the archive, known before it is written, so that space is reserved once.
    pub fn archived_len(&self) -> usize {
        match self {
            Body::Put { key, value, expires_ms, id } => {
                let expiry = if *expires_ms == 0 { 0 } else { 8 };
                let id = if id.is_some() { size_of::<ArchivedId>() } else { 0 };
                key.len() + value.len() + size_of::<ArchivedPut>() + expiry + id
            }
            Body::Remove { key, id } => {
                let id = if id.is_some() { size_of::<ArchivedId>() } else { 0 };
                key.len() + size_of::<ArchivedRemove>() + id
            }
            Body::Clear | Body::TakeOver => 0,
            Body::SessionOpen { .. } => size_of::<ArchivedSessionOpen>(),
            Body::SessionEnd { .. } => size_of::<ArchivedSessionEnd>(),
            Body::Sessions { results } => {
                results.len() * size_of::<ArchivedSessionResult>() + size_of::<ArchivedSessions>()
            }
        }
    }

    /// Serialises into `out`, which is exactly [`Body::archived_len`] bytes.
    pub fn write(&self, out: &mut [u8]) {
        match *self {
            Body::Put { key, value, expires_ms, id } => write_put(key, value, expires_ms, id, out),
            Body::Remove { key, id: None } => archive(&Remove { key }, out),
            Body::Remove { key, id: Some(id) } => {
                archive(&RemoveId { remove: Remove { key }, id: id.into() }, out);
            }
            Body::Clear | Body::TakeOver => {}
            Body::SessionOpen { client } => archive(
                &SessionOpen { client_low: client as u64, client_high: (client >> 64) as u64 },
                out,
            ),
            Body::SessionEnd { session } => archive(
                &SessionEnd {
                    session_partition: session.partition,
                    session_opened: session.opened,
                },
                out,
            ),
            Body::Sessions { results } => archive(&Sessions { results }, out),
        }
    }
}

impl From<RequestId> for Id {
    fn from(id: RequestId) -> Self {
        Self {
            session_partition: id.session.partition,
            session_opened: id.session.opened,
            number: id.number,
        }
    }
}

impl From<&ArchivedId> for RequestId {
    fn from(id: &ArchivedId) -> Self {
        Self {
            session: SessionId {
                partition: id.session_partition.to_native(),
                opened: id.session_opened.to_native(),
            },
            number: id.number.to_native(),
        }
    }
}

type InPlace<'a> = Serializer<Buffer<'a>, SubAllocator<'a>, ()>;

/// Writes what rkyv's serializer does (`archive_put`, in the tests), in a fraction of its time: each put pays for this.
#[inline]
fn write_put(key: &[u8], value: &[u8], expires_ms: u64, id: Option<RequestId>, out: &mut [u8]) {
    let (slices, root) = out.split_at_mut(key.len() + value.len());
    let (key_out, value_out) = slices.split_at_mut(key.len());
    key_out.copy_from_slice(key);
    value_out.copy_from_slice(value);
    let Some((put, rest)) = root.split_first_chunk_mut::<{ size_of::<ArchivedPut>() }>() else {
        unreachable!("archived_len counts the root")
    };
    let at = (key.len() + value.len()) as u32;
    // A pointer counts from where it lies.
    let pair =
        |to: u32, from: u32, len: u32| u128::from(to.wrapping_sub(from)) | u128::from(len) << 32;
    let (key_len, value_len) = (key.len() as u32, value.len() as u32);
    let pairs = pair(0, at, key_len) | pair(key_len, at + 8, value_len) << 64;
    *put = pairs.to_le_bytes();
    let rest = match rest.split_first_chunk_mut::<8>() {
        Some((expiry, rest)) if expires_ms != 0 => {
            *expiry = expires_ms.to_le_bytes();
            rest
        }
        _ => rest,
    };
    if let Some(RequestId { session, number }) = id {
        let id = u128::from(session.partition)
            | u128::from(session.opened) << 32
            | u128::from(number) << 96;
        rest.copy_from_slice(&id.to_le_bytes());
    }
}

#[cfg(test)]
pub(super) fn archive_put(
    (key, value): (&[u8], &[u8]),
    expires_ms: u64,
    id: Option<RequestId>,
    out: &mut [u8],
) {
    let put = Put { key, value };
    match (expires_ms, id.map(Id::from)) {
        (0, None) => archive(&put, out),
        (0, Some(id)) => archive(&PutId { put, id }, out),
        (_, None) => archive(&PutX { put, expires_ms }, out),
        (_, Some(id)) => archive(&PutXId { put: PutX { put, expires_ms }, id }, out),
    }
}

/// Results as [`Body::Sessions`] archives them, for a record that is written a piece at a time.
pub(crate) fn write_results(results: &[SessionResult], out: &mut [u8]) {
    for (result, out) in results.iter().zip(out.chunks_exact_mut(SessionResult::BYTES)) {
        out[0..4].copy_from_slice(&result.session_partition.to_le_bytes());
        out[4..12].copy_from_slice(&result.session_opened.to_le_bytes());
        out[12..16].copy_from_slice(&result.number.to_le_bytes());
        out[16..20].copy_from_slice(&result.epoch.to_le_bytes());
        out[20..28].copy_from_slice(&result.seq.to_le_bytes());
        out[28] = result.answered;
        out[29..37].copy_from_slice(&result.result.to_le_bytes());
    }
}

/// The root behind that many results.
pub(crate) fn sessions_root(results: usize) -> [u8; SESSIONS_ROOT_BYTES] {
    let mut root = [0; SESSIONS_ROOT_BYTES];
    let back = -((results * SessionResult::BYTES) as i32);
    root[..4].copy_from_slice(&back.to_le_bytes());
    root[4..].copy_from_slice(&(results as u32).to_le_bytes());
    root
}

/// The archive is written in place: byte slices need no scratch space.
fn archive<T>(value: &T, out: &mut [u8])
where
    T: for<'a> rkyv::SerializeUnsized<rkyv::rancor::Strategy<InPlace<'a>, Error>>,
{
    let len = out.len();
    let mut scratch = [];
    let mut serializer = Serializer::new(Buffer::from(out), SubAllocator::new(&mut scratch), ());
    let done = rkyv::api::serialize_using::<_, Error>(value, &mut serializer);
    assert!(done.is_ok() && serializer.writer.pos() == len, "archived_len is wrong");
}

fn access<T: rkyv::Portable>(body: &[u8]) -> &T {
    debug_assert!(body.len() >= size_of::<T>());
    // SAFETY: a `Record` is made only from bytes of whose archive `has_shape` is true: the root is
    // inside, and its pointers name the bytes before it and no others.
    // SAFETY: archived types have alignment 1 and no invalid bit patterns (integers only).
    unsafe { rkyv::access_unchecked::<T>(body) }
}

fn put_fields<'a>(put: &'a ArchivedPut<'_>) -> Fields<'a> {
    Fields { key: &put.key, value: &put.value, expires_ms: 0, id: None }
}

pub(super) fn fields(kind: Kind, body: &[u8]) -> Fields<'_> {
    match kind {
        Kind::Put => put_fields(access::<ArchivedPut>(body)),
        Kind::PutX => {
            let a = access::<ArchivedPutX>(body);
            Fields { expires_ms: a.expires_ms.to_native(), ..put_fields(&a.put) }
        }
        Kind::PutId => {
            let a = access::<ArchivedPutId>(body);
            Fields { id: Some((&a.id).into()), ..put_fields(&a.put) }
        }
        Kind::PutXId => {
            let a = access::<ArchivedPutXId>(body);
            Fields {
                expires_ms: a.put.expires_ms.to_native(),
                id: Some((&a.id).into()),
                ..put_fields(&a.put.put)
            }
        }
        Kind::Remove => Fields { key: &access::<ArchivedRemove>(body).key, ..Fields::default() },
        Kind::RemoveId => {
            let a = access::<ArchivedRemoveId>(body);
            Fields { key: &a.remove.key, id: Some((&a.id).into()), ..Fields::default() }
        }
        Kind::Clear | Kind::SessionOpen | Kind::SessionEnd | Kind::Sessions | Kind::TakeOver => {
            Fields::default()
        }
    }
}

/// The session a `SessionEnd` record ends.
pub(super) fn session_end(body: &[u8]) -> SessionId {
    let a = access::<ArchivedSessionEnd>(body);
    SessionId { partition: a.session_partition.to_native(), opened: a.session_opened.to_native() }
}

/// The client id a `SessionOpen` record carries.
pub(super) fn session_client(body: &[u8]) -> u128 {
    let a = access::<ArchivedSessionOpen>(body);
    u128::from(a.client_low.to_native()) | u128::from(a.client_high.to_native()) << 64
}

/// The results a `Sessions` record carries.
pub(super) fn session_results(body: &[u8]) -> impl Iterator<Item = SessionResult> + '_ {
    access::<ArchivedSessions>(body).results.iter().map(|r| SessionResult {
        session_partition: r.session_partition.to_native(),
        session_opened: r.session_opened.to_native(),
        number: r.number.to_native(),
        epoch: r.epoch.to_native(),
        seq: r.seq.to_native(),
        answered: r.answered,
        result: r.result.to_native(),
    })
}

/// Where the (pointer, length) pair of the key lies, counted from the archive's end, and whether a
/// pair of the value follows it.
const fn pairs(kind: Kind) -> Option<(usize, bool)> {
    Some(match kind {
        Kind::Put => (size_of::<ArchivedPut>(), true),
        Kind::PutX => (size_of::<ArchivedPutX>(), true),
        Kind::PutId => (size_of::<ArchivedPutId>(), true),
        Kind::PutXId => (size_of::<ArchivedPutXId>(), true),
        Kind::Remove => (size_of::<ArchivedRemove>(), false),
        Kind::RemoveId => (size_of::<ArchivedRemoveId>(), false),
        Kind::Sessions => (size_of::<ArchivedSessions>(), false),
        Kind::Clear | Kind::SessionOpen | Kind::SessionEnd | Kind::TakeOver => return None,
    })
}

#[inline]
fn pair_at(body: &[u8], at: usize) -> Option<(i32, usize)> {
    let b: &[u8; 8] = body.get(at..)?.first_chunk()?;
    let offset = i32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Some((offset, u32::from_le_bytes([b[4], b[5], b[6], b[7]]) as usize))
}

/// The archive is laid out the one way [`Body::write`] lays it out: slices from the start, one after
/// the other, then the root. A few compares that make reading it safe.
#[inline]
pub(super) fn has_shape(kind: Kind, body: &[u8]) -> bool {
    let Some((from_end, has_value)) = pairs(kind) else {
        return body.len()
            == match kind {
                Kind::SessionOpen => size_of::<ArchivedSessionOpen>(),
                Kind::SessionEnd => size_of::<ArchivedSessionEnd>(),
                _ => 0,
            };
    };
    let Some(root) = body.len().checked_sub(from_end) else { return false };
    let Some((offset, len)) = pair_at(body, root) else { return false };
    let unit = if kind == Kind::Sessions { size_of::<ArchivedSessionResult>() } else { 1 };
    let first = len.checked_mul(unit);
    let points = |offset: i32, at: usize, to: usize| at as i64 + i64::from(offset) == to as i64;
    if !has_value {
        return first == Some(root) && points(offset, root, 0);
    }
    let Some((value_offset, value_len)) = pair_at(body, root + 8) else { return false };
    len.checked_add(value_len) == Some(root)
        && points(offset, root, 0)
        && points(value_offset, root + 8, len)
}

/// The key, bounds-checked; empty for a kind that has none.
#[inline]
pub(super) fn key(kind: Kind, body: &[u8]) -> &[u8] {
    if kind == Kind::Sessions {
        return &[];
    }
    let Some((from_end, _)) = pairs(kind) else { return &[] };
    let Some(root) = body.len().checked_sub(from_end) else { return &[] };
    let Some((_, len)) = pair_at(body, root) else { return &[] };
    body.get(..len).unwrap_or(&[])
}

pub(super) fn is_valid(kind: Kind, body: &[u8]) -> bool {
    macro_rules! valid {
        ($t:ty) => {
            rkyv::access::<$t, Failure>(body).is_ok()
        };
    }
    match kind {
        Kind::Put => valid!(ArchivedPut),
        Kind::PutX => valid!(ArchivedPutX),
        Kind::PutId => valid!(ArchivedPutId),
        Kind::PutXId => valid!(ArchivedPutXId),
        Kind::Remove => valid!(ArchivedRemove),
        Kind::RemoveId => valid!(ArchivedRemoveId),
        Kind::SessionOpen => valid!(ArchivedSessionOpen),
        Kind::SessionEnd => valid!(ArchivedSessionEnd),
        Kind::Sessions => valid!(ArchivedSessions),
        Kind::Clear | Kind::TakeOver => body.is_empty(),
    }
}
