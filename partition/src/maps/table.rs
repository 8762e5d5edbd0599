//! A table's map as it travels and is stored: plain data, checked before use.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use super::dp::{DEPTH_MAX, Leaf};
use super::durability::Durability;

/// The longest name of a table.
pub const NAME_BYTES_MAX: usize = 128;
/// Replicas of one partition.
pub const REPLICAS_MAX: usize = 16;

/// A member of a replica group, or a learner of it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Member {
    /// Brick id.
    pub brick: u32,
    /// The data core of that brick which owns the partition.
    pub core: u16,
    /// The process that the map means: a brick acts only in a map that names its own incarnation.
    pub incarnation: u64,
}

impl Member {
    /// It is this process of a brick.
    pub fn is(&self, brick: u32, incarnation: u64) -> bool {
        (self.brick, self.incarnation) == (brick, incarnation)
    }
}

/// What the keepers ask of one member before its group changes: it stops serving, and says so.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub enum Intent {
    /// Nothing.
    #[default]
    None,
    /// This member is going to leave the group.
    Leave {
        /// Brick id.
        brick: u32,
    },
    /// This primary is going to be a backup.
    StepDown {
        /// Brick id.
        brick: u32,
    },
}

/// A replica group: the ordered members of one partition, in one epoch.
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
pub struct Replicas {
    /// Grows with every change of the members.
    pub epoch: u32,
    /// The first is the primary.
    pub members: Vec<Member>,
    /// Being copied to; they vote, and nobody counts it before the primary says so.
    pub learners: Vec<Member>,
    /// The newest epoch whose primary's report is in the keepers' log: nothing commits in a newer one.
    pub active: u32,
    /// What one of the members is asked to do.
    pub intent: Intent,
}

impl Replicas {
    /// A group of one, active.
    pub fn alone(epoch: u32, brick: u32, core: u16, incarnation: u64) -> Self {
        Self {
            epoch,
            members: vec![Member { brick, core, incarnation }],
            active: epoch,
            ..Self::default()
        }
    }

    /// The primary's report is in the keepers' log: records may commit.
    pub fn is_active(&self) -> bool {
        self.active == self.epoch
    }

    /// The member that orders writes.
    pub fn primary(&self) -> Option<Member> {
        self.members.first().copied()
    }

    /// A brick's part in it, as a member or a learner.
    pub fn of(&self, brick: u32) -> Option<Member> {
        self.members.iter().chain(&self.learners).find(|m| m.brick == brick).copied()
    }

    /// A process of a brick is a member, and is asked to stop.
    pub fn asks_to_stop(&self, brick: u32, incarnation: u64) -> bool {
        let named = match self.intent {
            Intent::None => false,
            Intent::Leave { brick: b } | Intent::StepDown { brick: b } => b == brick,
        };
        named && self.members.iter().any(|m| m.is(brick, incarnation))
    }

    /// Where in the group a brick is.
    pub fn position(&self, brick: u32) -> Option<usize> {
        self.members.iter().position(|m| m.brick == brick)
    }
}

/// What a table was created with.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct TableOptions {
    /// When a write counts as kept.
    pub durability: Durability,
    /// How many partitions it was created with (a power of two).
    pub partitions: u32,
    /// How many bricks should hold each partition.
    pub replicas: u8,
}

/// A table: the DP map's leaves, each with its replica group.
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
pub struct TableMap {
    /// Table id; never reused.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: TableOptions,
    /// All leaves of the DP map, in the order of their reversed suffix.
    pub leaves: Vec<Leaf>,
    /// The groups.
    pub groups: RgMap,
}

/// The RG map: partition to replica group, in the order of partition ids.
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
pub struct RgMap {
    groups: Vec<(u32, Replicas)>,
}

impl RgMap {
    /// The group of a partition.
    pub fn get(&self, partition: u32) -> Option<&Replicas> {
        let at = self.groups.binary_search_by_key(&partition, |g| g.0).ok()?;
        self.groups.get(at).map(|g| &g.1)
    }

    /// Names a partition's group; an older one is replaced.
    pub fn set(&mut self, partition: u32, replicas: Replicas) {
        match self.groups.binary_search_by_key(&partition, |g| g.0) {
            Ok(at) => self.groups[at].1 = replicas,
            Err(at) => self.groups.insert(at, (partition, replicas)),
        }
    }

    /// Forgets a partition (it was split or merged away).
    pub fn remove(&mut self, partition: u32) {
        self.groups.retain(|g| g.0 != partition);
    }

    /// All groups by partition id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Replicas)> {
        self.groups.iter().map(|g| (g.0, &g.1))
    }

    fn is_sorted(&self) -> bool {
        self.groups.windows(2).all(|w| w[0].0 < w[1].0)
    }
}

/// A brick, and where it is reached. Addresses are `HOST:PORT`; empty when it does not offer that.
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
pub struct BrickEntry {
    /// Brick id; never reused.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The newest process that registered as this brick.
    pub incarnation: u64,
    /// Native protocol.
    pub listen: String,
    /// Control port: keepers, heartbeats, joins.
    pub control: String,
    /// Redis protocol.
    pub resp: String,
    /// HTTP.
    pub http: String,
}

/// All tables, at one version of the maps.
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
pub struct Maps {
    /// Grows with every change.
    pub version: u64,
    /// The tables.
    pub tables: Vec<TableMap>,
    /// The bricks, by id.
    pub bricks: Vec<BrickEntry>,
}

