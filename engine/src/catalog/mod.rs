//! The tables of a lone brick: what its keepers would hold in a cluster.
//!
//! Kept in `tables` in data_dir, replaced whole at each change. Ids of tables and partitions are never
//! used twice: the file remembers the next ones. A dropped table's partitions stay listed until their
//! files are gone, so that a crash in between leaves no folder that nobody knows.
//!
//! Each start raises the epoch of every group (a restarted brick is a new incarnation, and nothing may
//! rest on what the old process remembered) and spreads the partitions over the data cores there are.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebrick_partition::maps::{
    self, Maps, NAME_BYTES_MAX, Replicas, Routes, TableMap, TableOptions,
};
use serde::{Deserialize, Serialize};

use crate::config::Durability;
use crate::durable::{self, FileKind};
use crate::error::BrickError;

/// This brick's id in the maps, while it is alone.
pub const BRICK: u32 = 1;
/// The table that RESP and clients without a table name use.
pub const DEFAULT_TABLE: &str = "default";
/// Tables of one brick.
pub const TABLES_MAX: usize = 1024;
/// Partitions of one brick, over all tables: each has files open and a disk write in flight.
pub const PARTITIONS_MAX: usize = 4096;

const FILE: &str = "tables";
const KIND: FileKind = FileKind { word: "tables", format: 1 };

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: u32,
    name: String,
    durability: String,
    first_partition: u32,
    partitions: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u64,
    epoch: u32,
    next_table: u32,
    next_partition: u32,
    tables: Vec<Entry>,
    dropped: Vec<u32>,
}

/// The tables, on disk and as routes.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    cores: u16,
    contents: Contents,
    routes: Arc<Routes>,
}

impl Catalog {
    /// Reads the catalog for a start on that many data cores, raises the epoch and writes it back. A
    /// brick without one gets the table `default`.
    pub fn open(
        data_dir: &Path,
        cores: u16,
        per_core: u32,
        durability: Durability,
    ) -> Result<Self, BrickError> {
        let path = data_dir.join(FILE);
        let found: Option<Contents> = durable::read(&path, KIND)?;
        let is_new = found.is_none();
        if is_new {
            refuse_partitions_without_catalog(&path, data_dir)?;
        }
        let mut contents = found.unwrap_or(Contents {
            version: 0,
            epoch: 0,
            next_table: 1,
            next_partition: 1,
            tables: Vec::new(),
            dropped: Vec::new(),
        });
        check(&contents).map_err(|what| BrickError::Damaged { path: path.clone(), what })?;
        contents.epoch = contents.epoch.checked_add(1).ok_or_else(|| BrickError::Damaged {
            path: path.clone(),
            what: "its epoch is the last there is".into(),
        })?;
        contents.version += 1;
        let mut catalog = Self { path, cores, contents, routes: Arc::default() };
        if is_new {
            let count = spread(cores, per_core);
            let next = catalog.with_table(DEFAULT_TABLE, count, durability)?;
            catalog.replace(next)?;
        } else {
            let next = catalog.contents.clone();
            catalog.replace(next)?;
        }
        Ok(catalog)
    }

    /// The routes of all tables, at the newest version.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    /// The epoch that this start's groups have.
    pub fn epoch(&self) -> u32 {
        self.contents.epoch
    }

    /// Partitions of dropped tables whose files may still be there.
    pub fn dropped(&self) -> &[u32] {
        &self.contents.dropped
    }

    /// Makes a table; its id. `per_core` partitions on each data core, rounded up to a power of two.
    pub fn create(
        &mut self,
        name: &str,
        per_core: u32,
        durability: Durability,
    ) -> Result<u32, BrickError> {
        let next = self.with_table(name, spread(self.cores, per_core), durability)?;
        let id = self.contents.next_table;
        self.replace(next)?;
        Ok(id)
    }

    /// Drops a table; its partitions, which the data cores now close and whose files then go.
    pub fn drop_table(&mut self, name: &str) -> Result<Vec<u32>, BrickError> {
        let mut next = self.contents.clone();
        let Some(at) = next.tables.iter().position(|table| table.name == name) else {
            return Err(self.no_such_table(name));
        };
        if name == DEFAULT_TABLE {
            return Err(BrickError::Table(format!(
                "the table \"{DEFAULT_TABLE}\" cannot be dropped, because the Redis protocol serves it; \
                 empty it with FLUSHALL"
            )));
        }
        let table = next.tables.remove(at);
        let gone: Vec<u32> =
            (table.first_partition..table.first_partition + table.partitions).collect();
        next.dropped.extend(&gone);
        next.version += 1;
        self.replace(next)?;
        Ok(gone)
    }

    /// The files of these partitions are gone.
    pub fn forget_dropped(&mut self, partitions: &[u32]) -> Result<(), BrickError> {
        if !self.contents.dropped.iter().any(|id| partitions.contains(id)) {
            return Ok(());
        }
        let mut next = self.contents.clone();
        next.dropped.retain(|id| !partitions.contains(id));
        self.replace(next)
    }

