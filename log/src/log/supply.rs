//! Segments on their way: asked for early, so that a roll never waits, and bounded by the replica's
//! room.
//!
//! `full` is what "no room" means: writes are refused, removes and sessions still use what is left of
//! the tail and one segment, cleaning one more, so that a full store can always be emptied.

use std::collections::VecDeque;

use super::{Durability, Log, Outcome, Room};
use crate::limits::{
    SEGMENT_BYTES_MAX, SEGMENT_HEAD_BYTES, SEGMENTS_AIM, SEGMENTS_MAX, segment_bytes_min,
};
use crate::segment::{Bound, Segment, SegmentHead, SegmentKind, SegmentName};
use crate::storage::{Job, Spare, StorageError};

/// A segment that a log wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// For what: return it with the spare.
    pub kind: SegmentKind,
    /// The least size that is of use.
    pub bytes_min: usize,
    /// The size to have.
    pub bytes: usize,
    /// With a side in `data_dir`.
    pub disk: bool,
    /// Votes wait for its writes: they should find written blocks ([`Spares::take`]).
    ///
    /// [`Spares::take`]: crate::storage::Spares::take
    pub zeroed: bool,
    /// Which spares it may take.
    pub room: Room,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// `Ask::Segment` is out, or about to be (`polled` says which).
    Asked {
        want: Want,
        polled: bool,
    },
    /// The storage thread gives it its name.
    Binding(Room),
    /// There was none, for this use or a lesser one.
    Refused(Room),
}

/// One kind's segments on their way.
#[derive(Debug)]
pub(super) struct Supply {
    state: State,
    /// Bound and empty, in order of number.
    pub next: VecDeque<u32>,
    /// The number of the next one.
    pub next_n: u64,
}

impl Supply {
    pub fn new(next_n: u64) -> Self {
        Self { state: State::Idle, next: VecDeque::new(), next_n }
    }

    /// What the segment that is on its way is for.
    fn asked(&self) -> Room {
        match self.state {
            State::Asked { want, .. } => want.room,
            State::Binding(room) | State::Refused(room) => room,
            State::Idle => Room::Write,
        }
    }
}

impl Log {
    /// Bytes of all segments: what the replica takes of `memory_dir`.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The size of this log's next segments: a sixteenth of what it has, a power of two.
    pub fn segment_bytes(&self) -> usize {
        let bytes_max = self.cfg.bytes_max;
        let smallest = segment_bytes_min(bytes_max);
        let share = (bytes_max / SEGMENTS_AIM as u64) as usize;
        let most = self.cfg.segment_bytes_max.min(share.max(smallest));
        let most = 1 << most.ilog2();
        let least = smallest.min(most);
        let aim = (self.used_bytes() as usize / SEGMENTS_AIM).max(1);
        (1 << aim.ilog2()).clamp(least, most)
    }

    /// The size of a segment for a record that needs `least`: large records share one, or half of
    /// each segment would stay empty.
    fn fitting_bytes(&self, least: usize, most: usize) -> usize {
        let usual = self.segment_bytes();
        let fitting = least.next_power_of_two();
        if fitting <= usual {
            return usual;
        }
        let share = (self.cfg.bytes_max / (SEGMENTS_AIM as u64 / 2)) as usize;
        let shared = (4 * least).next_power_of_two().min(SEGMENT_BYTES_MAX);
        if shared <= share.min(most) { shared } else { fitting }
    }

    /// Bytes that writes may still use before they are refused: what votes carry.
    pub fn room_bytes(&self) -> u64 {
        if self.full {
            return 0;
        }
        let free = self.cfg.bytes_max.saturating_sub(self.used_bytes());
        let spare: usize = self
            .tails
            .next
            .iter()
            .chain(self.tail_slots.back())
            .map(|&slot| self.segment(slot).size() - self.segment(slot).end)
            .sum();
        (free + spare as u64).saturating_sub(self.reserve(Room::Write))
    }

    /// What an append of `room` must leave.
    fn reserve(&self, room: Room) -> u64 {
        let one = self.segment_bytes() as u64;
        match room {
            Room::Write => 2 * one,
            Room::Remove => one,
            Room::Clean => 0,
        }
    }

    fn supply(&mut self, kind: SegmentKind) -> &mut Supply {
        match kind {
            SegmentKind::Tail => &mut self.tails,
            SegmentKind::Settled => &mut self.settleds,
        }
    }

    /// Makes sure that a segment with room for `stride` bytes is on its way (or there). False: there
    /// is no room for it.
    pub(super) fn want(&mut self, kind: SegmentKind, stride: usize, room: Room) -> bool {
        let least = stride + SEGMENT_HEAD_BYTES;
        let there = match kind {
            SegmentKind::Tail => &self.tails.next,
            SegmentKind::Settled => &self.settleds.next,
        };
        if there.iter().any(|&slot| self.segment(slot).fits(stride)) {
            return true;
        }
        let retry = match self.supply(kind).state {
            // What has a larger part of the reserve may still find one; to ask again for the same would read as "coming".
            State::Refused(refused) if room <= refused => return false,
            State::Idle | State::Refused(_) => true,
            State::Binding(_) => false,
            State::Asked { want, .. } => want.bytes_min < least || want.room < room,
        };
        if !retry {
            return true;
        }
        let most =
            self.cfg.bytes_max - self.cfg.bytes_max.min(self.used_bytes() + self.reserve(room));
        let bytes = self.fitting_bytes(least, most as usize);
        if bytes as u64 > most || self.slots.len() >= SEGMENTS_MAX {
            return false;
        }
        let zeroed = self.cfg.durability == Durability::Sync;
        let want = Want { kind, bytes_min: least, bytes, disk: self.has_disk(), zeroed, room };
        if let Some(left @ 1..) = self.heap {
            self.heap = Some(if left == usize::MAX { left } else { left - 1 });
            self.supply(kind).state = State::Asked { want, polled: true };
            self.give(kind, Spare::in_heap(bytes));
        } else {
            self.supply(kind).state = State::Asked { want, polled: false };
        }
        true
    }

