//! A backup (and a learner, as far as it follows): stores what its primary prepared, votes, and
//! applies what it is told is committed.

use std::collections::VecDeque;

use firebrick_log::canary::{self, Canary};
use firebrick_log::record::Record;
use firebrick_log::{AppendError, Room};

use super::group::{Role, Stop};
use super::learner::{Copying, Finish};
use super::reads_aside::WaitingRead;
use super::{Action, Actions, Replica, Report, State};
use crate::keeper::CopyFigure;
use crate::op::{Now, Version};
use crate::wire::peer::{self, Peer, Vote, Why};

/// Frames that wait for a segment or for the disk; past that they are asked for again.
const INBOX_BYTES_MAX: usize = 16 << 20;
/// What is held and not yet voted for (a disk is slow), or known to be committed, is told this often.
const HELD_NS: u64 = 5_000_000;

/// Whether this epoch's comparison was done here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Compared {
    #[default]
    No,
    /// What differed is dropped; the manifest that says so is on its way.
    Saving {
        ticket: u64,
    },
    Yes,
}

/// The primary, as a backup sees it.
#[derive(Debug, Default)]
pub(super) struct Follow {
    pub compared: Compared,
    /// Up to here the logs agreed.
    pub agreed: u64,
    /// Commit watermark that this epoch's primary told.
    pub told: u64,
    /// The newest vote that was sent.
    sent: Vote,
    sent_ns: u64,
    /// The comparison is to be answered (again).
    pub answer_due: bool,
    /// A vote is due although it says nothing new.
    pub vote_due: bool,
    gap: bool,
    /// The primary was told that something cannot be stored, and from when on it is told again.
    full: bool,
    full_again_ns: u64,
    inbox: VecDeque<(Version, Box<[u8]>)>,
    inbox_bytes: usize,
    /// When the primary was last asked for its commit watermark.
    pub asked_ns: u64,
    pub waiting: VecDeque<WaitingRead>,
    pub copy: Option<Box<Copying>>,
    /// The number of the newest try to copy in this epoch, also of one that was given up: a source may still have its
    /// listing, which lacks what the next one begins behind.
    pub copies: u32,
    pub finish: Finish,
    /// For people.
    pub progress: CopyFigure,
    /// The copy cannot go on from what is here, and the primary has not yet named another first record.
    pub over_due: bool,
    /// When it is told again.
    pub over_again_ns: u64,
}

/// How storing a frame ended.
enum Stored {
    /// To its end, or to what cannot be stored.
    All,
    /// From this byte on behind this record it waits for room.
    Wait(Version, usize),
}

impl Replica {
    pub(super) fn on_prepare(
        &mut self,
        commit: u64,
        before: Version,
        records: &[u8],
        out: &mut Actions,
    ) {
        if canary::is_on(Canary::NoEpochMatch) && self.group.role == Role::Backup {
            self.group.follow.compared = Compared::Yes;
        }
        if self.group.follow.compared != Compared::Yes {
            return;
        }
        self.on_commit(commit);
        if self.group.follow.inbox.is_empty() {
            self.store(before, records, out);
        } else {
            self.put_aside(before, records);
        }
    }

    pub(super) fn on_commit(&mut self, commit: u64) {
        let follow = &mut self.group.follow;
        if follow.compared == Compared::Yes {
            follow.told = follow.told.max(commit);
            follow.vote_due |= follow.sent.seq < commit;
        }
    }

    fn put_aside(&mut self, before: Version, records: &[u8]) {
        let follow = &mut self.group.follow;
        if follow.inbox_bytes + records.len() <= INBOX_BYTES_MAX || follow.inbox.is_empty() {
            follow.inbox_bytes += records.len();
            follow.inbox.push_back((before, records.into()));
        }
    }

    fn store(&mut self, before: Version, records: &[u8], out: &mut Actions) {
        if let Stored::Wait(before, at) = self.store_some(before, records, out) {
            let follow = &mut self.group.follow;
            let rest: Box<[u8]> = records[at..].into();
            follow.inbox_bytes += rest.len();
            follow.inbox.push_front((before, rest));
        }
    }

    /// What waited for a segment or for the disk.
    fn store_waiting(&mut self, out: &mut Actions) {
        while let Some((before, records)) = self.group.follow.inbox.pop_front() {
            self.group.follow.inbox_bytes -= records.len();
            let left = self.group.follow.inbox.len();
            self.store(before, &records, out);
            if self.group.follow.inbox.len() > left {
                return;
            }
        }
    }

    fn store_some(&mut self, before: Version, records: &[u8], out: &mut Actions) -> Stored {
        let (mut last, mut at) = (before, 0);
        for record in peer::records(records) {
            // A damaged frame: what is missing is asked for again.
            let Ok(record) = record else { break };
            let version = record.version();
            let tail = self.log.tail();
            if version.seq > tail.seq + 1 {
                self.group.follow.gap = true;
                break;
            }
            let differs = version.seq == tail.seq + 1 && last != tail;
            if !self.follows(&record, last) || (differs && !canary::is_on(Canary::NoEpochMatch)) {
                // Not what this log must go on with: no vote for it.
                break;
            }
            if version.seq <= tail.seq {
                // Its vote was lost, perhaps.
                self.group.follow.vote_due = true;
            } else {
                match self.log.append_record(&record, Room::Clean) {
                    Ok(loc) => self.adopt(loc),
                    Err(AppendError::NotYet) => return Stored::Wait(last, at),
                    Err(AppendError::NoSpace) => {
                        if let Some(copy) = &mut self.group.follow.copy {
                            copy.no_room = true;
                        }
                        self.refuse_to_store(out);
                        break;
                    }
                }
            }
            last = version;
            at += record.stride();
        }
        Stored::All
    }

