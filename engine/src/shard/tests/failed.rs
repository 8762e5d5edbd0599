//! Files that are no good, and disks that fail: whom it concerns hears of it at once, and all else is served.

use firebrick_partition::Op;
use firebrick_partition::maps::{Durability, Member};
use firebrick_partition::replica::Report;

use super::native_client::{NativeClient, put};
use super::rig::{Build, Rig};
use super::room::{change_group, told_lack};
use crate::control::ControlRequest;

const KEYS: u32 = 64;

fn put_all(rig: &mut Rig) {
    let mut client = NativeClient::new(rig, 0, "default");
    for n in 0..KEYS {
        assert_eq!(client.call(rig, &n.to_le_bytes(), put(b"v")), "done");
    }
}

/// How many keys are there, and how many are refused for their files. Nobody waits to hear either.
fn find_all(rig: &mut Rig, op: Op<'_>, found: &str) -> (u32, u32) {
    let mut client = NativeClient::new(rig, 0, "default");
    let (mut served, mut refused) = (0, 0);
    for n in 0..KEYS {
        let begin = rig.now;
        match client.call(rig, &n.to_le_bytes(), op) {
            said if said == found => served += 1,
            said if said == "failed DiskFailed" => refused += 1,
            said => panic!("{n}: {said}"),
        }
        assert!(rig.now < begin + 20_000_000, "{n}: after {} ns", rig.now - begin);
    }
    (served, refused)
}

/// A brick that was killed and whose partition 1 has lost its manifest.
fn damaged() -> Rig {
    let mut rig = Rig::new(Build::new(4, 2, Durability::Sync)).serve();
    put_all(&mut rig);
    rig.stop();
    rig.run_until(3_000_000_000, |rig| rig.cores.iter().all(|core| core.stopped));
    for side in ["memory", "data"] {
        std::fs::remove_file(rig.dir.path().join(side).join("p1/manifest")).unwrap();
    }
    rig.kill()
}

#[test]
fn only_the_partition_whose_files_are_no_good_is_not_served() {
    let mut rig = damaged().serve();
    let lack = told_lack(&mut rig).unwrap();
    assert_eq!(lack.partitions, [1]);
    assert!(lack.why.contains("p1/manifest"), "{lack}");
    assert!(rig.board.serves_all().is_err() && rig.board.serving().is_ok());
    let said: Vec<String> = rig.heard.try_iter().collect();
    assert!(said.iter().any(|s| s.contains("partition 1 is not served")), "{said:?}");
    let (served, refused) = find_all(&mut rig, Op::Get, "value v");
    assert!(served > 32 && refused > 4, "{served} served, {refused} refused");
    assert_eq!(find_all(&mut rig, put(b"v"), "done"), (served, refused));
    rig.run_for(2_000_000_000);
    let data = rig.dir.path().join("data/p1");
    assert!(std::fs::read_dir(data).unwrap().count() > 0, "nothing is deleted");
    rig.stop();
    rig.run_until(3_000_000_000, |rig| rig.cores.iter().all(|core| core.stopped));
}

/// Nobody else would say that a copy to it comes to nothing. What is left of it stays for a person.
#[test]
fn a_learner_whose_files_are_no_good_says_so() {
    let mut rig = damaged().serve();
    let told = |rig: &mut Rig| {
        let said = std::iter::from_fn(|| rig.queue.take());
        let damaged = |said: &ControlRequest| {
            matches!(said, ControlRequest::Report(Report::Damaged { partition: 1, .. }))
        };
        said.filter(damaged).count()
    };
    rig.run_for(1_000_000_000);
    assert_eq!(told(&mut rig), 0, "nobody else has it");
    let other = Member { brick: 2, core: 0, incarnation: 1 };
    change_group(&mut rig, "default", |group| {
        group.learners = std::mem::replace(&mut group.members, vec![other]);
    });
    rig.run_for(1_000_000_000);
    assert!((8..=11).contains(&told(&mut rig)));
    change_group(&mut rig, "default", |group| {
        (group.epoch, group.active, group.members) = (9, 9, vec![other]);
    });
    rig.run_for(1_000_000_000);
    assert_eq!((told(&mut rig), rig.board.serves_all()), (0, Ok(())));
    assert!(rig.dir.path().join("data/p1").exists());
}

#[test]
fn a_brick_whose_disk_fails_at_its_start_serves_what_needs_no_disk() {
    let mut rig = Rig::new(Build::new(2, 1, Durability::Sync)).serve();
    put_all(&mut rig);
    rig.catalog.create("cache", 2, Durability::Memory).unwrap();
    rig.push_routes();
    rig.run_for(50_000_000);
    let mut rig = rig.kill();
    rig.disk_broken = true;
    let mut rig = rig.serve();
    let mut client = NativeClient::new(&mut rig, 0, "cache");
    for n in 0..KEYS {
        assert_eq!(client.call(&mut rig, &n.to_le_bytes(), put(b"v")), "done");
    }
    assert_eq!(find_all(&mut rig, put(b"new"), "done"), (0, KEYS));
    let lack = told_lack(&mut rig).unwrap();
    assert!(lack.why.contains("its disk failed"), "{lack}");
}
