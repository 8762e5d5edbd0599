//! A learner: everything older than the first record it is shipped comes by a copy.
//!
//! It pulls: a listing from a source (any member whose watermark is high enough), then all that was listed as
//! one stream of numbered pieces. It says which pieces came and up to which the source may send ahead; what was lost is
//! sent again, with all behind it. What comes is committed and live at its source, in any order: the newest
//! version of a key wins, and until the copy is whole the index also holds tombstones. A committed record
//! that is shipped meanwhile is loaded the same way. `complete` is set when the copy is whole (and, with
//! a disk, flushed), never inferred from the tail; until then the learner's vote says that it is not.

use std::collections::VecDeque;

use firebrick_log::record::Record;
use firebrick_log::{AppendError, Found, Kind, Loc, Version};

use super::backup::Compared;
use super::group::Role;
use super::recover::{Load, Sweep};
use super::{Actions, Replica};
use crate::hash::hash_key;
use crate::index::Index;
use crate::keeper::CopyFigure;
use crate::op::Now;
use crate::sessions::{Rebuild, Sessions};
use crate::wire::peer::{self, Peer, Why};

/// Pieces sent ahead of what was taken in here: 2 MiB, what a link of 1 Gbit/s brings while this core waits 16 ms for its CPU.
const WINDOW_PIECES: u32 = 32;
/// A question is asked again after this long.
const RETRY_NS: u64 = 100_000_000;
/// Two questions for one piece that is missing are this far apart.
const GAP_NS: u64 = 1_000_000;
/// And another source after so many of them.
const TRIES_MAX: u32 = 10;
/// A source that cannot serve is asked again after this long.
const PAUSE_NS: u64 = 5_000_000;
/// Without a segment for what came, it is tried again after this long.
const STALL_NS: u64 = 1_000_000;
/// When nothing may be taken in now, it is tried again after this long.
const PACE_NS: u64 = 200_000;
/// Entries swept in one turn.
const SWEEP_ENTRIES: usize = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Listing,
    Reading,
    Sweeping,
}

/// A copy to this replica.
#[derive(Debug, Default)]
pub(super) struct Copying {
    stage: Stage,
    /// Numbers the tries.
    copy: u32,
    /// Everything up to here was there before.
    have: u64,
    source: u32,
    tries: u32,
    /// When to ask again, unless something comes.
    retry_at: u64,
    /// Pieces that were taken in.
    taken: u32,
    /// Pieces that came and wait to be taken in, one a turn.
    inbox: VecDeque<Box<[u8]>>,
    /// The source was told that it may send pieces before this one.
    upto: u32,
    /// The last piece came.
    last: bool,
    /// A piece came before the one that is next.
    gap: bool,
    asked_ns: u64,
    /// There is no segment for what came: not before this.
    stalled_until: u64,
    /// What came, or was shipped meanwhile, found no room: the next try begins with nothing, for what is here may be what
    /// takes it.
    pub no_room: bool,
    rebuild: Rebuild,
    sweep: Sweep,
}

/// What is left to do when everything was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Finish {
    #[default]
    Done,
    /// What was copied goes to the disk.
    Flushing,
    /// The manifest that calls the log complete is being saved.
    Saving { ticket: u64 },
}

impl Copying {
    /// The number of the piece that comes next.
    fn came(&self) -> u32 {
        self.taken + self.inbox.len() as u32
    }

    /// The source has something to send, as far as is known here.
    fn awaits(&self) -> bool {
        !self.last && self.came() < self.upto
    }

    pub fn has_inbox(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// There is something to do in the next turn.
    pub fn has_work(&self) -> bool {
        self.stalled_until == 0 && (!self.inbox.is_empty() || self.stage == Stage::Sweeping)
    }

    pub fn wake_ns(&self) -> u64 {
        if !self.inbox.is_empty() || self.stage == Stage::Sweeping {
            return self.stalled_until;
        }
        let gap_at = if self.gap { self.asked_ns + GAP_NS } else { u64::MAX };
        self.retry_at.min(gap_at)
    }

    fn list_again(&mut self, at: u64) {
        self.stage = Stage::Listing;
        self.copy += 1;
        self.tries = 0;
        self.source = 0;
        self.retry_at = at;
        (self.taken, self.upto, self.last, self.gap) = (0, 0, false, false);
        self.stalled_until = 0;
        self.inbox.clear();
    }
}

impl Replica {
    /// Its vote may be counted.
    pub(super) fn is_whole(&self) -> bool {
        let follow = &self.group.follow;
        follow.copy.is_none() && follow.finish == Finish::Done && self.log.manifest().complete
    }

