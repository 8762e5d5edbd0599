//! Opening a replica at start: from memory that outlived the process if it counts, else from disk.
//!
//! Memory counts only if it was made in this boot of the kernel and carries the nonce that the disk
//! names (the present one, or the one before while memory may still carry that). The order of writes:
//! `data_dir`'s manifest with both nonces, then memory's with the new one; a kill in between leaves a
//! pair that still matches.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::check::{self, Present};
use super::files::{
    create_disk, create_memory, io_error, open_disk, open_memory, remove, rename, sync_dir,
};
use super::{DiskFile, Opened, Source, Storage, StorageError};
use crate::blank;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::manifest::{Incarnation, MANIFEST_FILE, Manifest};
use crate::memory::Memory;
use crate::segment::{Bound, SegmentKind, SegmentName};

/// One read of a segment at load.
const LOAD_BYTES: usize = 4 << 20;

impl Storage {
    pub(super) fn open(
        &mut self,
        table: u32,
        partition: u32,
        incarnation: Incarnation,
        disk: bool,
        create: bool,
    ) -> Result<Opened, StorageError> {
        let (memory_dir, data_dir) =
            (self.memory.partition(partition), self.data.partition(partition));
        let in_memory = check::manifest(&memory_dir, partition)?;
        let on_disk = if disk { check::manifest(&data_dir, partition)? } else { None };
        let home = if disk { &data_dir } else { &memory_dir };
        let known = if disk { on_disk.clone() } else { in_memory.clone() };
        let Some(known) = known else {
            let empty = check::segments(home, partition)?.is_empty();
            if !empty || !create || in_memory.is_some() {
                return Err(StorageError::MissingManifest { path: home.join(MANIFEST_FILE) });
            }
            return self.open_new(table, partition, incarnation, disk, true, Vec::new());
        };
        let counts = in_memory.as_ref().is_some_and(|m| {
            let (ours, theirs) = (&m.incarnation, &known.incarnation);
            let nonce = ours.nonce == theirs.nonce
                || (theirs.nonce_before != 0 && ours.nonce == theirs.nonce_before);
            ours.boot_id == incarnation.boot_id && ours.brick == incarnation.brick && nonce
        });
        match (counts, in_memory) {
            (true, Some(manifest)) => self.open_memory_side(manifest, incarnation, disk),
            _ if disk => self.open_disk_side(known, incarnation),
            _ => {
                // A `memory` table of an earlier boot, or of another brick: nothing of it counts.
                let stale = check::segments(&memory_dir, partition)?;
                remove(&memory_dir.join(MANIFEST_FILE))?;
                for present in &stale {
                    remove(&memory_dir.join(present.head.name.to_string()))?;
                }
                let note = format!(
                    "partition {partition} keeps its records in memory only, and the machine was \
                     started again: it begins empty"
                );
                self.open_new(table, partition, incarnation, disk, false, vec![note])
            }
        }
    }

    fn open_new(
        &self,
        table: u32,
        partition: u32,
        incarnation: Incarnation,
        disk: bool,
        intact: bool,
        notes: Vec<String>,
    ) -> Result<Opened, StorageError> {
        let mut manifest = Manifest::new(table, partition, incarnation);
        manifest.intact = intact;
        self.save(&manifest, disk)?;
        let damaged = Vec::new();
        Ok(Opened { manifest, segments: Vec::new(), source: Source::New, notes, damaged })
    }

    fn open_memory_side(
        &self,
        mut manifest: Manifest,
        incarnation: Incarnation,
        disk: bool,
    ) -> Result<Opened, StorageError> {
        let dir = self.memory.partition(manifest.partition);
        let mut notes = Vec::new();
        let present = Self::keep_listed(&dir, &mut manifest, &mut notes)?;
        if disk {
            // Orphans on disk too: nothing in memory names them.
            let data = self.data.partition(manifest.partition);
            Self::keep_listed(&data, &mut manifest.clone(), &mut notes)?;
        }
        let mut segments = Vec::with_capacity(present.len());
        for p in &present {
            let mut memory = open_memory(&dir.join(p.head.name.to_string()))?;
            blank::complete(&mut memory);
            segments.push(Bound { head: p.head, memory, disk: None });
        }
        if disk {
            self.flush_again(&manifest, &mut segments)?;
        }
        let before = manifest.incarnation.nonce;
        manifest.incarnation = Incarnation { nonce_before: before, ..incarnation };
        self.save(&manifest, disk)?;
        manifest.incarnation.nonce_before = 0;
        let damaged = damaged(&present);
        Ok(Opened { manifest, segments, source: Source::Memory, notes, damaged })
    }

    /// The last two tail segments with records, and the empty ones behind them, go into new files: the
    /// dead process's last write may still land in the old ones.
    fn flush_again(&self, manifest: &Manifest, segments: &mut [Bound]) -> Result<(), StorageError> {
        let dir = self.data.partition(manifest.partition);
        let tails = segments.iter().filter(|s| is_tail(manifest, s.head.name));
        let mut filled: Vec<u64> =
            tails.filter(|s| has_records(s.bytes())).map(|s| s.head.name.n).collect();
        filled.sort_unstable();
        let from = filled.iter().rev().nth(1).or(filled.first()).copied().unwrap_or(0);
        for bound in segments {
            let path = dir.join(bound.head.name.to_string());
            let again = is_tail(manifest, bound.head.name) && bound.head.name.n >= from;
            let disk = if again || !path.exists() {
                write_again(&path, &bound.memory)
                    .map_err(self.data.full(&path, bound.head.bytes))?
            } else {
                open_disk(&path)?
            };
            bound.disk = Some(disk);
        }
        sync_dir(&dir)
    }

