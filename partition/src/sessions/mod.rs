//! Exactly once: what a client's session was answered, so that a retry never applies twice.
//!
//! A session has a window of 64 request numbers. `low` is the mark below which results are gone: the
//! client said that it has those answers, or it sent a request 64 above them, which it does only when
//! it has them. A number in the window that was not seen is new; one that was seen gets the first
//! answer, once the record that the answer rests on is committed; one at or below the mark, and any of
//! an unknown session, is in doubt and never applied.
//!
//! At most [`SESSIONS_MAX`] sessions: past that the one idle longest ends, if it has been idle for
//! [`IDLE_LEAST_NS`]; else opening answers `Busy`.

#[cfg(test)]
mod tests;

use firebrick_log::canary::{self, Canary};
use std::collections::{HashMap, HashSet, VecDeque, hash_map};
use std::hash::BuildHasherDefault;

use firebrick_log::limits::RECORD_BYTES_MAX;
use firebrick_log::record::{Answered, SessionResult};

use rapidhash::fast::RapidHasher;

use crate::op::{Failure, Numbered, RequestId, SessionId, Version};

/// Numbers of a session that may be unanswered.
pub const WINDOW: u32 = 64;
/// Results that a session keeps before it throws out those below its mark.
const RESULTS_MAX: usize = WINDOW as usize * 3 / 2;
/// Sessions of one partition.
pub const SESSIONS_MAX: usize = 3_000;
/// A session ends when it was idle for this long.
pub const IDLE_NS: u64 = 60_000_000_000;
/// A session idle for less is not ended to make room for another.
pub const IDLE_LEAST_NS: u64 = 5_000_000_000;

// All results fit one record.
const _: () = assert!(SESSIONS_MAX * (WINDOW as usize + 1) * 40 + 64 < RECORD_BYTES_MAX);

/// An answer that can be given again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Remembered {
    /// The version written.
    Done(Version),
    /// The integer and the version written.
    Integer(i64, Version),
    /// The length and the version written.
    Length(u64, Version),
    /// The number, written as text.
    Float(f64, Version),
    /// There was no value; nothing was written.
    Absent,
    /// The condition did not hold.
    Refused(Version),
    /// It failed for good.
    Failed(Failure),
}

impl Remembered {
    /// A record holds it, so that every replica knows it.
    fn is_written(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Integer(..) | Self::Length(..) | Self::Float(..))
    }
}

/// What a request's number says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// Decide and apply it.
    New,
    /// Answer this, once `rests_on` is committed.
    Before {
        /// Sequence number.
        rests_on: u64,
        /// The answer.
        answer: Remembered,
    },
    /// Never apply it.
    InDoubt,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u32,
    rests_on: u64,
    answer: Remembered,
}

#[derive(Debug, Default)]
struct Session {
    low: u32,
    used_ns: u64,
    ending: bool,
    /// Bit `i`: there is a result of number `low + 1 + i`.
    seen: u64,
    /// Results in the order in which they came. Those at or below the mark count no more; they go a few at
    /// a time.
    results: Vec<Entry>,
}

impl Session {
    /// The bit of a number in the window.
    #[inline]
    fn bit(&self, number: u32) -> u64 {
        let above = number.wrapping_sub(self.low).wrapping_sub(1);
        if above < WINDOW { 1 << above } else { 0 }
    }

    #[inline]
    fn find(&self, number: u32) -> Option<&Entry> {
        if self.seen & self.bit(number) == 0 {
            return None;
        }
        self.results.iter().find(|e| e.number == number)
    }

    /// The results above the mark.
    fn window(&self) -> impl Iterator<Item = &Entry> {
        self.results.iter().filter(|e| e.number > self.low)
    }

    #[inline]
    fn raise(&mut self, low: u32) {
        if low > self.low {
            self.seen = self.seen.checked_shr(low - self.low).unwrap_or(0);
            self.low = low;
            if self.results.len() >= RESULTS_MAX {
                self.results.retain(|e| e.number > low);
            }
        }
    }

    #[inline]
    fn remember(&mut self, entry: Entry) {
        self.raise(entry.number.saturating_sub(WINDOW));
        let bit = self.bit(entry.number);
        if bit != 0 && self.seen & bit == 0 {
            self.seen |= bit;
            self.results.push(entry);
        }
    }

    /// Only these results stay.
    fn keep(&mut self, wanted: impl Fn(&Entry) -> bool) {
        let low = self.low;
        self.results.retain(|e| e.number > low && wanted(e));
        self.seen = self.results.iter().fold(0, |seen, e| seen | self.bit(e.number));
    }
}

