//! The replicated state: plain data in ordered maps, so that two copies that applied the same entries are equal.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::entry::LockFile;
use super::wishes::{Note, Wish};
use crate::maps::{Leaf, Member, Replicas, TableOptions};

/// What an operator may change while the cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long a lease runs.
    pub lease_ms: u64,
    /// How long a group waits for a member that went before it is copied elsewhere.
    pub repair_delay_ms: u64,
    /// How long a stop for a cutover may hold requests before it is withdrawn.
    pub hold_ms_max: u64,
    /// Copies at a time that only make bricks more even.
    pub moves_max: u32,
    /// Copies at a time to one brick.
    pub copies_per_brick_max: u32,
    /// How many keepers there should be when there are bricks enough: 1, 3 or 5.
    pub keepers: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: 500,
            repair_delay_ms: 10_000,
            hold_ms_max: 1_000,
            moves_max: 4,
            copies_per_brick_max: 4,
            keepers: 5,
        }
    }
}

/// A brick as the keepers know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brick {
    /// Given on first join; never reused.
    pub id: u32,
    /// What the brick made up when its folders were new: a name for the disk, not for the process.
    pub identity: u64,
    /// Its name; no two bricks share one.
    pub name: String,
    /// The newest process that registered.
    pub incarnation: u64,
    /// The kernel's boot id of that process.
    pub boot: String,
    /// The lock that that process holds.
    pub lock: LockFile,
    /// When it started, by the clock of its boot.
    pub started_ns: u64,
    /// Its data cores.
    pub cores: u16,
    /// Memory for replicas, by which partitions are spread.
    pub memory_bytes: u64,
    /// Failure domain; empty: of its own.
    pub host: String,
    /// Wider failure domain; empty: not known, so no reason to prefer another.
    pub rack: String,
    /// Native protocol, `HOST:PORT`.
    pub listen: String,
    /// Control port.
    pub control: String,
    /// Redis protocol.
    pub resp: String,
    /// HTTP.
    pub http: String,
    /// It is being emptied.
    pub draining: bool,
}

/// A table without its groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Table id; never reused.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: TableOptions,
    /// All leaves of its DP map.
    pub leaves: Vec<Leaf>,
    /// Version of the maps that last changed it (not its groups).
    pub changed: u64,
}

/// A member of the last active group, and whether it kept what it had ever since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Brick id.
    pub brick: u32,
    /// Its memory (of a `sync` table: its disk) was never lost since.
    pub intact: bool,
}

/// A partition's group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its table.
    pub table: u32,
    /// The group as the maps show it.
    pub replicas: Replicas,
    /// Version of the maps that last changed it.
    pub changed: u64,
    /// The members of the last active group. Empty: there was none, so nothing was ever committed.
    pub kept: Vec<Kept>,
    /// Bricks that went without being asked to: the first to be copied to when they are back.
    pub former: Vec<u32>,
    /// Where bricks whose process still runs have had a replica of it. Their core may have it still: if it comes back
    /// to the brick, it comes to that core, since no two cores may have the same files open.
    pub homes: Vec<Member>,
    /// What an operator wishes of it.
    pub wish: Option<Wish>,
    /// It is where an operator put it: nothing that only makes bricks more even moves it.
    pub by_hand: bool,
}

/// The keepers' state machine. Also the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keepers {
    pub(super) version: u64,
    pub(super) settings: Settings,
    /// The longest lease that was ever set: what an earlier leader may have given.
    pub(super) lease_ms_longest: u64,
    pub(super) bricks: BTreeMap<u32, Brick>,
    pub(super) bricks_changed: u64,
    pub(super) tables: BTreeMap<u32, Table>,
    pub(super) groups: BTreeMap<u32, Group>,
    /// Dropped partitions, and the bricks that may still have files of them.
    pub(super) dropped: BTreeMap<u32, BTreeSet<u32>>,
    /// Dropped tables, by the version that dropped them.
    pub(super) gone: BTreeMap<u64, u32>,
    /// Changes before this version are not remembered.
    pub(super) gone_floor: u64,
    pub(super) voters: Vec<u32>,
    pub(super) next_brick: u32,
    pub(super) next_table: u32,
    pub(super) next_partition: u32,
    /// The only brick may hold a lease without end.
    pub(super) endless: bool,
    /// What operators should know, the oldest first.
    pub(super) notes: Vec<Note>,
}

impl Default for Keepers {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            version: 0,
            settings,
            lease_ms_longest: settings.lease_ms,
            bricks: BTreeMap::new(),
            bricks_changed: 0,
            tables: BTreeMap::new(),
            groups: BTreeMap::new(),
            dropped: BTreeMap::new(),
            gone: BTreeMap::new(),
            gone_floor: 0,
            voters: Vec::new(),
            next_brick: 1,
            next_table: 1,
            next_partition: 1,
            endless: true,
            notes: Vec::new(),
        }
    }
}

impl Keepers {
    /// Version of the maps: grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What an operator set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All bricks, by id.
    pub fn bricks(&self) -> impl Iterator<Item = &Brick> {
        self.bricks.values()
    }

    /// A brick.
    pub fn brick(&self, id: u32) -> Option<&Brick> {
        self.bricks.get(&id)
    }

    /// The brick whose folders carry this identity.
    pub fn brick_of(&self, identity: u64) -> Option<&Brick> {
        self.bricks.values().find(|brick| brick.identity == identity)
    }

    /// The brick of a name.
    pub fn brick_named(&self, name: &str) -> Option<&Brick> {
        self.bricks.values().find(|brick| brick.name == name)
    }

    /// All tables, by id.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// The table of a name.
    pub fn table_named(&self, name: &str) -> Option<&Table> {
        self.tables.values().find(|table| table.name == name)
    }

    /// All groups, by partition.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        self.groups.iter().map(|(partition, group)| (*partition, group))
    }

    /// A partition's group.
    pub fn group(&self, partition: u32) -> Option<&Group> {
        self.groups.get(&partition)
    }

    /// How many replicas a partition should have.
    pub fn wanted(&self, group: &Group) -> usize {
        self.tables.get(&group.table).map_or(1, |table| usize::from(table.options.replicas))
    }

    /// The bricks that should be keepers.
    pub fn keepers(&self) -> &[u32] {
        &self.voters
    }

    /// The only brick may hold a lease without end; no second brick counts before that is over.
    pub fn is_endless(&self) -> bool {
        self.endless
    }

    /// Dropped partitions of which this brick may still have files.
    pub fn dropped(&self, brick: u32) -> Vec<u32> {
        let mine = |(_, bricks): &(&u32, &BTreeSet<u32>)| bricks.contains(&brick);
        self.dropped.iter().filter(mine).map(|(partition, _)| *partition).collect()
    }

    /// It is the brick's newest process. For one that is not, nobody acts.
    pub(super) fn is_current(&self, brick: u32, incarnation: u64) -> bool {
        self.bricks.get(&brick).is_some_and(|b| b.incarnation == incarnation)
    }

    /// No member of the group is a process that runs: only the rule for whole groups helps.
    pub fn is_stopped(&self, group: &Group) -> bool {
        group.replicas.members.iter().all(|m| !self.is_current(m.brick, m.incarnation))
    }
}
