//! Writes: decided against the newest record of the key, committed or not.

use firebrick_log::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use firebrick_log::record::Body;
use firebrick_log::{AppendError, Corrupt, Loc};

use super::commit::{Draft, Effect, InScratch, Prepared, Reply};
use super::execute::Step;
use super::lookup::Place;
use super::number::{format_float, parse_float, parse_integer};
use super::{Actions, Replica};
use crate::op::{Answer, Condition, ExpireWhen, Expiry, Failure, Now, Op, Request, Version};
use crate::sessions::{Remembered, Seen};

/// What a write comes to.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// The request's value.
    Put {
        expires_ms: u64,
        reply: Reply,
    },
    /// The value in the scratch buffer.
    PutScratch {
        expires_ms: u64,
        reply: Reply,
    },
    Remove {
        reply: Reply,
    },
    /// Nothing is written.
    Nothing {
        step: Step,
        remember: Remembered,
    },
}

impl Decision {
    fn failed(failure: Failure) -> Self {
        Self::Nothing { step: Step::failed(failure), remember: Remembered::Failed(failure) }
    }

    fn refused(current: Version) -> Self {
        let step = Step::Answer(Answer::Refused { current });
        Self::Nothing { step, remember: Remembered::Refused(current) }
    }

    fn absent() -> Self {
        Self::Nothing { step: Step::Answer(Answer::Absent), remember: Remembered::Absent }
    }
}

/// The value a key has now.
#[derive(Clone, Copy, Default)]
struct Current<'a> {
    loc: Option<Loc>,
    value: &'a [u8],
    expires_ms: u64,
    version: Version,
}

fn holds(condition: Condition, current: &Current<'_>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => current.loc.is_none(),
        Condition::Present => current.loc.is_some(),
        Condition::Version(version) => current.loc.is_some() && current.version == version,
    }
}

fn value_len(op: &Op<'_>) -> usize {
    match op {
        Op::Put { value, .. } | Op::Append { value } => value.len(),
        Op::SetRange { offset, value } if !value.is_empty() => *offset as usize + value.len(),
        _ => 0,
    }
}

impl Replica {
    #[inline]
    pub(super) fn write(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        out: &mut Actions,
    ) -> Step {
        if request.key.len() > KEY_BYTES_MAX || value_len(&request.op) > VALUE_BYTES_MAX {
            return Step::failed(Failure::TooLarge);
        }
        if self.log.is_sick() {
            return Step::failed(self.disk_failed());
        }
        if let Some(numbered) = &request.numbered {
            match self.sessions.check(numbered, now.boot_ns) {
                Seen::New => {}
                Seen::InDoubt => return Step::failed(Failure::InDoubt),
                Seen::Before { rests_on, answer } => {
                    return self.resting(token, rests_on, Self::again(answer), out);
                }
            }
        }
        match request.op {
            Op::Clear | Op::OpenSession { .. } | Op::EndSession { .. } => {
                self.write_whole(now, token, request)
            }
            _ => self.write_key(now, token, hash, request, out),
        }
    }

    #[inline]
    fn write_key(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        out: &mut Actions,
    ) -> Step {
        let newest = self.newest(hash, request.key, out);
        if newest.place == Place::Damaged {
            return Step::failed(Failure::Corrupt);
        }
        let decided = match request.op {
            Op::Put { expiry, condition: Condition::Always, want_old: false, .. }
                if expiry != Expiry::Keep =>
            {
                let expires_ms = if let Expiry::At(ms) = expiry { ms } else { 0 };
                Ok((Decision::Put { expires_ms, reply: Reply::Done }, false))
            }
            _ => self.decide(now, newest.place, request),
        };
        let (decision, expired) = match decided {
            Ok(decided) => decided,
            Err(corrupt) => {
                self.report(corrupt, out);
                return Step::failed(Failure::Corrupt);
            }
        };
        self.carry_out(now, token, hash, request, newest, decision, expired, out)
    }