/// Ids are the brick's own numbers, so nobody can choose them to collide.
type ById<T> = HashMap<SessionId, T, BuildHasherDefault<RapidHasher<'static>>>;

/// All sessions of a partition.
#[derive(Debug, Default)]
pub struct Sessions {
    by_id: ById<Session>,
    /// Looked at in turn for idleness; ids of ended sessions go when their turn comes.
    turns: VecDeque<SessionId>,
    /// Changes so far.
    changes: u64,
}

impl Sessions {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Grows with everything that a `Sessions` record would say differently.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A session was opened (its record is committed).
    pub fn open(&mut self, id: SessionId, now_ns: u64) {
        // One that was prepared before a crash is known already, with its requests.
        if let hash_map::Entry::Vacant(place) = self.by_id.entry(id) {
            place.insert(Session { used_ns: now_ns, ..Session::default() });
            self.turns.push_back(id);
        }
        self.changes += 1;
    }

    /// A session was ended (its record is committed).
    pub fn end(&mut self, id: SessionId) {
        self.by_id.remove(&id);
        self.changes += 1;
    }

    /// It is open.
    pub fn is_open(&self, id: SessionId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Judges a request.
    pub fn check(&mut self, numbered: &Numbered, now_ns: u64) -> Seen {
        let Numbered { id, answered_to } = *numbered;
        let Some(session) = self.by_id.get_mut(&id.session) else { return Seen::InDoubt };
        if session.ending || id.number == 0 {
            return Seen::InDoubt;
        }
        session.used_ns = now_ns;
        if let Some(entry) = session.find(id.number)
            && !canary::is_on(Canary::ForgetAnswers)
        {
            return Seen::Before { rests_on: entry.rests_on, answer: entry.answer };
        }
        if id.number <= session.low {
            return Seen::InDoubt;
        }
        // A mark at or above the request itself would be nonsense.
        session.raise(answered_to.min(id.number - 1).max(id.number.saturating_sub(WINDOW)));
        Seen::New
    }

    /// A request was decided: this is its answer once `rests_on` is committed.
    pub fn remember(&mut self, id: RequestId, rests_on: u64, answer: Remembered) {
        if let Some(session) = self.by_id.get_mut(&id.session) {
            session.remember(Entry { number: id.number, rests_on, answer });
            self.changes += 1;
        }
    }

    /// Whether another may be opened; if not now, then maybe after ending the one that was idle
    /// longest.
    pub fn room(&self, now_ns: u64) -> Result<(), Option<SessionId>> {
        if self.by_id.len() < SESSIONS_MAX {
            return Ok(());
        }
        let idle = self.by_id.iter().filter(|(_, s)| !s.ending).min_by_key(|(_, s)| s.used_ns);
        Err(idle
            .filter(|(_, s)| now_ns.saturating_sub(s.used_ns) >= IDLE_LEAST_NS)
            .map(|(id, _)| *id))
    }

    /// This replica begins to serve: until now another one saw what was used.
    pub fn use_all(&mut self, now_ns: u64) {
        for session in self.by_id.values_mut() {
            session.used_ns = now_ns;
        }
    }

    /// The next of at most `look` sessions that was idle too long.
    pub fn next_idle(&mut self, now_ns: u64, look: usize) -> Option<SessionId> {
        for _ in 0..look.min(self.turns.len()) {
            let id = self.turns.pop_front()?;
            let Some(session) = self.by_id.get(&id) else { continue };
            self.turns.push_back(id);
            if !session.ending && now_ns.saturating_sub(session.used_ns) >= IDLE_NS {
                return Some(id);
            }
        }
        None
    }

    /// A record that ends it is prepared: it takes no more requests.
    pub fn set_ending(&mut self, id: SessionId) {
        if let Some(session) = self.by_id.get_mut(&id) {
            session.ending = true;
        }
    }

    /// Another primary decides about what is not committed: only results that a record up to `commit`
    /// holds stay.
    pub fn forget_uncommitted(&mut self, commit: u64) {
        for session in self.by_id.values_mut() {
            session.ending = false;
            session.keep(|e| e.rests_on <= commit && e.answer.is_written());
        }
        self.changes += 1;
    }

    /// The open sessions, with how many results each may have in a `Sessions` record that begins now.
    pub fn open_ones(&self) -> Vec<(SessionId, usize)> {
        self.by_id.iter().map(|(id, session)| (*id, session.window().count())).collect()
    }

    /// Adds what a `Sessions` record of that watermark keeps of a session, if it is still open: number 0
    /// says that it is open, with the mark as its result, then the committed ones of its first `most`
    /// answers. (What was answered since stands behind those, and is in a newer record.)
    pub fn results(&self, id: SessionId, most: usize, commit: u64, out: &mut Vec<SessionResult>) {
        let Some(session) = self.by_id.get(&id) else { return };
        let line = |number, version: Version, answered: Answered, result| SessionResult {
            session_partition: id.partition,
            session_opened: id.opened,
            number,
            epoch: version.epoch,
            seq: version.seq,
            answered: answered as u8,
            result,
        };
        out.push(line(0, Version::default(), Answered::Version, i64::from(session.low)));
        for entry in session.window().take(most).filter(|e| e.rests_on <= commit) {
            out.push(match entry.answer {
                Remembered::Done(v) | Remembered::Float(_, v) => {
                    line(entry.number, v, Answered::Version, 0)
                }
                Remembered::Integer(i, v) => line(entry.number, v, Answered::Integer, i),
                Remembered::Length(l, v) => line(entry.number, v, Answered::Length, l as i64),
                // Refusals are for the epoch only: a first try that comes later is stale.
                _ => continue,
            });
        }
    }
}

/// Rebuilds sessions from a log's records, which come in any order.
#[derive(Debug, Default)]
pub struct Rebuild {
    /// Sequence number up to which the best `Sessions` record speaks.
    stamp: Option<u64>,
    listed: HashMap<SessionId, u32>,
    /// With the sequence number of the record.
    opened: HashMap<SessionId, u64>,
    ended: HashSet<SessionId>,
    found: HashMap<SessionId, Session>,
}

impl Rebuild {
    /// A `SessionOpen` record.
    pub fn opened(&mut self, partition: u32, version: Version) {
        self.opened.insert(SessionId::opened_by(partition, version), version.seq);
    }

