//! What holds of the state at all times.

use std::collections::BTreeSet;

use super::KEEPERS_MAX;
use super::state::{Group, Keepers, Table};
use crate::maps::{DpMap, Intent, Leaf, MapError, NAME_BYTES_MAX, REPLICAS_MAX};

impl Keepers {
    /// Whether the state agrees with itself: what a checksum of a snapshot does not tell.
    pub fn check(&self) -> Result<(), String> {
        self.settings.check()?;
        self.check_bricks()?;
        let (mut names, mut leaves) = (BTreeSet::new(), 0);
        for (id, table) in &self.tables {
            if *id != table.id || *id >= self.next_table {
                return Err(format!("table \"{}\" has an id that was never given", table.name));
            }
            if !names.insert(&table.name) {
                return Err(format!("two tables are named \"{}\"", table.name));
            }
            self.check_table(table)?;
            leaves += table.leaves.len();
        }
        // (Each leaf has a group that names its table.)
        if leaves != self.groups.len() {
            return Err(format!("{leaves} leaves have {} groups", self.groups.len()));
        }
        for (partition, group) in &self.groups {
            self.check_group(*partition, group)?;
        }
        match self.dropped.keys().find(|partition| self.groups.contains_key(partition)) {
            Some(partition) => Err(format!("partition {partition} is both a table's and dropped")),
            None => Ok(()),
        }
    }

    fn check_table(&self, table: &Table) -> Result<(), String> {
        let bad = |what: &dyn std::fmt::Display| Err(format!("\"{}\": {what}", table.name));
        if table.name.is_empty() || table.name.len() > NAME_BYTES_MAX {
            return bad(&MapError::Name(table.name.len()));
        }
        if let Err(error) = DpMap::from_leaves(&table.leaves) {
            return bad(&error);
        }
        for Leaf { partition, .. } in &table.leaves {
            let group = self.groups.get(partition).filter(|group| group.table == table.id);
            let Some(group) = group else { return bad(&MapError::NoGroup(*partition)) };
            if *partition >= self.next_partition {
                return bad(&format!("partition {partition} was never given"));
            }
            let members = group.replicas.members.len();
            if !(1..=REPLICAS_MAX).contains(&members) {
                return bad(&MapError::Members(*partition, members));
            }
        }
        Ok(())
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
