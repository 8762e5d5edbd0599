use std::sync::Arc;

use firebrick_net::ring::Bell;
use firebrick_partition::log::storage::{Done, Job, Storage};
use firebrick_partition::maps::{
    Durability, Maps, Member, Replicas, Routes, TableMap, TableOptions,
};

use super::{Links, incarnation, remove_left, settings};
use crate::check::{self, Host};
use crate::config::BrickConfig;
use crate::control::Cores;
use crate::lock::{BrickLock, Identity};
use crate::shard::FromControl;

/// Four partitions of brick 1, but that one of them is on brick 2 alone, and another goes from there to brick 3.
fn routes() -> Routes {
    let options = TableOptions { durability: Durability::Sync, partitions: 4, replicas: 1 };
    let mut table = TableMap::on_one_brick(1, "t", options, 1, 1, 1, 1).unwrap();
    table.groups.set(2, Replicas::alone(2, 2, 0, 1));
    let to = Member { brick: 3, core: 0, incarnation: 1 };
    let copied = Replicas { learners: vec![to], ..Replicas::alone(2, 2, 0, 1) };
    table.groups.set(3, copied);
    Routes::new(&Maps { version: 1, tables: vec![table], ..Maps::default() }, 1).unwrap()
}

#[test]
fn files_that_are_of_no_use_any_more_go_at_the_next_start() {
    let (memory, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let boot = "0e4e9312-eca7-27a5-4710-5dd9f5edf858";
    let lock = BrickLock::take("b", data.path(), memory.path()).unwrap();
    let identity = Identity::begin(&lock, "b", boot).unwrap();
    let mut storage = Storage::start(memory.path().into(), data.path().into()).unwrap();
    for partition in 1..=6 {
        let incarnation = incarnation(&identity, boot);
        let open = Job::Open { table: 1, partition, incarnation, disk: true, create: true };
        assert!(matches!(storage.perform(open), Done::Opened { result: Ok(_), .. }));
    }
    // The brick was killed, and one partition got its replica elsewhere since. One was dropped just before, which the
    // keepers remember; nobody knows of another.
    remove_left(&mut storage, &[5], &routes()).unwrap();
    let folder = |side: &tempfile::TempDir, id: u32| side.path().join(format!("p{id}"));
    for (id, stays) in [(1, true), (2, false), (3, true), (4, true), (5, false), (6, true)] {
        assert_eq!(folder(&memory, id).exists(), stays, "{id}");
        assert_eq!(folder(&data, id).exists(), stays, "{id}");
    }
}

#[test]
fn config_get_shows_what_auto_came_to() {
    let config = BrickConfig { data_dir: "x".into(), ..BrickConfig::default() };
    let plan = check::settle(&config, &Host::read()).unwrap();
    let settings = settings(&plan);
    let value = |name: &str| &settings.iter().find(|(key, _)| key == name).unwrap().1;
    assert_eq!(value("memory_dir"), plan.memory_dir.to_str().unwrap());
    assert_eq!(value("data_dir"), std::env::current_dir().unwrap().join("x").to_str().unwrap());
    assert_eq!(*value("memory"), plan.memory_bytes.to_string());
    assert!(value("cores").parse::<usize>().is_ok());
}

/// A lease rests on the maps that came with it. (In the simulator this is the test's own.)
#[test]
fn a_core_gets_its_routes_before_the_lease_that_rests_on_them() {
    let (end, mut core) = rtrb::RingBuffer::new(4);
    let links = Links::new(vec![end], vec![Bell::new().unwrap().waker()]);
    links.give(0, Some(Arc::new(routes())), 7);
    links.give(0, None, 8);
    let mut next = || core.pop().unwrap();
    assert!(matches!(next(), FromControl::Routes(_)));
    assert!(matches!(next(), FromControl::Lease { end_ns: 7 }));
    assert!(matches!(next(), FromControl::Lease { end_ns: 8 }));
}