    pub(super) fn poll_want(&mut self) -> Option<Want> {
        for kind in [SegmentKind::Tail, SegmentKind::Settled] {
            if let State::Asked { want, polled } = &mut self.supply(kind).state
                && !*polled
            {
                *polled = true;
                return Some(*want);
            }
        }
        None
    }

    /// The answer to a want: a spare. It gets its name from the storage thread before it is used.
    pub fn give(&mut self, kind: SegmentKind, spare: Spare) {
        let partition = self.cfg.partition;
        let made_at_seq = if self.copying { 0 } else { self.commit };
        let supply = self.supply(kind);
        let name = SegmentName { kind, n: supply.next_n };
        supply.next_n += 1;
        supply.state = State::Binding(supply.asked());
        let head = SegmentHead { partition, name, made_at_seq, bytes: spare.bytes() as u64 };
        if self.has_files {
            self.jobs.push_back(Job::Bind { spare: Box::new(spare), head });
        } else {
            let mut bound = Bound { head, memory: spare.memory, disk: spare.disk };
            let first = head.encode();
            bound.memory.slice_mut(0, first.len()).copy_from_slice(&first);
            self.on_bound(name, Ok(Box::new(bound)));
        }
    }

    /// The answer to a want: there is none. Writes are refused until [`Log::room_again`].
    pub fn refuse(&mut self, kind: SegmentKind) {
        let supply = self.supply(kind);
        supply.state = State::Refused(supply.asked());
        if kind == SegmentKind::Tail {
            self.full = true;
        }
    }

    /// Something was freed, or enough time has passed: ask again.
    pub fn room_again(&mut self) {
        self.full = false;
        self.manifest_blocked = false;
        for kind in [SegmentKind::Tail, SegmentKind::Settled] {
            let supply = self.supply(kind);
            if matches!(supply.state, State::Refused(_)) {
                supply.state = State::Idle;
            }
        }
    }

    /// The manifest was not saved when it was tried last, and is tried again once there may be room.
    pub fn manifest_is_blocked(&self) -> bool {
        self.manifest_blocked
    }

    /// Writes are refused.
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn set_full(&mut self) {
        self.full = true;
    }

    pub(super) fn on_bound(
        &mut self,
        name: SegmentName,
        result: Result<Box<Bound>, StorageError>,
    ) -> Outcome {
        match result {
            Ok(bound) => {
                debug_assert_eq!(bound.head.name, name);
                let slot = self.place(Segment::new(*bound));
                // The log may have begun again meanwhile, lower.
                self.lower_head(slot);
                let copying = self.copying;
                let supply = self.supply(name.kind);
                let ahead = name.kind == SegmentKind::Settled && supply.asked() == Room::Write;
                supply.state = State::Idle;
                if ahead && !copying {
                    // For a copy, and that has ended.
                    self.give_back(slot);
                } else {
                    supply.next.push_back(slot);
                }
                Outcome::Fine
            }
            Err(error) if error.is_no_space() => {
                // The number was not used: a gap in the tail would read as damage.
                self.supply(name.kind).next_n = name.n;
                self.refuse(name.kind);
                Outcome::NoSpace(error)
            }
            Err(error) => {
                self.supply(name.kind).next_n = name.n;
                self.refuse(name.kind);
                self.failed(error)
            }
        }
    }

    /// Puts a segment in a slot. (`remove` takes it out.)
    pub(super) fn place(&mut self, segment: Segment) -> u32 {
        self.used_bytes += segment.size() as u64;
        if let Some(slot) = self.free_slots.pop() {
            self.slots[slot as usize] = Some(segment);
            return slot;
        }
        assert!(self.slots.len() < SEGMENTS_MAX, "more segments than a location can name");
        self.slots.push(Some(segment));
        (self.slots.len() - 1) as u32
    }

    /// Takes the segment out of its slot, which may be used again.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Segment> {
        let segment = self.slots[slot as usize].take()?;
        self.free_slots.push(slot);
        self.used_bytes -= segment.size() as u64;
        debug_assert_eq!(self.used_bytes, self.segments().map(|s| s.size() as u64).sum::<u64>());
        Some(segment)
    }

    /// Waits on a flush are a matter of votes, but a disk that falls behind must also hold appends,
    /// or memory would fill with what the disk does not have.
    pub(super) fn disk_is_behind(&self) -> bool {
        self.cfg.durability != Durability::Memory
            && self.flush.behind.len() + 1 >= crate::limits::UNFLUSHED_SEGMENTS_MAX
    }
}
