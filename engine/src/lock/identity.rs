//! Which brick the folders belong to, and whether its memory is the one that its disk knows.
//!
//! `brick.id` lies in both folders. The memory counts as intact only if it says the same brick and
//! boot as the disk, and a nonce that the disk knows. Each start makes a new nonce; so that a death
//! between the writes loses nothing, the disk keeps the old nonce beside the new until the memory has
//! the new:
//!
//! ```text
//!   before        disk { P }              memory { P }
//!   1  begin      disk { N, was P }       memory { P }     intact through "was"
//!   2  settle     disk { N, was P }       memory { N }     intact
//!   3             disk { N }              memory { N }     a stale copy of the memory does not count
//! ```
//!
//! What the keepers saw of this brick last must be one of the nonces that the disk names: the one before, and
//! (`since`) those of starts since the last that got as far as `settle`. Else the files are from before that process: a
//! backup. A backup of files that no start has changed since has another lock file (`lock_born_ns`).
//!
//! Memory that is not intact gets its file only once it has been loaded from the disk (`settle`), so
//! that a death half way through loading is not taken for a whole memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use firebrick_partition::log::storage::Storage;
use serde::{Deserialize, Serialize};

use super::{BrickLock, LOCK_FILE};
use crate::durable::{self, FileKind};
use crate::error::BrickError;

pub(crate) const ID_FILE: &str = "brick.id";
/// (Format 1 has no `flushed`.)
const KIND: FileKind = FileKind { word: "brick", format: 2 };

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdFile {
    brick_id: u64,
    name: String,
    boot_id: String,
    nonce: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    was: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    since: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    lock_born_ns: Option<u64>,
    /// The last process that ended with all that it had on the disk, if none has settled since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    flushed: Option<u64>,
}

/// Starts that did not get as far as `settle` and are remembered.
const SINCE_MAX: usize = 64;

/// What this start finds in memory_dir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// A brick that never ran: both folders are empty.
    New,
    /// The segments of the last incarnation: scan them.
    Intact,
    /// Not to be trusted, or gone (a reboot): load the disk.
    Lost,
}

/// A brick and its incarnation.
#[derive(Debug)]
pub struct Identity {
    /// Random, for the life of the folders.
    pub brick_id: u64,
    /// The boot that this incarnation runs in.
    pub boot_id: String,
    /// Random, of this incarnation.
    pub nonce: u64,
    /// What was found.
    pub memory: Memory,
    /// Incarnations of which one was the last to act for the brick, if nobody changed the folders behind its back.
    pub before: Vec<u64>,
    /// `data_dir` is a copy, as from a backup: older than what the brick had last, perhaps.
    pub copied: bool,
    lock_born_ns: Option<u64>,
    /// An incarnation of which the disk has all that it had; 0: none. (The keepers know whether it was the last that acted.)
    pub flushed: u64,
    settled: AtomicBool,
    name: String,
    data_file: PathBuf,
    memory_file: PathBuf,
}

impl Identity {
    /// Reads both files, refuses folders that are not one brick's, and writes the new nonce to the
    /// disk. `boot_id` is [`boot_id()`](boot_id) except in tests.
    pub fn begin(lock: &BrickLock, name: &str, boot_id: &str) -> Result<Self, BrickError> {
        let data_file = lock.data_dir().join(ID_FILE);
        let memory_file = lock.memory_dir().join(ID_FILE);
        let disk: Option<IdFile> = durable::read(&data_file, KIND)?;
        let mapped: Option<IdFile> = durable::read(&memory_file, KIND)?;
        let (brick_id, memory, was) = match (&disk, &mapped) {
            (None, None) => {
                refuse_foreign(lock.data_dir())?;
                refuse_foreign(lock.memory_dir())?;
                (random()?, Memory::New, None)
            }
            (None, Some(mapped)) => return Err(orphaned_memory(lock, mapped)),
            (Some(disk), None) => (disk.brick_id, Memory::Lost, None),
            (Some(disk), Some(mapped)) => {
                if mapped.brick_id != disk.brick_id {
                    return Err(other_memory(lock, mapped));
                }
                let known = mapped.nonce == disk.nonce || Some(mapped.nonce) == disk.was;
                if known && mapped.boot_id == boot_id {
                    (disk.brick_id, Memory::Intact, Some(mapped.nonce))
                } else {
                    (disk.brick_id, Memory::Lost, None)
                }
            }
        };
        if disk.is_some() {
            // What nobody needs any more is room for the new file, also when others took the last block.
            Storage::start(lock.memory_dir().to_owned(), lock.data_dir().to_owned())
                .map_err(BrickError::Storage)?;
        }
        let (before, lock_born_ns) = (disk.as_ref().map(known).unwrap_or_default(), lock.born_ns());
        let written_ns = disk.as_ref().and_then(|disk| disk.lock_born_ns);
        let copied = written_ns.is_some() && lock_born_ns.is_some() && written_ns != lock_born_ns;
        let identity = Self {
            brick_id,
            boot_id: boot_id.to_owned(),
            nonce: random()?,
            memory,
            before,
            copied,
            lock_born_ns,
            flushed: disk.filter(|_| !copied).and_then(|disk| disk.flushed).unwrap_or(0),
            settled: AtomicBool::new(false),
            name: name.to_owned(),
            data_file,
            memory_file,
        };
        let since = identity.before.clone();
        // (A copy is one until what is in it counts again.)
        let lock_born_ns = if copied { written_ns } else { lock_born_ns };
        let flushed = Some(identity.flushed).filter(|nonce| *nonce != 0);
        let file = IdFile { was, since, lock_born_ns, flushed, ..identity.file() };
        durable::write(&identity.data_file, KIND, &file)?;
        Ok(identity)
    }

