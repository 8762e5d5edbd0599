//! The source of a copy: lists its segments, and sends the live, committed records in them that the
//! learner lacks, in pieces of a bounded size, as far ahead as the learner said.
//!
//! A segment that was listed stays mapped until all of it came to the learner, so a record that cleaning moves
//! meanwhile is still found where it was. Live is what the index (or the judge of cleaning) says of a
//! record's *version*, not of its place.

use std::collections::VecDeque;

use firebrick_log::record::Record;
use firebrick_log::{AppendError, Kind, Loc, Log, Part};

use super::ahead::Ahead;
use super::group::Role;
use super::{Actions, Replica, State};
use crate::hash::hash_key;
use crate::op::Now;
use crate::wire::peer::{COPY_HEAD_BYTES, Peer, Why};

/// Records in one piece, unless one record is larger; and where foreground requests share the way, as one of them
/// waits for the whole of it.
const PIECE_BYTES: usize = 64 << 10;
const SMALL_PIECE_BYTES: usize = 16 << 10;
/// Bytes of records looked at in one turn: bounds its time.
const LOOK_BYTES: usize = 128 << 10;
/// The way to the learner had no room: it is tried again after this long.
const ROOM_NS: u64 = 200_000;
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

/// Where a piece begins: in a part, by its place in the listing; at an offset, 0 for its first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    part: usize,
    offset: usize,
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
    /// What was listed. Those before the place of the first of `begins` are not pinned any more.
    parts: Vec<Part>,
    /// Pieces that came.
    came: u32,
    /// Pieces before this one may be sent.
    upto: u32,
    /// Where the pieces from `came` on begin; the last one is not sent yet.
    begins: VecDeque<Place>,
    used_ns: u64,
    ahead: Ahead,
    /// There was no room: not before this.
    blocked_until: u64,
}

impl Source {
    /// Bytes from a place on.
    fn left(&self, place: Place) -> u64 {
        let parts = self.parts.get(place.part..).unwrap_or(&[]);
        let left: u64 = parts.iter().map(Part::bytes).sum();
        left - parts.first().map_or(0, |part| part.passed(place.offset))
    }

    /// The first of `begins` was in part `first` and has moved on: what lies before it is not needed any more.
    fn release_from(&self, first: usize, log: &Log) {
        for part in &self.parts[first..self.begins[0].part] {
            log.unpin(part.pin());
        }
    }

