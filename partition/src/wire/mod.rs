//! Messages: what travels in the fabric's frames (docs/formats.md, "Messages").
//!
//! A payload is an 8-byte prefix and one rkyv archive to its end, root last. The frame around it has
//! the length and the checksum; here bytes become a [`Message`] only through a check of the archive.
//! Every field of a request and an answer has one place in a root of fixed shape, so encoding writes
//! the bytes once, straight into the output, and decoding borrows them: for these two the check is that
//! the archive has the one shape the encoder gives it, a few compares; rkyv validates the others.

mod answer;
mod hello;
pub mod peer;
mod request;
#[cfg(test)]
mod tests;

use std::fmt;

use rkyv::rancor::{Failure as Rejected, Strategy};
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::{Serializer, sharing::Unshare};

use crate::maps::MapDelta;
use crate::op::{Answer, Request};

pub use hello::{BOTH_WAYS, Hello, Known, Limits, MapView, Welcome};
pub use peer::Peer;

/// Bytes before the archive.
pub const PREFIX_BYTES: usize = 8;

firebrick_log::codes! {
    /// Kinds of messages. The numbers are part of the format.
    pub enum Kind {
        /// First from a client.
        Hello = 1,
        /// The brick's answer to it.
        Welcome = 2,
        /// One operation.
        Request = 3,
        /// Its answer.
        Answer = 4,
        /// Asks for maps.
        FetchMap = 5,
        /// The maps.
        Map = 6,
        /// A rare command: tables, status. JSON.
        Control = 7,
        /// Its answer. JSON.
        ControlAnswer = 8,
        /// Primary to backups: a record to store.
        Prepare = 16,
        /// Backup to primary: stored up to here.
        Voted = 17,
        /// Backup to primary: not stored.
        Refused = 18,
        /// Primary to backups: committed up to here.
        Commit = 19,
        /// Backup to primary: is this committed?
        AskCommit = 20,
        /// New primary to its group: compare.
        TakeOver = 21,
        /// The answer: the epoch history and tail.
        TailIs = 22,
        /// New primary to its group: drop what is above.
        Truncate = 23,
        /// Learner to source: what it has.
        CopyStart = 24,
        /// Learner to source: what came, and how far it may send ahead.
        CopyRead = 25,
        /// Learner to source: the last piece came.
        CopyDone = 26,
        /// Between replicas: compare contents.
        Digest = 27,
        /// Source to learner: what there is.
        CopyListing = 28,
        /// Source to learner: records.
        CopyData = 29,
    }
}

/// A checked message, borrowed from its frame. `slot` is the sender's own number for a request; the
/// answer repeats it.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// First from a client.
    Hello {
        /// The asker's number.
        slot: u32,
        /// Who it is.
        hello: Hello<'a>,
    },
    /// Answer to `Hello`.
    Welcome {
        /// The asker's number.
        slot: u32,
        /// Who the brick is.
        welcome: Welcome<'a>,
    },
    /// One operation.
    Request {
        /// The asker's number.
        slot: u32,
        /// It.
        request: Request<'a>,
    },
    /// Answer to `Request`.
    Answer {
        /// The asker's number.
        slot: u32,
        /// It.
        answer: Answer<'a>,
    },
    /// Asks for what changed in the maps.
    FetchMap {
        /// The asker's number.
        slot: u32,
        /// Since what.
        known: Known,
    },
    /// Answer to `FetchMap`.
    Map {
        /// The asker's number.
        slot: u32,
        /// What changed.
        maps: MapView<'a>,
    },
    /// A rare command.
    Control {
        /// The asker's number.
        slot: u32,
        /// JSON.
        json: &'a str,
    },
    /// Answer to `Control`.
    ControlAnswer {
        /// The asker's number.
        slot: u32,
        /// JSON.
        json: &'a str,
    },
    /// Between the replicas of a partition.
    Peer {
        /// The partition.
        partition: u32,
        /// It.
        peer: Peer<'a>,
    },
}

/// Why a payload is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than the prefix.
    Short(usize),
    /// A kind this program does not know.
    Kind(u8),
    /// A kind that this version lists and does not speak.
    NotSpoken(Kind),
    /// A code within the kind that this program does not know.
    Code(Kind, u8),
    /// Flags that do not go with the kind or code.
    Flags(Kind, u16),
    /// The archive is damaged.
    Archive(Kind),
    /// A field has a value that makes no sense.
    Field(Kind, &'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(n) => write!(
                f,
                "a message of {n} bytes is too short (at least {PREFIX_BYTES}): the peer does not speak this protocol"
            ),
            Self::Kind(k) => write!(
                f,
                "message kind {k} is unknown: the peer may be a newer version; upgrade this side"
            ),
            Self::NotSpoken(k) => write!(
                f,
                "{k:?} messages are reserved and not spoken by this version; upgrade this side"
            ),
            Self::Code(k, c) => {
                write!(f, "{k:?} code {c} is unknown: the peer may be a newer version")
            }
            Self::Flags(k, b) => write!(f, "{k:?} flags {b:#06x} make no sense"),
            Self::Archive(k) => write!(f, "the body of a {k:?} message is damaged"),
            Self::Field(k, name) => write!(f, "{name} in a {k:?} message makes no sense"),
        }
    }
}

