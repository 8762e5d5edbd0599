//! How old the oldest record is that the disk does not have: what the bound of an `async` table is about.
//!
//! A short queue of marks, each the time at which records up to some sequence number began to be
//! appended. A flush that lands takes away the marks that it covers, so what was appended while it was
//! under way keeps its own age. Marks are a fraction of the bound apart, and never more than
//! [`MARKS_MAX`]: past that the newest one covers what comes, which makes records seem older than they
//! are, never younger.

use std::collections::VecDeque;

/// At most this many marks, which are at least a sixteenth of the bound apart.
const MARKS_MAX: usize = 24;
const MARKS_IN_BOUND: u64 = 16;

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Not younger than this: the records behind the mark before, up to `last`.
    since_ns: u64,
    last: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ages {
    marks: VecDeque<Mark>,
}

impl Ages {
    /// The tail ends at `tail` and was appended to since `boot_ns`, the turn's clock, if it ends further
    /// than before. Everything up to `flushed` is on disk.
    pub fn note(&mut self, tail: u64, flushed: u64, boot_ns: u64, bound_ms: u32) {
        let full = self.marks.len() == MARKS_MAX;
        let Some(newest) = self.marks.back_mut() else {
            if tail > flushed {
                self.marks.push_back(Mark { since_ns: boot_ns, last: tail });
            }
            return;
        };
        if tail <= newest.last {
            return;
        }
        let apart = u64::from(bound_ms) * 1_000_000 / MARKS_IN_BOUND;
        if full || boot_ns.saturating_sub(newest.since_ns) < apart {
            newest.last = tail;
        } else {
            self.marks.push_back(Mark { since_ns: boot_ns, last: tail });
        }
    }

    /// Everything up to `flushed` is on disk.
    pub fn landed(&mut self, flushed: u64) {
        while self.marks.front().is_some_and(|mark| mark.last <= flushed) {
            self.marks.pop_front();
        }
    }

    /// The tail was cut to end at `tail`; what is left of it is on disk up to `flushed`.
    pub fn cut(&mut self, tail: u64, flushed: u64) {
        // What is appended again gets the age of what was there: older than it is.
        while let Some(mark) = self.marks.pop_back() {
            let before = self.marks.back().map_or(0, |before| before.last);
            if before < tail {
                self.marks.push_back(Mark { last: mark.last.min(tail), ..mark });
                break;
            }
        }
        self.landed(flushed);
    }

    /// The time of the oldest record that is not on disk; `None` when all are.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.marks.front().map(|mark| mark.since_ns)
    }
}
