//! What replicas ask of disks and of the storage thread: opening, recovering, segments, flushes.
//!
//! Nothing here blocks. A replica's asks are taken right after each call that may have made some, so
//! that each is known by its partition.
//!
//! * `open`: partitions that come, recover, and go;
//! * `asks`: segments, file jobs and writes, and their answers;
//! * `pace`: how fast copies may be, and `waits`, what foreground requests wait for;
//! * `rounds`: when the logs whose votes wait for the disk flush;
//! * `pools`: spare segments and the bound on this core's memory.

mod asks;
mod lacks;
mod open;
mod pace;
mod pools;
mod rounds;
mod waits;

use std::collections::VecDeque;

use firebrick_net::Fabric;
use firebrick_partition::log::FlushId;
use firebrick_partition::log::manifest::Incarnation;
use firebrick_partition::log::storage::{Done, Job};
use firebrick_partition::log::{Durability, FlushOp, Log};
use firebrick_partition::replica::{Actions, Budget, Replica};

use super::store::Store;
use crate::notices::Notices;
use crate::storage::Desk;
use lacks::Lacks;
pub(crate) use open::is_over;
use pace::Pace;
use pools::Pools;
use rounds::Rounds;
use waits::Waits;

/// Between two ticks of the replicas while there is work.
const TICK_NS: u64 = 100_000;
/// Between two looks at the size of spares and the room for dead records.
const RESIZE_NS: u64 = 10_000_000;
/// After a start, for so long the parts in groups that the keepers have not given yet are waited for.
const PARTS_NS: u64 = 5_000_000_000;
/// While there is none: sessions end and values expire by this clock.
const IDLE_TICK_NS: u64 = 100_000_000;
/// Without a write for this long, cleaning is thorough and unused spares go back.
const QUIET_NS: u64 = 300_000_000;
/// Bytes that one slice of cleaning looks at: some 50 us.
const CLEAN_SLICE_BYTES: usize = 64 << 10;
/// Entries that one slice of expiry looks at.
const EXPIRE_SLICE: usize = 64;

/// What a core is told about its disks.
#[derive(Clone, Debug)]
pub struct FilesSetup {
    /// This start's.
    pub incarnation: Incarnation,
    /// This core's share of the configured memory.
    pub bytes_max: u64,
    /// Data cores of the brick.
    pub cores: u16,
    /// What 1% of foreground requests may wait before copies slow down; 0: they never do.
    pub copy_wait_ns: u64,
    /// Where damage and full disks are told.
    pub notices: Notices,
}

/// A write in flight.
struct Flying {
    partition: u32,
    id: FlushId,
    /// It belongs to a round of flushes.
    in_round: bool,
}

/// See the module's text.
pub struct Files {
    setup: FilesSetup,
    desk: Desk<Job, Done>,
    /// Jobs that the desk had no room for.
    backlog: VecDeque<Job>,
    pools: Pools,
    /// Partitions whose files are being opened.
    opening: Vec<u32>,
    /// What there was no room for, of these and of all else.
    lacks: Lacks,
    /// Replicas whose logs are being scanned; the first is at work.
    recovering: VecDeque<Replica>,
    /// Replicas of dropped tables that the kernel may still read.
    leaving: Vec<Replica>,
    /// Partitions of dropped tables whose files are being removed.
    removing: Vec<u32>,
    /// Files that are gone, to be told to the control thread.
    pub removed: Vec<u32>,
    /// Writes in flight, by token.
    writes: Vec<Option<Flying>>,
    rounds: Rounds,
    pace: Pace,
    waits: Waits,
    writes_free: Vec<u32>,
    /// Writes that the fabric had no room for.
    late: VecDeque<(u32, FlushOp)>,
    scratch: Actions,
    /// The first turn: the clock is not known before.
    opened_at_ns: u64,
    /// What was there at the start is recovered; a table made later is no recovery.
    started: bool,
    ticked_ns: u64,
    resized_ns: u64,
    /// When anything was written last.
    wrote_ns: u64,
    /// Sum of the tails' seqs at the last tick, to see whether anything was written.
    tails: u64,
    /// The last tick left something to do.
    more: bool,
    /// A replica's last poll left something to do in the next turn.
    again: bool,
    /// A person knows that data_dir takes no direct writes.
    buffered_told: bool,
    /// Why this core cannot serve at all.
    pub failed: Option<String>,
}

