//! Blocking file work, called on the storage thread: jobs in, answers out.

mod check;
mod disk_file;
mod error;
mod files;
mod huge;
mod job;
mod map;
mod open;
mod perform;
mod side;
mod spares;

pub use disk_file::DiskFile;
pub use error::StorageError;
pub use huge::HugePages;
pub use job::{Done, Job, Opened, Source, Spare, SpareId};
pub use perform::Storage;
pub use spares::{ALL_SPARES, Spares, shared_bytes_least};
