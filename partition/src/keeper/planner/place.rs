//! Where replicas go: rendezvous hashing, weighted by memory, apart from each other, and not above a fair share.
//!
//! Each (brick, partition) has a score; the brick with the highest takes the partition, so a brick that comes or
//! goes moves only what it gains or loses. The score is `weight / -log2(hash)`: a brick of twice the memory wins
//! twice as often. Integers only, so that every machine decides the same.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::hash::hash_u64;
use crate::keeper::entry::Entry;
use crate::keeper::leases::Leases;
use crate::keeper::state::{Brick, Keepers};
use crate::maps::TableOptions;

/// Memory as a weight: MiB, at least 1.
pub(super) fn weight(brick: &Brick) -> u64 {
    (brick.memory_bytes >> 20).max(1)
}

/// `load_a / weight_a` against `load_b / weight_b`.
pub(super) fn compare(a: (u64, u64), b: (u64, u64)) -> Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

/// A brick's claim to a partition.
pub(super) fn score(brick: &Brick, partition: u32) -> u128 {
    let hash = hash_u64(u64::from(partition) << 32 | u64::from(brick.id));
    (u128::from(weight(brick)) << 64) / u128::from(minus_log2(hash))
}

/// `-log2(hash / 2^64)` with 32 bits behind the point, at least 1.
fn minus_log2(hash: u64) -> u64 {
    let hash = hash | 1;
    let whole = hash.ilog2();
    // The mantissa, in [1, 2) with 63 bits behind the point; squaring it gives the logarithm bit by bit.
    let mut mantissa = hash << (63 - whole);
    let mut fraction = 0u64;
    for bit in (0..32).rev() {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        if square >> 64 > 0 {
            fraction |= 1 << bit;
            mantissa = (square >> 1) as u64;
        } else {
            mantissa = square as u64;
        }
    }
    ((64u64 << 32) - ((u64::from(whole) << 32) | fraction)).max(1)
}

/// How many pairs of these bricks share a host, and how many a rack: to be kept low, in that order.
pub(super) fn crowding(keepers: &Keepers, bricks: &[u32]) -> (u32, u32) {
    let (mut hosts, mut racks) = (0, 0);
    let found: Vec<&Brick> = bricks.iter().filter_map(|brick| keepers.brick(*brick)).collect();
    for (at, one) in found.iter().enumerate() {
        let near = nearness(one, &found[..at]);
        (hosts, racks) = (hosts + near.0, racks + near.1);
    }
    (hosts, racks)
}

/// With how many others a brick shares its host, and with how many its rack.
fn nearness(one: &Brick, others: &[&Brick]) -> (u32, u32) {
    let same = |of: fn(&Brick) -> &str| {
        let near = |other: &&&Brick| !of(one).is_empty() && of(one) == of(other);
        others.iter().filter(near).count() as u32
    };
    (same(|brick| &brick.host), same(|brick| &brick.rack))
}

/// The least crowding of so many of these bricks, each in turn put where it is least near the others.
pub(super) fn least_crowding(bricks: &[&Brick], count: usize) -> (u32, u32) {
    let (mut chosen, mut free) = (Vec::new(), bricks.to_vec());
    let (mut hosts, mut racks) = (0, 0);
    while chosen.len() < count {
        let near = |at: &usize| nearness(free[*at], &chosen);
        let Some(at) = (0..free.len()).min_by_key(near) else { break };
        let near = near(&at);
        (hosts, racks) = (hosts + near.0, racks + near.1);
        chosen.push(free.swap_remove(at));
    }
    (hosts, racks)
}

/// Loads of bricks, and the share that each should have.
#[derive(Clone, Debug, Default)]
pub(super) struct Loads {
    /// Replicas by brick, learners too.
    pub(super) replicas: BTreeMap<u32, u64>,
    /// Of those it leads.
    pub(super) primaries: BTreeMap<u32, u64>,
}

impl Loads {
    pub(super) fn of(keepers: &Keepers) -> Self {
        let mut loads = Self::default();
        for (_, group) in keepers.groups() {
            for member in group.replicas.members.iter().chain(&group.replicas.learners) {
                *loads.replicas.entry(member.brick).or_default() += 1;
            }
            if let Some(primary) = group.replicas.primary() {
                *loads.primaries.entry(primary.brick).or_default() += 1;
            }
        }
        loads
    }

