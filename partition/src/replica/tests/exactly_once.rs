//! A retry never applies twice, whatever happens between the tries.

use std::collections::BTreeMap;

use firebrick_log::{Durability, Log};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Budget, World, config, leaf, route, set_alone};
use crate::op::{Answer, Condition, Expiry, Failure, Numbered, Op, RequestId, SessionId};
use crate::replica::Replica;
use crate::replica::clean::SESSIONS_SLICE;
use crate::sessions::{IDLE_NS, SESSIONS_MAX};

fn open(world: &mut World) -> SessionId {
    match world.get(b"", Op::OpenSession { client: 7 }).get() {
        Answer::Session { session } => session,
        other => panic!("{other:?}"),
    }
}

#[allow(clippy::unnecessary_wraps)] // as a request has it
fn numbered(session: SessionId, number: u32, answered_to: u32) -> Option<Numbered> {
    Some(Numbered { id: RequestId { session, number }, answered_to })
}

fn increment(
    world: &mut World,
    session: SessionId,
    number: u32,
    answered_to: u32,
) -> Answer<'static> {
    let op = Op::Increment { by: 1 };
    let answer = world.ask(b"counter", op, numbered(session, number, answered_to)).expect("now");
    match answer.get() {
        Answer::Integer { value, version } => Answer::Integer { value, version },
        Answer::Failed(failure) => Answer::Failed(failure),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    New,
    Retry(prop::sample::Index),
    Noise(u8),
    Crash,
    Clean,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::New),
        5 => any::<prop::sample::Index>().prop_map(Step::Retry),
        6 => any::<u8>().prop_map(Step::Noise),
        1 => Just(Step::Crash),
        2 => Just(Step::Clean),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A counter is incremented by numbered requests. Any of them comes again at any time: within the
    /// window it gets its first answer, below it "in doubt", and the counter never counts it twice.
    #[test]
    fn duplicates_get_the_first_answer(steps in vec(step(), 1..300)) {
        let mut world = World::new(Durability::Memory);
        let session = open(&mut world);
        let (mut first, mut next) = (BTreeMap::new(), 1u32);
        for step in steps {
            match step {
                Step::New => {
                    // The client confirms answers late, so that the last 20 may be asked for again.
                    let confirmed = next.saturating_sub(21);
                    let answer = increment(&mut world, session, next, confirmed);
                    let count = first.len() as i64 + 1;
                    let right = matches!(answer, Answer::Integer { value, .. } if value == count);
                    prop_assert!(right, "{:?}", answer);
                    first.insert(next, answer);
                    next += 1;
                }
                Step::Retry(index) if next > 1 => {
                    let number = index.index(next as usize - 1) as u32 + 1;
                    let again = increment(&mut world, session, number, 0);
                    let allowed = again == first[&number] || again == Answer::Failed(Failure::InDoubt);
                    prop_assert!(allowed, "{}: {:?}, not {:?}", number, again, first[&number]);
                    if number + 20 >= next {
                        prop_assert_eq!(again, first[&number]);
                    }
                }
                Step::Noise(n) => {
                    let value = vec![n; 500];
                    let op = Op::Put { value: &value, expiry: Expiry::Never,
                        condition: Condition::Always, want_old: false };
                    world.get(&[n % 5], op);
                }
                Step::Crash => world.crash(),
                Step::Clean => world.clean(),
                Step::Retry(_) => {}
            }
        }
        match world.get(b"counter", Op::Get).get() {
            Answer::Value { value, .. } => prop_assert_eq!(value.to_vec(), first.len().to_string().into_bytes()),
            _ => prop_assert!(first.is_empty()),
        }
    }
}

