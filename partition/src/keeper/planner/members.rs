//! What keeps partitions available: epochs begin, and those whose lease has ended are taken out.

use super::repair::leave;
use super::{ACTIVE_MAX, Scene};
use crate::keeper::entry::Entry;
use crate::keeper::heartbeat::Report;
use crate::keeper::state::Kept;
use crate::maps::{Intent, Member};

/// The only brick gave up its lease without end: others may join.
pub(super) fn finite(scene: &mut Scene<'_>) {
    if let Some((brick, incarnation)) = scene.leases.gave_up_endless(scene.keepers) {
        scene.entries.push(Entry::Finite { brick, incarnation });
    }
}

/// Primaries that are ready begin their epochs: one entry a brick.
pub(super) fn activate(scene: &mut Scene<'_>) {
    let reports = scene.reports.clone();
    for said in reports.chunk_by(|a, b| a.0 == b.0) {
        let Some(brick) = scene.keepers.brick(said[0].0) else { continue };
        let mut groups = Vec::new();
        for (_, report, _) in said {
            let Report::Active { partition, epoch } = *report else { continue };
            let Some(group) = scene.keepers.group(partition) else { continue };
            let ours = group.replicas.primary().is_some_and(|m| m.is(brick.id, brick.incarnation));
            let begins = ours && group.replicas.epoch == epoch && !group.replicas.is_active();
            if begins && scene.is_free(partition) && groups.len() < ACTIVE_MAX {
                groups.push((partition, epoch));
            }
        }
        if !groups.is_empty() {
            scene.touched.extend(groups.iter().map(|group| group.0));
            let (brick, incarnation) = (brick.id, brick.incarnation);
            scene.entries.push(Entry::Active { brick, incarnation, groups });
        }
    }
}

/// Bricks whose lease has ended leave the groups that they can leave.
pub(super) fn take_out(scene: &mut Scene<'_>) {
    for brick in scene.keepers.bricks() {
        let held = scene.leases.is_held_now(scene.now, scene.keepers, brick.id);
        if held || scene.leases.is_brick_busy(brick.id) {
            continue;
        }
        if scene.keepers.can_be_taken_out(brick) {
            let (brick, incarnation) = (brick.id, brick.incarnation);
            scene.entries.push(Entry::TakeOut { brick, incarnation });
        }
    }
}

/// Primaries that have no room for the first record of their epoch leave the group, when all others are there and some
/// brick of them has room: else the partition would wait for the room of one brick.
pub(super) fn roomless(scene: &mut Scene<'_>) {
    for (partition, group) in scene.keepers.groups() {
        let replicas = &group.replicas;
        let Some(primary) = replicas.primary().filter(|_| !replicas.is_active()) else { continue };
        let free = replicas.intent == Intent::None && scene.is_free(partition);
        if !free || !scene.leases.lacks(primary.brick, partition) {
            continue;
        }
        let fit = |brick: u32| scene.leases.could_serve(brick, partition);
        let waits = |kept: &&Kept| kept.brick != primary.brick && kept.intact && fit(kept.brick);
        if replicas.members.iter().any(|m| fit(m.brick)) {
            leave(scene, (partition, group), primary.brick);
        } else if replicas.members.len() == 1
            && group.kept.iter().filter(waits).any(|kept| scene.is_live(kept.brick))
        {
            // It came alone, and nothing was committed since: who came later has everything too.
            let Member { brick, incarnation, .. } = primary;
            let epoch = replicas.epoch;
            scene.step(partition, Entry::Damaged { partition, epoch, brick, incarnation });
        }
    }
}

/// Replicas that say that they are not whole.
pub(super) fn damaged(scene: &mut Scene<'_>) {
    for (from, report, _) in scene.reports.clone() {
        let Report::Damaged { partition, epoch } = report else { continue };
        let Some(group) = scene.keepers.group(partition) else { continue };
        let Some(brick) = scene.keepers.brick(from) else { continue };
        let replicas = &group.replicas;
        let learner = replicas.learners.iter().any(|m| m.is(brick.id, brick.incarnation));
        let member = replicas.members.iter().any(|m| m.is(brick.id, brick.incarnation));
        // The last one goes on with what is good of it; one that is asked to leave has been heard.
        let last = replicas.members.len() < 2;
        let heard = replicas.intent != crate::maps::Intent::None
            && group.kept.iter().all(|kept| kept.brick != from || !kept.intact);
        let idle = last && (replicas.is_active() || group.kept.is_empty()) || !last && heard;
        if (learner || member && !idle) && replicas.epoch == epoch && scene.is_free(partition) {
            let incarnation = brick.incarnation;
            scene.step(partition, Entry::Damaged { partition, epoch, brick: from, incarnation });
        }
    }
}
