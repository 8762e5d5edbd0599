//! The storage thread's work, one job at a time.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::files::{
    create_disk, create_memory, io_error, make_dir, names, remove, rename, replace, sync_dir,
    write_zeros,
};
use super::side::Side;
use super::{Done, HugePages, Job, Spare, SpareId, StorageError};
use crate::blank;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::memory::Memory;
use crate::segment::{Bound, SegmentHead, SegmentName};

/// The two directories.
#[derive(Debug)]
pub struct Storage {
    pub(super) memory: Side,
    pub(super) data: Side,
    pub(super) huge_pages: Option<HugePages>,
}

impl Storage {
    /// Over directories that exist. Removes what an earlier process held or left half made; a file system without a
    /// block has some then.
    pub fn start(memory_dir: PathBuf, data_dir: PathBuf) -> Result<Self, StorageError> {
        let storage = Self {
            memory: Side { name: "memory_dir", dir: memory_dir },
            data: Side { name: "data_dir", dir: data_dir },
            huge_pages: None,
        };
        storage.memory.clear()?;
        storage.data.clear()?;
        Ok(storage)
    }

    /// Segments get huge pages where they can have them.
    #[must_use]
    pub fn with_huge_pages(self, huge_pages: HugePages) -> Self {
        Self { huge_pages: Some(huge_pages), ..self }
    }

