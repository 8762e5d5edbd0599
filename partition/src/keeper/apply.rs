//! One entry applied: look at all its conditions, then change everything, or nothing.

use std::collections::BTreeSet;

use super::KEEPERS_MAX;
use super::entry::{Applied, Entry};
use super::state::{Brick, Group, Keepers, Settings};
use crate::maps::Replicas;

/// What happened, or why nothing did.
pub(super) type Outcome = Result<Applied, String>;

impl Keepers {
    /// Applies one entry. The same entries on equal states leave equal states.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        self.outcome(entry).unwrap_or_else(Applied::Nothing)
    }

    fn outcome(&mut self, entry: &Entry) -> Outcome {
        match *entry {
            Entry::Register { ref registration, replaces, proof } => {
                self.register(registration, replaces, proof)
            }
            Entry::Finite { brick, incarnation } => self.finite(brick, incarnation),
            Entry::TakeOut { brick, incarnation } => self.take_out(brick, incarnation),
            Entry::CreateTable { ref name, options, ref placement } => {
                self.create_table(name, options, placement)
            }
            Entry::DropTable { ref name } => self.drop_table(name),
            Entry::Forgotten { brick, ref partitions } => Ok(self.forgotten(brick, partitions)),
            Entry::Active { brick, incarnation, ref groups } => {
                self.activate(brick, incarnation, groups)
            }
            Entry::NameLearner { partition, epoch, brick, incarnation } => {
                self.name_learner(partition, epoch, brick, incarnation)
            }
            Entry::DropLearner { partition, epoch, brick } => {
                self.drop_learner(partition, epoch, brick)
            }
            Entry::Promote { partition, epoch, learner, ref incarnations } => {
                self.promote(partition, epoch, learner, incarnations)
            }
            Entry::SetIntent { partition, epoch, intent } => {
                self.set_intent(partition, epoch, intent)
            }
            Entry::Withdraw { partition, epoch } => self.withdraw(partition, epoch),
            Entry::Leave { partition, epoch, brick, incarnation } => {
                self.leave(partition, epoch, brick, incarnation)
            }
            Entry::StepDown { partition, epoch, brick, incarnation, to } => {
                self.step_down(partition, epoch, (brick, incarnation), to)
            }
            Entry::Damaged { partition, epoch, brick, incarnation } => {
                self.damaged(partition, epoch, brick, incarnation)
            }
            Entry::Lead { partition, epoch, brick, incarnation, accept_loss } => {
                self.lead(partition, epoch, (brick, incarnation), accept_loss)
            }
            Entry::Wish { partition, wish } => self.wish(partition, wish),
            Entry::EndWish { partition, wish, ref why } => self.end_wish(partition, wish, why),
            Entry::Drain { brick, on } => self.drain(brick, on),
            Entry::RemoveBrick { brick } => self.remove_brick(brick),
            Entry::SetKeepers { ref before, ref keepers } => self.set_keepers(before, keepers),
            Entry::Settings(settings) => self.set_settings(settings),
        }
    }

    /// The brick, if this process still acts for it.
    pub(super) fn brick_at(&self, brick: u32, incarnation: u64) -> Result<&Brick, String> {
        let found = self.bricks.get(&brick).ok_or_else(|| format!("there is no brick {brick}"))?;
        if found.incarnation != incarnation {
            return Err(format!(
                "brick \"{}\" is process {:x} now, this was decided for {incarnation:x}",
                found.name, found.incarnation
            ));
        }
        Ok(found)
    }

    /// The group, if it is in the epoch still.
    pub(super) fn group_at(&self, partition: u32, epoch: u32) -> Result<&Group, String> {
        let group = self.groups.get(&partition);
        let group = group.ok_or_else(|| format!("there is no partition {partition}"))?;
        if group.replicas.epoch != epoch {
            return Err(format!(
                "partition {partition} is in epoch {} now, this was decided in {epoch}",
                group.replicas.epoch
            ));
        }
        if epoch == u32::MAX {
            return Err(format!("partition {partition} is in the last epoch there is"));
        }
        Ok(group)
    }

    /// The next version of the maps, to be written at what changes.
    pub(super) fn bump(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A new epoch of a group. Ends whatever was asked or confirmed in the old one.
    pub(super) fn turn(&mut self, partition: u32, change: impl FnOnce(&mut Replicas)) {
        let (version, wanted) = (self.version, self.groups.get(&partition).map(|g| self.wanted(g)));
        let (Some(group), Some(wanted)) = (self.groups.get_mut(&partition), wanted) else { return };
        let bricks = &self.bricks;
        group.note_homes(|brick| bricks.get(&brick).map(|b| (b.incarnation, b.cores)));
        change(&mut group.replicas);
        group.replicas.epoch += 1;
        group.replicas.intent = crate::maps::Intent::None;
        group.changed = version;
        let replicas = &group.replicas;
        group
            .former
            .retain(|brick| replicas.position(*brick).is_none() && replicas.members.len() < wanted);
        group.look_at_wish();
    }

    fn drain(&mut self, brick: u32, on: bool) -> Outcome {
        let Some(found) = self.bricks.get(&brick) else {
            return Err(format!("there is no brick {brick}"));
        };
        if found.draining == on {
            return Ok(Applied::Done);
        }
        if on && self.bricks.values().all(|b| b.draining || b.id == brick) {
            return Err(format!(
                "brick \"{}\" cannot be emptied: there is no other brick for what it holds; add one first",
                found.name
            ));
        }
        let version = self.bump();
        if let Some(found) = self.bricks.get_mut(&brick) {
            found.draining = on;
        }
        self.bricks_changed = version;
        self.forget_hands();
        if on {
            self.end_wishes(brick, false);
        }
        Ok(Applied::Done)
    }

    /// The bricks that count in a group: members, a learner, and who may have what was acknowledged.
    pub(super) fn counting(group: &Group) -> BTreeSet<u32> {
        let replicas = &group.replicas;
        let all = replicas.members.iter().chain(&replicas.learners).map(|m| m.brick);
        all.chain(group.kept.iter().map(|kept| kept.brick)).collect()
    }

    fn remove_brick(&mut self, brick: u32) -> Outcome {
        let found = self.bricks.get(&brick).ok_or_else(|| format!("there is no brick {brick}"))?;
        let name = &found.name;
        if !found.draining {
            return Err(format!("brick \"{name}\" is in use: drain it first"));
        }
        let left = self.groups.values().filter(|g| Self::counting(g).contains(&brick)).count();
        if left > 0 {
            return Err(format!(
                "brick \"{name}\" still counts in {left} partitions: wait, or see status"
            ));
        }
        if self.voters.contains(&brick) {
            return Err(format!("brick \"{name}\" is still a keeper: wait until another one is"));
        }
        self.end_wishes(brick, true);
        self.forget_hands();
        let version = self.bump();
        self.bricks.remove(&brick);
        self.bricks_changed = version;
        for group in self.groups.values_mut() {
            group.former.retain(|b| *b != brick);
        }
        self.dropped.retain(|_, bricks| {
            bricks.remove(&brick);
            !bricks.is_empty()
        });
        Ok(Applied::Done)
    }

    fn set_keepers(&mut self, before: &[u32], keepers: &[u32]) -> Outcome {
        if self.voters != before {
            return Err(format!(
                "the keepers are {:?} now, this was decided at {before:?}",
                self.voters
            ));
        }
        let twice = (1..keepers.len()).any(|at| keepers[..at].contains(&keepers[at]));
        let unknown = keepers.iter().find(|brick| !self.bricks.contains_key(brick));
        if keepers.len().is_multiple_of(2)
            || keepers.len() > KEEPERS_MAX
            || twice
            || unknown.is_some()
        {
            return Err(format!(
                "bricks {keepers:?} cannot be the keepers: name 1, 3 or 5 that there are"
            ));
        }
        keepers.clone_into(&mut self.voters);
        Ok(Applied::Done)
    }

    fn set_settings(&mut self, settings: Settings) -> Outcome {
        settings.check()?;
        self.settings = settings;
        self.lease_ms_longest = self.lease_ms_longest.max(settings.lease_ms);
        Ok(Applied::Done)
    }
}

impl Settings {
    /// Whether a cluster can run with these.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(format!("{name} of {value} cannot be used: give {low} to {high}"))
        };
        within("lease_ms", self.lease_ms, 100, 60_000)?;
        within("repair_delay_ms", self.repair_delay_ms, 0, 86_400_000)?;
        within("hold_ms_max", self.hold_ms_max, 50, 60_000)?;
        within("moves_max", u64::from(self.moves_max), 0, 1_000)?;
        within("copies_per_brick_max", u64::from(self.copies_per_brick_max), 1, 1_000)?;
        if ![1, 3, 5].contains(&self.keepers) {
            return Err(format!("{} keepers cannot be: give 1, 3 or 5", self.keepers));
        }
        Ok(())
    }
}
