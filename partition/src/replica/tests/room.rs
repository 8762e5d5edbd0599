//! A primary that has no room for the record that begins its epoch.

use firebrick_log::segment::SegmentKind;
use firebrick_log::storage::{Done, Job, Spare, StorageError};
use firebrick_log::{Ask, Durability, Log, Want};

use super::{PARTITION, World, config, leaf, route, set_alone};
use crate::maps::{Intent, Replicas};
use crate::op::{Answer, Condition, Expiry, Failure, Op};
use crate::replica::{Action, Me, Recovering, Replica, Report};

fn set_group(world: &mut World, intent: Intent) {
    let mut group = Replicas::alone(1, 1, 0, 1);
    group.active = 0;
    group.members.push(crate::maps::Member { brick: 2, core: 0, incarnation: 1 });
    group.intent = intent;
    let me = Me { brick: 1, incarnation: 1 };
    assert!(world.replica.set_group(world.now, me, route(1), &group, &mut world.out));
}

fn wanted(world: &World) -> Want {
    let want = world.out.list.iter().rev().find_map(|action| match action {
        Action::Log(Ask::Segment(want)) => Some(*want),
        _ => None,
    });
    want.expect("it asks for a segment")
}

fn reported(world: &World, report: Report) -> bool {
    world.out.list.iter().any(|action| matches!(action, Action::Report(r) if *r == report))
}

/// What it confirmed binds: others act on it.
#[test]
fn asked_to_leave_it_says_at_once_that_it_stopped_and_does_not_begin() {
    for asked in [true, false] {
        let mut world = World::new(Durability::Memory);
        let mut log = Log::in_heap(config(Durability::Memory));
        log.ration(0);
        world.replica = Replica::new(log, leaf());
        set_group(&mut world, Intent::None);
        let want = wanted(&world);
        assert!(world.ask(b"k", Op::Get, None).is_none(), "there may be room in a moment");
        world.replica.on_segment(world.now, want, None, &mut world.out);
        assert_eq!(world.replies()[0].1.get(), Answer::Failed(Failure::NoSpace));
        assert_eq!(world.get(b"k", Op::Get).get(), Answer::Failed(Failure::NoSpace));
        assert!(world.replica.lacks_room() && world.replica.is_settled());
        let stopped = Report::Stopped { partition: PARTITION, epoch: 1 };
        assert!(!reported(&world, stopped));
        if asked {
            set_group(&mut world, Intent::Leave { brick: 1 });
            assert!(reported(&world, stopped));
        }
        // Room comes.
        world.replica.log.ration(usize::MAX);
        world.replica.room_again();
        world.replica.poll(world.now, &mut world.out);
        if world.replica.log().tail().seq == 0 && !asked {
            let spare = Some(Spare::in_heap(want.bytes));
            world.replica.on_segment(world.now, want, spare, &mut world.out);
        }
        world.replica.poll(world.now, &mut world.out);
        assert_eq!(world.replica.log().tail().seq, u64::from(!asked), "asked: {asked}");
        assert_eq!(reported(&world, Report::Active { partition: PARTITION, epoch: 1 }), !asked);
    }
}

/// A replica over files that holds a key, whose log is full, at the beginning of a new epoch.
fn full_over_files() -> World {
    let mut world = World::new(Durability::Memory);
    let (expiry, condition) = (Expiry::Never, Condition::Always);
    world.get(b"k", Op::Put { value: b"v", expiry, condition, want_old: false });
    let fresh = Replica::new(Log::in_heap(config(Durability::Memory)), leaf());
    let opened = std::mem::replace(&mut world.replica, fresh).into_log().crash();
    let (log, scan) = Log::open(config(Durability::Memory), opened);
    world.replica = Replica::open(log, scan, leaf());
    while world.replica.recover_step(world.now, 7) == Recovering::More {}
    world.replica.log.refuse(SegmentKind::Tail);
    world.epoch = 2;
    world.out.list.clear();
    assert!(set_alone(&mut world.replica, world.now, route(2), &mut world.out));
    world
}

/// Answers the manifest that the replica saves.
fn answer_manifest(world: &mut World, is_there_room: bool) {
    let ticket = world.out.list.iter().rev().find_map(|action| match action {
        Action::Log(Ask::Job(Job::Manifest { ticket, .. })) => Some(*ticket),
        _ => None,
    });
    let error = StorageError::NoSpace { side: "data_dir", path: "manifest".into(), bytes: 4096 };
    let result = if is_there_room { Ok(()) } else { Err(error) };
    let ticket = ticket.expect("it saves a manifest");
    let done = Done::Manifest { partition: PARTITION, ticket, result };
    world.out.list.clear();
    world.replica.on_job(world.now, done, &mut world.out);
}

/// It may use what is kept for removes: reads go on, and nobody asks it to leave.
#[test]
fn a_full_replica_begins_its_epoch_as_any_other() {
    let mut world = full_over_files();
    assert!(world.replica.log().is_full());
    assert!(!world.replica.lacks_room() && !world.replica.is_settled());
    assert!(world.ask(b"k", Op::Get, None).is_none(), "its manifest is being saved");
    answer_manifest(&mut world, true);
    assert!(matches!(world.replies()[0].1.get(), Answer::Value { value: b"v", .. }));
}

#[test]
fn a_manifest_that_finds_no_room_is_a_lack_until_it_is_saved() {
    let mut world = full_over_files();
    assert!(world.ask(b"k", Op::Get, None).is_none());
    answer_manifest(&mut world, false);
    assert_eq!(world.replies()[0].1.get(), Answer::Failed(Failure::NoSpace));
    world.replica.room_again();
    world.replica.poll(world.now, &mut world.out);
    assert!(world.replica.lacks_room() && world.replica.is_settled(), "it is only tried again");
    answer_manifest(&mut world, true);
    assert!(!world.replica.lacks_room());
    assert!(matches!(world.get(b"k", Op::Get).get(), Answer::Value { value: b"v", .. }));
}
