//! Where a record lies: the 40 bits that an index slot has room for.

use crate::limits::SEGMENT_BYTES_MAX;

/// Bits of the segment slot.
pub const SLOT_BITS: u32 = 17;
/// Bits of the offset, in units of 8 bytes.
pub const OFFSET_BITS: u32 = 23;

const _: () = assert!(SEGMENT_BYTES_MAX == 8 << OFFSET_BITS);

/// A record's place in its log: segment slot (17 bits) and offset / 8 (23 bits).
///
/// A slot is the log's own small number for a mapped segment; it is used again after its segment was
/// freed, so a location is good only while the index (or a pin) holds the record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loc(u64);

impl Loc {
    pub(crate) fn new(slot: u32, offset: usize) -> Self {
        debug_assert!(slot < 1 << SLOT_BITS && offset.is_multiple_of(8));
        debug_assert!(offset < SEGMENT_BYTES_MAX);
        Self(u64::from(slot) << OFFSET_BITS | (offset as u64 >> 3))
    }

    /// Fewer than 2^40.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The location of [`Loc::to_bits`]; bits from 40 on are ignored.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << (SLOT_BITS + OFFSET_BITS)) - 1))
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    pub(crate) fn offset(self) -> usize {
        ((self.0 & ((1 << OFFSET_BITS) - 1)) << 3) as usize
    }
}

impl std::fmt::Debug for Loc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loc({}:{})", self.slot(), self.offset())
    }
}