    /// A `SessionEnd` record.
    pub fn ended(&mut self, id: SessionId) {
        self.ended.insert(id);
        self.found.remove(&id);
    }

    /// A write with a request id.
    pub fn wrote(&mut self, id: RequestId, rests_on: u64, answer: Remembered) {
        if !self.ended.contains(&id.session) {
            let entry = Entry { number: id.number, rests_on, answer };
            self.found.entry(id.session).or_default().remember(entry);
        }
    }

    /// A `Sessions` record; whether it is the newest so far.
    pub fn listed(&mut self, stamp: u64, results: impl Iterator<Item = SessionResult>) -> bool {
        let newest = self.stamp.is_none_or(|s| stamp >= s);
        if newest {
            self.stamp = Some(stamp);
            self.listed.clear();
        }
        for result in results {
            let session =
                SessionId { partition: result.session_partition, opened: result.session_opened };
            if result.number == 0 {
                if newest {
                    self.listed.insert(session, u32::try_from(result.result).unwrap_or(0));
                }
                continue;
            }
            let version = Version { epoch: result.epoch, seq: result.seq };
            let answer = match result.answered {
                a if a == Answered::Integer as u8 => Remembered::Integer(result.result, version),
                a if a == Answered::Length as u8 => {
                    Remembered::Length(result.result as u64, version)
                }
                _ => Remembered::Done(version),
            };
            self.wrote(RequestId { session, number: result.number }, version.seq, answer);
        }
        newest
    }

    /// The sessions, all used just now.
    pub fn finish(mut self, now_ns: u64) -> Sessions {
        let stamp = self.stamp.unwrap_or(0);
        // Ended ones count too: their records are there.
        let traces = self.opened.len() + self.ended.len();
        let mut sessions = Sessions { changes: traces as u64, ..Sessions::default() };
        let new = self.opened.iter().filter(|(_, seq)| **seq > stamp).map(|(id, _)| (*id, 0));
        let all: Vec<(SessionId, u32)> =
            self.listed.iter().map(|(k, v)| (*k, *v)).chain(new).collect();
        for (id, low) in all {
            if self.ended.contains(&id) {
                continue;
            }
            sessions.open(id, now_ns);
            if let (Some(found), Some(session)) =
                (self.found.remove(&id), sessions.by_id.get_mut(&id))
            {
                *session = Session { used_ns: now_ns, ..found };
                session.raise(low);
            } else if let Some(session) = sessions.by_id.get_mut(&id) {
                session.low = low;
            }
        }
        sessions
    }
}
