//! Cutovers under way: a member was asked to stop, says so, and the entry follows; or it does not, and is let go.

use super::repair::Work;
use super::{MS, Planner, Scene};
use crate::keeper::entry::Entry;
use crate::keeper::heartbeat::Report;
use crate::maps::Intent;

/// How long a group whose hand-over was withdrawn is left alone, in times of the longest hold.
const REST: u64 = 30;

pub(super) fn intents(scene: &mut Scene<'_>, planner: &mut Planner, work: &Work<'_>) {
    let keepers = scene.keepers;
    let hold = keepers.settings.hold_ms_max * MS;
    let rest = hold * REST;
    for (partition, group) in keepers.groups() {
        let replicas = &group.replicas;
        let (brick, leaves) = match replicas.intent {
            Intent::None => continue,
            Intent::Leave { brick } => (brick, true),
            Intent::StepDown { brick } => (brick, false),
        };
        let asked = planner.asked.entry(partition).or_insert((replicas.epoch, scene.now)).1;
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
                planner.rest.insert(partition, scene.now + rest);
                scene.step(partition, Entry::Withdraw { partition, epoch });
            }
            continue;
        }
        if scene.now < asked + hold {
            continue;
        }
        let damaged = group.kept.iter().any(|kept| kept.brick == brick && !kept.intact);
        if leaves && (damaged || is_silent(scene, partition, brick)) {
            // It must go and does not say that it stopped: its lease has to end.
            if scene.is_live(brick) {
                scene.suspend.insert(brick);
            }
        } else if scene.is_live(brick) {
            planner.rest.insert(partition, scene.now + rest);
            scene.step(partition, Entry::Withdraw { partition, epoch });
        }
    }
}

fn is_silent(scene: &Scene<'_>, partition: u32, brick: u32) -> bool {
    scene.reports.iter().any(|(_, report, _)| {
        matches!(report, Report::Silent { partition: p, brick: b, .. } if (*p, *b) == (partition, brick))
    })
}
