//! Sessions and their requests, as records name them.

use rkyv::{Archive, Serialize};

use super::Version;

/// A session's name: the partition that opened it and the version of that record. Not the sequence number alone: those
/// that a loss took along (a power failure of an `async` table, a restart of a `memory` one) are given again, in another
/// epoch, and a client that outlived the loss still has the session of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// Partition id.
    pub partition: u32,
    /// Version of the `SessionOpen` record, as [`SessionId::opened_by`] has it.
    pub opened: u64,
}

impl SessionId {
    /// The low 40 bits of the sequence number, below the low 24 of the epoch: within an epoch another record of that
    /// name comes 2^40 records later, long after a client could have the session still.
    pub fn opened_by(partition: u32, version: Version) -> Self {
        let seq = version.seq & ((1 << 40) - 1);
        Self { partition, opened: u64::from(version.epoch) << 40 | seq }
    }
}

/// A request: numbered from 1 within its session. A session ends before its numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// The session.
    pub session: SessionId,
    /// The number.
    pub number: u32,
}

/// One remembered result, as a `Sessions` record keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
pub struct SessionResult {
    /// Session: partition that opened it.
    pub session_partition: u32,
    /// Session: version of its opening record.
    pub session_opened: u64,
    /// Request number; 0 says only that the session is open.
    pub number: u32,
    /// Version the request wrote.
    pub epoch: u32,
    /// Version the request wrote.
    pub seq: u64,
    /// `Answered` as a byte.
    pub answered: u8,
    /// The integer or length answered; 0 for a version.
    pub result: i64,
}

impl SessionResult {
    /// Bytes of one in a record.
    pub const BYTES: usize = 37;
}
