//! What the keeper keeps on the disk, in `data_dir/keeper/`: `log` (the Raft log and vote), `snapshot`,
//! and `member` (which brick of which cluster this is).

mod file;
mod log;
mod snapshot;
#[cfg(test)]
mod tests;
mod thread;

pub(crate) use log::LogStore;
pub(crate) use snapshot::{SnapshotFile, Stored};
pub(crate) use thread::{DiskThread, FULL_EVERY};

/// The keeper's folder in data_dir.
pub(crate) const FOLDER: &str = "keeper";