    fn open_disk_side(
        &mut self,
        mut manifest: Manifest,
        incarnation: Incarnation,
    ) -> Result<Opened, StorageError> {
        let (dir, memory_dir) =
            (self.data.partition(manifest.partition), self.memory.partition(manifest.partition));
        let mut notes = Vec::new();
        // What lies in memory_dir does not count; its manifest goes first.
        let stale = check::segments(&memory_dir, manifest.partition)?;
        let present = Self::keep_listed(&dir, &mut manifest, &mut notes)?;
        remove(&memory_dir.join(MANIFEST_FILE))?;
        for s in &stale {
            remove(&memory_dir.join(s.head.name.to_string()))?;
        }
        super::files::make_dir(&memory_dir)?;
        let mut segments = Vec::with_capacity(present.len());
        for p in &present {
            let file = p.head.name.to_string();
            let tmp = memory_dir.join(format!("{file}.tmp"));
            remove(&tmp)?;
            let bytes = p.head.bytes as usize;
            let memory = create_memory(&tmp, bytes, self.huge_pages.as_mut())
                .map_err(self.memory.full(&tmp, bytes as u64))?;
            let path = dir.join(&file);
            let disk = open_disk(&path)?;
            let memory = load(&disk, memory, &path)?;
            rename(&tmp, &memory_dir.join(&file))?;
            segments.push(Bound { head: p.head, memory, disk: Some(disk) });
        }
        manifest.incarnation = incarnation;
        self.save(&manifest, true)?;
        Ok(Opened { manifest, segments, source: Source::Disk, notes, damaged: damaged(&present) })
    }

    /// The segments that count. Orphans (ours, but neither listed nor in the tail) are deleted; a gap
    /// or a missing segment means that the log is not intact.
    fn keep_listed(
        dir: &Path,
        manifest: &mut Manifest,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Present>, StorageError> {
        let all = check::segments(dir, manifest.partition)?;
        let (keep, orphans): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| {
            let name = p.head.name;
            is_tail(manifest, name) || manifest.settled.iter().any(|l| l.name == name)
        });
        for orphan in orphans {
            let path = dir.join(orphan.head.name.to_string());
            remove(&path)?;
            notes.push(format!("{} was an orphan of cleaning and is deleted", path.display()));
        }
        for file in super::files::names(dir)?.iter().filter(|f| check::is_temporary(f)) {
            remove(&dir.join(file))?;
        }
        let mut missing: Vec<SegmentName> = manifest.settled.iter().map(|l| l.name).collect();
        missing.retain(|name| !keep.iter().any(|p| p.head.name == *name));
        let tails = keep.iter().filter(|p| is_tail(manifest, p.head.name));
        let last = tails.map(|p| p.head.name.n).max().unwrap_or(0);
        let tail = |n| SegmentName { kind: SegmentKind::Tail, n };
        missing.extend(
            (manifest.lowest..=last)
                .map(tail)
                .filter(|name| !keep.iter().any(|p| p.head.name == *name))
                .take(16),
        );
        for name in missing {
            manifest.intact = false;
            notes.push(format!(
                "{} is missing: its records are lost here",
                dir.join(name.to_string()).display()
            ));
        }
        Ok(keep)
    }
}

fn is_tail(manifest: &Manifest, name: SegmentName) -> bool {
    name.kind == SegmentKind::Tail && name.n >= manifest.lowest
}

fn damaged(present: &[Present]) -> Vec<SegmentName> {
    present.iter().filter(|p| p.damaged).map(|p| p.head.name).collect()
}

fn has_records(bytes: &[u8]) -> bool {
    bytes[SEGMENT_HEAD_BYTES..].iter().take(8).any(|&b| b != 0)
}

/// Writes a segment's memory to a new file and renames it over the old one.
fn write_again(path: &Path, memory: &Memory) -> Result<DiskFile, StorageError> {
    let tmp = path.with_extension("seg.tmp");
    remove(&tmp)?;
    let disk = create_disk(&tmp, memory.size())?;
    let used = memory.bytes().iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
    let used = used.next_multiple_of(disk.align()).min(memory.size());
    let written = disk.file.write_all_at(&memory.bytes()[..used], 0);
    written.and_then(|()| disk.file.sync_all()).map_err(io_error("write", &tmp))?;
    rename(&tmp, path)?;
    Ok(disk)
}

fn load(disk: &DiskFile, mut memory: Memory, path: &Path) -> Result<Memory, StorageError> {
    let mut at = 0;
    while at < memory.size() {
        let len = LOAD_BYTES.min(memory.size() - at);
        let read = disk.file.read_exact_at(memory.slice_mut(at, len), at as u64);
        read.map_err(io_error("read", path))?;
        at += len;
    }
    Ok(memory)
}
