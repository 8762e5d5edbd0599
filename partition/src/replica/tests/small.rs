//! Single stories: routes, limits, room, damage, expiry.

use firebrick_log::storage::Spare;
use firebrick_log::{Ask, Durability, Log, LogConfig};

use super::{PARTITION, World, config, leaf, route, set_alone};
use crate::hash::hash_key;
use crate::maps::{Leaf, Replicas};
use crate::op::{Answer, Condition, Expiry, Failure, Now, Op, Request, Route};
use crate::replica::held::SLICE_REQUESTS;
use crate::replica::{
    Action, Actions, HELD_MAX, Me, Outcome, OwnedAnswer, Recovering, Replica, Report,
};

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}

fn with_route(world: &mut World, route: Route) -> Answer<'static> {
    let request = Request { route, numbered: None, key: b"k", op: Op::Look };
    let outcome = world.replica.execute(world.now, 1, hash_key(b"k"), &request, &mut world.out);
    match outcome {
        Outcome::Now(Answer::StaleRoute { route }) => Answer::StaleRoute { route },
        Outcome::Now(Answer::Failed(failure)) => Answer::Failed(failure),
        Outcome::Now(Answer::Absent) => Answer::Absent,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_request_is_checked_for_its_route() {
    let mut world = World::new(Durability::Memory);
    world.crash();
    assert_eq!(with_route(&mut world, route(2)), Answer::Absent);
    let current = Answer::StaleRoute { route: route(2) };
    assert_eq!(with_route(&mut world, route(1)), current);
    assert_eq!(with_route(&mut world, Route { fingerprint: 1, ..route(2) }), current);
    assert_eq!(with_route(&mut world, route(3)), Answer::Failed(Failure::RouteTooNew));
    let other = Route { partition: PARTITION + 1, ..route(2) };
    assert_eq!(with_route(&mut world, other), Answer::Failed(Failure::WrongPartition));
}

#[test]
fn a_key_of_another_partition_is_refused() {
    let hash = hash_key(b"k");
    let leaf = Leaf { depth: 1, suffix: (!hash & 1) as u32, partition: PARTITION };
    let mut replica = Replica::new(Log::in_heap(config(Durability::Memory)), leaf);
    let (now, mut out) = (Now::default(), Actions::default());
    assert!(set_alone(&mut replica, now, route(1), &mut out));
    for op in [Op::Get, put(b"v")] {
        let request = Request { route: route(1), numbered: None, key: b"k", op };
        let outcome = replica.execute(now, 1, hash, &request, &mut out);
        assert_eq!(outcome, Outcome::Now(Answer::Failed(Failure::WrongPartition)));
    }
}

#[test]
fn nothing_is_served_before_the_epoch_begins() {
    let mut replica = Replica::new(Log::in_heap(config(Durability::Memory)), leaf());
    let request = Request { route: replica.route(), numbered: None, key: b"k", op: Op::Get };
    let mut out = Actions::default();
    let outcome = replica.execute(Now::default(), 1, hash_key(b"k"), &request, &mut out);
    assert_eq!(outcome, Outcome::Now(Answer::Failed(Failure::Unavailable)));
}

#[test]
fn keys_and_values_have_limits() {
    let mut world = World::new(Durability::Memory);
    let too_large = Answer::Failed(Failure::TooLarge);
    let (key, value) = (vec![1; (32 << 10) + 1], vec![1; (8 << 20) + 1]);
    assert_eq!(world.get(&key, put(b"v")).get(), too_large);
    assert_eq!(world.get(b"k", put(&value)).get(), too_large);
    assert!(matches!(world.get(&key[1..], put(&value[1..])).get(), Answer::Done { .. }));
    assert_eq!(world.get(&key[1..], Op::Append { value: b"x" }).get(), too_large);
    let far = Op::SetRange { offset: u32::MAX, value: b"x" };
    assert_eq!(world.get(b"k", far).get(), too_large);
    assert_eq!(world.get(b"k", Op::Get).get(), Answer::Absent);
}

#[test]
fn a_full_store_refuses_writes_and_can_be_emptied() {
    let mut cfg = config(Durability::Memory);
    cfg.bytes_max = 512 << 10;
    let mut world = World::new(Durability::Memory);
    world.replica = Replica::new(Log::in_heap(cfg), leaf());
    assert!(set_alone(&mut world.replica, world.now, route(1), &mut world.out));
    let mut stored = 0u32;
    let full = loop {
        match world.get(&stored.to_le_bytes(), put(&[7; 900])).get() {
            Answer::Done { .. } => stored += 1,
            other => break matches!(other, Answer::Failed(Failure::NoSpace)),
        }
        assert!(stored < 1000, "never full");
    };
    assert!(full && stored > 200, "{stored}");
    for n in 0..stored {
        assert!(matches!(world.get(&n.to_le_bytes(), Op::Look).get(), Answer::Seen { .. }));
    }
    for n in 0..stored {
        let removed = world
            .get(&n.to_le_bytes(), Op::Remove { condition: Condition::Always, want_old: false });
        assert!(matches!(removed.get(), Answer::Done { .. }), "{n}: {:?}", removed.get());
        world.clean();
    }
    let again = world.get(b"k", put(&[7; 900]));
    assert!(matches!(again.get(), Answer::Done { .. }), "{:?}", again.get());
}

/// Found by the simulator: the record that begins an epoch had no room, and who has begun none cleaned nothing.
#[test]
fn a_store_without_any_room_begins_an_epoch() {
    let small = || LogConfig { bytes_max: 512 << 10, ..config(Durability::Memory) };
    let mut world = World::new(Durability::Memory);
    world.replica = Replica::new(Log::in_heap(small()), leaf());
    assert!(set_alone(&mut world.replica, world.now, route(1), &mut world.out));
    let done = |answer: OwnedAnswer| match answer.get() {
        Answer::Done { .. } => true,
        Answer::Failed(Failure::NoSpace) => false,
        other => panic!("{other:?}"),
    };
    let keys = 1_000u32;
    let stored =
        (0..keys).take_while(|n| done(world.get(&n.to_le_bytes(), put(&[7; 900])))).count();
    assert!(stored > 200 && stored < keys as usize, "{stored}");
    // Nothing is cleaned, so that there is no room for a remove either in the end.
    let remove = Op::Remove { condition: Condition::Always, want_old: false };
    let removed =
        (0..stored as u32).take_while(|n| done(world.get(&n.to_le_bytes(), remove))).count();
    assert!(removed > 100 && removed < stored, "{removed} of {stored}: there is room for more");
    let fresh = Replica::new(Log::in_heap(small()), leaf());
    let opened = std::mem::replace(&mut world.replica, fresh).into_log().crash();
    let (log, scan) = Log::open_in_heap(small(), opened);
    world.replica = Replica::open(log, scan, leaf());
    while world.replica.recover_step(world.now, 7) == Recovering::More {}
    world.epoch = world.replica.tail_epoch() + 1;
    set_alone(&mut world.replica, world.now, route(world.epoch), &mut world.out);
    assert!(!world.replica.is_serving(), "its first record had room: this shows nothing");
    for _ in 0..100 {
        world.clean();
    }
    assert!(world.replica.is_serving());
    assert!(done(world.get(b"k", put(&[7; 900]))));
}

#[test]
fn an_expired_key_is_absent_at_once_and_gone_after_a_while() {
    let mut world = World::new(Durability::Memory);
    let at = world.now.unix_ms + 10;
    let op = |value| Op::Put {
        value,
        expiry: Expiry::At(at),
        condition: Condition::Always,
        want_old: false,
    };
    for n in 0..50u8 {
        world.get(&[n], op(b"v"));
    }
    world.now.unix_ms = at - 1;
    assert!(matches!(world.get(&[1], Op::Get).get(), Answer::Value { .. }));
    world.now.unix_ms = at;
    assert_eq!(world.get(&[1], Op::Get).get(), Answer::Absent);
    // The read wrote a remove: a clock set back does not bring the key back.
    world.now.unix_ms = at - 5;
    assert_eq!(world.get(&[1], Op::Get).get(), Answer::Absent);
    world.now.unix_ms = at;
    assert_eq!(world.replica.keys(), 49);
    for _ in 0..20 {
        world.clean();
    }
    assert_eq!((world.replica.keys(), world.replica.stats().expired), (0, 50));
}

/// SCAN hands keys out in the order of their reversed hash, whichever partition they are in, so one
/// cursor goes through all partitions.
#[test]
fn a_scan_goes_on_in_the_next_partition() {
    let (now, mut out) = (Now::default(), Actions::default());
    let mut replicas: Vec<Replica> = [0, 2, 1, 3]
        .map(|suffix| {
            let leaf = Leaf { depth: 2, suffix, partition: PARTITION };
            let mut replica = Replica::new(Log::in_heap(config(Durability::Memory)), leaf);
            assert!(set_alone(&mut replica, now, route(1), &mut Actions::default()));
            replica
        })
        .into();
    let ask = |replica: &mut Replica, key: &[u8], op: Op<'_>, out: &mut Actions| {
        let request = Request { route: route(1), numbered: None, key, op };
        match replica.execute(now, 0, hash_key(key), &request, out) {
            Outcome::Now(Answer::Keys { cursor, packed }) => (cursor, packed.to_vec()),
            Outcome::Now(Answer::Done { .. }) => (0, Vec::new()),
            other => panic!("{other:?}"),
        }
    };
    for n in 0..2000u32 {
        let key = n.to_le_bytes();
        let at = [0, 2, 1, 3][(hash_key(&key) & 3) as usize];
        ask(&mut replicas[at], &key, put(b"v"), &mut out);
    }
    let (mut cursor, mut at, mut hashes) = (0, 0, Vec::new());
    while at < 4 {
        let (next, packed) = ask(&mut replicas[at], b"", Op::Scan { cursor, count: 10 }, &mut out);
        hashes.extend(crate::op::packed_keys(&packed).map(|k| hash_key(k).reverse_bits() >> 50));
        assert!(next == 0 || next > cursor);
        // A cursor of this partition means "from the start" to the next one.
        (cursor, at) = if next == 0 { (cursor, at + 1) } else { (next, at) };
    }
    assert_eq!(hashes.len(), 2000);
}

