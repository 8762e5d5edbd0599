//! Two bricks that do not reach each other: how long they rest, and whose word counts.

use super::world::World;
use super::*;

/// How long after the cut is mended all groups are whole again, in ms.
fn rest_after_a_cut(world: &mut World) -> u64 {
    world.cuts.insert((0, 2));
    world.run(3_000);
    assert!(!world.unfinished().is_empty(), "the cut did nothing");
    world.cuts.clear();
    let mended = world.now;
    while !world.unfinished().is_empty() {
        world.run(100);
        assert!(world.now < mended + 120_000 * MS, "{:?}", world.unfinished());
    }
    (world.now - mended) / MS
}

#[test]
fn a_pair_that_fails_again_at_once_rests_longer_and_good_time_makes_that_good() {
    let mut world = World::new(3);
    assert!(world.create("t", options(8, 3)));
    world.converge();
    let first = rest_after_a_cut(&mut world);
    assert!((2_000..4_500).contains(&first), "{first} ms");
    let rests: Vec<u64> = (0..6).map(|_| rest_after_a_cut(&mut world)).collect();
    assert!(rests[0] > first + 1_000 && rests[2] > rests[0] * 2, "{rests:?}");
    let worst = *rests.last().unwrap();
    assert!((30_000..65_000).contains(&worst), "{rests:?}");
    // A minute of rest and two good ones: not worth more than a few seconds any more.
    world.run(900_000);
    assert!(rest_after_a_cut(&mut world) < 12_000);
    world.run(60_000);
    let last = rest_after_a_cut(&mut world);
    assert!(last < 4_500, "{last} ms after long good times");
}

#[test]
fn cuts_with_good_time_between_them_cost_a_short_rest_each() {
    let mut world = World::new(3);
    assert!(world.create("t", options(8, 3)));
    world.converge();
    for _ in 0..20 {
        let rest = rest_after_a_cut(&mut world);
        assert!(rest < 4_500, "{rest} ms");
        world.run(10_000);
    }
}

/// The vote came a moment after the primary complained: the backup stays.
#[test]
fn a_complaint_that_is_not_repeated_is_withdrawn() {
    for withdrawn in [false, true] {
        let keepers = group_of(3);
        let (mut leases, mut planner) = (Leases::default(), Planner::default());
        leases.lead(1, &keepers);
        let epoch = now(&keepers).0;
        let silent = Report::Silent { partition: 1, epoch, brick: 2 };
        let mut asked = false;
        for n in 0..20_u64 {
            let at = 1_000 * MS + n * 50 * MS;
            for brick in 1..=3_u32 {
                let says = brick == 1 && n >= 10 && !(withdrawn && n >= 13);
                let heartbeat = Heartbeat {
                    brick,
                    incarnation: u64::from(brick) * 100,
                    reports: if says { vec![silent] } else { Vec::new() },
                    ..Heartbeat::default()
                };
                assert!(leases.heartbeat(at, &keepers, &heartbeat));
                let incarnation = heartbeat.incarnation;
                assert!(leases.answer(at, &keepers, brick, incarnation, 0).is_some());
            }
            let planned = plan(at, &keepers, &mut leases, &mut planner);
            asked |= planned.iter().any(|entry| matches!(entry, Entry::SetIntent { .. }));
        }
        assert_eq!(asked, !withdrawn);
    }
}

/// Several primaries wait for it and it says why it does not vote: it leaves their groups, and keeps its lease.
#[test]
fn a_brick_without_room_for_a_partition_is_not_out_of_reach() {
    let keepers = group_of(3);
    let (mut leases, mut planner) = (Leases::default(), Planner::default());
    leases.lead(1, &keepers);
    let silent = Report::Silent { partition: 1, epoch: now(&keepers).0, brick: 2 };
    let mut asked = false;
    for n in 0..40_u64 {
        let at = 1_000 * MS + n * 50 * MS;
        for brick in 1..=3_u32 {
            let lack = Lack { why: "it is full".into(), full: true, partitions: vec![1] };
            let heartbeat = Heartbeat {
                brick,
                incarnation: u64::from(brick) * 100,
                reports: if brick != 2 && n >= 10 { vec![silent] } else { Vec::new() },
                lack: (brick == 2).then_some(lack),
                ..Heartbeat::default()
            };
            assert!(leases.heartbeat(at, &keepers, &heartbeat));
            let answer = leases.answer(at, &keepers, brick, heartbeat.incarnation, 0);
            assert!(answer.is_some(), "{brick} is suspended in round {n}");
        }
        let leaves = Entry::SetIntent {
            partition: 1,
            epoch: now(&keepers).0,
            intent: crate::maps::Intent::Leave { brick: 2 },
        };
        asked |= plan(at, &keepers, &mut leases, &mut planner).contains(&leaves);
    }
    assert!(asked);
}

/// What others said of the process before it, which was dead, is no reason to wait.
#[test]
fn a_brick_that_comes_back_is_named_learner_as_soon_as_others_reach_it() {
    let mut world = World::new(3);
    assert!(world.create("t", options(8, 3)));
    world.converge();
    world.crash(2, false);
    world.run(5_000);
    let named = |e: &Entry| matches!(e, Entry::NameLearner { .. });
    let before = world.count(named);
    // It registers before others have reached it again.
    world.cuts.extend([(0, 2), (1, 2)]);
    world.start(2);
    world.run(300);
    world.cuts.clear();
    world.run(300);
    assert!(world.count(named) > before, "{:?}", world.unfinished());
    world.converge();
}
