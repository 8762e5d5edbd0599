//! A segment: names, the fixed first page, and what the log keeps about each.

use std::cell::Cell;
use std::fmt;

use crate::blank;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::memory::{self, Memory};
use crate::record::HEADER_BYTES;
use crate::record::Version;
use crate::storage::DiskFile;

/// First eight bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"FBSEGMNT";
/// The version of the segment format.
pub const SEGMENT_FORMAT: u32 = 1;
const HEAD_USED: usize = 48;

/// What a segment holds. The discriminants are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SegmentKind {
    /// Sequence number by sequence number; the newest may be truncated.
    Tail = 1,
    /// Committed records in any order: what cleaning moved and what a copy brought.
    Settled = 2,
}

/// A segment's name within its partition. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// Tail and settled segments are numbered apart.
    pub kind: SegmentKind,
    /// From 1.
    pub n: u64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            SegmentKind::Tail => 't',
            SegmentKind::Settled => 's',
        };
        write!(f, "{letter}{}.seg", self.n)
    }
}

impl SegmentName {
    /// The name of a file; `None` for a file that is no segment.
    pub fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".seg")?;
        let (kind, digits) = match stem.split_at_checked(1)? {
            ("t", digits) => (SegmentKind::Tail, digits),
            ("s", digits) => (SegmentKind::Settled, digits),
            _ => return None,
        };
        let n: u64 = digits.parse().ok()?;
        let name = Self { kind, n };
        (name.to_string() == file).then_some(name)
    }
}

/// The first page of a segment (docs/formats.md has the byte diagram, and says what of it changes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// Partition id.
    pub partition: u32,
    /// Name.
    pub name: SegmentName,
    /// No record in it is older than a tombstone at or below this sequence number.
    pub made_at_seq: u64,
    /// Size of the segment, this page included.
    pub bytes: u64,
}

/// Why a first page is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFlaw {
    /// Too short to have a first page.
    Short,
    /// Another magic number: not a segment.
    Foreign,
    /// A format that this program does not know.
    Format(u32),
    /// The checksum differs.
    Crc,
    /// A kind of segment that this program does not know.
    Kind(u8),
}

impl SegmentHead {
    /// The first page's bytes.
    pub fn encode(&self) -> [u8; HEAD_USED] {
        let mut b = [0; HEAD_USED];
        b[0..8].copy_from_slice(&SEGMENT_MAGIC);
        b[8..12].copy_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        b[12..16].copy_from_slice(&self.partition.to_le_bytes());
        b[16..24].copy_from_slice(&self.name.n.to_le_bytes());
        b[24..32].copy_from_slice(&self.made_at_seq.to_le_bytes());
        b[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        b[40] = self.name.kind as u8;
        let crc = crc32fast::hash(&b[..44]);
        b[44..48].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a first page.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadFlaw> {
        let b: &[u8; HEAD_USED] = bytes.first_chunk().ok_or(HeadFlaw::Short)?;
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        if b[0..8] != SEGMENT_MAGIC {
            return Err(HeadFlaw::Foreign);
        }
        if crc32fast::hash(&b[..44]) != u32_at(44) {
            return Err(HeadFlaw::Crc);
        }
        if u32_at(8) != SEGMENT_FORMAT {
            return Err(HeadFlaw::Format(u32_at(8)));
        }
        let kind = match b[40] {
            1 => SegmentKind::Tail,
            2 => SegmentKind::Settled,
            other => return Err(HeadFlaw::Kind(other)),
        };
        Ok(Self {
            partition: u32_at(12),
            name: SegmentName { kind, n: u64_at(16) },
            made_at_seq: u64_at(24),
            bytes: u64_at(32),
        })
    }
}

/// A segment with a name, ready for records: what the storage thread hands to a log.
#[derive(Debug)]
pub struct Bound {
    pub(crate) head: SegmentHead,
    pub(crate) memory: Memory,
    pub(crate) disk: Option<DiskFile>,
}

impl Bound {
    /// A segment in heap memory, empty.
    pub fn in_heap(head: SegmentHead) -> Self {
        let mut memory = Memory::heap(head.bytes as usize);
        memory.slice_mut(0, HEAD_USED).copy_from_slice(&head.encode());
        Self { head, memory, disk: None }
    }

    /// A segment in heap memory with the bytes of an image (a simulated disk's, say).
    pub fn from_image(image: &[u8]) -> Result<Self, HeadFlaw> {
        let head = SegmentHead::decode(image)?;
        let mut memory = Memory::heap(image.len());
        memory.slice_mut(0, image.len()).copy_from_slice(image);
        Ok(Self { head, memory, disk: None })
    }

    /// The first page.
    pub fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// All bytes, to be damaged by a test.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.memory.size();
        self.memory.slice_mut(0, len)
    }
}

/// A segment in a log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub head: SegmentHead,
    pub memory: Memory,
    pub disk: Option<DiskFile>,
    /// One past the last record's last byte, rounded up to 8.
    pub end: usize,
    /// Behind the last record all is zeros up to here; what follows is old (`blank.rs`).
    blank_to: usize,
    /// Bytes of live records, padding included (`log/count.rs` says what is live).
    pub live: Cell<u64>,
    /// Puts among them.
    pub live_puts: Cell<u64>,
    /// Records that cleaning must judge.
    pub unjudged: Cell<u64>,
    /// A bit for each `HEADER_BYTES` of it: a put that begins there is dead. No two records begin in the
    /// same.
    dead_puts: Vec<Cell<u64>>,
    /// Version of the first record (tail) or zero when empty.
    pub first: Version,
    /// Version of the last record (tail), or zero when empty.
    pub last: Version,
    /// On disk up to here; always a record's end.
    pub durable: usize,
    /// Written, not yet known to be durable, up to here (settled).
    pub written: usize,
    /// Of what it has of `Flush::settled_written`, what was counted up to here is durable (settled, while it is dirty).
    pub durable_of: u64,
    /// No more records go in.
    pub closed: bool,
    /// Damage was found in it: never cleaned, so that nothing else is lost.
    pub damaged: Cell<bool>,
    /// Slices in flight.
    pub pins: Cell<u32>,
}

