//! All routes of a brick, ready to be looked up: what a data core holds by `Arc`.

use super::changes::MapDelta;
use super::dp::{DpMap, Leaf};
use super::durability::Durability;
use super::table::{
    BrickEntry, MapError, Maps, Replicas, RgMap, TableMap, TableOptions, fingerprint,
};
use crate::op::Route;

/// Tables that went, remembered one by one.
pub(super) const GONE_MAX: usize = 64;

/// One partition as requests find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// What a request must carry.
    pub route: Route,
    /// The trie's leaf.
    pub leaf: Leaf,
    /// The replica group.
    pub replicas: Replicas,
    /// Where this brick is in the group; `None`: it is not. 0 is the primary.
    pub mine: Option<u8>,
    /// This brick is a member or a learner: the partition has a replica here.
    pub here: bool,
    /// The data core of this brick that owns the partition, or else the primary's on its own brick.
    pub core: u16,
    /// No map older than this is known to have the same group. See [`Routes::after`].
    pub changed: u64,
}

/// What a request's route is, against the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteCheck {
    /// Serve it.
    Current,
    /// The sender's map is older: here is the current route.
    Older(Route),
    /// This brick's map is older: fetch it first.
    Newer,
    /// No such partition in this map.
    Unknown,
}

/// A table's routes.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// Table id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: TableOptions,
    /// By the lowest `depth` bits of a hash: index into `entries`. A shallow leaf fills several.
    slots: Vec<u32>,
    mask: u64,
    /// In SCAN's order.
    entries: Vec<RouteEntry>,
    /// As an entry's, for all of the table but its groups.
    changed: u64,
}

impl RouteTable {
    /// From a checked map, as `brick` sees it.
    pub fn new(map: &TableMap, brick: u32) -> Result<Self, MapError> {
        map.check()?;
        let dp = DpMap::from_leaves(&map.leaves)?;
        let mut entries = Vec::with_capacity(map.leaves.len());
        for leaf in dp.leaves() {
            let partition = leaf.partition;
            let replicas = map.groups.get(partition).ok_or(MapError::NoGroup(partition))?.clone();
            let mine = replicas.position(brick);
            let own = replicas.of(brick);
            let core = own.unwrap_or(replicas.members[0]).core;
            let fingerprint = fingerprint(map.id, leaf, &replicas);
            let route = Route { table: map.id, partition, epoch: replicas.epoch, fingerprint };
            entries.push(RouteEntry {
                route,
                leaf: *leaf,
                replicas,
                mine: mine.map(|at| at as u8),
                here: own.is_some(),
                core,
                changed: 0,
            });
        }
        let size = 1u64 << dp.depth();
        let mut slots = vec![0; size as usize];
        for (at, entry) in entries.iter().enumerate() {
            let step = 1usize << entry.leaf.depth;
            for slot in slots.iter_mut().skip(entry.leaf.suffix as usize).step_by(step) {
                *slot = at as u32;
            }
        }
        let (id, name, options) = (map.id, map.name.clone(), map.options);
        Ok(Self { id, name, options, slots, mask: size - 1, entries, changed: 0 })
    }

    pub(super) fn to_map(&self) -> TableMap {
        let leaves = self.entries.iter().map(|e| e.leaf).collect();
        let mut groups = RgMap::default();
        for entry in &self.entries {
            groups.set(entry.route.partition, entry.replicas.clone());
        }
        TableMap { id: self.id, name: self.name.clone(), options: self.options, leaves, groups }
    }

    /// Marks all of it.
    fn mark(&mut self, version: u64) {
        self.changed = version;
        for entry in &mut self.entries {
            entry.changed = version;
        }
    }

    /// Marks it as it was marked in an older map that has the same leaves.
    fn mark_as(&mut self, before: &Self) {
        self.changed = before.changed;
        for (entry, old) in self.entries.iter_mut().zip(&before.entries) {
            entry.changed = old.changed;
        }
    }

    /// See [`RouteEntry::changed`].
    pub(super) fn changed(&self) -> u64 {
        self.changed
    }

    /// The partition of a hash: one masked load, one more for the entry.
    #[inline]
    pub fn route(&self, hash: u64) -> &RouteEntry {
        &self.entries[self.slots[(hash & self.mask) as usize] as usize]
    }

    /// All partitions, in SCAN's order.
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// When a write counts as kept.
    pub fn durability(&self) -> Durability {
        self.options.durability
    }
}

/// All tables of a brick at one version of the maps.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    version: u64,
    bricks: Vec<BrickEntry>,
    tables: Vec<RouteTable>,
    /// (partition id, table index, entry index), by partition id.
    partitions: Vec<(u32, u32, u32)>,
    /// (table index, entry index) of what has a replica at this brick.
    here: Vec<(u32, u32)>,
    /// What changed since this version is known, and nothing of before.
    pub(super) floor: u64,
    pub(super) bricks_changed: u64,
    /// Tables that went, by the version of which that is known; the oldest first.
    pub(super) gone: Vec<(u64, u32)>,
}