#[test]
fn a_flipped_bit_is_reported_and_never_served() {
    let mut world = World::new(Durability::Memory);
    for n in 0..20u8 {
        world.get(&[n; 16], put(&[n; 64]));
    }
    let fresh = Replica::new(Log::in_heap(config(Durability::Memory)), leaf());
    let mut opened = std::mem::replace(&mut world.replica, fresh).into_log().crash();
    // In the value of one record, in the key of another.
    let bytes = opened.segments[0].bytes_mut();
    let at = |needle: &[u8], bytes: &[u8]| {
        bytes.windows(needle.len()).position(|w| w == needle).expect("it is there")
    };
    let value = at(&[3; 64], bytes);
    bytes[value + 20] ^= 4;
    world.restart(opened, Durability::Memory);
    let report = world.replica.scan_report().expect("scanned");
    assert_eq!((report.corruptions_total, report.intact), (1, false));
    let told = |a: &Action| matches!(a, Action::Report(Report::Damaged { .. }));
    assert!(world.out.list.iter().any(told));
    // Nobody has more: what is left is all there is.
    world.epoch += 1;
    let me = Me { brick: 1, incarnation: 1 };
    for active in [0, world.epoch] {
        let group = Replicas { active, ..Replicas::alone(world.epoch, 1, 0, 1) };
        world.replica.set_group(world.now, me, route(world.epoch), &group, &mut world.out);
    }
    for n in 0..20u8 {
        let got = world.get(&[n; 16], Op::Get);
        match got.get() {
            Answer::Value { value, .. } => assert!(n != 3 && value == [n; 64]),
            other => assert!(n == 3, "{n}: {other:?}"),
        }
    }
    assert!(!world.out.list.iter().any(|a| matches!(a, Action::Reply { .. })));
}

