//! Spare segments, and the bound on this core's memory.
//!
//! The bound holds for segments and spares together: a pool may make a spare only while the sum stays
//! below this core's share. That is one room for all partitions of the core, so a table that grows takes
//! what another one does not need.

use firebrick_partition::log::segment::SegmentKind;
use firebrick_partition::log::storage::{ALL_SPARES, Done, Job, Spares, StorageError};
use firebrick_partition::log::{Want, limits};
use firebrick_partition::replica::Replica;

use super::{Files, FilesSetup, Store};
use crate::counters::Counts;
use firebrick_net::Fabric;

/// Dead bytes of one replica that are not worth cleaning while there is room and other work.
const SLACK_BYTES_MIN: u64 = 16 << 20;

struct Pool {
    spares: Spares,
    /// Who waits for one, in order.
    wanted: Vec<(u32, Want)>,
}

/// One pool for segments in memory only, one for those with a side on disk: a pool is made when the
/// first table needs it.
pub struct Pools {
    by_side: [Option<Pool>; 2],
    core: u16,
    cores: u16,
    bytes_max: u64,
    bytes: usize,
    quiet: bool,
    /// Spares that were handed out and have no name yet.
    binding: Vec<(u32, SegmentKind, u64)>,
}

impl Pools {
    /// Empty ones.
    pub fn new(core: u16, setup: &FilesSetup) -> Self {
        Self {
            by_side: [None, None],
            core,
            cores: setup.cores,
            bytes_max: setup.bytes_max,
            bytes: limits::segment_bytes_min(setup.bytes_max),
            quiet: false,
            binding: Vec::new(),
        }
    }

    /// Notes that a replica wants a segment.
    pub fn want(&mut self, partition: u32, want: Want) {
        let (core, cores) = (u32::from(self.core), u32::from(self.cores));
        let bytes = self.bytes;
        let pool = self.by_side[usize::from(want.disk)].get_or_insert_with(|| {
            let id = core * 2 + u32::from(want.disk);
            Pool { spares: Spares::new(id, cores * 2, bytes, want.disk), wanted: Vec::new() }
        });
        pool.wanted.retain(|(p, w)| *p != partition || w.kind != want.kind);
        pool.wanted.push((partition, want));
    }

    /// A partition is gone.
    pub fn forget(&mut self, partition: u32) {
        for pool in self.by_side.iter_mut().flatten() {
            pool.wanted.retain(|(p, _)| *p != partition);
        }
        self.binding.retain(|b| b.0 != partition);
    }

    /// An answer for a pool.
    pub fn on_job(&mut self, done: Done, boot_ns: u64) -> Result<(), StorageError> {
        let id = match &done {
            Done::Spare { id, .. } | Done::SpareDropped { id, .. } => id.0,
            _ => return Ok(()),
        };
        match &mut self.by_side[(id % 2) as usize] {
            Some(pool) => pool.spares.on_job(done, boot_ns),
            None => Ok(()),
        }
    }

    /// A job that removes a segment, as one that makes it a spare if one will be needed.
    pub fn recycle(&mut self, job: Job) -> Job {
        match &mut self.by_side[0] {
            Some(pool) => pool.spares.recycle(job),
            None => job,
        }
    }

    /// Lets dead records lie while there is room: as many as there are live ones, and some. Where
    /// room is short cleaning keeps them below its own bound.
    pub fn share_slack(&self, store: &mut Store) {
        let used: u64 = store.replicas().iter().map(|r| r.log().used_bytes()).sum();
        let roomy = used + self.spare_bytes() < self.bytes_max / 2;
        for replica in store.replicas() {
            let live = replica.log().stats().live_bytes;
            replica.set_slack(if roomy { live.max(SLACK_BYTES_MIN) } else { 0 });
        }
    }

    /// Chooses the size of spares, and gives back those that nobody will need soon.
    pub fn resize(&mut self, store: &mut Store, quiet: bool) {
        let wanted = store.replicas().iter().map(|r| r.log().segment_bytes()).max();
        self.bytes = wanted.unwrap_or(limits::segment_bytes_min(self.bytes_max));
        let changed = std::mem::replace(&mut self.quiet, quiet) != quiet;
        for pool in self.by_side.iter_mut().flatten() {
            pool.spares.set_bytes(self.bytes);
            if changed {
                pool.spares.set_idle(quiet);
            }
        }
    }

    /// When to look again without another reason.
    pub fn wake_at(&self) -> Option<u64> {
        self.by_side.iter().flatten().filter_map(|pool| pool.spares.wake_at()).min()
    }

    /// A spare got its name: from now on its log counts it.
    pub fn bound(&mut self, partition: u32, kind: SegmentKind) {
        let at = self.binding.iter().position(|b| b.0 == partition && b.1 == kind);
        at.map(|at| self.binding.swap_remove(at));
    }

    /// Segments, spares, and what is between the two.
    fn used_bytes(&self, store: &mut Store) -> u64 {
        let logs: u64 = store.replicas().iter().map(|r| r.log().used_bytes()).sum();
        logs + self.spare_bytes() + self.binding.iter().map(|b| b.2).sum::<u64>()
    }

    fn is_roomy(&self, store: &mut Store) -> bool {
        let all = (ALL_SPARES * self.bytes) as u64;
        self.used_bytes(store) + all <= self.bytes_max
    }

    fn spare_bytes(&self) -> u64 {
        self.by_side.iter().flatten().map(|pool| pool.spares.bytes_held()).sum()
    }

    /// The last attempt to make a spare failed.
    pub fn is_full(&self) -> bool {
        self.refusal().is_some()
    }

