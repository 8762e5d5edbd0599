//! The scan at start: every record once, settled segments first, then the tail in order of seq.
//!
//! What ends a tail: a length of zero with nothing valid behind it, an epoch that falls or differs
//! from the history, a skipped seq. What is damage instead (docs/formats.md says it in prose): bytes
//! that are no record where a later valid record proves that there was one (`recover.rs`).
//!
//! Records above the newest commit watermark found are *in doubt*: they are not delivered but listed,
//! for take-over to decide. Worst case per step: the budget's records and one resynchronisation.

use std::collections::VecDeque;

use super::Log;
use super::recover::Sight;
use crate::canary::{self, Canary};
use crate::corrupt::Corrupt;
use crate::limits::{CORRUPTIONS_KEPT_MAX, SEGMENT_HEAD_BYTES};
use crate::loc::Loc;
use crate::record::{Flaw, Record, Unchecked, Version};
use crate::segment::SegmentName;
use crate::storage::Source;

/// Records delivered at once, so that the receiver can prefetch.
pub const BATCH: usize = 32;

/// A record and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Where.
    pub loc: Loc,
    /// The record, wholly checked.
    pub record: Record<'a>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanProgress {
    /// Call again.
    More,
    /// The log is ready; [`Scan::report`] says what was found.
    Done,
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct ScanReport {
    /// Valid records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Damage, the first of it in full.
    pub corruptions: Vec<Corrupt>,
    /// How often.
    pub corruptions_total: u64,
    /// Records cut off behind a torn tail: what an `async` table lost for certain (there may be more
    /// that never reached the disk).
    pub lost_records: u64,
    /// The tail ended in the middle of a record (a kill or power failure during an append): normal.
    pub torn: bool,
    /// Newest record.
    pub tail: Version,
    /// Everything up to here is surely committed.
    pub commit: u64,
    /// Records above `commit`, in order of seq: prepared, to be committed or truncated.
    pub in_doubt: Vec<Loc>,
    /// Nothing is missing that should be there.
    pub intact: bool,
}

/// A scan, in steps.
#[derive(Debug)]
pub struct Scan {
    pub(super) source: Source,
    todo: VecDeque<u32>,
    at: usize,
    /// Version of the tail's last record so far.
    pub(super) last: Version,
    /// A reported gap: the next record's seq may be any higher one.
    gap: bool,
    ended: bool,
    pending: VecDeque<(u64, Loc)>,
    report: ScanReport,
}

/// Why a run of records stopped.
enum Stop {
    Batch,
    Flaw(Flaw),
    /// A valid record that does not continue the tail.
    Breaks,
}

impl Scan {
    pub(super) fn new(log: &Log, source: Source, damaged: &[SegmentName]) -> Self {
        // Records behind a damaged first page are good; the page itself is reported.
        let corruptions: Vec<Corrupt> = damaged
            .iter()
            .take(CORRUPTIONS_KEPT_MAX)
            .map(|&name| Corrupt {
                partition: log.cfg.partition,
                segment: Some(name),
                offset: 0,
                bytes: Some(SEGMENT_HEAD_BYTES as u64),
                flaw: Flaw::SegmentHead,
            })
            .collect();
        Self {
            source,
            todo: log.settled_slots.iter().chain(&log.tail_slots).copied().collect(),
            at: SEGMENT_HEAD_BYTES,
            last: log.manifest.below,
            gap: false,
            ended: false,
            pending: VecDeque::new(),
            report: ScanReport {
                intact: log.manifest.intact,
                commit: log.manifest.below.seq,
                corruptions_total: damaged.len() as u64,
                corruptions,
                ..ScanReport::default()
            },
        }
    }

