//! The fixed header of a record.

use super::Flaw;

/// Size of the header.
pub const HEADER_BYTES: usize = 32;
/// The version of the record format this program writes, and the only one it reads.
pub const RECORD_VERSION: u8 = 1;

/// The version of a value: ordered by epoch, then sequence number. A get returns it, a conditional
/// write names it. Zero is "absent".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Epoch of the replica group that prepared the record.
    pub epoch: u32,
    /// Position in the partition's order of writes.
    pub seq: u64,
}

crate::codes! {
    /// What a record says. The discriminants are part of the format.
    pub enum Kind {
        /// Key and value.
        Put = 1,
        /// Key, value, expiry time.
        PutX = 2,
        /// Key, value, request id.
        PutId = 3,
        /// Key, value, expiry time, request id.
        PutXId = 4,
        /// A tombstone: the key.
        Remove = 5,
        /// A tombstone with a request id.
        RemoveId = 6,
        /// Every earlier record of a key is dead (FLUSHALL).
        Clear = 7,
        /// A client's session begins; its name is (partition, this record's version).
        SessionOpen = 8,
        /// A session ends.
        SessionEnd = 9,
        /// Results of sessions, written by cleaning so that dead records may go.
        Sessions = 10,
        /// A new primary took over: everything before it is decided.
        TakeOver = 11,
    }
}

impl Kind {
    /// The record gives its key a value.
    pub fn is_put(self) -> bool {
        matches!(self, Self::Put | Self::PutX | Self::PutId | Self::PutXId)
    }

    /// The record takes its key's value away.
    pub fn is_remove(self) -> bool {
        matches!(self, Self::Remove | Self::RemoveId)
    }
}

/// What the first try of a request was answered, so that a retry gets the same after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Answered {
    /// The record's version.
    #[default]
    Version = 0,
    /// The value, as a decimal integer (increment).
    Integer = 1,
    /// The value's length (append, setrange).
    Length = 2,
}

impl Answered {
    fn parse(byte: u8) -> Self {
        match byte {
            1 => Self::Integer,
            2 => Self::Length,
            _ => Self::Version,
        }
    }
}

/// What the writer decides about a record besides its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Sequence number, from 1.
    pub seq: u64,
    /// Epoch of the replica group.
    pub epoch: u32,
    /// The commit watermark at this record's time; `seq - commit` fits 16 bits.
    pub commit: u64,
    /// What the request was answered.
    pub answered: Answered,
}

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole record, header included, without padding.
    pub len: u32,
    /// CRC32 of bytes 8..len.
    pub crc: u32,
    /// Sequence number.
    pub seq: u64,
    /// Epoch.
    pub epoch: u32,
    /// Partition id (a child of a split keeps its parent's).
    pub partition: u32,
    /// `seq` minus the commit watermark.
    pub commit_lag: u16,
    /// Kind.
    pub kind: Kind,
    /// What the request was answered.
    pub answered: Answered,
}

impl Header {
    /// Reads the fields; `len` and `crc` are the caller's to check.
    pub(super) fn parse(b: &[u8; HEADER_BYTES]) -> Result<Self, Flaw> {
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        if b[27] != RECORD_VERSION {
            return Err(Flaw::Version(b[27]));
        }
        let kind = Kind::parse(b[26]).ok_or(Flaw::Kind(b[26]))?;
        Ok(Self {
            len: u32_at(0),
            crc: u32_at(4),
            seq: u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32,
            epoch: u32_at(16),
            partition: u32_at(20),
            commit_lag: u16::from_le_bytes([b[24], b[25]]),
            kind,
            answered: Answered::parse(b[28]),
        })
    }

    /// Writes every field but `len`, which the log stores last, and `crc`, which comes from the rest.
    pub fn fill(b: &mut [u8; HEADER_BYTES], meta: &Meta, partition: u32, kind: Kind) {
        let lag = meta.seq - meta.commit;
        assert!(u16::try_from(lag).is_ok(), "commit watermark {lag} records behind");
        b[0..8].fill(0);
        b[8..16].copy_from_slice(&meta.seq.to_le_bytes());
        b[16..20].copy_from_slice(&meta.epoch.to_le_bytes());
        b[20..24].copy_from_slice(&partition.to_le_bytes());
        b[24..26].copy_from_slice(&(lag as u16).to_le_bytes());
        b[26] = kind as u8;
        b[27] = RECORD_VERSION;
        b[28] = meta.answered as u8;
        b[29..32].fill(0);
    }

    /// (epoch, seq).
    pub fn version(&self) -> Version {
        Version { epoch: self.epoch, seq: self.seq }
    }

    /// The commit watermark of the record's time.
    pub fn commit(&self) -> u64 {
        self.seq.saturating_sub(u64::from(self.commit_lag))
    }
}
