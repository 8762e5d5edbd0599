//! What may be asked of a partition, and what it answers. One vocabulary for the native protocol, the
//! RESP front, the mesh between cores and the state machines; `wire` has its encoding.

pub use firebrick_log::Version;
pub use firebrick_log::record::{RequestId, SessionId};

/// A moment, passed in by whoever owns a clock; nothing in this crate reads one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// `CLOCK_BOOTTIME` in nanoseconds: goes on while the machine is suspended.
    pub boot_ns: u64,
    /// Wall clock in milliseconds since 1970, for expiry times only.
    pub unix_ms: u64,
}

/// Where a request believes its key lives. Equal to the brick's own route, or the request is not served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// Table id.
    pub table: u32,
    /// Partition id.
    pub partition: u32,
    /// Epoch of the replica group.
    pub epoch: u32,
    /// CRC32 of the route; see `maps`.
    pub fingerprint: u32,
}

/// The session and number of a write that may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Which request.
    pub id: RequestId,
    /// All requests numbered up to here were answered, so their results may be forgotten.
    pub answered_to: u32,
}

/// One request to one partition.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where the sender believes the key lives.
    pub route: Route,
    /// Exactly-once identity; `None` for reads and for RESP.
    pub numbered: Option<Numbered>,
    /// The key; empty for an operation on the whole partition.
    pub key: &'a [u8],
    /// What to do.
    pub op: Op<'a>,
}

/// Whether a write may happen, decided against the newest record of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// The key has no value.
    Absent,
    /// The key has a value.
    Present,
    /// The key's version is this one.
    Version(Version),
}

/// What a put does to the key's expiry time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// The value does not expire.
    #[default]
    Never,
    /// As the value that it replaces.
    Keep,
    /// At this Unix time in milliseconds.
    At(u64),
}

/// When `Expire` may change an expiry time (Redis's NX, XX, GT, LT; XX may join GT or LT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireWhen {
    /// Only when there is none.
    pub nx: bool,
    /// Only when there is one.
    pub xx: bool,
    /// Only when the new one is later ("none" counts as infinitely late).
    pub gt: bool,
    /// Only when the new one is earlier.
    pub lt: bool,
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// The value, its version and expiry.
    Get,
    /// As `Get`, without the bytes of the value.
    Look,
    /// Store a value.
    Put {
        /// The value.
        value: &'a [u8],
        /// When it expires.
        expiry: Expiry,
        /// Whether to store.
        condition: Condition,
        /// Answer with the old value (`Answer::Old`).
        want_old: bool,
    },
    /// Take the value away.
    Remove {
        /// Whether to remove.
        condition: Condition,
        /// Answer with the old value (`Answer::Old`).
        want_old: bool,
    },
    /// Add to a decimal integer; an absent key is 0. Keeps the expiry.
    Increment {
        /// How much.
        by: i64,
    },
    /// Add to a decimal number; an absent key is 0. Keeps the expiry.
    IncrementFloat {
        /// How much.
        by: f64,
    },
    /// Add bytes at the end; an absent key is empty. Keeps the expiry.
    Append {
        /// The bytes.
        value: &'a [u8],
    },
    /// Overwrite bytes from an offset, padding with zeros. Keeps the expiry.
    SetRange {
        /// Where.
        offset: u32,
        /// The bytes; none changes nothing.
        value: &'a [u8],
    },
    /// Set (`at_ms` > 0) or take away (0) the expiry. A time already past removes the key.
    Expire {
        /// Unix milliseconds, or 0 for "never".
        at_ms: u64,
        /// Whether to.
        when: ExpireWhen,
    },
    /// Keys of this partition from a cursor on; 0 begins, and an answered 0 ends.
    Scan {
        /// From an earlier answer.
        cursor: u64,
        /// About how many keys.
        count: u32,
    },
    /// How many keys have a value.
    Count,
    /// Any key; `cursor` is the caller's random number.
    RandomKey {
        /// Random bits.
        cursor: u64,
    },
    /// Remove everything.
    Clear,
    /// Open a session for this client.
    OpenSession {
        /// 128 random bits per process start.
        client: u128,
    },
    /// End a session.
    EndSession {
        /// Which.
        session: SessionId,
    },
}

