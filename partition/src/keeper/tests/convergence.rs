use super::world::World;
use super::*;

fn cluster(bricks: usize, replicas: u8) -> World {
    let mut world = World::new(bricks);
    assert!(world.create("t", options(8, replicas)));
    world.converge();
    world.applied.clear();
    world
}

#[test]
fn a_brick_that_is_back_soon_is_copied_to_and_nobody_else() {
    let mut world = cluster(4, 3);
    let had = world.loads()[&1].0;
    world.crash(0, false);
    world.run(5_000);
    assert_eq!(world.count(|e| matches!(e, Entry::NameLearner { .. })), 0, "it may be back");
    assert_eq!(world.loads()[&1].0, 0);
    world.start(0);
    world.run(5_000);
    assert_eq!(world.loads()[&1].0, had);
    let copies = world.count(|e| matches!(e, Entry::NameLearner { brick, .. } if *brick != 1));
    assert_eq!(copies, 0);
    world.converge();
}

#[test]
fn a_brick_that_stays_away_is_replaced_after_the_delay() {
    let mut world = cluster(4, 3);
    world.crash(0, true);
    world.run(10_000);
    assert_eq!(world.count(|e| matches!(e, Entry::NameLearner { .. })), 0);
    world.run(30_000);
    assert!(world.keepers.groups().all(|(_, g)| g.replicas.members.len() == 3));
    assert_eq!(world.loads()[&1], (0, 0));
    assert!(world.losses.is_empty());
}

#[test]
fn a_group_that_dies_within_a_moment_is_led_by_whoever_is_back() {
    // 15: three die at once, the last for good.
    let mut world = cluster(3, 3);
    for at in 0..3 {
        world.crash(at, at == 2);
    }
    world.run(3_000);
    world.start(1);
    world.run(5_000);
    for (_, group) in world.keepers.groups() {
        assert_eq!(group.replicas.members[0].brick, 2);
        assert!(group.replicas.is_active());
    }
    assert!(world.losses.is_empty());
    world.converge();
}

#[test]
fn when_nobody_kept_everything_all_are_waited_for_and_the_loss_is_said() {
    let mut world = cluster(3, 3);
    for at in 0..3 {
        world.crash(at, true);
    }
    // The disk of 2 has most of it.
    for partition in 1..=8 {
        world.machines[1].has.insert(partition, 5);
    }
    world.start(0);
    world.start(1);
    world.run(20_000);
    assert!(world.losses.is_empty(), "3 is still away");
    world.start(2);
    world.run(5_000);
    assert_eq!(world.losses.len(), 8, "{:?}", world.losses);
    let leads = |e: &Entry| matches!(e, Entry::Lead { brick: 2, accept_loss: true, .. });
    assert_eq!(world.count(leads), 8);
    world.converge();
}

#[test]
fn an_operators_word_ends_the_wait() {
    let mut world = cluster(2, 1);
    world.crash(0, true);
    world.run(20_000);
    let (partition, _) = world
        .keepers
        .groups()
        .find(|(_, g)| g.replicas.members[0].brick == 1)
        .expect("brick 1 has half of them");
    let entry =
        lead_anyway(world.now, &world.keepers, &world.leases, partition, None).expect("stopped");
    assert!(world.propose(&entry));
    assert!(world.losses[0].contains("brick \"b1\" kept all of it"), "{:?}", world.losses);
    world.run(1_000);
    assert!(world.keepers.group(partition).unwrap().replicas.is_active());
}

#[test]
fn a_cut_between_two_makes_the_backup_leave_and_the_pair_rests() {
    // 23: 1 and 3 do not reach each other, both reach the keepers.
    let mut world = cluster(3, 3);
    world.cuts.insert((0, 2));
    world.run(5_000);
    let takeouts = world.count(|e| matches!(e, Entry::TakeOut { .. }));
    assert_eq!(takeouts, 0, "nobody knows whose fault it is");
    for (partition, group) in world.keepers.groups() {
        let replicas = &group.replicas;
        let other = |brick: u32| replicas.position(4 - brick).is_some();
        // (Backups do not talk to each other.)
        let waits = replicas.primary().is_some_and(|m| m.brick != 2 && other(m.brick));
        assert!(!waits && replicas.is_active(), "{partition}: {replicas:?}");
    }
    // Mended: not at once, and then whole again.
    let before = world.count(|e| matches!(e, Entry::NameLearner { .. }));
    world.cuts.clear();
    world.run(2_000);
    assert_eq!(world.count(|e| matches!(e, Entry::NameLearner { .. })), before);
    world.converge();
}