/// A store that overwrites a few keys is nearly all dead: however large its `Sessions` record grows, and however
/// often a copy has it written down, cleaning finds the room for the next one.
#[test]
fn what_sessions_say_does_not_fill_a_store() {
    let mut cfg = config(Durability::Memory);
    cfg.bytes_max = 80 << 10;
    let mut world = World::new(Durability::Memory);
    world.replica = Replica::new(Log::in_heap(cfg), leaf());
    assert!(set_alone(&mut world.replica, world.now, route(1), &mut world.out));
    let sessions: Vec<SessionId> = (0..4).map(|_| open(&mut world)).collect();
    let mut number = 0;
    let mut ask = |world: &mut World, key: u32, op| {
        number += 1;
        // The client confirms late.
        let id = numbered(sessions[number as usize % 4], number, number.saturating_sub(700));
        world.ask(&key.to_le_bytes(), op, id).expect("at once")
    };
    let put = Op::Put {
        value: &[7; 100],
        expiry: Expiry::Never,
        condition: Condition::Always,
        want_old: false,
    };
    let remove = Op::Remove { condition: Condition::Always, want_old: false };
    for round in 0..20 {
        let mut key = 0;
        while ask(&mut world, key, put).get() != Answer::Failed(Failure::NoSpace) {
            key = (key + 1) % 20;
        }
        for key in 0..20 {
            ask(&mut world, key, remove);
            // As the source of a copy does.
            while world.replica.write_sessions() == Ok(false) {}
        }
        world.clean();
        assert!(!world.replica.log().is_full(), "round {round}: cleaning made no room");
    }
}

/// A power failure takes records along, and others get their sequence numbers. A client that outlived it must not share
/// a window with one whose session was opened since: each would get the other's answers for writes that were never done.
#[test]
fn a_session_that_a_loss_took_along_is_not_given_again() {
    let mut world = World::new(Durability::Memory);
    let lost = open(&mut world);
    world.replica = Replica::new(Log::in_heap(config(Durability::Memory)), leaf());
    world.epoch += 1;
    let epoch = route(world.epoch);
    assert!(set_alone(&mut world.replica, world.now, epoch, &mut world.out));
    let session = open(&mut world);
    assert_ne!(session, lost);
    assert_eq!(increment(&mut world, lost, 1, 0), Answer::Failed(Failure::InDoubt));
    assert!(matches!(increment(&mut world, session, 1, 0), Answer::Integer { value: 1, .. }));
}

#[test]
fn a_refusal_is_remembered_too() {
    let mut world = World::new(Durability::Memory);
    let session = open(&mut world);
    let put = |value| Op::Put {
        value,
        expiry: Expiry::Never,
        condition: Condition::Absent,
        want_old: false,
    };
    world.get(b"k", put(b"theirs"));
    let refused = world.ask(b"k", put(b"mine"), numbered(session, 1, 0)).unwrap();
    assert!(matches!(refused.get(), Answer::Refused { .. }));
    world.get(b"k", Op::Remove { condition: Condition::Always, want_old: false });
    // The late duplicate of the refused try must not apply now that the key is absent.
    let again = world.ask(b"k", put(b"mine"), numbered(session, 1, 0)).unwrap();
    assert_eq!(again.get(), refused.get());
    assert_eq!(world.get(b"k", Op::Get).get(), Answer::Absent);
}

#[test]
fn what_is_not_in_a_window_is_in_doubt_and_never_applied() {
    let mut world = World::new(Durability::Memory);
    let session = open(&mut world);
    let unknown = SessionId { opened: session.opened + 1, ..session };
    let doubt = Answer::Failed(Failure::InDoubt);
    assert_eq!(increment(&mut world, unknown, 1, 0), doubt);
    assert_eq!(increment(&mut world, session, 0, 0), doubt);
    // Requests 2..=65 answered while 1 is not: 1 is still in the window, and is new.
    for n in 2..=64 {
        increment(&mut world, session, n, 0);
    }
    assert!(matches!(increment(&mut world, session, 1, 0), Answer::Integer { value: 64, .. }));
    // 65 says that 1 was answered; the late duplicate of 1 is in doubt, also after a crash.
    increment(&mut world, session, 65, 1);
    assert_eq!(increment(&mut world, session, 1, 0), doubt);
    world.crash();
    assert_eq!(increment(&mut world, session, 1, 0), doubt);
    // Ended by the client.
    assert!(matches!(world.get(b"", Op::EndSession { session }).get(), Answer::Done { .. }));
    assert_eq!(increment(&mut world, session, 66, 65), doubt);
    world.crash();
    assert_eq!(increment(&mut world, session, 66, 65), doubt);
    assert!(matches!(world.get(b"counter", Op::Get).get(), Answer::Value { value: b"65", .. }));
}

