//! One sub-table of the index.

use super::{LOC_BITS, TAG_BITS};

/// Most buckets of a sub-table that can still split.
pub(super) const SUB_BUCKETS_MAX: usize = 128;
const SLOTS: usize = 8;
const LOC_MASK: u64 = (1 << LOC_BITS) - 1;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket([u64; SLOTS]);

impl Bucket {
    const EMPTY: Self = Self([0; SLOTS]);

    #[inline]
    fn is_full(&self) -> bool {
        self.0[SLOTS - 1] != 0
    }

    fn used(&self) -> usize {
        self.0.iter().take_while(|s| **s != 0).count()
    }

    /// Bit i: slot i has this tag.
    #[inline]
    fn matches(&self, tag: u32) -> u32 {
        let bits = self.equal(tag);
        // An empty slot looks like tag 0; they are the last ones.
        if tag == 0 { bits & ((1 << self.used()) - 1) } else { bits }
    }

    /// Four compares at a time: the tags are the upper 24 bits of the upper halves.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn equal(&self, tag: u32) -> u32 {
        use std::arch::x86_64::{
            _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_movemask_ps, _mm_set_epi64x,
            _mm_set1_epi32, _mm_shuffle_ps, _mm_srli_epi32,
        };
        const UPPER_HALVES: i32 = 0b11_01_11_01;
        const _: () = assert!(LOC_BITS == 40);
        let four = |at: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| self.0[at + i] as i64);
            // SAFETY: every x86_64 has SSE2, and these touch no memory.
            unsafe {
                let low = _mm_castsi128_ps(_mm_set_epi64x(b, a));
                let high = _mm_castsi128_ps(_mm_set_epi64x(d, c));
                let upper = _mm_castps_si128(_mm_shuffle_ps::<UPPER_HALVES>(low, high));
                let same = _mm_cmpeq_epi32(_mm_srli_epi32::<8>(upper), _mm_set1_epi32(tag as i32));
                _mm_movemask_ps(_mm_castsi128_ps(same)) as u32
            }
        };
        four(0) | four(4) << 4
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn equal(&self, tag: u32) -> u32 {
        let same = |bits, (i, slot): (usize, &u64)| bits | u32::from(slot_tag(*slot) == tag) << i;
        self.0.iter().enumerate().fold(0, same)
    }
}

#[derive(Debug)]
pub(super) struct SubTable {
    buckets: Box<[Bucket]>,
    len: u32,
    /// Bits of the tag that all entries share.
    depth: u32,
}

/// The next size: allocators have 5, 6, 7 and 8 KiB.
fn larger(buckets: usize) -> usize {
    match buckets {
        0..16 => buckets * 2,
        16..SUB_BUCKETS_MAX => buckets + 16,
        _ => (buckets + buckets / 4).next_multiple_of(16),
    }
}

fn entries_max(buckets: usize) -> usize {
    (buckets * SLOTS * 9 / 10).min(buckets * SLOTS - 2)
}

fn slot_tag(slot: u64) -> u32 {
    (slot >> LOC_BITS) as u32
}

