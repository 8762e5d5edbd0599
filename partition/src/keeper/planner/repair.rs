//! Copies under way, groups with too few or too many replicas, and replicas too close to each other.

use std::collections::BTreeMap;

use super::place::{Loads, compare, crowding, least_crowding};
use super::{ENTRIES_MAX, MS, Scene, balance, wishes};
use crate::keeper::PARTITIONS_MAX;
use crate::keeper::entry::Entry;
use crate::keeper::heartbeat::Report;
use crate::keeper::state::{Brick, Group};
use crate::keeper::wishes::Wish;
use crate::maps::Intent;

/// What copies there are, and what bricks hold when all that is under way is done.
pub(super) struct Work<'a> {
    pub(super) usable: Vec<&'a Brick>,
    pub(super) loads: Loads,
    /// Replicas that there should be.
    pub(super) total: u64,
    copies_to: BTreeMap<u32, u32>,
    copies_from: BTreeMap<u32, u32>,
    /// Who leaves a group that has, or will have, one too many.
    leavers: BTreeMap<u32, u32>,
    /// Who leads a group whose primary steps down.
    pub(super) heirs: BTreeMap<u32, u32>,
    /// Copies and cutovers that only make things more even.
    pub(super) moves: u32,
    /// Groups that lack a replica and can have one.
    pub(super) repairs: u32,
    /// How crowded so many replicas have to be.
    crowded: BTreeMap<usize, (u32, u32)>,
}

impl<'a> Work<'a> {
    pub(super) fn new(scene: &Scene<'a>) -> Self {
        let mut work = Self {
            usable: scene.usable(),
            loads: Loads::of(scene.keepers),
            total: 0,
            copies_to: BTreeMap::new(),
            copies_from: BTreeMap::new(),
            leavers: BTreeMap::new(),
            heirs: BTreeMap::new(),
            moves: 0,
            repairs: 0,
            crowded: BTreeMap::new(),
        };
        for (_, group) in scene.keepers.groups() {
            let (replicas, target) = (&group.replicas, scene.target(group));
            work.total += target as u64;
            for learner in &replicas.learners {
                work.note_copy(group, learner.brick);
            }
            let stay = replicas.members.iter().filter(|m| !scene.is_draining(m.brick)).count();
            let cutover = matches!(replicas.intent, Intent::StepDown { .. });
            let extra = stay + replicas.learners.len() > target;
            if extra || cutover {
                work.moves += 1;
            } else if !replicas.learners.is_empty() {
                work.repairs += 1;
            }
        }
        work.foresee(scene);
        work
    }

    /// Who leaves and who leads when what is under way is done: each choice counts for the next, so that several
    /// at a time do not all fall on the same brick.
    fn foresee(&mut self, scene: &Scene<'_>) {
        let groups = || scene.keepers.groups();
        for (partition, group) in groups() {
            match group.replicas.intent {
                Intent::Leave { brick } => self.foresee_leaver(partition, brick),
                Intent::StepDown { brick } => {
                    if let Some(heir) = self.heir(scene, group, brick) {
                        self.heirs.insert(partition, heir);
                        self.hand_over(brick, heir);
                    }
                }
                Intent::None => {}
            }
        }
        // Those first about whom there is nothing to choose: a choice that does not count them may undo the move that
        // it ends, again and again.
        let mut next: Vec<_> = groups().filter(|(_, group)| is_over(scene, group)).collect();
        next.sort_by_key(|(_, group)| {
            let chosen = group.wish.is_some() || group.replicas.members.len() == 1;
            (!chosen, !group.replicas.learners.is_empty())
        });
        for (partition, group) in next {
            if let Some(out) = leaver(scene, &self.loads, group) {
                self.foresee_leaver(partition, out);
            }
        }
    }

    fn foresee_leaver(&mut self, partition: u32, brick: u32) {
        self.leavers.insert(partition, brick);
        let load = self.loads.replicas.entry(brick).or_default();
        *load = load.saturating_sub(1);
    }

    /// The backup that should be primary: one that has room, with the fewest for its weight.
    fn heir(&self, scene: &Scene<'_>, group: &Group, from: u32) -> Option<u32> {
        let fine = |brick: &&Brick| {
            brick.id != from
                && !scene.is_apart(from, brick.id)
                && group.replicas.position(brick.id).is_some()
        };
        let ratio = |brick: &Brick| self.loads.lead_ratio(brick);
        let backups = self.usable.iter().copied().filter(fine);
        if let Some(Wish::Lead { to }) = group.wish
            && let Some(wished) = backups.clone().find(|brick| brick.id == to)
        {
            return Some(wished.id);
        }
        let full = |brick: &Brick| scene.leases.is_full(brick.id);
        let best = backups.min_by(|a, b| {
            let least = compare(ratio(a), ratio(b));
            full(a).cmp(&full(b)).then(least).then(a.id.cmp(&b.id))
        });
        best.map(|brick| brick.id)
    }

    /// One leads one less, the other one more.
    pub(super) fn hand_over(&mut self, from: u32, to: u32) {
        let load = self.loads.primaries.entry(from).or_default();
        *load = load.saturating_sub(1);
        *self.loads.primaries.entry(to).or_default() += 1;
    }

