//! The client's copy of the maps: fetched whole, then what changed, and repaired by the answers of bricks.

use firebrick_partition::Route;
use firebrick_partition::maps::{self, MapDelta, Maps};
use firebrick_partition::wire::Known;

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
    /// Whose maps these are; 0: nobody's.
    cluster: u64,
    /// As they were fetched: what changes are applied to.
    maps: Maps,
    /// By id.
    tables: Vec<Table>,
    /// (partition id, index into `tables`, index into `homes` there), by partition id.
    partitions: Vec<(u32, u32, u32)>,
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
        let (t, home) = self.find(partition)?;
        let t = &self.tables[t];
        (t.id == table).then(|| t.home(&t.homes[home]))
    }

    pub fn table_of(&self, partition: u32) -> Option<u32> {
        let (t, _) = self.find(partition)?;
        Some(self.tables[t].id)
    }

    /// A partition's table and home.
    fn find(&self, partition: u32) -> Option<(usize, usize)> {
        let at = self.partitions.binary_search_by_key(&partition, |p| p.0).ok()?;
        let (_, table, home) = self.partitions[at];
        Some((table as usize, home as usize))
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
        let Some((table, home)) = self.find(route.partition) else { return false };
        let table = &mut self.tables[table];
        let known = &mut table.homes[home];
        if table.id != route.table || route.epoch < known.route.epoch {
            return false;
        }
        known.route = route;
        true
    }

    /// What to ask changes since.
    pub fn known(&self) -> Known {
        Known { cluster: self.cluster, version: self.maps.version }
    }

    /// All bricks of the map.
    pub fn bricks(&self) -> &[maps::BrickEntry] {
        &self.maps.bricks
    }

    /// Takes what changed in the map, or all of it. What is older than the map known (from a brick that lags) is not
    /// taken; newer routes learnt from answers are kept. After an error nothing is known any more.
    pub fn take(&mut self, cluster: u64, changes: &MapDelta) -> Result<Fetched> {
        if cluster != self.cluster {
            if changes.since.is_some() {
                // Asked for when another cluster's brick had this address.
                return Ok(Fetched::Older);
            }
            *self = Self { cluster, ..Self::default() };
        }
        let before = self.maps.version;
        if self.known && changes.version <= before {
            return Ok(if changes.version == before { Fetched::Same } else { Fetched::Older });
        }
        let taken = changes.apply_to(&mut self.maps).and_then(|()| {
            maps::Routes::new(&self.maps, u32::MAX).map_err(|e| format!("its map is damaged: {e}"))
        });
        let checked = taken.map_err(|why| {
            self.cluster = 0;
            self.maps = Maps::default();
            Error::Protocol(why.into())
        })?;
        let mut tables: Vec<Table> = checked.tables().iter().map(Table::new).collect();
        for home in tables.iter_mut().flat_map(|t| &mut t.homes) {
            if let Some((known, _)) = self.of_partition(home.route.table, home.route.partition)
                && known.epoch > home.route.epoch
            {
                home.route = known;
            }
        }
        (self.known, self.tables, self.partitions) = (true, tables, checked.index().to_vec());
        Ok(Fetched::Newer)
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

#[cfg(test)]
mod tests {
    use firebrick_partition::maps::{Durability, GroupDelta, TableMap, TableOptions};
    use firebrick_partition::wire::{self, Message};

    use super::*;

    fn maps(version: u64, partitions: u32) -> Maps {
        let options = TableOptions { durability: Durability::Memory, partitions, replicas: 3 };
        let table = TableMap::on_one_brick(1, "default", options, 1, 1, 1, 1).unwrap();
        Maps { version, tables: vec![table], bricks: Vec::new() }
    }

    /// One group of epoch `epoch`.
    fn change(since: u64, epoch: u32) -> MapDelta {
        let Maps { tables, .. } = maps(1, 4);
        let (partition, replicas) = tables[0].groups.iter().next().unwrap();
        let replicas = maps::Replicas { epoch, ..replicas.clone() };
        let groups = vec![GroupDelta { table: 1, partition, replicas }];
        MapDelta { since: Some(since), version: since + 1, groups, ..MapDelta::default() }
    }

    fn bytes_of(changes: &MapDelta) -> usize {
        let mut out = Vec::new();
        wire::map(&mut out, 1, 7, changes.clone());
        let Ok(Message::Map { maps, .. }) = wire::decode(&out) else { panic!("no map") };
        assert_eq!(maps.to_changes().as_ref(), Ok(changes));
        out.len()
    }

    #[test]
    fn one_change_is_a_few_bytes_of_a_large_map() {
        let (whole, one) = (bytes_of(&MapDelta::whole(maps(1, 4096))), bytes_of(&change(1, 9)));
        assert!(one < 300 && whole > 100_000, "{one} of {whole} bytes");
    }

    #[test]
    fn changes_are_taken_and_old_maps_are_not() {
        let mut routes = Routes::default();
        assert_eq!(routes.take(7, &MapDelta::whole(maps(5, 4))).unwrap(), Fetched::Newer);
        assert_eq!(routes.take(7, &change(5, 9)).unwrap(), Fetched::Newer);
        assert_eq!(routes.known(), Known { cluster: 7, version: 6 });
        assert_eq!(routes.of_partition(1, 1).unwrap().0.epoch, 9);
        assert_eq!(routes.take(7, &change(5, 8)).unwrap(), Fetched::Same);
        assert_eq!(routes.take(7, &MapDelta::whole(maps(5, 4))).unwrap(), Fetched::Older);
        assert_eq!(routes.of_partition(1, 1).unwrap().0.epoch, 9);
    }

    #[test]
    fn another_cluster_begins_anew_whatever_its_version() {
        let mut routes = Routes::default();
        routes.take(7, &MapDelta::whole(maps(5, 4))).unwrap();
        routes.take(7, &change(5, 9)).unwrap();
        assert_eq!(routes.take(8, &MapDelta::whole(maps(2, 4))).unwrap(), Fetched::Newer);
        assert_eq!(routes.known(), Known { cluster: 8, version: 2 });
        assert_eq!(routes.of_partition(1, 1).unwrap().0.epoch, 1, "the other's is forgotten");
        assert_eq!(routes.take(7, &change(6, 10)).unwrap(), Fetched::Older, "asked for before");
        assert_eq!(routes.of_partition(1, 1).unwrap().0.epoch, 1);
    }

    #[test]
    fn after_changes_that_do_not_fit_all_is_asked_for() {
        let no_such_table = |mut changes: MapDelta| {
            changes.groups[0].table = 2;
            changes
        };
        let no_such_partition = |mut changes: MapDelta| {
            changes.groups[0].partition = 77;
            changes
        };
        for bad in [change(8, 9), no_such_table(change(5, 9)), no_such_partition(change(5, 9))] {
            let mut routes = Routes::default();
            routes.take(7, &MapDelta::whole(maps(5, 4))).unwrap();
            assert!(routes.take(7, &bad).is_err(), "{bad:?}");
            assert_eq!(routes.known(), Known::default());
            assert!(routes.of_hash(1, 5).is_some(), "what was known serves meanwhile");
            assert_eq!(routes.take(7, &MapDelta::whole(maps(5, 4))).unwrap(), Fetched::Newer);
        }
    }

    #[test]
    fn a_partition_is_found_in_its_table_and_what_an_answer_told_outlives_a_map() {
        let options = TableOptions { durability: Durability::Memory, partitions: 4, replicas: 3 };
        let table = TableMap::on_one_brick(2, "other", options, 51, 1, 1, 1).unwrap();
        let mut both = maps(5, 4);
        both.tables.insert(0, table);
        let mut routes = Routes::default();
        routes.take(7, &MapDelta::whole(both)).unwrap();
        let (told, _) = routes.of_partition(2, 53).unwrap();
        assert_eq!((told.table, told.partition, routes.table_of(53)), (2, 53, Some(2)));
        assert!(routes.of_partition(1, 53).is_none() && routes.table_of(60).is_none());
        assert!(!routes.repair(Route { table: 1, epoch: 9, ..told }), "not in that table");
        assert!(!routes.repair(Route { partition: 60, ..told }));
        assert!(routes.repair(Route { epoch: 9, ..told }) && !routes.repair(told));
        assert_eq!(routes.take(7, &change(5, 3)).unwrap(), Fetched::Newer);
        let epoch = |partition| routes.of_partition(2, partition).unwrap().0.epoch;
        assert_eq!((epoch(52), epoch(53), epoch(54)), (1, 9, 1));
        assert!(routes.is_behind(), "who is in that epoch no map has told");
    }
}