    /// What was found, once it is done.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// Looks at about `budget_records` records and delivers those that are surely committed, in
    /// batches of at most `BATCH`.
    ///
    /// The receiver may call [`Log::key_at`], [`Log::record`] and [`Log::mark_dead`] on anything
    /// delivered so far.
    pub fn step<F>(&mut self, log: &mut Log, budget_records: usize, each: &mut F) -> ScanProgress
    where
        F: FnMut(&Log, &[Found<'_>]) + ?Sized,
    {
        let until = self.report.records + budget_records as u64;
        while let Some(&slot) = self.todo.front() {
            if self.report.records >= until {
                return ScanProgress::More;
            }
            let stop = if self.is_tail(log, slot) {
                self.run_tail(log, slot, each)
            } else {
                self.run_settled(log, slot, each)
            };
            match stop {
                Stop::Batch => {}
                Stop::Flaw(flaw) => self.on_flaw(log, slot, flaw),
                Stop::Breaks => {
                    self.ended = true;
                    self.end_segment(log, slot);
                }
            }
        }
        if !log.ready {
            self.finish(log, each);
        }
        ScanProgress::Done
    }

    fn is_tail(&self, log: &Log, slot: u32) -> bool {
        // The tail's slots are the last of `todo`, in their order.
        self.todo.len() <= log.tail_slots.len() && log.tail_slots.contains(&slot)
    }

    /// The record that is next in a segment, if there is one and it is of this partition.
    #[inline]
    fn next<'a>(&self, log: &Log, bytes: &'a [u8]) -> Result<Record<'a>, Flaw> {
        let record = Unchecked::new(&bytes[self.at..]).check()?;
        let partition = record.header().partition;
        if log.is_ours(partition) { Ok(record) } else { Err(Flaw::Partition(partition)) }
    }