impl Files {
    /// Over the storage thread's desk of this core.
    pub fn new(core: u16, setup: FilesSetup, desk: Desk<Job, Done>) -> Self {
        let pools = Pools::new(core, &setup);
        Self {
            pace: Pace::new(setup.copy_wait_ns),
            waits: Waits::default(),
            setup,
            desk,
            backlog: VecDeque::new(),
            pools,
            opening: Vec::new(),
            lacks: Lacks::default(),
            recovering: VecDeque::new(),
            leaving: Vec::new(),
            removing: Vec::new(),
            removed: Vec::new(),
            writes: Vec::new(),
            rounds: Rounds::default(),
            writes_free: Vec::new(),
            late: VecDeque::new(),
            scratch: Actions::default(),
            opened_at_ns: 0,
            started: false,
            ticked_ns: 0,
            resized_ns: 0,
            wrote_ns: 0,
            tails: 0,
            more: false,
            again: false,
            buffered_told: false,
            failed: None,
        }
    }

    /// Every partition is open, recovered, and has its part in its group; but for those that cannot be opened, which others
    /// are not to wait for.
    pub fn is_open(&self, store: &mut Store) -> bool {
        self.has_opened() && self.failed.is_none() && self.have_parts(store)
    }

    /// Everything that can be opened is, and scanned.
    fn has_opened(&self) -> bool {
        self.recovering.is_empty() && self.opening.len() == self.lacks.unopened()
    }

    /// A map that names an earlier process of this brick is going to be replaced by one that names this one, unless the
    /// partition has stopped and waits for another brick: that keeps no other from being served.
    fn have_parts(&self, store: &mut Store) -> bool {
        let routes = std::sync::Arc::clone(&store.routes);
        let soon = store.now.boot_ns < self.opened_at_ns + PARTS_NS;
        store.replicas().iter().all(|replica| {
            let named = routes.partition(replica.partition()).is_some_and(|entry| entry.here);
            replica.is_settled() && !(soon && named && replica.is_out())
        })
    }

    /// There is work for the background queue.
    pub fn wants_background(&self) -> bool {
        self.more || !self.recovering.is_empty()
    }

    /// Nothing was written for a while.
    fn is_quiet(&self, now_ns: u64) -> bool {
        now_ns > self.wrote_ns + QUIET_NS
    }

    /// At the start of a turn: `sync` logs flush at its end, with what it brings, and all of them
    /// together.
    pub fn begin_turn(store: &mut Store) {
        store.replicas().iter().for_each(|replica| replica.log().hold_flush(true));
    }

    /// The next flush waits for more writes, and no other one is under way.
    pub fn is_gathering(&self) -> bool {
        self.rounds.wake_at().is_some()
    }

