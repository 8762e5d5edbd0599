//! What replicas ask for, and the answers: file jobs of the storage thread, writes of the ring.

use std::io;

use firebrick_net::{DiskWrite, Fabric, Full, Token};
use firebrick_partition::log::storage::{Done, Job, StorageError};
use firebrick_partition::log::{Ask, FlushOp, Outcome, Slice, Written};
use firebrick_partition::replica::{Action, Replica};
use firebrick_partition::wire::Peer;

use super::{Files, Flying, Store};
use crate::counters::Counts;

impl Files {
    /// Polls a replica and takes what it asks for.
    pub(super) fn poll_one<F: Fabric>(
        &mut self,
        fabric: &mut F,
        store: &mut Store,
        partition: u32,
    ) {
        let now = store.now;
        if let Some(replica) = store.replica(partition) {
            replica.poll(now, &mut self.scratch);
        }
        self.take_asks(fabric, store, partition);
    }

    /// Takes what the last call of a replica left: answers go to the shard, asks are done here.
    pub fn take_asks<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store, partition: u32) {
        if self.scratch.list.is_empty() {
            return;
        }
        let mut list = std::mem::take(&mut self.scratch.list);
        for action in list.drain(..) {
            match action {
                Action::Log(Ask::Segment(want)) => self.pools.want(partition, want),
                Action::Log(Ask::Job(job)) => {
                    let job = self.pools.recycle(job);
                    self.submit(job);
                }
                Action::Log(Ask::Write(write)) => self.write(fabric, partition, write),
                Action::Send { to, message } => {
                    store.peers.send(fabric, to, &message);
                }
                Action::Ship { to, head, body } => {
                    Self::ship(fabric, store, (to, partition), &head, &body);
                }
                other => store.actions.push(other),
            }
        }
        self.scratch.list = list;
    }

    fn ship<F: Fabric>(
        fabric: &mut F,
        store: &mut Store,
        way: (u32, u32),
        head: &[u8],
        slice: &Slice,
    ) {
        let (replica, peers) = store.replica_and_peers(way.1);
        let Some(replica) = replica else { return };
        if !peers.ship(fabric, way, replica.log(), head, slice) {
            replica.log().unpin(slice.loc);
        }
    }

    /// A message of another replica.
    pub fn on_peer(&mut self, store: &mut Store, partition: u32, from: u32, peer: &Peer<'_>) {
        let now = store.now;
        if let Some(replica) = store.replica(partition) {
            replica.on_peer(now, from, peer, &mut self.scratch);
        }
    }

    /// There is a new way to a brick: replicas that share a group with it send again what it lacks.
    pub fn on_peer_up<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store, brick: u32) {
        let now = store.now;
        for at in 0..store.replicas().len() {
            let replica = &mut store.replicas()[at];
            replica.on_peer_up(now, brick, &mut self.scratch);
            let partition = replica.partition();
            self.take_asks(fabric, store, partition);
        }
    }

    /// Gives the storage thread a job; jobs stay in order.
    pub(super) fn submit(&mut self, job: Job) {
        if self.backlog.is_empty() {
            if let Err(job) = self.desk.submit(job) {
                self.backlog.push_back(job);
            }
        } else {
            self.backlog.push_back(job);
        }
    }

    fn write<F: Fabric>(&mut self, fabric: &mut F, partition: u32, write: FlushOp) {
        let at = self.writes_free.pop().unwrap_or_else(|| {
            self.writes.push(None);
            self.writes.len() as u32 - 1
        });
        let FlushOp { fd, ptr, len, offset, durable, .. } = write;
        let order = DiskWrite { fd, ptr, len, offset, durable };
        if fabric.disk_write(order, Token(u64::from(at))) == Err(Full) {
            self.writes_free.push(at);
            self.late.push_back((partition, write));
        } else {
            let in_round = write.awaited && self.rounds.joins(write.len);
            self.writes[at as usize] = Some(Flying { partition, id: write.id, in_round });
        }
    }

    /// Tries again what found no room.
    pub(super) fn submit_late<F: Fabric>(&mut self, fabric: &mut F) {
        while let Some(job) = self.backlog.pop_front() {
            if let Err(job) = self.desk.submit(job) {
                self.backlog.push_front(job);
                break;
            }
        }
        for _ in 0..self.late.len() {
            let Some((partition, write)) = self.late.pop_front() else { break };
            self.write(fabric, partition, write);
        }
    }

    /// A write of the ring has ended.
    pub fn on_written<F: Fabric>(
        &mut self,
        fabric: &mut F,
        store: &mut Store,
        token: Token,
        result: i32,
    ) {
        let Some(Flying { partition, id, in_round }) = self.writes[token.0 as usize].take() else {
            panic!("write {} ended twice", token.0);
        };
        self.writes_free.push(token.0 as u32);
        store.counts.flushes += 1;
        let result = match usize::try_from(result) {
            Ok(bytes) => {
                store.counts.flushed_bytes += bytes as u64;
                Ok(bytes)
            }
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        };
        let now = store.now;
        let Some(replica) = store.replica(partition) else {
            if in_round {
                self.rounds.landed(now.boot_ns, 0);
            }
            self.drop_left(store);
            return;
        };
        let what = result.as_ref().err().map(ToString::to_string);
        let flushed = replica.log().flushed();
        let written = replica.on_written(now, id, result, &mut self.scratch);
        if in_round {
            let carried = replica.log().flushed() - flushed;
            self.rounds.landed(now.boot_ns, carried);
        }
        match written {
            Written::Tail(_) | Written::Other => {}
            Written::Buffered => self.tell_buffered(),
            Written::Failed => self.sick(store, partition, &what.unwrap_or_default()),
        }
        self.take_asks(fabric, store, partition);
    }

    /// Once: it is so for every file of data_dir.
    fn tell_buffered(&mut self) {
        if !std::mem::replace(&mut self.buffered_told, true) {
            self.setup.notices.say(
                "data_dir takes no direct writes (O_DIRECT): they go through the page cache, which is \
                 slower; nothing else changes",
            );
        }
    }

    fn sick(&mut self, store: &mut Store, partition: u32, what: &str) {
        store.counts.flush_errors += 1;
        let why = format!("its disk failed: {what}; repair the disk and start the brick again");
        self.tell_failure(
            format!("partition {partition} accepts no writes any more, because {why}"),
            format!("it accepts no writes, because {why}"),
        );
        // What is prepared may or may not have reached the disk, and nothing will tell any more.
        if let Some(replica) = store.replica(partition) {
            replica.abandon(None, replica.disk_failed(), &mut self.scratch);
        }
    }

    /// Takes the storage thread's answers. How many.
    pub fn take_done<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store) -> usize {
        let mut taken = 0;
        while let Some(done) = self.desk.poll() {
            taken += 1;
            let (spare, done) = done.apart();
            if let Some(spare) = spare {
                self.on_done(fabric, store, spare);
            }
            self.on_done(fabric, store, done);
        }
        if self.desk.is_broken() {
            self.failed.get_or_insert("the storage thread ended".into());
        }
        taken
    }

    fn on_done<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store, done: Done) {
        let Some(partition) = done.partition() else {
            if let Done::Spare { result: Ok(spare), .. } = &done
                && spare.is_buffered()
            {
                self.tell_buffered();
            }
            let were_full = self.pools.full_sides();
            if let Err(error) = self.pools.on_job(done, store.now.boot_ns)
                && !were_full.contains(&true)
            {
                // Told once, not at every retry.
                if error.is_no_space() {
                    self.tell_lack(store, &error);
                } else {
                    self.setup.notices.say(error.to_string());
                }
            }
            if self.pools.has_room_again(were_full) {
                // Somebody else made room.
                self.room_again(store);
            }
            return;
        };
        match done {
            Done::Opened { partition, result } => self.on_opened(store, partition, result),
            Done::Removed { partition, result } => {
                self.on_removed(partition, result);
                self.room_again(store);
            }
            done => {
                if let Done::Bound { name, .. } = &done {
                    self.pools.bound(partition, name.kind);
                }
                let unlinked = matches!(done, Done::Unlinked { .. });
                let now = store.now;
                let Some(replica) = store.replica(partition) else { return };
                match replica.on_job(now, done, &mut self.scratch) {
                    Outcome::Fine => {}
                    Outcome::NoSpace(error) => self.lacks(store, &error),
                    Outcome::Sick(error) => self.sick(store, partition, &error.to_string()),
                }
                self.take_asks(fabric, store, partition);
                if unlinked {
                    self.room_again(store);
                }
            }
        }
    }

    fn on_removed(&mut self, partition: u32, result: Result<(), StorageError>) {
        self.removing.retain(|&id| id != partition);
        match result {
            Ok(()) => self.removed.push(partition),
            Err(error) => self.setup.notices.say(error.to_string()),
        }
    }

    /// Everything that this core's replicas wrote is as durable as their tables promise to be at an
    /// orderly stop: on the disk.
    pub fn is_flushed(&self, store: &mut Store) -> bool {
        self.backlog.is_empty()
            && self.desk.under_way() == 0
            && self.writes.iter().all(Option::is_none)
            && store.replicas().iter().all(|r| r.log().is_sick() || r.log().lag_bytes() == 0)
    }

    /// Whatever the replicas that are to be here ever held, the disk has.
    pub fn has_kept_all(&self, store: &mut Store) -> bool {
        let all_open = self.opening.is_empty() && self.recovering.is_empty();
        all_open && self.is_flushed(store) && !store.all().iter().any(|r| r.log().is_sick())
    }

    pub(super) fn count_replicas(store: &mut Store, counts: &mut Counts) {
        let mut sum = Counts::default();
        for stats in store.replicas().iter().map(Replica::stats) {
            sum.items += stats.keys;
            sum.index_bytes += stats.index_bytes;
            sum.in_flight += stats.in_flight;
            sum.writes_held += stats.held;
            sum.corrupt_records += stats.corrupt;
            sum.log_used_bytes += stats.log.used_bytes;
            sum.log_live_bytes += stats.log.live_bytes;
            sum.segments += stats.log.segments;
            sum.flush_lag_bytes += stats.log.lag_bytes;
            sum.cleaned_bytes += stats.log.freed_bytes;
            sum.copied_bytes += stats.log.moved_bytes;
            sum.copy_bytes += stats.copied;
            sum.copy_sent_bytes += stats.sent;
            sum.partitions_sick += u64::from(stats.log.sick);
        }
        counts.items = sum.items;
        counts.index_bytes = sum.index_bytes;
        counts.in_flight = sum.in_flight;
        counts.writes_held = sum.writes_held;
        counts.corrupt_reads = sum.corrupt_records;
        counts.log_used_bytes = sum.log_used_bytes;
        counts.log_live_bytes = sum.log_live_bytes;
        counts.log_dead_bytes = sum.log_used_bytes.saturating_sub(sum.log_live_bytes);
        counts.segments = sum.segments;
        counts.flush_lag_bytes = sum.flush_lag_bytes;
        counts.cleaned_bytes = sum.cleaned_bytes;
        counts.copied_bytes = sum.copied_bytes;
        counts.copy_bytes = sum.copy_bytes;
        counts.copy_sent_bytes = sum.copy_sent_bytes;
        counts.partitions_sick = sum.partitions_sick;
        counts.partitions = store.replicas().len() as u64;
    }
}
