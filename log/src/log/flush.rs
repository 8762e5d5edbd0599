//! Write-behind: which bytes go to the disk next. One write in flight a partition.
//!
//! The tail goes first, in order, in whole records; a completion makes durable what was there when the
//! write was *submitted*. The block at the tail's end is written again with every flush: appends never
//! change older bytes, so any mix of its old and new sectors keeps what was acked, and with one write
//! in flight no old image overtakes a newer one. Truncation's zeros go before everything else.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;

use super::age::Ages;
use super::{Durability, Log};
use crate::limits::{FLUSH_BYTES_AIM, FLUSH_BYTES_MAX, FLUSH_SETTLED_BYTES_MAX};
use crate::memory::MEMORY_ALIGN;
use crate::record::Version;
use crate::segment::SegmentName;
use crate::storage::DiskFile;

/// Settled segments get a turn after this many writes of a busy tail.
const TAIL_TURNS_MAX: u32 = 8;

/// Names a write until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlushId(pub u64);

/// One write of mapped bytes to a data file. The memory stays mapped until it is answered.
#[derive(Clone, Copy, Debug)]
pub struct FlushOp {
    /// For the answer.
    pub id: FlushId,
    /// The open file; -1 for a log in heap memory, whose "disk" is a simulator's.
    pub fd: i32,
    /// First byte, aligned as the file asks.
    pub ptr: *const u8,
    /// Bytes, likewise.
    pub len: u32,
    /// Offset in the file, likewise.
    pub offset: u64,
    /// The completion must mean "durable": a flush follows the write.
    pub durable: bool,
    /// Votes wait for it.
    pub awaited: bool,
    /// Which file.
    pub segment: SegmentName,
}

/// What an answered write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The tail is durable up to this sequence number.
    Tail(u64),
    /// Something else was written.
    Other,
    /// The file system refuses `O_DIRECT`: from now on through the page cache. Warn; the write is
    /// emitted again.
    Buffered,
    /// The disk failed: the replica is sick. Nothing is tried again.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Zeros,
    Tail,
    Settled,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    id: FlushId,
    slot: u32,
    what: What,
    from: usize,
    to: usize,
    /// Version of the last record before `to` (tail).
    last: Version,
    len: usize,
    durable: bool,
    /// `Flush::settled_written` at submit, if all that the segment had then goes with it or is written (settled).
    all_of: Option<u64>,
    /// `Flush::cuts` at submit: a truncation since then may have taken what was written.
    cuts: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Flush {
    flight: Option<Flight>,
    next_id: u64,
    /// Writes of the tail since the last other one.
    tail_turns: u32,
    /// Closed tail segments that are not durable to their end, in order.
    pub behind: VecDeque<u32>,
    /// Newest durable record of the tail.
    pub flushed: Version,
    /// Ranges that go before all else: what truncation zeroed, and first pages that were changed. Slot, from, to.
    pub zeros: VecDeque<(u32, usize, usize)>,
    /// Ranges that truncation drops and that memory still has: slot, from, to.
    pub unzeroed: VecDeque<(u32, usize, usize)>,
    /// How old the oldest record is that the disk does not have (`async`).
    pub ages: Ages,
    /// Bytes ever appended to settled segments.
    pub settled_written: u64,
    /// What a `Sessions` record speaks of goes to the disk before it does: a retry must not be told of a write that is lost.
    pub settled_rests_on: u64,
    /// Settled segments with something to flush, in order of filling.
    pub settled_dirty: VecDeque<u32>,
    /// Truncations so far.
    pub cuts: u64,
    /// Flush at once, whatever the table's option.
    pub hurry: bool,
    /// A flush failed.
    pub sick: bool,
    /// See [`Log::hold_flush`].
    pub held: Cell<bool>,
}

impl Flush {
    /// Nothing is dirty any more.
    pub fn forget_dirt(&mut self) {
        self.ages = Ages::default();
    }
}

struct Piece {
    slot: u32,
    what: What,
    from: usize,
    to: usize,
    last: Version,
    durable: bool,
}

impl Log {
    /// Everything up to here is durable (`memory` tables: appended).
    pub fn flushed(&self) -> u64 {
        self.flushed_version().seq
    }

    pub(super) fn flushed_version(&self) -> Version {
        if self.has_disk() { self.flush.flushed } else { self.tail }
    }

