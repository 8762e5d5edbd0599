//! The client's copy of the maps: fetched whole, then repaired by the answers of bricks.

use firebrick_partition::Route;
use firebrick_partition::maps;

pub(super) use firebrick_partition::hash::hash_key as hash;

use crate::error::{Error, Result};

/// Names a table. Stays valid until the table is dropped; ids are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableId(pub u32);

#[derive(Debug)]
struct Table {
    id: u32,
    name: String,
    /// By the lowest bits of a hash: index into `routes`. A shallow leaf fills several.
    slots: Vec<u32>,
    mask: u64,
    routes: Vec<Route>,
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    known: bool,
    version: u64,
    /// By id.
    tables: Vec<Table>,
}

impl Routes {
    /// A map was fetched, so what is not in it does not exist.
    pub fn knows_all(&self) -> bool {
        self.known
    }

    pub fn table(&self, name: &str) -> Option<TableId> {
        self.tables.iter().find(|t| t.name == name).map(|t| TableId(t.id))
    }

    /// What to call a table in an error.
    pub fn name(&self, id: u32) -> std::sync::Arc<str> {
        self.get(id).map_or_else(|| format!("with id {id}").into(), |t| t.name.as_str().into())
    }

    pub fn partitions(&self, table: TableId) -> impl Iterator<Item = u32> + '_ {
        self.get(table.0).into_iter().flat_map(|t| t.routes.iter().map(|r| r.partition))
    }

    pub fn of_hash(&self, table: u32, hash: u64) -> Option<Route> {
        let t = self.get(table)?;
        let at = t.slots[(hash & t.mask) as usize];
        Some(t.routes[at as usize])
    }

    pub fn of_partition(&self, table: u32, partition: u32) -> Option<Route> {
        self.get(table)?.routes.iter().find(|r| r.partition == partition).copied()
    }

    pub fn table_of(&self, partition: u32) -> Option<u32> {
        let has = |t: &&Table| t.routes.iter().any(|r| r.partition == partition);
        self.tables.iter().find(has).map(|t| t.id)
    }

    fn get(&self, id: u32) -> Option<&Table> {
        let at = self.tables.binary_search_by_key(&id, |t| t.id).ok()?;
        self.tables.get(at)
    }

    /// Takes a brick's word for a partition that this map has. `false` when it says nothing new.
    pub fn repair(&mut self, route: Route) -> bool {
        let Ok(at) = self.tables.binary_search_by_key(&route.table, |t| t.id) else { return false };
        let routes = &mut self.tables[at].routes;
        let Some(known) = routes.iter_mut().find(|r| r.partition == route.partition) else {
            return false;
        };
        if *known == route || route.epoch < known.epoch {
            return false;
        }
        *known = route;
        true
    }

    /// Takes a whole map. An older one than is known (from a brick that lags) is not taken; newer
    /// routes learnt from answers are kept.
    pub fn replace(&mut self, map: &maps::Maps) -> Result<()> {
        if self.known && map.version < self.version {
            return Ok(());
        }
        let checked = maps::Routes::new(map, u32::MAX)
            .map_err(|e| Error::Protocol(format!("its map is damaged: {e}").into()))?;
        let mut tables: Vec<Table> = checked.tables().iter().map(Table::new).collect();
        for route in tables.iter_mut().flat_map(|t| &mut t.routes) {
            if let Some(known) = self.of_partition(route.table, route.partition)
                && known.epoch > route.epoch
            {
                *route = known;
            }
        }
        *self = Self { known: true, version: map.version, tables };
        Ok(())
    }
}

impl Table {
    fn new(table: &maps::RouteTable) -> Self {
        let entries = table.entries();
        let depth = entries.iter().map(|e| e.leaf.depth).max().unwrap_or(0);
        let size = 1usize << depth;
        let mut slots = vec![0; size];
        for (at, entry) in entries.iter().enumerate() {
            let step = 1usize << entry.leaf.depth;
            for slot in slots.iter_mut().skip(entry.leaf.suffix as usize).step_by(step) {
                *slot = at as u32;
            }
        }
        Self {
            id: table.id,
            name: table.name.clone(),
            slots,
            mask: size as u64 - 1,
            routes: entries.iter().map(|e| e.route).collect(),
        }
    }
}
