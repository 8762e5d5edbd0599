//! What there was no room for, or no open file: a lack that others may end without a word, so it is tried again.

use firebrick_partition::keeper::Lack;
use firebrick_partition::log::storage::{Job, StorageError};
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
    /// Partitions whose files could not be opened for it; they count as being opened.
    opening: Vec<Unopened>,
    /// When to say next of them which have stopped.
    report_at: u64,
    /// When to try again, after a job that failed.
    at_ns: Option<u64>,
    told_ns: Option<u64>,
    /// The last of them, in a sentence.
    why: String,
}

impl Files {
    pub(super) fn lacks(&mut self, store: &Store, error: &StorageError) {
        self.lacks.at_ns.get_or_insert(store.now.boot_ns + AGAIN_NS);
        self.tell_lack(store, error);
    }

    /// The partition was not opened for it.
    pub(super) fn lacks_partition(&mut self, store: &mut Store, id: u32, error: &StorageError) {
        store.roomless.insert(id);
        self.lacks.opening.push(Unopened { partition: id, stopped_in: 0 });
        self.lacks(store, error);
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

    /// What there is no room for now.
    pub fn lack(&self, store: &Store) -> Option<Lack> {
        let waiting = store.all().iter().filter(|r| r.lacks_room()).map(Replica::partition);
        let mut partitions: Vec<u32> = waiting.chain(store.roomless.iter().copied()).collect();
        partitions.sort_unstable();
        let refused = self.pools.refusal();
        let why = match refused {
            Some(why) if store.roomless.is_empty() => why,
            None if partitions.is_empty() => return None,
            _ => &self.lacks.why,
        };
        Some(Lack { why: why.to_owned(), partitions })
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
            if unopened.stopped_in == epoch {
                self.lacks.report_at = now_ns + REPORT_NS;
                store.actions.list.push(Action::Report(Report::Stopped { partition, epoch }));
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
            if entry.is_some_and(|entry| entry.here && entry.route.epoch == unopened.stopped_in) {
                self.lacks.opening.push(unopened);
                self.lacks.at_ns = Some(store.now.boot_ns + AGAIN_NS);
                continue;
            }
            self.opening.retain(|&id| id != partition);
            if !entry.is_some_and(|entry| entry.here && entry.core == core) {
                store.roomless.remove(&partition);
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
