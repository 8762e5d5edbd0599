//! Listing a log for a copy: every segment that holds live records, to be read in pieces.

use super::Log;
use crate::corrupt::Corrupt;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::loc::Loc;
use crate::record::{Flaw, Record, Unchecked};

/// A segment as it was when it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    slot: u32,
    end: usize,
}

impl Part {
    /// The place to pin it by.
    pub fn pin(&self) -> Loc {
        Loc::new(self.slot, SEGMENT_HEAD_BYTES)
    }

    /// Bytes of records.
    pub fn bytes(&self) -> u64 {
        (self.end - SEGMENT_HEAD_BYTES) as u64
    }

    /// Those before an offset that [`Log::read_part`] gave (0: none).
    pub fn passed(&self, offset: usize) -> u64 {
        offset.min(self.end).saturating_sub(SEGMENT_HEAD_BYTES) as u64
    }
}

impl Log {
    /// Every segment with records but those whose records were all moved away.
    pub fn parts(&self) -> Vec<Part> {
        let emptied = |slot: u32| self.cleaning.emptied.iter().any(|e| e.slot == slot);
        let slots = self.settled_slots.iter().chain(&self.tail_slots).copied();
        slots
            .filter(|&slot| !emptied(slot) && !self.segment(slot).is_empty())
            .map(|slot| Part { slot, end: self.segment(slot).end })
            .collect()
    }

    /// A segment that cleaning has emptied is only there because somebody pinned it.
    pub fn pins_hold_room(&self) -> bool {
        self.cleaning.emptied.iter().any(|emptied| self.segment(emptied.slot).pins.get() > 0)
    }

    /// The record at `offset` of a listed and pinned part (0: its first), and the offset of the next;
    /// `None` at its end.
    pub fn read_part(
        &self,
        part: &Part,
        offset: usize,
    ) -> Result<Option<(Loc, Record<'_>, usize)>, Corrupt> {
        let at = offset.max(SEGMENT_HEAD_BYTES);
        if at >= part.end || !at.is_multiple_of(8) {
            return Ok(None);
        }
        let loc = Loc::new(part.slot, at);
        match Unchecked::new(self.bytes_at(loc)).check_crc() {
            Ok(record) => Ok(Some((loc, record, at + record.stride()))),
            // Truncated since it was listed: what is committed lies before.
            Err(Flaw::End | Flaw::Length(0)) => Ok(None),
            Err(flaw) => Err(self.corrupt(loc, flaw)),
        }
    }
}
