//! Cutovers under way: a member was asked to stop, says so, and the entry follows; or it does not, and is let go.

use super::repair::Work;
use super::{MS, Planner, Scene};
use crate::keeper::entry::Entry;
use crate::keeper::heartbeat::Report;
use crate::keeper::state::Keepers;
use crate::maps::Intent;

/// The longest time that a group whose hand-over was withdrawn is left alone, in times of the longest hold.
const REST_MAX: u64 = 30;

/// A group is left alone, because its hand-over was withdrawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    until: u64,
    lasts: u64,
}

impl Scene<'_> {
    /// Nobody is asked to stop in this group yet.
    pub(super) fn rests(&self, partition: u32) -> bool {
        self.memory.rest.get(&partition).is_some_and(|rest| self.now < rest.until)
    }

    /// For as long as the longest hold at first, for twice as long each time that the next hand-over was in vain too:
    /// a brick that was only busy is soon asked again, and one that never stops holds few requests up.
    fn rest(&mut self, partition: u32) {
        let (hold, last) = (self.hold(), self.memory.rest.get(&partition));
        let lasts = last.map_or(hold, |rest| (rest.lasts * 2).min(hold * REST_MAX));
        self.memory.rest.insert(partition, Rest { until: self.now + lasts, lasts });
    }
}

impl Planner {
    pub(super) fn forget_rests(&mut self, now: u64, keepers: &Keepers) {
        let good = keepers.settings.hold_ms_max * MS * REST_MAX;
        self.rest.retain(|partition, rest| {
            keepers.group(*partition).is_some() && now < rest.until + good
        });
    }
}

pub(super) fn intents(scene: &mut Scene<'_>, work: &Work<'_>) {
    let keepers = scene.keepers;
    for (partition, group) in keepers.groups() {
        let replicas = &group.replicas;
        let (brick, leaves) = match replicas.intent {
            Intent::None => continue,
            Intent::Leave { brick } => (brick, true),
            Intent::StepDown { brick } => (brick, false),
        };
        let asked = scene.memory.asked.entry(partition).or_insert((replicas.epoch, scene.now)).1;
        if !scene.is_free(partition) {
            continue;
        }
        let epoch = replicas.epoch;
        let Some(member) = replicas.members.iter().find(|m| m.brick == brick) else { continue };
        if scene.has_report(brick, Report::Stopped { partition, epoch }) {
            let incarnation = member.incarnation;
            if leaves {
                scene.step(partition, Entry::Leave { partition, epoch, brick, incarnation });
            } else if let Some(to) = work.heirs.get(&partition).copied() {
                scene.step(partition, Entry::StepDown { partition, epoch, brick, incarnation, to });
            } else {
                scene.rest(partition);
                scene.step(partition, Entry::Withdraw { partition, epoch });
            }
            continue;
        }
        if scene.now < asked + scene.hold() {
            continue;
        }
        let damaged = group.kept.iter().any(|kept| kept.brick == brick && !kept.intact);
        if leaves && (damaged || is_silent(scene, partition, brick)) {
            // It must go and does not say that it stopped: its lease has to end.
            if scene.is_live(brick) {
                scene.suspend.insert(brick);
            }
        } else if scene.is_live(brick) {
            scene.rest(partition);
            scene.step(partition, Entry::Withdraw { partition, epoch });
        }
    }
}

fn is_silent(scene: &Scene<'_>, partition: u32, brick: u32) -> bool {
    scene.reports.iter().any(|(_, report, _)| {
        matches!(report, Report::Silent { partition: p, brick: b, .. } if (*p, *b) == (partition, brick))
    })
}