    /// Replicas and weight, to be compared.
    pub(super) fn ratio(&self, brick: &Brick) -> (u64, u64) {
        (self.replicas.get(&brick.id).copied().unwrap_or(0), weight(brick))
    }

    /// Primaries and weight, to be compared.
    pub(super) fn lead_ratio(&self, brick: &Brick) -> (u64, u64) {
        (self.primaries.get(&brick.id).copied().unwrap_or(0), weight(brick))
    }

    /// The best of `bricks` to join `members`: least crowding, then not above a fair share of `total` replicas,
    /// then the score.
    pub(super) fn best<'a>(
        &self,
        keepers: &Keepers,
        bricks: &[&'a Brick],
        members: &[u32],
        partition: u32,
        total: u64,
    ) -> Option<&'a Brick> {
        let weights: u64 = bricks.iter().map(|b| weight(b)).sum();
        let there: Vec<&Brick> = members.iter().filter_map(|id| keepers.brick(*id)).collect();
        let key = |brick: &Brick| {
            let (load, own) = self.ratio(brick);
            let fair = (u128::from(total) * u128::from(own)).div_ceil(u128::from(weights.max(1)));
            (nearness(brick, &there), u128::from(load) >= fair)
        };
        let free = bricks.iter().copied().filter(|b| !members.contains(&b.id));
        let keyed: Vec<_> = free.map(|brick| (key(brick), brick)).collect();
        let least = keyed.iter().map(|(key, _)| *key).min()?;
        let mut best: Vec<&Brick> =
            keyed.into_iter().filter(|(key, _)| *key == least).map(|(_, brick)| brick).collect();
        if least.1 {
            let emptiest = best.iter().map(|b| self.ratio(b)).min_by(|a, b| compare(*a, *b))?;
            best.retain(|b| compare(self.ratio(b), emptiest) == Ordering::Equal);
        }
        best.into_iter().max_by_key(|b| (score(b, partition), std::cmp::Reverse(b.id)))
    }
}

/// The entry that makes a table, with a place for each partition.
pub fn create_table(
    now: u64,
    keepers: &Keepers,
    leases: &Leases,
    name: &str,
    options: TableOptions,
) -> Result<Entry, String> {
    let usable = |brick: &&Brick| {
        !brick.draining && (keepers.is_endless() || leases.is_live(now, keepers, brick.id))
    };
    let mut bricks: Vec<&Brick> = keepers.bricks().filter(usable).collect();
    if bricks.is_empty() {
        return Err(format!(
            "no brick is there for the table \"{name}\": see status, and try again"
        ));
    }
    let mut loads = Loads::of(keepers);
    let replicas = usize::from(options.replicas).min(bricks.len());
    let has_room = |brick: &&Brick| !leases.is_full(brick.id);
    if bricks.iter().copied().filter(|brick| has_room(brick)).count() >= replicas {
        bricks.retain(has_room);
    }
    let there: u64 = bricks.iter().map(|brick| loads.ratio(brick).0).sum();
    let total = there + replicas as u64 * u64::from(options.partitions);
    let mut placement = Vec::new();
    // (A count that is no power of two is refused when the entry is applied.)
    for n in 0..options.partitions.min(1 << crate::maps::DEPTH_MAX) {
        let partition = keepers.next_partition.saturating_add(n);
        let mut members: Vec<&Brick> = Vec::new();
        while members.len() < replicas {
            let ids: Vec<u32> = members.iter().map(|m| m.id).collect();
            let Some(best) = loads.best(keepers, &bricks, &ids, partition, total) else { break };
            *loads.replicas.entry(best.id).or_default() += 1;
            members.push(best);
        }
        let lead = |at: &usize| loads.lead_ratio(members[*at]);
        let first = (0..members.len()).min_by(|a, b| compare(lead(a), lead(b)));
        members.swap(0, first.unwrap_or(0));
        *loads.primaries.entry(members[0].id).or_default() += 1;
        placement.push(members.iter().map(|m| (m.id, m.incarnation)).collect());
    }
    Ok(Entry::CreateTable { name: name.to_owned(), options, placement })
}