    /// The next piece may be sent. (Behind the last one there is none.)
    fn may_send(&self) -> bool {
        let sent = self.begins.len() - 1;
        let next = self.begins[sent];
        let ended = self.came + sent as u32 > 0 && self.left(next) == 0;
        !ended && sent < self.ahead.pieces() && self.came + (sent as u32) < self.upto
    }
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
            Peer::CopyRead { copy, from: came, upto, again, .. } => {
                self.on_copy_read(now, (from, copy), (came, upto), again, out);
            }
            Peer::CopyDone { copy, .. } if self.is_source(from, copy) => self.end_source(),
            _ => {}
        }
    }

    fn is_source(&self, learner: u32, copy: u32) -> bool {
        self.source.as_ref().is_some_and(|s| (s.learner, s.copy) == (learner, copy))
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
                parts,
                came: 0,
                upto: 0,
                begins: VecDeque::from([Place::default()]),
                used_ns: now.boot_ns,
                ahead: Ahead::new(self.copy_bound_ns),
                blocked_until: 0,
            }));
        }
        let Some(source) = &self.source else { return };
        let (dropped, bytes) = (source.dropped, source.left(Place::default()));
        self.send(from, &Peer::CopyListing { epoch, copy, dropped, bytes }, out);
    }

    fn on_copy_read(
        &mut self,
        now: Now,
        (from, copy): (u32, u32),
        (came, upto): (u32, u32),
        again: bool,
        out: &mut Actions,
    ) {
        let named = |s: &&mut Box<Source>| (s.learner, s.copy) == (from, copy);
        let Some(source) = self.source.as_mut().filter(named) else {
            let epoch = self.route.epoch;
            return self.send(from, &Peer::Refused { epoch, why: Why::NoCopy }, out);
        };
        source.used_ns = now.boot_ns;
        let first = source.begins[0].part;
        while source.came < came && source.begins.len() > 1 {
            source.begins.pop_front();
            source.came += 1;
        }
        source.release_from(first, &self.log);
        source.upto = source.upto.max(upto);
        source.ahead.came(came, now.boot_ns);
        if again && source.came == came {
            source.begins.truncate(1);
            source.ahead.lost();
        }
    }

    /// There is a fresh connection to the learner: what was under way is lost.
    pub(super) fn source_again(&mut self, brick: u32) {
        if let Some(source) = self.source.as_mut().filter(|s| s.learner == brick) {
            source.begins.truncate(1);
            source.ahead.lost();
        }
    }

    /// Whom this replica has something to send as a source: the caller says how much the way there takes
    /// ([`Replica::let_copy`]).
    pub fn copies_to(&self) -> Option<u32> {
        self.source.as_ref().filter(|s| s.may_send()).map(|s| s.learner)
    }

    /// This replica is a learner with something to take in.
    pub fn takes_copy(&self) -> bool {
        self.group.follow.copy.as_ref().is_some_and(|copy| copy.has_inbox())
    }

    /// So many bytes may be sent as a source from now on: what finds no room is not made. As a learner: anything, or,
    /// with 0, nothing may be taken in.
    pub fn let_copy(&mut self, room: usize) {
        self.copy_room = Some(room);
    }

    /// Foreground requests share this replica's way to its learner: a copy may make them wait so much longer for it.
    /// 0: there are none.
    pub fn bound_copy(&mut self, bound_ns: u64) {
        self.copy_bound_ns = bound_ns;
        if let Some(source) = &mut self.source {
            source.ahead.bound(bound_ns);
        }
    }

    /// A source or a learner has something to do at once.
    pub(super) fn has_copy_work(&self) -> bool {
        let sends = self.source.as_ref().is_some_and(|s| s.blocked_until == 0 && s.may_send());
        sends || self.group.follow.copy.as_ref().is_some_and(|copy| copy.has_work())
    }

    /// A turn's worth of being a source. The rest of a copy is withdrawn when its learner is gone, or
    /// when what it holds is needed here; the learner lists again.
    pub(super) fn source_some(&mut self, now: Now, out: &mut Actions) {
        if let Some(asked) = self.group.listing.take() {
            self.list(now, asked, out);
        }
        let Some(source) = &self.source else { return };
        // (A full log that would not gain by it goes on: else it could never be copied.)
        let needed = self.log.is_full() && self.log.pins_hold_room();
        if now.boot_ns >= source.used_ns + IDLE_NS || needed {
            return self.end_source();
        }
        if !source.may_send() || now.boot_ns < source.blocked_until {
            return;
        }
        if self.copy_room.is_some_and(|room| room < PIECE_BYTES + COPY_HEAD_BYTES) {
            return self.block_source(now);
        }
        let (to, copy, epoch) = (source.learner, source.copy, self.route.epoch);
        let sent = source.begins.len() - 1;
        let piece = source.came + sent as u32;
        let begin = source.begins[sent];
        let mut records = std::mem::take(&mut self.scratch);
        records.clear();
        match self.gather(begin, &mut records) {
            Ok(end) => self.send_piece(now, (to, copy, piece), (begin, end), &records, out),
            Err(corrupt) => {
                // Nobody may take this log for whole.
                self.report(corrupt, out);
                self.end_source();
                self.send(to, &Peer::Refused { epoch, why: Why::NoCopy }, out);
            }
        }
        self.scratch = records;
    }

    fn send_piece(
        &mut self,
        now: Now,
        (to, copy, piece): (u32, u32, u32),
        (begin, end): (Place, Place),
        records: &[u8],
        out: &mut Actions,
    ) {
        let epoch = self.route.epoch;
        let Some(source) = &mut self.source else { return };
        let left = source.left(end);
        if records.is_empty() && left > 0 {
            // Nothing of this is wanted, and there is more.
            let first = source.begins[0].part;
            source.begins.pop_back();
            source.begins.push_back(end);
            source.release_from(first, &self.log);
            return;
        }
        debug_assert!(end != begin || left == 0, "each piece goes on");
        let bytes = records.len() + COPY_HEAD_BYTES;
        match &mut self.copy_room {
            // One large record.
            Some(room) if *room < bytes => return self.block_source(now),
            Some(room) => *room -= bytes,
            None => {}
        }
        source.blocked_until = 0;
        source.ahead.sent(piece, now.boot_ns);
        source.begins.push_back(end);
        self.sent_total += records.len() as u64;
        self.send(to, &Peer::CopyData { epoch, copy, piece, left, records }, out);
    }

    /// The way to the learner has no room now.
    fn block_source(&mut self, now: Now) {
        if let Some(source) = &mut self.source {
            source.blocked_until = now.boot_ns + ROOM_NS;
        }
    }

    /// When a source has something to do without another reason.
    pub(super) fn source_wake(&self) -> Option<u64> {
        if self.group.listing.is_some() {
            return Some(0);
        }
        let source = self.source.as_ref()?;
        Some(if source.may_send() { source.blocked_until } else { source.used_ns + IDLE_NS })
    }

    /// Live records from a place on, of one part, and the place behind them.
    fn gather(&self, from: Place, records: &mut Vec<u8>) -> Result<Place, firebrick_log::Corrupt> {
        let Some(source) = &self.source else { return Ok(from) };
        let (have, commit) = (source.have, source.commit);
        let most = if source.ahead.is_bound() { SMALL_PIECE_BYTES } else { PIECE_BYTES };
        let (mut place, mut looked) = (from, 0);
        while let Some(part) = source.parts.get(place.part) {
            let Some((_, record, next)) = self.log.read_part(part, place.offset)? else {
                place = Place { part: place.part + 1, offset: 0 };
                if records.is_empty() {
                    continue;
                }
                break;
            };
            let full = records.len() + record.stride() > most && !records.is_empty();
            if full || looked > LOOK_BYTES {
                break;
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
            place.offset = next;
        }
        Ok(place)
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

    /// What was listed may go.
    pub(super) fn end_source(&mut self) {
        if let Some(source) = self.source.take() {
            let first = source.begins[0].part.min(source.parts.len());
            source.parts[first..].iter().for_each(|part| self.log.unpin(part.pin()));
        }
    }
}
