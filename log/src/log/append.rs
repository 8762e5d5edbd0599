//! Appending: one place where a record's bytes are made.

use super::Log;
use crate::loc::Loc;
use crate::record::{Body, HEADER_BYTES, Header, Kind, Meta, Record, Version};
use crate::segment::SegmentKind;
use std::fmt;

/// What an append may use of the room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Writes stop before the reserve.
    Write,
    /// Removes, sessions, take-over: the first half of the reserve.
    Remove,
    /// Cleaning: all of it.
    Clean,
}

/// Why nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The next segment is on its way, or the disk is behind: hold the write and try again.
    NotYet,
    /// There is no room: refuse the write.
    NoSpace,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotYet => "the next segment is not ready yet: try again at once",
            Self::NoSpace => {
                "the partition has no room left: remove keys, or give the brick more memory or disk"
            }
        })
    }
}

impl std::error::Error for AppendError {}

impl Log {
    /// Appends a record, built in place; its length is stored last.
    ///
    /// `meta.seq` is the tail's plus one, `meta.epoch` not below the tail's.
    #[inline]
    pub fn append(&mut self, meta: &Meta, body: &Body<'_>, room: Room) -> Result<Loc, AppendError> {
        let archived = body.archived_len();
        let len = HEADER_BYTES + archived;
        let slot = self.reserve_tail(len.next_multiple_of(8), room)?;
        let version = Version { epoch: meta.epoch, seq: meta.seq };
        self.assert_next(version);
        let partition = self.cfg.partition;
        let segment = self.segment_mut(slot);
        let at = segment.end;
        build(segment.memory.slice_mut(at, len), meta, partition, body);
        segment.memory.publish(at, len as u32);
        let loc = self.appended(slot, at, len, version, body.kind());
        self.prefetch_tail();
        Ok(loc)
    }

    /// Appends a record that another replica built: the same bytes.
    #[inline]
    pub fn append_record(&mut self, record: &Record<'_>, room: Room) -> Result<Loc, AppendError> {
        let bytes = record.bytes();
        let slot = self.reserve_tail(record.stride(), room)?;
        self.assert_next(record.version());
        let segment = self.segment_mut(slot);
        let at = segment.end;
        segment.memory.slice_mut(at + 4, bytes.len() - 4).copy_from_slice(&bytes[4..]);
        segment.memory.publish(at, bytes.len() as u32);
        Ok(self.appended(slot, at, bytes.len(), record.version(), record.header().kind))
    }

    #[inline]
    fn assert_next(&self, version: Version) {
        let tail = self.tail;
        // An empty log begins wherever its first record does: a copy, or the child of a split.
        let follows = version.seq == tail.seq + 1 || tail == Version::default();
        assert!(follows && version.epoch >= tail.epoch, "{version:?} does not follow {tail:?}");
    }

    #[inline]
    fn appended(&mut self, slot: u32, at: usize, len: usize, version: Version, kind: Kind) -> Loc {
        let stride = len.next_multiple_of(8);
        self.tail = version;
        let segment = self.segment_mut(slot);
        segment.end = at + stride;
        segment.count_added(kind, stride);
        segment.last = version;
        if segment.first == Version::default() {
            segment.first = version;
        }
        let ask_early = segment.end > segment.size() / 4 * 3;
        if ask_early && self.tails.next.is_empty() {
            self.want_early();
        }
        Loc::new(slot, at)
    }

    /// Three quarters full: the next one should be there before this one ends. If it cannot be, the
    /// last quarter is for removes.
    #[cold]
    fn want_early(&mut self) {
        if !self.full && !self.want(SegmentKind::Tail, 8, Room::Write) {
            self.set_full();
        }
    }

    /// The tail segment with room for `stride` bytes.
    #[inline]
    fn reserve_tail(&mut self, stride: usize, room: Room) -> Result<u32, AppendError> {
        if self.full && room == Room::Write {
            return Err(AppendError::NoSpace);
        }
        let slot = if let Some(&slot) = self.tail_slots.back()
            && self.segment(slot).fits(stride)
            && !self.segment(slot).closed
            && self.appendable
        {
            slot
        } else {
            self.roll(stride, room)?
        };
        self.segment_mut(slot).make_blank(stride);
        Ok(slot)
    }

    #[cold]
    fn roll(&mut self, stride: usize, room: Room) -> Result<u32, AppendError> {
        if !self.appendable || self.disk_is_behind() {
            return Err(AppendError::NotYet);
        }
        loop {
            let Some(slot) = self.tails.next.pop_front() else {
                let coming = self.want(SegmentKind::Tail, stride, room);
                if !self.tails.next.is_empty() {
                    continue;
                }
                if !coming && room == Room::Write {
                    self.set_full();
                }
                return Err(if coming { AppendError::NotYet } else { AppendError::NoSpace });
            };
            self.roll_to(slot);
            if self.segment(slot).fits(stride) {
                return Ok(slot);
            }
            // Too small for this record: it stays in the chain, empty, and cleaning takes it away.
        }
    }

    /// Goes on in the segment that is bound ahead.
    pub(super) fn roll_on(&mut self) {
        if let Some(slot) = self.tails.next.pop_front() {
            self.roll_to(slot);
        }
    }

    fn roll_to(&mut self, next: u32) {
        if let Some(&slot) = self.tail_slots.back() {
            let has_disk = self.has_disk();
            let segment = self.segment_mut(slot);
            segment.closed = true;
            if has_disk && segment.durable < segment.end {
                self.flush.behind.push_back(slot);
            }
        }
        self.tail_slots.push_back(next);
    }
}

/// Writes a record without its length.
fn build(out: &mut [u8], meta: &Meta, partition: u32, body: &Body<'_>) {
    let Some((head, archive)) = out.split_first_chunk_mut::<HEADER_BYTES>() else {
        unreachable!("a record is longer than its header")
    };
    Header::fill(head, meta, partition, body.kind());
    body.write(archive);
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
}
