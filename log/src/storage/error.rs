//! What can go wrong with files, in sentences for whoever runs the brick.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a file job failed. No variant leaves anything deleted that was there before.
#[derive(Debug)]
pub enum StorageError {
    /// The file system of a directory is full.
    NoSpace {
        /// Which directory: "`memory_dir`" or "`data_dir`".
        side: &'static str,
        /// The file that did not fit.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The kernel's word about a file.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its word.
        error: io::Error,
    },
    /// Segments without a manifest.
    MissingManifest {
        /// Where it should be.
        path: PathBuf,
    },
    /// Written by a newer Firebrick.
    NewerFormat {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// A file that Firebrick did not put there.
    Foreign {
        /// Which file.
        path: PathBuf,
        /// How it is seen.
        why: String,
    },
    /// A file whose own checksum does not match.
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How it is seen.
        why: String,
    },
    /// A segment that is shorter than its first page says.
    CutShort {
        /// Which file.
        path: PathBuf,
        /// Bytes there are.
        bytes: u64,
        /// Bytes there should be.
        expected: u64,
    },
}

impl StorageError {
    /// There is no room, or too little of something else: more may come when something is freed, and the file is as good
    /// as it was.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { error, .. } => {
                matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
            }
            _ => false,
        }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace { side, path, bytes } => write!(
                f,
                "{side} has no room for {bytes} bytes more ({}): remove keys, or give it more room",
                path.display()
            ),
            Self::Io { what, path, error } => {
                let advice = match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => {
                        "; raise the limit of open files (ulimit -n)"
                    }
                    Some(libc::ENOMEM) => {
                        "; raise vm.max_map_count, or give the process more memory"
                    }
                    Some(libc::EROFS) => {
                        "; the file system is read-only: repair it, and start the brick again"
                    }
                    _ => "",
                };
                write!(f, "cannot {what} {}: {error}{advice}", path.display())
            }
            Self::MissingManifest { path } => write!(
                f,
                "{} is missing, but there are segments beside it: put the manifest back, or move \
                 the folder away to start empty",
                path.display()
            ),
            Self::NewerFormat { path, format, known } => write!(
                f,
                "{} has format {format}, this program knows up to {known}: start the newer Firebrick \
                 that wrote it",
                path.display()
            ),
            Self::Foreign { path, why } => write!(
                f,
                "{} is not Firebrick's ({why}): move it out of the folder; nothing was deleted",
                path.display()
            ),
            Self::Damaged { path, why } => write!(
                f,
                "{} is damaged ({why}): restore it, or move the partition's folder away to start \
                 from another replica; nothing was deleted",
                path.display()
            ),
            Self::CutShort { path, bytes, expected } => write!(
                f,
                "{} has {bytes} bytes and should have {expected}: it was cut short; restore it, or \
                 move the partition's folder away; nothing was deleted",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