#[test]
fn an_idle_session_ends_by_a_record() {
    let mut world = World::new(Durability::Memory);
    let (idle, busy) = (open(&mut world), open(&mut world));
    world.now.boot_ns += IDLE_NS - 1;
    increment(&mut world, busy, 1, 0);
    world.clean();
    assert_eq!(world.replica.stats().sessions, 2);
    world.now.boot_ns += 1;
    world.clean();
    assert_eq!(world.replica.stats().sessions, 1);
    world.crash();
    assert_eq!(increment(&mut world, idle, 1, 0), Answer::Failed(Failure::InDoubt));
    assert!(matches!(increment(&mut world, busy, 2, 1), Answer::Integer { value: 2, .. }));
}

#[test]
fn past_the_cap_the_longest_idle_session_makes_room() {
    let mut world = World::new(Durability::Memory);
    let first = open(&mut world);
    world.now.boot_ns += 1;
    for _ in 1..SESSIONS_MAX {
        open(&mut world);
    }
    let busy = world.get(b"", Op::OpenSession { client: 1 });
    assert_eq!(busy.get(), Answer::Failed(Failure::Busy));
    world.now.boot_ns += crate::sessions::IDLE_LEAST_NS;
    open(&mut world);
    assert_eq!(world.replica.stats().sessions as usize, SESSIONS_MAX);
    assert_eq!(increment(&mut world, first, 1, 0), Answer::Failed(Failure::InDoubt));
}

/// The session's beginning lies in a segment that lives, its request and its end in one that is cleaned
/// away: the session must not come back, or the late duplicate would apply again.
#[test]
fn an_ended_session_stays_ended_when_its_end_is_cleaned_away() {
    let mut world = World::new(Durability::Memory);
    let session = open(&mut world);
    for n in 0..40u8 {
        let value = [n; 500];
        world.get(&[b'l', n], put(&value));
    }
    assert!(matches!(increment(&mut world, session, 1, 0), Answer::Integer { value: 1, .. }));
    world.get(b"", Op::EndSession { session });
    world.get(b"counter", Op::Increment { by: 1 });
    for n in 0..200u8 {
        let value = [n; 500];
        world.get(b"noise", put(&value));
        world.clean();
    }
    world.crash();
    assert_eq!(increment(&mut world, session, 1, 0), Answer::Failed(Failure::InDoubt));
    assert!(matches!(world.get(b"counter", Op::Get).get(), Answer::Value { value: b"2", .. }));
    // And once more: what was rebuilt must lead to the same.
    for n in 0..200u8 {
        let value = [n; 500];
        world.get(b"noise", put(&value));
        world.clean();
    }
    world.crash();
    assert_eq!(increment(&mut world, session, 1, 0), Answer::Failed(Failure::InDoubt));
}

/// What many sessions were answered is written down a few sessions a slice, while requests go on. A kill
/// between two slices, and one when cleaning has taken the requests' records away, forget nothing.
#[test]
fn sessions_are_written_down_a_slice_at_a_time() {
    let mut world = World::new(Durability::Memory);
    let sessions: Vec<SessionId> = (0..100).map(|_| open(&mut world)).collect();
    let (mut count, mut first) = (0, BTreeMap::new());
    let mut ask = |world: &mut World, at: usize, number: u32| {
        count += 1;
        let answer = increment(world, sessions[at], number, 0);
        assert!(matches!(answer, Answer::Integer { value, .. } if value == count), "{answer:?}");
        first.insert((at, number), answer);
    };
    for number in 1..=20 {
        for at in 0..sessions.len() {
            ask(&mut world, at, number);
        }
    }
    let budget = Budget { clean_bytes: 1, expire_entries: 0, idle: true };
    let slices = sessions.len().div_ceil(SESSIONS_SLICE);
    let mut number = 20;
    for killed_after in [2, slices] {
        for slice in 1..=killed_after {
            world.replica.tick(world.now, budget, &mut world.out);
            let record = &world.replica.sessions_record;
            let written = (record.draft.is_some(), record.loc.is_some());
            assert_eq!(written, (slice < slices, slice == slices), "slice {slice}");
            number += 1;
            ask(&mut world, number as usize, number);
        }
        if killed_after < slices {
            world.crash();
        }
    }
    for _ in 0..50 {
        world.clean();
    }
    assert!(world.replica.stats().log.freed_bytes > 100 << 10);
    world.crash();
    for ((at, number), answer) in first {
        assert_eq!(increment(&mut world, sessions[at], number, 0), answer, "{at}, {number}");
    }
}

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}