    fn no_such_table(&self, name: &str) -> BrickError {
        let names: Vec<_> = self.contents.tables.iter().map(|table| table.name.as_str()).collect();
        BrickError::Table(format!("no table \"{name}\"; the tables are {}", names.join(", ")))
    }

    fn with_table(
        &self,
        name: &str,
        partitions: u32,
        durability: Durability,
    ) -> Result<Contents, BrickError> {
        check_name(name).map_err(BrickError::Table)?;
        let mut next = self.contents.clone();
        if next.tables.iter().any(|table| table.name == name) {
            return Err(BrickError::Table(format!(
                "there is a table \"{name}\" already; choose another name, or drop it first"
            )));
        }
        let there: u32 = next.tables.iter().map(|table| table.partitions).sum();
        if next.tables.len() == TABLES_MAX || (there + partitions) as usize > PARTITIONS_MAX {
            return Err(BrickError::Table(format!(
                "no room for a table of {partitions} partitions: {} of {TABLES_MAX} tables and {there} \
                 of {PARTITIONS_MAX} partitions are there; drop a table first",
                next.tables.len()
            )));
        }
        let (id, first_partition) = (next.next_table, next.next_partition);
        let ids = (id.checked_add(1), first_partition.checked_add(partitions));
        let (Some(next_table), Some(next_partition)) = ids else {
            return Err(BrickError::Table("there are no table or partition ids left".into()));
        };
        (next.next_table, next.next_partition) = (next_table, next_partition);
        next.version += 1;
        let durability = durability.to_string();
        next.tables.push(Entry { id, name: name.into(), durability, first_partition, partitions });
        Ok(next)
    }

    /// Makes `next` what holds: on disk first, so that what was answered is kept.
    fn replace(&mut self, next: Contents) -> Result<(), BrickError> {
        let routes = routes(&next, self.cores)
            .map_err(|what| BrickError::Damaged { path: self.path.clone(), what })?;
        durable::write(&self.path, KIND, &next)?;
        self.contents = next;
        self.routes = Arc::new(routes);
        Ok(())
    }
}

/// Partitions of a table: at least `per_core` on each core, a power of two in all.
fn spread(cores: u16, per_core: u32) -> u32 {
    (u32::from(cores.max(1)) * per_core.clamp(1, 64)).next_power_of_two()
}

fn routes(contents: &Contents, cores: u16) -> Result<Routes, String> {
    let mut maps = Maps { version: contents.version, ..Maps::default() };
    for table in &contents.tables {
        let durability = match table.durability.parse()? {
            Durability::Memory => maps::Durability::Memory,
            Durability::Async { behind_ms } => maps::Durability::Async { ms: behind_ms },
            Durability::Sync => maps::Durability::Sync,
        };
        let options = TableOptions { durability, partitions: table.partitions, replicas: 1 };
        let first = table.first_partition;
        let mut map =
            TableMap::on_one_brick(table.id, &table.name, options, first, BRICK, cores, 0)
                .map_err(|error| error.to_string())?;
        for n in 0..table.partitions {
            let core = (n % u32::from(cores)) as u16;
            map.groups.set(first + n, Replicas::alone(contents.epoch, BRICK, core, 0));
        }
        maps.tables.push(map);
    }
    Routes::new(&maps, BRICK).map_err(|error| error.to_string())
}

/// What a checksum does not tell: that the contents agree with each other.
fn check(contents: &Contents) -> Result<(), String> {
    let mut taken: Vec<(u32, u32)> = Vec::new();
    for (at, table) in contents.tables.iter().enumerate() {
        check_name(&table.name)?;
        let end = table.first_partition.checked_add(table.partitions);
        let end = end.filter(|&end| end <= contents.next_partition && table.partitions > 0);
        let Some(end) = end.filter(|_| table.id < contents.next_table) else {
            return Err(format!("table \"{}\" has ids that were never given", table.name));
        };
        let twice = |other: &Entry| other.id == table.id || other.name == table.name;
        if contents.tables[..at].iter().any(twice) {
            return Err(format!("it names table \"{}\" (id {}) twice", table.name, table.id));
        }
        taken.push((table.first_partition, end));
    }
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[1].0 < pair[0].1) {
        return Err("two tables share a partition".into());
    }
    if contents.dropped.iter().any(|id| taken.iter().any(|(from, to)| (from..to).contains(&id))) {
        return Err("a partition is both a table's and dropped".into());
    }
    Ok(())
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

/// A data_dir with partitions but without a catalog has lost it: an empty one would orphan them.
fn refuse_partitions_without_catalog(path: &Path, data_dir: &Path) -> Result<(), BrickError> {
    let listing = std::fs::read_dir(data_dir).map_err(BrickError::file("list", data_dir))?;
    for entry in listing {
        let name = entry.map_err(BrickError::file("list", data_dir))?.file_name();
        let name = name.to_string_lossy();
        if name.strip_prefix('p').is_some_and(|id| id.parse::<u32>().is_ok()) {
            return Err(BrickError::Foreign {
                path: path.to_owned(),
                what: format!(
                    "is missing, but {} holds partitions (\"{name}\"); nothing was changed: put the \
                     file back, or move the folder away to start empty",
                    data_dir.display()
                ),
            });
        }
    }
    Ok(())
}
