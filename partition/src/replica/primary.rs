//! The primary: ships what it prepared, counts votes from zero in each epoch, commits in an active
//! one, and tries again by timers.

use firebrick_log::AppendError;
use firebrick_log::canary::{self, Canary};

use super::group::{Role, Stop};
use super::peers::PeerState;
use super::{Action, Actions, IN_FLIGHT_BYTES_MAX, Replica, Report, State};
use crate::op::{Now, Version};
use crate::wire::peer::{self, History, Peer, Vote, Why};

/// One frame of records: at most this much, or one record if that is larger.
const SHIP_BYTES: usize = 1 << 20;
/// Without another frame to ride on, the commit watermark goes out after this long.
const COMMIT_NS: u64 = 50_000;
/// A vote outstanding for this long (a lease) is reported.
pub(super) const SILENT_NS: u64 = 500_000_000;
/// Reports are repeated this far apart.
pub const REPORT_NS: u64 = 100_000_000;
/// A learner that lacks more of the tail than this is given up.
const LEARNER_BEHIND_MAX: u64 = 256 << 20;
/// The vote of a learner this close to the tail is required: commits wait for so much at most.
const REQUIRE_BYTES: u64 = 1 << 20;

impl Replica {
    /// Whether a record of `len` bytes may be prepared now.
    #[cold]
    pub(super) fn may_prepare(&self, len: usize, put: bool) -> Result<(), AppendError> {
        if self.log.manifest_saved() < self.group.ticket {
            return Err(AppendError::NotYet);
        }
        if put || canary::is_on(Canary::RemovesNeedRoom) {
            // Twice what is ahead: of a segment that a record did not fit into, as much may stay empty.
            let needs = (2 * self.pending_bytes + len) as u64;
            let counted = self.group.peers.iter().filter(|p| p.counts());
            if counted.into_iter().any(|p| p.vote.below || p.vote.room < needs) {
                return Err(AppendError::NoSpace);
            }
        }
        Ok(())
    }

    /// Alone, active and begun: what is prepared commits in the same call.
    pub(super) fn settle_solo(&mut self) {
        let group = &self.group;
        self.solo = group.role == Role::Primary
            && group.active
            && !group.peers.iter().any(PeerState::counts)
            && self.log.manifest_saved() >= group.ticket;
    }

    /// Up to where everything may commit here.
    pub(super) fn votes(&self, now: Now) -> u64 {
        let mut own = self.log.votable(now.boot_ns);
        if canary::is_on(Canary::VoteBeforeFlush) && self.group.role == Role::Primary {
            own = self.log.tail().seq;
        }
        match self.group.role {
            Role::Primary if canary::is_on(Canary::CommitAlone) => own,
            Role::Primary if self.group.active => {
                let counted = self.group.peers.iter().filter(|p| p.counts());
                counted.map(PeerState::voted).fold(own, u64::min)
            }
            // Of its own epoch only, and only what it voted for in it.
            Role::Backup | Role::Learner => own.min(self.group.follow.told),
            Role::Primary | Role::Out => 0,
        }
    }

    fn peer_index(&self, brick: u32) -> Option<usize> {
        self.group.peers.iter().position(|p| p.brick == brick)
    }

    /// A backup compared its log: its first vote, and what it is to be shipped.
    pub(super) fn on_tail_is(&mut self, now: Now, from: u32, vote: &Vote) {
        let Some(at) = self.peer_index(from) else { return };
        if !self.group.peers[at].compared {
            let start_seq = self.group.peers[at].start.map_or(0, |start| start.before.seq);
            if vote.held < start_seq {
                // It follows from where it was told before: it is told again.
                return;
            }
            let start = if self.group.peers[at].learner {
                self.group.peers[at].start
            } else {
                self.cursor_behind(vote.held)
            };
            let peer = &mut self.group.peers[at];
            peer.compared = true;
            match start {
                Some(cursor) => peer.start_at(cursor),
                // A member lacks what was committed: never to be counted, and reported as silent.
                None => peer.lost = true,
            }
        }
        self.on_voted(now, from, vote);
    }

    /// The place behind record `seq`, which is at or above the commit watermark.
    pub(super) fn cursor_behind(&self, seq: u64) -> Option<firebrick_log::Cursor> {
        if seq >= self.log.tail().seq {
            return (seq == self.log.tail().seq).then(|| self.log.cursor_at_end());
        }
        let first = self.pending.front()?.seq;
        let next = self.pending.get((seq + 1).checked_sub(first)? as usize)?;
        let before = match (seq + 1 - first) as usize {
            0 if seq == 0 => Version::default(),
            0 => Version { epoch: self.log.manifest().epoch_of(seq)?, seq },
            n => self.pending[n - 1].version(),
        };
        Some(self.log.cursor_at(next.loc, before))
    }

