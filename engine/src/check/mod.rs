//! What the host must have, looked at before anything is opened.
//!
//! [`Host`] is what was read; [`settle`] judges it and is pure, so that tests can describe hosts that
//! the test machine is not. A finding is one sentence: what is missing, and how to get it.

mod findings;
mod host;
mod port;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::config::{BrickConfig, Cores};
use crate::error::BrickError;
pub use host::{FsKind, Host};
pub use port::port_holder;

/// A judgement on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The brick cannot run.
    Refuse(String),
    /// It can, and this is what will hurt.
    Warn(String),
}

/// What the configuration comes to on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// As configured.
    pub config: BrickConfig,
    /// The CPUs of the data cores.
    pub cores: Vec<usize>,
    /// The folder of the mapped segments.
    pub memory_dir: PathBuf,
    /// The folder on disk, absolute.
    pub data_dir: PathBuf,
    /// Bytes for records, of the whole brick.
    pub memory_bytes: u64,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// Decides what "auto" means here and checks everything; all refusals are told at once.
pub fn settle(config: &BrickConfig, host: &Host) -> Result<Plan, BrickError> {
    let mut found = findings::kernel(host);
    found.extend(findings::limits(config, host));
    let cores = match &config.cores {
        Cores::Auto => host.cpus_allowed.iter().copied().take(1).collect(),
        Cores::List(cpus) => cpus.clone(),
    };
    found.extend(findings::cores(&cores, host));
    let data_place = host.place(&absolute(&config.data_dir, &host.current_dir));
    // Resolved, so that two names of one folder mean one memory_dir.
    let data_dir = data_place.path.clone();
    let wanted = config.memory.unwrap_or_else(|| findings::memory_auto(host));
    let memory_dir = match &config.memory_dir {
        Some(folder) => absolute(folder, &host.current_dir),
        None => auto_memory_dir(&data_dir, wanted, host),
    };
    found.extend(findings::data_dir(&data_place));
    let memory_place = host.place(&memory_dir);
    found.extend(findings::memory_dir(config, &memory_place, wanted, host));
    found.extend(findings::share(config, cores.len(), wanted));

    let (mut refusals, mut warnings) = (Vec::new(), Vec::new());
    for finding in found {
        match finding {
            Finding::Refuse(sentence) => refusals.push(sentence),
            Finding::Warn(sentence) => warnings.push(sentence),
        }
    }
    if !refusals.is_empty() {
        return Err(BrickError::Host(refusals));
    }
    let config = config.clone();
    Ok(Plan { config, cores, memory_dir, data_dir, memory_bytes: wanted, warnings })
}

/// Where tmpfs usually is.
pub const SHM: &str = "/dev/shm";

/// The folder that `memory_dir = "auto"` means in /dev/shm: one per user and data_dir.
pub fn shm_folder(data_dir: &Path, uid: u32) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let hash = crc32fast::hash(data_dir.as_os_str().as_bytes());
    Path::new(SHM).join(format!("firebrick-{uid}-{hash:08x}"))
}

/// The folder that it means where /dev/shm does not do.
pub fn beside_folder(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push("-memory");
    data_dir.with_file_name(name)
}

fn auto_memory_dir(data_dir: &Path, wanted: u64, host: &Host) -> PathBuf {
    let shm = shm_folder(data_dir, host.uid);
    let place = host.place(&shm);
    let beside = beside_folder(data_dir);
    // A brick stays with the memory that it has, also when others have filled the file system since: the disk that it
    // would have to be loaded from has not all that was acknowledged, and of `memory` tables nothing.
    if host.place(&beside).has_brick && !place.has_brick {
        return beside;
    }
    let fits = place.room() >= wanted || place.is_home_of(wanted);
    if place.refused.is_none() && place.kind == FsKind::Tmpfs && fits {
        return shm;
    }
    beside
}

fn absolute(path: &Path, current_dir: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in current_dir.join(path).components() {
        match part {
            std::path::Component::CurDir => {}
            part => whole.push(part),
        }
    }
    whole
}
