//! What can go wrong with a brick as a whole, in sentences for the person who started it.
//!
//! A sentence says what is wrong, with which value, and what to do. Exit codes are the command's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use firebrick_partition::log::storage::StorageError;

/// Why a brick does not start, or a rare request to it failed.
#[derive(Debug)]
pub enum BrickError {
    /// The configuration is wrong: one sentence for each mistake.
    Config(Vec<String>),
    /// The host cannot run a brick: one sentence for each finding of the module `check`.
    Host(Vec<String>),
    /// Another brick holds one of the folders.
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as can be told.
        holder: String,
    },
    /// A file call failed.
    File {
        /// What was being done: "create", "read", ...
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A file of ours was written by a newer version.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A file of ours does not make sense.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A folder holds something that is not this brick's.
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What is there, and what to do.
        what: String,
    },
    /// A port is taken.
    PortTaken {
        /// The key of the configuration: `listen`, `resp`, `http`.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The process that listens there, as far as can be told.
        holder: Option<String>,
    },
    /// Listening failed for another reason.
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The kernel's word.
        source: io::Error,
    },
    /// The keepers do not take this brick; the sentence says why.
    Cluster(String),
    /// The brick was removed from its cluster; the sentence says what to do.
    Removed(String),
    /// It was told to stop before its keepers knew it: nothing is wrong.
    Stopped,
    /// A table request cannot be done; the sentence says why.
    Table(String),
    /// The kernel gives no io_uring; the sentence says why.
    Ring(firebrick_net::RingError),
    /// A replica's files cannot be used.
    Storage(StorageError),
    /// A data core gave up; the sentence says why.
    Core(String),
    /// A thread of the brick ended when it should not have.
    Thread {
        /// Its name.
        name: String,
        /// What it said.
        what: String,
    },
}

impl BrickError {
    /// For `map_err` on file calls.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }

    /// There is no room, or no file may be opened just now: it may be tried again.
    pub fn is_lack(&self) -> bool {
        match self {
            Self::File { source, .. } => is_lack(source),
            Self::Storage(error) => error.is_no_space(),
            _ => false,
        }
    }

    /// The sentence for a listen error on the address of `key`; finds who holds a taken port.
    pub fn listen(key: &'static str, address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            let holder = crate::check::port_holder(address.port());
            return Self::PortTaken { key, address, holder };
        }
        Self::Listen { key, address, source }
    }
}

impl fmt::Display for BrickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(sentences) | Self::Host(sentences) => f.write_str(&sentences.join("\n")),
            Self::Locked { path, holder } => write!(
                f,
                "{} is locked by {holder}; a folder serves one brick at a time: stop that one, or \
                 give this brick its own data_dir and memory_dir",
                path.display()
            ),
            Self::File { doing, path, source } => {
                write!(f, "cannot {doing} {}: {}{}", path.display(), source, advice(source))
            }
            Self::NewerFormat { path, found, known } => write!(
                f,
                "{} has format {found}, but this version of firebrick knows formats up to {known}; \
                 nothing was changed: start the newer version that wrote it",
                path.display()
            ),
            Self::Damaged { path, what } => write!(
                f,
                "{} is damaged: {what}; nothing was changed: restore the file from a backup, or \
                 move the folder away to start empty",
                path.display()
            ),
            Self::Foreign { path, what } => write!(f, "{}: {what}", path.display()),
            Self::PortTaken { key, address, holder } => {
                let holder = holder.as_deref().unwrap_or("another process");
                write!(
                    f,
                    "{key} = {address}: port {} is taken by {holder}; stop it, or choose another \
                     port with {key} (--{key})",
                    address.port()
                )
            }
            Self::Listen { key, address, source } => write!(
                f,
                "cannot listen on {key} = {address}: {source}; give an address of this host and a \
                 port this user may open with {key} (--{key})"
            ),
            Self::Table(sentence) | Self::Cluster(sentence) | Self::Removed(sentence) => {
                f.write_str(sentence)
            }
            Self::Stopped => f.write_str("the brick was stopped while it waited for its keepers"),
            Self::Ring(error) => write!(f, "{error}"),
            Self::Storage(error) => write!(f, "{error}"),
            Self::Core(what) => f.write_str(what),
            Self::Thread { name, what } => write!(f, "the thread {name} ended: {what}"),
        }
    }
}

impl std::error::Error for BrickError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Listen { source, .. } => Some(source),
            Self::Ring(error) => Some(error),
            Self::Storage(error) => Some(error),
            _ => None,
        }
    }
}

/// As [`BrickError::is_lack`].
pub(crate) fn is_lack(error: &io::Error) -> bool {
    let lacks = [libc::ENOSPC, libc::EDQUOT, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| lacks.contains(&code))
}

/// What a person can do about the common file errors.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "; give this user the right to it, or choose another folder"
        }
        Some(libc::ENOSPC | libc::EDQUOT) => "; make room there, or choose another folder",
        Some(libc::EROFS) => "; the file system is read-only: repair it, or choose another folder",
        Some(libc::ENOTDIR) => "; part of the path is a file: choose another folder",
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit of open files (ulimit -n)",
        _ => "",
    }
}
