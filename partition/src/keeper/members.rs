//! How a member goes: taken out, asked to, or with a damaged replica.

use super::apply::Outcome;
use super::entry::Applied;
use super::register::lose;
use super::state::{Brick, Keepers};
use crate::maps::{Intent, Member};

impl Keepers {
    /// The brick's lease has ended. It leaves every group that has another member, and every copy to it ends.
    pub(super) fn take_out(&mut self, brick: u32, incarnation: u64) -> Outcome {
        self.brick_at(brick, incarnation)?;
        self.check_epochs(brick)?;
        let mut out = Vec::new();
        for (partition, group) in &self.groups {
            let replicas = &group.replicas;
            let is_ours = |m: &Member| m.is(brick, incarnation);
            let member = replicas.members.iter().any(is_ours) && replicas.members.len() > 1;
            if member || replicas.learners.iter().any(is_ours) {
                out.push((*partition, member));
            }
        }
        if out.is_empty() {
            return Err(format!("brick {brick} is in no group that it can leave"));
        }
        self.bump();
        for (partition, member) in out {
            if member {
                self.note_former(partition, brick);
            }
            self.turn(partition, |g| {
                if member {
                    g.members.retain(|m| m.brick != brick);
                }
                g.learners.retain(|m| m.brick != brick);
            });
        }
        Ok(Applied::Done)
    }

    /// The brick's process is in a group that it can be taken out of.
    pub(super) fn can_be_taken_out(&self, brick: &Brick) -> bool {
        self.groups.values().any(|group| {
            let replicas = &group.replicas;
            let is_it = |m: &Member| m.is(brick.id, brick.incarnation);
            replicas.members.len() > 1 && replicas.members.iter().any(is_it)
                || replicas.learners.iter().any(is_it)
        })
    }

    /// A brick that would be back soon, if it could.
    fn note_former(&mut self, partition: u32, brick: u32) {
        if let Some(group) = self.groups.get_mut(&partition) {
            group.former.retain(|b| *b != brick);
            group.former.push(brick);
        }
    }

    pub(super) fn set_intent(&mut self, partition: u32, epoch: u32, intent: Intent) -> Outcome {
        let group = self.group_at(partition, epoch)?;
        let replicas = &group.replicas;
        if replicas.intent != Intent::None {
            return Err(format!(
                "partition {partition} has an intent already: {:?}",
                replicas.intent
            ));
        }
        let fits = match intent {
            Intent::None => false,
            Intent::Leave { brick } => replicas.position(brick).is_some(),
            Intent::StepDown { brick } => replicas.position(brick) == Some(0),
        };
        if !fits || replicas.members.len() < 2 {
            return Err(format!("{intent:?} does not fit the group of partition {partition}"));
        }
        let version = self.bump();
        if let Some(group) = self.groups.get_mut(&partition) {
            group.replicas.intent = intent;
            group.changed = version;
        }
        Ok(Applied::Done)
    }

    pub(super) fn withdraw(&mut self, partition: u32, epoch: u32) -> Outcome {
        if self.group_at(partition, epoch)?.replicas.intent == Intent::None {
            return Err(format!("partition {partition} has no intent to withdraw"));
        }
        self.bump();
        self.turn(partition, |_| {});
        Ok(Applied::Done)
    }

    pub(super) fn leave(
        &mut self,
        partition: u32,
        epoch: u32,
        brick: u32,
        incarnation: u64,
    ) -> Outcome {
        self.confirmed(partition, epoch, (brick, incarnation), Intent::Leave { brick })?;
        self.bump();
        let damaged = |k: &super::Kept| k.brick == brick && !k.intact;
        if self.groups.get(&partition).is_some_and(|group| group.kept.iter().any(damaged)) {
            self.note_former(partition, brick);
        }
        self.turn(partition, |g| g.members.retain(|m| m.brick != brick));
        Ok(Applied::Done)
    }

    pub(super) fn step_down(
        &mut self,
        partition: u32,
        epoch: u32,
        from: (u32, u64),
        to: u32,
    ) -> Outcome {
        let brick = from.0;
        self.confirmed(partition, epoch, from, Intent::StepDown { brick })?;
        let group = self.group_at(partition, epoch)?;
        let Some(at) = group.replicas.position(to).filter(|at| *at > 0) else {
            return Err(format!("brick {to} is no backup of partition {partition}"));
        };
        self.bump();
        self.turn(partition, |g| {
            let next = g.members.remove(at);
            let old = g.members.remove(0);
            g.members.insert(0, next);
            g.members.push(old);
        });
        Ok(Applied::Done)
    }

    /// What the member confirmed was asked of it in this epoch, and somebody is left.
    fn confirmed(
        &self,
        partition: u32,
        epoch: u32,
        (brick, incarnation): (u32, u64),
        asked: Intent,
    ) -> Result<(), String> {
        let replicas = &self.group_at(partition, epoch)?.replicas;
        if replicas.intent != asked {
            return Err(format!(
                "partition {partition} asks for {:?}, not for {asked:?}",
                replicas.intent
            ));
        }
        let is_it = |m: &Member| m.is(brick, incarnation);
        if !replicas.members.iter().any(is_it) || replicas.members.len() < 2 {
            return Err(format!("brick {brick} cannot leave the group of partition {partition}"));
        }
        Ok(())
    }

    /// A replica that is not whole counts no more as what may lead, and is asked to leave its group. The last
    /// one stays: it stops when it did not begin its epoch, and else goes on with what is good of it.
    pub(super) fn damaged(
        &mut self,
        partition: u32,
        epoch: u32,
        brick: u32,
        incarnation: u64,
    ) -> Outcome {
        let group = self.group_at(partition, epoch)?;
        let replicas = &group.replicas;
        let is_it = |m: &Member| m.is(brick, incarnation);
        if replicas.learners.iter().any(is_it) {
            return self.drop_learner(partition, epoch, brick);
        }
        if !replicas.members.iter().any(is_it) {
            return Err(format!("brick {brick} is not in the group of partition {partition}"));
        }
        let last = replicas.members.len() < 2;
        if last && replicas.is_active() {
            return Err(format!(
                "partition {partition} has no other replica: the damaged one on brick {brick} is not dropped"
            ));
        }
        if last && group.kept.is_empty() {
            return Err(format!(
                "partition {partition} was never written: nothing of it is missing"
            ));
        }
        let version = self.bump();
        if let Some(group) = self.groups.get_mut(&partition) {
            lose(group, brick);
            if !last && group.replicas.intent == Intent::None {
                group.replicas.intent = Intent::Leave { brick };
                group.changed = version;
            }
        }
        if last {
            // No process: the group has stopped.
            self.turn(partition, |g| g.members.iter_mut().for_each(|m| m.incarnation = 0));
        }
        Ok(Applied::Done)
    }
}
