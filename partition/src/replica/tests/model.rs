//! Random operations, crashes, cleaning and the passing of time, against a map.

use std::collections::BTreeMap;

use firebrick_log::Durability;
use proptest::collection::vec;
use proptest::prelude::*;

use super::World;
use crate::op::{Answer, Condition, ExpireWhen, Expiry, Failure, Op, Version, packed_keys};

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, len: u16, expiry: u8, condition: u8, want_old: bool },
    Number { key: u8, value: i64 },
    Remove { key: u8, condition: u8, want_old: bool },
    Increment { key: u8, by: i64 },
    Append { key: u8, len: u8 },
    SetRange { key: u8, offset: u8, len: u8 },
    Expire { key: u8, after: u16, when: [bool; 4] },
    Get { key: u8 },
    Clear,
    Pass { ms: u16 },
    Clean,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..24u8;
    prop_oneof![
        12 => (key(), 0..900u16, 0..6u8, 0..6u8, any::<bool>()).prop_map(
            |(key, len, expiry, condition, want_old)| Step::Put { key, len, expiry, condition, want_old }),
        4 => (key(), any::<i64>()).prop_map(|(key, value)| Step::Number { key, value }),
        6 => (key(), 0..6u8, any::<bool>())
            .prop_map(|(key, condition, want_old)| Step::Remove { key, condition, want_old }),
        4 => (key(), -100..i64::MAX).prop_map(|(key, by)| Step::Increment { key, by }),
        3 => (key(), any::<u8>()).prop_map(|(key, len)| Step::Append { key, len }),
        3 => (key(), any::<u8>(), 0..9u8).prop_map(|(key, offset, len)| Step::SetRange { key, offset, len }),
        4 => (key(), 0..300u16, any::<[bool; 4]>())
            .prop_map(|(key, after, when)| Step::Expire { key, after, when }),
        8 => key().prop_map(|key| Step::Get { key }),
        1 => Just(Step::Clear),
        3 => (0..200u16).prop_map(|ms| Step::Pass { ms }),
        2 => Just(Step::Clean),
        2 => Just(Step::Crash),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: Vec<u8>,
    expires_ms: u64,
    version: Version,
}

type Model = BTreeMap<Vec<u8>, Held>;

fn condition(which: u8, current: Option<&Held>) -> (Condition, bool) {
    match which {
        0 => (Condition::Absent, current.is_none()),
        1 => (Condition::Present, current.is_some()),
        2 => match current {
            Some(held) => (Condition::Version(held.version), true),
            None => (Condition::Version(Version { epoch: 1, seq: 1 }), false),
        },
        3 => (Condition::Version(Version { epoch: 9999, seq: 9 }), false),
        _ => (Condition::Always, true),
    }
}

fn write(
    world: &mut World,
    model: &mut Model,
    key: &[u8],
    op: Op<'_>,
    after: Option<(Vec<u8>, u64)>,
) -> Version {
    let answer = world.get(key, op);
    let version = match answer.get() {
        Answer::Done { version }
        | Answer::Old { applied: true, version, .. }
        | Answer::Integer { version, .. }
        | Answer::Length { version, .. } => version,
        other => panic!("{op:?}: {other:?}"),
    };
    match after {
        Some((value, expires_ms)) => {
            model.insert(key.to_vec(), Held { value, expires_ms, version });
        }
        None => {
            model.remove(key);
        }
    }
    version
}

