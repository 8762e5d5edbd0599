//! The pool of unbound segments of one data core: made ahead, so that no append waits for a file.
//!
//! Two for anyone, one for removes and one for cleaning alone: a full store can always be emptied. What
//! cleaning frees becomes a spare again, two more than are made: under a steady load of writes no file is
//! made, filled with pages, mapped, unmapped and removed, only renamed (`blank.rs` says what becomes of the old bytes). A failed creation is `NoSpace` until something is freed, or a retry (at a bounded rate) succeeds.

use std::collections::VecDeque;

use super::{Done, Job, Spare, SpareId, StorageError};
use crate::limits::segments_bytes;
use crate::log::{Room, Want};

/// Spares for anyone.
const FREE_SPARES: usize = 2;
/// With the one for removes and the one for cleaning.
pub const ALL_SPARES: usize = 4;
/// Segments of a log that is nearly empty, where memory is short: the ends of its tail and of what is settled.
const ENDS: u64 = 2;
/// A failed creation is tried again after this long.
const RETRY_NS: u64 = 250_000_000;

/// The least memory for so many logs that share it: none is refused writes while all are nearly empty.
pub const fn shared_bytes_least(logs: u64) -> u64 {
    segments_bytes(ENDS * logs + ALL_SPARES as u64)
}

/// See the module's text.
#[derive(Debug)]
pub struct Spares {
    ready: Vec<Spare>,
    making: Vec<(SpareId, usize)>,
    /// The one of them that is no recycled segment: one at a time, because whoever got a spare waits for its name behind
    /// what the storage thread was given before.
    creating: Option<SpareId>,
    /// Wants of sizes that no spare has: made for them.
    special: VecDeque<usize>,
    dropping: VecDeque<Spare>,
    next_id: u64,
    id_step: u64,
    bytes: usize,
    disk: bool,
    zeroed: bool,
    idle: bool,
    refused: Option<(String, u64)>,
}

impl Spares {
    /// A pool of core `core` of `cores` (which only makes ids differ), of segments of `bytes`, with or
    /// without a side in `data_dir`.
    pub fn new(core: u32, cores: u32, bytes: usize, disk: bool) -> Self {
        Self {
            ready: Vec::new(),
            making: Vec::new(),
            creating: None,
            special: VecDeque::new(),
            dropping: VecDeque::new(),
            next_id: u64::from(core),
            id_step: u64::from(cores.max(1)),
            bytes,
            disk,
            zeroed: false,
            idle: false,
            refused: None,
        }
    }

    /// The size that most logs of this core want now: the largest [`crate::Log::segment_bytes`].
    pub fn set_bytes(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        self.bytes = bytes;
        // Too small ones are of no use, much too large ones waste memory.
        let (keep, drop) = self.ready.drain(..).partition(|s| s.bytes() == bytes);
        self.ready = keep;
        let dropped: Vec<Spare> = drop;
        self.dropping.extend(dropped);
    }

    /// Nothing is being written: one spare for all is enough, and the others go back. Not where others could not be made
    /// any more.
    pub fn set_idle(&mut self, idle: bool) {
        self.idle = idle && self.refused.is_none();
        if self.idle {
            let keep = 1.min(self.ready.len());
            self.dropping.extend(self.ready.drain(keep..));
        }
    }

    /// A spare for a want, if there is one it may take. `roomy`: there is room for as many spares as a
    /// pool has, so that an idle one may give its last.
    pub fn take(&mut self, want: &Want, roomy: bool) -> Option<Spare> {
        debug_assert_eq!(want.disk, self.disk, "a pool has one kind");
        // From now on. A spare without zeros does as well, only its flushes take longer.
        self.zeroed |= want.zeroed;
        let reserve = match want.room {
            // An idle pool holds one, and makes the others as soon as it is used again.
            _ if self.idle && roomy && self.refused.is_none() => 0,
            // Kept from the start: when the trouble is known it is too late to make them.
            Room::Write => ALL_SPARES - FREE_SPARES,
            Room::Remove => 1,
            Room::Clean => 0,
        };
        if self.ready.len() > reserve
            && let Some(at) = self.best(want)
        {
            return Some(self.ready.swap_remove(at));
        }
        // One spare is not enough any more, if only to find out that there is no room for others.
        self.idle &= roomy;
        let coming = self.making.iter().any(|&(_, bytes)| bytes >= want.bytes_min)
            || self.special.iter().any(|&bytes| bytes >= want.bytes_min)
            || self.bytes >= want.bytes_min;
        if !coming {
            self.special.push_back(want.bytes);
        }
        None
    }

