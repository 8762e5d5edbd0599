//! What is asked of the storage thread, and what it answers.

use super::{DiskFile, StorageError};
use crate::manifest::{Incarnation, Manifest};
use crate::memory::Memory;
use crate::segment::{Bound, SegmentHead, SegmentName};

/// Names a spare on disk until it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpareId(pub u64);

impl SpareId {
    /// The name of its file.
    pub(super) fn file(self) -> String {
        format!("spare-{}.seg", self.0)
    }
}

/// A segment without a name yet: allocated on both sides, zeroed, its pages there.
#[derive(Debug)]
pub struct Spare {
    pub(crate) id: SpareId,
    pub(crate) memory: Memory,
    pub(crate) disk: Option<DiskFile>,
}

impl Spare {
    /// Heap memory, for logs in heap that are told to ration their segments.
    pub fn in_heap(bytes: usize) -> Self {
        Self { id: SpareId(0), memory: Memory::heap(bytes), disk: None }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.size()
    }

    /// Its side in `data_dir` takes no direct writes: they go through the page cache.
    pub fn is_buffered(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| !disk.is_direct())
    }

    /// It has a side in `data_dir`.
    pub fn has_disk(&self) -> bool {
        self.disk.is_some()
    }
}

/// One job for the storage thread. Jobs of one partition are performed in order.
#[derive(Debug)]
pub enum Job {
    /// Make an unbound segment.
    CreateSpare {
        /// New for each.
        id: SpareId,
        /// Size.
        bytes: usize,
        /// Also in `data_dir`.
        disk: bool,
        /// Zeros are written there, not only space taken.
        zeroed: bool,
    },
    /// Give a spare back to the file system.
    DropSpare {
        /// It.
        spare: Box<Spare>,
    },
    /// Give a spare its name.
    Bind {
        /// It.
        spare: Box<Spare>,
        /// What it becomes.
        head: SegmentHead,
    },
    /// Replace the manifest.
    Manifest {
        /// Its new content.
        manifest: Box<Manifest>,
        /// Also (and first) in `data_dir`.
        disk: bool,
        /// Returned with the answer.
        ticket: u64,
    },
    /// Remove a segment: on disk first, then its memory.
    Unlink {
        /// Partition id.
        partition: u32,
        /// The segment.
        name: SegmentName,
        /// Its memory, unmapped here (that can take long).
        memory: Memory,
        /// Its data file, closed here.
        disk: Option<DiskFile>,
    },
    /// Remove a segment that has no side in `data_dir`, and make its memory an unbound one: the pages
    /// are there, and mapped, which is what takes long.
    Recycle {
        /// New for each.
        id: SpareId,
        /// Partition id.
        partition: u32,
        /// The segment.
        name: SegmentName,
        /// Its memory.
        memory: Memory,
    },
    /// Open a replica, from memory if that counts, else from disk.
    Open {
        /// Table id.
        table: u32,
        /// Partition id.
        partition: u32,
        /// This start's.
        incarnation: Incarnation,
        /// It has a side in `data_dir`.
        disk: bool,
        /// Make it if there is none.
        create: bool,
    },
    /// Delete a replica's folders.
    Remove {
        /// Partition id.
        partition: u32,
    },
}

/// Where an opened replica's records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// New: there are none.
    New,
    /// Memory that outlived the process.
    Memory,
    /// Disk.
    Disk,
}

/// A replica's files, mapped.
#[derive(Debug)]
pub struct Opened {
    /// The manifest as found (and, by now, rewritten for this incarnation).
    pub manifest: Manifest,
    /// All segments that count, in no particular order.
    pub segments: Vec<Bound>,
    /// Where they come from.
    pub source: Source,
    /// What was done that a person may want to know, a sentence each (orphans deleted, ...).
    pub notes: Vec<String>,
    /// Segments whose first page is damaged (rebuilt in memory from what else is known).
    pub damaged: Vec<SegmentName>,
}

/// The answer to a [`Job`].
#[derive(Debug)]
pub enum Done {
    /// To `CreateSpare`.
    Spare {
        /// The job's.
        id: SpareId,
        /// The spare.
        result: Result<Box<Spare>, StorageError>,
    },
    /// To `DropSpare`.
    SpareDropped {
        /// The job's.
        id: SpareId,
        /// Nothing.
        result: Result<(), StorageError>,
    },
    /// To `Bind`.
    Bound {
        /// Partition id.
        partition: u32,
        /// The name.
        name: SegmentName,
        /// The segment.
        result: Result<Box<Bound>, StorageError>,
    },
    /// To `Manifest`.
    Manifest {
        /// Partition id.
        partition: u32,
        /// The job's.
        ticket: u64,
        /// Nothing.
        result: Result<(), StorageError>,
    },
    /// To `Unlink`.
    Unlinked {
        /// Partition id.
        partition: u32,
        /// The segment.
        name: SegmentName,
        /// Nothing.
        result: Result<(), StorageError>,
    },
    /// To `Recycle`.
    Recycled {
        /// The job's.
        id: SpareId,
        /// Partition id.
        partition: u32,
        /// The name.
        name: SegmentName,
        /// What the segment has become.
        spare: Result<Box<Spare>, StorageError>,
        /// Whether it is gone, as after `Unlink`.
        unlinked: Result<(), StorageError>,
    },
    /// To `Open`.
    Opened {
        /// Partition id.
        partition: u32,
        /// The replica.
        result: Result<Box<Opened>, StorageError>,
    },
    /// To `Remove`.
    Removed {
        /// Partition id.
        partition: u32,
        /// Nothing.
        result: Result<(), StorageError>,
    },
}

impl Done {
    /// A recycled segment is two answers: to the pool a spare, to its log an unlinked segment.
    pub fn apart(self) -> (Option<Self>, Self) {
        match self {
            Self::Recycled { id, partition, name, spare, unlinked } => (
                Some(Self::Spare { id, result: spare }),
                Self::Unlinked { partition, name, result: unlinked },
            ),
            done => (None, done),
        }
    }

    /// The partition it concerns; `None` for spares, which are the pool's.
    pub fn partition(&self) -> Option<u32> {
        match self {
            Self::Spare { .. } | Self::SpareDropped { .. } => None,
            Self::Bound { partition, .. }
            | Self::Manifest { partition, .. }
            | Self::Unlinked { partition, .. }
            | Self::Recycled { partition, .. }
            | Self::Opened { partition, .. }
            | Self::Removed { partition, .. } => Some(*partition),
        }
    }
}
