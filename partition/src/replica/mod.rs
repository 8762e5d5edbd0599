//! One replica of one partition: its log, its index, its sessions, and the writes on their way.
//!
//! Every write goes prepare (append) -> vote (as durable as the table asks) -> commit (index,
//! answer), also in a group of one, where the three are one call unless the disk must come first.
//! Pure: time is an argument, actions are return values.
//!
//! Invariants:
//! * the index names the newest *committed* put of each key, and nothing else;
//! * `pending` holds every record above the commit watermark, in order of seq without gaps;
//! * an answer that rests on an uncommitted record waits in `waiters` for its commit;
//! * while writes are held no later write overtakes them.

mod actions;
mod ahead;
mod backup;
mod clean;
mod commit;
mod compare;
mod execute;
mod group;
mod held;
mod learner;
mod lookup;
mod number;
mod peers;
mod primary;
mod reads;
mod reads_aside;
mod recover;
mod source;
#[cfg(test)]
mod tests;
mod tick;
mod waiters;
mod write;

use std::collections::{HashMap, VecDeque};

use firebrick_log::record::SessionResult;
use firebrick_log::storage::Done;
use firebrick_log::{
    Ask, Durability, FlushId, Log, LogStats, Outcome as JobOutcome, Scan, ScanReport, Written,
};

use crate::index::Index;
use crate::maps::Leaf;
use crate::op::{Failure, Now, Route, Version};
use crate::sessions::{Rebuild, Sessions};

pub use actions::{Action, Actions, Outcome, OwnedAnswer, Report};
pub use execute::Reads;
pub use group::Me;
use group::NoRoom;
pub use primary::REPORT_NS;
pub use recover::Recovering;
pub use tick::Budget;

/// Bytes of records that may be prepared and not committed.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Writes that may wait for a segment.
pub const HELD_MAX: usize = 65_000;
/// Bytes of writes that may wait for a segment.
pub const HELD_BYTES_MAX: usize = 32 << 20;
/// Answers that may wait for another request's record; past that requests are held.
pub const WAITERS_MAX: usize = 16 << 10;
/// Bytes of values in them, but for the last one's.
pub const WAITING_BYTES_MAX: usize = 16 << 20;

/// Counters, collected now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStats {
    /// Keys with a value.
    pub keys: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Records prepared and not committed.
    pub in_flight: u64,
    /// Writes that wait for a segment.
    pub held: u64,
    /// Keys removed because their time was over.
    pub expired: u64,
    /// Reads that met a damaged record.
    pub corrupt: u64,
    /// Bytes of records that copies to this replica brought.
    pub copied: u64,
    /// The same that this replica sent as a source.
    pub sent: u64,
    /// The log's.
    pub log: LogStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The log is being scanned.
    Recovering,
    /// The log is there; this replica is in no group, or must not act in it.
    Ready,
    /// The manifest with the beginning of this primary's epoch is being saved.
    Beginning,
    /// The take-over record is prepared.
    TakingOver { seq: u64 },
    /// The primary serves.
    Serving,
    /// The primary was asked to stop: new requests are held, what is in flight commits.
    Stopped,
    /// A backup or a learner.
    Following,
}

/// See the module's text.
#[derive(Debug)]
pub struct Replica {
    route: Route,
    leaf: Leaf,
    /// The leaf's suffix, reversed, at the top of 64 bits.
    prefix: u64,
    state: State,
    /// Nobody else's vote is needed: a write commits in the call that prepares it.
    solo: bool,
    group: group::Group,
    /// A copy that this replica is the source of.
    source: Option<Box<source::Source>>,
    /// The discarded index was of a log that is thrown away.
    discard_quietly: bool,
    log: Log,
    index: Index,
    sessions: Sessions,
    pending: VecDeque<commit::Pending>,
    pending_bytes: usize,
    /// Newest prepared record of a key hash.
    newest: HashMap<u64, u64>,
    /// Newest prepared `Clear`; 0 is none.
    clearing: u64,
    waiters: waiters::Waiters,
    held: VecDeque<held::Held>,
    held_bytes: usize,
    held_slice: held::HeldSlice,
    /// A held request runs: it need not queue behind the others.
    running_held: bool,
    /// A value being made, or an answer's bytes.
    scratch: Vec<u8>,
    results: Vec<SessionResult>,
    /// Version of the newest `Clear`.
    cleared: Version,
    sessions_record: clean::SessionsRecord,
    /// Some value may have an expiry time.
    may_expire: bool,
    expiry_walk: tick::ExpiryWalk,
    recovery: Option<Box<Recovery>>,
    expired_total: u64,
    corrupt_total: u64,
    copied_total: u64,
    sent_total: u64,
    /// Bytes that may be sent as a source; `None`: as many as there are.
    copy_room: Option<usize>,
    /// How much longer foreground requests may wait on a copy's way; 0: there are none.
    copy_bound_ns: u64,
}

