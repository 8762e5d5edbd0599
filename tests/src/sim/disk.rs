//! A machine's disk, as far as one partition is concerned: what was written, by segment.

use std::collections::BTreeMap;

use firebrick_log::FlushOp;
use firebrick_log::manifest::Manifest;
use firebrick_log::segment::{Bound, SegmentHead, SegmentKind, SegmentName};
use firebrick_log::storage::Opened;

/// See the module's text. A write is there when it is answered; a crash forgets those under way.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<SegmentName, Vec<u8>>,
    flying: Vec<FlushOp>,
}

const HEAD_BYTES: usize = 4096;

impl Disk {
    /// A write is under way.
    pub fn write(&mut self, op: FlushOp) {
        self.flying.push(op);
    }

    /// Writes under way.
    pub fn flying(&self) -> usize {
        self.flying.len()
    }

    /// The oldest write under way arrives.
    pub fn land(&mut self) -> Option<FlushOp> {
        if self.flying.is_empty() {
            return None;
        }
        let op = self.flying.remove(0);
        let (start, end) = (op.offset as usize, op.offset as usize + op.len as usize);
        let file = self.files.entry(op.segment).or_insert_with(|| {
            // The storage thread writes the first page before a segment is used.
            // SAFETY: the segment's memory begins `offset` bytes before what is to be written, and stays
            // SAFETY: mapped while the write is under way.
            let head = unsafe { std::slice::from_raw_parts(op.ptr.sub(start), HEAD_BYTES) };
            let bytes = SegmentHead::decode(head).map_or(end as u64, |head| head.bytes);
            let mut file = head.to_vec();
            file.resize(bytes as usize, 0);
            file
        });
        // SAFETY: the log keeps these bytes mapped until the write is answered.
        let bytes = unsafe { std::slice::from_raw_parts(op.ptr, op.len as usize) };
        file[start..end].copy_from_slice(bytes);
        Some(op)
    }

    /// Before a new process counts anything as flushed, the storage thread writes what the one before had in memory of the
    /// tail's end, as in `log/src/storage/open.rs`: its last two segments with records, and those behind them.
    pub fn write_again(&mut self, opened: &Opened) {
        let in_tail = |segment: &&Bound| {
            let name = segment.head().name;
            name.kind == SegmentKind::Tail && name.n >= opened.manifest.lowest
        };
        let tail: Vec<&Bound> = opened.segments.iter().filter(in_tail).collect();
        let filled = |at: &usize| tail[*at].bytes()[HEAD_BYTES..][..8] != [0; 8];
        let from = (0..tail.len()).rev().filter(filled).take(2).last().unwrap_or(0);
        for segment in &tail[from..] {
            self.files.insert(segment.head().name, segment.bytes().to_vec());
        }
    }

    /// The process is gone: what was under way never arrives.
    pub fn drop_flying(&mut self) {
        self.flying.clear();
    }

    /// What is there after a power failure, as far as the manifest says that it counts.
    pub fn segments(&self, manifest: &Manifest) -> Vec<Bound> {
        let listed = |name: &SegmentName| manifest.settled.iter().any(|l| l.name == *name);
        let in_tail =
            |name: &SegmentName| name.kind == SegmentKind::Tail && name.n >= manifest.lowest;
        let counts = self.files.iter().filter(|(name, _)| in_tail(name) || listed(name));
        counts.filter_map(|(_, file)| Bound::from_image(file).ok()).collect()
    }
}