    pub(super) fn on_voted(&mut self, now: Now, from: u32, vote: &Vote) {
        let tail = self.log.tail().seq;
        let Some(at) = self.peer_index(from) else { return };
        let peer = &mut self.group.peers[at];
        // Its answer to the comparison is on its way, or was lost and is asked for again.
        if !peer.compared || peer.lost || vote.seq > tail || vote.held > tail {
            return;
        }
        peer.take_vote(now, vote);
        if vote.gap {
            peer.rewind(now);
        }
        self.require(at);
    }

    /// A learner that has everything: first its vote is required, and only when it has voted for all
    /// that was there then, it is reported.
    fn require(&mut self, at: usize) {
        let tail = self.log.tail().seq;
        let peer = &mut self.group.peers[at];
        let near = peer.shipped() == tail && peer.in_flight() <= REQUIRE_BYTES;
        if peer.learner && peer.required.is_none() && peer.vote.whole && near && self.group.active {
            peer.required = Some(tail);
            self.solo = false;
        }
    }

    pub(super) fn on_refused(&mut self, now: Now, from: u32, why: Why, out: &mut Actions) {
        match why {
            Why::NoSpace | Why::Sick => {
                if let Some(at) = self.peer_index(from)
                    && self.group.role == Role::Primary
                {
                    self.group.peers[at].refused = true;
                    self.report_some(now, out);
                }
            }
            Why::Behind | Why::NoCopy => self.on_source_refused(now, from),
            Why::Again => {
                // (Said again until it is heard; once is enough.)
                let again =
                    |p: &&mut PeerState| p.brick == from && p.learner && !p.counts() && p.compared;
                if let Some(peer) = self.group.peers.iter_mut().find(again) {
                    *peer = PeerState::learner(from, now);
                }
            }
        }
    }

