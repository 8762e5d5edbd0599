//! Values and sessions whose time passes while records are under way and groups change.

use super::net::{Net, put, put_until};
use super::*;
use crate::op::{Answer, RequestId, SessionId};
use crate::replica::{Reads, WAITING_BYTES_MAX};
use crate::sessions::IDLE_NS;

fn increment(net: &mut Net, brick: u32, session: SessionId, number: u32) -> Option<i64> {
    let op = Op::Increment { by: 1 };
    let id = RequestId { session, number };
    let token = net.ask(brick, b"n", op, Some(Numbered { id, answered_to: number - 1 }));
    net.settle();
    match net.answer(token) {
        Some(Answer::Integer { value, .. }) => Some(value),
        _ => None,
    }
}

#[test]
fn a_session_that_another_primary_served_is_not_idle_here() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    let Answer::Session { session } = net.get(1, b"", Op::OpenSession { client: 9 }).get() else {
        panic!("no session")
    };
    for number in 1..20 {
        assert_eq!(increment(&mut net, 1, session, number), Some(i64::from(number)));
        net.pass(IDLE_NS / 10);
        net.clean(1);
        net.clean(2);
    }
    net.crash(1, true);
    net.leaves(1);
    net.tell(2);
    net.settle();
    net.clean(2);
    net.settle();
    // A retry of the last one, then a new one.
    assert_eq!(increment(&mut net, 2, session, 19), Some(19));
    assert_eq!(increment(&mut net, 2, session, 20), Some(20));
    net.pass(IDLE_NS + 1);
    net.clean(2);
    net.settle();
    assert_eq!(increment(&mut net, 2, session, 21), None, "idle sessions end all the same");
}

#[test]
fn a_value_put_behind_a_clear_expires() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    net.ask(1, b"", Op::Clear, None);
    let at_ms = net.now.unix_ms + 5_000;
    net.ask(1, b"k", put_until(at_ms), None);
    net.settle();
    assert!(net.value(1, b"k").is_some());
    net.now.unix_ms = at_ms;
    assert_eq!(net.value(1, b"k"), None);
}

#[test]
fn large_values_that_wait_for_their_commit_are_copied_a_few_at_a_time() {
    const VALUE: usize = 1 << 20;
    let mut net = Net::new(2, 2, 1);
    net.settle();
    net.ask(1, b"k", put(&vec![7; VALUE]), None);
    let (key, hash, route) = (b"k", hash_key(b"k"), net.replica(1).route());
    let request = Request { route, numbered: None, key, op: Op::Get };
    let reads = 3 * WAITING_BYTES_MAX / VALUE;
    for token in 1_000..1_000 + reads as u64 {
        net.fates.insert(token, super::net::Fate::Open);
        net.with(1, |r, now, out| {
            assert!(matches!(
                r.execute_with(now, token, hash, &request, Reads::Own, out),
                Outcome::Later
            ));
        });
        assert!(net.replica(1).waiters.bytes() <= WAITING_BYTES_MAX + VALUE);
    }
    net.settle();
    for token in 1_000..1_000 + reads as u64 {
        assert!(
            matches!(net.answer(token), Some(Answer::Value { value, .. }) if value.len() == VALUE)
        );
    }
    assert_eq!(net.replica(1).waiters.bytes(), 0);
}
