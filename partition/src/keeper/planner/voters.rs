//! Which bricks are keepers: 1, 3 or 5, apart from each other.

use super::place::crowding;
use super::{MS, Scene};
use crate::keeper::entry::Entry;

/// How long a keeper may be away before another brick takes its place.
const AWAY_NS: u64 = 60_000 * MS;

pub(super) fn voters(scene: &mut Scene<'_>) {
    let keepers = scene.keepers;
    let before = keepers.keepers().to_vec();
    let bricks = keepers.bricks().filter(|brick| !brick.draining).count();
    let odd = if bricks % 2 == 0 { bricks.saturating_sub(1) } else { bricks };
    let count = odd.min(usize::from(keepers.settings.keepers)).max(1);
    for brick in &before {
        if scene.is_live(*brick) {
            scene.memory.unheard.remove(brick);
        } else {
            scene.memory.unheard.entry(*brick).or_insert(scene.now);
        }
    }
    let away = |brick: u32| {
        scene.memory.unheard.get(&brick).is_some_and(|since| scene.now >= since + AWAY_NS)
    };
    let mut next: Vec<u32> = before.clone();
    next.retain(|brick| keepers.brick(*brick).is_some_and(|b| !b.draining) && !away(*brick));
    while next.len() > count {
        // One that is not there; then the one without which the others are least crowded, or that came last.
        let without = |brick: u32| {
            let rest: Vec<u32> = next.iter().copied().filter(|b| *b != brick).collect();
            (scene.is_live(brick), crowding(keepers, &rest), std::cmp::Reverse(brick))
        };
        let Some(out) = next.iter().copied().min_by_key(|brick| without(*brick)) else { break };
        next.retain(|brick| *brick != out);
    }
    while next.len() < count {
        let with = |brick: u32| {
            let all: Vec<u32> = next.iter().copied().chain([brick]).collect();
            (crowding(keepers, &all), brick)
        };
        let free = scene.usable().into_iter().map(|b| b.id).filter(|b| !next.contains(b));
        // (Nobody better is there: who is away stays, and may come back.)
        let Some(brick) = free.min_by_key(|brick| with(*brick)) else { return };
        next.push(brick);
    }
    next.sort_unstable();
    // Keepers of whom most are away would agree on nothing any more.
    let there = next.iter().filter(|brick| scene.is_live(**brick)).count();
    if next != before && there * 2 > next.len() {
        scene.entries.push(Entry::SetKeepers { before, keepers: next });
    }
}
