//! What operators wish: worked off a step at a time, and given up when it cannot be.

use super::repair::{Work, leave, name_learner};
use super::{MS, Scene};
use crate::keeper::PARTITIONS_MAX;
use crate::keeper::entry::Entry;
use crate::keeper::state::Group;
use crate::keeper::wishes::Wish;
use crate::maps::Intent;

/// A wish that could not go on for so long is given up.
const PATIENCE: u64 = 60_000 * MS;

/// How far a wish is.
enum Step {
    /// It goes on, or waits for its turn.
    Going,
    /// A member is asked to stop; it may refuse.
    Asked,
    /// It cannot go on now.
    Blocked(String),
}

/// The next step of a wish about a group that is whole and active.
pub(super) fn grant<'a>(
    scene: &mut Scene<'a>,
    work: &mut Work<'a>,
    (partition, group): (u32, &Group),
    wish: Wish,
) {
    let step = match wish {
        Wish::Move { from, to } => go(scene, work, (partition, group), (from, to)),
        Wish::Lead { to } => lead(scene, work, (partition, group), to),
    };
    take(scene, partition, wish, step);
}

/// The same of a group that lacks a replica: it gets that one first.
pub(super) fn grant_short<'a>(
    scene: &mut Scene<'a>,
    work: &mut Work<'a>,
    (partition, group): (u32, &Group),
    wish: Wish,
) {
    let step = match wish {
        Wish::Move { .. } => {
            Step::Blocked("it lacks a replica, and there is no brick to copy one to".into())
        }
        Wish::Lead { to } => lead(scene, work, (partition, group), to),
    };
    take(scene, partition, wish, step);
}

/// A wish about a partition that does not serve.
pub(super) fn wait(scene: &mut Scene<'_>, partition: u32, wish: Wish) {
    take(scene, partition, wish, Step::Blocked("it does not serve".into()));
}

fn take(scene: &mut Scene<'_>, partition: u32, wish: Wish, step: Step) {
    match step {
        Step::Going => {
            scene.memory.blocked.remove(&partition);
        }
        Step::Asked => {}
        Step::Blocked(why) => {
            let since = *scene.memory.blocked.entry(partition).or_insert(scene.now);
            if scene.now >= since + PATIENCE && scene.is_free(partition) {
                scene.step(partition, Entry::EndWish { partition, wish, why });
            }
        }
    }
}

fn go<'a>(
    scene: &mut Scene<'a>,
    work: &mut Work<'a>,
    (partition, group): (u32, &Group),
    (from, to): (u32, u32),
) -> Step {
    let name = |brick| scene.keepers.name_of(brick);
    if group.replicas.position(from).is_none() {
        return Step::Blocked(format!("brick \"{}\" has no replica of it any more", name(from)));
    }
    if group.replicas.position(to).is_some() {
        if group.replicas.members.len() <= scene.target(group) {
            return Step::Blocked(format!("brick \"{}\" got a replica meanwhile", name(to)));
        }
        if leave(scene, (partition, group), from) {
            return Step::Asked;
        }
        return Step::Blocked(format!("brick \"{}\" cannot leave the group now", name(from)));
    }
    if let Some(why) = unfit(scene, group, to) {
        return Step::Blocked(why);
    }
    let candidates = work.candidates(scene, (partition, group));
    if let Some(brick) = candidates.into_iter().find(|brick| brick.id == to) {
        work.moves += 1;
        work.begin(group, to);
        name_learner(scene, partition, group, brick);
    }
    Step::Going
}

fn lead(
    scene: &mut Scene<'_>,
    work: &mut Work<'_>,
    (partition, group): (u32, &Group),
    to: u32,
) -> Step {
    if group.replicas.position(to).is_none() {
        let name = scene.keepers.name_of(to);
        return Step::Blocked(format!("brick \"{name}\" has no replica of it any more"));
    }
    if let Some(why) = unfit(scene, group, to) {
        return Step::Blocked(why);
    }
    let Some(primary) = group.replicas.primary() else { return Step::Going };
    if scene.rests(partition) {
        let name = scene.keepers.name_of(primary.brick);
        return Step::Blocked(format!("brick \"{name}\" did not stop in time to hand it over"));
    }
    work.moves += 1;
    work.hand_over(primary.brick, to);
    let intent = Intent::StepDown { brick: primary.brick };
    scene.step(partition, Entry::SetIntent { partition, epoch: group.replicas.epoch, intent });
    Step::Asked
}

/// Why a brick cannot get anything now.
fn unfit(scene: &Scene<'_>, group: &Group, to: u32) -> Option<String> {
    let name = scene.keepers.name_of(to);
    if !scene.is_live(to) {
        return Some(format!("brick \"{name}\" is not there"));
    }
    if scene.is_draining(to) {
        return Some(format!("brick \"{name}\" is being emptied"));
    }
    let mut members = group.replicas.members.iter().filter(|m| m.brick != to);
    if let Some(apart) = members.find(|m| scene.is_apart(m.brick, to)) {
        let other = scene.keepers.name_of(apart.brick);
        return Some(format!("bricks \"{name}\" and \"{other}\" do not reach each other"));
    }
    if let Some(lack) = scene.leases.lack(to).filter(|lack| lack.full) {
        return Some(format!("brick \"{name}\" takes nothing more: {}", lack.why));
    }
    let load = scene.keepers.brick_loads().get(&to).copied().unwrap_or(0);
    let new = group.replicas.position(to).is_none();
    (new && load >= PARTITIONS_MAX)
        .then(|| format!("brick \"{name}\" has {load} partitions, the most there can be"))
}
