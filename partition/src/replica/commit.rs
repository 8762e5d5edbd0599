//! Prepare, vote, commit.

use firebrick_log::limits::IN_FLIGHT_MAX;
use firebrick_log::record::{Answered, Body, Meta};
use firebrick_log::{AppendError, Loc, Log, Room};

use super::execute::Step;
use super::lookup::Place;
use super::waiters::Waiter;
use super::{Action, Actions, IN_FLIGHT_BYTES_MAX, OwnedAnswer, Replica, State};
use crate::op::{Answer, Failure, Now, Numbered, SessionId, Version};
use crate::sessions::Remembered;

/// Records whose places are fetched before a batch of them is committed.
const COMMIT_AHEAD: usize = 32;

/// What a record does when it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Put,
    Remove,
    Clear,
    Open,
    End(SessionId),
    TakeOver,
}

/// How the request is answered when its record commits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reply {
    Done,
    Integer(i64),
    Length(u64),
    Float(f64),
    /// With the old value; pinned while it waits.
    Old(Option<Loc>),
    Absent,
    Session,
}

/// A prepared record.
#[derive(Debug)]
pub(super) struct Pending {
    pub seq: u64,
    epoch: u32,
    pub loc: Loc,
    hash: u64,
    pub effect: Effect,
    reply: Reply,
    /// Whom to answer.
    token: Option<u64>,
    /// The prepared record before this one with the same key hash; 0 is none.
    pub before: u64,
    bytes: usize,
    /// Prepared here for a request, whose answer the session remembers already.
    own: bool,
}

impl Pending {
    pub fn version(&self) -> Version {
        Version { epoch: self.epoch, seq: self.seq }
    }

    /// Another primary decides about it: the token of the request that waits for it.
    pub fn disown(&mut self, log: &Log) -> Option<u64> {
        if let Reply::Old(Some(old)) = self.reply {
            log.unpin(old);
        }
        (self.reply, self.own) = (Reply::Done, false);
        self.token.take()
    }
}

/// What to prepare.
pub(super) struct Draft<'a> {
    pub hash: u64,
    pub token: Option<u64>,
    pub body: Body<'a>,
    pub effect: Effect,
    pub reply: Reply,
    pub numbered: Option<Numbered>,
    /// Where the key is now (committed or not).
    pub old: Place,
}

/// What became of a draft.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prepared {
    /// Nothing had to come first.
    Committed(Version),
    /// The answer comes with its commit.
    Waits,
}

/// The value of a draft is in the replica's scratch buffer.
pub(super) struct InScratch;

fn answered(reply: Reply) -> Answered {
    match reply {
        Reply::Integer(_) => Answered::Integer,
        Reply::Length(_) => Answered::Length,
        _ => Answered::Version,
    }
}

fn remembered(reply: Reply, version: Version) -> Remembered {
    match reply {
        Reply::Integer(i) => Remembered::Integer(i, version),
        Reply::Length(l) => Remembered::Length(l, version),
        Reply::Float(f) => Remembered::Float(f, version),
        Reply::Absent => Remembered::Absent,
        Reply::Done | Reply::Old(_) | Reply::Session => Remembered::Done(version),
    }
}

impl Replica {
    /// Appends a record and, when nothing must come first, commits it in the same call.
    #[inline]
    #[allow(clippy::needless_pass_by_value)] // made for this call, and spent by it
    pub(super) fn prepare(
        &mut self,
        now: Now,
        draft: Draft<'_>,
        in_scratch: Option<InScratch>,
    ) -> Result<Prepared, AppendError> {
        if self.pending.len() + 1 >= IN_FLIGHT_MAX || self.pending_bytes >= IN_FLIGHT_BYTES_MAX {
            return Err(AppendError::NotYet);
        }
        let room = match draft.effect {
            Effect::Put => Room::Write,
            _ => Room::Remove,
        };
        if !self.solo {
            let value = if in_scratch.is_some() { self.scratch.len() } else { 0 };
            self.may_prepare(value + draft.body.archived_len(), room == Room::Write)?;
        }
        let version = Version { epoch: self.route.epoch, seq: self.log.tail().seq + 1 };
        let meta = Meta {
            seq: version.seq,
            epoch: version.epoch,
            commit: self.log.commit(),
            answered: answered(draft.reply),
        };
        let body = match (in_scratch, draft.body) {
            (Some(InScratch), Body::Put { key, expires_ms, id, .. }) => {
                Body::Put { key, value: &self.scratch, expires_ms, id }
            }
            (_, body) => body,
        };
        let loc = self.log.append(&meta, &body, room)?;
        self.may_expire |= matches!(body, Body::Put { expires_ms: 1.., .. });
        let bytes = body.archived_len();
        if let Some(numbered) = draft.numbered {
            self.sessions.remember(numbered.id, version.seq, remembered(draft.reply, version));
        }
        if self.solo && self.pending.is_empty() && self.log.votable(now.boot_ns) >= version.seq {
            self.apply(now, draft.effect, draft.hash, loc, version, Some(draft.old));
            self.log.set_commit(version.seq);
            return Ok(Prepared::Committed(version));
        }
        let Draft { hash, token, effect, reply, .. } = draft;
        self.push_pending(
            version,
            Pending {
                seq: version.seq,
                epoch: version.epoch,
                loc,
                hash,
                effect,
                reply,
                token,
                before: 0,
                bytes,
                own: true,
            },
        );
        Ok(Prepared::Waits)
    }

