//! Tables that come and go while requests are in flight.

use firebrick_partition::Op;

use super::native_client::{NativeClient, put};
use super::rig::{Build, Rig};
use crate::shard::FromControl;
use firebrick_partition::maps::Durability;

fn serves(rig: &mut Rig, client: &mut NativeClient) {
    for n in 0..20 {
        let said = client.call(rig, format!("after{n}").as_bytes(), put(b"v"));
        assert_eq!(said, "done");
    }
}

#[test]
fn a_table_made_at_run_time_serves_and_leaves_no_file_when_dropped() {
    let mut rig = Rig::new(Build::new(1, 2, Durability::Memory)).serve();
    let mut default = NativeClient::new(&mut rig, 0, "default");
    rig.catalog.create("t", 2, Durability::Sync).unwrap();
    let folders = |rig: &Rig| {
        let all = std::fs::read_dir(rig.dir.path().join("data")).unwrap();
        all.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('p')).count()
    };
    let before = folders(&rig);
    rig.push_routes();
    let mut client = NativeClient::new(&mut rig, 1, "t");
    let key = client.key_on(0, 0);
    let said = client.call(&mut rig, &key, put(b"v"));
    let early = ["failed NoTable", "failed WrongPartition", "failed Unavailable", "done"];
    assert!(early.contains(&said.as_str()), "{said}");
    rig.run_for(50_000_000);
    serves(&mut rig, &mut client);
    assert!(folders(&rig) > before);
    rig.catalog.drop_table("t").unwrap();
    rig.push_routes();
    rig.run_for(400_000_000);
    assert_eq!(client.call(&mut rig, &key, Op::Get), "failed NoTable");
    serves(&mut rig, &mut default);
    let left: Vec<String> = std::fs::read_dir(rig.dir.path().join("data"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('p'))
        .collect();
    assert!(left.len() <= 4, "{left:?}");
}

/// A table dropped at any moment of its partitions' opening, recovering and serving.
#[test]
fn a_table_dropped_while_it_opens_leaves_the_rest_serving() {
    for seed in 0..8 {
        let mut rig = Rig::new(Build::new(seed, 2, Durability::Memory)).serve();
        let mut default = NativeClient::new(&mut rig, 0, "default");
        rig.catalog.create("t", 4, Durability::Sync).unwrap();
        rig.push_routes();
        let wait = rig.random.below(600_000);
        rig.run_for(wait);
        rig.catalog.drop_table("t").unwrap();
        rig.push_routes();
        rig.run_for(20_000_000);
        serves(&mut rig, &mut default);
        let folder = rig.dir.path().join("data");
        let left = std::fs::read_dir(folder).unwrap().filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_string_lossy().strip_prefix('p').is_some_and(|n| n.parse::<u32>().unwrap() > 4)
        });
        assert_eq!(left.count(), 0, "seed {seed}");
        rig.stop();
        rig.run_until(3_000_000_000, |rig| rig.cores.iter().all(|core| core.stopped));
    }
}

/// Writes in flight in a table that is dropped are answered, and a stop does not wait for them.
#[test]
fn requests_in_flight_in_a_dropped_table_are_answered() {
    for seed in 0..4 {
        let mut rig = Rig::new(Build::new(seed, 2, Durability::Memory)).serve();
        rig.catalog.create("t", 1, Durability::Sync).unwrap();
        rig.push_routes();
        rig.run_for(50_000_000);
        let mut client = NativeClient::new(&mut rig, 0, "t");
        let keys = [client.key_on(0, 0), client.key_on(1, 0)];
        for key in &keys {
            assert_eq!(client.call(&mut rig, key, put(b"v")), "done");
        }
        rig.disk_stalled = true;
        for n in 0..30 {
            let op = if n % 3 == 2 { Op::Get } else { put(b"w") };
            client.ask(rig.now, &keys[n % 2], op, None);
        }
        client.fake_flush();
        let wait = rig.random.below(200_000);
        rig.run_for(wait);
        rig.catalog.drop_table("t").unwrap();
        rig.push_routes();
        rig.run_for(5_000_000);
        rig.disk_stalled = false;
        client.settle(&mut rig, 1_000_000_000);
        let fine = ["done", "failed NoTable", "failed InDoubt", "value v", "value w"];
        assert!(client.got.values().all(|said| fine.contains(&said.as_str())), "{:?}", client.got);
        rig.stop();
        rig.run_until(2_000_000_000, |rig| rig.cores.iter().all(|core| core.stopped));
    }
}

/// A dropped table's memory is others' again.
#[test]
fn dropping_a_table_makes_room_for_the_others() {
    let build = Build { bytes_max: 24 << 20, ..Build::new(7, 1, Durability::Memory) };
    let mut rig = Rig::new(build).serve();
    rig.catalog.create("t", 1, Durability::Memory).unwrap();
    rig.push_routes();
    rig.run_for(50_000_000);
    let mut big = NativeClient::new(&mut rig, 0, "t");
    let mut n = 0u32;
    while big.call(&mut rig, format!("b{n}").as_bytes(), put(&vec![b'v'; 100_000])) == "done" {
        n += 1;
    }
    let mut client = NativeClient::new(&mut rig, 0, "default");
    let mut refused = 0;
    for n in 0..400 {
        let said = client.call(&mut rig, format!("k{n}").as_bytes(), put(&vec![b'v'; 100_000]));
        refused += u32::from(said == "failed NoSpace");
    }
    assert!(refused > 0, "it was never full");
    rig.catalog.drop_table("t").unwrap();
    rig.push_routes();
    rig.run_for(1_000_000_000);
    let said = client.call(&mut rig, b"again", put(&vec![b'v'; 100_000]));
    assert_eq!(said, "done");
}

/// A partition that leaves while the kernel still reads its memory, and is named here again before that ends: what is
/// removed is the old replica's, not the new one's.
#[test]
fn a_partition_that_comes_back_while_it_leaves_keeps_its_files() {
    let mut rig = Rig::new(Build::new(3, 1, Durability::Memory)).serve();
    rig.catalog.create("t", 1, Durability::Async { ms: 1 }).unwrap();
    rig.push_routes();
    rig.run_for(50_000_000);
    let mut client = NativeClient::new(&mut rig, 0, "t");
    let named = rig.catalog.routes();
    let id = named.table_named("t").unwrap().entries()[0].route.partition;
    rig.disk_stalled = true;
    let key = client.key_on(0, 0);
    assert_eq!(client.call(&mut rig, &key, put(b"v")), "done");
    rig.run_for(5_000_000);
    rig.catalog.drop_table("t").unwrap();
    rig.push_routes();
    rig.run_for(5_000_000);
    rig.tell(0, FromControl::Routes(named));
    rig.run_for(5_000_000);
    rig.disk_stalled = false;
    rig.run_for(50_000_000);
    for side in ["memory", "data"] {
        let folder = rig.dir.path().join(side).join(format!("p{id}"));
        assert!(folder.join("manifest").exists(), "{}", folder.display());
    }
    assert_eq!(client.call(&mut rig, &key, Op::Get), "absent", "it began anew");
    assert_eq!(client.call(&mut rig, &key, put(b"w")), "done");
}