    fn note_copy(&mut self, group: &Group, to: u32) {
        *self.copies_to.entry(to).or_default() += 1;
        if let Some(primary) = group.replicas.primary() {
            *self.copies_from.entry(primary.brick).or_default() += 1;
        }
    }

    /// One more copy is under way.
    pub(super) fn begin(&mut self, group: &Group, to: u32) {
        self.note_copy(group, to);
        *self.loads.replicas.entry(to).or_default() += 1;
    }

    /// Bricks that may get the partition now.
    pub(super) fn candidates(
        &self,
        scene: &Scene<'_>,
        (partition, group): (u32, &Group),
    ) -> Vec<&'a Brick> {
        if !self.can_give(scene, group) {
            return Vec::new();
        }
        let fine = |brick: &&&Brick| self.can_take(scene, (partition, group), brick);
        self.usable.iter().filter(fine).copied().collect()
    }

    /// The group's primary has not too many copies to give already.
    pub(super) fn can_give(&self, scene: &Scene<'_>, group: &Group) -> bool {
        let copies = group.replicas.primary().and_then(|m| self.copies_from.get(&m.brick));
        copies.is_none_or(|copies| *copies < scene.keepers.settings.copies_per_brick_max)
    }

    /// A usable brick may be copied to.
    pub(super) fn can_take(
        &self,
        scene: &Scene<'_>,
        (partition, group): (u32, &Group),
        brick: &Brick,
    ) -> bool {
        let (id, most) = (brick.id, scene.keepers.settings.copies_per_brick_max);
        let mut members = group.replicas.members.iter();
        // (One that was a member may have the room already, unless it says otherwise.)
        let has_room = group.former.contains(&id) || !scene.leases.is_full(id);
        has_room
            && !scene.leases.lacks(id, partition)
            && members.all(|m| m.brick != id && scene.may_copy(m.brick, id))
            && self.copies_to.get(&id).is_none_or(|copies| *copies < most)
            && self.loads.ratio(brick).0 < PARTITIONS_MAX as u64
    }
}

/// A group that has, or will have, more replicas than it should, and nobody is asked to leave yet.
fn is_over(scene: &Scene<'_>, group: &Group) -> bool {
    let replicas = &group.replicas;
    let all = replicas.members.len() + replicas.learners.len();
    all > scene.target(group) && !matches!(replicas.intent, Intent::Leave { .. })
}

/// The next step of each group, then of the cluster as a whole.
pub(super) fn repair<'a>(scene: &mut Scene<'a>, work: &mut Work<'a>) {
    for (partition, group) in scene.keepers.groups() {
        let replicas = &group.replicas;
        if !replicas.is_active()
            && let Some(wish) = group.wish
        {
            wishes::wait(scene, partition, wish);
        }
        let ready =
            replicas.is_active() && replicas.intent == Intent::None && scene.is_free(partition);
        if !ready || scene.entries.len() > 4 * ENTRIES_MAX {
            continue;
        }
        if !replicas.learners.is_empty() {
            learner(scene, partition, group);
            continue;
        }
        let (target, members) = (scene.target(group), &replicas.members);
        let stay = members.iter().filter(|m| !scene.is_draining(m.brick)).count();
        if stay < target {
            fill(scene, work, partition, group);
            if let Some(wish) = group.wish.filter(|_| scene.is_free(partition)) {
                wishes::grant_short(scene, work, (partition, group), wish);
            }
            continue;
        }
        scene.memory.short.remove(&partition);
        let extra = members.len() > target;
        match group.wish {
            Some(wish) if !extra || wish.is_copied(replicas) => {
                wishes::grant(scene, work, (partition, group), wish);
            }
            _ if extra => shrink(scene, work, partition, group),
            _ if group.by_hand => {}
            _ => spread(scene, work, partition, group),
        }
    }
    balance::balance(scene, work);
    balance::hand_over(scene, work);
}

/// A copy under way: whole, or not wanted any more.
fn learner(scene: &mut Scene<'_>, partition: u32, group: &Group) {
    let replicas = &group.replicas;
    let epoch = replicas.epoch;
    let (Some(primary), Some(learner)) = (replicas.primary(), replicas.learners.first()) else {
        return;
    };
    let brick = learner.brick;
    if scene.is_draining(brick) {
        scene.step(partition, Entry::DropLearner { partition, epoch, brick });
    } else if scene.has_report(primary.brick, Report::Copied { partition, epoch, learner: brick }) {
        let all = replicas.members.iter().chain([learner]);
        let incarnations = all.map(|m| (m.brick, m.incarnation)).collect();
        scene.step(partition, Entry::Promote { partition, epoch, learner: brick, incarnations });
    }
}

