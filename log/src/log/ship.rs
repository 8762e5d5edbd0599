//! Reading the tail for other replicas: runs of whole records, straight from the mapped segments.

use super::Log;
use crate::limits::SEGMENT_HEAD_BYTES;
use crate::loc::Loc;
use crate::record::{Version, version_of};

/// Whole, consecutive records in the mapped log. The segment stays mapped while it is pinned by
/// [`Log::pin`] of `loc`.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// The first record.
    pub loc: Loc,
    /// Where it is mapped.
    pub ptr: *const u8,
    /// Bytes, padding of the last record included.
    pub len: u32,
}

/// A place in the tail: behind the record `before`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the tail segment; 0: before the first.
    n: u64,
    at: usize,
    /// Version of the record before it.
    pub before: Version,
}

impl Log {
    /// Behind the newest record.
    pub fn cursor_at_end(&self) -> Cursor {
        let last = self.tail_slots.back().map(|&slot| self.segment(slot));
        let (n, at) = last.map_or((0, SEGMENT_HEAD_BYTES), |s| (s.name().n, s.end));
        Cursor { n, at, before: self.tail }
    }

    /// At the record of `loc`, which is in the tail and follows `before`.
    pub fn cursor_at(&self, loc: Loc, before: Version) -> Cursor {
        let n = self.segment_name(loc).map_or(0, |name| name.n);
        Cursor { n, at: loc.offset(), before }
    }

    /// The records from `cursor` on, as many as lie in one segment and in `most` bytes (one at least),
    /// and moves it behind them.
    pub fn read_tail(&self, cursor: &mut Cursor, most: usize) -> Option<Slice> {
        let mut index = self.tail_slots.partition_point(|&s| self.segment(s).name().n < cursor.n);
        loop {
            let &slot = self.tail_slots.get(index)?;
            let segment = self.segment(slot);
            let n = segment.name().n;
            let at = if n == cursor.n { cursor.at } else { SEGMENT_HEAD_BYTES };
            if at >= segment.end {
                index += 1;
                continue;
            }
            let (end, last) = if segment.end - at <= most {
                (segment.end, segment.last)
            } else {
                self.whole_until(slot, at, at + most)
            };
            *cursor = Cursor { n, at: end, before: last };
            let ptr = segment.memory.as_ptr().wrapping_add(at);
            return Some(Slice { loc: Loc::new(slot, at), ptr, len: (end - at) as u32 });
        }
    }

    /// As many whole records from `at` on as end at or before `until`; one at least.
    fn whole_until(&self, slot: u32, at: usize, until: usize) -> (usize, Version) {
        let segment = self.segment(slot);
        let (mut end, mut last) = (at, Version::default());
        while let Some(len) = segment.len_at(end) {
            let next = end + len.next_multiple_of(8);
            if end > at && next > until {
                break;
            }
            last = version_of(&segment.memory.bytes()[end..]);
            end = next;
        }
        (end, last)
    }

    /// Bytes of records behind a cursor.
    pub fn bytes_behind(&self, cursor: &Cursor) -> u64 {
        let later = self.tail_slots.iter().rev().map(|&slot| self.segment(slot));
        let later = later.take_while(|segment| segment.name().n >= cursor.n);
        let bytes = later.map(|segment| {
            let from = if segment.name().n == cursor.n { cursor.at } else { SEGMENT_HEAD_BYTES };
            segment.end.saturating_sub(from) as u64
        });
        bytes.sum()
    }

    /// A slice's bytes.
    pub fn slice_bytes(&self, slice: &Slice) -> &[u8] {
        self.bytes_at(slice.loc).get(..slice.len as usize).unwrap_or(&[])
    }

    /// Cleaning leaves the tail above `seq` where it is: somebody is going to be shipped it.
    pub fn set_keep(&mut self, seq: u64) {
        self.cleaning.keep = seq;
    }
}
