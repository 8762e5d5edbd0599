//! The group: who this replica is in it, and what a new map changes.

use firebrick_log::Version;
use firebrick_log::canary::{self, Canary};

use super::backup::Follow;
use super::peers::PeerState;
use super::source::Listing;
use super::{Action, Actions, OwnedAnswer, Replica, Report, State};
use crate::maps::{Member, Replicas};
use crate::op::{Answer, Now, Route};
use crate::wire::Peer;

/// This process, as the maps name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Me {
    /// Brick id.
    pub brick: u32,
    /// A replica acts only in a map that names its own incarnation.
    pub incarnation: u64,
}

/// What this replica is in its epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Not in the group, or not with this incarnation.
    #[default]
    Out,
    Primary,
    Backup,
    Learner,
}

impl Role {
    fn of(me: Me, group: &Replicas) -> Self {
        let is_me = |m: &Member| m.is(me.brick, me.incarnation);
        match group.members.iter().position(is_me) {
            Some(0) => Self::Primary,
            Some(_) => Self::Backup,
            None if group.learners.iter().any(is_me) => Self::Learner,
            None => Self::Out,
        }
    }
}

/// Whether this replica is to stop serving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    #[default]
    No,
    /// The intent says so; what is in flight still commits.
    Asked,
    /// The keepers were told: that binds for the epoch.
    Told,
}

/// What the beginning of this epoch was refused for want of room: it is so until that is there, also while it is tried
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NoRoom {
    #[default]
    No,
    /// The manifest with the epoch in its history.
    Manifest,
    /// The take-over record.
    Record,
}

/// The group in its epoch.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub me: Me,
    pub role: Role,
    pub members: Vec<u32>,
    /// The keepers know that this epoch's primary took over: what has all votes commits.
    pub active: bool,
    pub stop: Stop,
    /// Manifest with this epoch in its history: nothing is prepared before it is saved.
    pub ticket: u64,
    pub no_room: NoRoom,
    /// The others, as the primary sees them.
    pub peers: Vec<PeerState>,
    /// Only for [`Canary::VotesKept`].
    old_votes: Vec<(u32, u64)>,
    /// The primary, as a backup or learner sees it.
    pub follow: Follow,
    /// A listing that waits for its `Sessions` record.
    pub listing: Option<Listing>,
    /// This replica lacks what a member must have: it neither votes nor serves.
    pub damaged: bool,
    /// When the next report is due.
    pub report_at: u64,
}

impl Group {
    pub fn primary(&self) -> u32 {
        self.members.first().copied().unwrap_or(0)
    }
}

impl Replica {
    /// The group is this from now on. The same epoch again with other `active`, `intent` or learners
    /// is an update in place; an older one does nothing.
    ///
    /// `false`: the log holds records of a newer epoch than the map names, so the two are not of the
    /// same brick; or the log is not scanned yet.
    pub fn set_group(
        &mut self,
        now: Now,
        me: Me,
        route: Route,
        group: &Replicas,
        out: &mut Actions,
    ) -> bool {
        let foreign = route.epoch < self.log.tail().epoch || route.epoch == 0;
        if self.state == State::Recovering || foreign || route.partition != self.leaf.partition {
            return false;
        }
        if route.epoch < self.route.epoch {
            return true;
        }
        if route.epoch > self.route.epoch {
            self.new_epoch(now, me, route, group, out);
        }
        self.update_group(now, group, out);
        self.poll(now, out);
        true
    }

    fn new_epoch(&mut self, now: Now, me: Me, route: Route, group: &Replicas, out: &mut Actions) {
        let role = Role::of(me, group);
        // With an epoch between, another may have led: then this one takes over anew.
        let continuing = self.group.role == Role::Primary
            && role == Role::Primary
            && route.epoch == self.route.epoch + 1
            && self.has_begun();
        self.route = route;
        self.solo = false;
        self.end_source();
        self.log.set_keep(u64::MAX);
        if !continuing {
            self.lose_lead(out);
        }
        let mut old_votes = std::mem::take(&mut self.group.old_votes);
        if canary::is_on(Canary::VotesKept) {
            old_votes.extend(self.group.peers.iter().map(|p| (p.brick, p.vote.seq)));
            old_votes.sort_unstable_by_key(|v| std::cmp::Reverse(v.1));
        }
        let old = std::mem::take(&mut self.group.follow);
        self.group = Group {
            me,
            role,
            members: group.members.iter().map(|m| m.brick).collect(),
            damaged: matches!(role, Role::Primary | Role::Backup) && self.lacks_records(group),
            ..Group::default()
        };
        if role == Role::Learner {
            // A copy goes on in the new epoch, if its comparison says so.
            (self.group.follow.copy, self.group.follow.finish) = (old.copy, old.finish);
        }
        self.group.follow.waiting = old.waiting;
        self.group.old_votes.clone_from(&old_votes);
        match role {
            Role::Out => self.state = State::Ready,
            _ if self.group.damaged => self.state = State::Ready,
            Role::Primary => self.lead(now, continuing, &old_votes),
            Role::Backup | Role::Learner => self.state = State::Following,
        }
        self.wake_reads(now, true, out);
    }

    /// A half copied log is no member's, nor is one of which the scan at start missed something: neither vote nor read
    /// may rest on it. But where nothing was ever committed, or a loss was accepted, what is here is all there is. (What
    /// half a copy left of the index in this process still is not.)
    fn lacks_records(&self, group: &Replicas) -> bool {
        let manifest = self.log.manifest();
        self.log.is_copying() || group.active > 0 && !(manifest.complete && manifest.intact)
    }

    fn has_begun(&self) -> bool {
        matches!(self.state, State::Serving | State::TakingOver { .. } | State::Stopped)
    }

