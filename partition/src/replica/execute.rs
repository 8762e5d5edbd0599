//! The entrance: routes, then reads and writes.

use firebrick_log::canary::{self, Canary};
use firebrick_log::{AppendError, Loc};

use super::{Actions, Outcome, Replica, State};
use crate::maps::{RouteCheck, check};
use crate::op::{Answer, Failure, Now, Op, Request, Version};
use crate::sessions::Remembered;

/// An answer before its bytes are borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Answer(Answer<'static>),
    /// The value at a place.
    Value(Loc),
    /// Its length.
    Seen(Loc),
    /// The key at a place.
    Key(Loc),
    /// An old value, if there was one.
    Old {
        applied: bool,
        old: Option<Loc>,
        version: Version,
    },
    /// A number, to be written in the scratch buffer.
    Float {
        value: f64,
        version: Version,
    },
    /// Keys packed in the scratch buffer.
    Packed {
        cursor: u64,
    },
    /// It comes when its record commits.
    Later,
    /// Try again when there is a segment.
    Hold,
}

/// Which writes a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The committed value.
    Committed,
    /// Also what is prepared: for a connection with a write in flight. Answered after its commit.
    Own,
}

impl From<AppendError> for Step {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotYet => Step::Hold,
            AppendError::NoSpace => Step::failed(Failure::NoSpace),
        }
    }
}

impl Step {
    pub(super) fn failed(failure: Failure) -> Self {
        Self::Answer(Answer::Failed(failure))
    }
}

