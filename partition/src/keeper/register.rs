//! A process starts to act for a brick: the restart rules.

use super::BRICKS_MAX;
use super::apply::Outcome;
use super::entry::{Applied, Proof, Registration};
use super::state::{Brick, Group, Keepers};
use crate::maps::{Durability, Member, NAME_BYTES_MAX};

impl Keepers {
    pub(super) fn register(
        &mut self,
        new: &Registration,
        replaces: Option<u64>,
        proof: Proof,
    ) -> Outcome {
        check_registration(new)?;
        if let Some(other) = self.brick_named(&new.name).filter(|b| b.identity != new.identity) {
            return Err(format!(
                "there is a brick \"{}\" already (number {}); choose another name",
                new.name, other.id
            ));
        }
        let Some(old) = self.brick_of(new.identity).cloned() else {
            return self.join(new);
        };
        if old.incarnation == new.incarnation {
            return Ok(Applied::Registered { brick: old.id, stopped: Vec::new() });
        }
        if replaces != Some(old.incarnation) {
            return Err(format!(
                "brick \"{}\" is process {:x} now, this was decided when it was {:x}; register again",
                old.name,
                old.incarnation,
                replaces.unwrap_or(0)
            ));
        }
        match proof {
            Proof::LeaseEnded if !self.endless => {}
            Proof::SameLock if has_lock_of(new, &old) => {}
            Proof::OwnKeeper if self.endless => {}
            _ => {
                return Err(format!(
                    "nothing says that process {:x} of brick \"{}\" has ended ({proof:?} does not)",
                    old.incarnation, old.name
                ));
            }
        }
        self.check_epochs(old.id)?;
        Ok(Applied::Registered { brick: old.id, stopped: self.restart(&old, new) })
    }

    /// A brick that was never here.
    fn join(&mut self, new: &Registration) -> Outcome {
        if self.endless && !self.bricks.is_empty() {
            return Err("the only brick still holds a lease without end; register again".into());
        }
        if self.bricks.len() == BRICKS_MAX {
            return Err(format!(
                "there are {BRICKS_MAX} bricks, and more cannot be; remove one first"
            ));
        }
        let id = self.next_brick;
        self.next_brick = id.checked_add(1).ok_or("there are no brick ids left")?;
        let version = self.bump();
        self.bricks.insert(id, brick_from(new, id, false));
        self.bricks_changed = version;
        self.forget_hands();
        if self.voters.is_empty() {
            self.voters.push(id);
        }
        Ok(Applied::Registered { brick: id, stopped: Vec::new() })
    }

    /// A known brick's new process: every group of the brick changes.
    fn restart(&mut self, old: &Brick, new: &Registration) -> Vec<u32> {
        let (id, version) = (old.id, self.bump());
        self.bricks.insert(id, brick_from(new, id, old.draining));
        self.bricks_changed = version;
        // Nothing of the old process counts, and while it is alone nobody else's does either.
        self.endless = self.bricks.len() == 1;
        let mut stopped = Vec::new();
        let partitions: Vec<u32> = self.groups.keys().copied().collect();
        for partition in partitions {
            let whole = self.is_whole(partition, old, new);
            let Some(group) = self.groups.get_mut(&partition) else { continue };
            // A member that is a process from before the last one has stopped: it came back without what it had.
            let is_old = |m: &Member| m.brick != id || m.incarnation == old.incarnation;
            let whole = whole && group.replicas.members.iter().all(is_old);
            if !whole {
                lose(group, id);
            }
            let is_member = group.replicas.position(id).is_some();
            let is_learner = group.replicas.learners.iter().any(|m| m.brick == id);
            if is_member && !whole {
                if group.replicas.members.len() < 2 {
                    stopped.push(partition);
                } else {
                    group.former.push(id);
                    self.turn(partition, |g| g.members.retain(|m| m.brick != id));
                }
            } else if is_member || is_learner {
                self.turn(partition, |g| {
                    let ours = g.members.iter_mut().chain(&mut g.learners);
                    ours.filter(|m| m.brick == id).for_each(|m| m.incarnation = new.incarnation);
                });
            }
        }
        if old.cores != new.cores {
            self.spread_over_cores(id, new.incarnation, new.cores);
        }
        stopped
    }

