//! Reads at a backup: the committed value is current unless the key has a prepared record whose commit
//! is not known yet; then the read waits for it, a little while.

use firebrick_log::canary::{self, Canary};

use super::execute::{Reads, Step};
use super::group::{Role, Stop};
use super::lookup::Place;
use super::{Action, Actions, HELD_BYTES_MAX, HELD_MAX, OwnedAnswer, Replica};
use crate::op::{Failure, Now, Op, Request};
use crate::wire::{self, Message, Peer};

/// A read waits this long for a commit, then the primary is asked.
const WAIT_NS: u64 = 1_000_000;
/// Between two questions for the commit watermark.
const ASK_NS: u64 = 50_000;
/// Only the primary says that a key has expired: reads this close before it are its own.
const EXPIRY_NEAR_MS: u64 = 1_000;

/// A read that waits for a commit.
#[derive(Debug)]
pub(super) struct WaitingRead {
    pub token: u64,
    hash: u64,
    rests_on: u64,
    pub until_ns: u64,
    encoded: Vec<u8>,
}

/// What a read at a backup comes to.
enum Aside {
    Step(Step),
    /// The key's newest record is prepared.
    Pending(u64),
}

impl Replica {
    /// A backup whose committed values are current.
    fn reads_aside(&self) -> bool {
        self.group.role == Role::Backup && self.group.stop == Stop::No && !self.group.damaged
    }

    /// A request at a replica that is not the primary.
    pub(super) fn run_aside(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        reads: Reads,
        out: &mut Actions,
    ) -> Step {
        let one_key = matches!(request.op, Op::Get | Op::Look);
        if !one_key || reads == Reads::Own || !self.reads_aside() {
            return Step::failed(Failure::AskPrimary);
        }
        match self.read_aside(now, hash, request, out) {
            Aside::Step(step) => step,
            Aside::Pending(rests_on) => self.wait_aside(now, token, hash, request, rests_on, out),
        }
    }

    fn read_aside(
        &mut self,
        now: Now,
        hash: u64,
        request: &Request<'_>,
        out: &mut Actions,
    ) -> Aside {
        if let Some(newest) = self.newest_prepared(hash, request.key)
            && !canary::is_on(Canary::BackupReadsPending)
        {
            return Aside::Pending(newest.rests_on);
        }
        Aside::Step(match self.committed(hash, request.key, out) {
            Place::Damaged => Step::failed(Failure::Corrupt),
            Place::Absent => Step::Answer(crate::op::Answer::Absent),
            Place::At(loc) => match self.log.record(loc).map(|r| r.fields().expires_ms) {
                Ok(at) if at != 0 && at <= now.unix_ms + EXPIRY_NEAR_MS => {
                    Step::failed(Failure::AskPrimary)
                }
                Ok(_) if matches!(request.op, Op::Get) => Step::Value(loc),
                Ok(_) => Step::Seen(loc),
                Err(corrupt) => {
                    self.report(corrupt, out);
                    Step::failed(Failure::Corrupt)
                }
            },
        })
    }

    fn wait_aside(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        rests_on: u64,
        out: &mut Actions,
    ) -> Step {
        if self.group.follow.waiting.len() >= HELD_MAX || self.held_bytes >= HELD_BYTES_MAX {
            return Step::failed(Failure::AskPrimary);
        }
        let mut encoded = Vec::new();
        wire::request(&mut encoded, 0, request);
        let until_ns = now.boot_ns + WAIT_NS;
        let read = WaitingRead { token, hash, rests_on, until_ns, encoded };
        self.group.follow.waiting.push_back(read);
        if now.boot_ns >= self.group.follow.asked_ns + ASK_NS {
            self.group.follow.asked_ns = now.boot_ns;
            let (to, epoch) = (self.group.primary(), self.route.epoch);
            self.send(to, &Peer::AskCommit { epoch }, out);
        }
        Step::Later
    }

    /// Answers the reads whose record is committed by now; `all`: the group changed, so each is judged
    /// anew.
    pub(super) fn wake_reads(&mut self, now: Now, all: bool, out: &mut Actions) {
        if self.group.follow.waiting.is_empty() {
            return;
        }
        let commit = self.log.commit();
        for mut read in std::mem::take(&mut self.group.follow.waiting) {
            if !all && read.rests_on > commit {
                self.group.follow.waiting.push_back(read);
                continue;
            }
            let Ok(Message::Request { request, .. }) = wire::decode(&read.encoded) else {
                unreachable!("this process encoded it")
            };
            let step = if request.route == self.route && self.reads_aside() {
                match self.read_aside(now, read.hash, &request, out) {
                    Aside::Step(step) => step,
                    Aside::Pending(rests_on) => {
                        // Another write of the key came meanwhile: within the same time.
                        read.rests_on = rests_on;
                        self.group.follow.waiting.push_back(read);
                        continue;
                    }
                }
            } else {
                self.run(now, read.token, read.hash, &request, Reads::Committed, out)
            };
            let answer = OwnedAnswer::new(&self.answer(step, out));
            out.push(Action::Reply { token: read.token, answer });
        }
    }

    /// Reads that waited for too long are the primary's.
    pub(super) fn end_waits(&mut self, now: Now, out: &mut Actions) {
        while self.group.follow.waiting.front().is_some_and(|w| now.boot_ns >= w.until_ns) {
            let Some(read) = self.group.follow.waiting.pop_front() else { return };
            let step = Step::failed(Failure::AskPrimary);
            let answer = OwnedAnswer::new(&self.answer(step, out));
            out.push(Action::Reply { token: read.token, answer });
        }
    }
}