    /// Up to where this replica may vote: `sync` waits for the flush, `async` only when the flush is
    /// past its bound.
    pub fn votable(&self, boot_ns: u64) -> u64 {
        match self.cfg.durability {
            _ if self.truncating() => self.flushed().min(self.tail.seq),
            Durability::Memory => self.tail.seq,
            Durability::Sync => self.flush.flushed.seq,
            Durability::Async { ms } => {
                let bound = u64::from(ms) * 1_000_000;
                let since = self.flush.ages.oldest_ns().unwrap_or(boot_ns);
                let late = boot_ns.saturating_sub(since) > bound;
                if late || self.flush.sick { self.flush.flushed.seq } else { self.tail.seq }
            }
        }
    }

    /// A flush failed: the disk is not trusted any more.
    pub fn is_sick(&self) -> bool {
        self.flush.sick
    }

    /// When [`Log::poll_ask`] should be called without another reason, boot time in nanoseconds.
    pub fn wake_at(&self) -> Option<u64> {
        if !self.flush.unzeroed.is_empty() {
            return Some(0);
        }
        if self.flush.flight.is_some() || self.flush.sick {
            return None;
        }
        match (self.cfg.durability, self.flush.ages.oldest_ns()) {
            (Durability::Async { ms }, Some(since)) => Some(since + u64::from(ms) * 500_000),
            _ => None,
        }
    }

    /// A `sync` log asks for no write while it is held: what is appended meanwhile goes with the next
    /// one. Whoever holds it lets it go soon.
    pub fn hold_flush(&self, held: bool) {
        self.flush.held.set(held);
    }

    /// Bytes of the tail that are not durable.
    pub fn lag_bytes(&self) -> u64 {
        if !self.has_disk() {
            return 0;
        }
        let open = self.tail_slots.back().filter(|slot| !self.flush.behind.contains(slot));
        let slots = self.flush.behind.iter().chain(open);
        slots.map(|&s| (self.segment(s).end - self.segment(s).durable) as u64).sum()
    }

    pub(super) fn poll_write(&mut self, boot_ns: u64) -> Option<FlushOp> {
        if let Durability::Async { ms } = self.cfg.durability {
            self.flush.ages.note(self.tail.seq, self.flush.flushed.seq, boot_ns, ms);
        }
        let flush = &self.flush;
        let held = flush.held.get() && self.cfg.durability == Durability::Sync;
        if !self.has_disk()
            || held
            || flush.flight.is_some()
            || !flush.unzeroed.is_empty()
            || flush.sick
        {
            return None;
        }
        let tail_first = self.flush.tail_turns < TAIL_TURNS_MAX;
        let piece = match self.zeros_piece() {
            Some(piece) => piece,
            None if tail_first => self.tail_piece(boot_ns).or_else(|| self.settled_piece())?,
            None => self.settled_piece().or_else(|| self.tail_piece(boot_ns))?,
        };
        let tail = piece.what == What::Tail;
        self.flush.tail_turns = if tail { self.flush.tail_turns + 1 } else { 0 };
        Some(self.take_off(&piece))
    }

    fn zeros_piece(&self) -> Option<Piece> {
        let &(slot, from, to) = self.flush.zeros.front()?;
        // From the back: what a power failure leaves is a shorter tail, never a hole.
        let from = from.max(to.saturating_sub(FLUSH_BYTES_MAX));
        Some(Piece { slot, what: What::Zeros, from, to, last: Version::default(), durable: true })
    }

    fn tail_piece(&self, boot_ns: u64) -> Option<Piece> {
        let slot = self.flush.behind.front().or(self.tail_slots.back()).copied()?;
        let (from, end) = (self.segment(slot).durable, self.segment(slot).end);
        if from >= end {
            return None;
        }
        let since = self.flush.ages.oldest_ns().unwrap_or(boot_ns);
        if let Durability::Async { ms } = self.cfg.durability {
            let old = boot_ns.saturating_sub(since) >= u64::from(ms) * 500_000;
            let behind = !self.flush.behind.is_empty();
            let awaited = !self.flush.settled_dirty.is_empty() && self.settled_waits();
            if !old && !behind && !awaited && !self.flush.hurry && end - from < FLUSH_BYTES_AIM {
                return None;
            }
        }
        let segment = self.segment(slot);
        let (to, last) = if end - from <= FLUSH_BYTES_MAX {
            (end, segment.last)
        } else {
            whole_records(segment, from)
        };
        Some(Piece { slot, what: What::Tail, from, to, last, durable: true })
    }

    /// What settled segments rest on is in the tail, and not on the disk yet.
    fn settled_waits(&self) -> bool {
        self.flush.flushed.seq < self.flush.settled_rests_on.min(self.tail.seq)
    }

