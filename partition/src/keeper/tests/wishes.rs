use super::world::World;
use super::*;

fn cluster(bricks: usize) -> World {
    let mut world = World::new(bricks);
    assert!(world.create("t", options(8, 3)));
    world.converge();
    world.applied.clear();
    world
}

/// A partition, a brick that has it (a backup) and one that has not.
fn movable(world: &World) -> (u32, u32, u32) {
    let bricks: Vec<u32> = world.keepers.bricks().map(|b| b.id).collect();
    let found = world.keepers.groups().find_map(|(partition, group)| {
        let free = bricks.iter().find(|b| group.replicas.position(**b).is_none())?;
        Some((partition, group.replicas.members[1].brick, *free))
    });
    found.unwrap()
}

fn holds(world: &World, partition: u32, brick: u32) -> Option<usize> {
    world.keepers.group(partition).unwrap().replicas.position(brick)
}

fn wish(world: &mut World, partition: u32, wish: Option<Wish>) {
    assert!(world.propose(&Entry::Wish { partition, wish }));
    assert_eq!(world.keepers.group(partition).unwrap().wish, wish);
}

#[test]
fn a_replica_goes_where_an_operator_wants_it_and_stays_there() {
    let mut world = cluster(4);
    let (partition, from, to) = movable(&world);
    wish(&mut world, partition, Some(Wish::Move { from, to }));
    world.run(5_000);
    assert_eq!(holds(&world, partition, from), None);
    assert!(holds(&world, partition, to).is_some());
    assert_eq!(world.keepers.group(partition).unwrap().wish, None, "it is met");
    world.converge();
    world.run(60_000);
    assert!(holds(&world, partition, to).is_some(), "balance undid it");
    assert!(world.keepers.notes().is_empty());
    // Another brick changes what is even: then it may move again.
    world.add(|_| {});
    world.run(1_000);
    assert!(world.keepers.groups().all(|(_, group)| !group.by_hand));
    world.converge();
}

#[test]
fn a_backup_becomes_the_primary_and_stays_it() {
    let mut world = cluster(3);
    let others: Vec<u32> = (1..=8).filter(|p| holds(&world, *p, 3) != Some(0)).collect();
    assert!(others.len() >= 5);
    for partition in &others {
        wish(&mut world, *partition, Some(Wish::Lead { to: 3 }));
    }
    world.run(5_000);
    world.converge();
    world.run(60_000);
    // More than balance would leave it.
    assert!(others.iter().all(|p| holds(&world, *p, 3) == Some(0)), "{:?}", world.loads());
}

#[test]
fn a_wish_outlives_the_leader_of_the_keepers() {
    let mut world = cluster(4);
    let (partition, from, to) = movable(&world);
    wish(&mut world, partition, Some(Wish::Move { from, to }));
    world.run(100);
    world.new_leader(true);
    world.run(10_000);
    assert!(holds(&world, partition, to).is_some() && holds(&world, partition, from).is_none());
}

#[test]
fn what_cannot_be_is_given_up_after_a_while_and_the_reason_is_told() {
    let mut world = cluster(4);
    let (partition, from, to) = movable(&world);
    wish(&mut world, partition, Some(Wish::Move { from, to }));
    world.crash(to as usize - 1, true);
    world.run(50_000);
    assert!(world.keepers.group(partition).unwrap().wish.is_some(), "it may be back");
    world.run(30_000);
    let group = world.keepers.group(partition).unwrap();
    assert_eq!(group.wish, None);
    assert!(group.replicas.learners.is_empty());
    assert!(holds(&world, partition, from).is_some());
    let note = world.keepers.notes().last().unwrap();
    assert_eq!((note.kind, note.partition), (NoteKind::Withdrawn, partition));
    assert!(note.text.contains("is not there"), "{}", note.text);
    world.converge();
}

#[test]
fn what_is_wished_of_a_partition_that_does_not_serve_is_given_up_too() {
    let mut world = World::new(2);
    assert!(world.create("t", options(8, 1)));
    world.converge();
    let (partition, _) =
        world.keepers.groups().find(|(_, g)| g.replicas.position(2) == Some(0)).unwrap();
    world.crash(1, false);
    world.run(2_000);
    wish(&mut world, partition, Some(Wish::Move { from: 2, to: 1 }));
    world.run(50_000);
    assert!(world.keepers.group(partition).unwrap().wish.is_some(), "it may be back");
    world.run(30_000);
    assert_eq!(world.keepers.group(partition).unwrap().wish, None);
    let note = world.keepers.notes().last().unwrap();
    assert!(note.text.contains("does not serve"), "{}", note.text);
}

