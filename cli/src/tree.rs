//! Walking a folder: which files are stored, under which key.
//!
//! The order is that of the names' bytes, so that a walk with a cap on the total takes the same files
//! every time. Symbolic links are not followed, so a walk ends.

use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::error::{CliError, plain};
use crate::store::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The kernel opens no longer path, so every path that can be read is short enough for a key.
const PATH_BYTES_MAX: usize = 4096;
const _: () = assert!(PATH_BYTES_MAX <= KEY_BYTES_MAX);

/// Which files to take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Larger files are skipped.
    pub file_bytes_max: u64,
    /// The walk ends before the file that would bring the total over this.
    pub total_bytes_max: u64,
}

/// A file to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its path in the folder.
    pub key: Vec<u8>,
    /// Bytes, when it was looked at.
    pub size: u64,
}

/// What was passed over, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Files over the size limit.
    pub too_large: u64,
    /// Symbolic links, sockets, pipes and devices.
    pub not_regular: u64,
    /// Files and folders that this user may not read, that vanished, or whose path is too long.
    pub unreadable: u64,
}

impl Skipped {
    /// For people: empty when nothing was skipped.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = [
            (self.too_large, "too large"),
            (self.not_regular, "no regular file"),
            (self.unreadable, "unreadable"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, why)| format!("{} {why}", crate::units::count(n)))
        .collect();
        parts.join(", ")
    }
}

/// One folder that the walk is in: what is left of it, last first.
struct Level {
    rest: Vec<(OsString, FileType)>,
}

/// A walk through a folder.
pub struct Walk {
    limits: Limits,
    levels: Vec<Level>,
    path: PathBuf,
    key: Vec<u8>,
    key_lens: Vec<usize>,
    total: u64,
    full: bool,
    skipped: Skipped,
}

impl Walk {
    /// Begins at a folder, which may itself be a link to one.
    pub fn new(root: &Path, limits: Limits) -> Result<Self, CliError> {
        let level = read_level(root).map_err(|e| {
            CliError::Failed(format!(
                "cannot read {}: {}; give a folder that this user may read",
                root.display(),
                plain(&e)
            ))
        })?;
        let limits =
            Limits { file_bytes_max: limits.file_bytes_max.min(VALUE_BYTES_MAX as u64), ..limits };
        Ok(Self {
            limits,
            levels: vec![level],
            path: root.to_owned(),
            key: Vec::new(),
            key_lens: Vec::new(),
            total: 0,
            full: false,
            skipped: Skipped::default(),
        })
    }

    /// What was passed over so far.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// The bytes of a file that the walk found; `None`, and counted, when it cannot be had any more.
    pub fn read(&mut self, found: &Found) -> Option<Vec<u8>> {
        let bytes = File::open(&found.path).and_then(|file| {
            let mut bytes = Vec::with_capacity(found.size as usize + 1);
            file.take(self.limits.file_bytes_max + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match bytes {
            Ok(bytes) if bytes.len() as u64 > self.limits.file_bytes_max => {
                self.skipped.too_large += 1;
                None
            }
            Ok(bytes) => Some(bytes),
            Err(_) => {
                self.skipped.unreadable += 1;
                None
            }
        }
    }

    fn enter(&mut self, name: &OsString) {
        self.path.push(name);
        let Ok(level) = read_level(&self.path) else {
            self.skipped.unreadable += 1;
            self.path.pop();
            return;
        };
        self.key_lens.push(self.key.len());
        self.key.extend_from_slice(name.as_bytes());
        self.key.push(b'/');
        self.levels.push(level);
    }

    fn leave(&mut self) {
        self.levels.pop();
        if let Some(len) = self.key_lens.pop() {
            self.key.truncate(len);
            self.path.pop();
        }
    }

    fn look_at(&mut self, name: &OsString) -> Option<Found> {
        let path = self.path.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            self.skipped.unreadable += 1;
            return None;
        };
        if meta.len() > self.limits.file_bytes_max {
            self.skipped.too_large += 1;
            return None;
        }
        let key = [self.key.as_slice(), name.as_bytes()].concat();
        if self.total + meta.len() > self.limits.total_bytes_max {
            self.full = true;
            return None;
        }
        self.total += meta.len();
        Some(Found { path, key, size: meta.len() })
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        while !self.full {
            let Some((name, kind)) = self.levels.last_mut()?.rest.pop() else {
                self.leave();
                continue;
            };
            if kind.is_dir() {
                self.enter(&name);
            } else if kind.is_file() {
                if let Some(found) = self.look_at(&name) {
                    return Some(found);
                }
            } else {
                self.skipped.not_regular += 1;
            }
        }
        None
    }
}

fn read_level(path: &Path) -> io::Result<Level> {
    let mut rest = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        rest.push((entry.file_name(), entry.file_type()?));
    }
    rest.sort_unstable_by(|a, b| b.0.cmp(&a.0));
    Ok(Level { rest })
}

#[cfg(test)]
mod tests;