    /// Begins the epoch as its primary.
    fn lead(&mut self, now: Now, continuing: bool, old_votes: &[(u32, u64)]) {
        let first = Version { epoch: self.route.epoch, seq: self.log.tail().seq + 1 };
        // Durable before the first record of the epoch: a scan believes the history, not the record.
        self.group.ticket = self.log.change_manifest(|manifest| {
            manifest.history.retain(|v| v.seq < first.seq && v.epoch < first.epoch);
            manifest.history.push(first);
            // Or a loss was accepted: from now on it is.
            (manifest.complete, manifest.intact) = (true, true);
        });
        self.state = match self.state {
            State::TakingOver { seq } if continuing => State::TakingOver { seq },
            _ if continuing => State::Serving,
            _ => State::Beginning,
        };
        let others = self.group.members.iter().skip(1);
        self.group.peers = others.map(|&brick| PeerState::member(brick, now)).collect();
        for peer in self.group.peers.iter_mut().filter(|_| canary::is_on(Canary::VotesKept)) {
            peer.vote.seq = old_votes.iter().find(|v| v.0 == peer.brick).map_or(0, |v| v.1);
        }
        if canary::is_on(Canary::NoEpochMatch)
            && let Some(cursor) = self.cursor_behind(self.log.commit())
        {
            for peer in &mut self.group.peers {
                peer.compared = true;
                peer.start_at(cursor);
            }
        }
    }

    /// What may change within an epoch.
    fn update_group(&mut self, now: Now, group: &Replicas, out: &mut Actions) {
        self.group.active |= group.is_active();
        if self.group.role == Role::Primary && !self.group.damaged {
            let named = |brick: u32| group.learners.iter().any(|m| m.brick == brick);
            self.group.peers.retain(|p| !p.learner || named(p.brick));
            for learner in &group.learners {
                if !self.group.peers.iter().any(|p| p.brick == learner.brick) {
                    self.group.peers.push(PeerState::learner(learner.brick, now));
                }
            }
        }
        let me = self.group.me;
        match (group.asks_to_stop(me.brick, me.incarnation), self.group.stop) {
            (true, Stop::No) => {
                self.group.stop = Stop::Asked;
                self.wake_reads(now, true, out);
            }
            (false, Stop::Asked) => {
                self.group.stop = Stop::No;
                if self.state == State::Stopped {
                    self.state = State::Serving;
                }
            }
            _ => {}
        }
    }

    /// Another primary decides what is prepared here, or this one anew: what rests on it is not
    /// answered by this replica.
    fn lose_lead(&mut self, out: &mut Actions) {
        for pending in &mut self.pending {
            if let Some(token) = pending.disown(&self.log) {
                out.push(Action::Unanswered { token });
            }
        }
        // These appended nothing.
        let answer = OwnedAnswer::new(&Answer::StaleRoute { route: self.route });
        for waiter in self.waiters.take() {
            out.push(Action::Reply { token: waiter.token, answer: answer.clone() });
        }
        self.sessions.forget_uncommitted(self.log.commit());
    }

    /// This replica lacks what a member must have. It has no part in the epoch, so when it is asked to stop it has.
    pub(super) fn report_damaged(&mut self, now: Now, out: &mut Actions) {
        self.wake_reads(now, true, out);
        if self.group.stop == Stop::Asked {
            self.group.stop = Stop::Told;
            self.group.report_at = 0;
        }
        if now.boot_ns < self.group.report_at {
            return;
        }
        self.group.report_at = now.boot_ns + super::primary::REPORT_NS;
        let (partition, epoch) = (self.leaf.partition, self.route.epoch);
        out.push(Action::Report(Report::Damaged { partition, epoch }));
        if self.group.stop == Stop::Told {
            out.push(Action::Report(Report::Stopped { partition, epoch }));
        }
    }

    /// A message of another replica of the partition, from brick `from`. Call [`Replica::poll`] once
    /// after a turn's messages.
    pub fn on_peer(&mut self, now: Now, from: u32, message: &Peer<'_>, out: &mut Actions) {
        if message.epoch() != self.route.epoch || self.group.damaged {
            return;
        }
        let from_primary = from == self.group.primary();
        let follows = matches!(self.group.role, Role::Backup | Role::Learner) && from_primary;
        let leads = self.group.role == Role::Primary;
        match *message {
            Peer::Prepare { commit, before, records, .. } if follows => {
                self.on_prepare(commit, before, records, out);
            }
            Peer::Commit { commit, .. } if follows => self.on_commit(commit),
            Peer::TakeOver { tail, dropped, learn, history, .. } if follows => {
                self.on_take_over(tail, dropped, learn, history);
            }
            Peer::Voted { vote, .. } if leads => self.on_voted(now, from, &vote),
            Peer::TailIs { vote, .. } if leads => self.on_tail_is(now, from, &vote),
            Peer::AskCommit { .. } if leads => self.send_commit(from, out),
            Peer::Refused { why, .. } => self.on_refused(now, from, why, out),
            Peer::CopyStart { .. } | Peer::CopyRead { .. } | Peer::CopyDone { .. } => {
                self.on_copy_asked(now, from, message, out);
            }
            Peer::CopyListing { .. } | Peer::CopyData { .. } => {
                self.on_copy_told(now, from, message);
            }
            _ => {}
        }
    }

    /// There is a fresh connection to a brick: what it lacks is sent again.
    pub fn on_peer_up(&mut self, now: Now, brick: u32, out: &mut Actions) {
        if let Some(peer) = self.group.peers.iter_mut().find(|p| p.brick == brick) {
            peer.again(now);
        }
        if brick == self.group.primary() {
            self.group.follow.vote_due = true;
        }
        self.copy_again(now, brick);
        self.source_again(brick);
        self.poll(now, out);
    }
}