    fn follows(&self, record: &Record<'_>, last: Version) -> bool {
        let version = record.version();
        let epochs = last.epoch <= version.epoch && version.epoch <= self.route.epoch;
        version.seq == last.seq + 1 && epochs && self.log.is_ours(record.header().partition)
    }

    /// The write completes on the rest of the group, once the keepers took this replica out.
    pub(super) fn refuse_to_store(&mut self, out: &mut Actions) {
        if !self.group.follow.full {
            self.group.follow.full = true;
            let why = if self.log.is_sick() { Why::Sick } else { Why::NoSpace };
            let (to, epoch) = (self.group.primary(), self.route.epoch);
            self.send(to, &Peer::Refused { epoch, why }, out);
        }
    }

    /// Once a turn: what waited, the vote, reports.
    pub(super) fn follow_some(&mut self, now: Now, out: &mut Actions) {
        if !matches!(self.group.role, Role::Backup | Role::Learner) || self.group.damaged {
            return;
        }
        let follow = &mut self.group.follow;
        if follow.full && now.boot_ns >= follow.full_again_ns {
            // Said as long as it is so: the primary takes a vote for anything new as the end of it, and a learner that has
            // no room for what is copied votes for what is shipped.
            follow.full = false;
            follow.full_again_ns = now.boot_ns + super::primary::REPORT_NS;
        }
        if !follow.inbox.is_empty() {
            self.store_waiting(out);
        }
        self.finish_comparison(now, out);
        self.copy_some(now, out);
        self.vote(now, out);
        self.end_waits(now, out);
        if self.group.stop == Stop::Asked {
            self.group.stop = Stop::Told;
            self.group.report_at = 0;
        }
        if now.boot_ns < self.group.report_at {
            return;
        }
        let (partition, epoch) = (self.leaf.partition, self.route.epoch);
        if self.group.stop == Stop::Told {
            out.push(Action::Report(Report::Stopped { partition, epoch }));
            self.group.report_at = now.boot_ns + super::primary::REPORT_NS;
        }
        if self.log.is_sick() {
            out.push(Action::Report(Report::Damaged { partition, epoch }));
            self.group.report_at = now.boot_ns + super::primary::REPORT_NS;
        }
    }

    /// What this replica can vote for now.
    fn vote_now(&self, now: Now) -> Vote {
        let held = self.log.tail().seq;
        let room = self.log.room_bytes();
        Vote {
            seq: self.log.votable(now.boot_ns).min(held),
            held,
            commit: self.group.follow.told.min(held),
            room,
            below: room == 0,
            gap: self.group.follow.gap,
            whole: self.is_whole(),
        }
    }

    fn vote(&mut self, now: Now, out: &mut Actions) {
        if self.group.follow.compared != Compared::Yes {
            return;
        }
        let vote = self.vote_now(now);
        let follow = &self.group.follow;
        let sent = follow.sent;
        let news = vote.seq > sent.seq || vote.below != sent.below || vote.whole != sent.whole;
        let slow = (vote.held > sent.held || vote.commit > sent.commit)
            && now.boot_ns >= follow.sent_ns + HELD_NS;
        if news || slow || follow.vote_due || follow.gap {
            let (to, epoch) = (self.group.primary(), self.route.epoch);
            self.send(to, &Peer::Voted { epoch, vote }, out);
            self.sent_vote(now, vote);
        }
    }

    fn sent_vote(&mut self, now: Now, vote: Vote) {
        let follow = &mut self.group.follow;
        (follow.sent, follow.sent_ns) = (vote, now.boot_ns);
        (follow.vote_due, follow.gap) = (false, false);
    }

    /// The answer to the comparison, the first vote.
    pub(super) fn send_tail_is(&mut self, now: Now, out: &mut Actions) {
        let vote = self.vote_now(now);
        let (to, epoch, agreed) =
            (self.group.primary(), self.route.epoch, self.group.follow.agreed);
        self.send(to, &Peer::TailIs { epoch, agreed, vote }, out);
        self.sent_vote(now, vote);
    }

    /// When a backup has something to do without another reason.
    pub(super) fn follow_wake(&self) -> Option<u64> {
        if self.state != State::Following {
            return None;
        }
        let follow = &self.group.follow;
        let mut wake = follow.waiting.front().map_or(u64::MAX, |w| w.until_ns);
        let held = self.log.tail().seq;
        let untold = held > follow.sent.held || follow.told.min(held) > follow.sent.commit;
        if follow.compared == Compared::Yes && untold {
            wake = wake.min(follow.sent_ns + HELD_NS);
        }
        if self.group.stop == Stop::Told || self.log.is_sick() {
            wake = wake.min(self.group.report_at);
        }
        if let Some(copy) = &follow.copy
            && follow.compared == Compared::Yes
        {
            wake = wake.min(copy.wake_ns());
        }
        (wake != u64::MAX).then_some(wake)
    }
}