    /// How far the copy to this replica is, while it is a learner.
    pub fn copying(&self) -> Option<CopyFigure> {
        let follow = &self.group.follow;
        let mut figure = CopyFigure { partition: self.leaf.partition, ..follow.progress };
        if follow.copy.as_ref().is_none_or(|copy| copy.stage == Stage::Sweeping) {
            // Nothing more comes in bulk.
            figure.passed_bytes = figure.total_bytes;
        }
        (self.group.role == Role::Learner).then_some(figure)
    }

    /// The comparison of a learner: what it has and keeps, and where it begins to be shipped. `tail` is
    /// the record before that.
    pub(super) fn begin_copy(
        &mut self,
        agreed: u64,
        tail: Version,
        dropped: u64,
        theirs: Vec<Version>,
    ) {
        let (commit, old) = (self.log.commit(), self.group.follow.copy.take());
        self.group.follow.over_due = false;
        let finish = std::mem::take(&mut self.group.follow.finish);
        let manifest = self.log.manifest();
        let whole = manifest.intact && (manifest.complete || finish != Finish::Done);
        // A copy that goes on keeps what it brought: all of it is committed.
        let have = match &old {
            Some(copy) => copy.have,
            None if whole => commit,
            None => 0,
        };
        let known = whole || old.is_some();
        let had_room = old.as_ref().is_none_or(|copy| !copy.no_room);
        let keep = known && had_room && commit <= agreed && have >= dropped;
        self.drop_above(commit);
        if keep && whole && old.is_none() && self.log.tail() == tail {
            // Nothing was missed.
            self.group.follow.finish = finish;
            self.group.follow.agreed = tail.seq;
            let ticket = self.log.change_manifest(|manifest| manifest.history = theirs);
            self.group.follow.compared = Compared::Saving { ticket };
            return;
        }
        if old.is_none() {
            self.group.follow.progress = CopyFigure::default();
        }
        let copies = self.group.follow.copies;
        let mut copy =
            old.unwrap_or_else(|| Box::new(Copying { copy: copies, ..Copying::default() }));
        if !keep {
            self.forget_all();
            *copy = Copying { copy: copy.copy, ..Copying::default() };
        }
        copy.have = if keep { have } else { 0 };
        copy.list_again(0);
        self.group.follow.agreed = copy.have;
        self.group.follow.copy = Some(copy);
        self.log.set_copying(true);
        let ticket = self.log.rebase(tail, keep, |manifest| {
            manifest.complete = false;
            manifest.history = theirs;
            manifest.dropped = manifest.dropped.max(dropped);
        });
        self.group.follow.compared = Compared::Saving { ticket };
    }

    /// The log is going to be empty.
    fn forget_all(&mut self) {
        self.discard_quietly = true;
        self.index.clear();
        self.sessions = Sessions::default();
        self.sessions_record = super::clean::SessionsRecord::default();
        self.cleared = Version::default();
        self.expiry_walk = super::tick::ExpiryWalk::default();
        debug_assert!(self.pending.is_empty(), "what is prepared was dropped");
    }

    /// It cannot go on from what it has: the primary names another first record. It is told until it does.
    fn start_over(&mut self, now: Now, out: &mut Actions) {
        let follow = &mut self.group.follow;
        (follow.copy, follow.compared) = (None, Compared::No);
        if now.boot_ns < follow.over_again_ns {
            return;
        }
        follow.over_again_ns = now.boot_ns + RETRY_NS;
        let (to, epoch) = (self.group.primary(), self.route.epoch);
        self.send(to, &Peer::Refused { epoch, why: Why::Again }, out);
    }

