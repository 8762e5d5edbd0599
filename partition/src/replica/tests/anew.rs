//! Copies that cannot go on as they began: no room at the learner, or too much was forgotten at the source.

use super::copies::{key, peer, until_member};
use super::net::{Net, REMOVE, Sent, put};
use crate::replica::Report;
use crate::wire::peer::Peer;

/// Brick 2 is named a learner of more than it has room for.
fn learner_without_room() -> Net {
    let mut net = Net::new(2, 1, 3);
    net.settle();
    for n in 0..600 {
        net.ask(1, &key(n), put(&[1; 900]), None);
    }
    net.settle();
    let mut cfg = super::config(firebrick_log::Durability::Memory);
    cfg.bytes_max = 256 << 10;
    let small = crate::replica::Replica::new(firebrick_log::Log::in_heap(cfg), super::leaf());
    net.bricks.get_mut(&2).unwrap().replica = Some(small);
    net.learns(2);
    net.tell_all();
    net
}

/// It has room for what is written meanwhile, and votes for that: this does not hide that the copy stands still.
#[test]
fn a_learner_without_room_for_the_copy_is_reported_until_it_is_dropped() {
    let mut net = learner_without_room();
    for round in 0..10 {
        net.reports.clear();
        for _ in 0..10 {
            net.ask(1, b"written", put(b"meanwhile"), None);
            while net.step() {}
            net.pass(20_000_000);
        }
        let epoch = net.group.epoch;
        let silent = Report::Silent { partition: super::leaf().partition, epoch, brick: 2 };
        assert!(net.reported(silent), "round {round}");
    }
}

/// What is there of the first try may be all that takes the room, and nothing is cleaned before a copy is whole.
#[test]
fn a_learner_that_had_no_room_begins_with_nothing() {
    let mut net = learner_without_room();
    net.settle();
    assert!(net.replica(2).copying().is_some() && net.replica(2).log().room_bytes() == 0);
    // It is dropped, most goes, and it is named again in a newer epoch.
    let group = net.group.clone();
    net.group.learners.clear();
    net.tell(1);
    for n in 10..600 {
        net.ask(1, &key(n), REMOVE, None);
    }
    net.settle_without(2);
    assert_eq!(net.replica(1).log().manifest().dropped, 0, "it might go on from what it has");
    net.group.learners = group.learners;
    net.group.epoch += 1;
    net.heal();
    until_member(&mut net, 2);
    net.check_equal();
}

/// Once an epoch: a learner that had no room begins with nothing in the next one. What it was shipped in this one is not
/// shipped again.
#[test]
fn a_comparison_that_comes_again_drops_nothing_at_a_learner_without_room() {
    let mut net = learner_without_room();
    let told =
        |s: &&Sent| s.to == 2 && peer(s, |p| matches!(p, Peer::TakeOver { .. })) == Some(true);
    let again = loop {
        if let Some(sent) = net.sent.iter().find(told) {
            break Sent { bytes: sent.bytes.clone(), ..*sent };
        }
        assert!(net.step(), "it is not told");
    };
    net.ask(1, b"written", put(b"meanwhile"), None);
    net.settle();
    let (tail, used) = (net.replica(2).log().tail(), net.replica(2).log().used_bytes());
    assert_eq!(tail, net.replica(1).log().tail());
    assert_eq!(net.replica(2).log().room_bytes(), 0);
    net.deliver(&again);
    assert_eq!(net.replica(2).log().tail(), tail);
    assert_eq!(net.replica(2).log().used_bytes(), used);
}

/// Executions 11 and 28: a learner cannot go on from what it has, and the primary names it a later first record. What its
/// source listed for the first try lacks the records between the two: it is not taken for the listing of the second.
#[test]
fn a_listing_from_before_a_learner_started_over_is_not_taken_again() {
    starts_over(false);
}

#[test]
fn a_learner_says_that_it_starts_over_until_it_is_heard() {
    starts_over(true);
}

/// `lost`: what the learner says then, the first time.
fn starts_over(lost: bool) {
    let mut net = Net::new(3, 3, 5);
    net.settle();
    net.get(1, &key(1), put(b"old"));
    net.leaves(3);
    net.heal();
    let have = net.replica(3).log().commit();
    net.get(1, &key(1), REMOVE);
    for round in 0..60u32 {
        for n in 0..100u32 {
            net.ask(1, format!("other{n}").as_bytes(), put(&[round as u8; 400]), None);
        }
        net.settle();
        net.clean(2);
    }
    assert!(net.replica(2).log().manifest().dropped > have, "no tombstone was dropped");
    net.learns(3);
    net.tell_all();
    let again = |s: &Sent| peer(s, |p| matches!(p, Peer::Refused { .. })) == Some(true);
    for _ in 0..10_000 {
        if net.sent.iter().any(again) {
            break;
        }
        if !net.step() {
            net.pass(1_000_000);
        }
    }
    assert!(net.sent.iter().any(again), "it went on from what it has");
    net.sent.retain(|sent| !(lost && again(sent)));
    // A write that the source does not hear of until the learner has asked it again.
    net.ask(1, b"late", put(b"late"), None);
    net.poll_all();
    let mut late = Vec::new();
    while !net.sent.is_empty() {
        let (held, rest) = net.sent.drain(..).partition(|s| s.from == 1 && s.to == 2);
        late.extend::<Vec<Sent>>(held);
        net.sent = rest;
        net.step();
    }
    for sent in &late {
        net.deliver(sent);
    }
    until_member(&mut net, 3);
    assert_eq!(net.value(3, b"late").as_deref(), Some(&b"late"[..]));
    net.check_equal();
}