/// As many writes as may wait for a segment do. When it is there they run in the order in which they
/// came, a slice a turn, and the queue gets shorter although as many come meanwhile.
#[test]
fn held_writes_run_a_slice_at_a_time() {
    let mut log = Log::in_heap(config(Durability::Memory));
    log.ration(1);
    let mut world = World::new(Durability::Memory);
    world.replica = Replica::new(log, leaf());
    assert!(set_alone(&mut world.replica, world.now, route(1), &mut world.out));
    let mut held = 0u64;
    while held < HELD_MAX as u64 {
        held += u64::from(world.ask(b"k", put(&held.to_le_bytes()), None).is_none());
    }
    let refused = world.ask(b"k", put(b"v"), None).expect("no room to wait");
    assert_eq!(refused.get(), Answer::Failed(Failure::Busy));
    world.replica.poll(world.now, &mut world.out);
    assert!(!world.replica.wants_poll(), "nothing can run");
    let want = world.out.list.iter().find_map(|action| match action {
        Action::Log(Ask::Segment(want)) => Some(*want),
        _ => None,
    });
    let want = want.expect("it asks for a segment");
    world.replica.log.ration(usize::MAX);
    let spare = Some(Spare::in_heap(want.bytes));
    world.replica.on_segment(world.now, want, spare, &mut world.out);
    let mut last = 0;
    while world.replica.stats().held > 0 {
        assert!(world.replica.wants_poll() && world.replica.wake_at() == Some(0));
        // Three more while the slice runs: they wait behind the others.
        for _ in 0..3 {
            assert!(world.ask(b"k", put(b"late"), None).is_none());
        }
        let before = world.replica.stats().held as usize;
        world.replica.poll(world.now, &mut world.out);
        let run = before - world.replica.stats().held as usize;
        assert!(run <= SLICE_REQUESTS + 6, "{run} in one slice");
        for (token, answer) in world.replies() {
            assert!(token > last && matches!(answer.get(), Answer::Done { .. }), "{token}");
            last = token;
        }
    }
    assert!(!world.replica.wants_poll());
    assert!(matches!(world.get(b"k", Op::Get).get(), Answer::Value { value: b"late", .. }));
}

