//! What there was no room for, or no open file: a lack that others may end without a word, so it is tried again. And what
//! is no good: files that cannot be opened, disks that failed. That is for a person, and for the next start: only the
//! partitions that it concerns are not served.

use firebrick_partition::Failure;
use firebrick_partition::keeper::Lack;
use firebrick_partition::log::storage::{Job, StorageError};
use firebrick_partition::maps::RouteEntry;
use firebrick_partition::replica::{Action, REPORT_NS, Replica, Report};

use super::{Files, Store, is_over};

/// Between two tries.
const AGAIN_NS: u64 = 250_000_000;
/// Between two sentences about it.
const TOLD_NS: u64 = 60_000_000_000;

/// A partition whose files could not be opened.
#[derive(Clone, Copy, Debug)]
struct Unopened {
    partition: u32,
    /// The keepers were told that it has stopped in this epoch: that binds, so it is not opened in it. 0: in none.
    stopped_in: u32,
}

/// See the module's text. Spares have times of their own.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    /// Partitions whose files could not be opened; they count as being opened.
    opening: Vec<Unopened>,
    /// When to say next of them which have stopped.
    report_at: u64,
    /// When to try again, after a job that failed.
    at_ns: Option<u64>,
    told_ns: Option<u64>,
    /// The last of them, in a sentence.
    why: String,
    /// The first thing that is no good, likewise.
    failure: String,
}

impl Lacks {
    /// How many partitions could not be opened.
    pub fn unopened(&self) -> usize {
        self.opening.len()
    }

    /// The routes have changed: some of them may be of no use here any more.
    pub fn look(&mut self, now_ns: u64) {
        if !self.opening.is_empty() {
            self.at_ns.get_or_insert(now_ns);
        }
    }
}

impl Files {
    pub(super) fn lacks(&mut self, store: &Store, error: &StorageError) {
        self.lacks.at_ns.get_or_insert(store.now.boot_ns + AGAIN_NS);
        self.tell_lack(store, error);
    }

    /// The partition was not opened for it.
    pub(super) fn lacks_partition(&mut self, store: &mut Store, id: u32, error: &StorageError) {
        self.lacks.opening.push(Unopened { partition: id, stopped_in: 0 });
        if error.is_no_space() {
            store.unopened.insert(id, Failure::NoSpace);
            return self.lacks(store, error);
        }
        store.unopened.insert(id, Failure::DiskFailed);
        self.tell_failure(
            format!("partition {id} is not served until the brick is started again: {error}"),
            error.to_string(),
        );
    }

    /// What a person has to mend: in a notice, and why as long as it lasts.
    pub(super) fn tell_failure(&mut self, notice: String, why: String) {
        self.setup.notices.say(notice);
        if self.lacks.failure.is_empty() {
            self.lacks.failure = why;
        }
    }

    /// Not each time: under load a full disk has room for a segment now and then.
    pub(super) fn tell_lack(&mut self, store: &Store, error: &StorageError) {
        self.lacks.why = error.to_string();
        let now_ns = store.now.boot_ns;
        if self.lacks.told_ns.is_none_or(|told| now_ns >= told + TOLD_NS) {
            self.lacks.told_ns = Some(now_ns);
            self.setup.notices.say(error.to_string());
        }
    }

    /// How many partitions should be served here and are not, or not as they should be.
    pub(super) fn unserved(store: &Store) -> u64 {
        let here = |id: &&u32| store.routes.partition(**id).is_some_and(|entry| entry.here);
        (waiting(store).count() + store.unopened.keys().filter(here).count()) as u64
    }

    /// What there is no room for now, and what is no good.
    pub fn lack(&self, store: &Store) -> Option<Lack> {
        let unopened = store.unopened.keys().copied();
        let mut partitions: Vec<u32> = waiting(store).chain(unopened).collect();
        partitions.sort_unstable();
        let bad_files = store.unopened.values().any(|why| *why == Failure::DiskFailed);
        let failed = bad_files || store.all().iter().any(|r| r.log().is_sick());
        let refused = self.pools.refusal();
        let full = refused.is_some()
            || waiting(store).next().is_some()
            || store.unopened.values().any(|why| *why == Failure::NoSpace);
        let why = match refused {
            _ if failed => &self.lacks.failure,
            Some(why) if store.unopened.is_empty() => why,
            None if partitions.is_empty() => return None,
            _ => &self.lacks.why,
        };
        Some(Lack { why: why.to_owned(), full, partitions })
    }

    /// A partition that is not open has nothing in flight here: asked to stop, it has.
    fn stop_unopened(&mut self, store: &mut Store) {
        let now_ns = store.now.boot_ns;
        if self.lacks.opening.is_empty() || now_ns < self.lacks.report_at {
            return;
        }
        let me = store.peers.me;
        for unopened in &mut self.lacks.opening {
            let partition = unopened.partition;
            let Some(entry) = store.routes.partition(partition) else { continue };
            let epoch = entry.route.epoch;
            if entry.replicas.asks_to_stop(me.brick, me.incarnation) {
                unopened.stopped_in = epoch;
            }
            // Nobody waits for the vote of a learner, so nobody else would say that it will never be whole. (What a member
            // has counts until the others go on without it: it may be whole when its files have been put back.)
            let failed = store.unopened.get(&partition) == Some(&Failure::DiskFailed);
            let learns = entry.replicas.learners.iter().any(|m| m.brick == me.brick);
            let reports = [
                (failed && learns).then_some(Report::Damaged { partition, epoch }),
                (unopened.stopped_in == epoch).then_some(Report::Stopped { partition, epoch }),
            ];
            for report in reports.into_iter().flatten() {
                self.lacks.report_at = now_ns + REPORT_NS;
                store.actions.list.push(Action::Report(report));
            }
        }
    }

    /// Has done again what failed, when it is time.
    pub(super) fn try_again(&mut self, store: &mut Store) {
        self.stop_unopened(store);
        if self.lacks.at_ns.take_if(|at| store.now.boot_ns >= *at).is_none() {
            return;
        }
        let (core, routes) = (store.core(), std::sync::Arc::clone(&store.routes));
        for unopened in std::mem::take(&mut self.lacks.opening) {
            let partition = unopened.partition;
            let entry = routes.partition(partition);
            // Bad files are opened by no later try, and stay for whoever mends them as long as there is the table.
            let failed = store.unopened.get(&partition) == Some(&Failure::DiskFailed);
            let stays = |entry: &RouteEntry| {
                failed || entry.here && entry.route.epoch == unopened.stopped_in
            };
            if entry.is_some_and(stays) {
                self.lacks.opening.push(unopened);
                if !failed {
                    self.lacks.at_ns = Some(store.now.boot_ns + AGAIN_NS);
                }
                continue;
            }
            self.opening.retain(|&id| id != partition);
            if !entry.is_some_and(|entry| entry.here && entry.core == core) {
                store.unopened.remove(&partition);
            }
            if entry.is_none_or(|entry| is_over(&routes, entry)) {
                // Dropped meanwhile, or given to another brick.
                self.removing.push(partition);
                self.submit(Job::Remove { partition });
            }
        }
        self.open_new(store);
        store.replicas().iter_mut().for_each(Replica::room_again);
    }
}

/// Replicas that are open, and cannot begin or go on.
fn waiting(store: &Store) -> impl Iterator<Item = u32> {
    let waits = |r: &&Replica| r.lacks_room() || r.log().is_sick();
    store.all().iter().filter(waits).map(Replica::partition)
}
