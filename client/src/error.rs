//! What can go wrong, in words an application can act on.

use std::fmt;
use std::sync::Arc;

use firebrick_partition::Version;

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request failed. Unless a variant says otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The write may or may not have happened, and no retry can find out any more.
    InDoubt,
    /// The table has no room left for this write.
    NoSpace,
    /// The key or the value is over the limit.
    TooLarge {
        /// "key" or "value".
        what: &'static str,
        /// How long it is, bytes; 0 when only the brick knows.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The brick that holds the key does not serve it now: it starts, stops, has lost its lease or does not
    /// answer. The text says which brick and why.
    Unavailable(Arc<str>),
    /// Too much is in flight, here or at the brick.
    Busy,
    /// The key does not have the version that the write names.
    VersionMismatch {
        /// The version it has; `None` when it has no value.
        current: Option<Version>,
    },
    /// The key has a value already.
    Exists {
        /// That value's version.
        current: Version,
    },
    /// The key has no value, and the write asked for one.
    Absent,
    /// The value is not a 64-bit integer.
    NotInteger,
    /// The sum does not fit 64 bits.
    Overflow,
    /// The value is not a decimal number.
    NotFloat,
    /// The sum is not a finite number.
    NotFinite,
    /// The stored record does not match its checksum, so it is not served.
    Corrupt,
    /// The deadline passed. A write that may have happened is [`Error::InDoubt`] instead.
    Deadline {
        /// How long the request was given, milliseconds.
        ms: u64,
        /// The brick that was waited for, if it was one.
        from: Option<Arc<str>>,
    },
    /// No such table.
    NoTable(Arc<str>),
    /// No brick answers there, and this request was never sent.
    Connection {
        /// Where.
        address: Arc<str>,
        /// The kernel's word, or what the brick did.
        why: Arc<str>,
    },
    /// The brick said something that makes no sense, or speaks another version.
    Protocol(Arc<str>),
    /// This host or process does not allow what the client needs (`io_uring` for `Direct`).
    Local(Arc<str>),
    /// A request about tables or the cluster was not done.
    Control {
        /// Why, for programs.
        kind: Declined,
        /// A sentence for people.
        text: Arc<str>,
    },
    /// The client was closed.
    Closed,
}

/// Why a request about tables or the cluster was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// It is not allowed, or makes no sense.
    Refused,
    /// What it names is not there.
    NotFound,
    /// What it would make is there.
    Exists,
    /// Nothing was changed, and the same may be done soon.
    NotNow,
    /// It may have been done.
    InDoubt,
}

impl Error {
    /// The same request may well succeed later, and sending it again cannot apply it twice.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::NoSpace
                | Self::Unavailable(_)
                | Self::Busy
                | Self::Deadline { .. }
                | Self::Connection { .. }
        )
    }

    pub(crate) fn protocol(what: &str) -> Self {
        Self::Protocol(what.into())
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InDoubt => f.write_str(
                "it is not known whether the write happened: read the key before writing it again",
            ),
            Self::NoSpace => f.write_str(
                "the brick has no room for this write in its memory or on its disk: remove keys or give \
                 it more; reads and removes still work",
            ),
            Self::TooLarge { what, bytes: 0, limit } => {
                write!(f, "the {what} would be over the limit of {limit} bytes: split it")
            }
            Self::TooLarge { what, bytes, limit } => {
                write!(f, "the {what} has {bytes} bytes and the limit is {limit}: split it")
            }
            Self::Unavailable(why) => write!(
                f,
                "{why}; nothing was changed: try again, and look at `firebrick status` if it stays so"
            ),
            Self::Busy => f.write_str(
                "too many requests are in flight, and nothing was changed: try again later or \
                 send fewer at once",
            ),
            Self::VersionMismatch { current: Some(v) } => write!(
                f,
                "the key is at version {}.{} now: read it and decide again",
                v.epoch, v.seq
            ),
            Self::VersionMismatch { current: None } => {
                f.write_str("the key has no value any more: read it and decide again")
            }
            Self::Exists { current } => write!(
                f,
                "the key already has a value, at version {}.{}: use `put` to replace it",
                current.epoch, current.seq
            ),
            Self::Absent => f.write_str("the key has no value: use `put` to give it one"),
            Self::NotInteger => f.write_str(
                "the value is not a decimal 64-bit integer, so it cannot be incremented: put a \
                 number first",
            ),
            Self::Overflow => f.write_str(
                "the sum does not fit a signed 64-bit integer, and the value was left as it is",
            ),
            Self::NotFloat => f.write_str("the value is not a decimal number: put a number first"),
            Self::NotFinite => f.write_str("the sum is not a finite number; nothing was changed"),
            Self::Corrupt => f.write_str(
                "the stored value does not match its checksum and is not served: put it again, \
                 and look at the brick's log",
            ),
            Self::Deadline { ms, from } => write!(
                f,
                "no answer within {ms} ms{}{}, and nothing was changed: try again, or give a longer \
                 deadline",
                if from.is_some() { " from " } else { "" },
                from.as_deref().unwrap_or_default()
            ),
            Self::NoTable(name) => write!(
                f,
                "there is no table {name}: create it with `firebrick table create` or look at \
                 `firebrick table list`"
            ),
            Self::Connection { address, why } => {
                write!(
                    f,
                    "no brick answers at {address} ({why}): start one with `firebrick up`, or give the \
                     native address of one that runs"
                )
            }
            Self::Protocol(what) => write!(
                f,
                "the brick's answer makes no sense ({what}): are brick and client of the same \
                 version?"
            ),
            Self::Local(text) | Self::Control { text, .. } => f.write_str(text),
            Self::Closed => f.write_str("the client was closed: connect again"),
        }
    }
}
