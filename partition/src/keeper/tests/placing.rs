use super::world::World;
use super::*;

fn spread(world: &World) -> Vec<(usize, usize)> {
    world.loads().into_values().collect()
}

fn is_even(loads: &[(usize, usize)]) -> bool {
    let even = |of: fn(&(usize, usize)) -> usize| {
        let (low, high) =
            (loads.iter().map(of).min().unwrap(), loads.iter().map(of).max().unwrap());
        high <= low + 1 || high * 10 <= low * 11
    };
    even(|l| l.0) && even(|l| l.1)
}

#[test]
fn a_new_table_is_even_from_the_start() {
    for bricks in 1..=5 {
        let mut world = World::new(bricks);
        assert!(world.create("t", options(64, 3)));
        let copies = |world: &World| {
            world.applied.iter().filter(|e| matches!(e, Entry::NameLearner { .. })).count()
        };
        world.converge();
        let loads = spread(&world);
        assert!(is_even(&loads), "{bricks}: {loads:?}");
        assert!(copies(&world) <= 6, "{} of {} replicas moved", copies(&world), 64 * 3);
    }
}

#[test]
fn a_new_table_is_not_on_full_bricks_while_there_are_others() {
    let mut world = World::new(3);
    world.run(2_000);
    world.machines[1].lack =
        Some(Lack { why: "it is full".into(), full: true, partitions: Vec::new() });
    world.run(500);
    assert!(world.create("pairs", options(8, 2)));
    assert_eq!(spread(&world).into_iter().map(|l| l.0).collect::<Vec<_>>(), [8, 0, 8]);
    assert!(world.create("threes", options(8, 3)));
    assert_eq!(spread(&world).into_iter().map(|l| l.0).collect::<Vec<_>>(), [16, 8, 16]);
}

#[test]
fn replicas_are_spread_by_memory() {
    let mut world = World::new(1);
    for _ in 0..3 {
        world.add(|r| r.memory_bytes = 2 << 30);
    }
    world.run(2_000);
    assert!(world.create("t", options(128, 1)));
    world.converge();
    let loads = spread(&world);
    // Weights 1, 2, 2, 2 of 7.
    assert!((16..=21).contains(&loads[0].0), "{loads:?}");
    assert!(loads[1..].iter().all(|l| (33..=39).contains(&l.0)), "{loads:?}");
}

#[test]
fn no_two_replicas_share_a_host_or_a_rack_when_they_need_not() {
    let mut world = World::new(0);
    for n in 0..6 {
        world.add(|r| {
            r.host = format!("host{}", n / 2);
            r.rack = format!("rack{}", n / 4);
        });
    }
    world.run(4_000);
    assert!(world.create("pairs", options(32, 2)));
    assert!(world.create("threes", options(32, 3)));
    world.converge();
    for (partition, group) in world.keepers.groups() {
        let of = |f: fn(&Brick) -> &String| {
            let bricks =
                group.replicas.members.iter().map(|m| world.keepers.brick(m.brick).unwrap());
            bricks.map(f).collect::<std::collections::BTreeSet<_>>().len()
        };
        let all = group.replicas.members.len();
        assert_eq!(of(|b| &b.host), all, "{partition}");
        assert_eq!(of(|b| &b.rack), 2, "{partition}");
    }
    // The keepers too: one of each host.
    let hosts: std::collections::BTreeSet<_> =
        world.keepers.keepers().iter().map(|k| &world.keepers.brick(*k).unwrap().host).collect();
    assert_eq!(hosts.len(), 3, "{:?}", world.keepers.keepers());
}

#[test]
fn replicas_that_share_a_host_part_when_another_host_comes() {
    let mut world = World::new(0);
    for _ in 0..2 {
        world.add(|r| r.host = "one".into());
    }
    world.run(2_000);
    assert!(world.create("t", options(8, 2)));
    world.converge();
    world.add(|r| r.host = "two".into());
    world.converge();
    for (partition, group) in world.keepers.groups() {
        assert!(group.replicas.position(3).is_some(), "{partition}: {group:?}");
    }
}

#[test]
fn a_brick_that_joins_gets_its_share_a_few_at_a_time() {
    let mut world = World::new(2);
    assert!(world.create("t", options(64, 2)));
    world.converge();
    world.add(|_| {});
    let mut most = 0;
    for _ in 0..2_000 {
        world.run(50);
        let moving = world.keepers.groups().filter(|(_, g)| !g.replicas.learners.is_empty());
        most = most.max(moving.count());
    }
    assert!((1..=4).contains(&most), "{most} at a time");
    world.converge();
    let loads = spread(&world);
    assert!(is_even(&loads), "{loads:?}");
    assert!(world.losses.is_empty());
}

#[test]
fn an_emptied_brick_can_be_removed() {
    let mut world = World::new(4);
    assert!(world.create("t", options(16, 3)));
    assert!(world.create("alone", options(16, 1)));
    world.converge();
    world.propose(&Entry::Drain { brick: 1, on: true });
    world.converge();
    assert_eq!(world.loads()[&1], (0, 0));
    assert!(!world.keepers.keepers().contains(&1));
    assert!(is_even(&spread(&world)[1..]));
    assert!(world.propose(&Entry::RemoveBrick { brick: 1 }));
    assert!(world.keepers.brick(1).is_none());
    assert!(world.losses.is_empty());
}

#[test]
fn one_three_or_five_bricks_are_keepers_and_one_that_is_gone_is_replaced() {
    for (bricks, keepers) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5)] {
        let mut world = World::new(bricks);
        world.run(3_000);
        assert_eq!(world.keepers.keepers().len(), keepers);
    }
    let mut world = World::new(4);
    world.run(1_000);
    assert_eq!(world.keepers.keepers(), [1, 2, 3]);
    world.crash(1, false);
    world.run(50_000);
    assert_eq!(world.keepers.keepers(), [1, 2, 3], "it may be back");
    world.run(15_000);
    assert_eq!(world.keepers.keepers(), [1, 3, 4]);
}

#[test]
fn keepers_are_never_changed_to_ones_of_whom_most_are_away() {
    // The first three share a host, so those that are apart are preferred: the two that have just gone.
    let mut world = World::new(0);
    for n in 0..5 {
        world.add(|r| r.host = if n < 3 { "one".into() } else { format!("host{n}") });
    }
    world.run(6_000);
    assert_eq!(world.keepers.keepers(), [1, 2, 3, 4, 5]);
    world.crash(3, false);
    world.crash(4, false);
    world.run(1_000);
    world.propose(&Entry::Drain { brick: 1, on: true });
    world.run(5_000);
    let keepers = world.keepers.keepers();
    let there = keepers.iter().filter(|keeper| **keeper < 4).count();
    assert!(there * 2 > keepers.len(), "{keepers:?} of whom 4 and 5 are away");
    // Two at a time: only one is left who is there, and two who are not.
    let mut world = World::new(5);
    world.run(3_000);
    world.crash(3, false);
    world.crash(4, false);
    world.run(1_000);
    world.propose(&Entry::Drain { brick: 1, on: true });
    world.propose(&Entry::Drain { brick: 2, on: true });
    world.run(5_000);
    assert_eq!(world.keepers.keepers(), [1, 2, 3, 4, 5]);
    // Once they are back the emptied ones need not vote any more.
    world.start(3);
    world.start(4);
    world.run(5_000);
    assert_eq!(world.keepers.keepers(), [3, 4, 5]);
}
