//! Room that comes back, and the reserve of a core with several partitions.

use std::sync::Arc;

use firebrick_partition::keeper::Lack;
use firebrick_partition::maps::{Durability, Intent, Member, Replicas, Routes};
use firebrick_partition::replica::{Replica, Report};
use firebrick_partition::{Condition, Op};

use super::catalog::BRICK;
use super::native_client::{NativeClient, put};
use super::rig::{Build, Rig};
use crate::control::ControlRequest;
use crate::shard::FromControl;

fn rig(durability: Durability, bytes_max: u64) -> Rig {
    Rig::new(Build { bytes_max, ..Build::new(7, 1, durability) }).serve()
}

/// Somebody else's files leave the file system: writes go on without a remove or a restart.
#[test]
fn room_from_outside_lets_refused_writes_go_on() {
    let mut rig = rig(Durability::Async { ms: 2 }, 24 << 20);
    let mut client = NativeClient::new(&mut rig, 0, "default");
    rig.disk_full = true;
    let mut n = 0;
    while client.call(&mut rig, format!("k{n}").as_bytes(), put(&vec![b'v'; 100_000])) == "done" {
        n += 1;
        assert!(n < 400, "it was never full");
    }
    rig.run_for(1_000_000_000);
    rig.disk_full = false;
    rig.run_for(1_000_000_000);
    assert_eq!(client.call(&mut rig, b"again", put(&vec![b'v'; 100_000])), "done");
}

/// All partitions fill at once, so that none can count on the segments of another.
#[test]
fn a_full_core_of_many_partitions_can_be_emptied() {
    for durability in [Durability::Memory, Durability::Sync] {
        let mut rig = rig(durability, 24 << 20);
        rig.catalog.create("t", 4, durability).unwrap();
        rig.push_routes();
        rig.run_for(50_000_000);
        let mut client = NativeClient::new(&mut rig, 0, "t");
        for n in 0..40u32 {
            let said = client.call(&mut rig, &n.to_le_bytes(), Op::OpenSession { client: 5 });
            assert!(said.starts_with("session"), "{said}");
        }
        let (mut stored, mut refused) = (0u32, 0);
        while refused < 100 {
            let said =
                client.call(&mut rig, format!("k{stored}").as_bytes(), put(&vec![b'v'; 30_000]));
            refused = if said == "done" { 0 } else { refused + 1 };
            stored += 1;
        }
        for n in 0..stored {
            let remove = Op::Remove { condition: Condition::Always, want_old: false };
            let said = client.call(&mut rig, format!("k{n}").as_bytes(), remove);
            assert!(said == "done" || said == "absent", "{durability:?} {n} of {stored}: {said}");
        }
        rig.run_for(2_000_000_000);
        for n in 0..100 {
            let said =
                client.call(&mut rig, format!("again{n}").as_bytes(), put(&vec![b'v'; 30_000]));
            assert_eq!(said, "done", "{durability:?} {n}");
        }
    }
}

/// Whatever the first record lacks room for, a segment or the partition's folder: nobody waits for a deadline to hear
/// of it, and all goes on when there is room.
#[test]
fn a_partition_without_room_for_its_first_record_refuses_at_once() {
    for opens in [true, false] {
        let mut rig = rig(Durability::Async { ms: 2 }, 24 << 20);
        // (Spares that are there already are enough for two.)
        (rig.disk_full, rig.no_room_to_open) = (opens, !opens);
        rig.catalog.create("t", 8, Durability::Async { ms: 2 }).unwrap();
        rig.push_routes();
        rig.run_for(50_000_000);
        let mut client = NativeClient::new(&mut rig, 0, "t");
        let mut refused = 0;
        for n in 0..64u32 {
            let begin = rig.now;
            let op = if n % 2 == 0 { put(b"v") } else { Op::Get };
            let said = client.call(&mut rig, &n.to_le_bytes(), op);
            assert!(rig.now < begin + 20_000_000, "{said} after {} ns", rig.now - begin);
            refused += u32::from(said == "failed NoSpace");
            assert!(["failed NoSpace", "done", "absent"].contains(&said.as_str()), "{said}");
        }
        assert!(refused > 32, "{refused}");
        (rig.disk_full, rig.no_room_to_open) = (false, false);
        rig.run_for(1_000_000_000);
        for n in 0..64u32 {
            assert_eq!(client.call(&mut rig, &n.to_le_bytes(), put(b"v")), "done");
        }
    }
}