impl std::error::Error for WireError {}

/// Checks a payload and borrows the message from it. Never panics, whatever the bytes.
#[inline]
pub fn decode(payload: &[u8]) -> Result<Message<'_>, WireError> {
    let Some((head, body)) = payload.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(WireError::Short(payload.len()));
    };
    let (code, flags) = (head[1], u16::from_le_bytes([head[2], head[3]]));
    let slot = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    match head[0] {
        3 => Ok(Message::Request { slot, request: request::decode(code, flags, body)? }),
        4 => Ok(Message::Answer { slot, answer: answer::decode(code, flags, body)? }),
        16..=29 => {
            let kind = Kind::parse(head[0]).ok_or(WireError::Kind(head[0]))?;
            Ok(Message::Peer { partition: slot, peer: peer::decode(kind, code, flags, body)? })
        }
        kind => {
            let kind = Kind::parse(kind).ok_or(WireError::Kind(kind))?;
            hello::decode(kind, code, flags, slot, body)
        }
    }
}

/// Appends a request to `out`.
#[inline]
pub fn request(out: &mut Vec<u8>, slot: u32, request: &Request<'_>) {
    request::encode(out, slot, request);
}

/// Appends an answer to `out`.
#[inline]
pub fn answer(out: &mut Vec<u8>, slot: u32, answer: &Answer<'_>) {
    answer::encode(out, slot, answer);
}

/// Appends a client's first message.
pub fn hello(out: &mut Vec<u8>, slot: u32, hello: &Hello<'_>) {
    hello::encode_hello(out, slot, hello);
}

/// Appends a brick's answer to `Hello`.
pub fn welcome(out: &mut Vec<u8>, slot: u32, welcome: &Welcome<'_>) {
    hello::encode_welcome(out, slot, welcome);
}

/// Asks for what changed in the maps since what is known.
pub fn fetch_map(out: &mut Vec<u8>, slot: u32, known: Known) {
    hello::encode_fetch_map(out, slot, known);
}

/// Appends what changed in a cluster's maps.
pub fn map(out: &mut Vec<u8>, slot: u32, cluster: u64, changes: MapDelta) {
    hello::encode_map(out, slot, cluster, changes);
}

/// Appends a rare command, as JSON.
pub fn control(out: &mut Vec<u8>, slot: u32, json: &str) {
    hello::encode_text(out, Kind::Control, slot, json);
}

/// Appends a rare command's answer, as JSON.
pub fn control_answer(out: &mut Vec<u8>, slot: u32, json: &str) {
    hello::encode_text(out, Kind::ControlAnswer, slot, json);
}

#[inline]
fn prefix(out: &mut Vec<u8>, kind: Kind, code: u8, flags: u16, slot: u32) {
    let [f0, f1] = flags.to_le_bytes();
    let [s0, s1, s2, s3] = slot.to_le_bytes();
    out.extend_from_slice(&[kind as u8, code, f0, f1, s0, s1, s2, s3]);
}

type Appending<'a> = Serializer<&'a mut Vec<u8>, SubAllocator<'a>, Unshare>;

/// Serialises behind what `out` holds; byte slices need no scratch space.
#[inline]
fn archive<T>(value: &T, out: &mut Vec<u8>)
where
    T: for<'a> rkyv::SerializeUnsized<Strategy<Appending<'a>, Rejected>>,
{
    let mut scratch = [];
    let mut to = Serializer::new(out, SubAllocator::new(&mut scratch), Unshare);
    let done = rkyv::api::serialize_using::<_, Rejected>(value, &mut to);
    assert!(done.is_ok(), "an archive of slices needs no scratch space");
}

/// The length of a slice whose (pointer, length) pair lies at `at`, when it begins at `from`.
#[inline]
fn slice_len(body: &[u8], at: usize, from: usize) -> Option<usize> {
    let [p0, p1, p2, p3, l0, l1, l2, l3] = *body.get(at..)?.first_chunk()?;
    let begin = at as i64 + i64::from(i32::from_le_bytes([p0, p1, p2, p3]));
    (begin == from as i64).then_some(u32::from_le_bytes([l0, l1, l2, l3]) as usize)
}

/// Checks an archive whose root ends at the end of `body`.
#[inline]
fn access<T>(kind: Kind, body: &[u8]) -> Result<&T, WireError>
where
    T: rkyv::Portable
        + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::low::LowValidator<'a, Rejected>>,
{
    rkyv::api::low::access::<T, Rejected>(body).map_err(|_| WireError::Archive(kind))
}
