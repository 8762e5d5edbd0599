//! A replica's log: what the data core holds in its hands.
//!
//! Sans-I/O: [`Log::poll_ask`] says what the log wants done (a segment, a write, a file job), the
//! engine does it and answers with [`Log::give`], [`Log::on_written`] and [`Log::on_job`].
//!
//! Invariants:
//! * tail segments are consecutive; only the last one grows; records in them are in order of seq;
//! * `durable` of a segment is always the end of a record, and grows in order of the tail;
//! * a segment's memory stays mapped while a write of it is in flight or a pin is held;
//! * each record counts as dead exactly once (`count.rs`);
//! * a segment is freed only after everything that made its records dead is as durable as the table
//!   promises (`free.rs`).

mod age;
mod append;
mod clean;
mod count;
mod draft;
mod flush;
mod free;
mod list;
mod open;
mod rebase;
mod recover;
mod renew;
mod scan;
mod ship;
mod stats;
mod supply;
mod truncate;

use std::collections::VecDeque;

pub use append::{AppendError, Room};
pub use clean::{CleanProgress, Cleaner, Verdict};
pub use count::SegmentCount;
pub use flush::{FlushId, FlushOp, Written};
pub use list::Part;
pub use scan::{Found, Scan, ScanProgress, ScanReport};
pub use ship::{Cursor, Slice};
pub use stats::LogStats;
pub use supply::Want;

use crate::corrupt::Corrupt;
use crate::limits::SEGMENT_BYTES_LEAST;
use crate::loc::Loc;
use crate::manifest::{Incarnation, Manifest};
use crate::memory;
use crate::record::{Flaw, Record, Unchecked, Version, key_of};
use crate::segment::{Segment, SegmentName};
use crate::storage::{Done, Job, StorageError};

/// When a record is safe: the table's option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Never on disk.
    Memory,
    /// On disk at most this much later.
    Async {
        /// Milliseconds.
        ms: u32,
    },
    /// Before it is voted for.
    Sync,
}

/// What a log is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Table id.
    pub table: u32,
    /// Partition id.
    pub partition: u32,
    /// When a record is safe.
    pub durability: Durability,
    /// Room for this replica's segments.
    pub bytes_max: u64,
    /// Largest segment, unless a record needs a larger one. Below 1 MiB for tests.
    pub segment_bytes_max: usize,
}

/// What a log wants done.
#[derive(Debug)]
pub enum Ask {
    /// A spare: answer with [`Log::give`] or [`Log::refuse`].
    Segment(Want),
    /// A write of mapped bytes: answer with [`Log::on_written`].
    Write(FlushOp),
    /// A file job: its `Done` goes to [`Log::on_job`].
    Job(Job),
}

/// What an answered job means to whoever runs the log.
#[derive(Debug)]
pub enum Outcome {
    /// It went well; ask again.
    Fine,
    /// There is no room; writes are refused until something is freed.
    NoSpace(StorageError),
    /// The disk is not to be trusted any more: the replica is sick and says so.
    Sick(StorageError),
}

/// See the module's text.
#[derive(Debug)]
pub struct Log {
    cfg: LogConfig,
    /// Segments by slot.
    slots: Vec<Option<Segment>>,
    /// Of all of them: each vote asks for it, and there may be thousands.
    used_bytes: u64,
    free_slots: Vec<u32>,
    /// Tail segments from `lowest` on; the last one grows.
    tail_slots: VecDeque<u32>,
    /// Everything else that counts: settled segments, and tail segments below `lowest`.
    settled_slots: Vec<u32>,
    /// The settled segment that grows.
    settled_open: Option<u32>,
    tail: Version,
    commit: u64,
    manifest: Manifest,
    /// Ticket of the newest change to the manifest, and of the newest one that is on disk.
    manifest_changed: u64,
    manifest_saved: u64,
    manifest_in_flight: bool,
    /// It did not fit: tried again after [`Log::room_again`].
    manifest_blocked: bool,
    jobs: VecDeque<Job>,
    tails: supply::Supply,
    settleds: supply::Supply,
    flush: flush::Flush,
    cleaning: clean::Cleaning,
    /// Writes are refused; see `supply.rs`.
    full: bool,
    /// A copy to this replica goes on.
    copying: bool,
    /// The scan at start is over.
    ready: bool,
    /// It is, and memory has nothing left of what a truncation dropped.
    appendable: bool,
    /// Makes its own segments, in heap memory: how many it may still make.
    heap: Option<usize>,
    /// Whether `Ask::Job` and `Ask::Write` are emitted; a log in heap answers itself.
    has_files: bool,
}

