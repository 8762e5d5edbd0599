//! A primary that has no room for the record that begins its epoch.

use firebrick_log::storage::Spare;
use firebrick_log::{Ask, Durability, Log, Want};

use super::{PARTITION, World, config, leaf, route};
use crate::maps::{Intent, Replicas};
use crate::op::{Answer, Failure, Op};
use crate::replica::{Action, Me, Replica, Report};

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
