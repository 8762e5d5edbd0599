//! Truncation: what was prepared and is not to be.
//!
//! The memory is zeroed from the back (a kill in between leaves a shorter tail, never a hole), a
//! bounded slice at a time; nothing is appended before that is done. The zeros go to the disk before
//! anything else does, and the manifest that records the new epoch waits for them. So old bytes never
//! come back behind a new record.

use super::Log;
use crate::canary::{self, Canary};
use crate::limits::{SEGMENT_HEAD_BYTES, ZERO_SLICE_BYTES};
use crate::record::{Version, version_of};

impl Log {
    /// Drops every record above `above`, which is at or above the commit watermark. How many bytes
    /// went.
    ///
    /// No vote may be given until [`Log::truncating`] is false and the changed manifest is saved.
    pub fn truncate(&mut self, above: u64) -> u64 {
        assert!(above >= self.commit, "truncate to {above}, committed is {}", self.commit);
        if above >= self.tail.seq {
            return 0;
        }
        self.flush.cuts += 1;
        let mut dropped = 0;
        while let Some(&slot) = self.tail_slots.back() {
            let segment = self.segment(slot);
            let whole = segment.is_empty() || segment.first.seq > above;
            if segment.last.seq <= above && !segment.is_empty() {
                break;
            }
            self.flush.behind.retain(|&s| s != slot);
            let (cut, last) = if whole {
                (SEGMENT_HEAD_BYTES, Version::default())
            } else {
                self.find_cut(slot, above)
            };
            dropped += self.cut(slot, cut, last);
            if !whole {
                break;
            }
            // Emptied, it is the next roll's, and no longer cleaning's (which takes away what stayed empty).
            self.tail_slots.pop_back();
            self.cleaning.emptied.retain(|emptied| emptied.slot != slot);
            self.tails.next.push_front(slot);
        }
        self.reopen_tail();
        self.tail = self
            .tail_slots
            .iter()
            .rev()
            .map(|&slot| self.segment(slot).last)
            .find(|last| *last != Version::default())
            .unwrap_or(self.manifest.below);
        self.flush.flushed = self.flush.flushed.min(self.tail);
        self.flush.ages.cut(self.tail.seq, self.flush.flushed.seq);
        self.zero_slice();
        dropped
    }

    /// Zeros of a truncation are not in memory, or not on disk, yet.
    pub fn truncating(&self) -> bool {
        !self.flush.zeros.is_empty() || !self.flush.unzeroed.is_empty()
    }

    /// All zeros that memory needs, at once.
    pub(super) fn zero_all(&mut self) {
        while !self.flush.unzeroed.is_empty() {
            self.zero_slice();
        }
    }

    /// A slice of the zeros that memory needs. What was dropped last in the tail goes first.
    pub(super) fn zero_slice(&mut self) {
        if self.flush.unzeroed.is_empty() {
            return;
        }
        let mut left = ZERO_SLICE_BYTES;
        while let Some(&(slot, from, to)) = self.flush.unzeroed.front() {
            let start = to.saturating_sub(left).max(from);
            let memory = &mut self.segment_mut(slot).memory;
            if !canary::is_on(Canary::OldBytes) {
                zero_backwards(memory, start, to);
            }
            left -= to - start;
            if start > from {
                self.flush.unzeroed[0].2 = start;
                break;
            }
            self.flush.unzeroed.pop_front();
        }
        self.appendable = self.ready && self.flush.unzeroed.is_empty();
    }

    /// Where the first record above `above` starts, and the version of the one before it.
    fn find_cut(&self, slot: u32, above: u64) -> (usize, Version) {
        let segment = self.segment(slot);
        let (mut at, mut last) = (SEGMENT_HEAD_BYTES, Version::default());
        while let Some(len) = segment.len_at(at) {
            let version = version_of(&segment.memory.bytes()[at..]);
            if version.seq > above {
                break;
            }
            last = version;
            at += len.next_multiple_of(8);
        }
        (at, last)
    }

    fn cut(&mut self, slot: u32, at: usize, last: Version) -> u64 {
        let in_flight = self.flight_end(slot).unwrap_or(0);
        let has_disk = self.has_disk();
        let segment = self.segment_mut(slot);
        let end = segment.end;
        segment.count_truncated(at, end);
        let on_disk = segment.durable.max(in_flight).min(end);
        segment.end = at;
        segment.durable = segment.durable.min(at);
        segment.written = segment.durable;
        segment.last = last;
        if at == SEGMENT_HEAD_BYTES {
            segment.first = Version::default();
        }
        segment.closed = false;
        self.flush.unzeroed.push_back((slot, at, end));
        if has_disk && on_disk > at {
            self.flush.zeros.push_back((slot, at, on_disk));
        }
        (end - at) as u64
    }

    /// The last tail segment grows again, unless cleaning is emptying it: what were appended to it would go with it.
    fn reopen_tail(&mut self) {
        if let Some(&slot) = self.tail_slots.back()
            && !self.is_being_emptied(slot)
        {
            self.flush.behind.retain(|&s| s != slot);
            self.segment_mut(slot).closed = false;
        }
    }
}

fn zero_backwards(memory: &mut crate::memory::Memory, from: usize, to: usize) {
    const STEP: usize = 64 << 10;
    let mut end = to;
    while end > from {
        let start = end.saturating_sub(STEP).max(from);
        memory.slice_mut(start, end - start).fill(0);
        end = start;
    }
}
