//! One of the two directories, and the little room in it that is held back.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::StorageError;
use super::files::{allocate, io_error};

/// The file that holds the room.
const RESERVE_FILE: &str = "reserve";
/// For a manifest of 2,500 segments, and for folders and files that need a block more to list what they hold.
const RESERVE_BYTES: usize = 64 << 10;

/// One of the two directories.
#[derive(Debug)]
pub(super) struct Side {
    pub name: &'static str,
    pub dir: PathBuf,
}

impl Side {
    pub fn partition(&self, id: u32) -> PathBuf {
        self.dir.join(format!("p{id}"))
    }

    /// Turns "no space" into the error that says which side is full.
    pub fn full<'a>(
        &'a self,
        path: &'a Path,
        bytes: u64,
    ) -> impl Fn(StorageError) -> StorageError + 'a {
        move |error| match error {
            StorageError::Io { error, .. } if is_full(&error) => {
                StorageError::NoSpace { side: self.name, path: path.to_owned(), bytes }
            }
            other => other,
        }
    }

    /// Holds the reserve, or what there is room for of it.
    ///
    /// Segments are removed only when a manifest says so, and a manifest, like the name of the segment that cleaning
    /// moves records to, may need a block of a disk that has none: without a reserve, what is full stays so.
    pub fn hold_reserve(&self) -> Result<(), StorageError> {
        let path = self.dir.join(RESERVE_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let held = file.and_then(|file| allocate(&file, 0, RESERVE_BYTES));
        held.map_err(io_error("allocate", &path)).map_err(self.full(&path, RESERVE_BYTES as u64))
    }

    /// Performs what frees room in the end, with the help of the reserve if it must be.
    pub fn with_reserve<T>(
        &self,
        path: &Path,
        bytes: u64,
        step: impl Fn() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let first = step().map_err(self.full(path, bytes));
        if !first.as_ref().is_err_and(StorageError::is_no_space) || !self.give_reserve() {
            return first;
        }
        let second = step().map_err(self.full(path, bytes));
        // The rest of it is taken again before a spare is made.
        drop(self.hold_reserve());
        second
    }

    /// Whether that gave anything.
    fn give_reserve(&self) -> bool {
        let give = || -> io::Result<bool> {
            let file = OpenOptions::new().write(true).open(self.dir.join(RESERVE_FILE))?;
            let held = file.metadata()?.blocks() > 0;
            file.set_len(0)?;
            Ok(held)
        };
        give().unwrap_or(false)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
