//! The source of a copy: lists its segments, and hands out the live, committed records in them that the
//! learner lacks, a bounded slice at a time.
//!
//! A segment that was listed stays mapped until the learner took it, so a record that cleaning moves
//! meanwhile is still found where it was. Live is what the index (or the judge of cleaning) says of a
//! record's *version*, not of its place.

use std::collections::{HashMap, VecDeque};

use firebrick_log::record::Record;
use firebrick_log::{AppendError, Kind, Loc, Part};

use super::group::Role;
use super::{Actions, Replica, State};
use crate::hash::hash_key;
use crate::op::Now;
use crate::wire::peer::{Peer, Why};

/// Records in one answer, unless one record is larger.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of records looked at for one answer, one a turn: bounds its time.
const LOOK_BYTES: usize = 128 << 10;
/// Questions that wait for their turn.
const ASKED_MAX: usize = 16;
/// A learner that was silent for this long has given up.
const IDLE_NS: u64 = 10_000_000_000;

/// What a learner asked to be listed: it waits until the sessions are written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    from: u32,
    copy: u32,
    have: u64,
    s0: u64,
}

/// A copy that this replica is the source of.
#[derive(Debug)]
pub(super) struct Source {
    learner: u32,
    copy: u32,
    /// The learner has everything up to here.
    have: u64,
    /// The watermark of the listing: what is above is shipped by the primary.
    commit: u64,
    /// The `Sessions` record of the listing, wherever cleaning moves it.
    sessions_seq: Option<u64>,
    dropped: u64,
    /// Listed and not yet taken, by number.
    parts: HashMap<u32, Part>,
    listed: u32,
    bytes: u64,
    used_ns: u64,
    /// Part and offset.
    asked: VecDeque<(u32, u32)>,
}

impl Replica {
    pub(super) fn on_copy_asked(
        &mut self,
        now: Now,
        from: u32,
        message: &Peer<'_>,
        out: &mut Actions,
    ) {
        let member = matches!(self.group.role, Role::Primary | Role::Backup);
        if !member || self.state == State::Beginning {
            return;
        }
        match *message {
            Peer::CopyStart { copy, have, s0, .. } => {
                self.list(now, Listing { from, copy, have, s0 }, out);
            }
            Peer::CopyRead { copy, part, offset, .. } => {
                self.on_copy_read(now, from, copy, (part, offset), out);
            }
            Peer::CopyDone { copy, part, .. } => self.release(from, copy, part),
            _ => {}
        }
    }

    fn list(&mut self, now: Now, asked: Listing, out: &mut Actions) {
        let Listing { from, copy, have, s0 } = asked;
        let epoch = self.route.epoch;
        let same = self.source.as_ref().filter(|s| s.learner == from).map(|s| s.copy);
        if same.is_some_and(|newest| newest > copy) {
            return;
        }
        if same != Some(copy) {
            if self.log.commit() + 1 < s0 {
                return self.send(from, &Peer::Refused { epoch, why: Why::Behind }, out);
            }
            self.end_source();
            // The results of requests whose records are dead go along in it.
            match self.write_sessions() {
                Ok(true) if self.sessions_record.stamp() + 1 >= s0 => {}
                Ok(_) | Err(AppendError::NotYet) => {
                    self.group.listing = Some(asked);
                    return;
                }
                Err(AppendError::NoSpace) => {
                    return self.send(from, &Peer::Refused { epoch, why: Why::Behind }, out);
                }
            }
            let parts = self.log.parts();
            for part in &parts {
                self.log.pin(part.pin());
            }
            self.source = Some(Box::new(Source {
                learner: from,
                copy,
                have,
                commit: self.log.commit(),
                sessions_seq: self.sessions_record.seq(),
                dropped: self.log.manifest().dropped,
                listed: parts.len() as u32,
                bytes: parts.iter().map(Part::bytes).sum(),
                parts: (0..).zip(parts).collect(),
                used_ns: now.boot_ns,
                asked: VecDeque::new(),
            }));
        }
        let Some(source) = &self.source else { return };
        let (dropped, parts, bytes) = (source.dropped, source.listed, source.bytes);
        self.send(from, &Peer::CopyListing { epoch, copy, dropped, parts, bytes }, out);
    }

