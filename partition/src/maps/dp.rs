//! The DP map: a trie on the key's hash, from the least significant bit.
//!
//! Leaves of uneven depth are kept in the order of their reversed suffix, in which neighbours share
//! the longest low-bit suffixes: a split replaces a leaf by two neighbours, a merge two by one, and
//! SCAN goes through partitions in this order.

use rkyv::{Archive, Deserialize, Serialize};

use super::MapError;

/// Deepest leaf: a table has at most 2^16 partitions.
pub const DEPTH_MAX: u8 = 16;

/// A leaf: the keys whose hash ends in `suffix` (the lowest `depth` bits) belong to `partition`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Leaf {
    /// Bits of the suffix.
    pub depth: u8,
    /// The lowest bits of the hash.
    pub suffix: u32,
    /// Partition id; never reused.
    pub partition: u32,
}

impl Leaf {
    /// The hash is one of this leaf's.
    #[inline]
    pub fn covers(&self, hash: u64) -> bool {
        hash & ((1 << self.depth) - 1) == u64::from(self.suffix)
    }

    /// First of the leaf's hashes in SCAN's order: the suffix reversed, at the top.
    fn first(&self) -> u64 {
        u64::from(self.suffix).reverse_bits()
    }
}

/// The trie. Its leaves cover every hash exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpMap {
    leaves: Vec<Leaf>,
}

impl DpMap {
    /// From leaves in SCAN's order.
    pub fn from_leaves(leaves: &[Leaf]) -> Result<Self, MapError> {
        let Some(last) = leaves.last() else { return Err(MapError::Empty) };
        let mut next: u128 = 0;
        for leaf in leaves {
            if leaf.depth > DEPTH_MAX || leaf.suffix >= 1 << leaf.depth {
                return Err(MapError::Leaf(*leaf));
            }
            if u128::from(leaf.first()) != next {
                return Err(MapError::Cover(*leaf));
            }
            next += 1 << (64 - leaf.depth);
        }
        if next != 1 << 64 {
            return Err(MapError::Cover(*last));
        }
        Ok(Self { leaves: leaves.to_vec() })
    }

    /// All leaves, in SCAN's order.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Deepest leaf.
    pub fn depth(&self) -> u8 {
        self.leaves.iter().map(|l| l.depth).max().unwrap_or(0)
    }

    /// The leaf of a hash.
    pub fn leaf(&self, hash: u64) -> &Leaf {
        let at = self.leaves.partition_point(|l| l.first() <= hash.reverse_bits());
        &self.leaves[at - 1]
    }
}
