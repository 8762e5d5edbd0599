//! The keepers against bricks that crash, pause, lose memory and do not reach each other.

mod apart;
mod changes;
mod convergence;
mod entries;
mod leases;
mod placing;
mod random;
mod tables;
mod wishes;
mod world;

use super::*;
use crate::maps::{Durability, TableOptions};

pub(super) const MS: u64 = 1_000_000;

/// A process of brick `n` on its own host, which has the files of the process numbered one less.
pub(super) fn process(n: u64, incarnation: u64) -> Registration {
    Registration {
        identity: 1000 + n,
        name: format!("b{n}"),
        incarnation,
        boot: format!("boot-{n}"),
        lock: LockFile { device: 1, inode: n },
        memory_intact: true,
        disk_intact: true,
        before: vec![incarnation.saturating_sub(1)],
        cores: 2,
        memory_bytes: 1 << 30,
        host: format!("h{n}"),
        ..Registration::default()
    }
}

pub(super) fn options(partitions: u32, replicas: u8) -> TableOptions {
    TableOptions { durability: Durability::Memory, partitions, replicas }
}

pub(super) fn done(keepers: &mut Keepers, entry: &Entry) -> Applied {
    let applied = keepers.apply(entry);
    assert_eq!(applied.refusal(), None, "{entry:?}");
    keepers.check().unwrap();
    applied
}

#[track_caller]
pub(super) fn refused(keepers: &mut Keepers, entry: &Entry, expected: &str) {
    let before = keepers.clone();
    let applied = keepers.apply(entry);
    let why = applied.refusal().unwrap_or_else(|| panic!("{entry:?} was applied"));
    assert!(why.contains(expected), "{why}");
    assert_eq!(*keepers, before, "a refused entry changed something");
}

pub(super) fn join(keepers: &mut Keepers, n: u64) {
    let registration = Box::new(process(n, n * 100));
    done(keepers, &Entry::Register { registration, replaces: None, proof: Proof::First });
    if n == 1 {
        done(keepers, &Entry::Finite { brick: 1, incarnation: 100 });
    }
}

/// Brick `n` as a new process: (what it is, the entry).
pub(super) fn restart(keepers: &Keepers, n: u64, memory_intact: bool) -> Entry {
    let old = keepers.brick_of(1000 + n).unwrap();
    let new = Registration { memory_intact, disk_intact: false, ..process(n, old.incarnation + 1) };
    Entry::Register {
        registration: Box::new(new),
        replaces: Some(old.incarnation),
        proof: Proof::LeaseEnded,
    }
}

/// Bricks 1.. and a table of one partition (number 1) on them, active.
pub(super) fn group_of(n: u64) -> Keepers {
    let mut keepers = Keepers::default();
    for n in 1..=n {
        join(&mut keepers, n);
    }
    let placement = vec![(1..=n as u32).map(|b| (b, u64::from(b) * 100)).collect()];
    let options = options(1, 3);
    done(&mut keepers, &Entry::CreateTable { name: "t".into(), options, placement });
    active(&mut keepers);
    keepers
}

/// The primary of partition 1 reports.
pub(super) fn active(keepers: &mut Keepers) {
    let replicas = &keepers.group(1).unwrap().replicas;
    let primary = replicas.primary().unwrap();
    let groups = vec![(1, replicas.epoch)];
    let (brick, incarnation) = (primary.brick, primary.incarnation);
    done(keepers, &Entry::Active { brick, incarnation, groups });
}

/// (epoch, members) of partition 1.
pub(super) fn now(keepers: &Keepers) -> (u32, Vec<u32>) {
    let replicas = &keepers.group(1).unwrap().replicas;
    (replicas.epoch, replicas.members.iter().map(|m| m.brick).collect())
}
