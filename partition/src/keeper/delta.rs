//! The maps, whole and as changes since a version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::state::{Brick, Keepers, Table};
use crate::maps::{BrickEntry, Maps, Replicas, RgMap, TableMap};

/// Drops of tables that are remembered one by one.
pub(super) const GONE_MAX: usize = 1024;

/// A group that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDelta {
    /// Its table.
    pub table: u32,
    /// The partition.
    pub partition: u32,
    /// As it is now.
    pub replicas: Replicas,
}

/// What changed between two versions of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDelta {
    /// What it is to be applied to; `None`: to nothing, these are all maps.
    pub since: Option<u64>,
    /// What comes of it.
    pub version: u64,
    /// Tables that are new, whole.
    pub tables: Vec<TableMap>,
    /// Groups that changed in other tables.
    pub groups: Vec<GroupDelta>,
    /// Tables that are gone.
    pub dropped: Vec<u32>,
    /// All bricks, when any changed.
    pub bricks: Option<Vec<BrickEntry>>,
}

impl MapDelta {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.since == Some(self.version)
    }

    /// Brings maps up to date. Maps that are newer than what this leads to stay as they are.
    pub fn apply_to(&self, maps: &mut Maps) -> Result<(), String> {
        let Some(since) = self.since else {
            if self.version >= maps.version {
                let bricks = self.bricks.clone().unwrap_or_default();
                *maps = Maps { version: self.version, tables: self.tables.clone(), bricks };
            }
            return Ok(());
        };
        if since > maps.version {
            return Err(format!(
                "changes since version {since} do not fit maps of version {}: fetch the maps again",
                maps.version
            ));
        }
        if self.version <= maps.version {
            return Ok(());
        }
        let at: BTreeMap<u32, usize> =
            maps.tables.iter().enumerate().map(|(at, table)| (table.id, at)).collect();
        for group in &self.groups {
            let Some(table) = at.get(&group.table).map(|at| &mut maps.tables[*at]) else {
                return Err(format!(
                    "the maps of version {} lack table {}: fetch the maps again",
                    maps.version, group.table
                ));
            };
            table.groups.set(group.partition, group.replicas.clone());
        }
        let replaced =
            |id: u32| self.dropped.contains(&id) || self.tables.iter().any(|t| t.id == id);
        maps.tables.retain(|table| !replaced(table.id));
        maps.tables.extend(self.tables.iter().cloned());
        maps.tables.sort_by_key(|table| table.id);
        if let Some(bricks) = &self.bricks {
            maps.bricks.clone_from(bricks);
        }
        maps.version = self.version;
        Ok(())
    }
}

impl Keepers {
    /// All maps.
    pub fn maps(&self) -> Maps {
        Maps { version: self.version, tables: self.table_maps(0), bricks: self.brick_entries() }
    }

    /// What changed since a version that a brick or a client has (0: it has none).
    pub fn changes_since(&self, since: u64) -> MapDelta {
        if since == self.version && since > 0 {
            return MapDelta { since: Some(since), version: since, ..MapDelta::default() };
        }
        if since == 0 || since < self.gone_floor || since > self.version {
            let Maps { version, tables, bricks } = self.maps();
            return MapDelta { version, tables, bricks: Some(bricks), ..MapDelta::default() };
        }
        let old = |id: u32| self.tables.get(&id).is_some_and(|table| table.changed <= since);
        let changed = self.groups.iter().filter(|(_, g)| g.changed > since && old(g.table));
        let groups = changed.map(|(partition, group)| GroupDelta {
            table: group.table,
            partition: *partition,
            replicas: group.replicas.clone(),
        });
        MapDelta {
            since: Some(since),
            version: self.version,
            tables: self.table_maps(since),
            groups: groups.collect(),
            dropped: self.gone.range(since + 1..).map(|(_, table)| *table).collect(),
            bricks: (self.bricks_changed > since).then(|| self.brick_entries()),
        }
    }

    /// The tables that changed since, with their groups.
    fn table_maps(&self, since: u64) -> Vec<TableMap> {
        let changed = self.tables.values().filter(|table| table.changed > since);
        changed.map(|table| self.table_map(table)).collect()
    }

    pub(super) fn table_map(&self, table: &Table) -> TableMap {
        let mut groups = RgMap::default();
        let mut ids: Vec<u32> = table.leaves.iter().map(|leaf| leaf.partition).collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(group) = self.groups.get(&id) {
                groups.set(id, group.replicas.clone());
            }
        }
        let (id, name, options) = (table.id, table.name.clone(), table.options);
        TableMap { id, name, options, leaves: table.leaves.clone(), groups }
    }

    fn brick_entries(&self) -> Vec<BrickEntry> {
        self.bricks.values().map(Brick::to_entry).collect()
    }
}

impl Brick {
    fn to_entry(&self) -> BrickEntry {
        BrickEntry {
            id: self.id,
            name: self.name.clone(),
            incarnation: self.incarnation,
            listen: self.listen.clone(),
            control: self.control.clone(),
            resp: self.resp.clone(),
            http: self.http.clone(),
        }
    }
}