    pub(super) fn on_copy_told(&mut self, now: Now, from: u32, message: &Peer<'_>) {
        let Some(copy) = self.group.follow.copy.as_mut().filter(|c| c.source == from) else {
            return;
        };
        match *message {
            Peer::CopyListing { copy: n, dropped, bytes, .. }
                if n == copy.copy && copy.stage == Stage::Listing =>
            {
                if copy.have > 0 && copy.have < dropped {
                    // A tombstone of something that is here may be gone there.
                    self.group.follow.over_due = true;
                    return;
                }
                copy.stage = Stage::Reading;
                let progress = &mut self.group.follow.progress;
                (progress.passed_bytes, progress.total_bytes) = (0, bytes);
                self.log.raise_dropped(dropped);
            }
            Peer::CopyData { copy: n, piece, left, records, .. }
                if n == copy.copy && copy.stage == Stage::Reading =>
            {
                if piece != copy.came() || copy.last {
                    copy.gap |= piece > copy.came();
                    return;
                }
                (copy.tries, copy.gap, copy.last) = (0, false, left == 0);
                copy.retry_at = now.boot_ns + RETRY_NS;
                copy.inbox.push_back(records.into());
                let progress = &mut self.group.follow.progress;
                progress.copied_bytes += records.len() as u64;
                progress.passed_bytes = progress.total_bytes.saturating_sub(left);
                self.copied_total += records.len() as u64;
            }
            _ => {}
        }
    }

    pub(super) fn on_source_refused(&mut self, now: Now, from: u32) {
        if let Some(copy) = &mut self.group.follow.copy
            && copy.source == from
        {
            let tries = copy.tries + 1;
            copy.list_again(now.boot_ns + PAUSE_NS);
            copy.tries = tries;
        }
    }

    /// A fresh connection to the source: ask again.
    pub(super) fn copy_again(&mut self, now: Now, brick: u32) {
        if let Some(copy) = &mut self.group.follow.copy
            && copy.source == brick
        {
            copy.retry_at = copy.retry_at.min(now.boot_ns);
        }
    }

    /// There may be a segment now for what came.
    pub(super) fn unstall_copy(&mut self) {
        if let Some(copy) = &mut self.group.follow.copy {
            copy.stalled_until = 0;
        }
    }

    /// A turn's worth of copying.
    pub(super) fn copy_some(&mut self, now: Now, out: &mut Actions) {
        if self.group.role != Role::Learner {
            return;
        }
        if self.group.follow.over_due {
            return self.start_over(now, out);
        }
        if self.group.follow.compared != Compared::Yes {
            return;
        }
        self.finish_copy();
        let Some(mut copy) = self.group.follow.copy.take() else { return };
        let done = match copy.stage {
            Stage::Listing => {
                self.ask_listing(now, &mut copy, out);
                false
            }
            Stage::Reading => {
                self.take_one(now, &mut copy, out);
                if copy.stage == Stage::Reading {
                    self.ask_pieces(now, &mut copy, out);
                }
                false
            }
            Stage::Sweeping => self.sweep_some(&mut copy.sweep, SWEEP_ENTRIES),
        };
        if done {
            self.sessions = std::mem::take(&mut copy.rebuild).finish(now.boot_ns);
            self.log.set_copying(false);
            self.group.follow.finish = Finish::Flushing;
            self.finish_copy();
        } else {
            self.group.follow.copy = Some(copy);
        }
    }

    fn ask_listing(&mut self, now: Now, copy: &mut Copying, out: &mut Actions) {
        if now.boot_ns < copy.retry_at {
            return;
        }
        // The backups first: the primary has enough to do.
        let members = &self.group.members;
        let at = (members.len() as u32 - 1 + copy.tries / 2) as usize % members.len();
        copy.source = members[at];
        copy.tries += 1;
        copy.retry_at = now.boot_ns + RETRY_NS;
        self.group.follow.copies = copy.copy;
        let s0 = self.log.manifest().below.seq + 1;
        let (epoch, n, have) = (self.route.epoch, copy.copy, copy.have);
        self.send(copy.source, &Peer::CopyStart { epoch, copy: n, have, s0 }, out);
    }