/// Nobody is told "absent" before a record says so: another brick's clock may say something else.
#[test]
fn a_read_of_what_expired_is_refused_when_there_is_no_room_to_remove_it() {
    let mut cfg = config(Durability::Memory);
    cfg.bytes_max = 512 << 10;
    let mut world = World::new(Durability::Memory);
    world.replica = Replica::new(Log::in_heap(cfg), leaf());
    assert!(set_alone(&mut world.replica, world.now, route(1), &mut world.out));
    let at = world.now.unix_ms + 10;
    let (expiry, condition) = (Expiry::At(at), Condition::Always);
    world.get(b"k", Op::Put { value: b"v", expiry, condition, want_old: false });
    let full = Answer::Failed(Failure::NoSpace);
    let remove = Op::Remove { condition: Condition::Always, want_old: false };
    let keys = 1_000u32;
    let fits = |world: &mut World, n: u32, op| world.get(&n.to_le_bytes(), op).get() != full;
    let stored = (0..keys).take_while(|n| fits(&mut world, *n, put(&[7; 900]))).count() as u32;
    let removed = (0..stored).take_while(|n| fits(&mut world, *n, remove)).count() as u32;
    assert!(removed < stored && stored < keys, "{removed} of {stored}");
    world.now.unix_ms = at;
    assert_eq!(world.get(b"k", Op::Get).get(), full);
    for _ in 0..100 {
        world.clean();
    }
    assert_eq!(world.get(b"k", Op::Get).get(), Answer::Absent);
}