impl Maps {
    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&TableMap> {
        self.tables.iter().find(|t| t.name == name)
    }

    /// A brick by id.
    pub fn brick(&self, id: u32) -> Option<&BrickEntry> {
        self.bricks.iter().find(|b| b.id == id)
    }
}

impl TableMap {
    /// A new table of `2^depth` partitions, with ids from `first_partition` on, that one brick holds
    /// alone; its data cores take turns.
    pub fn on_one_brick(
        id: u32,
        name: &str,
        options: TableOptions,
        first_partition: u32,
        brick: u32,
        cores: u16,
        incarnation: u64,
    ) -> Result<Self, MapError> {
        let count = options.partitions;
        if cores == 0 || first_partition.checked_add(count).is_none() {
            return Err(MapError::Cores(cores));
        }
        let leaves = even_leaves(count, first_partition)?;
        let mut groups = RgMap::default();
        for n in 0..count {
            let partition = first_partition + n;
            let core = (n % u32::from(cores)) as u16;
            groups.set(partition, Replicas::alone(1, brick, core, incarnation));
        }
        let map = Self { id, name: name.to_owned(), options, leaves, groups };
        map.check()?;
        Ok(map)
    }

    /// Whether the map is whole: every hash has one leaf, every leaf one group with a primary.
    pub fn check(&self) -> Result<(), MapError> {
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(MapError::Name(self.name.len()));
        }
        super::DpMap::from_leaves(&self.leaves)?;
        if !self.groups.is_sorted() {
            return Err(MapError::Order);
        }
        for leaf in &self.leaves {
            let group = self.groups.get(leaf.partition).ok_or(MapError::NoGroup(leaf.partition))?;
            if group.members.is_empty() || group.members.len() > REPLICAS_MAX {
                return Err(MapError::Members(leaf.partition, group.members.len()));
            }
        }
        Ok(())
    }
}

/// The leaves of a new table, all of one depth, in the order of SCAN; partition ids from `first` on.
pub fn even_leaves(count: u32, first: u32) -> Result<Vec<Leaf>, MapError> {
    if !count.is_power_of_two() || count.ilog2() > u32::from(DEPTH_MAX) {
        return Err(MapError::Partitions(count));
    }
    if first.checked_add(count).is_none() {
        return Err(MapError::Cores(0));
    }
    let depth = count.ilog2() as u8;
    let leaf = |n: u32| {
        // In the order of SCAN: the suffix's bits, reversed.
        let suffix = if depth == 0 { 0 } else { n.reverse_bits() >> (32 - depth) };
        Leaf { depth, suffix, partition: first + n }
    };
    Ok((0..count).map(leaf).collect())
}

/// CRC32 over everything a request's sender must agree on: "different", where the epoch says "newer".
pub fn fingerprint(table: u32, leaf: &Leaf, replicas: &Replicas) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&table.to_le_bytes());
    crc.update(&leaf.partition.to_le_bytes());
    crc.update(&[leaf.depth]);
    crc.update(&leaf.suffix.to_le_bytes());
    crc.update(&replicas.epoch.to_le_bytes());
    for member in &replicas.members {
        crc.update(&member.brick.to_le_bytes());
        crc.update(&member.core.to_le_bytes());
    }
    crc.finalize()
}

/// Why a map cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The number of partitions is not a power of two up to 65,536.
    Partitions(u32),
    /// No data core to put partitions on, or no partition ids left.
    Cores(u16),
    /// A table's name is empty or too long.
    Name(usize),
    /// A leaf is deeper than the limit or its suffix has more bits than its depth.
    Leaf(Leaf),
    /// Two leaves cover the same hash, or none covers some.
    Cover(Leaf),
    /// There is no leaf.
    Empty,
    /// A partition has no replica group.
    NoGroup(u32),
    /// A replica group has too few or too many members.
    Members(u32, usize),
    /// The groups are not in the order of partition ids.
    Order,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions(n) => write!(
                f,
                "a table of {n} partitions cannot be made: give a power of two from 1 to {}",
                1u32 << DEPTH_MAX
            ),
            Self::Cores(n) => {
                write!(f, "no place for the table: {n} data cores, or no partition ids left")
            }
            Self::Name(n) => write!(
                f,
                "a table name of {n} bytes cannot be used: give 1 to {NAME_BYTES_MAX} bytes"
            ),
            Self::Leaf(l) => write!(
                f,
                "the map names a leaf of depth {} and suffix {:#x}, which is impossible; fetch the map again",
                l.depth, l.suffix
            ),
            Self::Cover(l) => write!(
                f,
                "the map does not cover every hash once (at depth {} suffix {:#x}); fetch the map again",
                l.depth, l.suffix
            ),
            Self::Empty => write!(f, "the map has no partition; fetch the map again"),
            Self::NoGroup(p) => {
                write!(f, "the map gives partition {p} no replica group; fetch the map again")
            }
            Self::Members(p, n) => write!(
                f,
                "the map gives partition {p} {n} replicas, 1 to {REPLICAS_MAX} are possible; fetch the map again"
            ),
            Self::Order => write!(f, "the map's groups are out of order; fetch the map again"),
        }
    }
}

impl std::error::Error for MapError {}
