//! Epochs begin, learners come and go, and the rule for whole groups.

use std::collections::BTreeMap;

use super::apply::Outcome;
use super::entry::Applied;
use super::state::{Group, Keepers, Kept};
use super::wishes::NoteKind;
use crate::maps::{Member, REPLICAS_MAX};

impl Keepers {
    /// Begins the epochs that the primary is ready for; those that changed meanwhile are left out.
    pub(super) fn activate(
        &mut self,
        brick: u32,
        incarnation: u64,
        groups: &[(u32, u32)],
    ) -> Outcome {
        self.brick_at(brick, incarnation)?;
        let begins = |(partition, epoch): &(u32, u32)| {
            let Some(group) = self.groups.get(partition) else { return false };
            let primary = group.replicas.primary();
            let ours = primary.is_some_and(|m| m.is(brick, incarnation));
            ours && group.replicas.epoch == *epoch && !group.replicas.is_active()
        };
        let begin: Vec<u32> = groups.iter().filter(|g| begins(g)).map(|g| g.0).collect();
        if begin.is_empty() {
            return Err(format!(
                "no epoch of brick {brick} begins: they have changed, or began before"
            ));
        }
        let version = self.bump();
        for partition in begin {
            let Some(group) = self.groups.get(&partition) else { continue };
            let kept = group
                .replicas
                .members
                .iter()
                .map(|m| Kept { brick: m.brick, intact: self.is_current(m.brick, m.incarnation) });
            let kept = kept.collect();
            if let Some(group) = self.groups.get_mut(&partition) {
                group.replicas.active = group.replicas.epoch;
                group.kept = kept;
                group.changed = version;
            }
        }
        Ok(Applied::Done)
    }

    pub(super) fn name_learner(
        &mut self,
        partition: u32,
        epoch: u32,
        brick: u32,
        incarnation: u64,
    ) -> Outcome {
        self.brick_at(brick, incarnation)?;
        let replicas = &self.group_at(partition, epoch)?.replicas;
        if replicas.position(brick).is_some() || !replicas.learners.is_empty() {
            return Err(format!(
                "partition {partition} has brick {brick} or another learner already"
            ));
        }
        if replicas.members.len() == REPLICAS_MAX {
            return Err(format!(
                "partition {partition} has {REPLICAS_MAX} replicas, the most there can be"
            ));
        }
        let member = Member { brick, core: self.core_for(partition, brick), incarnation };
        self.bump();
        self.turn(partition, |g| g.learners.push(member));
        Ok(Applied::Done)
    }

    pub(super) fn drop_learner(&mut self, partition: u32, epoch: u32, brick: u32) -> Outcome {
        let replicas = &self.group_at(partition, epoch)?.replicas;
        if !replicas.learners.iter().any(|m| m.brick == brick) {
            return Err(format!("brick {brick} is no learner of partition {partition}"));
        }
        self.bump();
        self.turn(partition, |g| g.learners.retain(|m| m.brick != brick));
        Ok(Applied::Done)
    }

    pub(super) fn promote(
        &mut self,
        partition: u32,
        epoch: u32,
        learner: u32,
        incarnations: &[(u32, u64)],
    ) -> Outcome {
        let replicas = &self.group_at(partition, epoch)?.replicas;
        let Some(member) = replicas.learners.iter().find(|m| m.brick == learner).copied() else {
            return Err(format!("brick {learner} is no learner of partition {partition}"));
        };
        if !replicas.is_active() {
            return Err(format!("partition {partition} is not active in epoch {epoch}"));
        }
        for m in replicas.members.iter().chain([&member]) {
            let named = incarnations.contains(&(m.brick, m.incarnation));
            if !named || !self.is_current(m.brick, m.incarnation) {
                return Err(format!("brick {} restarted since the copy was whole", m.brick));
            }
        }
        self.bump();
        self.turn(partition, |g| {
            g.learners.retain(|m| m.brick != learner);
            g.members.push(member);
        });
        Ok(Applied::Done)
    }