    fn settled_piece(&self) -> Option<Piece> {
        if self.settled_waits() {
            return None;
        }
        let &slot = self.flush.settled_dirty.front()?;
        let segment = self.segment(slot);
        let from = segment.written;
        let to = segment.end.min(from + FLUSH_SETTLED_BYTES_MAX);
        let durable = to == segment.end || to - segment.durable >= FLUSH_BYTES_MAX;
        Some(Piece { slot, what: What::Settled, from, to, last: Version::default(), durable })
    }

    fn take_off(&mut self, piece: &Piece) -> FlushOp {
        let segment = self.segment(piece.slot);
        let end = segment.end;
        let align = segment.disk.as_ref().map_or(MEMORY_ALIGN, DiskFile::align);
        let offset = piece.from / align * align;
        let len = piece.to.next_multiple_of(align).min(segment.size()) - offset;
        let op = FlushOp {
            id: FlushId(self.flush.next_id),
            fd: segment.disk.as_ref().map_or(-1, DiskFile::fd),
            ptr: segment.memory.as_ptr().wrapping_add(offset),
            len: len as u32,
            offset: offset as u64,
            durable: piece.durable,
            awaited: piece.what == What::Tail && self.cfg.durability == Durability::Sync,
            segment: segment.name(),
        };
        self.flush.next_id += 1;
        self.flush.flight = Some(Flight {
            id: op.id,
            slot: piece.slot,
            what: piece.what,
            from: piece.from,
            to: piece.to,
            last: piece.last,
            len,
            durable: piece.durable,
            all_of: (piece.to == end).then_some(self.flush.settled_written),
            cuts: self.flush.cuts,
        });
        op
    }

    /// The answer to a write: bytes written, or the error.
    pub fn on_written(&mut self, id: FlushId, result: io::Result<usize>) -> Written {
        let Some(flight) = self.flush.flight.take_if(|f| f.id == id) else {
            return Written::Other;
        };
        match result {
            Ok(n) if n == flight.len => self.landed(&flight),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let disk = self.segment_mut(flight.slot).disk.as_mut();
                match disk {
                    Some(disk) if disk.direct => {
                        disk.go_buffered();
                        Written::Buffered
                    }
                    _ => self.sicken(),
                }
            }
            // A short write is a full or failing disk: never retry and trust.
            Ok(_) | Err(_) => self.sicken(),
        }
    }

    fn sicken(&mut self) -> Written {
        self.flush.sick = true;
        Written::Failed
    }

    fn landed(&mut self, flight: &Flight) -> Written {
        match flight.what {
            What::Zeros => {
                if let Some((slot, from, to)) = self.flush.zeros.front_mut()
                    && *slot == flight.slot
                {
                    *to = (*to).min(flight.from);
                    if *from >= *to {
                        self.flush.zeros.pop_front();
                    }
                }
                Written::Other
            }
            What::Tail => {
                let truncated = flight.cuts != self.flush.cuts;
                let segment = self.segment_mut(flight.slot);
                if !truncated {
                    segment.durable = segment.durable.max(flight.to);
                }
                let done = segment.durable >= segment.end;
                let closed = segment.closed;
                if done && closed && self.flush.behind.front() == Some(&flight.slot) {
                    self.flush.behind.pop_front();
                }
                if !truncated {
                    self.flush.flushed = self.flush.flushed.max(flight.last);
                    self.flush.ages.landed(self.flush.flushed.seq);
                }
                Written::Tail(self.flush.flushed.seq)
            }
            // The segment may be settled no longer; if it is, it is written again.
            What::Settled if flight.cuts != self.flush.cuts => Written::Other,
            What::Settled => {
                let segment = self.segment_mut(flight.slot);
                segment.written = flight.to;
                if flight.durable {
                    // Whole records only: what is listed must scan as undamaged.
                    let whole = segment.last_whole(segment.durable, flight.to);
                    segment.durable = whole.map_or(segment.durable, |(_, end)| end);
                    segment.durable_of = flight.all_of.unwrap_or(segment.durable_of);
                    if segment.durable == segment.end {
                        self.flush.settled_dirty.pop_front();
                    }
                }
                Written::Other
            }
        }
    }

    /// A settled segment has so many more bytes to be flushed.
    pub(super) fn dirty_settled(&mut self, slot: u32, bytes: usize) {
        let before = self.flush.settled_written;
        self.flush.settled_written += bytes as u64;
        // (From the back: the one that grows is there.)
        if self.has_disk() && !self.flush.settled_dirty.iter().rev().any(|&s| s == slot) {
            self.segment_mut(slot).durable_of = before;
            self.flush.settled_dirty.push_back(slot);
        }
    }

    /// Of the bytes that were ever appended to settled segments, up to which all are durable.
    pub(super) fn settled_durable(&self) -> u64 {
        let dirty = self.flush.settled_dirty.iter().map(|&slot| self.segment(slot).durable_of);
        dirty.min().unwrap_or(self.flush.settled_written)
    }

    pub(super) fn is_in_flight(&self, slot: u32) -> bool {
        self.flush.flight.as_ref().is_some_and(|f| f.slot == slot)
    }

    /// Where the write in flight on `slot` ends, whatever truncation does meanwhile.
    pub(super) fn flight_end(&self, slot: u32) -> Option<usize> {
        self.flush.flight.as_ref().filter(|f| f.slot == slot).map(|f| f.to)
    }
}

