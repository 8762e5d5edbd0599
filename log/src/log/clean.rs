//! Cleaning: live records move out of segments that are mostly dead, a slice at a time.
//!
//! The partition judges what is live and swings its index at once (the original stays mapped until
//! its copy is as safe as the table promises: `free.rs`). Records move as they are: same bytes, same
//! version. Two levels keep the cost down: under load dead bytes are bounded at 30% of what is used,
//! when idle at 5%; the segment with the largest dead share goes first, the older one on a tie.
//!
//! What the counts (`count.rs`) call dead is not looked at: a dead put is passed by its length alone, and
//! a segment with nothing live and nothing to judge goes without a look.

use super::Log;
use super::append::{AppendError, Room};
use super::count::needs_judgement;
use super::free::Emptied;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::loc::Loc;
use crate::record::{HEADER_BYTES, Kind, Record, Unchecked, version_of};
use crate::segment::{Segment, SegmentKind, SegmentName};

/// Dead share of all closed segments, in percent, at which cleaning starts under load.
pub const DEAD_PERCENT_BUSY: u64 = 30;
/// The same when idle, or when there is no room.
pub const DEAD_PERCENT_IDLE: u64 = 5;

/// What the partition says about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Move it.
    Live,
    /// Leave it behind.
    Dead,
    /// A tombstone that hides nothing any more: leave it behind and raise `dropped`.
    DropTombstone,
}

