//! What counts as live: the numbers that tell cleaning where to look, and what it need not look at.
//!
//! **Invariant.** A record counts as live from its append on (or its copy, or the scan that finds it)
//! and stops counting exactly once:
//!
//! | record | stops when |
//! | --- | --- |
//! | put | a later record of its key commits, or a Clear that hides it was walked: [`Log::mark_dead`] |
//! | Remove, Clear | it commits ([`Log::mark_dead`]): so that cleaning comes by and judges it. A copy in a settled segment goes on counting, or it would be judged again and again |
//! | TakeOver | it commits: [`Log::mark_dead`] |
//! | Sessions | a newer one is there: [`Log::mark_dead`] |
//! | SessionOpen, SessionEnd | cleaning passes it |
//! | any that still counts | cleaning moves it (its copy counts) or passes it, or a truncation takes it away |
//!
//! So `live_puts` of a segment is the number of records in it that the index names or that are prepared,
//! and a closed segment without live puts and without records that need a judgement is dead as a whole.
//! Damage can only make a count too high, and what is not found then is damage.

use super::Log;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::loc::Loc;
use crate::record::{HEADER_BYTES, Kind, Record, Unchecked};
use crate::segment::{Segment, SegmentKind, SegmentName};

/// What is counted in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentCount {
    /// Which.
    pub name: SegmentName,
    /// Bytes of records that count as live, padding included.
    pub live_bytes: u64,
    /// Puts that count as live.
    pub live_puts: u64,
    /// Records that only a judgement can leave behind: tombstones and sessions' (but superseded `Sessions`).
    pub unjudged: u64,
}

/// Cleaning must judge it, whatever the counts say.
pub(super) fn needs_judgement(kind: Kind) -> bool {
    !kind.is_put() && kind != Kind::TakeOver
}

impl Segment {
    /// A record was added.
    #[inline]
    pub(super) fn count_added(&self, kind: Kind, stride: usize) {
        self.live.set(self.live.get() + stride as u64);
        if kind.is_put() {
            self.live_puts.set(self.live_puts.get() + 1);
        } else if needs_judgement(kind) {
            self.unjudged.set(self.unjudged.get() + 1);
        }
    }

    /// A record that counted does no more.
    #[inline]
    pub(super) fn count_dead(&self, kind: Option<Kind>, stride: usize) {
        self.live.set(self.live.get().saturating_sub(stride as u64));
        if kind.is_some_and(Kind::is_put) {
            debug_assert!(self.live_puts.get() > 0, "{}: a put is dead twice", self.name());
            self.live_puts.set(self.live_puts.get().saturating_sub(1));
        }
    }

    /// A record that needed a judgement has it, or is gone.
    pub(super) fn count_judged(&self) {
        self.unjudged.set(self.unjudged.get().saturating_sub(1));
    }

    /// The records in `[from, to)`, none of which is committed, go away.
    pub(super) fn count_truncated(&self, from: usize, to: usize) {
        if from == SEGMENT_HEAD_BYTES {
            self.count_nothing();
            return;
        }
        let mut at = from;
        while at < to
            && let Some(len) = self.len_at(at)
        {
            let kind = self.kind_at(at);
            self.count_dead(kind, len.next_multiple_of(8));
            if kind.is_some_and(needs_judgement) {
                self.count_judged();
            }
            at += len.next_multiple_of(8);
        }
    }

    /// Nothing in it counts any more.
    pub(super) fn count_nothing(&self) {
        self.live.set(0);
        self.live_puts.set(0);
        self.unjudged.set(0);
        self.none_dead();
    }

    /// The kind in the header at `at`, unchecked.
    #[inline]
    pub(super) fn kind_at(&self, at: usize) -> Option<Kind> {
        let head = self.memory.bytes().get(at..at + HEADER_BYTES)?;
        Kind::parse(head[26])
    }

    /// Nothing in it is live, and nothing needs a judgement.
    pub(super) fn is_spent(&self) -> bool {
        self.live_puts.get() == 0 && self.unjudged.get() == 0
    }
}

impl Log {
    /// The record is superseded, or it is a committed tombstone or take-over: its bytes count as dead.
    /// Once per record (a copy is another record).
    #[inline]
    pub fn mark_dead(&self, loc: Loc) {
        let Some(Some(segment)) = self.slots.get(loc.slot()) else { return };
        let Some(len) = segment.len_at(loc.offset()) else { return };
        let kind = segment.kind_at(loc.offset());
        let kept = segment.name().kind == SegmentKind::Settled
            && kind.is_some_and(|k| k.is_remove() || k == Kind::Clear);
        if !kept {
            segment.count_dead(kind, len.next_multiple_of(8));
        }
        if kind.is_some_and(Kind::is_put) {
            segment.set_dead(loc.offset());
        }
        if kind == Some(Kind::Sessions) {
            // There is a newer one: that is its judgement.
            segment.set_dead(loc.offset());
            segment.count_judged();
        }
    }

    /// Live puts of all segments: as many as the index has entries, and those that are prepared.
    pub(super) fn live_puts(&self) -> u64 {
        self.segments().map(|s| s.live_puts.get()).sum()
    }

    /// What is counted, a segment at a time: to be compared with what [`Log::records_of`] shows.
    pub fn segment_counts(&self) -> impl Iterator<Item = SegmentCount> + '_ {
        self.segments().map(|segment| SegmentCount {
            name: segment.name(),
            live_bytes: segment.live.get(),
            live_puts: segment.live_puts.get(),
            unjudged: segment.unjudged.get(),
        })
    }

    /// The records of a segment that cleaning has not passed.
    pub fn records_of(&self, name: SegmentName) -> impl Iterator<Item = (Loc, Record<'_>)> + '_ {
        let slot = self.slots.iter().position(|s| s.as_ref().is_some_and(|s| s.name() == name));
        let found = slot.and_then(|slot| Some((slot as u32, self.slots[slot].as_ref()?)));
        let mut at = slot.map_or(0, |slot| self.passed(slot as u32));
        std::iter::from_fn(move || {
            let (slot, segment) = found?;
            let bytes = segment.memory.bytes().get(at..segment.end)?;
            let record = Unchecked::new(bytes).check_crc().ok()?;
            let loc = Loc::new(slot, at);
            at += record.stride();
            Some((loc, record))
        })
    }
}
