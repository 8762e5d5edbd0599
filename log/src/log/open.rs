//! Making a log of files that were there before.

use super::{Log, LogConfig, Scan};
use crate::manifest::Listed;
use crate::segment::{Bound, Segment, SegmentKind};
use crate::storage::{Opened, Source};

impl Log {
    /// A log over what the storage thread opened. It takes appends once the scan is over.
    pub fn open(cfg: LogConfig, opened: Opened) -> (Self, Scan) {
        Self::open_with(cfg, opened, true)
    }

    /// As [`Log::open`], in heap memory: segments are made at once, no job is asked for.
    pub fn open_in_heap(cfg: LogConfig, opened: Opened) -> (Self, Scan) {
        let (mut log, scan) = Self::open_with(cfg, opened, false);
        log.heap = Some(usize::MAX);
        (log, scan)
    }

    fn open_with(cfg: LogConfig, opened: Opened, has_files: bool) -> (Self, Scan) {
        let Opened { manifest, mut segments, source, damaged, .. } = opened;
        let mut log = Self::empty(cfg, manifest);
        log.has_files = has_files;
        segments.sort_by_key(|s| s.head.name);
        let lowest = log.manifest.lowest;
        for bound in segments {
            let name = bound.head.name;
            let mut segment = Segment::new(bound);
            // Until the scan knows better.
            segment.end = segment.size();
            segment.closed = true;
            let slot = log.place(segment);
            let in_tail = name.kind == SegmentKind::Tail && name.n >= lowest;
            if in_tail {
                log.tail_slots.push_back(slot);
            } else {
                log.settled_slots.push(slot);
            }
            let supply = match name.kind {
                SegmentKind::Tail => &mut log.tails,
                SegmentKind::Settled => &mut log.settleds,
            };
            supply.next_n = supply.next_n.max(name.n + 1);
        }
        let scan = Scan::new(&log, source, &damaged);
        (log, scan)
    }

    /// What a `kill -9` leaves of a log in heap memory: its segments and its manifest.
    pub fn crash(mut self) -> Opened {
        self.count_segments();
        let lowest = self.manifest.lowest;
        let counts = |listed: &[Listed], segment: &Segment| {
            let name = segment.name();
            let in_tail = name.kind == SegmentKind::Tail && name.n >= lowest;
            in_tail || listed.iter().any(|l| l.name == name)
        };
        let listed = std::mem::take(&mut self.manifest.settled);
        let segments = self
            .slots
            .drain(..)
            .flatten()
            .filter(|segment| counts(&listed, segment))
            .map(|s| Bound { head: s.head, memory: s.memory, disk: s.disk })
            .collect();
        self.manifest.settled = listed;
        Opened {
            manifest: self.manifest,
            segments,
            source: Source::Memory,
            notes: Vec::new(),
            damaged: Vec::new(),
        }
    }
}