    /// The smallest that fits.
    fn best(&self, want: &Want) -> Option<usize> {
        let fits = self.ready.iter().enumerate().filter(|(_, s)| s.bytes() >= want.bytes_min);
        fits.min_by_key(|(_, s)| s.bytes()).map(|(at, _)| at)
    }

    /// Why there is no spare, in a sentence; `None` while one may be expected.
    pub fn refusal(&self) -> Option<&str> {
        self.refused.as_ref().map(|(sentence, _)| sentence.as_str())
    }

    /// Something was freed: try at once.
    pub fn room_again(&mut self) {
        if let Some((_, at)) = &mut self.refused {
            *at = 0;
        }
    }

    /// The next file job of the pool.
    pub fn poll_job(&mut self, boot_ns: u64) -> Option<Job> {
        if let Some(spare) = self.dropping.pop_front() {
            return Some(Job::DropSpare { spare: Box::new(spare) });
        }
        if let Some((_, at)) = &self.refused
            && (boot_ns < *at || !self.making.is_empty())
        {
            return None;
        }
        if self.creating.is_some() {
            return None;
        }
        let target = if self.idle { 1 } else { ALL_SPARES };
        let bytes = match self.special.pop_front() {
            Some(bytes) => bytes,
            None if self.ready.len() + self.making.len() < target => self.bytes,
            None => {
                // Nothing is to be made, so there is nothing to try again: no timer, and the next want that no spare
                // fits is a new question. (Whoever was refused is to be told.)
                self.refused.take_if(|_| self.making.is_empty());
                return None;
            }
        };
        let id = self.new_id(bytes);
        self.creating = Some(id);
        Some(Job::CreateSpare { id, bytes, disk: self.disk, zeroed: self.zeroed })
    }

    /// A job that removes a segment without a side in `data_dir`, as one that makes it a spare, if one
    /// will be needed. While segments are freed as fast as they are filled, none is made.
    pub fn recycle(&mut self, job: Job) -> Job {
        match job {
            Job::Unlink { partition, name, memory, disk: None } if self.keeps(memory.size()) => {
                let id = self.new_id(memory.size());
                Job::Recycle { id, partition, name, memory }
            }
            job => job,
        }
    }

    fn keeps(&self, bytes: usize) -> bool {
        let there = self.ready.len() + self.making.len();
        !self.disk && !self.idle && bytes == self.bytes && there < ALL_SPARES + FREE_SPARES
    }

    fn new_id(&mut self, bytes: usize) -> SpareId {
        let id = SpareId(self.next_id);
        self.next_id += self.id_step;
        self.making.push((id, bytes));
        id
    }

    /// When to ask again without another reason: the answer to what was asked is one.
    pub fn wake_at(&self) -> Option<u64> {
        self.refused.as_ref().filter(|_| self.making.is_empty()).map(|(_, at)| *at)
    }

    /// The answer to a job of the pool. An error is a refusal, told once and then by
    /// [`Spares::refusal`].
    pub fn on_job(&mut self, done: Done, boot_ns: u64) -> Result<(), StorageError> {
        match done {
            Done::Spare { id, result } => {
                self.making.retain(|(making, _)| *making != id);
                self.creating.take_if(|creating| *creating == id);
                match result {
                    Ok(spare) => {
                        self.ready.push(*spare);
                        self.refused = None;
                        Ok(())
                    }
                    Err(error) => {
                        // Nothing is written because nothing can be; who goes on asking sees when there is room.
                        self.idle = false;
                        self.refused = Some((error.to_string(), boot_ns + RETRY_NS));
                        Err(error)
                    }
                }
            }
            Done::SpareDropped { result, .. } => result,
            _ => Ok(()),
        }
    }

    /// Bytes of spares that are ready, being made, or about to be.
    pub fn bytes_held(&self) -> u64 {
        let making = self.making.iter().map(|&(_, bytes)| bytes as u64).sum::<u64>();
        self.ready_bytes() + making
    }

    /// Bytes of spares that are ready.
    pub fn ready_bytes(&self) -> u64 {
        self.ready.iter().map(|s| s.bytes() as u64).sum()
    }
}
