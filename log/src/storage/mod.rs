//! Blocking file work, called on the storage thread: jobs in, answers out.

mod disk_file;
mod error;
mod job;

pub use disk_file::DiskFile;
pub use error::StorageError;
pub use job::{Done, Job, Opened, Source, Spare, SpareId};