impl Segment {
    pub fn new(bound: Bound) -> Self {
        let words = bound.memory.size().div_ceil(HEADER_BYTES * 64);
        Self {
            blank_to: blank::upto(&bound.memory),
            dead_puts: vec![Cell::new(0); words],
            head: bound.head,
            memory: bound.memory,
            disk: bound.disk,
            end: SEGMENT_HEAD_BYTES,
            live: Cell::new(0),
            live_puts: Cell::new(0),
            unjudged: Cell::new(0),
            first: Version::default(),
            last: Version::default(),
            durable: SEGMENT_HEAD_BYTES,
            written: SEGMENT_HEAD_BYTES,
            durable_of: 0,
            closed: false,
            damaged: Cell::new(false),
            pins: Cell::new(0),
        }
    }

    pub fn name(&self) -> SegmentName {
        self.head.name
    }

    pub fn size(&self) -> usize {
        self.memory.size()
    }

    pub fn fits(&self, stride: usize) -> bool {
        stride <= self.memory.size() - self.end
    }

    /// Bytes that cleaning would win. What is left behind the last record counts only when it is
    /// much: a few large records never fill a segment, and moving them would not either.
    pub fn dead(&self) -> u64 {
        let unfilled = self.size() - self.end;
        let counts = if unfilled > self.size() / 4 { unfilled as u64 } else { 0 };
        let records = (self.end - SEGMENT_HEAD_BYTES) as u64;
        records.saturating_sub(self.live.get()) + counts
    }

    /// Before a record of `stride` bytes, which fits: zeros where it goes, and where the next length will be.
    #[inline]
    pub fn make_blank(&mut self, stride: usize) {
        let need = (self.end + stride + 8).min(self.memory.size());
        if need > self.blank_to {
            self.blank_to = blank::extend(&mut self.memory, self.blank_to, need);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.end == SEGMENT_HEAD_BYTES
    }

    /// Length of the record at `at`, header included; `None` where no record can be.
    pub fn len_at(&self, at: usize) -> Option<usize> {
        let word = self.memory.bytes().get(at..)?.first_chunk::<4>()?;
        let len = u32::from_le_bytes(*word) as usize;
        (len >= crate::HEADER_BYTES && len <= self.end.saturating_sub(at)).then_some(len)
    }

    /// Where the last record that ends at or before `to` begins and ends; one begins at `from`.
    pub fn last_whole(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let (mut at, mut last) = (from, None);
        while let Some(len) = self.len_at(at) {
            let next = at + len.next_multiple_of(8);
            if next > to {
                break;
            }
            last = Some((at, next));
            at = next;
        }
        last
    }

    /// Fewer tombstones are known to be newer than all of it than its first page says.
    pub fn lower_made_at(&mut self, seq: u64) {
        self.head.made_at_seq = seq;
        self.memory.slice_mut(0, HEAD_USED).copy_from_slice(&self.head.encode());
    }

    /// The record at `at`, a put or `Sessions`, is dead from now on.
    #[inline]
    pub fn set_dead(&self, at: usize) {
        let word = &self.dead_puts[at / (HEADER_BYTES * 64)];
        word.set(word.get() | 1 << (at / HEADER_BYTES % 64));
    }

    /// Whether there is a put or `Sessions` at `at` that is dead.
    #[inline]
    pub fn is_dead(&self, at: usize) -> bool {
        self.dead_puts[at / (HEADER_BYTES * 64)].get() >> (at / HEADER_BYTES % 64) & 1 == 1
    }

    /// Fetches what [`Segment::set_dead`] will touch.
    #[inline]
    pub fn prefetch_dead(&self, at: usize) {
        if let Some(word) = self.dead_puts.get(at / (HEADER_BYTES * 64)) {
            memory::prefetch(std::ptr::from_ref(word).cast());
        }
    }

    /// Nothing in it is dead.
    pub fn none_dead(&self) {
        self.dead_puts.iter().for_each(|word| word.set(0));
    }

    /// Zeroes `[from, end of segment)` and forgets what was there.
    pub fn zero_from(&mut self, from: usize) {
        let len = self.size() - from;
        self.memory.slice_mut(from, len).fill(0);
    }
}