    fn run_settled<F>(&mut self, log: &Log, slot: u32, each: &mut F) -> Stop
    where
        F: FnMut(&Log, &[Found<'_>]) + ?Sized,
    {
        let segment = log.segment(slot);
        let bytes = segment.memory.bytes();
        let mut batch: [Found<'_>; BATCH] =
            [Found { loc: Loc::new(0, 0), record: Record::NONE }; BATCH];
        let (mut n, mut bytes_of) = (0, 0);
        let mut stop = Stop::Batch;
        while n < BATCH {
            match self.next(log, bytes) {
                Ok(record) => {
                    batch[n] = Found { loc: Loc::new(slot, self.at), record };
                    n += 1;
                    segment.count_added(record.header().kind, record.stride());
                    bytes_of += record.stride();
                    self.at += record.stride();
                }
                Err(flaw) => {
                    stop = Stop::Flaw(flaw);
                    break;
                }
            }
        }
        self.report.records += n as u64;
        self.report.bytes += bytes_of as u64;
        if n > 0 {
            each(log, &batch[..n]);
        }
        stop
    }

    fn run_tail<F>(&mut self, log: &Log, slot: u32, each: &mut F) -> Stop
    where
        F: FnMut(&Log, &[Found<'_>]) + ?Sized,
    {
        if self.ended {
            return Stop::Breaks;
        }
        let segment = log.segment(slot);
        let bytes = segment.memory.bytes();
        let mut batch: [Found<'_>; BATCH] =
            [Found { loc: Loc::new(0, 0), record: Record::NONE }; BATCH];
        let (mut n, mut bytes_of, mut commit) = (0, 0, self.report.commit);
        let mut stop = Stop::Batch;
        while n < BATCH {
            let record = match self.next(log, bytes) {
                Ok(record) => record,
                Err(flaw) => {
                    stop = Stop::Flaw(flaw);
                    break;
                }
            };
            if !self.continues(log, record.version()) {
                stop = Stop::Breaks;
                break;
            }
            self.gap = false;
            self.last = record.version();
            commit = commit.max(record.header().commit());
            batch[n] = Found { loc: Loc::new(slot, self.at), record };
            n += 1;
            segment.count_added(record.header().kind, record.stride());
            bytes_of += record.stride();
            self.at += record.stride();
        }
        self.report.records += n as u64;
        self.report.bytes += bytes_of as u64;
        self.report.commit = commit;
        self.deliver(log, &batch[..n], each);
        stop
    }

    /// Hands over what is committed by now; the rest waits.
    fn deliver<F>(&mut self, log: &Log, batch: &[Found<'_>], each: &mut F)
    where
        F: FnMut(&Log, &[Found<'_>]) + ?Sized,
    {
        let commit = self.report.commit;
        while let Some(&(seq, loc)) = self.pending.front()
            && seq <= commit
        {
            self.pending.pop_front();
            if let Ok(record) = log.record(loc) {
                each(log, &[Found { loc, record }]);
            }
        }
        let sure = batch.iter().take_while(|f| f.record.header().seq <= commit).count();
        if sure > 0 {
            each(log, &batch[..sure]);
        }
        self.pending.extend(batch[sure..].iter().map(|f| (f.record.header().seq, f.loc)));
    }

    fn continues(&self, log: &Log, version: Version) -> bool {
        let first = self.last == Version::default();
        let follows = version.seq == self.last.seq + 1
            || ((first || self.gap) && version.seq > self.last.seq);
        let epoch = log.manifest.epoch_of(version.seq).is_none_or(|e| e == version.epoch);
        let careless = canary::is_on(Canary::OldBytes);
        follows && (careless || version.epoch >= self.last.epoch && epoch)
    }

    fn on_flaw(&mut self, log: &mut Log, slot: u32, flaw: Flaw) {
        let tail = self.is_tail(log, slot);
        let sight = if tail {
            self.look_ahead_tail(log, slot, self.at)
        } else {
            self.look_ahead_settled(log, slot, self.at)
        };
        match sight {
            Sight::End { torn } => {
                if tail && torn {
                    self.report.torn = true;
                    self.ended = true;
                }
                self.end_segment(log, slot);
            }
            Sight::Torn { lost } => {
                self.report.torn = true;
                self.report.lost_records += lost;
                self.ended = true;
                self.end_segment(log, slot);
            }
            Sight::Damage { resume } => {
                let to = resume.unwrap_or(log.segment(slot).size());
                self.damaged(log, slot, to, flaw);
                self.gap = tail;
                match resume {
                    Some(at) => self.at = at,
                    None => self.end_segment(log, slot),
                }
            }
        }
    }

    fn damaged(&mut self, log: &Log, slot: u32, to: usize, flaw: Flaw) {
        let segment = log.segment(slot);
        segment.damaged.set(true);
        self.report.intact = false;
        self.report.corruptions_total += 1;
        if self.report.corruptions.len() < CORRUPTIONS_KEPT_MAX {
            self.report.corruptions.push(Corrupt {
                partition: log.cfg.partition,
                segment: Some(segment.name()),
                offset: self.at as u64,
                bytes: Some((to - self.at) as u64),
                flaw,
            });
        }
    }

    /// The segment's records end at `self.at`; what is behind them must not come back.
    fn end_segment(&mut self, log: &mut Log, slot: u32) {
        let end = self.at;
        let tail = self.is_tail(log, slot);
        let has_disk = log.has_disk();
        let last = self.last;
        let segment = log.segment_mut(slot);
        let damaged = segment.damaged.get();
        let garbage = segment.memory.bytes()[end..].iter().rposition(|&b| b != 0);
        if let Some(dirty) = garbage
            && (tail || self.source == Source::Disk)
            && !damaged
        {
            segment.zero_from(end);
            if has_disk {
                // Later segments are found later, and their zeros must be written first.
                log.flush.zeros.push_front((slot, end, end + dirty + 1));
            }
        }
        // (What a damaged one has is not written again: a block of it could hide good bytes that the disk has.)
        let durable = if tail || damaged { end } else { self.durable_settled(log, slot, end) };
        if durable < end {
            log.dirty_settled(slot, end - durable);
        }
        let segment = log.segment_mut(slot);
        segment.end = end;
        segment.durable = durable;
        segment.written = durable;
        if tail && end > SEGMENT_HEAD_BYTES {
            segment.last = last;
            segment.first =
                crate::record::version_of(&segment.memory.bytes()[SEGMENT_HEAD_BYTES..]);
        }
        self.todo.pop_front();
        self.at = SEGMENT_HEAD_BYTES;
    }

    /// Up to where the disk surely has a settled segment that ends at `end`: memory may have more, of which the process
    /// that died had not written all.
    fn durable_settled(&self, log: &Log, slot: u32, end: usize) -> usize {
        if self.source == Source::Disk || !log.has_disk() {
            return end;
        }
        (log.listed_end(slot) as usize).clamp(SEGMENT_HEAD_BYTES, end)
    }

    fn finish<F>(&mut self, log: &mut Log, each: &mut F)
    where
        F: FnMut(&Log, &[Found<'_>]) + ?Sized,
    {
        // Empty segments at the end of the chain are the next rolls'.
        while let Some(&slot) = log.tail_slots.back()
            && log.segment(slot).is_empty()
            && !log.segment(slot).damaged.get()
        {
            log.tail_slots.pop_back();
            log.segment_mut(slot).closed = false;
            log.tails.next.push_front(slot);
        }
        if let Some(&slot) = log.tail_slots.back() {
            let segment = log.segment_mut(slot);
            segment.closed = segment.damaged.get();
        }
        log.tail = self.last;
        log.commit = self.report.commit.min(self.last.seq);
        log.flush.flushed = self.last;
        log.manifest.intact = self.report.intact;
        if self.source == Source::Disk {
            log.lower_heads();
        }
        log.set_ready();
        self.report.commit = log.commit;
        self.report.tail = self.last;
        self.deliver(log, &[], each);
        self.report.in_doubt = self.pending.drain(..).map(|(_, loc)| loc).collect();
    }
}