#[test]
fn the_brick_that_nobody_reaches_is_taken_out_although_its_heartbeats_come() {
    let mut world = cluster(4, 3);
    for other in [0, 2, 3] {
        world.cuts.insert((other.min(1), other.max(1)));
    }
    world.run(6_000);
    let out = |e: &Entry| matches!(e, Entry::TakeOut { brick, .. } if *brick == 2);
    assert_eq!(world.count(out), 1);
    assert_eq!(world.count(|e| matches!(e, Entry::TakeOut { .. })), 1);
    assert!(world.leases.is_live(world.now, &world.keepers, 2), "it is answered again");
    world.converge();
}

#[test]
fn a_stuck_data_core_is_taken_out_when_it_does_not_confirm() {
    // The vote is missing, the intent is not confirmed, the heartbeats go on.
    let mut world = cluster(2, 2);
    world.machines[1].stuck = true;
    world.cuts.insert((0, 1));
    world.run(8_000);
    for (partition, group) in world.keepers.groups() {
        assert_eq!(group.replicas.members.len(), 1, "{partition}");
        assert!(group.replicas.is_active());
    }
    world.converge();
}

#[test]
fn a_hand_over_that_is_not_confirmed_is_withdrawn() {
    let mut world = cluster(3, 3);
    for machine in &mut world.machines {
        machine.stuck = true;
    }
    let (partition, primary) = (1, world.keepers.group(1).unwrap().replicas.members[0].brick);
    let epoch = world.keepers.group(1).unwrap().replicas.epoch;
    let intent = crate::maps::Intent::StepDown { brick: primary };
    world.propose(&Entry::SetIntent { partition, epoch, intent });
    world.run(3_000);
    assert_eq!(world.count(|e| matches!(e, Entry::Withdraw { .. })), 1);
    assert_eq!(world.keepers.group(1).unwrap().replicas.members[0].brick, primary);
    world.converge();
}

#[test]
fn a_brick_that_never_stops_is_asked_less_and_less_and_one_that_was_busy_soon_again() {
    let mut world = cluster(3, 3);
    for machine in &mut world.machines {
        machine.stuck = true;
    }
    let heir = world.keepers.group(1).unwrap().replicas.members[1].brick;
    let leads = |world: &World| world.keepers.group(1).unwrap().replicas.members[0].brick == heir;
    let wish = Entry::Wish { partition: 1, wish: Some(Wish::Lead { to: heir }) };
    assert!(world.propose(&wish));
    let withdrawn =
        |world: &World| world.count(|e| matches!(e, Entry::Withdraw { partition: 1, .. }));
    // Each try holds for a second: at 0, 2, 5, 10 and 19 s.
    world.run(9_000);
    assert_eq!(withdrawn(&world), 3);
    world.run(19_000);
    assert_eq!(withdrawn(&world), 5);
    for machine in &mut world.machines {
        machine.stuck = false;
    }
    world.run(10_000);
    assert!(leads(&world));
    world.converge();
}

#[test]
fn primaries_are_even_again_after_a_restart_took_them_elsewhere() {
    let mut world = World::new(3);
    assert!(world.create("t", options(32, 3)));
    world.converge();
    world.crash(0, false);
    world.run(3_000);
    world.start(0);
    world.converge();
    let leads: Vec<usize> = world.loads().values().map(|load| load.1).collect();
    assert!(leads.iter().all(|n| (10..=11).contains(n)), "{leads:?}");
}

/// Nobody waits for the room of one brick where another one has everything, and a full brick is given nothing new.
#[test]
fn a_primary_without_room_to_begin_gives_way_to_a_backup() {
    let mut world = World::new(4);
    assert!(world.create("t", options(8, 2)));
    world.converge();
    let id = world.machines[1].id.unwrap();
    let led_by = |world: &World, brick| -> Vec<u32> {
        let first = |group: &Group| group.replicas.primary().is_some_and(|m| m.brick == brick);
        world.keepers.groups().filter(|(_, group)| first(group)).map(|(id, _)| id).collect()
    };
    let led = led_by(&world, id);
    assert!(!led.is_empty());
    world.crash(1, false);
    world.machines[1].lack =
        Some(Lack { why: "it is full".into(), full: true, partitions: led.clone() });
    world.start(1);
    world.applied.clear();
    world.run(10_000);
    assert_eq!(led_by(&world, id), Vec::<u32>::new());
    for (partition, group) in world.keepers.groups() {
        assert!(group.replicas.is_active(), "{partition}: {group:?}");
        assert_eq!(group.replicas.members.len(), 2, "{partition}: {group:?}");
    }
    let given = |entry: &&Entry| matches!(entry, Entry::NameLearner { brick, .. } if *brick == id);
    assert_eq!(world.applied.iter().find(given), None);
    world.converge();
}

