//! What the leader should propose next.
//!
//! Each call looks at everything and names the next step of each group that lacks something; it keeps no list of
//! things to do, so a lost entry, a new leader or a changed mind costs nothing but another look. In order: epochs
//! begin, leases that ended take bricks out, groups that stopped are led, then copies and hand-overs under way,
//! repairs, and only on a calm cluster moves that make bricks more even.

mod members;
mod place;

use std::collections::BTreeSet;

pub use place::create_table;

use super::entry::Entry;
use super::leases::Leases;
use super::state::Keepers;

const MS: u64 = 1_000_000;
/// Entries of one call, besides those that keep partitions available.
const ENTRIES_MAX: usize = 64;
/// Epochs that one entry begins.
const ACTIVE_MAX: usize = 1024;

/// What the planner remembers between calls; volatile, and new with each leader.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    last: u64,
    /// The leader itself stood still: nobody is taken out before the others had time to say that they are there.
    grace_until: u64,
}

/// One look at the cluster.
struct Scene<'a> {
    now: u64,
    keepers: &'a Keepers,
    leases: &'a Leases,
    entries: Vec<Entry>,
    /// Partitions that have a step already.
    touched: BTreeSet<u32>,
}

impl Scene<'_> {
    fn lease(&self) -> u64 {
        self.keepers.settings.lease_ms * MS
    }

    fn is_live(&self, brick: u32) -> bool {
        self.leases.is_live(self.now, self.keepers, brick)
    }

    /// Nothing is under way about the partition.
    fn is_free(&self, partition: u32) -> bool {
        !self.touched.contains(&partition) && !self.leases.is_busy(partition)
    }

    fn step(&mut self, partition: u32, entry: Entry) {
        self.touched.insert(partition);
        self.entries.push(entry);
    }
}

/// What to propose now. Call it after heartbeats, after entries, and at least each fifth of a lease; ask
/// [`Leases::proposed`] for each entry.
pub fn plan(now: u64, keepers: &Keepers, leases: &mut Leases, planner: &mut Planner) -> Vec<Entry> {
    let lease = keepers.settings.lease_ms * MS;
    if planner.last > 0 && now > planner.last + lease {
        planner.grace_until = now + lease + lease / 10;
    }
    planner.last = now;
    let mut scene = Scene { now, keepers, leases, entries: Vec::new(), touched: BTreeSet::new() };
    members::finite(&mut scene);
    members::activate(&mut scene);
    members::take_out(&mut scene, planner);
    scene.entries
}
