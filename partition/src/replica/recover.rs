//! After a start: the log is scanned, then an epoch begins.
//!
//! Settled segments come in any order, so while the scan goes on the index also holds tombstones: the
//! newest (epoch, seq) of a key wins. At the end they are swept out, with all that a `Clear` hides.
//! Records above the newest watermark are prepared ones: take-over decides about them; in a group of one
//! they commit with its record. Each step does a bounded number of records.

use firebrick_log::record::{Answered, Body, Meta, Record};
use firebrick_log::{AppendError, Found, Kind, Loc, Log, Room, ScanProgress};

use super::commit::{Draft, Effect, Reply};
use super::group::{NoRoom, Stop};
use super::lookup::Place;
use super::{Recovery, Replica, State};
use crate::hash::hash_key;
use crate::index::Index;
use crate::op::{Now, Version};
use crate::sessions::{Rebuild, Remembered};

/// What is left to do after the scan.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    scanned: bool,
    tombstones: Vec<(u64, Loc)>,
    /// Cursor of the walk that takes out what a `Clear` hides; `None`: over, or not needed.
    clear_cursor: Option<u64>,
    hidden: Vec<(u64, Loc)>,
}

/// How far a recovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovering {
    /// Call again.
    More,
    /// [`Replica::set_group`] may be called.
    Done,
}

/// The answer that a stored write's request was given.
pub(super) fn answer_of(record: &Record<'_>) -> Remembered {
    let version = record.version();
    let value = record.fields().value;
    match record.header().answered {
        Answered::Version => Remembered::Done(version),
        Answered::Length => Remembered::Length(value.len() as u64, version),
        Answered::Integer => match super::number::parse_integer(value) {
            Some(integer) => Remembered::Integer(integer, version),
            None => Remembered::Done(version),
        },
    }
}

/// What a batch of records changes.
pub(super) struct Load<'a> {
    pub(super) index: &'a mut Index,
    pub(super) rebuild: &'a mut Rebuild,
    pub(super) sweep: &'a mut Sweep,
    pub(super) cleared: &'a mut Version,
    pub(super) sessions_record: &'a mut super::clean::SessionsRecord,
    pub(super) may_expire: &'a mut bool,
    pub(super) partition: u32,
}

impl Load<'_> {
    fn batch(&mut self, log: &Log, found: &[Found<'_>]) {
        let mut hashes = [0; 32];
        for (hash, found) in hashes.iter_mut().zip(found) {
            *hash = hash_key(found.record.fields().key);
            self.index.prefetch_bucket(*hash);
        }
        for hash in &hashes[..found.len().min(32)] {
            if let Some(bits) = self.index.guess(*hash) {
                log.prefetch(Loc::from_bits(bits));
            }
        }
        for (hash, found) in hashes.iter().zip(found) {
            self.one(log, *hash, found);
        }
    }

    pub(super) fn one(&mut self, log: &Log, hash: u64, found: &Found<'_>) {
        let record = &found.record;
        let header = record.header();
        match header.kind {
            Kind::Put | Kind::PutX | Kind::PutId | Kind::PutXId | Kind::Remove | Kind::RemoveId => {
                let fields = record.fields();
                if let Some(id) = fields.id {
                    self.rebuild.wrote(id, header.seq, answer_of(record));
                }
                *self.may_expire |= fields.expires_ms != 0;
                self.keyed(log, hash, found, fields.key);
            }
            Kind::Clear => {
                *self.cleared = (*self.cleared).max(record.version());
                self.sweep.clear_cursor = Some(0);
                log.mark_dead(found.loc);
            }
            Kind::SessionOpen => {
                self.rebuild.opened(self.partition, record.version());
            }
            Kind::SessionEnd => {
                if let Some(session) = record.ended_session() {
                    self.rebuild.ended(session);
                }
            }
            Kind::Sessions => {
                if self.rebuild.listed(header.seq, record.session_results()) {
                    self.sessions_record.found(log, found.loc, header.seq);
                } else {
                    log.mark_dead(found.loc);
                }
            }
            Kind::TakeOver => log.mark_dead(found.loc),
        }
    }

    fn keyed(&mut self, log: &Log, hash: u64, found: &Found<'_>, key: &[u8]) {
        let record = &found.record;
        let old = self.index.find(hash, |bits| log.key_at(Loc::from_bits(bits)) == key);
        match old {
            None => self.index.insert(hash, found.loc.to_bits()),
            Some(bits) => {
                let old = Loc::from_bits(bits);
                let newer = log.record(old).is_ok_and(|r| r.version() > record.version());
                if newer {
                    log.mark_dead(found.loc);
                    return;
                }
                self.index.replace(hash, bits, found.loc.to_bits());
                log.mark_dead(old);
            }
        }
        if record.header().kind.is_remove() {
            self.sweep.tombstones.push((hash, found.loc));
        }
    }
}

