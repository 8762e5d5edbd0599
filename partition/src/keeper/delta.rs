//! The maps, whole and as changes since a version.

use super::state::{Brick, Keepers, Table};
use crate::maps::{BrickEntry, GroupDelta, MapDelta, Maps, RgMap, TableMap};

/// Drops of tables that are remembered one by one.
pub(super) const GONE_MAX: usize = 1024;

impl Keepers {
    /// All maps.
    pub fn maps(&self) -> Maps {
        Maps { version: self.version, tables: self.table_maps(0), bricks: self.brick_entries() }
    }

    /// What changed since a version that a brick or a client has (0: it has none).
    pub fn changes_since(&self, since: u64) -> MapDelta {
        if since == self.version && since > 0 {
            return MapDelta::nothing(since);
        }
        if since == 0 || since < self.gone_floor || since > self.version {
            return MapDelta::whole(self.maps());
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
