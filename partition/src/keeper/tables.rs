//! Tables are made and dropped.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::Outcome;
use super::delta::GONE_MAX;
use super::entry::Applied;
use super::state::{Group, Keepers, Table};
use crate::maps::{Member, NAME_BYTES_MAX, REPLICAS_MAX, Replicas, TableOptions, even_leaves};

/// The table that RESP and clients without a table name use.
pub const DEFAULT_TABLE: &str = "default";
/// Tables of one cluster.
pub const TABLES_MAX: usize = 1024;
/// Partitions of one brick, over all tables: each has files open and a disk write in flight.
pub const PARTITIONS_MAX: usize = 4096;

/// Partitions of a table: at least `per_core` on each of all data cores, a power of two in all.
pub fn partitions_for(cores: u32, per_core: u32) -> u32 {
    let all = cores.max(1).saturating_mul(per_core.clamp(1, 64));
    all.min(1 << crate::maps::DEPTH_MAX).next_power_of_two()
}

impl Keepers {
    pub(super) fn create_table(
        &mut self,
        name: &str,
        options: TableOptions,
        placement: &[Vec<(u32, u64)>],
    ) -> Outcome {
        check_name(name)?;
        if self.table_named(name).is_some() {
            return Err(format!(
                "there is a table \"{name}\" already; choose another name, or drop it first"
            ));
        }
        self.check_placement(options, placement)?;
        let count = options.partitions;
        let (id, first) = (self.next_table, self.next_partition);
        let (Some(next_table), Some(next_partition)) =
            (id.checked_add(1), first.checked_add(count))
        else {
            return Err("there are no table or partition ids left".into());
        };
        let leaves = even_leaves(count, first).map_err(|error| error.to_string())?;
        let version = self.bump();
        (self.next_table, self.next_partition) = (next_table, next_partition);
        let mut loads: BTreeMap<u32, Vec<(u16, u32)>> = BTreeMap::new();
        for (n, bricks) in placement.iter().enumerate() {
            let mut members = Vec::with_capacity(bricks.len());
            for (brick, incarnation) in bricks {
                let loads = loads.entry(*brick).or_insert_with(|| self.core_loads(*brick));
                members.push(Member {
                    brick: *brick,
                    core: take_core(loads),
                    incarnation: *incarnation,
                });
            }
            let replicas = Replicas { epoch: 1, members, ..Replicas::default() };
            let group = Group {
                table: id,
                replicas,
                changed: version,
                kept: Vec::new(),
                former: Vec::new(),
                homes: Vec::new(),
                wish: None,
                by_hand: false,
            };
            self.groups.insert(first + n as u32, group);
        }
        let table = Table { id, name: name.to_owned(), options, leaves, changed: version };
        self.tables.insert(id, table);
        Ok(Applied::Created { table: id })
    }

    /// Each partition has members that are there, and nobody gets more than it can hold.
    fn check_placement(
        &self,
        options: TableOptions,
        placement: &[Vec<(u32, u64)>],
    ) -> Result<(), String> {
        let (count, replicas) = (options.partitions, usize::from(options.replicas));
        if replicas == 0 || replicas > REPLICAS_MAX {
            return Err(format!(
                "a table of {replicas} replicas cannot be made: give 1 to {REPLICAS_MAX}"
            ));
        }
        if !count.is_power_of_two() || placement.len() != count as usize {
            return Err(format!("{} groups are named for {count} partitions", placement.len()));
        }
        let mut loads = self.brick_loads();
        for members in placement {
            let bricks: BTreeSet<u32> = members.iter().map(|m| m.0).collect();
            if bricks.is_empty() || bricks.len() != members.len() || bricks.len() > replicas {
                return Err(format!("{members:?} cannot hold a partition of {replicas} replicas"));
            }
            for (brick, incarnation) in members {
                self.brick_at(*brick, *incarnation)?;
                *loads.entry(*brick).or_default() += 1;
            }
        }
        let there = self.brick_loads().into_values().max().unwrap_or(0);
        if self.tables.len() == TABLES_MAX || loads.into_values().any(|n| n > PARTITIONS_MAX) {
            return Err(format!(
                "no room for a table of {count} partitions: {} of {TABLES_MAX} tables and {there} of \
                 {PARTITIONS_MAX} partitions are there; drop a table first",
                self.tables.len()
            ));
        }
        Ok(())
    }

    /// Partitions that each brick holds or copies.
    pub(super) fn brick_loads(&self) -> BTreeMap<u32, usize> {
        let mut loads = BTreeMap::new();
        for group in self.groups.values() {
            for member in group.replicas.members.iter().chain(&group.replicas.learners) {
                *loads.entry(member.brick).or_default() += 1;
            }
        }
        loads
    }

    pub(super) fn drop_table(&mut self, name: &str) -> Outcome {
        let Some(id) = self.table_named(name).map(|table| table.id) else {
            let names: Vec<_> = self.tables.values().map(|table| table.name.as_str()).collect();
            return Err(format!("no table \"{name}\"; the tables are {}", names.join(", ")));
        };
        if name == DEFAULT_TABLE {
            return Err(format!(
                "the table \"{DEFAULT_TABLE}\" cannot be dropped, because the Redis protocol serves it; \
                 empty it with FLUSHALL"
            ));
        }
        let version = self.bump();
        let table = self.tables.remove(&id);
        let mut partitions = Vec::new();
        for leaf in table.iter().flat_map(|table| &table.leaves) {
            let Some(group) = self.groups.remove(&leaf.partition) else { continue };
            let all = group.replicas.members.iter().chain(&group.replicas.learners);
            let bricks = all.map(|m| m.brick).chain(group.kept.iter().map(|k| k.brick));
            let bricks = bricks.chain(group.former).filter(|b| self.bricks.contains_key(b));
            self.dropped.insert(leaf.partition, bricks.collect());
            partitions.push(leaf.partition);
        }
        self.dropped.retain(|_, bricks| !bricks.is_empty());
        self.gone.insert(version, id);
        while self.gone.len() > GONE_MAX {
            self.gone_floor = self.gone.pop_first().map_or(self.gone_floor, |(version, _)| version);
        }
        partitions.sort_unstable();
        Ok(Applied::Dropped { partitions })
    }

    pub(super) fn forgotten(&mut self, brick: u32, partitions: &[u32]) -> Applied {
        for partition in partitions {
            let Some(bricks) = self.dropped.get_mut(partition) else { continue };
            bricks.remove(&brick);
            if bricks.is_empty() {
                self.dropped.remove(partition);
            }
        }
        Applied::Done
    }
}

/// The least loaded core, which then has one more.
fn take_core(loads: &mut [(u16, u32)]) -> u16 {
    let least = loads.iter_mut().min_by_key(|(core, load)| (*load, *core));
    least.map_or(0, |(core, load)| {
        *load += 1;
        *core
    })
}

fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fine) {
        return Err(format!(
            "\"{}\" cannot name a table: give 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'",
            name.chars().take(40).collect::<String>().escape_debug()
        ));
    }
    Ok(())
}