/// The bad files of a replica that was there before would let its group change for ever.
#[test]
fn a_former_member_that_cannot_open_the_partition_is_not_copied_to() {
    let mut world = World::new(3);
    assert!(world.create("t", options(4, 2)));
    world.converge();
    let id = world.machines[1].id.unwrap();
    let mine = |world: &World| -> Vec<u32> {
        let has = |group: &Group| group.replicas.position(id).is_some();
        world.keepers.groups().filter(|(_, group)| has(group)).map(|(id, _)| id).collect()
    };
    let had = mine(&world);
    world.crash(1, false);
    world.run(2_000);
    assert_eq!(mine(&world), Vec::<u32>::new());
    world.slow.extend(had.iter().copied());
    world.start(1);
    world.run(1_000);
    let bad = had[0];
    let group = world.keepers.group(bad).unwrap();
    assert!(group.replicas.learners.iter().any(|m| m.brick == id), "{group:?}");
    world.machines[1].lack =
        Some(Lack { why: "p7 is no good".into(), full: false, partitions: vec![bad] });
    world.run(300);
    let epoch = world.keepers.group(bad).unwrap().replicas.epoch;
    assert!(world.propose(&Entry::DropLearner { partition: bad, epoch, brick: id }));
    world.applied.clear();
    world.run(5_000);
    let given = |entry: &&Entry| matches!(entry, Entry::NameLearner { partition, brick, .. } if (*partition, *brick) == (bad, id));
    assert_eq!(world.applied.iter().find(given), None);
    let others = had[1..].iter().filter(|p| {
        let group = world.keepers.group(**p).unwrap();
        group.replicas.learners.iter().any(|m| m.brick == id)
    });
    assert_eq!(others.count(), had.len() - 1, "its other partitions are none the worse");
}

fn led_by(world: &World, partition: u32) -> (Option<u32>, bool) {
    let replicas = &world.keepers.group(partition).unwrap().replicas;
    (replicas.primary().map(|m| m.brick), replicas.is_active())
}

fn no_good(partition: u32) -> Lack {
    Lack { why: "its files are no good".into(), full: false, partitions: vec![partition] }
}

#[test]
fn two_bricks_with_bad_files_each_take_over_for_each_other() {
    let mut world = World::new(2);
    assert!(world.create("t", options(8, 2)));
    world.converge();
    let bricks = [world.machines[0].id.unwrap(), world.machines[1].id.unwrap()];
    let first = bricks.map(|brick| {
        let led =
            |(_, group): &(u32, &Group)| group.replicas.primary().is_some_and(|m| m.brick == brick);
        world.keepers.groups().find(led).unwrap().0
    });
    for (at, bad) in first.into_iter().enumerate() {
        world.crash(at, false);
        world.machines[at].lack = Some(no_good(bad));
    }
    world.start(0);
    world.start(1);
    world.run(10_000);
    assert_eq!(led_by(&world, first[0]), (Some(bricks[1]), true));
    assert_eq!(led_by(&world, first[1]), (Some(bricks[0]), true));
}

/// All were away, it came back long before the others, and cannot serve what it has.
#[test]
fn a_last_member_that_cannot_open_its_files_gives_way_to_whoever_has_everything() {
    let mut world = World::new(2);
    assert!(world.create("t", options(8, 2)));
    world.converge();
    let bricks = [world.machines[0].id.unwrap(), world.machines[1].id.unwrap()];
    let led =
        |(_, group): &(u32, &Group)| group.replicas.primary().is_some_and(|m| m.brick == bricks[0]);
    let bad = world.keepers.groups().find(led).unwrap().0;
    world.crash(0, false);
    world.crash(1, false);
    world.machines[0].lack = Some(no_good(bad));
    world.start(0);
    world.run(4_000);
    assert_eq!(led_by(&world, bad), (Some(bricks[0]), false));
    world.start(1);
    world.run(5_000);
    assert_eq!(led_by(&world, bad), (Some(bricks[1]), true));
}