#[derive(Debug)]
struct Recovery {
    scan: Scan,
    rebuild: Rebuild,
    sweep: recover::Sweep,
}

impl Replica {
    /// A replica over an empty log. [`Replica::set_group`] makes it serve.
    pub fn new(log: Log, leaf: Leaf) -> Self {
        Self {
            route: Route { partition: leaf.partition, ..Route::default() },
            leaf,
            prefix: u64::from(leaf.suffix).reverse_bits(),
            state: State::Ready,
            solo: false,
            group: group::Group::default(),
            source: None,
            discard_quietly: false,
            log,
            index: Index::new(leaf.depth),
            sessions: Sessions::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            newest: HashMap::new(),
            clearing: 0,
            waiters: waiters::Waiters::default(),
            held: VecDeque::new(),
            held_bytes: 0,
            held_slice: held::HeldSlice::default(),
            running_held: false,
            scratch: Vec::new(),
            results: Vec::new(),
            cleared: Version::default(),
            sessions_record: clean::SessionsRecord::default(),
            may_expire: false,
            expiry_walk: tick::ExpiryWalk::default(),
            recovery: None,
            expired_total: 0,
            corrupt_total: 0,
            copied_total: 0,
            sent_total: 0,
            copy_room: None,
            copy_bound_ns: 0,
        }
    }

    /// A replica over what an earlier process left: [`Replica::recover_step`] until it is done, then
    /// [`Replica::set_group`].
    pub fn open(log: Log, scan: Scan, leaf: Leaf) -> Self {
        let mut replica = Self::new(log, leaf);
        replica.state = State::Recovering;
        replica.recovery = Some(Box::new(Recovery {
            scan,
            rebuild: Rebuild::default(),
            sweep: recover::Sweep::default(),
        }));
        replica
    }

    /// The current route.
    pub fn route(&self) -> Route {
        self.route
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.leaf.partition
    }

    /// The trie's leaf.
    pub fn leaf(&self) -> Leaf {
        self.leaf
    }

    /// This replica is the primary and serves (its take-over record is committed).
    pub fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    /// This process is not in the group, as the newest map that it was given has it.
    pub fn is_out(&self) -> bool {
        self.group.role == group::Role::Out
    }

    /// Nothing that this process can do by itself is left before it has its part in the group: as a primary
    /// it serves. A backup, a learner, a replica outside its group or one that lacks something waits for others, and one
    /// that has no room for its first record, or whose disk failed, for whoever gives it some: the other replicas of the
    /// brick serve.
    pub fn is_settled(&self) -> bool {
        self.state != State::Recovering
            && (self.group.role != group::Role::Primary
                || self.group.damaged
                || matches!(self.state, State::Serving | State::Stopped)
                || self.log.is_sick()
                || self.lacks_room())
    }

    /// The primary has no room for the first record of its epoch: it refuses everything until there is some. (That the
    /// log is full does not say so: this record may use what is kept for removes.)
    pub fn lacks_room(&self) -> bool {
        self.state == State::Beginning && self.group.no_room != NoRoom::No && !self.log.is_sick()
    }

    /// What a request is told that the disk, which failed, would have to keep: another member takes over in a moment; without
    /// one, nobody before the brick is started again.
    pub fn disk_failed(&self) -> Failure {
        if self.group.members.len() > 1 { Failure::Unavailable } else { Failure::DiskFailed }
    }

    /// The log, to be looked at (pins, statistics).
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Dead bytes that may stay while there is other work.
    pub fn set_slack(&mut self, bytes: u64) {
        self.log.set_slack(bytes);
    }

    /// Writes are prepared and wait for this replica's disk, among others.
    pub fn awaits_disk(&self) -> bool {
        self.log.config().durability == Durability::Sync && !self.pending.is_empty()
    }

    /// The brick is stopping: what is not on disk goes there now.
    pub fn hasten(&mut self) {
        self.log.hurry();
    }