fn check_old(answer: &Answer<'_>, current: Option<&Held>, applied: bool) {
    let Answer::Old { applied: a, existed, value, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((*a, *existed), (applied, current.is_some()));
    assert_eq!(*value, current.map_or(&[][..], |c| &c.value[..]));
}

#[allow(clippy::needless_pass_by_value)] // spent by it
fn run(world: &mut World, model: &mut Model, n: usize, step: Step) {
    let name = |key: u8| format!("key{key}").into_bytes();
    let now = world.now.unix_ms;
    model.retain(|_, held| held.expires_ms == 0 || held.expires_ms > now);
    match step {
        Step::Put { key, len, expiry, condition: which, want_old } => {
            let (key, value) = (name(key), vec![n as u8; usize::from(len)]);
            let current = model.get(&key).cloned();
            let (condition, holds) = condition(which, current.as_ref());
            let (expiry, expires_ms) = match expiry {
                0 => (Expiry::Keep, current.as_ref().map_or(0, |c| c.expires_ms)),
                1 => (Expiry::At(now + 100), now + 100),
                _ => (Expiry::Never, 0),
            };
            let op = Op::Put { value: &value, expiry, condition, want_old };
            let answer = world.get(&key, op);
            if want_old {
                check_old(&answer.get(), current.as_ref(), holds);
            }
            match answer.get() {
                Answer::Done { version } | Answer::Old { applied: true, version, .. } => {
                    assert!(holds);
                    assert!(current.is_none_or(|c| c.version < version));
                    model.insert(key, Held { value, expires_ms, version });
                }
                Answer::Refused { current: v } | Answer::Old { applied: false, version: v, .. } => {
                    assert!(!holds);
                    assert_eq!(v, current.map_or(Version::default(), |c| c.version));
                }
                other => panic!("{other:?}"),
            }
        }
        Step::Number { key, value } => {
            let (key, text) = (name(key), value.to_string().into_bytes());
            let op = Op::Put {
                value: &text,
                expiry: Expiry::Never,
                condition: Condition::Always,
                want_old: false,
            };
            write(world, model, &key, op, Some((text.clone(), 0)));
        }
        Step::Remove { key, condition: which, want_old } => {
            let key = name(key);
            let current = model.get(&key).cloned();
            let (condition, holds) = condition(which, current.as_ref());
            let applied = holds && current.is_some();
            let answer = world.get(&key, Op::Remove { condition, want_old });
            match answer.get() {
                Answer::Done { .. } => assert!(applied),
                Answer::Absent => assert!(current.is_none() && holds),
                Answer::Refused { .. } => assert!(!holds),
                old => check_old(&old, current.as_ref(), applied),
            }
            if applied {
                model.remove(&key);
            }
        }
        Step::Increment { key, by } => increment(world, model, &name(key), by),
        Step::Append { key, len } => {
            let (key, more) = (name(key), vec![n as u8; usize::from(len)]);
            let (mut value, expires_ms) =
                model.get(&key).map_or((Vec::new(), 0), |c| (c.value.clone(), c.expires_ms));
            value.extend_from_slice(&more);
            write(world, model, &key, Op::Append { value: &more }, Some((value, expires_ms)));
        }
        Step::SetRange { key, offset, len } => {
            let (key, over) = (name(key), vec![n as u8; usize::from(len)]);
            let current = model.get(&key).cloned();
            let op = Op::SetRange { offset: u32::from(offset), value: &over };
            if over.is_empty() {
                let len = current.map_or(0, |c| c.value.len() as u64);
                let got = world.get(&key, op);
                assert!(matches!(got.get(), Answer::Length { len: l, .. } if l == len));
                return;
            }
            let (mut value, expires_ms) =
                current.map_or((Vec::new(), 0), |c| (c.value, c.expires_ms));
            let start = usize::from(offset);
            value.resize(value.len().max(start + over.len()), 0);
            value[start..start + over.len()].copy_from_slice(&over);
            write(world, model, &key, op, Some((value, expires_ms)));
        }
        Step::Expire { key, after, when } => expire(world, model, &name(key), after, when),
        Step::Get { key } => check(world, model, &name(key)),
        Step::Clear => {
            assert!(matches!(world.get(b"", Op::Clear).get(), Answer::Done { .. }));
            model.clear();
        }
        Step::Pass { ms } => world.now.unix_ms += u64::from(ms),
        Step::Clean => world.clean(),
        Step::Crash => world.crash(),
    }
}

fn increment(world: &mut World, model: &mut Model, key: &[u8], by: i64) {
    let current = model.get(key).cloned();
    let old = match &current {
        None => Some(0),
        Some(held) => {
            let text = std::str::from_utf8(&held.value).ok();
            text.and_then(|t| t.parse::<i64>().ok().filter(|n| n.to_string() == t))
        }
    };
    let expires_ms = current.map_or(0, |c| c.expires_ms);
    match old.map(|old| old.checked_add(by)) {
        None => assert_eq!(
            world.get(key, Op::Increment { by }).get(),
            Answer::Failed(Failure::NotInteger)
        ),
        Some(None) => {
            assert_eq!(
                world.get(key, Op::Increment { by }).get(),
                Answer::Failed(Failure::Overflow)
            );
        }
        Some(Some(new)) => {
            let text = new.to_string().into_bytes();
            write(world, model, key, Op::Increment { by }, Some((text, expires_ms)));
        }
    }
}

fn expire(
    world: &mut World,
    model: &mut Model,
    key: &[u8],
    after: u16,
    [nx, xx, gt, lt]: [bool; 4],
) {
    let now = world.now.unix_ms;
    // 0: persist; small: in the past.
    let at_ms = if after == 0 { 0 } else { now + u64::from(after) - 50 };
    let op = Op::Expire { at_ms, when: ExpireWhen { nx, xx, gt, lt } };
    let Some(held) = model.get(key).cloned() else {
        assert_eq!(world.get(key, op).get(), Answer::Absent);
        return;
    };
    let has = held.expires_ms != 0;
    let infinite = |ms| if ms == 0 { u64::MAX } else { ms };
    let (new, old) = (infinite(at_ms), infinite(held.expires_ms));
    #[allow(clippy::nonminimal_bool)] // a line for each reason
    let refused = (at_ms == 0 && !has)
        || (nx && has)
        || (xx && !has)
        || (gt && new <= old)
        || (lt && new >= old);
    if refused {
        assert_eq!(world.get(key, op).get(), Answer::Refused { current: held.version });
    } else if at_ms != 0 && at_ms <= now {
        write(world, model, key, op, None);
    } else {
        write(world, model, key, op, Some((held.value, at_ms)));
    }
}

fn check(world: &mut World, model: &Model, key: &[u8]) {
    let got = world.get(key, Op::Get);
    match (got.get(), model.get(key)) {
        (Answer::Absent, None) => {}
        (Answer::Value { value, version, expires_ms }, Some(held)) => {
            assert_eq!(
                (value, version, expires_ms),
                (&held.value[..], held.version, held.expires_ms)
            );
        }
        (got, expected) => panic!("{got:?}, not {expected:?}"),
    }
}

fn check_all(world: &mut World, model: &mut Model) {
    let now = world.now.unix_ms;
    model.retain(|_, held| held.expires_ms == 0 || held.expires_ms > now);
    for key in 0..24u8 {
        check(world, model, format!("key{key}").as_bytes());
    }
    let (mut keys, mut cursor) = (Vec::new(), 0);
    loop {
        let answer = world.get(b"", Op::Scan { cursor, count: 3 });
        let Answer::Keys { cursor: next, packed } = answer.get() else { panic!("no keys") };
        keys.extend(packed_keys(packed).map(<[u8]>::to_vec));
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    keys.sort_unstable();
    assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>());
    let random = world.get(b"", Op::RandomKey { cursor: 0x1234_5678_9abc_def0 });
    match random.get() {
        Answer::Key { key } => assert!(model.contains_key(key)),
        other => assert!(other == Answer::Absent && model.is_empty(), "{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_replica_is_a_map_through_crashes_and_cleaning(steps in vec(step(), 1..400)) {
        let mut world = World::new(Durability::Memory);
        let mut model = Model::new();
        for (n, step) in steps.into_iter().enumerate() {
            run(&mut world, &mut model, n, step);
            if n % 16 == 0 {
                super::counts::recount(&mut world.replica);
            }
        }
        check_all(&mut world, &mut model);
        world.crash();
        check_all(&mut world, &mut model);
        world.clean();
        check_all(&mut world, &mut model);
        prop_assert!(world.replica.keys() >= model.len() as u64);
    }
}
