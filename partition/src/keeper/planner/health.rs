//! Bricks that are alive and do not reach each other.
//!
//! A heartbeat proves only that the control thread lives. Complaints make a graph: two bricks are a bad pair when
//! one says that it cannot reach the other, or that its vote has been missing, for a lease. The brick that most
//! others are in a bad pair with, and that has more of them than each of those, is the sick one: it gets no more
//! answers, so its lease ends and it is taken out. Else nobody can tell who it is, and the backup of each group
//! that suffers leaves that group.

use std::collections::{BTreeMap, BTreeSet};

use super::{MS, Planner, Scene};
use crate::keeper::entry::Entry;
use crate::keeper::heartbeat::Report;
use crate::maps::Intent;

/// Wait until a pair is grouped again, after it was fine for long.
const BACK_OFF: u64 = 2_000 * MS;
/// A pair whose connection never gets better costs its groups a stall of a lease or two in this time.
const BACK_OFF_MAX: u64 = 60_000 * MS;

/// Two bricks that did not reach each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apart {
    /// How long they rest after they reached each other again.
    wait: u64,
    /// When they last did not.
    last: u64,
    /// They do not reach each other now.
    now: bool,
}

impl Apart {
    fn until(&self) -> u64 {
        self.last + self.wait
    }

    /// How long they will rest the next time: twice as long when they failed again soon after they were grouped, and half
    /// as long for each time that the good time behind them doubled.
    fn next_wait(&self, now: u64) -> u64 {
        let mut wait = (self.wait * 2).min(BACK_OFF_MAX * 2);
        let mut good = now.saturating_sub(self.until());
        while wait > BACK_OFF && good >= self.wait {
            (wait, good) = (wait / 2, good / 2);
        }
        wait.clamp(BACK_OFF, BACK_OFF_MAX)
    }
}

fn pair(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

impl Scene<'_> {
    /// The two are not to be in one group yet.
    pub(super) fn is_apart(&self, a: u32, b: u32) -> bool {
        self.memory.apart.get(&pair(a, b)).is_some_and(|apart| self.now < apart.until())
    }

    /// A copy between the two would not wait: they are not apart, and neither says right now that it does not reach
    /// the other.
    pub(super) fn may_copy(&self, a: u32, b: u32) -> bool {
        !self.memory.complained.contains(&pair(a, b)) && !self.is_apart(a, b)
    }
}

impl Planner {
    fn note_pairs(&mut self, now: u64, bad: &BTreeSet<(u32, u32)>) {
        self.apart.retain(|pair, apart| {
            bad.contains(pair) || now < apart.until() || apart.next_wait(now) > BACK_OFF
        });
        for (pair, apart) in &mut self.apart {
            apart.now = apart.now && bad.contains(pair);
        }
        for pair in bad {
            let apart = self.apart.entry(*pair).or_default();
            if !apart.now {
                apart.wait = apart.next_wait(now);
            }
            (apart.now, apart.last) = (true, now);
        }
    }
}

/// Finds bad pairs and the sick brick.
pub(super) fn look(scene: &mut Scene<'_>) {
    let live: Vec<u32> =
        scene.keepers.bricks().map(|b| b.id).filter(|brick| scene.is_live(*brick)).collect();
    let mut bad = BTreeSet::new();
    scene.memory.complained.clear();
    for brick in &live {
        for (other, since) in scene.leases.unreachable(*brick).filter(|(b, _)| live.contains(b)) {
            scene.memory.complained.insert(pair(*brick, other));
            if scene.now >= since + scene.lease() {
                bad.insert(pair(*brick, other));
            }
        }
    }
    for (from, report, _) in &scene.reports {
        // (One that says that it has no room for the partition is not out of reach.)
        if let Report::Silent { partition, brick, .. } = report
            && !scene.leases.lacks(*brick, *partition)
            && live.contains(from)
            && live.contains(brick)
            && brick != from
        {
            bad.insert(pair(*from, *brick));
        }
    }
    scene.memory.note_pairs(scene.now, &bad);
    let mut degree: BTreeMap<u32, usize> = BTreeMap::new();
    for (a, b) in &bad {
        *degree.entry(*a).or_default() += 1;
        *degree.entry(*b).or_default() += 1;
    }
    for (brick, count) in &degree {
        let most = count * 2 > live.len() - 1;
        let more = bad
            .iter()
            .all(|(a, b)| (a != brick || degree[b] < *count) && (b != brick || degree[a] < *count));
        if most && more {
            scene.suspend.insert(*brick);
        }
    }
}

/// Groups that wait for a vote, where nobody is the sick one: the learner or the backup goes.
pub(super) fn silent(scene: &mut Scene<'_>) {
    for (from, report, since) in scene.reports.clone() {
        let Report::Silent { partition, epoch, brick } = report else { continue };
        let Some(group) = scene.keepers.group(partition) else { continue };
        let replicas = &group.replicas;
        let primary = replicas.primary().is_some_and(|m| m.brick == from);
        // (A moment for others to complain: it may be the primary that nobody reaches.)
        let waited =
            scene.now >= since + scene.lease() / 2 && scene.now >= scene.memory.grace_until;
        if !primary || !waited || !scene.is_free(partition) || scene.suspend.contains(&from) {
            continue;
        }
        if replicas.learners.iter().any(|m| m.brick == brick) {
            scene.step(partition, Entry::DropLearner { partition, epoch, brick });
        } else if replicas.position(brick).is_some_and(|at| at > 0) && scene.is_live(brick) {
            let wish = Intent::Leave { brick };
            match replicas.intent {
                Intent::None => {
                    scene.step(partition, Entry::SetIntent { partition, epoch, intent: wish });
                }
                intent if intent == wish => {}
                _ => scene.step(partition, Entry::Withdraw { partition, epoch }),
            }
        }
    }
}