    /// What the brick had of the partition when it was last heard is there.
    fn is_whole(&self, partition: u32, old: &Brick, new: &Registration) -> bool {
        let Some(group) = self.groups.get(&partition) else { return false };
        if group.kept.is_empty() {
            return true; // Nothing was ever committed: nothing can be missing.
        }
        let durability = self.tables.get(&group.table).map(|table| table.options.durability);
        let on_disk = match durability {
            Some(Durability::Sync) => new.disk_intact,
            Some(Durability::Async { .. }) => new.flushed != 0 && new.flushed == old.incarnation,
            Some(Durability::Memory) | None => false,
        };
        // (What a scan finds later, the replica reports before it votes or serves.)
        new.memory_intact || on_disk
    }

    /// Another number of data cores: the brick's partitions take turns on those there are.
    fn spread_over_cores(&mut self, brick: u32, incarnation: u64, cores: u16) {
        let mut next = 0u16;
        for group in self.groups.values_mut() {
            let replicas = &mut group.replicas;
            // (A stopped group keeps the process that is over, and is left alone.)
            for member in replicas.members.iter_mut().chain(&mut replicas.learners) {
                if member.is(brick, incarnation) {
                    member.core = next;
                    next = (next + 1) % cores;
                }
            }
        }
    }

    pub(super) fn finite(&mut self, brick: u32, incarnation: u64) -> Outcome {
        self.brick_at(brick, incarnation)?;
        self.endless = false;
        Ok(Applied::Done)
    }

    /// Every group of a brick can have one more epoch.
    pub(super) fn check_epochs(&self, brick: u32) -> Result<(), String> {
        let last = |(_, g): &(&u32, &Group)| {
            g.replicas.epoch == u32::MAX && g.replicas.position(brick).is_some()
        };
        match self.groups.iter().find(last) {
            Some((partition, _)) => {
                Err(format!("partition {partition} is in the last epoch there is"))
            }
            None => Ok(()),
        }
    }
}

/// The brick has lost what it held of this group's last active epoch.
pub(super) fn lose(group: &mut Group, brick: u32) {
    for kept in group.kept.iter_mut().filter(|kept| kept.brick == brick) {
        kept.intact = false;
    }
}

/// The lock that `old` held is held by `new`, so `old` is over. (What an earlier process than `old` asked may come after
/// what `old` did, from a keeper that stood still.)
pub(super) fn has_lock_of(new: &Registration, old: &Brick) -> bool {
    old.boot == new.boot && old.lock == new.lock && old.started_ns <= new.started_ns
}

fn brick_from(new: &Registration, id: u32, draining: bool) -> Brick {
    Brick {
        id,
        identity: new.identity,
        name: new.name.clone(),
        incarnation: new.incarnation,
        boot: new.boot.clone(),
        lock: new.lock,
        started_ns: new.started_ns,
        cores: new.cores,
        memory_bytes: new.memory_bytes,
        host: new.host.clone(),
        rack: new.rack.clone(),
        listen: new.listen.clone(),
        control: new.control.clone(),
        resp: new.resp.clone(),
        http: new.http.clone(),
        draining,
    }
}

fn check_registration(new: &Registration) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX || !new.name.chars().all(fine) {
        return Err(format!(
            "\"{}\" cannot name a brick: give 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'",
            new.name.chars().take(40).collect::<String>().escape_debug()
        ));
    }
    if new.incarnation == 0 || new.cores == 0 {
        return Err(format!(
            "brick \"{}\" registers as process {:x} with {} data cores; both must be above 0",
            new.name, new.incarnation, new.cores
        ));
    }
    let long = [&new.boot, &new.host, &new.rack, &new.listen, &new.control, &new.resp, &new.http];
    if let Some(long) = long.into_iter().find(|text| text.len() > 256) {
        return Err(format!(
            "brick \"{}\" names something of {} bytes (\"{}...\"); 256 are the most",
            new.name,
            long.len(),
            long.chars().take(40).collect::<String>().escape_debug()
        ));
    }
    Ok(())
}
