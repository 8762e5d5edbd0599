//! Partitions that come, recover, and go.

use std::sync::Arc;

use firebrick_net::Fabric;
use firebrick_partition::Failure;
use firebrick_partition::log::storage::{Job, Opened, StorageError};
use firebrick_partition::log::{Durability, Log, LogConfig, limits};
use firebrick_partition::maps::{self, RouteEntry, Routes};
use firebrick_partition::replica::{Recovering, Replica};

use super::{Files, Store};

/// Records scanned in one background slice: about 50 us.
const SCAN_SLICE: usize = 512;

fn has_disk(durability: maps::Durability) -> bool {
    !matches!(durability, maps::Durability::Memory)
}

/// The partition has all its replicas elsewhere: what is left of it here is of no use any more. While it is
/// short of replicas this brick may be asked to take it again, and then it needs only what it missed.
pub(crate) fn is_over(routes: &Routes, entry: &RouteEntry) -> bool {
    let wanted = routes.table(entry.route.table).map_or(1, |t| usize::from(t.options.replicas));
    let group = &entry.replicas;
    !entry.here && group.is_active() && group.members.len() >= wanted && group.learners.is_empty()
}

fn log_durability(durability: maps::Durability) -> Durability {
    match durability {
        maps::Durability::Memory => Durability::Memory,
        maps::Durability::Async { ms } => Durability::Async { ms },
        maps::Durability::Sync => Durability::Sync,
    }
}

