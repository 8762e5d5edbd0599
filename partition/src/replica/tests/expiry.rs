//! What is gone stays gone, whoever leads and whatever its clock says; what lives on is never said to be gone.

use super::net::{Fate, Net, put, put_if_absent, put_until};
use crate::op::{Answer, Condition, ExpireWhen, Op};

const LIFE_MS: u64 = 60_000;

/// A group of three, and when a value put now ends.
fn begin() -> (Net, u64) {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    let at_ms = net.now.unix_ms + LIFE_MS;
    (net, at_ms)
}

/// Another brick leads, whose clock says that it is earlier. What it has of the key.
fn value_at_next(mut net: Net, at_ms: u64) -> Option<Vec<u8>> {
    let mut group = net.group.clone();
    group.members.rotate_left(1);
    net.change(group);
    net.tell_all();
    net.settle();
    net.now.unix_ms = at_ms - LIFE_MS / 2;
    net.value(2, b"k")
}

#[test]
fn a_value_that_commits_behind_the_walk_for_expired_ones_expires() {
    for n in 0..40u8 {
        let (mut net, at_ms) = begin();
        for other in 0..200u32 {
            net.get(1, &other.to_le_bytes(), put(b"v"));
        }
        // The walk begins while it is prepared, and comes past its place before it commits.
        let token = net.ask(1, &[n], put_until(at_ms), None);
        net.with(1, |r, now, out| r.tick(now, crate::replica::Budget::default(), out));
        net.settle();
        assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
        for _ in 0..10 {
            net.clean(1);
        }
        net.now.unix_ms = at_ms;
        assert_eq!(net.value(1, &[n]), None, "key {n}");
    }
}

#[test]
fn a_key_that_is_being_made_to_live_on_is_not_gone() {
    let (mut net, at_ms) = begin();
    net.get(1, b"k", put_until(at_ms));
    net.now.unix_ms = at_ms - 1;
    let when = ExpireWhen::default();
    let longer = net.ask(1, b"k", Op::Expire { at_ms: at_ms + LIFE_MS, when }, None);
    net.now.unix_ms = at_ms;
    let read = net.ask(1, b"k", Op::Get, None);
    assert!(matches!(net.fates[&read], Fate::Open), "it is said before it is decided");
    net.settle();
    assert!(matches!(net.answer(longer), Some(Answer::Done { .. })));
    assert!(matches!(net.answer(read), Some(Answer::Value { .. })));
}

#[test]
fn whoever_was_told_that_a_prepared_value_expired_is_right_for_ever() {
    let remove = Op::Remove { condition: Condition::Always, want_old: false };
    let persist = Op::Expire { at_ms: 0, when: ExpireWhen::default() };
    for look in [remove, persist] {
        let (mut net, at_ms) = begin();
        net.ask(1, b"k", put_until(at_ms), None);
        net.now.unix_ms = at_ms;
        let token = net.ask(1, b"k", look, None);
        net.settle();
        assert!(matches!(net.answer(token), Some(Answer::Absent)));
        assert_eq!(value_at_next(net, at_ms), None, "{look:?}");
    }
}

#[test]
fn what_takes_the_place_of_an_expired_value_is_not_expired_with_it() {
    let (mut net, at_ms) = begin();
    net.get(1, b"k", put_until(at_ms));
    net.now.unix_ms = at_ms;
    let write = net.ask(1, b"k", put_if_absent(b"new"), None);
    let read = net.ask(1, b"k", Op::Get, None);
    net.settle();
    assert!(matches!(net.answer(write), Some(Answer::Done { .. })));
    assert!(matches!(net.answer(read), Some(Answer::Value { value: b"new", .. })));
    assert_eq!(value_at_next(net, at_ms).as_deref(), Some(&b"new"[..]));
}
