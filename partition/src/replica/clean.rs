//! What is live: the partition's side of cleaning.

use firebrick_log::record::{Answered, Meta, Record};
use firebrick_log::{AppendError, CleanProgress, Cleaner, Kind, Loc, Log, Verdict};

use super::Replica;
use crate::hash::hash_key;
use crate::index::Index;
use crate::op::{SessionId, Version};

/// The newest `Sessions` record.
#[derive(Debug, Default)]
pub(super) struct SessionsRecord {
    pub(super) loc: Option<Loc>,
    /// Its sequence number.
    seq: u64,
    /// It speaks of everything up to here.
    stamp: u64,
    /// `Sessions::changes` when it was written; `None` when that is not known.
    changes: Option<u64>,
    /// The one that is being written.
    pub(super) draft: Option<Draft>,
}

/// Sessions whose results one slice writes: about 30 us when all windows are full.
pub(super) const SESSIONS_SLICE: usize = 32;

/// A `Sessions` record on its way: a few sessions a slice.
#[derive(Debug)]
pub(super) struct Draft {
    stamp: u64,
    changes: Option<u64>,
    /// Sessions that are still to be written, and how many results each had when this began.
    left: Vec<(SessionId, usize)>,
}

impl SessionsRecord {
    /// Found at start, newer than the one before.
    pub(super) fn found(&mut self, log: &Log, loc: Loc, stamp: u64) {
        if let Some(old) = self.loc.replace(loc) {
            log.mark_dead(old);
        }
        (self.seq, self.stamp, self.changes) = (stamp, stamp, None);
    }

    /// The sequence number of the newest one.
    pub(super) fn seq(&self) -> Option<u64> {
        self.loc.map(|_| self.seq)
    }

    /// Up to where the newest one speaks.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }
}

struct Judge<'a> {
    index: &'a mut Index,
    sessions: &'a mut SessionsRecord,
    cleared: Version,
}

impl Judge<'_> {
    fn indexed(&self, loc: Loc, hash: u64) -> bool {
        self.index.find(hash, |bits| bits == loc.to_bits()).is_some()
    }

    /// A put of the key is in the index, so it is newer than a tombstone.
    fn has_value(&self, log: &Log, hash: u64, key: &[u8]) -> bool {
        self.index.find(hash, |bits| log.key_at(Loc::from_bits(bits)) == key).is_some()
    }
}

impl Cleaner for Judge<'_> {
    fn judge(&mut self, log: &Log, loc: Loc, record: &Record<'_>, tombstone_floor: u64) -> Verdict {
        let header = record.header();
        let live = |is| if is { Verdict::Live } else { Verdict::Dead };
        match header.kind {
            Kind::Put | Kind::PutX | Kind::PutId | Kind::PutXId => {
                live(self.indexed(loc, hash_key(record.fields().key)))
            }
            Kind::Remove | Kind::RemoveId => {
                let key = record.fields().key;
                if record.version() < self.cleared || self.has_value(log, hash_key(key), key) {
                    Verdict::Dead
                } else if header.seq < tombstone_floor {
                    Verdict::DropTombstone
                } else {
                    Verdict::Live
                }
            }
            // A Clear hides what may lie anywhere, as long as it is the newest.
            Kind::Clear => live(record.version() == self.cleared),
            Kind::SessionOpen | Kind::SessionEnd => live(header.seq > self.sessions.stamp),
            Kind::Sessions => live(self.sessions.loc == Some(loc)),
            Kind::TakeOver => Verdict::Dead,
        }
    }

    fn moved(&mut self, record: &Record<'_>, from: Loc, to: Loc) {
        match record.header().kind {
            kind if kind.is_put() => {
                let hash = hash_key(record.fields().key);
                let replaced = self.index.replace(hash, from.to_bits(), to.to_bits());
                assert!(replaced, "a live record is in the index");
            }
            Kind::Sessions => self.sessions.loc = Some(to),
            _ => {}
        }
    }

    fn live_puts(&self) -> u64 {
        self.index.len() as u64
    }

    fn covered(&self) -> u64 {
        self.sessions.stamp
    }
}

impl Replica {
    /// The memory that this replica shares with others is short: cleaning may also have the ends of its log, if most of
    /// them is dead. (Before a copy is whole nothing is cleaned.)
    pub fn renew_ends(&mut self) {
        if self.is_whole() {
            self.log.renew_ends();
        }
    }

    /// Cleans for about `budget_bytes` of records looked at.
    pub(super) fn clean(&mut self, budget_bytes: usize, idle: bool) -> CleanProgress {
        if self.index.is_discarding() || !self.log.wants_cleaning(idle) {
            return CleanProgress::Nothing;
        }
        // What goes may hold the only trace of a request: the sessions are written down first. What a
        // half cleaned segment says was written down before it was chosen.
        let mut written = Ok(true);
        if self.log.is_between_victims() {
            written = self.write_sessions();
            match written {
                // Without room what the last one speaks of may still go, and make some.
                Ok(true) | Err(AppendError::NoSpace) => {}
                Ok(false) => return CleanProgress::More,
                Err(AppendError::NotYet) => return CleanProgress::NotYet,
            }
        }
        let mut judge = Judge {
            index: &mut self.index,
            sessions: &mut self.sessions_record,
            cleared: self.cleared,
        };
        match self.log.clean(budget_bytes, idle, &mut judge) {
            CleanProgress::Nothing if written.is_err() => CleanProgress::NoSpace,
            progress => progress,
        }
    }

    /// A slice of a `Sessions` record, unless the newest one says the same; whether it is there.
    pub(super) fn write_sessions(&mut self) -> Result<bool, AppendError> {
        let Some(mut draft) = self.sessions_record.draft.take() else {
            return self.draft_sessions();
        };
        let from = draft.left.len().saturating_sub(SESSIONS_SLICE);
        self.results.clear();
        for (id, most) in draft.left.drain(from..) {
            self.sessions.results(id, most, draft.stamp, &mut self.results);
        }
        self.log.add_sessions(&self.results);
        if !draft.left.is_empty() {
            self.sessions_record.draft = Some(draft);
            return Ok(false);
        }
        // Gone with the log's old records: it begins anew.
        let Some(loc) = self.log.end_sessions() else { return Ok(false) };
        let record = &mut self.sessions_record;
        if let Some(old) = record.loc.replace(loc) {
            self.log.mark_dead(old);
        }
        (record.seq, record.stamp, record.changes) = (draft.stamp, draft.stamp, draft.changes);
        Ok(true)
    }

    /// Begins a `Sessions` record, if one is needed.
    fn draft_sessions(&mut self) -> Result<bool, AppendError> {
        let changes = self.sessions.changes();
        let stamp = self.log.commit();
        // Not "none is open": without a record that says so, the beginning of an ended session would
        // outlive its end, and the session would come back at the next start.
        let none = changes == 0 && self.sessions_record.loc.is_none();
        if none || (self.sessions_record.changes == Some(changes)) {
            self.sessions_record.stamp = stamp;
            return Ok(true);
        }
        let left = self.sessions.open_ones();
        let most = left.iter().map(|(_, results)| results + 1).sum();
        let epoch = self.log.tail().epoch;
        let meta = Meta { seq: stamp, epoch, commit: stamp, answered: Answered::Version };
        self.log.begin_sessions(&meta, most)?;
        // What is prepared now will not be in it.
        let changes = self.pending.is_empty().then_some(changes);
        self.sessions_record.draft = Some(Draft { stamp, changes, left });
        self.write_sessions()
    }
}
