//! Groups that stopped as a whole.

use super::{MS, Scene};
use crate::keeper::entry::Entry;
use crate::keeper::leases::Leases;
use crate::keeper::state::{Group, Keepers, Kept};

/// How long bricks have to say what they hold of a group that nobody kept whole.
const FIGURES_NS: u64 = 3_000 * MS;

/// Lets a brick lead each group of which no member runs.
pub(super) fn lead(scene: &mut Scene<'_>) {
    for (partition, group) in scene.keepers.groups() {
        let replicas = &group.replicas;
        let acts = replicas.members.iter().any(|m| {
            scene.keepers.is_current(m.brick, m.incarnation)
                && scene.leases.is_held_now(scene.now, scene.keepers, m.brick)
        });
        if acts || !scene.is_free(partition) {
            continue;
        }
        let Some((brick, accept_loss)) = who(scene, partition, group) else { continue };
        let Some(incarnation) = scene.keepers.brick(brick).map(|b| b.incarnation) else { continue };
        let epoch = replicas.epoch;
        scene.step(partition, Entry::Lead { partition, epoch, brick, incarnation, accept_loss });
    }
}

/// Who may lead, and whether something may be lost by that.
fn who(scene: &mut Scene<'_>, partition: u32, group: &Group) -> Option<(u32, bool)> {
    if group.kept.is_empty() {
        // Nothing was ever committed.
        let usable = scene.usable();
        let here = usable.iter().find(|b| group.replicas.position(b.id).is_some());
        return here.or(usable.first()).map(|brick| (brick.id, false));
    }
    let whole = || group.kept.iter().filter(|kept| kept.intact && scene.is_live(kept.brick));
    let serves = |kept: &&Kept| !scene.leases.lacks(kept.brick, partition);
    if let Some(kept) = whole().find(serves).or_else(|| whole().next()) {
        return Some((kept.brick, false));
    }
    let since = *scene.memory.stopped.entry(partition).or_insert(scene.now);
    if !scene.keepers.is_stopped(group) || group.kept.iter().any(|kept| kept.intact) {
        return None; // Somebody who has everything may be back.
    }
    let mut best: Option<((u32, u64), u32)> = None;
    for kept in &group.kept {
        if !scene.is_live(kept.brick) {
            return None;
        }
        let figure = scene.leases.figure(kept.brick, partition);
        if figure.is_none() && scene.now < since + FIGURES_NS {
            return None;
        }
        let tail = figure.map_or((0, 0), |figure| (figure.tail_epoch, figure.tail_seq));
        if best.is_none_or(|(highest, _)| tail > highest) {
            best = Some((tail, kept.brick));
        }
    }
    best.map(|(_, brick)| (brick, true))
}

/// An operator's word: the brick (or that which has the most of it) leads a partition that has stopped, whatever
/// may be lost. [`Leases::proposed`] still refuses while a member may hold a lease.
pub fn lead_anyway(
    now: u64,
    keepers: &Keepers,
    leases: &Leases,
    partition: u32,
    brick: Option<u32>,
) -> Result<Entry, String> {
    let group =
        keepers.group(partition).ok_or_else(|| format!("there is no partition {partition}"))?;
    let running = group.replicas.members.iter().find(|m| {
        keepers.is_current(m.brick, m.incarnation) && leases.is_held_now(now, keepers, m.brick)
    });
    if let Some(member) = running {
        return Err(format!(
            "partition {partition} has not stopped: brick \"{}\" may hold a lease; nothing was changed",
            keepers.name_of(member.brick)
        ));
    }
    let live = |brick: &&crate::keeper::Brick| leases.is_live(now, keepers, brick.id);
    let candidates = keepers.bricks().filter(live).filter(|b| brick.is_none_or(|id| id == b.id));
    let best = candidates.max_by_key(|b| {
        let kept = group.kept.iter().any(|kept| kept.brick == b.id && kept.intact);
        let tail = leases.figure(b.id, partition).map(|f| (f.tail_epoch, f.tail_seq));
        (kept, tail, std::cmp::Reverse(b.id))
    });
    let best = best.ok_or("no such brick is there; see status")?;
    let (brick, incarnation, epoch) = (best.id, best.incarnation, group.replicas.epoch);
    Ok(Entry::Lead { partition, epoch, brick, incarnation, accept_loss: true })
}