    fn push_pending(&mut self, version: Version, mut pending: Pending) {
        match pending.effect {
            Effect::Put | Effect::Remove => {
                pending.before = self.newest.insert(pending.hash, version.seq).unwrap_or(0);
            }
            Effect::Clear => self.clearing = version.seq,
            Effect::End(session) if pending.own => self.sessions.set_ending(session),
            Effect::End(_) | Effect::Open | Effect::TakeOver => {}
        }
        if let Reply::Old(Some(old)) = pending.reply {
            self.log.pin(old);
        }
        self.pending_bytes += pending.bytes;
        self.pending.push_back(pending);
    }

    /// A prepared record: of another replica, or found at start.
    pub(super) fn adopt(&mut self, loc: Loc) {
        let Ok(record) = self.log.record(loc) else { return };
        let version = record.version();
        let fields = record.fields();
        let kind = record.header().kind;
        let effect = match kind {
            k if k.is_put() => Effect::Put,
            k if k.is_remove() => Effect::Remove,
            firebrick_log::Kind::Clear => Effect::Clear,
            firebrick_log::Kind::SessionOpen => Effect::Open,
            firebrick_log::Kind::SessionEnd => match record.ended_session() {
                Some(session) => Effect::End(session),
                None => Effect::TakeOver,
            },
            _ => Effect::TakeOver,
        };
        let (hash, bytes) = (crate::hash_key(fields.key), record.body().len());
        self.may_expire |= fields.expires_ms != 0;
        self.push_pending(
            version,
            Pending {
                seq: version.seq,
                epoch: version.epoch,
                loc,
                hash,
                effect,
                reply: Reply::Done,
                token: None,
                before: 0,
                bytes,
                own: false,
            },
        );
    }

    /// The newest prepared record is not to be: another primary decided otherwise.
    pub(super) fn drop_newest(&mut self) {
        let Some(mut pending) = self.pending.pop_back() else { return };
        debug_assert!(pending.token.is_none(), "a request waits for a record that is dropped");
        pending.disown(&self.log);
        self.pending_bytes -= pending.bytes;
        let first = self.pending.front().map_or(u64::MAX, |p| p.seq);
        if matches!(pending.effect, Effect::Put | Effect::Remove) {
            if pending.before >= first {
                self.newest.insert(pending.hash, pending.before);
            } else {
                self.newest.remove(&pending.hash);
            }
        }
        if self.clearing == pending.seq {
            let clear = self.pending.iter().rev().find(|p| p.effect == Effect::Clear);
            self.clearing = clear.map_or(0, |p| p.seq);
        }
    }

    /// What a request of another replica's was answered: a retry that comes to this one gets the same.
    fn remember_of(&mut self, loc: Loc) {
        let Ok(record) = self.log.record(loc) else { return };
        if let Some(id) = record.fields().id {
            let answer = super::recover::answer_of(&record);
            self.sessions.remember(id, record.header().seq, answer);
        }
    }

    /// A committed record takes effect.
    #[inline]
    fn apply(
        &mut self,
        now: Now,
        effect: Effect,
        hash: u64,
        loc: Loc,
        version: Version,
        old: Option<Place>,
    ) {
        match effect {
            Effect::Put | Effect::Remove => {
                let old = match old {
                    Some(Place::At(old)) => Some(old),
                    Some(Place::Absent) => None,
                    _ => self.place_of_same_key(hash, loc),
                };
                self.swing(hash, old, loc, effect == Effect::Put);
            }
            Effect::Clear => {
                self.index.clear();
                self.log.mark_dead(loc);
                self.cleared = version;
                // What is prepared behind it may be a value that expires.
                self.may_expire = !self.pending.is_empty();
            }
            Effect::Open => {
                let id = SessionId::opened_by(self.leaf.partition, version);
                self.sessions.open(id, now.boot_ns);
            }
            Effect::End(session) => self.sessions.end(session),
            Effect::TakeOver => {
                self.log.mark_dead(loc);
                if self.state == (State::TakingOver { seq: version.seq }) {
                    self.state = State::Serving;
                    self.sessions.use_all(now.boot_ns);
                }
            }
        }
    }

    fn place_of_same_key(&self, hash: u64, loc: Loc) -> Option<Loc> {
        let (log, key) = (&self.log, self.log.key_at(loc));
        let same = |bits: u64| log.key_at(Loc::from_bits(bits)) == key;
        self.index.find(hash, same).map(Loc::from_bits)
    }

