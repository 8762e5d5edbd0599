//! A hash has one home, and everybody can tell an old map from a new one.

use proptest::prelude::*;

use super::{
    DpMap, Durability, Leaf, MapError, Maps, Replicas, RouteCheck, Routes, TableMap, TableOptions,
};
use crate::op::Route;

fn table(partitions: u32, cores: u16) -> TableMap {
    let options = TableOptions { durability: Durability::Memory, partitions, replicas: 1 };
    TableMap::on_one_brick(1, "t", options, 100, 7, cores, 1).unwrap()
}

/// Splits leaves at random: an uneven trie.
fn uneven(splits: &[prop::sample::Index]) -> Vec<Leaf> {
    let mut leaves = vec![Leaf { depth: 0, suffix: 0, partition: 0 }];
    for split in splits {
        let at = split.index(leaves.len());
        let Leaf { depth, suffix, .. } = leaves[at];
        if depth == super::DEPTH_MAX {
            continue;
        }
        let child = |bit: u32, partition| Leaf {
            depth: depth + 1,
            suffix: suffix | bit << depth,
            partition,
        };
        let next = leaves.iter().map(|l| l.partition).max().unwrap() + 1;
        leaves.splice(at..=at, [child(0, next), child(1, next + 1)]);
    }
    leaves
}

fn routes(leaves: Vec<Leaf>) -> Routes {
    let mut map = table(1, 1);
    for leaf in &leaves {
        map.groups.set(leaf.partition, Replicas::alone(1, 7, 0, 1));
    }
    map.leaves = leaves;
    Routes::new(&Maps { version: 1, tables: vec![map], ..Maps::default() }, 7).unwrap()
}

proptest! {
    #[test]
    fn every_hash_has_one_home_in_an_uneven_trie(
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        hashes in prop::collection::vec(any::<u64>(), 50),
    ) {
        let leaves = uneven(&splits);
        let dp = DpMap::from_leaves(&leaves).unwrap();
        let routes = routes(leaves.clone());
        for hash in hashes {
            let homes: Vec<&Leaf> = leaves.iter().filter(|l| l.covers(hash)).collect();
            prop_assert_eq!(&homes, &vec![dp.leaf(hash)]);
            prop_assert_eq!(&routes.route(1, hash).unwrap().leaf, dp.leaf(hash));
        }
    }

    /// A damaged map is refused before it can send a key to two homes or to none.
    #[test]
    fn a_trie_with_a_gap_or_an_overlap_is_refused(
        splits in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        at: prop::sample::Index, drop: bool,
    ) {
        let mut leaves = uneven(&splits);
        let at = at.index(leaves.len());
        if drop {
            leaves.remove(at);
        } else {
            leaves.insert(at, leaves[at]);
        }
        prop_assert!(DpMap::from_leaves(&leaves).is_err());
    }
}

#[test]
fn partitions_take_turns_on_the_cores() {
    let routes =
        Routes::new(&Maps { version: 1, tables: vec![table(8, 2)], ..Maps::default() }, 7).unwrap();
    let entries = routes.table(1).unwrap().entries();
    assert_eq!(entries.len(), 8);
    assert_eq!(entries.iter().filter(|e| e.core == 1).count(), 4);
    assert!(entries.iter().all(|e| e.mine == Some(0)));
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(entry.route.partition, 100 + n as u32);
        assert_eq!(routes.partition(entry.route.partition), Some(entry));
    }
    assert_eq!(routes.partition(99), None);
    assert!(routes.here().eq(entries), "all of it is here");
}

#[test]
fn a_brick_outside_the_group_sees_the_primary() {
    let routes =
        Routes::new(&Maps { version: 1, tables: vec![table(2, 1)], ..Maps::default() }, 8).unwrap();
    assert_eq!(routes.route(1, 0).unwrap().mine, None);
    assert_eq!(routes.here().count(), 0);
}

/// The story of a lazily spread map: the sender's route is older, equal, or newer than the brick's.
#[test]
fn old_routes_are_repaired_and_new_ones_fetched() {
    let map = table(4, 1);
    let old =
        Routes::new(&Maps { version: 1, tables: vec![map.clone()], ..Maps::default() }, 7).unwrap();
    let mut moved = map;
    moved.groups.set(101, Replicas::alone(2, 7, 1, 1));
    let new = Routes::new(&Maps { version: 2, tables: vec![moved], ..Maps::default() }, 7).unwrap();

    let before = old.partition(101).unwrap().route;
    let after = new.partition(101).unwrap().route;
    assert_ne!(before.fingerprint, after.fingerprint);
    assert_eq!(old.check(before), RouteCheck::Current);
    assert_eq!(new.check(before), RouteCheck::Older(after));
    assert_eq!(old.check(after), RouteCheck::Newer);
    assert_eq!(old.check(Route { partition: 5, ..before }), RouteCheck::Unknown);
    let forged = Route { fingerprint: before.fingerprint ^ 1, ..before };
    assert_eq!(old.check(forged), RouteCheck::Older(before));
}

/// Requests of all versions compare this number: it may not change.
#[test]
fn the_fingerprint_is_fixed() {
    let leaf = Leaf { depth: 3, suffix: 5, partition: 17 };
    let group = Replicas::alone(4, 1, 2, 1);
    assert_eq!(super::fingerprint(9, &leaf, &group), 0x4895_23ad);
    let other = Leaf { suffix: 4, ..leaf };
    assert_ne!(super::fingerprint(9, &leaf, &group), super::fingerprint(9, &other, &group));
}

#[test]
fn impossible_maps_are_named() {
    let mut map = table(4, 1);
    map.groups.remove(102);
    assert_eq!(map.check(), Err(MapError::NoGroup(102)));
    let mut map = table(4, 1);
    map.groups.set(102, Replicas { epoch: 2, ..Replicas::default() });
    assert_eq!(map.check(), Err(MapError::Members(102, 0)));
    let options = TableOptions { durability: Durability::Sync, partitions: 3, replicas: 1 };
    let refused = TableMap::on_one_brick(1, "t", options, 0, 1, 1, 1);
    assert_eq!(refused, Err(MapError::Partitions(3)));
}