/// A group lacks a replica: those that had one first, others after a while.
fn fill<'a>(scene: &mut Scene<'a>, work: &mut Work<'a>, partition: u32, group: &Group) {
    let since = *scene.memory.short.entry(partition).or_insert(scene.now);
    let candidates = work.candidates(scene, (partition, group));
    let back = candidates.iter().find(|b| group.former.contains(&b.id)).copied();
    let wished = |brick: &&&Brick| matches!(group.wish, Some(Wish::Move { from, to }) if to == brick.id && scene.is_draining(from));
    let back = candidates.iter().find(wished).copied().or(back);
    let delay = scene.keepers.settings.repair_delay_ms * MS;
    let waits = !group.former.is_empty() && scene.now < since + delay;
    if waits && back.is_none() {
        return;
    }
    let stay = group.replicas.members.iter().map(|m| m.brick);
    let stay: Vec<u32> = stay.filter(|brick| !scene.is_draining(*brick)).collect();
    let best = || work.loads.best(scene.keepers, &candidates, &stay, partition, work.total);
    if let Some(brick) = back.or_else(best) {
        work.repairs += 1;
        work.begin(group, brick.id);
        name_learner(scene, partition, group, brick);
    }
}

pub(super) fn name_learner(scene: &mut Scene<'_>, partition: u32, group: &Group, to: &Brick) {
    let (epoch, brick, incarnation) = (group.replicas.epoch, to.id, to.incarnation);
    scene.step(partition, Entry::NameLearner { partition, epoch, brick, incarnation });
}

/// A group has more replicas than it should: one is asked to leave, when all others are there.
fn shrink(scene: &mut Scene<'_>, work: &Work<'_>, partition: u32, group: &Group) {
    if let Some(brick) = work.leavers.get(&partition).copied() {
        leave(scene, (partition, group), brick);
    }
}

/// Asks a member to leave, if all others are there and it did not just fail to.
pub(super) fn leave(scene: &mut Scene<'_>, (partition, group): (u32, &Group), brick: u32) -> bool {
    let mut others = group.replicas.members.iter().filter(|m| m.brick != brick);
    if !others.all(|m| scene.is_live(m.brick)) || scene.rests(partition) {
        return false;
    }
    let (epoch, intent) = (group.replicas.epoch, Intent::Leave { brick });
    scene.step(partition, Entry::SetIntent { partition, epoch, intent });
    true
}

/// Who should go of a group that has one too many: whom an operator named; who is being emptied; then so that the rest is least crowded;
/// then the one with the most for its weight; then a backup, then the primary, and the newest member last: a move that ends
/// with its leaving was in vain.
fn leaver(scene: &Scene<'_>, loads: &Loads, group: &Group) -> Option<u32> {
    let members = &group.replicas.members;
    if let Some(Wish::Move { from, to }) = group.wish
        && group.replicas.position(from).is_some()
        && members.iter().chain(&group.replicas.learners).any(|m| m.brick == to)
    {
        return Some(from);
    }
    let key = |brick: u32| {
        let rest = members.iter().chain(&group.replicas.learners).map(|m| m.brick);
        let rest: Vec<u32> = rest.filter(|other| *other != brick).collect();
        (!scene.is_draining(brick), crowding(scene.keepers, &rest))
    };
    let load = |brick: u32| scene.keepers.brick(brick).map_or((0, 1), |b| loads.ratio(b));
    // (While a copy goes on the newest is its learner.)
    let newest = if group.replicas.learners.is_empty() {
        members.len().saturating_sub(1)
    } else {
        usize::MAX
    };
    let place = |brick: u32| group.replicas.position(brick).filter(|at| *at < newest);
    let bricks = members.iter().map(|m| m.brick);
    bricks.min_by(|a, b| {
        let fullest = compare(load(*b), load(*a));
        key(*a).cmp(&key(*b)).then(fullest).then(place(*b).cmp(&place(*a)))
    })
}

/// Replicas that share a failure domain although they need not: copy to another, the leaver is found then.
fn spread<'a>(scene: &mut Scene<'a>, work: &mut Work<'a>, partition: u32, group: &Group) {
    let bricks: Vec<u32> = group.replicas.members.iter().map(|m| m.brick).collect();
    let crowded = crowding(scene.keepers, &bricks);
    if crowded == (0, 0) || work.moves >= scene.keepers.settings.moves_max {
        return;
    }
    // (Of most groups that are crowded this is all that there is to know.)
    let usable = &work.usable;
    let least = || least_crowding(usable, bricks.len());
    if crowded <= *work.crowded.entry(bricks.len()).or_insert_with(least) {
        return;
    }
    let candidates = work.candidates(scene, (partition, group));
    // The group without one of its members and with the best other.
    let mut best: Option<((u32, u32), &Brick)> = None;
    for out in &bricks {
        let rest: Vec<u32> = bricks.iter().copied().filter(|b| b != out).collect();
        let to = work.loads.best(scene.keepers, &candidates, &rest, partition, work.total);
        let Some(to) = to else { continue };
        let all: Vec<u32> = rest.into_iter().chain([to.id]).collect();
        let after = crowding(scene.keepers, &all);
        if after < crowded && best.is_none_or(|(least, _)| after < least) {
            best = Some((after, to));
        }
    }
    if let Some((_, to)) = best {
        work.moves += 1;
        work.begin(group, to.id);
        name_learner(scene, partition, group, to);
    }
}
