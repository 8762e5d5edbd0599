//! The client's copy of the maps: fetched whole, then repaired by the answers of bricks.

use firebrick_partition::Route;
use firebrick_partition::maps;

pub(super) use firebrick_partition::hash::hash_key as hash;

use crate::error::{Error, Result};

/// Names a table. Stays valid until the table is dropped; ids are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableId(pub u32);

/// A partition: what a request must carry, and who holds it.
#[derive(Clone, Copy, Debug)]
struct Home {
    route: Route,
    /// The epoch of the members. Behind the route's when an answer repaired that one alone.
    members_epoch: u32,
    first: u32,
    count: u32,
}

#[derive(Debug)]
struct Table {
    id: u32,
    name: String,
    /// By the lowest bits of a hash: index into `homes`. A shallow leaf fills several.
    slots: Vec<u32>,
    mask: u64,
    homes: Vec<Home>,
    /// Brick ids of all groups; the first of each group is its primary.
    members: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    known: bool,
    version: u64,
    /// By id.
    tables: Vec<Table>,
}

/// What a fetched map was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// Older than the one known, and not taken.
    Older,
    /// Of the version that is known.
    Same,
    Newer,
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
        self.get(table.0).into_iter().flat_map(|t| t.homes.iter().map(|h| h.route.partition))
    }

    /// The route of a hash and the bricks of its group, the primary first.
    #[inline]
    pub fn of_hash(&self, table: u32, hash: u64) -> Option<(Route, &[u32])> {
        let t = self.get(table)?;
        let at = t.slots[(hash & t.mask) as usize];
        Some(t.home(&t.homes[at as usize]))
    }

    pub fn of_partition(&self, table: u32, partition: u32) -> Option<(Route, &[u32])> {
        let t = self.get(table)?;
        t.homes.iter().find(|h| h.route.partition == partition).map(|h| t.home(h))
    }

    pub fn table_of(&self, partition: u32) -> Option<u32> {
        let has = |t: &&Table| t.homes.iter().any(|h| h.route.partition == partition);
        self.tables.iter().find(has).map(|t| t.id)
    }

    /// An answer told of a newer epoch, and no map yet who is in it.
    pub fn is_behind(&self) -> bool {
        let mut homes = self.tables.iter().flat_map(|t| &t.homes);
        homes.any(|h| h.members_epoch != h.route.epoch)
    }

    #[inline]
    fn get(&self, id: u32) -> Option<&Table> {
        let at = self.tables.binary_search_by_key(&id, |t| t.id).ok()?;
        self.tables.get(at)
    }

    /// Takes a brick's word for a partition that this map has. `false`: this map does not have it, or knows of a
    /// newer epoch.
    pub fn repair(&mut self, route: Route) -> bool {
        let Ok(at) = self.tables.binary_search_by_key(&route.table, |t| t.id) else { return false };
        let homes = &mut self.tables[at].homes;
        let Some(known) = homes.iter_mut().find(|h| h.route.partition == route.partition) else {
            return false;
        };
        if route.epoch < known.route.epoch {
            return false;
        }
        known.route = route;
        true
    }

    /// Takes a whole map. An older one than is known (from a brick that lags) is not taken; newer
    /// routes learnt from answers are kept.
    pub fn replace(&mut self, map: &maps::Maps) -> Result<Fetched> {
        if self.known && map.version < self.version {
            return Ok(Fetched::Older);
        }
        let checked = maps::Routes::new(map, u32::MAX)
            .map_err(|e| Error::Protocol(format!("its map is damaged: {e}").into()))?;
        let fetched =
            if self.known && map.version == self.version { Fetched::Same } else { Fetched::Newer };
        let mut tables: Vec<Table> = checked.tables().iter().map(Table::new).collect();
        for home in tables.iter_mut().flat_map(|t| &mut t.homes) {
            if let Some((known, _)) = self.of_partition(home.route.table, home.route.partition)
                && known.epoch > home.route.epoch
            {
                home.route = known;
            }
        }
        *self = Self { known: true, version: map.version, tables };
        Ok(fetched)
    }
}

impl Table {
    fn new(table: &maps::RouteTable) -> Self {
        let entries = table.entries();
        let depth = entries.iter().map(|e| e.leaf.depth).max().unwrap_or(0);
        let size = 1usize << depth;
        let mut slots = vec![0; size];
        let mut homes = Vec::with_capacity(entries.len());
        let mut members = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let step = 1usize << entry.leaf.depth;
            for slot in slots.iter_mut().skip(entry.leaf.suffix as usize).step_by(step) {
                *slot = at as u32;
            }
            let first = members.len() as u32;
            members.extend(entry.replicas.members.iter().map(|m| m.brick));
            let count = members.len() as u32 - first;
            let route = entry.route;
            homes.push(Home { route, members_epoch: route.epoch, first, count });
        }
        let (id, name) = (table.id, table.name.clone());
        Self { id, name, slots, mask: size as u64 - 1, homes, members }
    }

    #[inline]
    fn home(&self, home: &Home) -> (Route, &[u32]) {
        let first = home.first as usize;
        (home.route, &self.members[first..first + home.count as usize])
    }
}