    /// The memory now holds what this incarnation serves (scanned, loaded, or new): says so in
    /// memory_dir, and then lets the disk forget the nonce before.
    pub fn settle(&self) -> Result<(), BrickError> {
        durable::write(&self.memory_file, KIND, &self.file())?;
        durable::write(&self.data_file, KIND, &self.disk_file(None))?;
        self.settled.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The brick has ended, and the disk has everything. (Of one that has not settled it still tells which memory is its own.)
    pub fn say_flushed(&self) -> Result<(), BrickError> {
        if !self.settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        durable::write(&self.data_file, KIND, &self.disk_file(Some(self.nonce)))
    }

    fn disk_file(&self, flushed: Option<u64>) -> IdFile {
        IdFile { lock_born_ns: self.lock_born_ns, flushed, ..self.file() }
    }

    fn file(&self) -> IdFile {
        IdFile {
            brick_id: self.brick_id,
            name: self.name.clone(),
            boot_id: self.boot_id.clone(),
            nonce: self.nonce,
            was: None,
            since: Vec::new(),
            lock_born_ns: None,
            flushed: None,
        }
    }
}

/// The nonces that a disk names, the newest first. Of too many the oldest stays: it is the last that surely acted.
fn known(disk: &IdFile) -> Vec<u64> {
    let mut known: Vec<u64> = [disk.nonce].into_iter().chain(disk.since.iter().copied()).collect();
    if known.len() > SINCE_MAX {
        known.remove(SINCE_MAX - 1);
    }
    known
}

/// The kernel's name of this boot.
pub fn boot_id() -> Result<String, BrickError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(BrickError::file("read", path))?;
    Ok(text.trim().to_owned())
}

/// 64 random bits, never 0.
pub fn random() -> Result<u64, BrickError> {
    let mut bytes = [0u8; 8];
    loop {
        // SAFETY: the pointer and length are those of `bytes`, which is writable.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        let error = std::io::Error::last_os_error();
        let value = u64::from_ne_bytes(bytes);
        if got == 8 && value != 0 {
            return Ok(value);
        }
        if got < 0 && error.kind() != std::io::ErrorKind::Interrupted {
            return Err(BrickError::file("draw random bytes from", Path::new("getrandom(2)"))(
                error,
            ));
        }
    }
}

/// A folder without `brick.id` must be empty: what is in it is somebody's.
fn refuse_foreign(folder: &Path) -> Result<(), BrickError> {
    let listing = fs::read_dir(folder).map_err(BrickError::file("list", folder))?;
    for entry in listing {
        let name = entry.map_err(BrickError::file("list", folder))?.file_name();
        // An interrupted first start leaves `brick.tmp`; a new file system has `lost+found`.
        if [LOCK_FILE, "brick.tmp", "lost+found"].iter().any(|ours| name == *ours) {
            continue;
        }
        return Err(BrickError::Foreign {
            path: folder.to_owned(),
            what: format!(
                "holds \"{}\" but no {ID_FILE}, so it is not a brick's folder, or its {ID_FILE} is \
                 missing; nothing was changed: choose an empty folder, or put {ID_FILE} back",
                name.to_string_lossy()
            ),
        });
    }
    Ok(())
}

fn orphaned_memory(lock: &BrickLock, mapped: &IdFile) -> BrickError {
    BrickError::Foreign {
        path: lock.memory_dir().to_owned(),
        what: format!(
            "holds the memory of brick \"{}\" (id {:016x}), but {} has no {ID_FILE}; nothing was \
             changed: give the data_dir of that brick, or remove this folder if its data may go",
            mapped.name,
            mapped.brick_id,
            lock.data_dir().display()
        ),
    }
}

fn other_memory(lock: &BrickLock, mapped: &IdFile) -> BrickError {
    BrickError::Foreign {
        path: lock.memory_dir().to_owned(),
        what: format!(
            "holds the memory of another brick, \"{}\" (id {:016x}), than {}; nothing was changed: \
             give this brick its own memory_dir, or remove this folder if its data may go",
            mapped.name,
            mapped.brick_id,
            lock.data_dir().display()
        ),
    }
}