    /// Ends the replica and gives its log back.
    pub fn into_log(self) -> Log {
        self.log
    }

    /// What the scan found; `None` for a replica that began empty or is done with it.
    pub fn scan_report(&self) -> Option<&ScanReport> {
        self.recovery.as_ref().map(|r| r.scan.report())
    }

    /// Keys with a value (expired ones count until they are removed).
    pub fn keys(&self) -> u64 {
        self.index.len() as u64
    }

    /// Something is prepared and not committed: it waits for the disk, or for votes.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Counters.
    pub fn stats(&self) -> ReplicaStats {
        ReplicaStats {
            keys: self.index.len() as u64,
            index_bytes: self.index.bytes() as u64,
            sessions: self.sessions.len() as u64,
            in_flight: self.pending.len() as u64,
            held: self.held.len() as u64,
            expired: self.expired_total,
            corrupt: self.corrupt_total,
            copied: self.copied_total,
            sent: self.sent_total,
            log: self.log.stats(),
        }
    }

    /// Bytes of records that copies moved here, as their source and as their learner.
    pub fn copy_moved(&self) -> u64 {
        self.copied_total + self.sent_total
    }

    /// Pass 1 of a batch: fetches the index bucket of a key.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch_bucket(hash);
    }

    /// Pass 2 of a batch: fetches the record that the key probably has.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) {
        if let Some(loc) = self.index.guess(hash) {
            self.log.prefetch(firebrick_log::Loc::from_bits(loc));
        }
    }

    /// A write of the log was answered.
    pub fn on_written(
        &mut self,
        now: Now,
        id: FlushId,
        result: std::io::Result<usize>,
        out: &mut Actions,
    ) -> Written {
        let written = self.log.on_written(id, result);
        self.poll(now, out);
        written
    }

    /// A file job of the log was answered.
    pub fn on_job(&mut self, now: Now, done: Done, out: &mut Actions) -> JobOutcome {
        let outcome = self.log.on_job(done);
        self.unstall_copy();
        self.poll(now, out);
        outcome
    }

    /// A segment that the log asked for.
    pub fn on_segment(
        &mut self,
        now: Now,
        want: firebrick_log::Want,
        spare: Option<firebrick_log::storage::Spare>,
        out: &mut Actions,
    ) {
        match spare {
            Some(spare) => self.log.give(want.kind, spare),
            None => self.log.refuse(want.kind),
        }
        self.unstall_copy();
        self.poll(now, out);
    }

    /// There may be room again for what was refused.
    pub fn room_again(&mut self) {
        self.log.room_again();
    }

    /// Once a turn, after the turn's requests: commits what may be, retries held writes, and passes on
    /// what the log wants done.
    pub fn poll(&mut self, now: Now, out: &mut Actions) {
        // Alone and active, it may still wait for the segment of its take-over record.
        if !self.solo || self.state == State::Beginning {
            self.advance_epoch(now);
            self.follow_some(now, out);
        }
        self.advance(now, out);
        self.run_held(now, out);
        if !self.solo || !self.group.peers.is_empty() || self.group.stop != group::Stop::No {
            self.lead_some(now, out);
        }
        if self.source.is_some() || self.group.listing.is_some() {
            self.source_some(now, out);
        }
        if self.group.damaged {
            self.report_damaged(now, out);
        }
        self.asks(now, out);
    }

    fn asks(&mut self, now: Now, out: &mut Actions) {
        while let Some(ask) = self.log.poll_ask(now.boot_ns) {
            // One write is in flight at most, and each want and job is asked for once: this ends.
            let ask: Ask = ask;
            out.push(Action::Log(ask));
        }
    }

    /// When to call [`Replica::poll`] without another reason; boot time in nanoseconds.
    pub fn wake_at(&self) -> Option<u64> {
        if self.wants_poll() {
            return Some(0);
        }
        let group = if self.solo && self.group.peers.is_empty() {
            None
        } else {
            let damaged = self.group.damaged.then_some(self.group.report_at);
            [self.lead_wake(), self.follow_wake(), self.source_wake(), damaged]
                .into_iter()
                .flatten()
                .min()
        };
        [self.log.wake_at(), group].into_iter().flatten().min()
    }

    /// [`Replica::poll`] left work for the next turn.
    pub fn wants_poll(&self) -> bool {
        self.held_slice.more || self.has_copy_work()
    }
}