    /// Why it failed.
    pub fn refusal(&self) -> Option<&str> {
        self.by_side.iter().flatten().find_map(|pool| pool.spares.refusal())
    }

    /// Whether it failed, for each pool: one of them may be full for good while the other one finds room.
    pub fn full_sides(&self) -> [bool; 2] {
        let full = |pool: &Pool| pool.spares.refusal().is_some();
        [0, 1].map(|side| self.by_side[side].as_ref().is_some_and(full))
    }

    /// One that was full is not any more: whoever was refused may ask again.
    pub fn has_room_again(&self, were_full: [bool; 2]) -> bool {
        let now = self.full_sides();
        (0..2).any(|side| were_full[side] && !now[side])
    }

    /// Copies the pools' figures.
    pub fn count(&self, counts: &mut Counts) {
        counts.log_capacity_bytes = self.bytes_max;
        counts.log_used_bytes += self.spare_bytes();
        counts.memory_full = u64::from(self.is_full());
    }
}

impl Files {
    /// Makes spares and hands them to who waits.
    pub(super) fn supply<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store) {
        for disk in 0..2 {
            if self.pools.by_side[disk].is_some() {
                self.hand_out(fabric, store, disk);
                self.make_spares(store, disk);
            }
        }
    }

    fn hand_out<F: Fabric>(&mut self, fabric: &mut F, store: &mut Store, disk: usize) {
        let Some(pool) = &mut self.pools.by_side[disk] else { return };
        if pool.wanted.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut pool.wanted);
        // Cleaning and removes first: they make room for the rest.
        waiting.sort_by_key(|(_, want)| std::cmp::Reverse(want.room));
        for (partition, want) in waiting {
            let roomy = self.pools.is_roomy(store);
            let Some(pool) = &mut self.pools.by_side[disk] else { return };
            let spare = pool.spares.take(&want, roomy);
            if spare.is_none() && pool.spares.refusal().is_none() {
                pool.wanted.push((partition, want));
                continue;
            }
            if let Some(spare) = &spare {
                self.pools.binding.push((partition, want.kind, spare.bytes() as u64));
            }
            let now = store.now;
            if let Some(replica) = store.replica(partition) {
                replica.on_segment(now, want, spare, &mut self.scratch);
                self.take_asks(fabric, store, partition);
            }
        }
    }

    fn make_spares(&mut self, store: &mut Store, disk: usize) {
        loop {
            let now_ns = store.now.boot_ns;
            let were_full = self.pools.full_sides();
            let Some(pool) = &mut self.pools.by_side[disk] else { return };
            let job = pool.spares.poll_job(now_ns);
            if self.pools.has_room_again(were_full) {
                store.replicas().iter_mut().for_each(Replica::room_again);
            }
            let Some(job) = job else { return };
            if let Job::CreateSpare { id, bytes, .. } = job {
                let after = self.pools.used_bytes(store);
                if after > self.pools.bytes_max {
                    let error = StorageError::NoSpace {
                        side: "the configured memory",
                        path: "memory".into(),
                        bytes: bytes as u64,
                    };
                    let refused = Done::Spare { id, result: Err(error) };
                    // Told by the metric and by each refused write.
                    let _ = self.pools.on_job(refused, now_ns);
                    return;
                }
            }
            self.submit(job);
        }
    }

    /// Something was freed: what was refused may be tried again.
    pub(super) fn room_again(&mut self, store: &mut Store) {
        for pool in self.pools.by_side.iter_mut().flatten() {
            pool.spares.room_again();
        }
        store.replicas().iter_mut().for_each(Replica::room_again);
    }
}

#[cfg(test)]
mod tests {
    use firebrick_partition::log::Room;
    use firebrick_partition::log::manifest::Incarnation;
    use firebrick_partition::log::storage::Spare;

    use super::*;
    use crate::notices::Notices;

    const SEGMENT: usize = 1 << 20;

    /// The pool's next job ends: with a spare, or without.
    fn make(pools: &mut Pools, side: usize, now_ns: u64, room: bool) {
        let pool = pools.by_side[side].as_mut().unwrap();
        let Some(Job::CreateSpare { id, bytes, .. }) = pool.spares.poll_job(now_ns) else {
            panic!("pool {side} makes nothing")
        };
        let refused = || StorageError::NoSpace { side: "a", path: "b".into(), bytes: 0 };
        let result = if room { Ok(Box::new(Spare::in_heap(bytes))) } else { Err(refused()) };
        assert_eq!(pools.on_job(Done::Spare { id, result }, now_ns).is_ok(), room);
    }

    /// A core with tables of both kinds: writes to one of them resume whatever the other one has.
    #[test]
    fn a_pool_has_room_again_though_the_other_one_is_full() {
        let setup = FilesSetup {
            incarnation: Incarnation::default(),
            bytes_max: 64 << 20,
            cores: 1,
            copy_wait_ns: 0,
            notices: Notices::heard().0,
        };
        let mut pools = Pools::new(0, &setup);
        for disk in [false, true] {
            let (kind, room) = (SegmentKind::Tail, Room::Write);
            let want = Want { kind, bytes_min: 8, bytes: SEGMENT, disk, zeroed: false, room };
            pools.want(1, want);
            make(&mut pools, usize::from(disk), 0, false);
        }
        let were_full = pools.full_sides();
        assert_eq!(were_full, [true, true]);
        assert!(!pools.has_room_again(were_full));
        make(&mut pools, 1, 1_000_000_000, true);
        assert!(pools.is_full() && pools.has_room_again(were_full));
    }
}
