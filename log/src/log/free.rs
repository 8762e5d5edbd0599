//! Freeing an emptied segment: manifest, then disk, then memory, and not before what replaces it is
//! safe.
//!
//! A segment whose live records were copied out waits until
//! 1. its copies are durable (with the `Sessions` record written before them),
//! 2. the tail is durable up to the watermark that judged what was dead (else a power failure could
//!    take the newer record too),
//! 3. the manifest that no longer lists it is durable,
//! 4. no Slice pins it and no write of it is in flight.

use super::Log;
use crate::manifest::Listed;
use crate::segment::SegmentKind;
use crate::storage::Job;

#[derive(Clone, Copy, Debug)]
pub(super) struct Emptied {
    pub slot: u32,
    /// `settled_written` when the last live record had been copied.
    pub copies_at: u64,
    /// The commit watermark that judged.
    pub judged_at: u64,
    /// Ticket of the manifest without it.
    pub ticket: Option<u64>,
}

impl Log {
    /// Moves every emptied segment as far as it may go.
    pub(super) fn advance_frees(&mut self) {
        let mut i = 0;
        while i < self.cleaning.emptied.len() {
            let mut emptied = self.cleaning.emptied[i];
            if emptied.ticket.is_none() && self.may_unlist(&emptied) {
                emptied.ticket = Some(self.unlist(emptied.slot));
                self.cleaning.emptied[i] = emptied;
            }
            let unlisted = emptied.ticket.is_some_and(|t| t <= self.manifest_saved);
            let pinned = self.segment(emptied.slot).pins.get() > 0;
            if unlisted && !pinned && !self.is_in_flight(emptied.slot) {
                self.cleaning.emptied.swap_remove(i);
                self.free(emptied.slot);
            } else {
                i += 1;
            }
        }
    }

    /// A segment that never had a record is not needed. No manifest lists it.
    pub(super) fn give_back(&mut self, slot: u32) {
        self.flush.zeros.retain(|zeros| zeros.0 != slot);
        let ticket = Some(0);
        self.cleaning.emptied.push(Emptied { slot, copies_at: 0, judged_at: 0, ticket });
    }

    fn may_unlist(&self, emptied: &Emptied) -> bool {
        if !self.has_disk() {
            return true;
        }
        self.settled_durable() >= emptied.copies_at
            && self.flush.flushed.seq >= emptied.judged_at.min(self.tail.seq)
            && !self.flush.zeros.iter().any(|z| z.0 == emptied.slot)
    }

    /// Takes a segment out of the manifest, and puts in what holds its survivors.
    fn unlist(&mut self, slot: u32) -> u64 {
        let name = self.segment(slot).name();
        if let Some(at) = self.tail_slots.iter().position(|&s| s == slot) {
            // What was below it in the tail is settled from now on.
            let last = self.segment(slot).last;
            let below: Vec<u32> = self.tail_slots.drain(..=at).collect();
            let newest = below.iter().map(|&s| self.segment(s).last).max().unwrap_or(last);
            self.manifest.lowest = name.n + 1;
            self.manifest.below = self.manifest.below.max(newest);
            self.settled_slots.extend(below.iter().filter(|&&s| s != slot));
        }
        self.settled_slots.retain(|&s| s != slot);
        self.manifest.settled = self.list_settled();
        self.change_manifest(|_| ())
    }

    /// Settled segments as the manifest lists them.
    pub(super) fn list_settled(&self) -> Vec<Listed> {
        let listed = |log: &Log, s: u32| {
            let segment = log.segment(s);
            let end = if log.has_disk() { segment.durable } else { segment.end };
            Listed { name: segment.name(), end: end as u64 }
        };
        let unlisted =
            |s: u32| self.cleaning.emptied.iter().any(|e| e.slot == s && e.ticket.is_some());
        let slots = self.settled_slots.iter().filter(|&&s| !unlisted(s));
        slots.map(|&s| listed(self, s)).collect()
    }

    /// The slot may be used again; the files go.
    fn free(&mut self, slot: u32) {
        let Some(segment) = self.remove(slot) else { return };
        self.cleaning.freed_bytes += segment.size() as u64;
        self.flush.settled_dirty.retain(|&s| s != slot);
        if self.has_files {
            self.jobs.push_back(Job::Unlink {
                partition: self.cfg.partition,
                name: segment.name(),
                memory: segment.memory,
                disk: segment.disk,
            });
        }
        self.room_again();
    }

    /// The least `made_at_seq` of all segments but `except`: a tombstone below it hides nothing.
    pub(super) fn tombstone_floor(&self, except: u32) -> u64 {
        if crate::canary::is_on(crate::canary::Canary::TombstonesByTail) {
            return u64::MAX;
        }
        let emptied = |slot: u32| self.cleaning.emptied.iter().any(|e| e.slot == slot);
        let slots = self.tail_slots.iter().chain(&self.settled_slots);
        slots
            .filter(|&&slot| slot != except && (self.has_disk() || !emptied(slot)))
            .map(|&slot| self.segment(slot))
            .filter(|segment| !segment.is_empty() || segment.name().kind == SegmentKind::Tail)
            .map(|segment| segment.head.made_at_seq)
            .min()
            .unwrap_or(0)
    }
}