    pub(super) fn send(&self, to: u32, message: &Peer<'_>, out: &mut Actions) {
        let records = match message {
            Peer::CopyData { records, .. } => records.len(),
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(48 + records);
        peer::encode(&mut bytes, self.leaf.partition, message);
        out.push(Action::Send { to, message: bytes });
    }

    pub(super) fn send_commit(&mut self, to: u32, out: &mut Actions) {
        let (epoch, commit) = (self.route.epoch, self.log.commit());
        if let Some(at) = self.peer_index(to) {
            self.group.peers[at].told_commit = commit;
            self.group.peers[at].commit_since = 0;
        }
        self.send(to, &Peer::Commit { epoch, commit }, out);
    }

    fn send_take_over(&mut self, at: usize, out: &mut Actions) {
        if self.group.peers[at].learner && self.group.peers[at].start.is_none() {
            self.group.peers[at].start = Some(self.log.cursor_at_end());
        }
        let peer = &self.group.peers[at];
        let mut history = Vec::new();
        peer::pack_history(&self.log.manifest().history, &mut history);
        let tail = peer.start.map_or(self.log.tail(), |start| start.before);
        let message = Peer::TakeOver {
            epoch: self.route.epoch,
            tail,
            commit: self.log.commit(),
            dropped: self.log.manifest().dropped,
            learn: peer.learner,
            history: History::new(&history),
        };
        let to = peer.brick;
        self.send(to, &message, out);
    }

    /// Once a turn: ships what was prepared, and does what is due.
    pub(super) fn lead_some(&mut self, now: Now, out: &mut Actions) {
        if self.group.role != Role::Primary || self.group.damaged {
            return;
        }
        if !self.group.peers.is_empty() && self.log.manifest_saved() >= self.group.ticket {
            for at in 0..self.group.peers.len() {
                self.lead_one(now, at, out);
            }
            self.keep_for_learners();
        }
        self.stop_if_asked();
        self.report_some(now, out);
    }

    fn lead_one(&mut self, now: Now, at: usize, out: &mut Actions) {
        let (tail, commit) = (self.log.tail(), self.log.commit());
        let peer = &mut self.group.peers[at];
        if peer.learner && !self.group.active {
            return;
        }
        let behind = peer.is_behind(now, tail, commit);
        if peer.lost {
            return;
        }
        if !peer.compared {
            if now.boot_ns >= peer.retry_at {
                peer.back_off(now);
                self.send_take_over(at, out);
            }
            return;
        }
        if behind && now.boot_ns >= peer.retry_at {
            peer.back_off(now);
            if peer.vote.held < peer.shipped() {
                peer.rewind(now);
            }
            // Answered with a vote, whatever was lost.
            let brick = peer.brick;
            self.send_commit(brick, out);
        }
        self.ship(at, out);
        self.tell_commit(now, at, out);
        self.require(at);
    }

    fn ship(&mut self, at: usize, out: &mut Actions) {
        let (epoch, commit) = (self.route.epoch, self.log.commit());
        let peer = &mut self.group.peers[at];
        while peer.has_window() {
            let mut after = peer.cursor;
            let Some(body) = self.log.read_tail(&mut after, SHIP_BYTES) else { return };
            let mut head = Vec::with_capacity(peer::PREPARE_HEAD_BYTES);
            let before = peer.cursor.before;
            let message = Peer::Prepare { epoch, commit, before, records: &[] };
            peer::encode(&mut head, self.leaf.partition, &message);
            self.log.pin(body.loc);
            peer.shipping(after, body.len);
            peer.told_commit = commit;
            peer.commit_since = 0;
            out.push(Action::Ship { to: peer.brick, head, body });
        }
        let behind = self.log.bytes_behind(&peer.cursor);
        if peer.learner && peer.required.is_none() && behind > LEARNER_BEHIND_MAX {
            peer.lost = true;
        }
    }

    fn tell_commit(&mut self, now: Now, at: usize, out: &mut Actions) {
        let commit = self.log.commit();
        let peer = &mut self.group.peers[at];
        if peer.told_commit >= commit {
            return;
        }
        if peer.commit_since == 0 {
            peer.commit_since = now.boot_ns.max(1);
        } else if now.boot_ns >= peer.commit_since + COMMIT_NS {
            let brick = peer.brick;
            peer.retry_at = peer.retry_at.max(now.boot_ns + super::peers::RETRY_NS);
            self.send_commit(brick, out);
        }
    }

    /// The tail that a learner was not shipped stays where it is.
    fn keep_for_learners(&mut self) {
        let learners = self.group.peers.iter().filter(|p| p.learner && !p.lost);
        let least =
            learners.filter_map(|p| p.start.map(|start| p.vote.held.max(start.before.seq))).min();
        self.log.set_keep(least.unwrap_or(u64::MAX));
    }

    fn stop_if_asked(&mut self) {
        if self.group.stop == Stop::Asked && self.state == State::Serving {
            self.state = State::Stopped;
        }
        let idle = self.pending.is_empty() && self.waiters.is_empty();
        // One that has no room to begin, or no disk, has nothing in flight, and from then on does not begin.
        let cannot_begin =
            self.lacks_room() || self.log.is_sick() && self.state == State::Beginning;
        let stopped = self.state == State::Stopped && idle || cannot_begin;
        if self.group.stop == Stop::Asked && stopped {
            self.group.stop = Stop::Told;
            self.group.report_at = 0;
        }
    }

    /// The epoch may begin as far as this replica is concerned, and the keepers do not know it yet.
    fn begins(&self) -> bool {
        let has_begun =
            matches!(self.state, State::Serving | State::TakingOver { .. } | State::Stopped);
        !self.group.active && has_begun && self.log.manifest_saved() >= self.group.ticket
    }

    fn report_some(&mut self, now: Now, out: &mut Actions) {
        if now.boot_ns < self.group.report_at {
            return;
        }
        let (partition, epoch) = (self.leaf.partition, self.route.epoch);
        let before = out.list.len();
        let mut report = |report| out.push(Action::Report(report));
        if self.begins() {
            report(Report::Active { partition, epoch });
        }
        if self.log.is_sick() {
            report(Report::Damaged { partition, epoch });
        }
        if self.group.stop == Stop::Told {
            report(Report::Stopped { partition, epoch });
        }
        for peer in &self.group.peers {
            let (brick, learner) = (peer.brick, peer.brick);
            if peer.required.is_some_and(|tail| peer.voted() >= tail) {
                report(Report::Copied { partition, epoch, learner });
            }
            let since = peer.waiting_since;
            let silent = peer.counts() && since != 0 && now.boot_ns >= since + SILENT_NS;
            if silent || peer.lost || peer.refused {
                report(Report::Silent { partition, epoch, brick });
            }
        }
        if out.list.len() > before {
            self.group.report_at = now.boot_ns + REPORT_NS;
        }
    }

    /// When the primary has something to do without another reason.
    pub(super) fn lead_wake(&self) -> Option<u64> {
        if self.group.role != Role::Primary || self.group.damaged {
            return None;
        }
        let reports = self.begins() || self.group.stop == Stop::Told || self.log.is_sick();
        let mut wake = if reports { self.group.report_at } else { u64::MAX };
        for peer in &self.group.peers {
            if peer.learner && !self.group.active {
                continue;
            }
            if peer.compared && !peer.lost && peer.vote.commit < self.log.commit() {
                wake = wake.min(peer.retry_at);
            }
            if peer.waiting_since != 0 {
                if !peer.lost {
                    wake = wake.min(peer.retry_at);
                }
                // (A learner whose vote nobody waits for is not reported.)
                if peer.counts() {
                    wake = wake.min((peer.waiting_since + SILENT_NS).max(self.group.report_at));
                }
            }
            if peer.commit_since != 0 && peer.compared && !peer.lost {
                wake = wake.min(peer.commit_since + COMMIT_NS);
            }
            if peer.lost || peer.refused || peer.required.is_some_and(|tail| peer.voted() >= tail) {
                wake = wake.min(self.group.report_at);
            }
        }
        (wake != u64::MAX).then_some(wake)
    }
}

const _: () = assert!(IN_FLIGHT_BYTES_MAX <= 64 << 20);
