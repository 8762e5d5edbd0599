//! One of the two directories, and the little room in it that is held back.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::StorageError;
use super::files::{allocate, io_error, names, remove};

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
        if !matches!(first, Err(StorageError::NoSpace { .. })) || !self.give_reserve() {
            return first;
        }
        let second = step().map_err(self.full(path, bytes));
        // The rest of it is taken again before a spare is made.
        drop(self.hold_reserve());
        second
    }

    /// Its blocks, and its place among the files that the file system has room for. Whether it was there.
    fn give_reserve(&self) -> bool {
        fs::remove_file(self.dir.join(RESERVE_FILE)).is_ok()
    }

    /// Removes what an earlier process held or left half made: the reserve, spares, and folders of removed partitions.
    pub fn clear(&self) -> Result<(), StorageError> {
        self.give_reserve();
        for name in names(&self.dir)? {
            let path = self.dir.join(&name);
            let number = name.strip_prefix("spare-").and_then(|n| n.split('.').next());
            if number.is_some_and(|n| n.parse::<u64>().is_ok()) {
                remove(&path)?;
            }
            let gone = name.strip_prefix('p').and_then(|n| n.strip_suffix(".gone"));
            if gone.is_some_and(|n| n.parse::<u32>().is_ok()) {
                fs::remove_dir_all(&path).map_err(io_error("remove the folder", &path))?;
            }
        }
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