impl SubTable {
    pub(super) fn new(depth: u32, buckets: usize) -> Self {
        Self { buckets: vec![Bucket::EMPTY; buckets].into_boxed_slice(), len: 0, depth }
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len as usize >= entries_max(self.buckets.len())
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        let bits = TAG_BITS - self.depth;
        let x = u64::from(tag) & ((1 << bits) - 1);
        ((x * self.buckets.len() as u64) >> bits) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    #[inline]
    pub(super) fn prefetch(&self, tag: u32) {
        let bucket: *const Bucket = &raw const self.buckets[self.home(tag)];
        crate::prefetch(bucket.cast());
    }

    /// The slot that has this tag and that `is_it` accepts.
    #[inline]
    fn position(&self, tag: u32, mut is_it: impl FnMut(u64) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(tag);
        loop {
            let bucket = &self.buckets[at];
            let mut bits = bucket.matches(tag);
            while bits != 0 {
                let slot = bits.trailing_zeros() as usize;
                if is_it(bucket.0[slot] & LOC_MASK) {
                    return Some((at, slot));
                }
                bits &= bits - 1;
            }
            if !bucket.is_full() {
                return None;
            }
            at = self.after(at);
        }
    }

    #[inline]
    pub(super) fn find(&self, tag: u32, is_it: impl FnMut(u64) -> bool) -> Option<u64> {
        let (at, slot) = self.position(tag, is_it)?;
        Some(self.buckets[at].0[slot] & LOC_MASK)
    }

    #[inline]
    pub(super) fn place(&mut self, tag: u32, loc: u64) {
        let mut at = self.home(tag);
        // Ends: a table is never filled.
        while self.buckets[at].is_full() {
            at = self.after(at);
        }
        let bucket = &mut self.buckets[at];
        let slot = bucket.used();
        bucket.0[slot] = u64::from(tag) << LOC_BITS | loc;
        self.len += 1;
    }

    #[inline]
    pub(super) fn replace(&mut self, tag: u32, old: u64, new: u64) -> bool {
        let Some((at, slot)) = self.position(tag, |loc| loc == old) else { return false };
        self.buckets[at].0[slot] = u64::from(tag) << LOC_BITS | new;
        true
    }

    pub(super) fn remove(&mut self, tag: u32, loc: u64) -> bool {
        let Some((at, slot)) = self.position(tag, |l| l == loc) else { return false };
        self.len -= 1;
        self.empty(at, slot);
        true
    }

    /// Empties a slot. When that ends a run of full buckets, an entry behind it that belongs here or
    /// before moves up, and leaves a slot of its own to empty.
    fn empty(&mut self, mut at: usize, mut slot: usize) {
        loop {
            let was_full = self.buckets[at].is_full();
            let last = self.buckets[at].used() - 1;
            self.buckets[at].0[slot] = self.buckets[at].0[last];
            self.buckets[at].0[last] = 0;
            if !was_full {
                return;
            }
            let Some((from, taken)) = self.displaced(at) else { return };
            self.buckets[at].0[SLOTS - 1] = self.buckets[from].0[taken];
            (at, slot) = (from, taken);
        }
    }

    /// The first entry behind the hole in `at` whose probe passes through `at`.
    fn displaced(&self, hole: usize) -> Option<(usize, usize)> {
        let count = self.buckets.len();
        let mut at = self.after(hole);
        loop {
            let bucket = &self.buckets[at];
            let span = (at + count - hole) % count;
            for (i, slot) in bucket.0.iter().enumerate().filter(|(_, s)| **s != 0) {
                let home = self.home(slot_tag(*slot));
                if (at + count - home) % count >= span {
                    return Some((at, i));
                }
            }
            if !bucket.is_full() || at == hole {
                return None;
            }
            at = self.after(at);
        }
    }

    fn slots(&self) -> impl Iterator<Item = u64> + '_ {
        self.buckets.iter().flat_map(|b| b.0).filter(|s| *s != 0)
    }

    pub(super) fn locations(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots().map(|s| s & LOC_MASK)
    }

    fn filled(depth: u32, buckets: usize, slots: impl Iterator<Item = u64>) -> Self {
        let mut table = Self::new(depth, buckets);
        for slot in slots {
            table.place(slot_tag(slot), slot & LOC_MASK);
        }
        table
    }

    pub(super) fn grow(&mut self) {
        *self = Self::filled(self.depth, larger(self.buckets.len()), self.slots());
    }

    /// Two tables by the next bit of the tag.
    pub(super) fn split(&self) -> (Self, Self) {
        let bit = 1u64 << (LOC_BITS + TAG_BITS - 1 - self.depth);
        let ones = self.slots().filter(|s| s & bit != 0).count();
        let half = |len: usize, one: bool| {
            let mut buckets = 80;
            while entries_max(buckets) <= len {
                buckets = larger(buckets);
            }
            Self::filled(
                self.depth + 1,
                buckets,
                self.slots().filter(move |s| (s & bit != 0) == one),
            )
        };
        (half(self.len as usize - ones, false), half(ones, true))
    }

    /// Visits the entries from `tag` on whose home is that of `tag`.
    pub(super) fn visit_home(&self, tag: u32, visit: &mut impl FnMut(u64)) -> usize {
        let home = self.home(tag);
        let (mut at, mut visited) = (home, 0);
        loop {
            let bucket = &self.buckets[at];
            for slot in bucket.0.iter().filter(|s| **s != 0) {
                if slot_tag(*slot) >= tag && self.home(slot_tag(*slot)) == home {
                    visit(slot & LOC_MASK);
                    visited += 1;
                }
            }
            at = self.after(at);
            if !bucket.is_full() || at == home {
                return visited;
            }
        }
    }

    /// The least tag after those whose home is that of `tag`; may be the next table's, or 2^24.
    pub(super) fn next_home(&self, tag: u32) -> u32 {
        let bits = TAG_BITS - self.depth;
        let first = tag >> bits << bits;
        let next = (self.home(tag) as u64 + 1) << bits;
        first + next.div_ceil(self.buckets.len() as u64) as u32
    }
}