impl Log {
    /// An empty log in heap memory that makes its own segments at once (tests, simulator, Miri).
    pub fn in_heap(cfg: LogConfig) -> Self {
        let mut manifest = Manifest::new(cfg.table, cfg.partition, Incarnation::default());
        manifest.intact = true;
        let mut log = Self::empty(cfg, manifest);
        log.heap = Some(usize::MAX);
        log.set_ready();
        log
    }

    /// Bounds how many segments a log in heap makes from now on; past that it asks.
    pub fn ration(&mut self, segments: usize) {
        self.heap = Some(segments);
    }

    fn empty(cfg: LogConfig, manifest: Manifest) -> Self {
        assert!(cfg.segment_bytes_max >= SEGMENT_BYTES_LEAST, "segments too small");
        Self {
            cfg,
            slots: Vec::new(),
            used_bytes: 0,
            free_slots: Vec::new(),
            tail_slots: VecDeque::new(),
            settled_slots: Vec::new(),
            settled_open: None,
            tail: manifest.below,
            commit: manifest.below.seq,
            tails: supply::Supply::new(manifest.next_tail),
            settleds: supply::Supply::new(manifest.next_settled),
            manifest,
            manifest_changed: 0,
            manifest_saved: 0,
            manifest_in_flight: false,
            manifest_blocked: false,
            jobs: VecDeque::new(),
            flush: flush::Flush::default(),
            cleaning: clean::Cleaning::default(),
            full: false,
            copying: false,
            ready: false,
            appendable: false,
            heap: None,
            has_files: false,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &LogConfig {
        &self.cfg
    }

    /// The record at `loc`. Its CRC is checked on each read; a damaged one is never served.
    #[inline]
    pub fn record(&self, loc: Loc) -> Result<Record<'_>, Corrupt> {
        let checked = Unchecked::new(self.bytes_at(loc)).check_crc();
        checked.map_err(|flaw| self.corrupt(loc, flaw))
    }

    #[cold]
    fn corrupt(&self, loc: Loc, flaw: Flaw) -> Corrupt {
        let segment = self.slots.get(loc.slot()).and_then(Option::as_ref);
        if let Some(segment) = segment {
            segment.damaged.set(true);
        }
        Corrupt {
            partition: self.cfg.partition,
            segment: segment.map(Segment::name),
            offset: loc.offset() as u64,
            bytes: None,
            flaw,
        }
    }

    /// Fetches the record's first cache lines: as many as a small record has, because its key's length
    /// lies at its end; and what a write will note of it.
    #[inline]
    pub fn prefetch(&self, loc: Loc) {
        if let Some(Some(segment)) = self.slots.get(loc.slot()) {
            let record = segment.memory.as_ptr().wrapping_add(loc.offset());
            memory::prefetch(record);
            memory::prefetch(record.wrapping_add(128));
            segment.prefetch_dead(loc.offset());
        }
    }

    /// Fetches the cache lines that the next record will be written to.
    #[inline]
    pub fn prefetch_tail(&self) {
        if let Some(&slot) = self.tail_slots.back() {
            let segment = self.segment(slot);
            let end = segment.memory.as_ptr().wrapping_add(segment.end);
            memory::prefetch(end);
            memory::prefetch(end.wrapping_add(128));
        }
    }

    /// The key of the record at `loc`, for comparing while an index is probed: the CRC is not
    /// checked. Within bounds whatever the bytes are; empty when they make no sense.
    #[inline]
    pub fn key_at(&self, loc: Loc) -> &[u8] {
        key_of(self.bytes_at(loc))
    }

    /// The segment's memory stays where it is until [`Log::unpin`] was called as often.
    pub fn pin(&self, loc: Loc) {
        if let Some(Some(segment)) = self.slots.get(loc.slot()) {
            segment.pins.set(segment.pins.get() + 1);
        }
    }

    /// Ends a pin.
    pub fn unpin(&self, loc: Loc) {
        if let Some(Some(segment)) = self.slots.get(loc.slot()) {
            let pins = segment.pins.get();
            assert!(pins > 0, "unpinned more often than pinned");
            segment.pins.set(pins - 1);
        }
    }

    /// Everything up to `seq` is committed.
    pub fn set_commit(&mut self, seq: u64) {
        debug_assert!(seq <= self.tail.seq, "commit {seq} above the tail {}", self.tail.seq);
        self.commit = self.commit.max(seq);
    }

    /// The commit watermark.
    #[inline]
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// The newest record's version.
    #[inline]
    pub fn tail(&self) -> Version {
        self.tail
    }

    /// Space may be advertised: the scan at start is over.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What the replica knows about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Changes the manifest. The change is durable once [`Log::manifest_saved`] reaches the ticket
    /// returned; a truncation's blocks are flushed before it.
    pub fn change_manifest(&mut self, change: impl FnOnce(&mut Manifest)) -> u64 {
        change(&mut self.manifest);
        let history = &mut self.manifest.history;
        if history.len() > crate::limits::HISTORY_MAX {
            history.drain(..history.len() - crate::limits::HISTORY_MAX);
        }
        self.manifest_changed += 1;
        if !self.has_files {
            self.manifest_saved = self.manifest_changed;
        }
        self.manifest_changed
    }

    /// For an orderly stop: the flush waits for nothing, and once everything is durable a manifest
    /// that says so is worth saving (`change_manifest` with no change).
    pub fn hurry(&mut self) {
        self.flush.hurry = true;
    }

    /// Ticket of the newest durable change of the manifest.
    pub fn manifest_saved(&self) -> u64 {
        self.manifest_saved
    }

    /// What the log wants done next; `None` when there is nothing until [`Log::wake_at`], an answer
    /// or an append.
    pub fn poll_ask(&mut self, boot_ns: u64) -> Option<Ask> {
        self.zero_slice();
        self.advance_frees();
        if let Some(job) = self.jobs.pop_front() {
            return Some(Ask::Job(job));
        }
        if let Some(want) = self.poll_want() {
            return Some(Ask::Segment(want));
        }
        if let Some(job) = self.poll_manifest() {
            return Some(Ask::Job(job));
        }
        self.poll_write(boot_ns).map(Ask::Write)
    }

    fn poll_manifest(&mut self) -> Option<Job> {
        let wait = self.manifest_in_flight || self.manifest_blocked || self.truncating();
        if wait || self.manifest_changed == self.manifest_saved {
            return None;
        }
        self.manifest_in_flight = true;
        self.manifest.flushed = self.flushed_version();
        self.count_segments();
        Some(Job::Manifest {
            manifest: Box::new(self.manifest.clone()),
            disk: self.has_disk(),
            ticket: self.manifest_changed,
        })
    }

    /// A number that was used is never used again: below `lowest` a new tail segment would be none.
    fn count_segments(&mut self) {
        self.manifest.next_tail = self.tails.next_n;
        self.manifest.next_settled = self.settleds.next_n;
    }

    /// The answer to a job that [`Log::poll_ask`] emitted.
    pub fn on_job(&mut self, done: Done) -> Outcome {
        match done {
            Done::Bound { name, result, .. } => self.on_bound(name, result),
            Done::Manifest { ticket, result, .. } => {
                self.manifest_in_flight = false;
                match result {
                    Ok(()) => {
                        self.manifest_saved = self.manifest_saved.max(ticket);
                        Outcome::Fine
                    }
                    Err(error) => {
                        self.manifest_blocked = true;
                        self.failed(error)
                    }
                }
            }
            Done::Unlinked { result, .. } => match result {
                Ok(()) => Outcome::Fine,
                Err(error) => self.failed(error),
            },
            // (`Recycled` comes apart before.)
            Done::Spare { .. }
            | Done::SpareDropped { .. }
            | Done::Recycled { .. }
            | Done::Opened { .. }
            | Done::Removed { .. } => Outcome::Fine,
        }
    }

    /// No room is not sickness: the same job is tried again later.
    fn failed(&mut self, error: StorageError) -> Outcome {
        if error.is_no_space() {
            return Outcome::NoSpace(error);
        }
        self.flush.sick = true;
        Outcome::Sick(error)
    }

    fn set_ready(&mut self) {
        self.ready = true;
        self.appendable = true;
    }

    fn has_disk(&self) -> bool {
        self.cfg.durability != Durability::Memory
    }

    fn bytes_at(&self, loc: Loc) -> &[u8] {
        match self.slots.get(loc.slot()) {
            Some(Some(segment)) => {
                let end = segment.end;
                segment.memory.bytes().get(loc.offset()..end).unwrap_or(&[])
            }
            _ => &[],
        }
    }

    fn segment(&self, slot: u32) -> &Segment {
        match &self.slots[slot as usize] {
            Some(segment) => segment,
            None => unreachable!("slot {slot} is listed and empty"),
        }
    }

    fn segment_mut(&mut self, slot: u32) -> &mut Segment {
        match &mut self.slots[slot as usize] {
            Some(segment) => segment,
            None => unreachable!("slot {slot} is listed and empty"),
        }
    }

    /// The name of the segment that holds `loc`.
    pub fn segment_name(&self, loc: Loc) -> Option<SegmentName> {
        self.slots.get(loc.slot())?.as_ref().map(Segment::name)
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.slots.iter().flatten()
    }
}
