//! What the leader should propose next.
//!
//! Each call looks at everything and names the next step of each group that lacks something; it keeps no list of
//! things to do, so a lost entry, a new leader or a changed mind costs nothing but another look. In order: epochs
//! begin, leases that ended take bricks out, groups that stopped are led, then copies and hand-overs under way,
//! repairs, and only on a calm cluster moves that make bricks more even.

mod balance;
mod health;
mod intents;
mod lead;
mod members;
mod place;
mod repair;
mod voters;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

pub use lead::lead_anyway;
pub use place::create_table;

use super::entry::Entry;
use super::heartbeat::Report;
use super::leases::Leases;
use super::state::{Brick, Group, Keepers};
use health::Apart;
use intents::Rest;

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
    /// Pairs of bricks that are not to be in one group.
    apart: BTreeMap<(u32, u32), Apart>,
    /// One of the two says that it does not reach the other.
    complained: BTreeSet<(u32, u32)>,
    /// Since when a group asks for something, in which epoch.
    asked: BTreeMap<u32, (u32, u64)>,
    /// Since when a group lacks a replica.
    short: BTreeMap<u32, u64>,
    /// Since when a group has been stopped.
    stopped: BTreeMap<u32, u64>,
    /// Groups whose hand-over was withdrawn.
    rest: BTreeMap<u32, Rest>,
    /// Since when a wish cannot go on.
    blocked: BTreeMap<u32, u64>,
    /// Since when a keeper has not been heard.
    unheard: BTreeMap<u32, u64>,
}

/// One look at the cluster.
struct Scene<'a> {
    now: u64,
    keepers: &'a Keepers,
    leases: &'a Leases,
    memory: &'a mut Planner,
    entries: Vec<Entry>,
    /// Partitions that have a step already.
    touched: BTreeSet<u32>,
    /// Bricks that get no more answers, until they are taken out.
    suspend: BTreeSet<u32>,
    /// (reporting brick, report, since when) of processes that act, in this order.
    reports: Vec<(u32, Report, u64)>,
    /// Bricks that are not being emptied.
    staying: usize,
}

impl<'a> Scene<'a> {
    fn new(now: u64, keepers: &'a Keepers, leases: &'a Leases, memory: &'a mut Planner) -> Self {
        let mut reports = Vec::new();
        for brick in keepers.bricks() {
            let of = leases.reports(keepers, brick.id).into_iter();
            reports.extend(of.map(|(report, since)| (brick.id, report, since)));
        }
        let (entries, touched, suspend) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let staying = keepers.bricks().filter(|brick| !brick.draining).count();
        Self { now, keepers, leases, memory, entries, touched, suspend, reports, staying }
    }

    fn lease(&self) -> u64 {
        self.keepers.settings.lease_ms * MS
    }

    /// How long requests may be held up for a hand-over.
    fn hold(&self) -> u64 {
        self.keepers.settings.hold_ms_max * MS
    }

    fn is_live(&self, brick: u32) -> bool {
        self.leases.is_live(self.now, self.keepers, brick) && !self.suspend.contains(&brick)
    }

    /// Nothing is under way about the partition.
    fn is_free(&self, partition: u32) -> bool {
        !self.touched.contains(&partition) && !self.leases.is_busy(partition)
    }

    fn step(&mut self, partition: u32, entry: Entry) {
        self.touched.insert(partition);
        self.entries.push(entry);
    }

    /// Bricks that may get partitions: there, and not being emptied.
    fn usable(&self) -> Vec<&'a Brick> {
        self.keepers.bricks().filter(|b| !b.draining && self.is_live(b.id)).collect()
    }

    /// How many replicas there can be of those that should be.
    fn target(&self, group: &Group) -> usize {
        self.keepers.wanted(group).min(self.staying).max(1)
    }

    fn is_draining(&self, brick: u32) -> bool {
        self.keepers.brick(brick).is_some_and(|brick| brick.draining)
    }

    fn has_report(&self, from: u32, report: Report) -> bool {
        self.reports.binary_search_by_key(&(from, report), |(from, is, _)| (*from, *is)).is_ok()
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
    planner.forget(now, keepers);
    let mut scene = Scene::new(now, keepers, leases, planner);
    members::finite(&mut scene);
    members::activate(&mut scene);
    health::look(&mut scene);
    if now >= scene.memory.grace_until {
        members::take_out(&mut scene);
        lead::lead(&mut scene);
    }
    members::damaged(&mut scene);
    members::roomless(&mut scene);
    let urgent = scene.entries.len();
    health::silent(&mut scene);
    let mut work = repair::Work::new(&scene);
    intents::intents(&mut scene, &work);
    repair::repair(&mut scene, &mut work);
    scene.entries.truncate(urgent + ENTRIES_MAX);
    voters::voters(&mut scene);
    let Scene { entries, suspend, .. } = scene;
    leases.suspend(keepers, suspend);
    entries
}

impl Planner {
    /// What is over is not remembered.
    fn forget(&mut self, now: u64, keepers: &Keepers) {
        let is_there = |partition: &u32| keepers.group(*partition).is_some();
        self.asked.retain(|partition, (epoch, _)| {
            keepers.group(*partition).is_some_and(|group| {
                let replicas = &group.replicas;
                replicas.epoch == *epoch && replicas.intent != crate::maps::Intent::None
            })
        });
        self.short.retain(|partition, _| is_there(partition));
        self.stopped.retain(|partition, _| {
            keepers.group(*partition).is_some_and(|group| keepers.is_stopped(group))
        });
        self.forget_rests(now, keepers);
        self.blocked.retain(|partition, _| {
            keepers.group(*partition).is_some_and(|group| group.wish.is_some())
        });
        self.unheard.retain(|brick, _| keepers.brick(*brick).is_some());
    }
}
