//! Another replica, as the primary sees it: how far it has voted, what it was shipped, when to try
//! again.

use std::collections::VecDeque;

use firebrick_log::Cursor;
use firebrick_log::canary::{self, Canary};

use crate::op::{Now, Version};
use crate::wire::peer::Vote;

/// After this long without progress a message counts as lost. Doubles, up to the most.
pub(super) const RETRY_NS: u64 = 20_000_000;
const RETRY_MOST_NS: u64 = 320_000_000;
/// Two rewinds for one gap are this far apart.
const REWIND_NS: u64 = 1_000_000;
/// Frames that may be shipped and not voted for.
const FRAMES_MAX: usize = 4096;
/// Bytes that may be shipped and not voted for.
const WINDOW_BYTES: u64 = 64 << 20;

/// See the module's text.
#[derive(Debug)]
pub(super) struct PeerState {
    pub brick: u32,
    pub learner: bool,
    /// A learner whose vote every commit waits for; holds the tail when that began.
    pub required: Option<u64>,
    /// It answered this epoch's comparison.
    pub compared: bool,
    /// It lacks what can no longer be shipped, or it fell too far behind.
    pub lost: bool,
    /// It says that it cannot store what it was shipped.
    pub refused: bool,
    /// A learner: behind the record before the first that it is shipped.
    pub start: Option<Cursor>,
    pub vote: Vote,
    pub cursor: Cursor,
    /// Frames that were shipped and not voted for: where each began, and its bytes.
    frames: VecDeque<(Cursor, u32)>,
    frame_bytes: u64,
    pub told_commit: u64,
    /// When the commit watermark was found to be ahead of `told_commit`; 0: it is not.
    pub commit_since: u64,
    pub retry_at: u64,
    retry_ns: u64,
    rewound_at: u64,
    /// Since when a vote has been outstanding without progress; 0: none is.
    pub waiting_since: u64,
}

impl PeerState {
    pub fn member(brick: u32, now: Now) -> Self {
        Self {
            brick,
            learner: false,
            required: None,
            compared: false,
            lost: false,
            refused: false,
            start: None,
            vote: Vote { room: u64::MAX, ..Vote::default() },
            cursor: Cursor::default(),
            frames: VecDeque::new(),
            frame_bytes: 0,
            told_commit: 0,
            commit_since: 0,
            retry_at: now.boot_ns,
            retry_ns: RETRY_NS,
            rewound_at: 0,
            waiting_since: now.boot_ns.max(1),
        }
    }

    pub fn learner(brick: u32, now: Now) -> Self {
        Self { learner: true, ..Self::member(brick, now) }
    }

    /// Every commit waits for its vote.
    pub fn counts(&self) -> bool {
        let required = self.required.is_some() && !canary::is_on(Canary::PromoteBeforeRequire);
        !self.learner || required || canary::is_on(Canary::LearnersCount)
    }

    /// What it has voted for in this epoch.
    pub fn voted(&self) -> u64 {
        if canary::is_on(Canary::VotesKept) && !self.learner {
            return self.vote.seq;
        }
        if self.compared && (!self.learner || self.vote.whole) { self.vote.seq } else { 0 }
    }

    /// The last record it was shipped.
    pub fn shipped(&self) -> u64 {
        self.cursor.before.seq
    }

    /// Bytes shipped and not voted for.
    pub fn in_flight(&self) -> u64 {
        self.frame_bytes
    }

    /// Another frame may be shipped.
    pub fn has_window(&self) -> bool {
        self.frames.len() < FRAMES_MAX && self.frame_bytes < WINDOW_BYTES
    }

    /// A frame goes out, from the cursor up to `after`.
    pub fn shipping(&mut self, after: Cursor, bytes: u32) {
        self.frames.push_back((self.cursor, bytes));
        self.frame_bytes += u64::from(bytes);
        self.cursor = after;
    }

    /// It begins to be shipped behind `cursor`.
    pub fn start_at(&mut self, cursor: Cursor) {
        self.frames.clear();
        self.frame_bytes = 0;
        self.cursor = cursor;
    }

    /// A vote.
    pub fn take_vote(&mut self, now: Now, vote: &Vote) {
        let old = self.vote;
        self.vote = Vote {
            seq: old.seq.max(vote.seq),
            held: old.held.max(vote.held),
            commit: old.commit.max(vote.commit),
            whole: old.whole || vote.whole,
            ..*vote
        };
        let progress =
            self.vote.seq > old.seq || self.vote.held > old.held || self.vote.commit > old.commit;
        if progress {
            self.refused = false;
            self.retry_ns = RETRY_NS;
            self.retry_at = now.boot_ns + RETRY_NS;
            if self.waiting_since != 0 {
                self.waiting_since = now.boot_ns.max(1);
            }
        }
        let done = if self.learner && !self.vote.whole { self.vote.held } else { self.vote.seq };
        while let Some(&(_, bytes)) = self.frames.front() {
            let end = self.frames.get(1).map_or(self.shipped(), |next| next.0.before.seq);
            if end > done {
                break;
            }
            self.frames.pop_front();
            self.frame_bytes -= u64::from(bytes);
        }
    }

    /// Ships again from behind what it holds, if something is missing.
    pub fn rewind(&mut self, now: Now) {
        let held = self.vote.held;
        if held >= self.shipped() || now.boot_ns < self.rewound_at + REWIND_NS {
            return;
        }
        while let Some(&(start, bytes)) = self.frames.back() {
            self.frames.pop_back();
            self.frame_bytes -= u64::from(bytes);
            self.cursor = start;
            if start.before.seq <= held {
                break;
            }
        }
        self.rewound_at = now.boot_ns;
    }

    /// Nothing was heard for long enough: the time to wait next.
    pub fn back_off(&mut self, now: Now) {
        self.retry_at = now.boot_ns + self.retry_ns;
        self.retry_ns = (self.retry_ns * 2).min(RETRY_MOST_NS);
    }

    /// A fresh connection: at once.
    pub fn again(&mut self, now: Now) {
        self.retry_ns = RETRY_NS;
        self.retry_at = now.boot_ns;
        (self.rewound_at, self.told_commit) = (0, 0);
    }

    /// Whether a vote is outstanding (remembers since when), or it may not know what is committed.
    pub fn is_behind(&mut self, now: Now, tail: Version, commit: u64) -> bool {
        let acked = if self.counts() { self.voted() } else { self.vote.held };
        let behind = !self.compared || acked < tail.seq;
        if !behind {
            self.waiting_since = 0;
        } else if self.waiting_since == 0 {
            self.waiting_since = now.boot_ns.max(1);
            self.retry_ns = RETRY_NS;
            self.retry_at = now.boot_ns + RETRY_NS;
        }
        behind || self.vote.commit < commit
    }
}