impl Op<'_> {
    /// The operation changes nothing and may be answered by any replica.
    pub fn is_read(&self) -> bool {
        matches!(self, Op::Get | Op::Look | Op::Scan { .. } | Op::Count | Op::RandomKey { .. })
    }

    /// The value that comes with it.
    pub fn value(&self) -> &[u8] {
        match self {
            Op::Put { value, .. } | Op::Append { value } | Op::SetRange { value, .. } => value,
            _ => &[],
        }
    }
}

/// What a partition answers. Borrowed answers point into the mapped log: bytes go from there to the
/// socket's buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer<'a> {
    /// To `Get`.
    Value {
        /// The value.
        value: &'a [u8],
        /// Its version.
        version: Version,
        /// Unix milliseconds; 0 is never.
        expires_ms: u64,
    },
    /// To `Look`.
    Seen {
        /// The value's length in bytes.
        len: u32,
        /// Its version.
        version: Version,
        /// Unix milliseconds; 0 is never.
        expires_ms: u64,
    },
    /// The key has no value. To `Remove` and `Expire`: nothing was changed.
    Absent,
    /// Done: the version written.
    Done {
        /// The new version.
        version: Version,
    },
    /// To a write with `want_old`.
    Old {
        /// The write happened.
        applied: bool,
        /// There was a value before.
        existed: bool,
        /// It.
        value: &'a [u8],
        /// The new version; the current one when not applied.
        version: Version,
    },
    /// To `Increment`.
    Integer {
        /// The new value.
        value: i64,
        /// The new version.
        version: Version,
    },
    /// To `IncrementFloat`: the new value as text.
    Float {
        /// Decimal digits.
        value: &'a [u8],
        /// The new version.
        version: Version,
    },
    /// To `Append` and `SetRange`.
    Length {
        /// The value's new length.
        len: u64,
        /// The new version (the current one, or zero, when nothing was written).
        version: Version,
    },
    /// The condition does not hold; nothing was changed.
    Refused {
        /// The key's version; zero when it is absent.
        current: Version,
    },
    /// To `Scan`.
    Keys {
        /// For the next call; 0 ends.
        cursor: u64,
        /// Packed: `len u32 | bytes`, one after the other; see [`packed_keys`].
        packed: &'a [u8],
    },
    /// To `RandomKey`.
    Key {
        /// The key.
        key: &'a [u8],
    },
    /// To `Count`.
    Count {
        /// How many.
        count: u64,
    },
    /// To `OpenSession`.
    Session {
        /// Its name.
        session: SessionId,
    },
    /// The request's route is older than the partition's: here is the current one.
    StaleRoute {
        /// The current route.
        route: Route,
    },
    /// It failed.
    Failed(Failure),
}

firebrick_log::codes! {
    /// Why a request failed. Unless a line says otherwise, nothing was changed.
    pub enum Failure {
        /// The value is not a 64-bit integer.
        NotInteger = 1,
        /// The sum does not fit 64 bits.
        Overflow = 2,
        /// The value is not a number.
        NotFloat = 3,
        /// The sum is not a finite number.
        NotFinite = 4,
        /// The key or value is over the limit.
        TooLarge = 5,
        /// No room in memory or on disk.
        NoSpace = 6,
        /// No lease, or the brick is starting or stopping.
        Unavailable = 7,
        /// It may or may not have been applied: the session or the request's place in it is gone.
        InDoubt = 8,
        /// The stored record does not match its checksum.
        Corrupt = 9,
        /// No such table.
        NoTable = 10,
        /// Too much in flight; try later.
        Busy = 11,
        /// The message makes no sense.
        Malformed = 12,
        /// This brick does not hold the partition, or the key is not the partition's.
        WrongPartition = 13,
        /// The sender's route is newer than this brick's map.
        RouteTooNew = 14,
        /// This backup cannot tell just now: the primary can.
        AskPrimary = 15,
        /// The disk of the partition's only replica failed, or its files cannot be opened: it waits for a person.
        DiskFailed = 16,
    }
}

/// The keys of a packed [`Answer::Keys`].
pub fn packed_keys(packed: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = packed;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let (key, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = after;
        Some(key)
    })
}