    /// Once a turn: commits what may be committed, and passes on what replicas ask for.
    /// `worked`: the turn had something to do, so replicas may have something to ask.
    pub fn turn<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store, worked: bool) {
        let now = store.now;
        if !worked && !self.again && now.boot_ns < self.ticked_ns + TICK_NS {
            return;
        }
        self.submit_late(fabric);
        if self.opened_at_ns == 0 {
            self.opened_at_ns = now.boot_ns;
        }
        self.again = false;
        self.waits.note(store, &mut self.pace);
        let held = !self.rounds.may_begin(now.boot_ns, waiting(store));
        for at in 0..store.replicas().len() {
            self.let_copy(fabric, store, at);
            let replica = &mut store.replicas()[at];
            replica.log().hold_flush(held);
            replica.poll(now, &mut self.scratch);
            self.again |= replica.wants_poll();
            let partition = replica.partition();
            self.take_asks(fabric, store, partition);
        }
        if store.now.boot_ns >= self.ticked_ns + TICK_NS {
            self.tick(fabric, store);
        }
        self.supply(fabric, store);
    }

    /// A turn took so long, and the core did not sleep after it: what comes with the next one waited for it.
    pub fn note_turn(&mut self, ns: u64) {
        self.waits.turn_ns = ns;
    }

    /// Tells a source how much it may send and how long a queue it may make, and a learner whether it may take in.
    fn let_copy<F: Fabric>(&mut self, fabric: &F, store: &mut Store, at: usize) {
        let now_ns = store.now.boot_ns;
        let replica = &store.replicas()[at];
        let (to, takes) = (replica.copies_to(), replica.takes_copy());
        if to.is_none() && !takes {
            return;
        }
        let way = to.map_or(usize::MAX, |to| store.peers.copy_room(fabric, to));
        let room = if self.pace.is_open(now_ns) { way } else { 0 };
        let replica = &mut store.replicas()[at];
        replica.let_copy(room);
        replica.bound_copy(self.pace.way_bound_ns());
    }

    /// What time asks of replicas, and a slice of what may wait.
    fn tick<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store) {
        let now = store.now;
        self.ticked_ns = now.boot_ns;
        let tails = store.replicas().iter().map(|r| r.log().tail().seq).sum();
        if tails != self.tails {
            self.tails = tails;
            self.wrote_ns = now.boot_ns;
        }
        let quiet = self.is_quiet(now.boot_ns);
        let budget =
            Budget { clean_bytes: CLEAN_SLICE_BYTES, expire_entries: EXPIRE_SLICE, idle: quiet };
        self.more = false;
        let short = self.pools.is_full();
        for at in 0..store.replicas().len() {
            let replica = &mut store.replicas()[at];
            if short {
                replica.renew_ends();
            }
            self.more |= replica.tick(now, budget, &mut self.scratch);
            self.again |= replica.wants_poll();
            let partition = replica.partition();
            self.take_asks(fabric, store, partition);
        }
        self.try_again(store);
        if now.boot_ns >= self.resized_ns + RESIZE_NS {
            self.resized_ns = now.boot_ns;
            self.pools.resize(store, quiet);
            self.pools.share_slack(store);
        }
    }

    /// A slice of background work.
    pub fn background<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store) {
        if self.recovering.is_empty() {
            self.tick(fabric, store);
        } else {
            self.recover(fabric, store);
        }
    }

    /// When the next turn must be at the latest.
    pub fn next_ns(&self, store: &mut Store) -> u64 {
        let now = store.now.boot_ns;
        let busy = !self.is_quiet(now) && self.ticked_ns.saturating_sub(self.wrote_ns) < TICK_NS;
        let tick = self.ticked_ns + if busy { 10 * TICK_NS } else { IDLE_TICK_NS };
        let logs = store.replicas().iter().filter_map(Replica::wake_at).min();
        let spares = self.pools.wake_at();
        [Some(tick), logs, spares, self.rounds.wake_at()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(tick)
            .max(now + 1)
    }

    /// Copies the figures of logs and indexes into the core's counts.
    pub fn count(&mut self, store: &mut Store) {
        let mut counts = std::mem::take(&mut store.counts);
        Self::count_replicas(store, &mut counts);
        counts.partitions_unserved = Self::unserved(store);
        counts.copy_pace = self.pace.bytes_per_second();
        counts.peer_full = store.peers.full;
        self.pools.count(&mut counts);
        store.counts = counts;
    }
}

/// Writes that wait for the disk before they are answered.
fn waiting(store: &mut Store) -> u64 {
    let sync = |log: &Log| log.config().durability == Durability::Sync && !log.is_sick();
    let logs = store.replicas().iter().map(Replica::log).filter(|log| sync(log));
    logs.map(|log| log.tail().seq - log.flushed()).sum()
}
