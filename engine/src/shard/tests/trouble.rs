//! Full memory, failing disks, damaged files, and what an idle core does.

use firebrick_partition::Op;

use super::Random;
use super::native_client::{NativeClient, put};
use super::rig::{Build, Rig};
use firebrick_partition::maps::Durability;

fn turns_while_idle(rig: &mut Rig, ns: u64) -> u64 {
    let before = rig.cores[0].turns;
    rig.idle_for(ns);
    rig.cores[0].turns - before
}

/// Stores keys until the answers say that there is no room, and the core has counted each that said so. How many were
/// stored.
fn fill(rig: &mut Rig, client: &mut NativeClient, sizes: &[usize]) -> u32 {
    let mut random = Random(1);
    let (mut refused, mut refused_all) = (0, 0);
    for n in 0..100_000u32 {
        let value = vec![b'v'; sizes[random.below(sizes.len() as u64) as usize]];
        match client.call(rig, format!("key{n}").as_bytes(), put(&value)).as_str() {
            "done" => refused = 0,
            "failed NoSpace" => {
                refused += 1;
                refused_all += 1;
                if refused == 50 {
                    rig.run_for(30_000_000);
                    assert_eq!(rig.board.core(0).read().no_space, refused_all);
                    return n;
                }
            }
            other => panic!("{other}"),
        }
    }
    panic!("it never became full")
}

#[test]
fn a_full_store_reads_is_emptied_and_takes_writes_again() {
    for (durability, sizes) in [
        (Durability::Memory, &[80_000, 200_000][..]),
        (Durability::Async { ms: 2 }, &[100_000][..]),
        (Durability::Sync, &[100_000, 600_000][..]),
    ] {
        let build = Build { bytes_max: 24 << 20, ..Build::new(7, 1, durability) };
        let mut rig = Rig::new(build).serve();
        let mut client = NativeClient::new(&mut rig, 0, "default");
        // With a session cleaning has a record of its own to write first.
        for n in 0..4u32 {
            let key = client.key_on(0, n);
            client.call(&mut rig, &key, Op::OpenSession { client: 5 });
        }
        let stored = fill(&mut rig, &mut client, sizes);
        let remove =
            Op::Remove { condition: firebrick_partition::Condition::Always, want_old: false };
        for n in 0..stored {
            let said = client.call(&mut rig, format!("key{n}").as_bytes(), remove);
            assert!(said == "done" || said == "absent", "{durability:?} {n} of {stored}: {said}");
        }
        let mut said = String::new();
        for _ in 0..50 {
            rig.run_for(20_000_000);
            said = client.call(&mut rig, b"again", put(&vec![b'v'; 50_000]));
            if said == "done" {
                break;
            }
        }
        assert_eq!(said, "done", "{durability:?}: no room after all {stored} keys are gone");
    }
}

#[test]
fn a_full_store_lets_its_core_sleep() {
    let build = Build { bytes_max: 24 << 20, ..Build::new(7, 1, Durability::Memory) };
    let mut rig = Rig::new(build).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    fill(&mut rig, &mut client, &[100_000, 200_000]);
    rig.idle_for(2_000_000_000);
    let turns = turns_while_idle(&mut rig, 1_000_000_000);
    assert!(turns < 100, "{turns} turns in an idle second of a full store");
}

#[test]
fn an_idle_core_sleeps_whatever_was_stored() {
    for (n, durability) in
        [Durability::Memory, Durability::Async { ms: 10 }, Durability::Sync].into_iter().enumerate()
    {
        let build = Build { bytes_max: 256 << 20, ..Build::new(n as u64, 1, durability) };
        let mut rig = Rig::new(build).serve();
        let turns = turns_while_idle(&mut rig, 1_000_000_000);
        assert!(turns < 60, "{durability:?}: {turns} turns in the first second");
        let mut client = NativeClient::new(&mut rig, 0, "default");
        for round in 0..120u32 {
            let len = [10, 1_000, 100_000, 700_000, 3_000_000][rig.random.below(5) as usize];
            let key = format!("k{}", rig.random.below(20));
            let said = client.call(&mut rig, key.as_bytes(), put(&vec![b'v'; len]));
            assert_eq!(said, "done", "{durability:?} {round}");
        }
        rig.idle_for(3_000_000_000);
        let turns = turns_while_idle(&mut rig, 1_000_000_000);
        assert!(turns < 60, "{durability:?}: {turns} turns in an idle second after a load");
    }
}

/// Files take as long as they take, and a core that spins meanwhile takes the CPU from whoever makes them.
#[test]
fn a_core_that_waits_for_files_sleeps() {
    for durability in [Durability::Memory, Durability::Async { ms: 1000 }, Durability::Sync] {
        let mut rig = Rig::new(Build::new(3, 1, durability)).serve();
        rig.idle_for(2_000_000_000);
        (rig.pace.job_ns, rig.pace.disk_ns) = (300_000_000, 100_000_000);
        rig.catalog.begin("new", 2, durability).unwrap();
        rig.push_routes();
        let turns = turns_while_idle(&mut rig, 2_000_000_000);
        assert!(turns < 500, "{durability:?}: {turns} turns while the files of a table are made");
    }
}

#[test]
fn a_disk_that_fails_is_told_and_nothing_unflushed_is_acked() {
    let mut rig = Rig::new(Build::new(2, 1, Durability::Sync)).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    assert_eq!(client.call(&mut rig, b"k", put(b"old")), "done");
    rig.disk_broken = true;
    let slot = client.ask(rig.now, b"k", put(b"new"), None);
    rig.run_for(50_000_000);
    client.read(rig.now);
    assert_eq!(client.got.get(&slot), None, "not flushed, not acked");
    let said: Vec<String> = rig.heard.try_iter().collect();
    assert!(said.iter().any(|s| s.contains("accepts no writes")), "{said:?}");
    let mut other = NativeClient::new(&mut rig, 0, "default");
    assert_eq!(other.call(&mut rig, b"k", Op::Get), "value old");
    assert_eq!(other.call(&mut rig, b"k", put(b"newer")), "failed DiskFailed");
    let turns = turns_while_idle(&mut rig, 1_000_000_000);
    assert!(turns < 60, "{turns} turns in an idle second");
    rig.stop();
    rig.run_until(3_000_000_000, |rig| rig.cores[0].stopped);
}

/// A write that was appended and that nobody here will commit has no answer, on whichever core its client is: "in
/// doubt" would say that this try changed nothing, and the client would send it again under another number.
#[test]
fn an_appended_write_without_an_outcome_ends_the_connection() {
    let mut rig = Rig::new(Build::new(2, 2, Durability::Sync)).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    let keys = [client.key_on(0, 0), client.key_on(1, 0)];
    rig.disk_stalled = true;
    for (core, key) in keys.iter().enumerate() {
        let mut client = NativeClient::new(&mut rig, 0, "default");
        let slot = client.ask(rig.now, key, put(b"new"), None);
        client.fake_flush();
        rig.run_for(5_000_000);
        (rig.disk_stalled, rig.disk_broken) = (false, true);
        rig.run_for(50_000_000);
        client.read(rig.now);
        assert_eq!(client.got.get(&slot), None, "core {core}");
        assert!(client.closed, "core {core}");
    }
    client.read(rig.now);
    assert!(!client.closed, "others' connections go on");
}
