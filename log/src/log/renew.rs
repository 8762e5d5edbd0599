//! The ends of a log that grow, which cleaning does not touch: where memory is short they are closed when most of them
//! is dead, so that it may have them too.
//!
//! Nothing is lost by it: what replaces an end is there before the end is closed, and cleaning gives back a segment for
//! the one that was taken, because what is live in the closed one fits what grows. What a copy asked for ahead and did not
//! need is given back when it ends. So a log that is nearly empty comes down to two segments, and is never full while it has two
//! spares: whatever the other logs of its core have.

use super::Log;
use super::append::Room;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::segment::{Segment, SegmentKind};

impl Log {
    /// The memory that this log shares is short: closes what most of is dead.
    pub fn renew_ends(&mut self) {
        if self.appendable && self.cleaning.draft.is_none() {
            self.renew_settled();
            self.renew_tail();
        }
    }

    fn renew_tail(&mut self) {
        let Some(&slot) = self.tail_slots.back() else { return };
        let segment = self.segment(slot);
        let upto = self.commit.min(self.cleaning.keep);
        let fits = self.settled_open.is_none_or(|open| {
            let open = self.segment(open);
            segment.live.get() <= (open.size() - open.end) as u64
        });
        if segment.closed || segment.last.seq > upto || !fits || self.disk_is_behind() {
            return;
        }
        if self.tails.next.is_empty() {
            if self.full && is_wasted(segment) {
                self.want(SegmentKind::Tail, 8, Room::Remove);
            }
        } else if segment.dead() > segment.size() as u64 / 2 {
            self.roll_on();
        }
    }

    fn renew_settled(&mut self) {
        let Some(open) = self.settled_open else { return };
        if !is_wasted(self.segment(open)) {
            return;
        }
        if !self.settleds.next.is_empty() {
            self.settled_open = None;
            self.segment_mut(open).closed = true;
        } else if self.full {
            self.want(SegmentKind::Settled, 8, Room::Clean);
        }
    }
}

/// Records that are dead fill much of it, and live ones little.
fn is_wasted(segment: &Segment) -> bool {
    let (size, live) = (segment.size() as u64, segment.live.get());
    let dead = ((segment.end - SEGMENT_HEAD_BYTES) as u64).saturating_sub(live);
    dead > size / 4 && live < size / 2
}
