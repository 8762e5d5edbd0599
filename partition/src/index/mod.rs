//! The index of a partition: key hash to the place of the key's record.
//!
//! **Idea.** Let `r` be the hash bit-reversed, without the bits that chose the partition. A slot is 8
//! bytes: the top 24 bits of `r` (the tag) and 40 bits of location; 8 slots fill a cache line (a
//! bucket). A tag's *home* bucket is monotone in the tag, `x * buckets >> bits`, so a table of any
//! number of buckets works and growing, splitting and walking read no record: the tag says all.
//! A directory on the tag's first bits leads to sub-tables of at most 128 buckets, which grow by 14 to
//! 25% (through 5, 6, 7, 8 KiB, the sizes allocators have) and then split in two.
//!
//! **Invariant.** An entry lies in its home bucket or behind it (circular within the sub-table) with
//! only full buckets in between; a bucket's used slots come first. So a probe ends at the first bucket
//! with an empty last slot, and a removal pulls entries back.
//!
//! **Order.** Tags order keys by bit-reversed hash: SCAN's order, which no growth and no split changes.
//!
//! **Costs.** At most 90% full: 8.9 to 11.2 bytes a key; 1.1 to 1.4 cache lines a hit. A growth moves
//! fewer than 1,000 slots (a few us); doubling the directory copies 4 bytes for each 600 keys.
//! The tag includes the bits that chose the sub-table and bucket, so `24 - log2(keys / 7)` of its bits
//! tell neighbours apart: with 1 M keys 5% of the lookups see a foreign candidate, with 10 M in *one*
//! partition half do, and compare one key more. (Bits below the directory's would tell more and make a
//! split read records.) Keys made to collide in all 24 bits make one sub-table larger, and lookups of
//! those keys linear; the directory does not grow for them.

mod table;
#[cfg(test)]
mod tests;

use table::{SUB_BUCKETS_MAX, SubTable};

const TAG_BITS: u32 = 24;
const LOC_BITS: u32 = 40;

/// See the module's text.
#[derive(Debug)]
pub struct Index {
    /// Bits of the DP leaf: the same for all keys here.
    depth: u32,
    /// By the first `bits` bits of the tag: which sub-table.
    directory: Vec<u32>,
    bits: u32,
    tables: Vec<SubTable>,
    len: usize,
    /// Tables of a cleared index, to be freed a few at a time.
    discarded: Vec<SubTable>,
}

/// Where a walk goes on, and what it met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Bit-reversed hash prefix, to be passed on; 0 is the end.
    pub cursor: u64,
    /// Entries visited.
    pub entries: usize,
}

impl Index {
    /// An empty index for a leaf of this depth.
    pub fn new(depth: u8) -> Self {
        Self {
            depth: u32::from(depth),
            directory: vec![0],
            bits: 0,
            tables: vec![SubTable::new(0, 4)],
            len: 0,
            discarded: Vec::new(),
        }
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.tables.iter().chain(&self.discarded).map(SubTable::bytes).sum();
        let each = size_of::<SubTable>();
        tables + self.directory.capacity() * 4 + self.tables.capacity() * each
    }

    #[inline]
    fn tag(&self, hash: u64) -> u32 {
        ((hash.reverse_bits() << self.depth) >> LOC_BITS) as u32
    }

    #[inline]
    fn table_at(&self, tag: u32) -> usize {
        self.directory[(tag >> (TAG_BITS - self.bits)) as usize] as usize
    }