    /// The partitions that have a folder in either directory.
    pub fn partitions(&self) -> Result<Vec<u32>, StorageError> {
        let mut ids: Vec<u32> = Vec::new();
        for side in [&self.memory, &self.data] {
            let found = names(&side.dir)?;
            ids.extend(found.iter().filter_map(|n| n.strip_prefix('p')?.parse::<u32>().ok()));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Performs a job. Blocks.
    pub fn perform(&mut self, job: Job) -> Done {
        match job {
            Job::CreateSpare { id, bytes, disk, zeroed } => {
                let result = self.create_spare(id, bytes, disk, zeroed).map(Box::new);
                Done::Spare { id, result }
            }
            Job::DropSpare { spare } => {
                let id = spare.id;
                drop(spare);
                Done::SpareDropped { id, result: self.remove_spare(id) }
            }
            Job::Bind { spare, head } => {
                let id = spare.id;
                let result = self.bind(*spare, head).map(Box::new);
                let result = result.inspect_err(|_| drop(self.remove_spare(id)));
                Done::Bound { partition: head.partition, name: head.name, result }
            }
            Job::Manifest { manifest, disk, ticket } => Done::Manifest {
                partition: manifest.partition,
                ticket,
                result: self.save(&manifest, disk),
            },
            Job::Unlink { partition, name, memory, disk } => {
                drop(disk);
                drop(memory);
                let file = name.to_string();
                let data = remove(&self.data.partition(partition).join(&file));
                let result =
                    data.and_then(|()| remove(&self.memory.partition(partition).join(&file)));
                Done::Unlinked { partition, name, result }
            }
            Job::Recycle { id, partition, name, memory } => {
                self.recycle(id, partition, name, memory)
            }
            Job::Open { table, partition, incarnation, disk, create } => {
                let result = self.open(table, partition, incarnation, disk, create).map(Box::new);
                Done::Opened { partition, result }
            }
            Job::Remove { partition } => {
                Done::Removed { partition, result: self.remove_partition(partition) }
            }
        }
    }

    fn create_spare(
        &mut self,
        id: SpareId,
        bytes: usize,
        disk: bool,
        zeroed: bool,
    ) -> Result<Spare, StorageError> {
        // What stopped it is the error to tell, not what stops the tidying.
        let made = self.try_create_spare(id, bytes, disk, zeroed);
        made.inspect_err(|_| drop(self.remove_spare(id)))
    }

    fn try_create_spare(
        &mut self,
        id: SpareId,
        bytes: usize,
        disk: bool,
        zeroed: bool,
    ) -> Result<Spare, StorageError> {
        let path = |side: &Side, end: &str| side.dir.join(format!("spare-{}.{end}", id.0));
        let allocate_disk = || {
            let side = &self.data;
            side.hold_reserve()?;
            let tmp = path(side, "tmp");
            create_disk(&tmp, bytes).map_err(side.full(&tmp, bytes as u64))
        };
        // First, because on a full disk this is tried again and again, and memory with its pages is dear.
        let on_disk = disk.then(allocate_disk).transpose()?;
        let side = &self.memory;
        side.hold_reserve()?;
        let tmp = path(side, "tmp");
        let memory = create_memory(&tmp, bytes, self.huge_pages.as_mut())
            .map_err(side.full(&tmp, bytes as u64))?;
        rename(&tmp, &path(side, "seg"))?;
        if let Some(file) = &on_disk {
            let side = &self.data;
            let tmp = path(side, "tmp");
            if zeroed {
                write_zeros(file, &memory, &tmp).map_err(side.full(&tmp, bytes as u64))?;
            }
            rename(&tmp, &path(side, "seg"))?;
            sync_dir(&side.dir)?;
        }
        Ok(Spare { id, memory, disk: on_disk })
    }

    /// Renamed first: a process that is killed before the mark is there leaves a spare, which the next one
    /// removes unread.
    fn recycle(&self, id: SpareId, partition: u32, name: SegmentName, mut memory: Memory) -> Done {
        let side = &self.memory;
        let path = side.partition(partition).join(name.to_string());
        match rename(&path, &side.dir.join(id.file())) {
            Ok(()) => {
                blank::forget(&mut memory);
                let spare = Ok(Box::new(Spare { id, memory, disk: None }));
                Done::Recycled { id, partition, name, spare, unlinked: Ok(()) }
            }
            Err(error) => {
                drop(memory);
                let unlinked = remove(&path);
                Done::Recycled { id, partition, name, spare: Err(error), unlinked }
            }
        }
    }

    fn remove_spare(&self, id: SpareId) -> Result<(), StorageError> {
        let mut result = Ok(());
        for side in [&self.data, &self.memory] {
            for end in ["tmp", "seg"] {
                result = result.and(remove(&side.dir.join(format!("spare-{}.{end}", id.0))));
            }
        }
        result
    }

    /// Header first, then the name: a file that has a segment's name has its first page.
    fn bind(&self, mut spare: Spare, head: SegmentHead) -> Result<Bound, StorageError> {
        let first = head.encode();
        spare.memory.slice_mut(0, first.len()).copy_from_slice(&first);
        if let Some(disk) = &spare.disk {
            let side = &self.data;
            let path = side.dir.join(spare.id.file());
            let page = &spare.memory.bytes()[..SEGMENT_HEAD_BYTES];
            let write = || disk.file.write_all_at(page, 0).and_then(|()| disk.file.sync_all());
            side.with_reserve(&path, 0, || write().map_err(io_error("write", &path)))?;
            let dir = name_segment(side, &spare, &head)?;
            sync_dir(&dir)?;
        }
        name_segment(&self.memory, &spare, &head)?;
        Ok(Bound { head, memory: spare.memory, disk: spare.disk })
    }

    /// Disk first: memory alone is never ahead.
    pub(super) fn save(&self, manifest: &Manifest, disk: bool) -> Result<(), StorageError> {
        let bytes = manifest.encode();
        for side in [disk.then_some(&self.data), Some(&self.memory)].into_iter().flatten() {
            let dir = side.partition(manifest.partition);
            side.with_reserve(&dir, bytes.len() as u64, || {
                make_dir(&dir)?;
                replace(&dir, MANIFEST_FILE, &bytes)
            })?;
        }
        Ok(())
    }

    /// Renamed first, so that a crash in between leaves nothing that looks damaged; and memory first, because a disk
    /// alone is what any restart of the machine leaves. (Memory alone would be a disk that has lost its manifest.)
    fn remove_partition(&self, partition: u32) -> Result<(), StorageError> {
        for side in [&self.memory, &self.data] {
            let dir = side.partition(partition);
            if !dir.exists() {
                continue;
            }
            let gone = side.dir.join(format!("p{partition}.gone"));
            rename(&dir, &gone)?;
            sync_dir(&side.dir)?;
            std::fs::remove_dir_all(&gone).map_err(io_error("remove the folder", &gone))?;
        }
        Ok(())
    }
}

/// Gives a spare its name in the folder of its partition, which it returns.
fn name_segment(side: &Side, spare: &Spare, head: &SegmentHead) -> Result<PathBuf, StorageError> {
    let dir = side.partition(head.partition);
    let (from, to) = (side.dir.join(spare.id.file()), dir.join(head.name.to_string()));
    side.with_reserve(&dir, 0, || {
        make_dir(&dir)?;
        rename(&from, &to)
    })?;
    Ok(dir)
}
