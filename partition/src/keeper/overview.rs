//! The cluster as its leader sees it, for people: who is there, who holds how much, what is under way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::heartbeat::{Lack, Room};
use super::leases::Leases;
use super::state::{Brick, Group, Keepers};
use super::wishes::{Note, Wish};

const MS: u64 = 1_000_000;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// Version of the maps.
    pub version: u64,
    /// All bricks.
    pub bricks: Vec<BrickView>,
    /// Copies under way.
    pub copies: Vec<CopyView>,
    /// What operators wished and is not met yet.
    pub wishes: Vec<WishView>,
    /// What operators should know, the oldest first.
    pub notes: Vec<Note>,
}

/// A brick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickView {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its process, as it said last to this leader.
    pub pid: Option<u32>,
    /// Native protocol.
    pub listen: String,
    /// Control port.
    pub control: String,
    /// Redis protocol.
    pub resp: String,
    /// HTTP.
    pub http: String,
    /// Failure domain.
    pub host: String,
    /// Wider failure domain.
    pub rack: String,
    /// It is heard, and gets answers.
    pub live: bool,
    /// What is left of its lease as the keepers count it; `None` for the only brick, whose lease has no end.
    pub lease_ms: Option<u64>,
    /// Since its last heartbeat; `None`: this leader has had none.
    pub heard_ms: Option<u64>,
    /// It is a keeper, or becomes one.
    pub keeper: bool,
    /// It is being emptied.
    pub draining: bool,
    /// Memory for records, as it said last.
    pub memory: Option<Room>,
    /// Bytes a second that its copies may move, because requests wait for them there; 0: there is no bound.
    pub copy_pace: u64,
    /// What it has no room for.
    pub lack: Option<Lack>,
    /// Partitions that it leads.
    pub primaries: u32,
    /// Partitions that it holds without leading them.
    pub backups: u32,
    /// Copies to it.
    pub learners: u32,
    /// Partitions in which it still counts: it cannot be removed before there is none.
    pub counts_in: u32,
    /// Partitions of which only this brick has everything: to be removed, it must be there first.
    pub only_in: Vec<u32>,
}

/// Why there is a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyKind {
    /// A brick that was away is given what it missed.
    Rejoin,
    /// A replica is gone.
    Repair,
    /// A brick is being emptied.
    Drain,
    /// An operator wished it.
    Move,
    /// Bricks are made more even.
    Balance,
}

/// A copy under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyView {
    /// Partition.
    pub partition: u32,
    /// Its table.
    pub table: String,
    /// The brick that is copied to.
    pub to: u32,
    /// Why.
    pub kind: CopyKind,
    /// Records that came.
    pub copied_bytes: u64,
    /// What of the source's segments has been gone through, dead records too.
    pub passed_bytes: u64,
    /// What there is to go through; 0 until the source has said so.
    pub total_bytes: u64,
    /// Records that came in a second, lately.
    pub bytes_per_s: u64,
    /// How long it will take at this rate, when that can be said.
    pub left_ms: Option<u64>,
}

/// A wish that is not met yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishView {
    /// Partition.
    pub partition: u32,
    /// What is wished.
    pub wish: Wish,
    /// The same in words, behind "partition 7".
    pub text: String,
}

impl Overview {
    /// As it is now.
    pub fn new(now: u64, keepers: &Keepers, leases: &Leases) -> Self {
        let mut held: BTreeMap<u32, Held> = BTreeMap::new();
        for (partition, group) in keepers.groups() {
            note_group(&mut held, partition, group);
        }
        let brick = |brick: &Brick| {
            view(now, keepers, leases, brick, held.remove(&brick.id).unwrap_or_default())
        };
        let bricks = keepers.bricks().map(brick).collect();
        let groups = || keepers.groups();
        let copies = groups().filter_map(|(partition, group)| {
            let to = group.replicas.learners.first()?.brick;
            Some(copy(keepers, leases, partition, group, to))
        });
        let wishes = groups().filter_map(|(partition, group)| {
            let wish = group.wish?;
            Some(WishView { partition, wish, text: keepers.tell(wish) })
        });
        Self {
            version: keepers.version(),
            bricks,
            copies: copies.collect(),
            wishes: wishes.collect(),
            notes: keepers.notes().to_vec(),
        }
    }
}

