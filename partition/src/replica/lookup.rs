//! Finding a key: committed, or the newest record of it, committed or not.

use firebrick_log::{Corrupt, Loc};

use super::commit::Effect;
use super::execute::Step;
use super::{Action, Actions, Replica};
use crate::op::{Answer, Failure};

/// A committed key's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Absent,
    At(Loc),
    /// A record that may be the key's is damaged.
    Damaged,
}

impl Place {
    /// What a read of it comes to; `at` says it of a record.
    #[inline]
    pub(super) fn read(self, at: impl FnOnce(Loc) -> Step) -> Step {
        match self {
            Self::At(loc) => at(loc),
            Self::Absent => Step::Answer(Answer::Absent),
            Self::Damaged => Step::failed(Failure::Corrupt),
        }
    }
}

/// The newest record of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    pub place: Place,
    /// Sequence number of the uncommitted record that this rests on; 0 is none.
    pub rests_on: u64,
}

impl Replica {
    /// The place of a key's newest committed value. A candidate whose key differs is a chance
    /// collision of tags, or damage: only its checksum can tell.
    #[inline]
    pub(super) fn committed(&mut self, hash: u64, key: &[u8], out: &mut Actions) -> Place {
        let log = &self.log;
        let mut damage: Option<Corrupt> = None;
        let found = self.index.find(hash, |bits| {
            let loc = Loc::from_bits(bits);
            if log.key_at(loc) == key {
                return true;
            }
            if let Err(corrupt) = log.record(loc) {
                damage = Some(corrupt);
            }
            false
        });
        match (found, damage) {
            (Some(bits), _) => Place::At(Loc::from_bits(bits)),
            (None, None) => Place::Absent,
            (None, Some(corrupt)) => {
                self.report(corrupt, out);
                Place::Damaged
            }
        }
    }

    #[cold]
    pub(super) fn report(&mut self, corrupt: Corrupt, out: &mut Actions) {
        self.corrupt_total += 1;
        out.push(Action::Corrupt(corrupt));
    }

    /// The newest record of a key, prepared or committed.
    #[inline]
    pub(super) fn newest(&mut self, hash: u64, key: &[u8], out: &mut Actions) -> Newest {
        if self.pending.is_empty() {
            return Newest { place: self.committed(hash, key, out), rests_on: 0 };
        }
        self.newest_prepared(hash, key)
            .unwrap_or_else(|| Newest { place: self.committed(hash, key, out), rests_on: 0 })
    }

    /// The newest prepared record that says something about a key.
    pub(super) fn newest_prepared(&self, hash: u64, key: &[u8]) -> Option<Newest> {
        let first = self.pending.front()?.seq;
        let mut seq = self.newest.get(&hash).copied().unwrap_or(0);
        while seq >= first && seq > self.clearing {
            let pending = &self.pending[(seq - first) as usize];
            if self.log.key_at(pending.loc) == key {
                let place = match pending.effect {
                    Effect::Put => Place::At(pending.loc),
                    _ => Place::Absent,
                };
                return Some(Newest { place, rests_on: seq });
            }
            seq = pending.before;
        }
        (self.clearing >= first).then_some(Newest { place: Place::Absent, rests_on: self.clearing })
    }
}
