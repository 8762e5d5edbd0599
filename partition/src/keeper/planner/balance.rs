//! Bricks are made even, on a calm cluster: first how much they hold, then how much they lead.
//!
//! A move is worth it when the fuller brick has over a tenth more for its weight than the emptier one, and still
//! not less than the other after it. So the largest of any two loads sinks with each move: it ends.

use std::cmp::Ordering;

use super::Scene;
use super::place::{compare, crowding, score};
use super::repair::{Work, name_learner};
use crate::keeper::entry::Entry;
use crate::keeper::state::{Brick, Group};
use crate::maps::Intent;

/// Fullest and emptiest bricks that are looked at.
const ENDS: usize = 4;

/// Moving one from `full` to `empty` makes them more even, and they are not within a tenth of each other.
fn is_worth_it(full: (u64, u64), empty: (u64, u64)) -> bool {
    let apart = compare((full.0 * 10, full.1), (empty.0 * 11, empty.1)) == Ordering::Greater;
    apart && compare(full, (empty.0 + 1, empty.1)) == Ordering::Greater
}

/// A group that nothing is going on about, and that no operator has placed.
fn is_calm(scene: &Scene<'_>, partition: u32, group: &Group) -> bool {
    let replicas = &group.replicas;
    replicas.is_active()
        && group.wish.is_none()
        && !group.by_hand
        && replicas.intent == Intent::None
        && replicas.learners.is_empty()
        && replicas.members.len() == scene.target(group)
        && scene.is_free(partition)
        && !scene.rests(partition)
        && replicas.members.iter().all(|m| scene.is_live(m.brick))
}

/// Pairs (fuller, emptier) of bricks whose difference is worth a step, the worst first.
fn pairs<'a>(
    bricks: &[&'a Brick],
    load: impl Fn(&Brick) -> (u64, u64),
) -> Vec<(&'a Brick, &'a Brick)> {
    let mut order = bricks.to_vec();
    order.sort_by(|a, b| compare(load(b), load(a)).then(a.id.cmp(&b.id)));
    let mut found = Vec::new();
    for full in order.iter().take(ENDS) {
        for empty in order.iter().rev().take(ENDS) {
            if is_worth_it(load(full), load(empty)) {
                found.push((*full, *empty));
            }
        }
    }
    found
}

/// Moves replicas from full bricks to empty ones.
pub(super) fn balance<'a>(scene: &mut Scene<'a>, work: &mut Work<'a>) {
    while work.repairs == 0 && work.moves < scene.keepers.settings.moves_max {
        let pairs = pairs(&work.usable, |brick| work.loads.ratio(brick));
        let step = pairs.into_iter().find_map(|(full, empty)| {
            movable(scene, work, full, empty).map(|partition| (full, empty, partition))
        });
        let Some((full, empty, partition)) = step else { return };
        let Some(group) = scene.keepers.group(partition) else { return };
        work.moves += 1;
        work.begin(group, empty.id);
        let load = work.loads.replicas.entry(full.id).or_default();
        *load = load.saturating_sub(1);
        name_learner(scene, partition, group, empty);
    }
}

/// The partition that should go from one brick to the other: the one to which the other has the best claim.
fn movable(scene: &Scene<'_>, work: &Work<'_>, full: &Brick, empty: &Brick) -> Option<u32> {
    let fits = |(partition, group): &(u32, &Group)| {
        let bricks: Vec<u32> = group.replicas.members.iter().map(|m| m.brick).collect();
        if !bricks.contains(&full.id) || bricks.contains(&empty.id) {
            return false;
        }
        let after: Vec<u32> =
            bricks.iter().copied().filter(|b| *b != full.id).chain([empty.id]).collect();
        is_calm(scene, *partition, group)
            && crowding(scene.keepers, &after) <= crowding(scene.keepers, &bricks)
            && work.can_give(scene, group)
            && work.can_take(scene, (*partition, group), empty)
    };
    let groups = scene.keepers.groups().filter(fits);
    groups.map(|(partition, _)| partition).max_by_key(|p| (score(empty, *p), std::cmp::Reverse(*p)))
}

/// Hands primaries over from bricks that lead many to those that lead few.
pub(super) fn hand_over(scene: &mut Scene<'_>, work: &mut Work<'_>) {
    while work.repairs == 0 && work.moves < scene.keepers.settings.moves_max {
        let pairs = pairs(&work.usable, |brick| work.loads.lead_ratio(brick));
        let step = pairs.into_iter().find_map(|(full, empty)| {
            let fits = |(partition, group): &(u32, &Group)| {
                group.replicas.position(full.id) == Some(0)
                    && group.replicas.position(empty.id).is_some()
                    && scene.may_copy(full.id, empty.id)
                    && scene.leases.could_serve(empty.id, *partition)
                    && is_calm(scene, *partition, group)
            };
            scene
                .keepers
                .groups()
                .find(fits)
                .map(|(partition, group)| (full, empty, partition, group))
        });
        let Some((full, empty, partition, group)) = step else { return };
        work.moves += 1;
        work.hand_over(full.id, empty.id);
        let (epoch, intent) = (group.replicas.epoch, Intent::StepDown { brick: full.id });
        scene.step(partition, Entry::SetIntent { partition, epoch, intent });
    }
}