    fn on_copy_read(
        &mut self,
        now: Now,
        from: u32,
        copy: u32,
        what: (u32, u32),
        out: &mut Actions,
    ) {
        match self.source.as_mut().filter(|s| (s.learner, s.copy) == (from, copy)) {
            Some(source) if source.parts.contains_key(&what.0) => {
                source.used_ns = now.boot_ns;
                if source.asked.len() < ASKED_MAX && !source.asked.contains(&what) {
                    source.asked.push_back(what);
                }
            }
            _ => {
                let epoch = self.route.epoch;
                self.send(from, &Peer::Refused { epoch, why: Why::NoCopy }, out);
            }
        }
    }

    /// A turn's worth of being a source. The rest of a copy is withdrawn when its learner is gone, or
    /// when what it holds is needed here; the learner lists again.
    pub(super) fn source_some(&mut self, now: Now, out: &mut Actions) {
        if let Some(asked) = self.group.listing.take() {
            self.list(now, asked, out);
        }
        let Some(source) = &mut self.source else { return };
        if now.boot_ns >= source.used_ns + IDLE_NS || self.log.is_full() {
            return self.end_source();
        }
        let Some((part, offset)) = source.asked.pop_front() else { return };
        let (to, copy, epoch) = (source.learner, source.copy, self.route.epoch);
        let Some(listed) = source.parts.get(&part).copied() else { return };
        let mut records = Vec::new();
        match self.gather(&listed, offset as usize, &mut records) {
            Ok(next) => {
                let (next, records) = (next as u32, &records[..]);
                let message = Peer::CopyData { epoch, copy, part, offset, next, records };
                self.send(to, &message, out);
            }
            Err(corrupt) => {
                // Nobody may take this log for whole.
                self.report(corrupt, out);
                self.end_source();
                self.send(to, &Peer::Refused { epoch, why: Why::NoCopy }, out);
            }
        }
    }

    /// When a source has something to do without another reason.
    pub(super) fn source_wake(&self) -> Option<u64> {
        if self.group.listing.is_some() {
            return Some(0);
        }
        let source = self.source.as_ref()?;
        Some(if source.asked.is_empty() { source.used_ns + IDLE_NS } else { 0 })
    }

    /// Live records from `offset` on, and where to read on; 0 at the part's end.
    fn gather(
        &self,
        part: &Part,
        offset: usize,
        records: &mut Vec<u8>,
    ) -> Result<usize, firebrick_log::Corrupt> {
        let Some(source) = &self.source else { return Ok(0) };
        let (have, commit) = (source.have, source.commit);
        let (mut at, mut looked) = (offset, 0);
        while let Some((_, record, next)) = self.log.read_part(part, at)? {
            let full = records.len() + record.stride() > CHUNK_BYTES && !records.is_empty();
            if full || looked > LOOK_BYTES {
                return Ok(at);
            }
            looked += record.stride();
            let seq = record.header().seq;
            let sessions = record.header().kind == Kind::Sessions;
            let wanted = if sessions {
                Some(seq) == source.sessions_seq
            } else {
                seq > have && seq <= commit && self.is_live(&record)
            };
            if wanted {
                records.extend_from_slice(record.bytes());
                records.resize(records.len().next_multiple_of(8), 0);
            }
            at = next;
        }
        Ok(0)
    }

    /// Whether a committed record says something that no newer one does.
    fn is_live(&self, record: &Record<'_>) -> bool {
        let (log, version) = (&self.log, record.version());
        let fields = record.fields();
        let indexed = || {
            let same = |bits| log.key_at(Loc::from_bits(bits)) == fields.key;
            let found = self.index.find(hash_key(fields.key), same);
            found.and_then(|bits| log.record(Loc::from_bits(bits)).ok()).map(|r| r.version())
        };
        match record.header().kind {
            kind if kind.is_put() => indexed() == Some(version),
            kind if kind.is_remove() => version > self.cleared && indexed().is_none(),
            Kind::Clear => version == self.cleared,
            // What they say is in the `Sessions` record of the listing, or shipped.
            _ => false,
        }
    }

    fn release(&mut self, from: u32, copy: u32, part: u32) {
        if part == u32::MAX {
            if self.source.as_ref().is_some_and(|s| (s.learner, s.copy) == (from, copy)) {
                self.end_source();
            }
            return;
        }
        let source = self.source.as_mut().filter(|s| (s.learner, s.copy) == (from, copy));
        if let Some(part) = source.and_then(|s| s.parts.remove(&part)) {
            self.log.unpin(part.pin());
        }
    }

    /// What was listed may go.
    pub(super) fn end_source(&mut self) {
        if let Some(source) = self.source.take() {
            source.parts.values().for_each(|part| self.log.unpin(part.pin()));
        }
    }
}
