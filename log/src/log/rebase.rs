//! A learner's log begins again: its tail goes on at the first record that it will be shipped, and
//! everything older comes by a copy.

use super::Log;
use super::free::Emptied;
use crate::manifest::Manifest;
use crate::record::Version;

impl Log {
    /// The next record is `below.seq + 1`. What is there becomes settled (`keep`; all of it is
    /// committed) or is thrown away. The ticket of the manifest that says so, after `change`.
    ///
    /// When nothing is kept, no location of this log means anything any more.
    pub fn rebase(
        &mut self,
        below: Version,
        keep: bool,
        change: impl FnOnce(&mut Manifest),
    ) -> u64 {
        assert!(self.ready && (!keep || self.tail.seq <= self.commit), "an uncommitted record");
        // The segments go: nothing may be zeroed in them later.
        self.zero_all();
        self.flush.cuts += 1;
        self.flush.behind.clear();
        self.flush.forget_dirt();
        let next = self.tails.next.front().map(|&slot| self.segment(slot).name().n);
        self.manifest.lowest = next.unwrap_or(self.tails.next_n);
        self.manifest.below = below;
        if keep {
            self.settle_tail();
        } else {
            self.throw_away();
        }
        self.tail = below;
        self.commit = below.seq;
        self.flush.flushed = below;
        // It may begin below what was committed here: others lead without it.
        self.lower_heads();
        self.manifest.settled = self.list_settled();
        self.change_manifest(change)
    }

    fn settle_tail(&mut self) {
        let has_disk = self.has_disk();
        for slot in std::mem::take(&mut self.tail_slots) {
            let segment = self.segment_mut(slot);
            segment.closed = true;
            segment.written = segment.durable;
            let dirty = segment.end - segment.durable;
            if has_disk && dirty > 0 {
                self.dirty_settled(slot, dirty);
            }
            self.settled_slots.push(slot);
        }
    }

    fn throw_away(&mut self) {
        self.cleaning.victim = None;
        self.cleaning.draft = None;
        self.settled_open = None;
        self.flush.settled_dirty.clear();
        self.flush.settled_rests_on = 0;
        // Those of the segments that come next are still needed.
        let next = [&self.tails.next, &self.settleds.next];
        self.flush.zeros.retain(|(slot, ..)| next.iter().any(|next| next.contains(slot)));
        self.manifest.dropped = 0;
        // What was found to be missing is so no more: all of it comes anew.
        self.manifest.intact = true;
        // The manifest that is going to be changed.
        let ticket = Some(self.manifest_changed + 1);
        for emptied in &mut self.cleaning.emptied {
            emptied.ticket = emptied.ticket.or(ticket);
        }
        let tail = std::mem::take(&mut self.tail_slots);
        let settled = std::mem::take(&mut self.settled_slots);
        for slot in tail.into_iter().chain(settled) {
            if !self.cleaning.emptied.iter().any(|e| e.slot == slot) {
                let segment = self.segment_mut(slot);
                segment.closed = true;
                segment.count_nothing();
                self.cleaning.emptied.push(Emptied { slot, copies_at: 0, judged_at: 0, ticket });
            }
        }
    }

    /// A copy is whole: what it brought is listed, and the log is complete. The manifest's ticket.
    pub fn complete(&mut self) -> u64 {
        self.manifest.settled = self.list_settled();
        self.change_manifest(|manifest| manifest.complete = true)
    }

    /// A source dropped tombstones up to here. Saved with the next change of the manifest.
    pub fn raise_dropped(&mut self, seq: u64) {
        self.manifest.dropped = self.manifest.dropped.max(seq);
    }

    /// What a copy brought is as safe as the table promises.
    pub fn settled_is_flushed(&self) -> bool {
        self.flush.settled_dirty.is_empty()
    }
}