    #[allow(clippy::too_many_arguments)] // one call, split for its length
    #[inline]
    fn carry_out(
        &mut self,
        now: Now,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        newest: super::lookup::Newest,
        decision: Decision,
        expired: bool,
        out: &mut Actions,
    ) -> Step {
        let key = request.key;
        let id = request.numbered.map(|n| n.id);
        let mut draft = Draft {
            hash,
            token: Some(token),
            body: Body::Remove { key, id },
            effect: Effect::Remove,
            reply: Reply::Done,
            numbered: request.numbered,
            old: newest.place,
        };
        let mut in_scratch = None;
        match decision {
            Decision::Put { expires_ms, reply } => {
                let Op::Put { value, .. } = request.op else { unreachable!("only a put has it") };
                draft.body = Body::Put { key, value, expires_ms, id };
                (draft.effect, draft.reply) = (Effect::Put, reply);
            }
            Decision::PutScratch { expires_ms, reply } => {
                if self.scratch.len() > VALUE_BYTES_MAX {
                    return Step::failed(Failure::TooLarge);
                }
                draft.body = Body::Put { key, value: &[], expires_ms, id };
                (draft.effect, draft.reply) = (Effect::Put, reply);
                in_scratch = Some(InScratch);
            }
            Decision::Remove { reply } => draft.reply = reply,
            Decision::Nothing { step, remember } => {
                let mut rests_on = newest.rests_on;
                if let (true, Place::At(loc)) = (expired, newest.place) {
                    match self.expire(now, hash, key, loc) {
                        Ok(seq) => rests_on = seq,
                        Err(error) => return error.into(),
                    }
                }
                if let Some(id) = id {
                    self.sessions.remember(id, rests_on, remember);
                }
                return self.resting(token, rests_on, step, out);
            }
        }
        let reply = draft.reply;
        let prepared = self.prepare(now, draft, in_scratch);
        self.comes_to(prepared, reply)
    }

    #[inline]
    fn comes_to(&self, prepared: Result<Prepared, AppendError>, reply: Reply) -> Step {
        match prepared {
            Ok(Prepared::Committed(version)) => self.step(reply, version),
            Ok(Prepared::Waits) => Step::Later,
            Err(error) => error.into(),
        }
    }

    fn current(&self, now: Now, place: Place) -> Result<(Current<'_>, bool), Corrupt> {
        let Place::At(loc) = place else { return Ok((Current::default(), false)) };
        let record = self.log.record(loc)?;
        let fields = record.fields();
        if fields.expires_ms != 0 && fields.expires_ms <= now.unix_ms {
            return Ok((Current::default(), true));
        }
        let (value, expires_ms) = (fields.value, fields.expires_ms);
        Ok((Current { loc: Some(loc), value, expires_ms, version: record.version() }, false))
    }

    /// The decision, and whether the key's value is expired.
    fn decide(
        &mut self,
        now: Now,
        place: Place,
        request: &Request<'_>,
    ) -> Result<(Decision, bool), Corrupt> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let decided = self.current(now, place).map(|(current, expired)| {
            (decide_on(now, &current, &request.op, &mut scratch), expired)
        });
        self.scratch = scratch;
        decided
    }

    fn write_whole(&mut self, now: Now, token: u64, request: &Request<'_>) -> Step {
        let (body, effect, reply) = match request.op {
            Op::OpenSession { client } => {
                if let Err(idle) = self.sessions.room(now.boot_ns) {
                    let Some(idle) = idle else { return Step::failed(Failure::Busy) };
                    if let Err(error) = self.end_session(now, None, idle) {
                        return error.into();
                    }
                }
                (Body::SessionOpen { client }, Effect::Open, Reply::Session)
            }
            Op::EndSession { session } => {
                if !self.sessions.is_open(session) {
                    return Step::Answer(Answer::Absent);
                }
                let prepared = self.end_session(now, Some(token), session);
                return self.comes_to(prepared, Reply::Done);
            }
            _ => (Body::Clear, Effect::Clear, Reply::Done),
        };
        let draft = Draft {
            hash: 0,
            token: Some(token),
            body,
            effect,
            reply,
            numbered: None,
            old: Place::Absent,
        };
        let prepared = self.prepare(now, draft, None);
        self.comes_to(prepared, reply)
    }

    /// Ends a session by a record.
    pub(super) fn end_session(
        &mut self,
        now: Now,
        token: Option<u64>,
        session: crate::op::SessionId,
    ) -> Result<Prepared, AppendError> {
        let draft = Draft {
            hash: 0,
            token,
            body: Body::SessionEnd { session },
            effect: Effect::End(session),
            reply: Reply::Done,
            numbered: None,
            old: Place::Absent,
        };
        self.prepare(now, draft, None)
    }
}