/// What a brick has part in.
#[derive(Default)]
struct Held {
    primaries: u32,
    backups: u32,
    learners: u32,
    counts_in: u32,
    only_in: Vec<u32>,
}

fn note_group(held: &mut BTreeMap<u32, Held>, partition: u32, group: &Group) {
    let replicas = &group.replicas;
    for (at, member) in replicas.members.iter().enumerate() {
        let held = held.entry(member.brick).or_default();
        if at == 0 {
            held.primaries += 1;
        } else {
            held.backups += 1;
        }
    }
    for learner in &replicas.learners {
        held.entry(learner.brick).or_default().learners += 1;
    }
    for brick in Keepers::counting(group) {
        held.entry(brick).or_default().counts_in += 1;
    }
    let mut whole = group.kept.iter().filter(|kept| kept.intact);
    if let (Some(only), None) = (whole.next(), whole.next()) {
        held.entry(only.brick).or_default().only_in.push(partition);
    }
}

fn view(now: u64, keepers: &Keepers, leases: &Leases, brick: &Brick, held: Held) -> BrickView {
    let until = leases.held_until(keepers, brick.id);
    BrickView {
        id: brick.id,
        name: brick.name.clone(),
        pid: leases.pid(keepers, brick.id),
        listen: brick.listen.clone(),
        control: brick.control.clone(),
        resp: brick.resp.clone(),
        http: brick.http.clone(),
        host: brick.host.clone(),
        rack: brick.rack.clone(),
        live: leases.is_live(now, keepers, brick.id),
        lease_ms: (until != u64::MAX).then(|| until.saturating_sub(now) / MS),
        heard_ms: leases.heard(brick.id).map(|heard| now.saturating_sub(heard) / MS),
        keeper: keepers.keepers().contains(&brick.id),
        draining: brick.draining,
        memory: leases.room(brick.id).filter(|room| room.total_bytes > 0),
        copy_pace: leases.copy_pace(brick.id),
        lack: leases.lack(brick.id).cloned(),
        primaries: held.primaries,
        backups: held.backups,
        learners: held.learners,
        counts_in: held.counts_in,
        only_in: held.only_in,
    }
}

fn copy(keepers: &Keepers, leases: &Leases, partition: u32, group: &Group, to: u32) -> CopyView {
    let members = &group.replicas.members;
    let is_draining = |brick: u32| keepers.brick(brick).is_some_and(|b| b.draining);
    let bricks = keepers.bricks().filter(|brick| !brick.draining).count();
    let target = keepers.wanted(group).min(bricks).max(1);
    let kind = if group.wish.is_some_and(|wish| wish.to() == to) {
        CopyKind::Move
    } else if members.iter().filter(|m| !is_draining(m.brick)).count() >= target {
        CopyKind::Balance
    } else if members.iter().any(|m| is_draining(m.brick)) {
        CopyKind::Drain
    } else if group.former.contains(&to) {
        CopyKind::Rejoin
    } else {
        CopyKind::Repair
    };
    let known = leases.copying(keepers, to, partition).unwrap_or_default();
    let (figure, left) =
        (known.figure, known.figure.total_bytes.saturating_sub(known.figure.passed_bytes));
    let left_ms = (known.passed_per_s > 0 && figure.total_bytes > 0)
        .then(|| left.saturating_mul(1_000) / known.passed_per_s);
    CopyView {
        partition,
        table: keepers.tables.get(&group.table).map_or_else(String::new, |t| t.name.clone()),
        to,
        kind,
        copied_bytes: figure.copied_bytes,
        passed_bytes: figure.passed_bytes,
        total_bytes: figure.total_bytes,
        bytes_per_s: known.copied_per_s,
        left_ms,
    }
}