    /// Tells the source what came and how far it may send, when that is news or something seems lost.
    fn ask_pieces(&mut self, now: Now, copy: &mut Copying, out: &mut Actions) {
        let (epoch, n, now_ns) = (self.route.epoch, copy.copy, now.boot_ns);
        if copy.last {
            if copy.inbox.is_empty() {
                self.send(copy.source, &Peer::CopyDone { epoch, copy: n }, out);
                copy.stage = Stage::Sweeping;
            }
            return;
        }
        let late = copy.awaits() && now_ns >= copy.retry_at;
        let again = late || (copy.gap && now_ns >= copy.asked_ns + GAP_NS);
        let (from, upto) = (copy.came(), copy.taken + WINDOW_PIECES);
        if !again && upto <= copy.upto {
            return;
        }
        copy.tries += u32::from(late);
        if copy.tries > TRIES_MAX {
            copy.list_again(now_ns);
            copy.tries = 2;
            return;
        }
        if again || !copy.awaits() {
            copy.retry_at = now_ns + RETRY_NS;
        }
        (copy.upto, copy.gap, copy.asked_ns) = (upto, false, now_ns);
        self.send(copy.source, &Peer::CopyRead { epoch, copy: n, from, upto, again }, out);
    }

    /// Takes in one piece.
    fn take_one(&mut self, now: Now, copy: &mut Copying, out: &mut Actions) {
        if now.boot_ns < copy.stalled_until {
            return;
        }
        if self.copy_room == Some(0) && !copy.inbox.is_empty() {
            copy.stalled_until = now.boot_ns + PACE_NS;
            return;
        }
        let Some(records) = copy.inbox.pop_front() else { return };
        let mut at = 0;
        for record in peer::records(&records) {
            let Ok(record) = record else {
                // Damaged on the way: all of it is read again.
                return copy.list_again(now.boot_ns);
            };
            match self.take_record(copy, &record) {
                Ok(()) => at += record.stride(),
                Err(error) => {
                    copy.inbox.push_front(records[at..].into());
                    copy.stalled_until = now.boot_ns + STALL_NS;
                    if error == AppendError::NoSpace {
                        copy.no_room = true;
                        self.refuse_to_store(out);
                    }
                    return;
                }
            }
        }
        (copy.taken, copy.stalled_until) = (copy.taken + 1, 0);
    }

    fn take_record(&mut self, copy: &mut Copying, record: &Record<'_>) -> Result<(), AppendError> {
        let header = record.header();
        let shipped = header.seq > self.log.manifest().below.seq && header.kind != Kind::Sessions;
        let key = record.fields().key;
        let hash = hash_key(key);
        let keyed = header.kind.is_put() || header.kind.is_remove();
        let log = &self.log;
        let known = keyed
            && self
                .index
                .find(hash, |bits| log.key_at(Loc::from_bits(bits)) == key)
                .and_then(|bits| log.record(Loc::from_bits(bits)).ok())
                .is_some_and(|old| old.version() >= record.version());
        let hidden = (keyed || header.kind == Kind::Clear) && record.version() <= self.cleared;
        if shipped || known || hidden || !log.is_ours(header.partition) {
            // It comes in the tail, or it came already.
            return Ok(());
        }
        let loc = self.log.append_copied(record)?;
        self.load(copy, loc);
        Ok(())
    }

    /// A committed record of the tail, while older ones are still coming.
    pub(super) fn load_copied(&mut self, loc: Loc) {
        if let Some(mut copy) = self.group.follow.copy.take() {
            self.load(&mut copy, loc);
            self.group.follow.copy = Some(copy);
        }
    }

    fn load(&mut self, copy: &mut Copying, loc: Loc) {
        let Ok(record) = self.log.record(loc) else { return };
        let hash = hash_key(record.fields().key);
        let index: &mut Index = &mut self.index;
        let mut load = Load {
            index,
            rebuild: &mut copy.rebuild,
            sweep: &mut copy.sweep,
            cleared: &mut self.cleared,
            sessions_record: &mut self.sessions_record,
            may_expire: &mut self.may_expire,
            partition: self.leaf.partition,
        };
        load.one(&self.log, hash, &Found { loc, record });
    }

    /// Everything is here: once it is as durable as the table asks, the log is complete.
    fn finish_copy(&mut self) {
        match self.group.follow.finish {
            Finish::Flushing if self.log.settled_is_flushed() => {
                let ticket = self.log.complete();
                self.group.follow.finish = Finish::Saving { ticket };
                self.finish_copy();
            }
            Finish::Saving { ticket } if self.log.manifest_saved() >= ticket => {
                self.group.follow.finish = Finish::Done;
            }
            _ => {}
        }
    }
}
