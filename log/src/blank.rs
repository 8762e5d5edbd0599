//! What of a segment's memory is blank, that is, all zeros, so that the end of its records can be seen.
//!
//! A segment that was freed and is used again holds old records. To fill megabytes with zeros at once costs
//! the storage thread a quarter of a millisecond a segment; zeros written just ahead of the records cost
//! next to nothing, because the cache lines are needed anyway. So a used segment carries a mark in its first
//! page: behind it lie old bytes that mean nothing. The mark moves only after the zeros before it are there;
//! who maps the file of a process that was killed writes the missing zeros first, and knows no old bytes.

use crate::limits::SEGMENT_HEAD_BYTES;
use crate::memory::Memory;

/// Where the mark lies: behind the first page's own fields, not covered by their checksum.
const MARK_AT: usize = 48;
/// The mark counts in these.
const PAGE: usize = 4096;
/// Zeros written at a time: 1 to 3 us.
const STEP: usize = 32 << 10;

/// Everything behind the first page is old.
pub(crate) fn forget(memory: &mut Memory) {
    memory.slice_mut(0, SEGMENT_HEAD_BYTES).fill(0);
    set(memory, SEGMENT_HEAD_BYTES);
}

/// Up to where there are no old bytes. A mark that is damaged is none: old bytes are reported as damage
/// then, and nothing is lost.
pub(crate) fn upto(memory: &Memory) -> usize {
    let Some(mark) = memory.bytes().get(MARK_AT..).and_then(|rest| rest.first_chunk::<8>()) else {
        return memory.size();
    };
    let mark = u64::from_le_bytes(*mark);
    let (pages, check) = (mark as u32, (mark >> 32) as u32);
    let upto = pages as usize * PAGE;
    let good = check == !pages && (SEGMENT_HEAD_BYTES..=memory.size()).contains(&upto);
    if good { upto } else { memory.size() }
}

/// Writes zeros from `from`, up to where there are some already, to at least `need`; up to where there are
/// some now.
pub(crate) fn extend(memory: &mut Memory, from: usize, need: usize) -> usize {
    let to = (need + STEP).next_multiple_of(PAGE).min(memory.size());
    memory.slice_mut(from, to - from).fill(0);
    set(memory, to);
    to
}

/// Writes all the zeros that are missing.
pub(crate) fn complete(memory: &mut Memory) {
    let (from, to) = (upto(memory), memory.size());
    if from < to {
        memory.slice_mut(from, to - from).fill(0);
        set(memory, to);
    }
}

fn set(memory: &mut Memory, upto: usize) {
    let pages = (upto / PAGE) as u32;
    memory.publish_mark(MARK_AT, u64::from(!pages) << 32 | u64::from(pages));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(bytes: usize) -> Memory {
        let mut memory = Memory::heap(bytes);
        memory.slice_mut(0, bytes).fill(7);
        memory
    }

    #[test]
    fn a_new_segment_has_no_old_bytes() {
        assert_eq!(upto(&Memory::heap(1 << 20)), 1 << 20);
    }

    #[test]
    fn zeros_come_before_the_mark_that_says_so() {
        let mut memory = used(1 << 20);
        forget(&mut memory);
        assert_eq!(upto(&memory), SEGMENT_HEAD_BYTES);
        let to = extend(&mut memory, SEGMENT_HEAD_BYTES, SEGMENT_HEAD_BYTES + 100);
        assert_eq!(upto(&memory), to);
        assert!(memory.bytes()[SEGMENT_HEAD_BYTES..to].iter().all(|&b| b == 0));
        assert!(memory.bytes()[to..].iter().all(|&b| b == 7));
        complete(&mut memory);
        assert_eq!(upto(&memory), 1 << 20);
        assert!(memory.bytes()[SEGMENT_HEAD_BYTES..].iter().all(|&b| b == 0));
    }

    #[test]
    fn the_last_zeros_end_with_the_segment() {
        let mut memory = used(64 << 10);
        forget(&mut memory);
        assert_eq!(extend(&mut memory, SEGMENT_HEAD_BYTES, 60 << 10), 64 << 10);
    }

    #[test]
    fn a_damaged_mark_loses_no_records() {
        for byte in 0..8 {
            let mut memory = used(1 << 20);
            forget(&mut memory);
            memory.slice_mut(MARK_AT + byte, 1)[0] ^= 0x10;
            complete(&mut memory);
            assert!(memory.bytes()[SEGMENT_HEAD_BYTES..].iter().all(|&b| b == 7), "byte {byte}");
        }
    }
}
