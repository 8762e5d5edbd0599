//! What keeps partitions available: epochs begin, and those whose lease has ended are taken out.

use super::{ACTIVE_MAX, Planner, Scene};
use crate::keeper::entry::Entry;
use crate::keeper::heartbeat::Report;

/// The only brick gave up its lease without end: others may join.
pub(super) fn finite(scene: &mut Scene<'_>) {
    if let Some((brick, incarnation)) = scene.leases.gave_up_endless(scene.keepers) {
        scene.entries.push(Entry::Finite { brick, incarnation });
    }
}

/// Primaries that are ready begin their epochs: one entry a brick.
pub(super) fn activate(scene: &mut Scene<'_>) {
    for brick in scene.keepers.bricks() {
        let mut groups = Vec::new();
        for (report, _) in scene.leases.reports(scene.keepers, brick.id) {
            let Report::Active { partition, epoch } = report else { continue };
            let Some(group) = scene.keepers.group(partition) else { continue };
            let primary = group.replicas.primary();
            let ours =
                primary.is_some_and(|m| (m.brick, m.incarnation) == (brick.id, brick.incarnation));
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
pub(super) fn take_out(scene: &mut Scene<'_>, planner: &Planner) {
    if scene.now < planner.grace_until {
        return;
    }
    for brick in scene.keepers.bricks() {
        let held = scene.leases.is_held_now(scene.now, scene.keepers, brick.id);
        if held || scene.leases.is_brick_busy(brick.id) {
            continue;
        }
        let can_leave = scene.keepers.groups().any(|(_, group)| {
            let replicas = &group.replicas;
            let here =
                |m: &crate::maps::Member| (m.brick, m.incarnation) == (brick.id, brick.incarnation);
            replicas.members.len() > 1 && replicas.members.iter().any(here)
                || replicas.learners.iter().any(here)
        });
        if can_leave {
            let (brick, incarnation) = (brick.id, brick.incarnation);
            scene.entries.push(Entry::TakeOut { brick, incarnation });
        }
    }
}