#[test]
fn a_wish_that_makes_no_sense_is_refused_in_a_sentence() {
    let mut world = cluster(4);
    let (partition, from, to) = movable(&world);
    let keepers = &mut world.keepers;
    let primary = keepers.group(partition).unwrap().replicas.members[0].brick;
    let mut refuse = |wish, expected: &str| {
        refused(keepers, &Entry::Wish { partition, wish }, expected);
    };
    refuse(Some(Wish::Move { from: to, to }), "has no replica of partition");
    refuse(Some(Wish::Move { from, to: primary }), "has a replica of partition");
    refuse(Some(Wish::Move { from, to: 9 }), "there is no brick 9");
    refuse(Some(Wish::Lead { to }), "so it cannot be its primary");
    refuse(Some(Wish::Lead { to: primary }), "is the primary of partition");
    refuse(None, "nothing is wished");
    refused(keepers, &Entry::Wish { partition: 99, wish: None }, "there is no partition 99");
    done(keepers, &Entry::Drain { brick: to, on: true });
    refused(
        keepers,
        &Entry::Wish { partition, wish: Some(Wish::Move { from, to }) },
        "is being emptied",
    );
}

#[test]
fn taking_a_wish_back_ends_its_copy_and_so_does_emptying_its_brick() {
    for drain in [false, true] {
        let mut world = cluster(4);
        let (partition, from, to) = movable(&world);
        let before = world.keepers.group(partition).unwrap().replicas.members.clone();
        // The copy cannot end while the two do not reach each other.
        for other in 0..4 {
            world.cuts.insert((other.min(to as usize - 1), other.max(to as usize - 1)));
        }
        wish(&mut world, partition, Some(Wish::Move { from, to }));
        let copying =
            |world: &World| !world.keepers.group(partition).unwrap().replicas.learners.is_empty();
        world.plan();
        world.settle();
        assert!(copying(&world));
        let entry = if drain {
            Entry::Drain { brick: to, on: true }
        } else {
            Entry::Wish { partition, wish: None }
        };
        assert!(world.propose(&entry));
        assert!(!copying(&world));
        let group = world.keepers.group(partition).unwrap();
        assert_eq!((group.wish, &group.replicas.members), (None, &before));
        let said = &world.keepers.notes().last().unwrap().text;
        let why = if drain { "is being emptied" } else { "it was taken back" };
        assert!(said.ends_with(why), "{said}");
        world.converge();
    }
}

#[test]
fn the_overview_tells_who_is_there_and_what_is_under_way() {
    let mut world = cluster(4);
    let (partition, from, to) = movable(&world);
    world.crash(3, false);
    world.run(2_000);
    let view = |world: &World| Overview::new(world.now, &world.keepers, &world.leases);
    let seen = view(&world);
    assert_eq!(seen.bricks.iter().map(|b| b.live).collect::<Vec<_>>(), [true, true, true, false]);
    assert_eq!(seen.bricks[3].lease_ms, Some(0));
    assert!(seen.bricks[0].lease_ms.is_some_and(|ms| (300..=550).contains(&ms)), "{seen:?}");
    let (primaries, backups): (u32, u32) =
        seen.bricks.iter().fold((0, 0), |sum, b| (sum.0 + b.primaries, sum.1 + b.backups));
    assert_eq!(primaries, 8);
    assert!((8..16).contains(&backups), "brick 4 is out of its groups: {backups}");
    world.start(3);
    world.converge();

    wish(&mut world, partition, Some(Wish::Move { from, to }));
    world.plan();
    world.settle();
    let incarnation = world.keepers.brick(to).unwrap().incarnation;
    for (second, passed) in [(0, 0), (1, 10), (2, 30)] {
        world.now += u64::from(second > 0) * 1_000 * MS;
        let figure = CopyFigure {
            partition,
            copied_bytes: passed << 20,
            passed_bytes: passed << 20,
            total_bytes: 100 << 20,
        };
        let heartbeat = Heartbeat {
            brick: to,
            incarnation,
            copies: vec![figure],
            pid: 7,
            ..Heartbeat::default()
        };
        world.leases.heartbeat(world.now, &world.keepers, &heartbeat);
    }
    let seen = view(&world);
    assert_eq!(seen.wishes.len(), 1);
    let [copy] = &seen.copies[..] else { panic!("{seen:?}") };
    assert_eq!((copy.partition, copy.to, copy.kind), (partition, to, CopyKind::Move));
    assert_eq!((copy.bytes_per_s, copy.left_ms), (20 << 20, Some(3_500)));
    assert_eq!(seen.bricks[to as usize - 1].pid, Some(7));
    assert_eq!(seen.bricks[to as usize - 1].learners, 1);
}

/// Seen on two bricks: while a large partition was under way one way, small ones went the other way and back, without end.
#[test]
fn what_balance_moves_beside_a_long_copy_stays_where_it_went() {
    let mut world = World::new(2);
    assert!(world.create("t", options(8, 1)));
    world.converge();
    let held = world.keepers.groups().find(|(_, group)| group.replicas.position(1) == Some(0));
    let partition = held.unwrap().0;
    world.slow.insert(partition);
    wish(&mut world, partition, Some(Wish::Move { from: 1, to: 2 }));
    world.applied.clear();
    world.run(30_000);
    let copies = world.applied.iter().filter(|e| matches!(e, Entry::NameLearner { .. })).count();
    assert!(copies <= 2, "{copies} copies for one wish");
    world.slow.clear();
    world.converge();
    assert_eq!(holds(&world, partition, 2), Some(0));
}
