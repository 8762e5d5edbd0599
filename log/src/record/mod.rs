//! Records: one rkyv archive behind a fixed 32-byte header (docs/formats.md has the byte diagram).
//!
//! The same bytes are the record in the log, in a prepare and in a copy: built once, checked at every
//! border, never encoded again. Bytes become a [`Record`] only through [`Unchecked::check`].

mod body;
mod header;

pub use body::{Body, Fields, RequestId, SessionId, SessionResult};
pub use header::{Answered, HEADER_BYTES, Header, Kind, Meta, RECORD_VERSION, Version};

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

    /// As [`Unchecked::check`] without validating the archive: for bytes that this process wrote or
    /// that were validated when they arrived. A flipped bit is still found by the CRC.
    pub fn check_crc(self) -> Result<Record<'a>, Flaw> {
        let Some(head) = self.0.first_chunk::<HEADER_BYTES>() else {
            return Err(Flaw::Length(self.0.len() as u32));
        };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if len == 0 {
            return Err(Flaw::End);
        }
        let size = len as usize;
        if size < HEADER_BYTES || size > RECORD_BYTES_MAX || size > self.0.len() {
            return Err(Flaw::Length(len));
        }
        let bytes = &self.0[..size];
        let stored = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let computed = crc32fast::hash(&bytes[8..]);
        if stored != computed {
            return Err(Flaw::Crc { stored, computed });
        }
        let header = Header::parse(head)?;
        Ok(Record { header, bytes })
    }
}

impl<'a> Record<'a> {
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