fn decide_on(now: Now, current: &Current<'_>, op: &Op<'_>, scratch: &mut Vec<u8>) -> Decision {
    let Current { loc, value, expires_ms, version } = *current;
    let not_applied = |want_old| {
        if want_old {
            let step = Step::Old { applied: false, old: loc, version };
            Decision::Nothing { step, remember: Remembered::Refused(version) }
        } else {
            Decision::refused(version)
        }
    };
    let reply = |want_old| if want_old { Reply::Old(loc) } else { Reply::Done };
    match *op {
        Op::Put { expiry, condition, want_old, .. } => {
            if !holds(condition, current) {
                return not_applied(want_old);
            }
            let expires_ms = match expiry {
                Expiry::Never => 0,
                Expiry::Keep => expires_ms,
                Expiry::At(ms) => ms,
            };
            Decision::Put { expires_ms, reply: reply(want_old) }
        }
        Op::Remove { condition, want_old } => match (holds(condition, current), loc) {
            (false, _) => not_applied(want_old),
            (true, Some(_)) => Decision::Remove { reply: reply(want_old) },
            (true, None) if want_old => not_applied(true),
            (true, None) => Decision::absent(),
        },
        Op::Increment { by } => increment(current, by, scratch),
        Op::IncrementFloat { by } => increment_float(current, by, scratch),
        Op::Append { value: more } => {
            scratch.clear();
            scratch.extend_from_slice(value);
            scratch.extend_from_slice(more);
            length(expires_ms, scratch)
        }
        Op::SetRange { offset, value: over } => {
            if over.is_empty() {
                let len = value.len() as u64;
                let step = Step::Answer(Answer::Length { len, version });
                return Decision::Nothing { step, remember: Remembered::Length(len, version) };
            }
            let (start, end) = (offset as usize, offset as usize + over.len());
            scratch.clear();
            scratch.extend_from_slice(value);
            scratch.resize(value.len().max(end), 0);
            scratch[start..end].copy_from_slice(over);
            length(expires_ms, scratch)
        }
        Op::Expire { at_ms, when } => expire(now, current, at_ms, when, scratch),
        _ => Decision::failed(Failure::Malformed),
    }
}

fn length(expires_ms: u64, scratch: &[u8]) -> Decision {
    if scratch.len() > VALUE_BYTES_MAX {
        return Decision::failed(Failure::TooLarge);
    }
    Decision::PutScratch { expires_ms, reply: Reply::Length(scratch.len() as u64) }
}

fn increment(current: &Current<'_>, by: i64, scratch: &mut Vec<u8>) -> Decision {
    use std::io::Write;
    let old = if current.loc.is_some() { parse_integer(current.value) } else { Some(0) };
    let Some(old) = old else { return Decision::failed(Failure::NotInteger) };
    let Some(new) = old.checked_add(by) else { return Decision::failed(Failure::Overflow) };
    scratch.clear();
    let _ = write!(scratch, "{new}");
    Decision::PutScratch { expires_ms: current.expires_ms, reply: Reply::Integer(new) }
}

fn increment_float(current: &Current<'_>, by: f64, scratch: &mut Vec<u8>) -> Decision {
    let old = if current.loc.is_some() { parse_float(current.value) } else { Some(0.0) };
    let Some(old) = old else { return Decision::failed(Failure::NotFloat) };
    let new = old + by;
    if !new.is_finite() {
        return Decision::failed(Failure::NotFinite);
    }
    format_float(new, scratch);
    Decision::PutScratch { expires_ms: current.expires_ms, reply: Reply::Float(new) }
}

fn expire(
    now: Now,
    current: &Current<'_>,
    at_ms: u64,
    when: ExpireWhen,
    scratch: &mut Vec<u8>,
) -> Decision {
    if current.loc.is_none() {
        return Decision::absent();
    }
    let has = current.expires_ms != 0;
    let (new, old) = (later(at_ms), later(current.expires_ms));
    #[allow(clippy::nonminimal_bool)] // a line for each reason
    let refused = (at_ms == 0 && !has)
        || (when.nx && has)
        || (when.xx && !has)
        || (when.gt && new <= old)
        || (when.lt && new >= old);
    if refused {
        return Decision::refused(current.version);
    }
    if at_ms != 0 && at_ms <= now.unix_ms {
        return Decision::Remove { reply: Reply::Done };
    }
    scratch.clear();
    scratch.extend_from_slice(current.value);
    Decision::PutScratch { expires_ms: at_ms, reply: Reply::Done }
}

/// "Never" is later than any time.
fn later(ms: u64) -> u64 {
    if ms == 0 { u64::MAX } else { ms }
}