/// As many whole records from `from` on as one write takes, and one at least.
fn whole_records(segment: &crate::segment::Segment, from: usize) -> (usize, Version) {
    let first = segment.len_at(from).map_or(0, |len| len.next_multiple_of(8));
    match segment.last_whole(from, from + first.max(FLUSH_BYTES_MAX)) {
        Some((last, end)) => (end, crate::record::version_of(&segment.memory.bytes()[last..])),
        None => (from, Version::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SEGMENT_HEAD_BYTES;
    use crate::log::{Ask, LogConfig};
    use crate::record::{Answered, Body, Meta, SessionResult};
    use crate::{Room, Unchecked};

    const META: Meta = Meta { seq: 1, epoch: 1, commit: 0, answered: Answered::Version };

    /// A `sync` log with one record, and the record's bytes.
    fn one_record() -> (Log, Vec<u8>) {
        let mut log = Log::in_heap(LogConfig {
            table: 1,
            partition: 7,
            durability: Durability::Sync,
            bytes_max: 256 << 20,
            segment_bytes_max: 4 << 20,
        });
        let put = Body::Put { key: b"key", value: &[1; 4000], expires_ms: 0, id: None };
        let loc = log.append(&META, &put, Room::Write).unwrap();
        let record = log.record(loc).unwrap().bytes().to_vec();
        log.set_commit(1);
        (log, record)
    }

    /// A manifest lists what of a settled segment is durable, and a scan takes a torn record in it for damage.
    #[test]
    fn what_of_a_settled_segment_is_durable_ends_with_a_record() {
        let (mut log, record) = one_record();
        let record = Unchecked::new(&record).check().unwrap();
        log.set_copying(true);
        let copied = (0..900).map(|_| log.append_copied(&record).unwrap());
        let slots: std::collections::BTreeSet<_> = copied.map(|loc| loc.slot() as u32).collect();
        let mut partly = false;
        while let Some(ask) = log.poll_ask(0) {
            let Ask::Write(op) = ask else { continue };
            log.on_written(op.id, Ok(op.len as usize));
            for segment in slots.iter().map(|slot| log.segment(*slot)) {
                let whole = segment.last_whole(SEGMENT_HEAD_BYTES, segment.durable);
                assert_eq!(whole.map_or(SEGMENT_HEAD_BYTES, |(_, end)| end), segment.durable);
                partly |= (SEGMENT_HEAD_BYTES + 1..segment.end).contains(&segment.durable);
            }
        }
        assert!(partly, "each segment became durable at once");
    }

    /// A `Sessions` record of two mebibytes, and copies that go to another segment before it ends and after.
    #[test]
    fn what_was_settled_later_does_not_count_for_what_was_settled_before() {
        let (mut log, record) = one_record();
        let record = Unchecked::new(&record).check().unwrap();
        let write_all = |log: &mut Log, until: &dyn Fn(&Log) -> bool| {
            while !until(log)
                && let Some(ask) = log.poll_ask(0)
            {
                let Ask::Write(op) = ask else { continue };
                log.on_written(op.id, Ok(op.len as usize));
            }
        };
        write_all(&mut log, &|_| false);
        log.set_copying(true);
        let result = SessionResult {
            session_partition: 7,
            session_opened: 1,
            number: 1,
            epoch: 1,
            seq: 1,
            answered: 0,
            result: 0,
        };
        let results = vec![result; 56_000];
        log.begin_sessions(&Meta { commit: 1, ..META }, results.len()).unwrap();
        log.append_copied(&record).unwrap();
        log.add_sessions(&results);
        let sessions = log.end_sessions().unwrap();
        let ticket = log.flush.settled_written;
        for _ in 0..300 {
            log.append_copied(&record).unwrap();
        }
        write_all(&mut log, &|log| log.settled_durable() >= ticket);
        let segment = log.segment(sessions.slot() as u32);
        assert_eq!(segment.durable, segment.end, "the record is not whole on the disk");
    }
}