impl Routes {
    /// From checked maps, as `brick` sees them.
    pub fn new(maps: &Maps, brick: u32) -> Result<Self, MapError> {
        let mut tables = Vec::with_capacity(maps.tables.len());
        for map in &maps.tables {
            tables.push(RouteTable::new(map, brick)?);
        }
        tables.sort_by_key(|t| t.id);
        let (mut partitions, mut here) = (Vec::new(), Vec::new());
        for (t, table) in tables.iter().enumerate() {
            for (e, entry) in table.entries.iter().enumerate() {
                partitions.push((entry.route.partition, t as u32, e as u32));
                if entry.here {
                    here.push((t as u32, e as u32));
                }
            }
        }
        partitions.sort_unstable();
        for table in &mut tables {
            table.mark(maps.version);
        }
        let (version, bricks) = (maps.version, maps.bricks.clone());
        let (floor, bricks_changed, gone) = (version, version, Vec::new());
        Ok(Self { version, bricks, tables, partitions, here, floor, bricks_changed, gone })
    }

    /// From newer checked maps, which came of these by `delta`, and remembers what changed. A brick may skip
    /// versions: then a change counts as of the version with which it came, later than it was, so that who asks for
    /// changes gets some that it has, never too few. The delta is asked, not the maps compared: a table or a brick
    /// that came and went in between is in neither map, and somebody else may have seen it.
    pub fn after(&self, maps: &Maps, delta: &MapDelta, brick: u32) -> Result<Self, MapError> {
        let mut next = Self::new(maps, brick)?;
        let fits = delta.version == maps.version && self.version <= maps.version;
        if self.version == 0 || !fits || delta.since.is_none_or(|since| since > self.version) {
            return Ok(next);
        }
        for table in &mut next.tables {
            let is_new = delta.tables.iter().any(|t| t.id == table.id);
            if let Some(before) = self.table(table.id).filter(|_| !is_new) {
                table.mark_as(before);
            }
        }
        for group in &delta.groups {
            next.mark_group(group.partition);
        }
        if delta.bricks.is_none() {
            next.bricks_changed = self.bricks_changed;
        }
        let went = delta.dropped.iter().map(|table| (maps.version, *table));
        next.gone = self.gone.iter().copied().chain(went).collect();
        next.floor = self.floor;
        let more = next.gone.len().saturating_sub(GONE_MAX);
        for (version, _) in next.gone.drain(..more) {
            next.floor = version;
        }
        Ok(next)
    }

    fn mark_group(&mut self, partition: u32) {
        let Ok(at) = self.partitions.binary_search_by_key(&partition, |p| p.0) else { return };
        let (_, table, entry) = self.partitions[at];
        self.tables[table as usize].entries[entry as usize].changed = self.version;
    }

    /// The version of the maps.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All tables, by id.
    pub fn tables(&self) -> &[RouteTable] {
        &self.tables
    }

    /// A table by id. Ids are small and the array is short: a search of a few steps.
    #[inline]
    pub fn table(&self, id: u32) -> Option<&RouteTable> {
        let at = self.tables.binary_search_by_key(&id, |t| t.id).ok()?;
        self.tables.get(at)
    }

    /// A table by name.
    pub fn table_named(&self, name: &str) -> Option<&RouteTable> {
        self.tables.iter().find(|t| t.name == name)
    }

    /// The partition of a hash in a table.
    #[inline]
    pub fn route(&self, table: u32, hash: u64) -> Option<&RouteEntry> {
        Some(self.table(table)?.route(hash))
    }

    /// A partition by id.
    pub fn partition(&self, id: u32) -> Option<&RouteEntry> {
        let at = self.partitions.binary_search_by_key(&id, |p| p.0).ok()?;
        let (_, table, entry) = self.partitions[at];
        Some(&self.tables[table as usize].entries[entry as usize])
    }

    /// Where each partition is: (its id, index of its table, index in that one's entries), by id.
    pub fn index(&self) -> &[(u32, u32, u32)] {
        &self.partitions
    }

    /// The partitions that have a replica at this brick.
    pub fn here(&self) -> impl Iterator<Item = &RouteEntry> {
        self.here.iter().map(|&(table, entry)| &self.tables[table as usize].entries[entry as usize])
    }

    /// The maps that these routes were made of.
    pub(super) fn to_maps(&self) -> Maps {
        let tables = self.tables.iter().map(RouteTable::to_map).collect();
        Maps { version: self.version, tables, bricks: self.bricks.clone() }
    }

    /// The bricks, by id.
    pub fn bricks(&self) -> &[BrickEntry] {
        &self.bricks
    }

    /// Compares a request's route with the map's. (The CRC tells "different", the epoch "newer".)
    pub fn check(&self, route: Route) -> RouteCheck {
        match self.partition(route.partition) {
            Some(entry) => check(entry.route, route),
            None => RouteCheck::Unknown,
        }
    }
}

/// Compares a request's route with the current one of the same partition.
#[inline]
pub fn check(current: Route, asked: Route) -> RouteCheck {
    if current == asked {
        RouteCheck::Current
    } else if asked.partition != current.partition || asked.table != current.table {
        RouteCheck::Unknown
    } else if asked.epoch > current.epoch {
        RouteCheck::Newer
    } else {
        // Same epoch and another fingerprint: a damaged or foreign map, repaired like an old one.
        RouteCheck::Older(current)
    }
}