impl Replica {
    /// Scans about `budget` records, or sweeps as many.
    pub fn recover_step(&mut self, now: Now, budget: usize) -> Recovering {
        if self.state != State::Recovering {
            return Recovering::Done;
        }
        let Some(mut recovery) = self.recovery.take() else { return Recovering::Done };
        let done = self.recover_some(&mut recovery, budget);
        if done {
            let rebuild = std::mem::take(&mut recovery.rebuild);
            self.sessions = rebuild.finish(now.boot_ns);
            for loc in &recovery.scan.report().in_doubt {
                self.adopt(*loc);
            }
            self.state = State::Ready;
        }
        self.recovery = Some(recovery);
        if done { Recovering::Done } else { Recovering::More }
    }

    fn recover_some(&mut self, recovery: &mut Recovery, budget: usize) -> bool {
        let Recovery { scan, rebuild, sweep } = recovery;
        if !sweep.scanned {
            let mut load = Load {
                index: &mut self.index,
                rebuild,
                sweep,
                cleared: &mut self.cleared,
                sessions_record: &mut self.sessions_record,
                may_expire: &mut self.may_expire,
                partition: self.leaf.partition,
            };
            let progress =
                scan.step(&mut self.log, budget, &mut |log, found| load.batch(log, found));
            sweep.scanned = progress == ScanProgress::Done;
            return false;
        }
        self.sweep_some(sweep, budget)
    }

    /// Takes out of the index what was there for the order of versions only; whether that is done.
    pub(super) fn sweep_some(&mut self, sweep: &mut Sweep, budget: usize) -> bool {
        if let Some(cursor) = sweep.clear_cursor {
            self.find_hidden(sweep, cursor, budget);
            return false;
        }
        for _ in 0..budget {
            let (hash, loc) = match (sweep.hidden.pop(), sweep.tombstones.last()) {
                (Some(hidden), _) => hidden,
                (None, Some(_)) => match sweep.tombstones.pop() {
                    Some(tombstone) => tombstone,
                    None => return true,
                },
                (None, None) => return true,
            };
            if self.index.remove(hash, loc.to_bits()) {
                self.log.mark_dead(loc);
            }
        }
        false
    }

    /// Everything older than the newest `Clear` is dead.
    fn find_hidden(&mut self, sweep: &mut Sweep, cursor: u64, budget: usize) {
        let (log, cleared) = (&self.log, self.cleared);
        let walked = self.index.walk(self.prefix, cursor, budget, budget, |bits| {
            let loc = Loc::from_bits(bits);
            if let Ok(record) = log.record(loc)
                && record.version() < cleared
            {
                sweep.hidden.push((hash_key(record.fields().key), loc));
            }
        });
        sweep.clear_cursor = (walked.cursor != 0).then_some(walked.cursor);
    }

    /// The epoch of the newest record: the next epoch is above it.
    pub fn tail_epoch(&self) -> u32 {
        self.log.tail().epoch
    }

    /// The first record of an epoch, once a scan would believe it.
    pub(super) fn advance_epoch(&mut self, now: Now) {
        self.settle_solo();
        if self.state != State::Beginning {
            return;
        }
        if self.log.manifest_saved() < self.group.ticket {
            if self.log.manifest_is_blocked() {
                self.group.no_room = NoRoom::Manifest;
            }
            return;
        }
        if self.group.no_room == NoRoom::Manifest {
            self.group.no_room = NoRoom::No;
        }
        if self.group.stop == Stop::Told {
            return; // That it does not begin this epoch.
        }
        let seq = self.log.tail().seq + 1;
        self.state = State::TakingOver { seq };
        let draft = Draft {
            hash: 0,
            token: None,
            body: Body::TakeOver,
            effect: Effect::TakeOver,
            reply: Reply::Done,
            numbered: None,
            old: Place::Absent,
        };
        if let Err(error) = self.prepare(now, draft, None) {
            self.state = State::Beginning;
            // (Else a segment is on its way.)
            if error == AppendError::NoSpace {
                self.group.no_room = NoRoom::Record;
            }
        }
    }
}

const _: () = assert!(size_of::<Meta>() <= 40 && Room::Write as u8 == 0);
