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

/// First wait until a pair is grouped again; doubles each time, up to `BACK_OFF_MAX`.
const BACK_OFF: u64 = 5_000 * MS;
const BACK_OFF_MAX: u64 = 300_000 * MS;

/// Two bricks that did not reach each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apart {
    until: u64,
    times: u32,
    /// They do not reach each other now.
    now: bool,
}

fn pair(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

impl Planner {
    /// The two are not to be in one group yet.
    pub(super) fn is_apart(&self, now: u64, a: u32, b: u32) -> bool {
        self.apart.get(&pair(a, b)).is_some_and(|apart| now < apart.until)
    }

    fn note_pairs(&mut self, now: u64, bad: &BTreeSet<(u32, u32)>) {
        self.apart.retain(|_, apart| now < apart.until + BACK_OFF_MAX);
        for (pair, apart) in &mut self.apart {
            apart.now = apart.now && bad.contains(pair);
        }
        for pair in bad {
            let apart = self.apart.entry(*pair).or_default();
            apart.times += u32::from(!apart.now);
            apart.now = true;
            let wait = (BACK_OFF << (apart.times - 1).min(10)).min(BACK_OFF_MAX);
            apart.until = apart.until.max(now + wait);
        }
    }
}

/// Finds bad pairs and the sick brick.
pub(super) fn look(scene: &mut Scene<'_>, planner: &mut Planner) {
    let live: Vec<u32> =
        scene.keepers.bricks().map(|b| b.id).filter(|brick| scene.is_live(*brick)).collect();
    let mut bad = BTreeSet::new();
    for brick in &live {
        for (other, since) in scene.leases.unreachable(*brick) {
            if live.contains(&other) && scene.now >= since + scene.lease() {
                bad.insert(pair(*brick, other));
            }
        }
    }
    for (from, report, _) in &scene.reports {
        if let Report::Silent { brick, .. } = report
            && live.contains(from)
            && live.contains(brick)
            && brick != from
        {
            bad.insert(pair(*from, *brick));
        }
    }
    planner.note_pairs(scene.now, &bad);
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
pub(super) fn silent(scene: &mut Scene<'_>, planner: &Planner) {
    for (from, report, since) in scene.reports.clone() {
        let Report::Silent { partition, epoch, brick } = report else { continue };
        let Some(group) = scene.keepers.group(partition) else { continue };
        let replicas = &group.replicas;
        let primary = replicas.primary().is_some_and(|m| m.brick == from);
        // (A moment for others to complain: it may be the primary that nobody reaches.)
        let waited = scene.now >= since + scene.lease() / 2 && scene.now >= planner.grace_until;
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
