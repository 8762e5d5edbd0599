//! Records: one rkyv archive behind a fixed 32-byte header (docs/formats.md has the byte diagram).
//!
//! The same bytes are the record in the log, in a prepare and in a copy: built once, checked at every
//! border, never encoded again. Bytes become a [`Record`] only through [`Unchecked::check`].

mod body;
mod header;
mod session;
#[cfg(test)]
mod tests;

pub use body::{Body, Fields};
pub(crate) use body::{SESSIONS_ROOT_BYTES, sessions_root, write_results};
pub use header::{Answered, HEADER_BYTES, Header, Kind, Meta, RECORD_VERSION, Version};
pub use session::{RequestId, SessionId, SessionResult};

use std::fmt;

use crate::limits::RECORD_BYTES_MAX;

/// Bytes that claim to be a record.
#[derive(Clone, Copy, Debug)]
pub struct Unchecked<'a>(&'a [u8]);

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Zero length: the end of a segment's records.
    End,
    /// Fewer bytes than the header says, or a length no record has.
    Length(u32),
    /// The checksum differs.
    Crc {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// A version of the format that this program does not know.
    Version(u8),
    /// A kind that this program does not know.
    Kind(u8),
    /// A good checksum over a body that is not a valid archive.
    Body,
    /// A record of another partition.
    Partition(u32),
    /// Not a record: the segment's first page is damaged.
    SegmentHead,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("no record begins here"),
            Self::Length(len) => write!(f, "the record's length of {len} bytes cannot be"),
            Self::Crc { stored, computed } => {
                write!(f, "the record's checksum is {stored:08x} and should be {computed:08x}")
            }
            Self::Version(v) => write!(
                f,
                "record format {v}; this program knows {RECORD_VERSION}: start a newer Firebrick"
            ),
            Self::Kind(kind) => write!(f, "unknown kind of record, {kind}"),
            Self::Body => f.write_str("the record's body is not what its kind says"),
            Self::SegmentHead => f.write_str("the segment's first page is damaged"),
            Self::Partition(id) => write!(f, "the record is partition {id}'s"),
        }
    }
}

/// A whole record whose checksum, version, kind and body were checked.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    header: Header,
    bytes: &'a [u8],
}

impl<'a> Unchecked<'a> {
    /// `bytes` start at a record's header and may go on past its end.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Checks length, CRC, version and kind, and that the body is a valid archive.
    pub fn check(self) -> Result<Record<'a>, Flaw> {
        let record = self.check_crc()?;
        if body::is_valid(record.header.kind, record.body()) { Ok(record) } else { Err(Flaw::Body) }
    }

    /// As [`Unchecked::check`], with the archive's shape compared instead of validated through rkyv
    /// (there is only one shape a kind's archive can have): for bytes that this process wrote or that
    /// were validated when they arrived. A flipped bit is still found by the CRC.
    #[inline]
    pub fn check_crc(self) -> Result<Record<'a>, Flaw> {
        let Some(head) = self.0.first_chunk::<HEADER_BYTES>() else {
            return Err(Flaw::Length(self.0.len() as u32));
        };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if len == 0 {
            return Err(Flaw::End);
        }
        let size = len as usize;
        if !(HEADER_BYTES..=RECORD_BYTES_MAX).contains(&size) || size > self.0.len() {
            return Err(Flaw::Length(len));
        }
        let bytes = &self.0[..size];
        let stored = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let computed = crc32fast::hash(&bytes[8..]);
        if stored != computed {
            return Err(Flaw::Crc { stored, computed });
        }
        let header = Header::parse(head)?;
        if !body::has_shape(header.kind, &bytes[HEADER_BYTES..]) {
            return Err(Flaw::Body);
        }
        Ok(Record { header, bytes })
    }

    /// Bytes that were a [`Record`] a moment ago and were copied.
    pub(crate) fn trust(self) -> Record<'a> {
        let Some(head) = self.0.first_chunk::<HEADER_BYTES>() else {
            unreachable!("a copied record")
        };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Ok(header) = Header::parse(head) else { unreachable!("a copied record") };
        Record { header, bytes: &self.0[..len] }
    }
}

/// The key of what claims to be a record: within bounds whatever the bytes are, empty when they make
/// no sense. The CRC is not checked.
#[inline]
pub fn key_of(bytes: &[u8]) -> &[u8] {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return &[] };
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let Some(kind) = Kind::parse(head[26]) else { return &[] };
    let Some(body) = bytes.get(HEADER_BYTES..len) else { return &[] };
    body::key(kind, body)
}

/// The version in what claims to be a record's header; zero when there is no header.
pub(crate) fn version_of(bytes: &[u8]) -> Version {
    let Some(b) = bytes.first_chunk::<HEADER_BYTES>() else { return Version::default() };
    let epoch = u32::from_le_bytes([b[16], b[17], b[18], b[19]]);
    let seq = u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]);
    Version { epoch, seq }
}

/// Whether a record may begin here: length, kind and format are possible ones.
pub(crate) fn is_plausible(bytes: &[u8]) -> bool {
    let Some(b) = bytes.first_chunk::<HEADER_BYTES>() else { return false };
    let len = u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize;
    let length = len >= HEADER_BYTES && len <= bytes.len() && len <= RECORD_BYTES_MAX;
    length && b[27] == RECORD_VERSION && Kind::parse(b[26]).is_some()
}

impl<'a> Record<'a> {
    /// A placeholder for arrays that are about to be filled.
    pub(crate) const NONE: Record<'static> = Record {
        header: Header {
            len: 0,
            crc: 0,
            seq: 0,
            epoch: 0,
            partition: 0,
            commit_lag: 0,
            kind: Kind::TakeOver,
            answered: Answered::Version,
        },
        bytes: &[0; HEADER_BYTES],
    };

    /// The parsed header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// (epoch, seq).
    pub fn version(&self) -> Version {
        self.header.version()
    }

    /// The whole record, header included, without padding.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The archive.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The body's fields; what a kind does not have is empty, zero or `None`.
    pub fn fields(&self) -> Fields<'a> {
        body::fields(self.header.kind, self.body())
    }

    /// The session that a `SessionEnd` record ends; `None` for another kind.
    pub fn ended_session(&self) -> Option<SessionId> {
        (self.header.kind == Kind::SessionEnd).then(|| body::session_end(self.body()))
    }

    /// The client that a `SessionOpen` record names; `None` for another kind.
    pub fn session_client(&self) -> Option<u128> {
        (self.header.kind == Kind::SessionOpen).then(|| body::session_client(self.body()))
    }

    /// The results of a `Sessions` record; none for another kind.
    pub fn session_results(&self) -> impl Iterator<Item = SessionResult> + use<'a> {
        let is = self.header.kind == Kind::Sessions;
        let body = self.body();
        is.then(|| body::session_results(body)).into_iter().flatten()
    }

    /// Bytes the record takes in a segment: rounded up to 8.
    pub fn stride(&self) -> usize {
        self.bytes.len().next_multiple_of(8)
    }
}