impl Files {
    /// Opens partitions that are new here, gives up those that left, and tells the others what their groups are.
    /// `before`: the version of the routes before these, of which every replica was told its group; to tell it the
    /// same again would change nothing.
    pub fn take_routes<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store, before: u64) {
        self.open_new(store);
        self.lacks.look(store.now.boot_ns);
        let routes = Arc::clone(&store.routes);
        let (now, me) = (store.now, store.peers.me);
        let ids: Vec<u32> = store.replicas().iter().map(Replica::partition).collect();
        for id in ids {
            let Some(entry) = routes.partition(id).filter(|e| !is_over(&routes, e)) else {
                self.give_up(store, id);
                continue;
            };
            if entry.changed <= before {
                continue;
            }
            let Some(replica) = store.replica(id) else { continue };
            replica.set_group(now, me, entry.route, &entry.replicas, &mut self.scratch);
            self.take_asks(fabric, store, id);
        }
        self.drop_left(store);
    }

    /// Opens what is to be here and is not. What is leaving goes first: its files would be removed behind the opening.
    pub(super) fn open_new(&mut self, store: &Store) {
        let (core, routes) = (store.core(), Arc::clone(&store.routes));
        for entry in routes.here().filter(|entry| entry.core == core) {
            let (id, table) = (entry.route.partition, entry.route.table);
            let leaves = || self.leaving.iter().any(|replica| replica.partition() == id);
            if store.has(id) || self.opening.contains(&id) || self.recovers(id) || leaves() {
                continue;
            }
            self.opening.push(id);
            self.submit(Job::Open {
                table,
                partition: id,
                incarnation: self.setup.incarnation,
                disk: routes.table(table).is_some_and(|t| has_disk(t.durability())),
                create: true,
            });
        }
    }

    fn recovers(&self, id: u32) -> bool {
        self.recovering.iter().any(|r| r.partition() == id)
    }

    /// A partition that left this brick, or of a dropped table: its files go once nothing reads its memory.
    fn give_up(&mut self, store: &mut Store, id: u32) {
        self.pools.forget(id);
        self.late.retain(|(partition, _)| *partition != id);
        if let Some(mut replica) = store.remove(id) {
            let dropped = store.routes.partition(id).is_none();
            let why = if dropped { Failure::NoTable } else { Failure::WrongPartition };
            replica.abandon(dropped.then_some(why), why, &mut store.actions);
            self.leaving.push(replica);
        }
    }

    /// Memory stays mapped while the kernel may still read it.
    pub fn drop_left(&mut self, store: &Store) {
        let writes = &self.writes;
        let busy = |id: u32| {
            writes.iter().flatten().any(|flying| flying.partition == id)
                || store.peers.is_shipping(id)
        };
        let free = self.leaving.extract_if(.., |r| !busy(r.partition()));
        let gone: Vec<u32> = free.map(|replica| replica.partition()).collect();
        for &partition in &gone {
            self.removing.push(partition);
            self.submit(Job::Remove { partition });
        }
        if !gone.is_empty() {
            // It may have been named here again meanwhile.
            self.open_new(store);
        }
    }

    pub(super) fn on_opened(
        &mut self,
        store: &mut Store,
        partition: u32,
        result: Result<Box<Opened>, StorageError>,
    ) {
        let opened = match result {
            Ok(opened) => opened,
            Err(error) => {
                self.lacks_partition(store, partition, &error);
                return;
            }
        };
        self.opening.retain(|&id| id != partition);
        store.unopened.remove(&partition);
        for note in &opened.notes {
            self.setup.notices.say(note.as_str());
        }
        let routes = Arc::clone(&store.routes);
        let Some(entry) = routes.partition(partition) else {
            // Dropped while it was being opened.
            drop(opened);
            self.removing.push(partition);
            self.submit(Job::Remove { partition });
            return;
        };
        let table = routes.table(entry.route.table).expect("a partition has a table");
        let config = LogConfig {
            table: entry.route.table,
            partition,
            durability: log_durability(table.durability()),
            bytes_max: self.setup.bytes_max,
            segment_bytes_max: limits::SEGMENT_BYTES_MAX,
        };
        let (log, scan) = Log::open(config, *opened);
        self.recovering.push_back(Replica::open(log, scan, entry.leaf));
    }

    /// A slice of the scan of the replica at work.
    pub(super) fn recover<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store) {
        let Some(replica) = self.recovering.front_mut() else { return };
        if replica.recover_step(store.now, SCAN_SLICE) == Recovering::More {
            return;
        }
        let Some(mut replica) = self.recovering.pop_front() else { return };
        let partition = replica.partition();
        let routes = Arc::clone(&store.routes);
        let Some(entry) = routes.partition(partition) else {
            self.leaving.push(replica);
            self.drop_left(store);
            return;
        };
        self.report(store, &replica);
        let me = store.peers.me;
        if !replica.set_group(store.now, me, entry.route, &entry.replicas, &mut self.scratch) {
            let (tail, epoch) = (replica.tail_epoch(), entry.route.epoch);
            self.failed.get_or_insert(format!(
                "partition {partition} has records of epoch {tail} and the maps say {epoch}: \
                 keepers and data do not belong together; put back the folder \"keeper\" that belongs \
                 to this data_dir"
            ));
        }
        store.add(replica);
        self.poll_one(fabric, store, partition);
        if !self.started {
            store.counts.recovery_ns = store.now.boot_ns.saturating_sub(self.opened_at_ns);
            self.started = self.has_opened();
        }
    }

    /// Tells what a scan found that a person wants to know.
    fn report(&mut self, store: &mut Store, replica: &Replica) {
        let Some(report) = replica.scan_report() else { return };
        let partition = replica.partition();
        store.counts.recovered_records += report.records;
        store.counts.recovered_bytes += report.bytes;
        store.counts.corrupt_records += report.corruptions_total;
        store.counts.lost_records += report.lost_records;
        for corrupt in &report.corruptions {
            self.setup.notices.say(corrupt.to_string());
        }
        if report.lost_records > 0 {
            self.setup.notices.say(format!(
                "partition {partition} lost at least {} records behind a torn write: they were \
                 acknowledged and had not reached the disk (durability = async)",
                report.lost_records
            ));
        }
        if !report.intact {
            self.setup.notices.say(format!(
                "partition {partition} is not intact: some of its records are damaged or missing; \
                 it is copied anew from another replica, or, if there is none, what is left is served"
            ));
        }
    }
}