    /// Fetches the home bucket.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        let tag = self.tag(hash);
        self.tables[self.table_at(tag)].prefetch(tag);
    }

    /// The first location whose tag matches and which `is_it` accepts (it compares the key).
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(u64) -> bool) -> Option<u64> {
        let tag = self.tag(hash);
        self.tables[self.table_at(tag)].find(tag, is_it)
    }

    /// The first location whose tag matches: a guess, good for a prefetch.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u64> {
        self.find(hash, |_| true)
    }

    /// Adds an entry. The caller knows that the key has none.
    #[inline]
    pub fn insert(&mut self, hash: u64, loc: u64) {
        assert!(loc != 0 && loc >> LOC_BITS == 0, "location {loc:#x}");
        let tag = self.tag(hash);
        let mut at = self.table_at(tag);
        while self.tables[at].is_full() {
            self.grow(at, tag);
            at = self.table_at(tag);
        }
        self.tables[at].place(tag, loc);
        self.len += 1;
    }

    /// Changes an entry's location.
    #[inline]
    pub fn replace(&mut self, hash: u64, old: u64, new: u64) -> bool {
        assert!(new != 0 && new >> LOC_BITS == 0, "location {new:#x}");
        let tag = self.tag(hash);
        let at = self.table_at(tag);
        self.tables[at].replace(tag, old, new)
    }

    /// Takes an entry away.
    #[inline]
    pub fn remove(&mut self, hash: u64, loc: u64) -> bool {
        let tag = self.tag(hash);
        let at = self.table_at(tag);
        let removed = self.tables[at].remove(tag, loc);
        self.len -= usize::from(removed);
        removed
    }

    /// Removes all entries; their memory is freed by [`Index::discard_some`].
    pub fn clear(&mut self) {
        let tables = std::mem::replace(&mut self.tables, vec![SubTable::new(0, 4)]);
        if self.discarded.is_empty() {
            self.discarded = tables;
        } else {
            self.discarded.extend(tables);
        }
        self.directory = vec![0];
        self.bits = 0;
        self.len = 0;
    }

    /// Memory of a cleared index is still to be freed.
    pub fn is_discarding(&self) -> bool {
        !self.discarded.is_empty()
    }

    /// Frees a sub-table of a cleared index, after a last look at its entries; whether there is more.
    pub fn discard_some(&mut self, visit: impl FnMut(u64)) -> bool {
        if let Some(table) = self.discarded.pop() {
            table.locations().for_each(visit);
            if self.discarded.is_empty() {
                self.discarded = Vec::new();
            }
        }
        !self.discarded.is_empty()
    }

    #[cold]
    fn grow(&mut self, at: usize, tag: u32) {
        let table = &self.tables[at];
        let depth = table.depth();
        let may_double = self.directory.len() <= 8 * self.tables.len();
        let may_split = depth < TAG_BITS && (depth < self.bits || may_double);
        if table.buckets() < SUB_BUCKETS_MAX || !may_split {
            self.tables[at].grow();
            return;
        }
        if depth == self.bits {
            self.directory = self.directory.iter().flat_map(|&t| [t, t]).collect();
            self.bits += 1;
        }
        let (low, high) = self.tables[at].split();
        self.tables[at] = low;
        self.tables.push(high);
        let upper = self.tables.len() as u32 - 1;
        let span = 1usize << (self.bits - depth - 1);
        let first = ((tag >> (TAG_BITS - depth)) as usize * 2 + 1) * span;
        self.directory[first..first + span].fill(upper);
    }

    /// Visits entries in the order of bit-reversed hashes from `cursor` on, whole buckets, until
    /// `count` entries were visited or `buckets_max` buckets looked at. Cursors are prefixes of the
    /// bit-reversed hash with the partition's bits on top: they stay good when the index grows and when
    /// the partition splits. An entry that stays during a whole walk is visited at least once.
    ///
    /// `prefix` is the leaf's suffix, reversed, at the top of 64 bits.
    pub fn walk(
        &self,
        prefix: u64,
        cursor: u64,
        count: usize,
        buckets_max: usize,
        mut visit: impl FnMut(u64),
    ) -> Walked {
        let mut walked = Walked { cursor: 0, entries: 0 };
        if cursor > prefix && self.depth > 0 && (cursor ^ prefix) >> (64 - self.depth) != 0 {
            return walked;
        }
        let mut tag = if cursor <= prefix { 0 } else { (cursor << self.depth) >> LOC_BITS };
        for _ in 0..buckets_max.max(1) {
            let table = &self.tables[self.table_at(tag as u32)];
            walked.entries += table.visit_home(tag as u32, &mut visit);
            tag = u64::from(table.next_home(tag as u32));
            if tag >> TAG_BITS != 0 {
                return walked;
            }
            if walked.entries >= count {
                break;
            }
        }
        walked.cursor = prefix | (tag << LOC_BITS) >> self.depth;
        walked
    }
}