    #[inline]
    fn swing(&mut self, hash: u64, old: Option<Loc>, new: Loc, put: bool) {
        match (old, put) {
            (Some(old), true) => {
                let replaced = self.index.replace(hash, old.to_bits(), new.to_bits());
                assert!(replaced, "the index has lost a key");
            }
            (None, true) => self.index.insert(hash, new.to_bits()),
            (Some(old), false) => {
                let removed = self.index.remove(hash, old.to_bits());
                assert!(removed, "the index has lost a key");
            }
            (None, false) => {}
        }
        if let Some(old) = old {
            self.log.mark_dead(old);
        }
        if !put {
            // It counts as dead from now on, so that cleaning comes by and judges it.
            self.log.mark_dead(new);
        }
    }

    /// Commits what has all votes, in order, and answers.
    pub(super) fn advance(&mut self, now: Now, out: &mut Actions) {
        let Some(first) = self.pending.front() else { return };
        let votes = if self.solo { self.log.votable(now.boot_ns) } else { self.votes(now) };
        if first.seq > votes {
            return;
        }
        let copying = self.group.follow.copy.is_some();
        self.prefetch_until(votes);
        while self.pending.front().is_some_and(|p| p.seq <= votes) {
            let Some(pending) = self.pending.pop_front() else { break };
            let version = Version { epoch: pending.epoch, seq: pending.seq };
            self.pending_bytes -= pending.bytes;
            if self.newest.get(&pending.hash) == Some(&pending.seq) {
                self.newest.remove(&pending.hash);
            }
            if self.clearing == pending.seq {
                self.clearing = 0;
            }
            if copying {
                self.load_copied(pending.loc);
            } else {
                self.apply(now, pending.effect, pending.hash, pending.loc, version, None);
                if !pending.own {
                    self.remember_of(pending.loc);
                }
            }
            self.log.set_commit(pending.seq);
            if let Some(token) = pending.token {
                let step = self.step(pending.reply, version);
                let answer = OwnedAnswer::new(&self.answer(step, out));
                out.push(Action::Reply { token, answer });
            }
            if let Reply::Old(Some(old)) = pending.reply {
                self.log.unpin(old);
            }
        }
        for waiter in self.waiters.take_until(self.log.commit()) {
            out.push(Action::Reply { token: waiter.token, answer: waiter.answer });
        }
        self.wake_reads(now, false, out);
    }

    /// Fetches what the next few records up to `votes` will touch: first all their index buckets, then the
    /// records that they replace, so that the misses overlap.
    fn prefetch_until(&self, votes: u64) {
        let ripe = || self.pending.iter().take(COMMIT_AHEAD).take_while(|p| p.seq <= votes);
        ripe().for_each(|pending| self.prefetch_bucket(pending.hash));
        ripe().for_each(|pending| self.prefetch_record(pending.hash));
    }

    /// Nobody here will commit what is prepared: the table was dropped, the partition left, or the disk failed.
    /// Whoever waits is told so: `held` for a write that was not appended, `prepared` for one that was. `None`: it may
    /// be committed elsewhere, or after a restart, so it has no answer ([`Failure::InDoubt`] says that this try
    /// changed nothing, and a client would send it again under another number).
    pub fn abandon(&mut self, prepared: Option<Failure>, held: Failure, out: &mut Actions) {
        let tokens = self.pending.iter_mut().filter_map(|p| p.token.take());
        let waiting = self.waiters.take().into_iter().map(|w| w.token);
        for token in tokens.chain(waiting) {
            out.push(match prepared {
                Some(why) => {
                    Action::Reply { token, answer: OwnedAnswer::new(&Answer::Failed(why)) }
                }
                None => Action::Unanswered { token },
            });
        }
        for token in self.held.drain(..).map(|held| held.token) {
            out.push(Action::Reply { token, answer: OwnedAnswer::new(&Answer::Failed(held)) });
        }
        for read in self.group.follow.waiting.drain(..) {
            let answer = OwnedAnswer::new(&Answer::Failed(held));
            out.push(Action::Reply { token: read.token, answer });
        }
        self.held_bytes = 0;
        self.held_slice = super::held::HeldSlice::default();
    }

    /// An answer that waits; `None` when too many do.
    pub(super) fn wait(
        &mut self,
        token: u64,
        rests_on: u64,
        step: Step,
        out: &mut Actions,
    ) -> Option<()> {
        if self.waiters.is_full() {
            return None;
        }
        let answer = OwnedAnswer::new(&self.answer(step, out));
        self.waiters.push(Waiter { rests_on, token, answer });
        Some(())
    }

    /// The answer of a committed write.
    #[inline]
    pub(super) fn step(&self, reply: Reply, version: Version) -> Step {
        Step::Answer(match reply {
            Reply::Done => Answer::Done { version },
            Reply::Integer(value) => Answer::Integer { value, version },
            Reply::Length(len) => Answer::Length { len, version },
            Reply::Float(value) => return Step::Float { value, version },
            Reply::Old(old) => return Step::Old { applied: true, old, version },
            Reply::Absent => Answer::Absent,
            Reply::Session => {
                let id = SessionId::opened_by(self.leaf.partition, version);
                Answer::Session { session: id }
            }
        })
    }
}
