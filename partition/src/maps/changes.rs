//! Changes of the maps since a version: what keepers tell bricks, and bricks their clients.

use std::collections::BTreeMap;

use rkyv::{Archive, Deserialize, Serialize};

use super::routes::Routes;
use super::table::{BrickEntry, Maps, Replicas, TableMap};

/// A group that changed.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct GroupDelta {
    /// Its table.
    pub table: u32,
    /// The partition.
    pub partition: u32,
    /// As it is now.
    pub replicas: Replicas,
}

/// What changed between two versions of the maps.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
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
    /// All maps, for somebody who has none.
    pub fn whole(maps: Maps) -> Self {
        let Maps { version, tables, bricks } = maps;
        Self { version, tables, bricks: Some(bricks), ..Self::default() }
    }

    /// For somebody who has this version already.
    pub fn nothing(version: u64) -> Self {
        Self { since: Some(version), version, ..Self::default() }
    }

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
            if table.groups.get(group.partition).is_none() {
                return Err(format!(
                    "table {} has no partition {}: fetch the maps again",
                    group.table, group.partition
                ));
            }
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

impl Routes {
    /// What changed since a version of the same cluster's maps that a client has (0: it has none). Nothing, when it
    /// has newer ones than this brick.
    pub fn changes_since(&self, since: u64) -> MapDelta {
        let version = self.version();
        if since >= version && since > 0 {
            return MapDelta::nothing(since);
        }
        if since == 0 || since < self.floor {
            return MapDelta::whole(self.to_maps());
        }
        let (old, new): (Vec<_>, Vec<_>) = self.tables().iter().partition(|t| t.changed() <= since);
        let changed = old.iter().flat_map(|t| t.entries()).filter(|e| e.changed > since);
        let groups = changed.map(|entry| GroupDelta {
            table: entry.route.table,
            partition: entry.route.partition,
            replicas: entry.replicas.clone(),
        });
        let gone = self.gone.iter().filter(|(version, _)| *version > since);
        MapDelta {
            since: Some(since),
            version,
            tables: new.iter().map(|t| t.to_map()).collect(),
            groups: groups.collect(),
            dropped: gone.map(|(_, table)| *table).collect(),
            bricks: (self.bricks_changed > since).then(|| self.bricks().to_vec()),
        }
    }
}
