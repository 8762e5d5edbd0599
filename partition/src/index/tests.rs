//! The index against a map, and its promises about size and order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::Index;
use crate::hash::hash_u64;

/// Hash of key n in a partition of this depth and suffix.
fn hash(n: u64, depth: u32, suffix: u64) -> u64 {
    hash_u64(n) << depth | suffix
}

fn walk_all(index: &Index, prefix: u64, count: usize) -> Vec<u64> {
    let (mut seen, mut cursor) = (Vec::new(), 0);
    loop {
        cursor = index.walk(prefix, cursor, count, 1000, |loc| seen.push(loc)).cursor;
        if cursor == 0 {
            return seen;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Random inserts, moves and removes of few and many keys; some share all 24 bits of tag.
    #[test]
    fn behaves_as_a_map(
        depth in 0..4u32,
        ops in prop::collection::vec((0..6u8, 0..900u64), 1..4000),
        crowded: bool,
    ) {
        let suffix: u64 = 5 & ((1 << depth) - 1);
        let prefix = suffix.reverse_bits();
        let hash = |n: u64| if crowded { (n % 7) << 40 << depth | suffix } else { hash(n, depth, suffix) };
        let (mut index, mut model) = (Index::new(depth as u8), BTreeMap::new());
        for (i, (op, key)) in ops.iter().enumerate() {
            let (hash, loc) = (hash(*key), i as u64 + 1);
            let known = model.get(key).copied();
            prop_assert_eq!(index.find(hash, |l| Some(l) == known), known);
            match (op, known) {
                (0..=1, Some(old)) => {
                    prop_assert!(index.remove(hash, old) && !index.remove(hash, old));
                    model.remove(key);
                }
                (_, Some(old)) => {
                    prop_assert!(index.replace(hash, old, loc));
                    model.insert(*key, loc);
                }
                (_, None) => {
                    index.insert(hash, loc);
                    model.insert(*key, loc);
                }
            }
            prop_assert_eq!(index.len(), model.len());
        }
        for (key, loc) in &model {
            prop_assert_eq!(index.find(hash(*key), |l| l == *loc), Some(*loc));
        }
        let mut seen = walk_all(&index, prefix, 10);
        seen.sort_unstable();
        let mut all: Vec<u64> = model.values().copied().collect();
        all.sort_unstable();
        prop_assert_eq!(seen, all);
    }

    /// SCAN's promise: a key that stays is seen, however the index grows and shrinks meanwhile.
    #[test]
    fn a_walk_meets_every_key_that_stays(
        stay in 1..3000u64, count in 1..40usize, churn in prop::collection::vec((any::<bool>(), 0..4000u64), 0..4000),
    ) {
        let mut index = Index::new(1);
        let hash = |n: u64| hash(n, 1, 1);
        for n in 1..=stay {
            index.insert(hash(n), n);
        }
        let mut others = BTreeSet::new();
        let mut churn = churn.into_iter();
        let (mut seen, mut cursor) = (BTreeSet::new(), 0);
        loop {
            cursor = index.walk(1 << 63, cursor, count, 50, |loc| { seen.insert(loc); }).cursor;
            if cursor == 0 {
                break;
            }
            for (add, n) in churn.by_ref().take(100) {
                let n = n + 10_000;
                if add && others.insert(n) {
                    index.insert(hash(n), n);
                } else if !add && others.remove(&n) {
                    prop_assert!(index.remove(hash(n), n));
                }
            }
        }
        prop_assert!((1..=stay).all(|n| seen.contains(&n)));
    }
}

#[test]
fn nine_to_eleven_bytes_a_key_at_every_size() {
    let mut index = Index::new(3);
    let mut worst: (f64, u64) = (0.0, 0);
    for n in 1..=1_500_000u64 {
        index.insert(hash(n, 3, 2), n);
        if n >= 100_000 && n % 10_000 == 0 {
            let each = index.bytes() as f64 / n as f64;
            if each > worst.0 {
                worst = (each, n);
            }
            assert!((8.8..11.5).contains(&each), "{each} bytes a key at {n}");
        }
    }
    println!("at most {:.2} bytes a key, at {}", worst.0, worst.1);
}

/// 10,000 keys made to share 24 bits: slow for them, no harm to the rest.
#[test]
fn keys_made_to_collide_do_not_grow_the_directory() {
    let mut index = Index::new(0);
    for n in 1..=10_000u64 {
        index.insert(n << 40 >> 16 << 16 & (0xff_ffff << 40), n);
        index.insert(hash_u64(n), n + 1_000_000);
    }
    let mut crowd = Index::new(0);
    for n in 1..=3_000u64 {
        crowd.insert(n << 30, n);
    }
    assert!(crowd.directory.len() <= 64 && crowd.bytes() < 100_000, "{}", crowd.bytes());
    assert_eq!(crowd.find(77 << 30, |l| l == 77), Some(77));
    assert_eq!(walk_all(&crowd, 0, 5).len(), 3_000);
    assert_eq!(walk_all(&index, 0, 5).len(), 20_000);
}

#[test]
fn a_cleared_index_gives_its_memory_back_in_pieces() {
    let mut index = Index::new(0);
    for n in 1..=100_000u64 {
        index.insert(hash_u64(n), n);
    }
    index.clear();
    assert_eq!((index.len(), index.find(hash_u64(5), |_| true)), (0, None));
    index.insert(hash_u64(5), 5);
    let mut slices = 0;
    let mut discarded = 0;
    while index.discard_some(|_| discarded += 1) {
        slices += 1;
    }
    assert_eq!(discarded, 100_000);
    assert!(slices > 2 && index.bytes() < 2000);
}