    /// One brick leads a whole group that stopped. Whether another member may hold a lease, the leader knows.
    pub(super) fn lead(
        &mut self,
        partition: u32,
        epoch: u32,
        (brick, incarnation): (u32, u64),
        accept_loss: bool,
    ) -> Outcome {
        self.brick_at(brick, incarnation)?;
        let group = self.group_at(partition, epoch)?;
        let leads = |m: &Member| m.is(brick, incarnation);
        if group.replicas.members.len() == 1 && group.replicas.members.iter().all(leads) {
            let name = self.name_of(brick);
            return Err(format!("brick \"{name}\" leads partition {partition} already"));
        }
        let kept = group.kept.iter().find(|kept| kept.brick == brick).copied();
        let whole = group.kept.is_empty() || kept.is_some_and(|kept| kept.intact);
        if !whole && !accept_loss {
            return Err(format!(
                "brick \"{}\" does not have everything that partition {partition} acknowledged",
                self.name_of(brick)
            ));
        }
        let loss = (!whole).then(|| self.loss_of(partition, brick, group));
        let old = group.replicas.members.iter().find(|m| m.brick == brick).map(|m| m.core);
        // It may have come back with fewer.
        let cores = self.bricks.get(&brick).map_or(1, |b| b.cores);
        let old = old.filter(|core| *core < cores);
        let core = old.unwrap_or_else(|| self.core_for(partition, brick));
        self.bump();
        self.turn(partition, |g| {
            g.members = vec![Member { brick, core, incarnation }];
            g.learners.clear();
            if !whole {
                // Never active: what its member has is all there is.
                g.active = 0;
            }
        });
        if let Some(text) = loss.clone() {
            self.note(NoteKind::Loss, partition, text);
        }
        if let Some(group) = self.groups.get_mut(&partition).filter(|_| !whole && kept.is_none()) {
            group.kept.push(Kept { brick, intact: false });
        }
        Ok(Applied::Led { partition, loss })
    }

    /// The data core of a brick that gets a replica: the one that had it and may have it still, or one with few.
    fn core_for(&self, partition: u32, brick: u32) -> u16 {
        let homes = self.groups.get(&partition).map_or(&[][..], |group| &group.homes);
        let home = homes.iter().find(|m| m.brick == brick && self.is_current(brick, m.incarnation));
        home.map_or_else(|| self.free_core(brick), |home| home.core)
    }

    /// The data core of a brick with the fewest partitions.
    fn free_core(&self, brick: u32) -> u16 {
        let mut loads = self.core_loads(brick);
        loads.sort_by_key(|(core, load)| (*load, *core));
        loads.first().map_or(0, |(core, _)| *core)
    }

    /// Partitions on each data core of a brick.
    pub(super) fn core_loads(&self, brick: u32) -> Vec<(u16, u32)> {
        let cores = self.bricks.get(&brick).map_or(1, |b| b.cores);
        let mut loads: BTreeMap<u16, u32> = (0..cores).map(|core| (core, 0)).collect();
        for group in self.groups.values() {
            let all = group.replicas.members.iter().chain(&group.replicas.learners);
            for member in all.filter(|m| m.brick == brick) {
                if let Some(load) = loads.get_mut(&member.core) {
                    *load += 1;
                }
            }
        }
        loads.into_iter().collect()
    }

    fn loss_of(&self, partition: u32, brick: u32, group: &Group) -> String {
        let others: Vec<String> = group
            .kept
            .iter()
            .filter(|k| k.intact && k.brick != brick)
            .map(|k| format!("\"{}\"", self.name_of(k.brick)))
            .collect();
        let better = if others.is_empty() {
            "no brick kept all of it".to_owned()
        } else {
            format!("brick {} kept all of it", others.join(", "))
        };
        format!(
            "partition {partition} goes on with what brick \"{}\" has: writes acknowledged since epoch {} \
             began may be lost ({better})",
            self.name_of(brick),
            group.replicas.active
        )
    }
}

impl Group {
    /// Its replicas may be about to leave their cores. `acts`: the process that acts for a brick, and its cores.
    pub(super) fn note_homes(&mut self, acts: impl Fn(u32) -> Option<(u64, u16)>) {
        let now = self.replicas.members.iter().chain(&self.replicas.learners);
        // Also of a member whose process is over, in a group that stopped: the brick's next one opens there what is left.
        let now = now.filter_map(|m| {
            let (incarnation, cores) = acts(m.brick)?;
            (m.core < cores).then_some(Member { incarnation, ..*m })
        });
        let now: Vec<Member> = now.collect();
        self.homes.retain(|old| now.iter().all(|m| m.brick != old.brick));
        self.homes.extend(now);
        self.homes.retain(|m| acts(m.brick).is_some_and(|(is, _)| is == m.incarnation));
    }
}