/// Whoever knows what is live.
pub trait Cleaner {
    /// Judges a committed record. A tombstone that is the newest record of its key may be dropped
    /// when its sequence number is below `tombstone_floor`, no copy to this replica is going on, and
    /// a `Sessions` record holds its request's result.
    fn judge(&mut self, log: &Log, loc: Loc, record: &Record<'_>, tombstone_floor: u64) -> Verdict;

    /// A live record moved: the index must name `to` from now on.
    fn moved(&mut self, record: &Record<'_>, from: Loc, to: Loc);

    /// How many committed puts are live: the log's own count must not be below.
    fn live_puts(&self) -> u64;

    /// Records above this may not be left behind yet: what they say about requests is written nowhere
    /// else.
    fn covered(&self) -> u64 {
        u64::MAX
    }
}

/// How a slice of cleaning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanProgress {
    /// Nothing is worth cleaning.
    Nothing,
    /// The budget is used up; there is more.
    More,
    /// A segment to move to is on its way.
    NotYet,
    /// There is no room to move to.
    NoSpace,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    slot: u32,
    at: usize,
    judged_at: u64,
    /// The counts agree with the cleaner's: what they call dead need not be judged.
    counted: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Cleaning {
    pub victim: Option<Victim>,
    /// The tail above this sequence number stays.
    pub keep: u64,
    /// Dead bytes that may stay while there is other work.
    slack: u64,
    /// The `Sessions` record that is being written.
    pub draft: Option<super::draft::Draft>,
    /// Copied out, waiting to be freed.
    pub emptied: Vec<Emptied>,
    pub moved_bytes: u64,
    pub moved_records: u64,
    pub freed_bytes: u64,
}

impl Default for Cleaning {
    fn default() -> Self {
        Self {
            victim: None,
            keep: u64::MAX,
            slack: 0,
            draft: None,
            emptied: Vec::new(),
            moved_bytes: 0,
            moved_records: 0,
            freed_bytes: 0,
        }
    }
}

impl Log {
    /// Something is worth cleaning at this level (or is half cleaned).
    pub fn wants_cleaning(&self, idle: bool) -> bool {
        self.ready && (self.cleaning.victim.is_some() || self.choose(idle, u64::MAX).is_some())
    }

    /// Dead bytes that may stay while there is other work, because there is room: the emptier the
    /// segments that cleaning waits for, the less it has to copy.
    pub fn set_slack(&mut self, bytes: u64) {
        self.cleaning.slack = bytes;
    }

    /// No segment is half cleaned: the moment for a `Sessions` record ([`Log::begin_sessions`]).
    pub fn is_between_victims(&self) -> bool {
        self.cleaning.victim.is_none()
    }

    /// Cleans for about `budget_bytes` of records looked at.
    pub fn clean<C: Cleaner + ?Sized>(
        &mut self,
        budget_bytes: usize,
        idle: bool,
        cleaner: &mut C,
    ) -> CleanProgress {
        self.advance_frees();
        if !self.ready {
            return CleanProgress::Nothing;
        }
        let mut left = budget_bytes;
        while left > 0 {
            if self.cleaning.victim.is_none() {
                let Some(slot) = self.choose(idle, cleaner.covered()) else {
                    return CleanProgress::Nothing;
                };
                let judged_at = self.commit;
                // A put that was counted dead twice would be lost: better judge every one.
                let counted = self.live_puts() >= cleaner.live_puts();
                debug_assert!(counted, "{} live puts are counted", self.live_puts());
                let at = SEGMENT_HEAD_BYTES;
                self.cleaning.victim = Some(Victim { slot, at, judged_at, counted });
                left = left.saturating_sub(SEGMENT_HEAD_BYTES);
            }
            match self.clean_some(&mut left, cleaner) {
                Ok(()) => {}
                Err(AppendError::NotYet) => return CleanProgress::NotYet,
                Err(AppendError::NoSpace) if self.empty_spent(cleaner) => {
                    return CleanProgress::NotYet;
                }
                Err(AppendError::NoSpace) => return CleanProgress::NoSpace,
            }
        }
        CleanProgress::More
    }

    /// There is no room to move to: what has nothing to move goes out of its turn, and makes some.
    fn empty_spent<C: Cleaner + ?Sized>(&mut self, cleaner: &C) -> bool {
        let victim = self.cleaning.victim.map(|victim| victim.slot);
        let counted = self.live_puts() >= cleaner.live_puts();
        let spent = |slot: &u32| counted && Some(*slot) != victim && self.segment(*slot).is_spent();
        let spent: Vec<u32> = self.cleanable(cleaner.covered()).filter(spent).collect();
        for &slot in &spent {
            self.goes(slot, self.commit);
        }
        self.advance_frees();
        !spent.is_empty()
    }

    /// The segment with the largest dead share, if all of them together are over the bound. Only those
    /// whose records are all at or below `covered`.
    fn choose(&self, idle: bool, covered: u64) -> Option<u32> {
        let percent = if idle || self.full { DEAD_PERCENT_IDLE } else { DEAD_PERCENT_BUSY };
        let (mut dead, mut used) = (0, 0);
        let mut best: Option<(u64, u32, SegmentName)> = None;
        for slot in self.cleanable(covered) {
            let segment = self.segment(slot);
            let size = segment.size() as u64;
            dead += segment.dead();
            used += size;
            let share = segment.dead() * 4096 / size;
            let key = (share, slot, segment.name());
            let better =
                best.is_none_or(|(s, _, name)| share > s || (share == s && segment.name() < name));
            if better && segment.dead() * 100 > size * percent {
                best = Some(key);
            }
        }
        let allowed = if idle || self.full { 0 } else { self.cleaning.slack };
        if dead * 100 <= used * percent || dead <= allowed {
            return None;
        }
        best.map(|(_, slot, _)| slot)
    }

    /// Closed segments whose records are all committed and undamaged.
    fn cleanable(&self, covered: u64) -> impl Iterator<Item = u32> + '_ {
        let upto = self.commit.min(self.cleaning.keep).min(covered);
        let emptied = |slot: u32| self.cleaning.emptied.iter().any(|e| e.slot == slot);
        let tails = self.tail_slots.iter().filter(move |&&slot| {
            let segment = self.segment(slot);
            segment.closed && segment.last.seq <= upto && !self.flush.behind.contains(&slot)
        });
        let draft = self.cleaning.draft.as_ref().map(|d| d.slot);
        let growing = move |slot: u32| Some(slot) == self.settled_open || Some(slot) == draft;
        let settled = self.settled_slots.iter().filter(move |&&slot| !growing(slot));
        tails
            .chain(settled)
            .copied()
            .filter(move |&slot| !emptied(slot) && !self.segment(slot).damaged.get())
    }

    fn clean_some<C: Cleaner + ?Sized>(
        &mut self,
        left: &mut usize,
        cleaner: &mut C,
    ) -> Result<(), AppendError> {
        let Some(mut victim) = self.cleaning.victim else { return Ok(()) };
        let floor = self.tombstone_floor(victim.slot);
        let result = loop {
            if self.ends(victim) {
                return Ok(());
            }
            let segment = self.segment(victim.slot);
            if *left == 0 {
                break Ok(());
            }
            if victim.counted
                && segment.is_dead(victim.at)
                && let Some(len) = segment.len_at(victim.at)
            {
                victim.at += len.next_multiple_of(8);
                *left = left.saturating_sub(HEADER_BYTES);
                continue;
            }
            let bytes = &segment.memory.bytes()[victim.at..segment.end];
            let Ok(record) = Unchecked::new(bytes).check_crc() else {
                // Reported when it is read or scanned; what is good stays where it is.
                segment.damaged.set(true);
                self.cleaning.victim = None;
                return Ok(());
            };
            let stride = record.stride();
            let kind = record.header().kind;
            let from = Loc::new(victim.slot, victim.at);
            let verdict = cleaner.judge(self, from, &record, floor);
            match verdict {
                Verdict::Live => {
                    if let Err(error) = self.move_record(from, kind, stride, cleaner) {
                        break Err(error);
                    }
                }
                Verdict::Dead => {}
                Verdict::DropTombstone => {
                    let seq = record.header().seq;
                    debug_assert!(kind.is_remove() && seq < floor);
                    self.manifest.dropped = self.manifest.dropped.max(seq);
                }
            }
            self.count_passed(from, kind, stride, verdict);
            victim.at += stride;
            *left = left.saturating_sub(stride);
        };
        self.cleaning.victim = Some(victim);
        result
    }

    /// Nothing is left to be looked at in the victim: it is on its way out.
    fn ends(&mut self, victim: Victim) -> bool {
        let segment = self.segment(victim.slot);
        let (whole, spent) = (victim.at >= segment.end, segment.is_spent());
        if victim.counted && whole && !spent {
            // Something that counts as live was not met: damage hides it.
            segment.damaged.set(true);
            self.cleaning.victim = None;
            return true;
        }
        let ends = whole || (victim.counted && spent);
        if ends {
            self.finish(victim);
        }
        ends
    }

    /// A judged record counts no more: it moved, or it is left behind.
    fn count_passed(&self, from: Loc, kind: Kind, stride: usize, verdict: Verdict) {
        let segment = self.segment(from.slot() as u32);
        let counted = match kind {
            Kind::SessionOpen | Kind::SessionEnd => true,
            Kind::Remove | Kind::RemoveId | Kind::Clear => {
                segment.name().kind == SegmentKind::Settled
            }
            _ => verdict == Verdict::Live,
        };
        if counted {
            segment.count_dead(Some(kind), stride);
        }
        if needs_judgement(kind) && !segment.is_dead(from.offset()) {
            segment.count_judged();
        }
    }

    /// Where the records of a segment begin that cleaning has not passed.
    pub(super) fn passed(&self, slot: u32) -> usize {
        match self.cleaning.victim {
            Some(victim) if victim.slot == slot => victim.at,
            _ if self.cleaning.emptied.iter().any(|e| e.slot == slot) => self.segment(slot).end,
            _ => SEGMENT_HEAD_BYTES,
        }
    }

    fn move_record<C: Cleaner + ?Sized>(
        &mut self,
        from: Loc,
        kind: Kind,
        stride: usize,
        cleaner: &mut C,
    ) -> Result<(), AppendError> {
        let slot = self.reserve_settled(stride)?;
        let (source, target) = self.two(from.slot() as u32, slot);
        let at = target.end;
        let bytes = &source.memory.bytes()[from.offset()..from.offset() + stride];
        let Some(len) = bytes.first_chunk::<4>() else { unreachable!("a record has a header") };
        let len = u32::from_le_bytes(*len);
        target.memory.slice_mut(at + 4, stride - 4).copy_from_slice(&bytes[4..]);
        target.memory.publish(at, len);
        let to = self.settled(slot, at, kind, stride);
        self.cleaning.moved_bytes += stride as u64;
        self.cleaning.moved_records += 1;
        let record = Unchecked::new(self.bytes_at(to)).trust();
        cleaner.moved(&record, from, to);
        Ok(())
    }

    fn two(&mut self, a: u32, b: u32) -> (&Segment, &mut Segment) {
        let Ok([Some(a), Some(b)]) = self.slots.get_disjoint_mut([a as usize, b as usize]) else {
            unreachable!("a segment is not cleaned into itself")
        };
        (a, b)
    }

    pub(super) fn settled(&mut self, slot: u32, at: usize, kind: Kind, stride: usize) -> Loc {
        let segment = self.segment_mut(slot);
        segment.end = at + stride;
        segment.count_added(kind, stride);
        if kind == Kind::Sessions {
            let stamp = version_of(&segment.memory.bytes()[at..]).seq;
            self.flush.settled_rests_on = self.flush.settled_rests_on.max(stamp);
        }
        self.dirty_settled(slot, stride);
        Loc::new(slot, at)
    }

    fn takes_settled(&self, slot: u32, stride: usize) -> bool {
        let segment = self.segment(slot);
        segment.fits(stride) && !(self.copying && segment.head.made_at_seq > 0)
    }

    /// The settled segment with room for `stride` bytes.
    pub(super) fn reserve_settled(&mut self, stride: usize) -> Result<u32, AppendError> {
        let slot = self.find_settled(stride)?;
        self.segment_mut(slot).make_blank(stride);
        Ok(slot)
    }

    fn find_settled(&mut self, stride: usize) -> Result<u32, AppendError> {
        if let Some(slot) = self.settled_open.filter(|&slot| self.takes_settled(slot, stride)) {
            return Ok(slot);
        }
        loop {
            if let Some(slot) = self.settleds.next.pop_front() {
                self.settled_slots.push(slot);
                if self.takes_settled(slot, stride) {
                    // Not before there is another: smaller ones may still fit.
                    if let Some(old) = self.settled_open.replace(slot) {
                        self.segment_mut(old).closed = true;
                    }
                    return Ok(slot);
                }
                self.segment_mut(slot).closed = true;
                continue;
            }
            let coming = self.want(SegmentKind::Settled, stride, Room::Clean);
            if self.settleds.next.is_empty() {
                return Err(if coming { AppendError::NotYet } else { AppendError::NoSpace });
            }
        }
    }

    /// Cleaning looks at its records, or has them all.
    pub(super) fn is_being_emptied(&self, slot: u32) -> bool {
        self.cleaning.victim.is_some_and(|victim| victim.slot == slot)
            || self.cleaning.emptied.iter().any(|emptied| emptied.slot == slot)
    }

    fn finish(&mut self, victim: Victim) {
        let live = self.segment(victim.slot).live.get();
        debug_assert!(live == 0 || !victim.counted, "{live} bytes left behind count as live");
        self.cleaning.victim = None;
        self.goes(victim.slot, self.commit.max(victim.judged_at));
        self.advance_frees();
    }

    /// Nothing in it is wanted any more.
    fn goes(&mut self, slot: u32, judged_at: u64) {
        let copies_at = self.flush.settled_written;
        self.cleaning.emptied.push(Emptied { slot, copies_at, judged_at, ticket: None });
    }

    /// Half a copy is here, which this process was given: it goes on, or was given up.
    pub fn is_copying(&self) -> bool {
        self.copying
    }

    /// While a copy goes on, settled segments are made with `made_at_seq` 0: what it brings may be
    /// older than any tombstone here.
    pub fn set_copying(&mut self, copying: bool) {
        self.copying = copying;
        // What was made before is of no use to it, and what it asked for ahead to nobody else.
        for ahead in std::mem::take(&mut self.settleds.next) {
            self.give_back(ahead);
        }
    }

    /// Appends a committed record that a copy brought, between `set_copying(true)` and `(false)`.
    pub fn append_copied(&mut self, record: &Record<'_>) -> Result<Loc, AppendError> {
        assert!(self.copying, "a copied record outside a copy");
        let bytes = record.bytes();
        let slot = self.reserve_settled(record.stride())?;
        let segment = self.segment_mut(slot);
        let at = segment.end;
        segment.memory.slice_mut(at + 4, bytes.len() - 4).copy_from_slice(&bytes[4..]);
        segment.memory.publish(at, bytes.len() as u32);
        let stride = record.stride();
        let loc = self.settled(slot, at, record.header().kind, stride);
        if self.settleds.next.is_empty() {
            // The next one is asked for at once, so that the copy need not wait for the storage thread, which takes as
            // long as half a segment on a fast link. Not of what is kept for cleaning.
            self.want(SegmentKind::Settled, 8, Room::Write);
        }
        Ok(loc)
    }
}
