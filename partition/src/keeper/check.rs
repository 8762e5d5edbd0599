//! What holds of the state at all times.

use std::collections::BTreeSet;

use super::KEEPERS_MAX;
use super::state::{Group, Keepers};
use crate::maps::Intent;

impl Keepers {
    /// Whether the state agrees with itself: what a checksum of a snapshot does not tell.
    pub fn check(&self) -> Result<(), String> {
        self.settings.check()?;
        self.check_bricks()?;
        let mut leaves = BTreeSet::new();
        for (id, table) in &self.tables {
            if *id != table.id || *id >= self.next_table {
                return Err(format!("table \"{}\" has an id that was never given", table.name));
            }
            if self.tables.values().any(|other| other.id != *id && other.name == table.name) {
                return Err(format!("two tables are named \"{}\"", table.name));
            }
            self.table_map(table)
                .check()
                .map_err(|error| format!("\"{}\": {error}", table.name))?;
            for leaf in &table.leaves {
                if !leaves.insert(leaf.partition) {
                    return Err(format!("two tables share partition {}", leaf.partition));
                }
            }
        }
        for (partition, group) in &self.groups {
            if *partition >= self.next_partition || !leaves.contains(partition) {
                return Err(format!("partition {partition} is in no table, or was never given"));
            }
            self.check_group(*partition, group)?;
        }
        match self.dropped.keys().find(|partition| leaves.contains(partition)) {
            Some(partition) => Err(format!("partition {partition} is both a table's and dropped")),
            None => Ok(()),
        }
    }

    fn check_bricks(&self) -> Result<(), String> {
        for (id, brick) in &self.bricks {
            if *id != brick.id || *id >= self.next_brick || brick.incarnation == 0 {
                return Err(format!("brick {id} was never given, or has no process"));
            }
            let same = |b: &&super::Brick| {
                b.id != *id && (b.name == brick.name || b.identity == brick.identity)
            };
            if let Some(other) = self.bricks.values().find(same) {
                return Err(format!("bricks {id} and {} share a name or an identity", other.id));
            }
        }
        if self.endless && self.bricks.len() > 1 {
            return Err("one of several bricks may hold a lease without end".into());
        }
        let unknown = self.voters.iter().any(|brick| !self.bricks.contains_key(brick));
        if unknown || self.voters.len() > KEEPERS_MAX {
            return Err(format!("the keepers cannot be {:?}", self.voters));
        }
        Ok(())
    }

    fn check_group(&self, partition: u32, group: &Group) -> Result<(), String> {
        let replicas = &group.replicas;
        let bad = |what: &str| Err(format!("partition {partition} {what}: {replicas:?}"));
        let all: Vec<_> = replicas.members.iter().chain(&replicas.learners).collect();
        if (1..all.len()).any(|at| all[..at].iter().any(|m| m.brick == all[at].brick)) {
            return bad("names a brick twice");
        }
        if all.iter().any(|m| !self.bricks.contains_key(&m.brick)) {
            return bad("names a brick that is not there");
        }
        if replicas.epoch == 0 || replicas.active > replicas.epoch || replicas.learners.len() > 1 {
            return bad("cannot be in this epoch");
        }
        if replicas.active > 0 && group.kept.is_empty() {
            return bad("was active without members");
        }
        // A process that is over is named only where the group has stopped.
        let stale = |m: &crate::maps::Member| !self.is_current(m.brick, m.incarnation);
        let over = replicas.members.iter().any(stale) && replicas.members.len() > 1;
        if over || replicas.learners.iter().any(stale) {
            return bad("names a process that is over");
        }
        let fits = match replicas.intent {
            Intent::None => true,
            Intent::Leave { brick } => replicas.position(brick).is_some() && all.len() > 1,
            Intent::StepDown { brick } => replicas.position(brick) == Some(0) && all.len() > 1,
        };
        if fits { Ok(()) } else { bad("asks somebody who is not there") }
    }
}