/// A brick that there was no room to open a table's only partition on; the partition.
fn unopened() -> (Rig, u32) {
    let mut rig = rig(Durability::Async { ms: 2 }, 24 << 20);
    rig.no_room_to_open = true;
    rig.catalog.create("t", 1, Durability::Async { ms: 2 }).unwrap();
    rig.push_routes();
    rig.run_for(50_000_000);
    let maps = rig.catalog.maps();
    let partition = maps.table("t").unwrap().leaves[0].partition;
    assert_eq!(told_lack(&mut rig).unwrap().partitions, [partition]);
    (rig, partition)
}

/// The newest lack that the core told of since it was asked last; `None`: that it is over.
pub(super) fn told_lack(rig: &mut Rig) -> Option<Lack> {
    let told = std::iter::from_fn(|| rig.queue.take()).filter_map(|request| match request {
        ControlRequest::Lack { lack, .. } => Some(lack),
        _ => None,
    });
    told.last().expect("it told of a change")
}

/// Gives every core maps in which the table's first partition has another group.
pub(super) fn change_group(rig: &mut Rig, table: &str, change: impl Fn(&mut Replicas)) {
    let mut maps = rig.catalog.maps();
    let table = maps.tables.iter_mut().find(|found| found.name == table).unwrap();
    let (partition, group) = table.groups.iter().next().unwrap();
    let mut group = group.clone();
    change(&mut group);
    table.groups.set(partition, group);
    maps.version = rig.cores[0].shard.store.routes.version() + 1;
    let routes = Arc::new(Routes::new(&maps, BRICK).unwrap());
    for core in 0..rig.cores.len() {
        rig.tell(core, FromControl::Routes(Arc::clone(&routes)));
    }
}

#[test]
fn a_partition_that_left_before_it_could_be_opened_is_no_lack_any_more() {
    let (mut rig, _) = unopened();
    change_group(&mut rig, "t", |group| {
        group.epoch += 1;
        group.members = vec![Member { brick: 2, core: 0, incarnation: 1 }];
    });
    rig.run_for(600_000_000);
    assert_eq!(told_lack(&mut rig), None);
}

/// Others wait for its word, and act on it: so it is not opened in that epoch any more.
#[test]
fn a_partition_that_cannot_be_opened_stops_when_it_is_asked_to() {
    let (mut rig, partition) = unopened();
    let intent = Intent::Leave { brick: BRICK };
    // (As a backup or as a primary, which this one is.)
    let epoch = rig.cores[0].shard.store.routes.partition(partition).unwrap().route.epoch;
    let stops = |rig: &mut Rig, epoch: u32| {
        let said = std::iter::from_fn(|| rig.queue.take());
        let stopped = Report::Stopped { partition, epoch };
        said.filter(|said| matches!(said, ControlRequest::Report(r) if *r == stopped)).count()
    };
    change_group(&mut rig, "t", |group| {
        group.members[0].incarnation += 1;
        group.intent = intent;
    });
    rig.run_for(300_000_000);
    assert_eq!(stops(&mut rig, epoch), 0, "another process is asked");
    change_group(&mut rig, "t", |group| (group.intent, group.active) = (intent, 0));
    rig.run_for(1_000_000_000);
    let told = stops(&mut rig, epoch);
    assert!((8..=10).contains(&told), "{told} times");
    rig.no_room_to_open = false;
    change_group(&mut rig, "t", |_| {});
    rig.run_for(1_000_000_000);
    assert!(!rig.cores[0].shard.store.has(partition), "it said that it does not begin this epoch");
    change_group(&mut rig, "t", |group| (group.epoch, group.active) = (epoch + 1, epoch + 1));
    rig.run_for(1_000_000_000);
    assert!(rig.cores[0].shard.store.at(partition).is_some_and(Replica::is_serving));
    stops(&mut rig, epoch);
    rig.run_for(300_000_000);
    assert_eq!(stops(&mut rig, epoch) + stops(&mut rig, epoch + 1), 0);
}
