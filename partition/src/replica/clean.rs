//! What is live: the partition's side of cleaning.

use firebrick_log::record::{Answered, Body, Meta, Record};
use firebrick_log::{AppendError, CleanProgress, Cleaner, Kind, Loc, Log, Verdict};

use super::Replica;
use crate::hash::hash_key;
use crate::index::Index;
use crate::op::Version;

/// The newest `Sessions` record.
#[derive(Debug, Default)]
pub(super) struct SessionsRecord {
    loc: Option<Loc>,
    /// It speaks of everything up to here.
    stamp: u64,
    /// `Sessions::changes` when it was written; `None` when that is not known.
    changes: Option<u64>,
}

impl SessionsRecord {
    /// Found at start, newer than the one before.
    pub(super) fn found(&mut self, log: &Log, loc: Loc, stamp: u64) {
        if let Some(old) = self.loc.replace(loc) {
            log.mark_dead(old);
        }
        self.stamp = stamp;
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
}

impl Replica {
    /// Cleans for about `budget_bytes` of records looked at.
    pub(super) fn clean(&mut self, budget_bytes: usize, idle: bool) -> CleanProgress {
        if self.index.is_discarding() || !self.log.wants_cleaning(idle) {
            return CleanProgress::Nothing;
        }
        // What goes may hold the only trace of a request: the sessions are written down first.
        match self.write_sessions() {
            Ok(()) => {}
            Err(AppendError::NotYet) => return CleanProgress::NotYet,
            Err(AppendError::NoSpace) => return CleanProgress::NoSpace,
        }
        let mut judge = Judge {
            index: &mut self.index,
            sessions: &mut self.sessions_record,
            cleared: self.cleared,
        };
        self.log.clean(budget_bytes, idle, &mut judge)
    }

    /// A `Sessions` record, unless the newest one says the same.
    fn write_sessions(&mut self) -> Result<(), AppendError> {
        let changes = self.sessions.changes();
        let commit = self.log.commit();
        // Not "none is open": without a record that says so, the beginning of an ended session would
        // outlive its end, and the session would come back at the next start.
        let none = changes == 0 && self.sessions_record.loc.is_none();
        if none || (self.sessions_record.changes == Some(changes)) {
            self.sessions_record.stamp = commit;
            return Ok(());
        }
        self.sessions.results(commit, &mut self.results);
        let epoch = self.log.tail().epoch;
        let meta = Meta { seq: commit, epoch, commit, answered: Answered::Version };
        let loc = self.log.append_settled(&meta, &Body::Sessions { results: &self.results })?;
        if let Some(old) = self.sessions_record.loc.replace(loc) {
            self.log.mark_dead(old);
        }
        self.sessions_record.stamp = commit;
        // What was prepared then is not in it.
        self.sessions_record.changes = self.pending.is_empty().then_some(changes);
        Ok(())
    }
}