impl Replica {
    /// Executes a request. `hash` is that of its key; `token` comes back with a later reply.
    #[inline]
    pub fn execute<'a>(
        &'a mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        out: &mut Actions,
    ) -> Outcome<'a> {
        // The path that is taken most: nothing prepared, nothing expires.
        if matches!(request.op, Op::Get)
            && !self.may_expire
            && request.route == self.route
            && self.is_serving()
            && self.leaf.covers(hash)
        {
            return Outcome::Now(self.get(hash, request.key, out));
        }
        self.execute_with(now, token, hash, request, Reads::Committed, out)
    }

    /// As [`Replica::execute`], saying which writes a read must see.
    pub fn execute_with<'a>(
        &'a mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        reads: Reads,
        out: &mut Actions,
    ) -> Outcome<'a> {
        match self.run(now, token, hash, request, reads, out) {
            Step::Later => Outcome::Later,
            Step::Hold => match self.hold(token, hash, request, reads) {
                Ok(()) => Outcome::Later,
                Err(failure) => Outcome::Now(Answer::Failed(failure)),
            },
            step => Outcome::Now(self.answer(step, out)),
        }
    }

    #[inline]
    fn get(&mut self, hash: u64, key: &[u8], out: &mut Actions) -> Answer<'_> {
        let step = self.look_up(hash, key, out);
        self.answer(step, out)
    }

    fn look_up(&mut self, hash: u64, key: &[u8], out: &mut Actions) -> Step {
        self.committed(hash, key, out).read(Step::Value)
    }

    /// What a request comes to; a write that cannot be prepared yet is to be held.
    pub(super) fn run(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        reads: Reads,
        out: &mut Actions,
    ) -> Step {
        if request.route != self.route {
            return match check(self.route, request.route) {
                RouteCheck::Older(route) => Step::Answer(Answer::StaleRoute { route }),
                RouteCheck::Newer => Step::failed(Failure::RouteTooNew),
                RouteCheck::Unknown | RouteCheck::Current => Step::failed(Failure::WrongPartition),
            };
        }
        match self.state {
            State::Serving | State::Following => {}
            State::TakingOver { .. } if canary::is_on(Canary::ServeBeforeTakeOver) => {}
            // Nobody knows when there will be some.
            State::Beginning if self.lacks_room() => return Step::failed(Failure::NoSpace),
            State::Beginning | State::TakingOver { .. } if self.log.is_sick() => {
                return Step::failed(self.disk_failed());
            }
            // In a moment it serves, or the map names another primary.
            State::Beginning | State::TakingOver { .. } | State::Stopped => return Step::Hold,
            State::Recovering | State::Ready => return Step::failed(Failure::Unavailable),
        }
        let whole = matches!(
            request.op,
            Op::Scan { .. }
                | Op::Count
                | Op::RandomKey { .. }
                | Op::Clear
                | Op::OpenSession { .. }
                | Op::EndSession { .. }
        );
        if !whole && !self.leaf.covers(hash) {
            return Step::failed(Failure::WrongPartition);
        }
        if self.state == State::Following {
            return self.run_aside(now, token, hash, request, reads, out);
        }
        let read = request.op.is_read();
        if !self.held.is_empty() && (!read || reads == Reads::Own) && !self.running_held {
            return Step::Hold;
        }
        if read {
            self.read(now, token, hash, request, reads, out)
        } else {
            self.write(now, token, hash, request, out)
        }
    }

    /// Borrows an answer's bytes. A record is checked before its bytes leave.
    #[inline]
    pub(super) fn answer(&mut self, step: Step, out: &mut Actions) -> Answer<'_> {
        let corrupt = match step {
            Step::Value(loc) => match self.log.record(loc) {
                Ok(record) => {
                    let (version, fields) = (record.version(), record.fields());
                    let (value, expires_ms) = (fields.value, fields.expires_ms);
                    return Answer::Value { value, version, expires_ms };
                }
                Err(corrupt) => corrupt,
            },
            Step::Answer(answer) => return answer,
            other => return self.answer_rarely(other, out),
        };
        self.corrupt_total += 1;
        out.push(super::Action::Corrupt(corrupt));
        Answer::Failed(Failure::Corrupt)
    }

    fn answer_rarely(&mut self, step: Step, out: &mut Actions) -> Answer<'_> {
        let corrupt = match step {
            Step::Seen(loc) => match self.log.record(loc) {
                Ok(record) => {
                    let (version, fields) = (record.version(), record.fields());
                    let (len, expires_ms) = (fields.value.len() as u32, fields.expires_ms);
                    return Answer::Seen { len, version, expires_ms };
                }
                Err(corrupt) => corrupt,
            },
            Step::Key(loc) => match self.log.record(loc) {
                Ok(record) => return Answer::Key { key: record.fields().key },
                Err(corrupt) => corrupt,
            },
            Step::Old { applied, old: None, version } => {
                return Answer::Old { applied, existed: false, value: &[], version };
            }
            Step::Old { applied, old: Some(loc), version } => match self.log.record(loc) {
                Ok(record) => {
                    let value = record.fields().value;
                    return Answer::Old { applied, existed: true, value, version };
                }
                Err(corrupt) => corrupt,
            },
            Step::Float { value, version } => {
                super::number::format_float(value, &mut self.scratch);
                return Answer::Float { value: &self.scratch, version };
            }
            Step::Packed { cursor } => return Answer::Keys { cursor, packed: &self.scratch },
            Step::Answer(answer) => return answer,
            Step::Value(_) | Step::Later | Step::Hold => unreachable!("handled before"),
        };
        self.corrupt_total += 1;
        out.push(super::Action::Corrupt(corrupt));
        Answer::Failed(Failure::Corrupt)
    }

    /// An answer that rests on `rests_on`: now, or when that is committed.
    pub(super) fn resting(
        &mut self,
        token: u64,
        rests_on: u64,
        step: Step,
        out: &mut Actions,
    ) -> Step {
        if rests_on <= self.log.commit() || canary::is_on(Canary::RefuseAtOnce) {
            return step;
        }
        // Too much waits: it is asked again when that is committed.
        self.wait(token, rests_on, step, out).map_or(Step::Hold, |()| Step::Later)
    }

    pub(super) fn again(answer: Remembered) -> Step {
        Step::Answer(match answer {
            Remembered::Done(version) => Answer::Done { version },
            Remembered::Integer(value, version) => Answer::Integer { value, version },
            Remembered::Length(len, version) => Answer::Length { len, version },
            Remembered::Float(value, version) => return Step::Float { value, version },
            Remembered::Absent => Answer::Absent,
            Remembered::Refused(current) => Answer::Refused { current },
            Remembered::Failed(failure) => Answer::Failed(failure),
        })
    }
}
