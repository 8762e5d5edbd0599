//! Learners: what a copy must bring, what must not come back, and when a vote is required.

use super::net::{Net, REMOVE, Sent, put};
use crate::op::{Answer, Numbered, Op, RequestId, SessionId};
use crate::replica::Report;
use crate::wire::peer::Peer;
use crate::wire::{self, Message};

pub fn key(n: u32) -> Vec<u8> {
    format!("key:{n:05}").into_bytes()
}

/// `count` keys, all of them overwritten once, a third of them removed.
fn fill(net: &mut Net, count: u32) {
    let primary = net.primary();
    for round in 0..2u32 {
        for n in 0..count {
            net.ask(primary, &key(n), put(&[round as u8; 100]), None);
        }
        net.settle();
    }
    for n in (0..count).step_by(3) {
        net.ask(primary, &key(n), REMOVE, None);
    }
    net.settle();
}

fn check(net: &mut Net, brick: u32, count: u32) {
    for n in 0..count {
        let expected = (n % 3 != 0).then(|| vec![1u8; 100]);
        assert_eq!(net.value(brick, &key(n)), expected, "key {n} at {brick}");
    }
}

pub fn peer<T>(sent: &Sent, test: impl Fn(&Peer<'_>) -> T) -> Option<T> {
    match wire::decode(&sent.bytes) {
        Ok(Message::Peer { peer, .. }) => Some(test(&peer)),
        _ => None,
    }
}

fn copies(net: &Net) -> u32 {
    net.group.members.len() as u32
}

/// Until brick 3 is a member.
pub fn until_member(net: &mut Net, brick: u32) {
    for _ in 0..20 {
        net.heal();
        if net.group.members.iter().any(|m| m.brick == brick) {
            net.heal();
            return;
        }
    }
    panic!("brick {brick} was never made a member");
}

#[test]
fn an_empty_learner_is_copied_to_and_becomes_a_member() {
    for members in [1, 2] {
        let mut net = Net::new(3, members, 5);
        net.settle();
        fill(&mut net, 300);
        if members == 2 {
            net.clean(1);
            net.clean(2);
        }
        net.learns(3);
        until_member(&mut net, 3);
        assert_eq!(copies(&net), members + 1);
        check(&mut net, 3, 300);
        net.check_equal();
        // And it may lead.
        let mut group = net.group.clone();
        group.members.reverse();
        net.change(group);
        net.heal();
        check(&mut net, 3, 300);
        assert!(matches!(net.get(3, b"k", put(b"v")).get(), Answer::Done { .. }));
        net.check_equal();
    }
}

#[test]
fn writes_go_on_while_a_learner_is_copied_to() {
    for seed in 1..12 {
        let mut net = Net::new(3, 2, seed);
        net.settle();
        fill(&mut net, 120);
        net.learns(3);
        net.tell_all();
        (net.loss, net.twice, net.shuffle) = (10, 10, 30);
        let mut last = std::collections::BTreeMap::new();
        for n in 0..400u32 {
            let at = n * 7 % 150;
            let primary = net.primary();
            let token = if n % 5 == 0 {
                last.insert(at, None);
                net.ask(primary, &key(at), REMOVE, None)
            } else {
                last.insert(at, Some(n.to_le_bytes().to_vec()));
                net.ask(primary, &key(at), put(&n.to_le_bytes()), None)
            };
            for _ in 0..net.dice.roll(9) {
                net.step();
            }
            net.pass(300_000);
            if net.dice.percent(10) {
                net.clean(1 + n % 2);
            }
            while net.answer(token).is_none() {
                if !net.step() {
                    net.pass(5_000_000);
                }
                let epoch = net.group.epoch;
                if net.replica(primary).route().epoch < epoch {
                    net.tell_all();
                }
            }
            assert!(matches!(net.answer(token), Some(Answer::Done { .. } | Answer::Absent)));
        }
        until_member(&mut net, 3);
        for (at, value) in last {
            assert_eq!(net.value(3, &key(at)), value, "key {at}, seed {seed}");
        }
        net.check_equal();
    }
}

#[test]
fn a_brick_that_is_back_keeps_what_it_had() {
    let mut net = Net::new(3, 3, 5);
    net.settle();
    fill(&mut net, 300);
    // A watermark is as new as the last turn's writes.
    net.get(1, b"k", put(b"v"));
    net.crash(3, true);
    net.leaves(3);
    net.heal();
    net.get(1, &key(1), put(b"new"));
    net.get(1, &key(2), REMOVE);
    net.restart(3);
    net.learns(3);
    net.tell_all();
    let mut copied = 0;
    for _ in 0..20_000 {
        if let Some(sent) = net.sent.first() {
            copied += peer(sent, |p| match p {
                Peer::CopyData { records, .. } => records.len(),
                _ => 0,
            })
            .unwrap_or(0);
        }
        if !net.step() {
            net.pass(1_000_000);
        }
    }
    assert!(copied < 2_000, "{copied} bytes for two changes");
    until_member(&mut net, 3);
    assert_eq!(net.value(3, &key(1)).as_deref(), Some(&b"new"[..]));
    assert_eq!(net.value(3, &key(2)), None);
    assert_eq!(net.value(3, &key(4)), Some(vec![1; 100]));
    net.check_equal();
}

/// What a source passes over because its learner has it is let go with the rest: else it would be kept for ever.
#[test]
fn a_source_keeps_nothing_of_a_copy_that_is_over() {
    let mut net = Net::new(3, 3, 5);
    net.settle();
    fill(&mut net, 2_000);
    net.get(1, b"k", put(b"v"));
    net.crash(3, true);
    net.leaves(3);
    net.heal();
    net.restart(3);
    net.learns(3);
    until_member(&mut net, 3);
    for n in 0..2_000 {
        net.ask(1, &key(n), REMOVE, None);
    }
    net.settle();
    for brick in 1..=3 {
        net.clean(brick);
        assert!(!net.replica(brick).log().pins_hold_room(), "brick {brick} keeps emptied segments");
    }
}

/// Execution 28, and 13: what was removed while a brick was away, and whose tombstone is gone by now.
#[test]
fn a_dropped_tombstone_does_not_bring_its_key_back() {
    let mut net = Net::new(3, 3, 5);
    net.settle();
    fill(&mut net, 100);
    net.crash(3, true);
    net.leaves(3);
    net.heal();
    net.get(1, &key(1), REMOVE);
    // Enough other writes that cleaning passes by, everywhere.
    for round in 0..30u32 {
        for n in 0..100u32 {
            net.ask(1, format!("other{n}").as_bytes(), put(&[round as u8; 400]), None);
        }
        net.settle();
        net.clean(1);
        net.clean(2);
    }
    let dropped =
        net.replica(1).log().manifest().dropped.max(net.replica(2).log().manifest().dropped);
    assert!(dropped > 0, "no tombstone was dropped");
    net.restart(3);
    net.learns(3);
    until_member(&mut net, 3);
    assert_eq!(net.value(3, &key(1)), None);
    net.check_equal();
}

/// Execution 11: a source whose watermark is behind the first record that the learner is shipped.
#[test]
fn a_source_that_is_behind_is_not_copied_from() {
    let mut net = Net::new(3, 2, 5);
    net.settle();
    fill(&mut net, 30);
    // 2 has a record, and has not heard that it is committed; it will not hear from 1 for a while.
    let token = net.ask(1, &key(4), put(b"late"), None);
    net.poll(1);
    while net.answer(token).is_none() {
        net.step();
    }
    net.sent.clear();
    net.learns(3);
    net.tell_all();
    net.cut.push((1, 2));
    let told = net.replica(2).log().commit();
    for _ in 0..400 {
        if !net.step() {
            net.pass(2_000_000);
        }
    }
    assert_eq!(net.replica(2).log().commit(), told, "2 is behind");
    until_member(&mut net, 3);
    assert_eq!(net.value(3, &key(4)).as_deref(), Some(&b"late"[..]));
    net.check_equal();
}

/// Execution 12: a learner restarts half copied, with a high tail.
#[test]
fn a_half_copied_learner_is_never_taken_for_complete() {
    let mut net = Net::new(3, 2, 5);
    net.settle();
    fill(&mut net, 600);
    net.learns(3);
    net.tell_all();
    // Not the last of the copy's answers.
    for _ in 0..400 {
        net.sent.retain(|s| peer(s, |p| matches!(p, Peer::CopyData { left: 0, .. })) != Some(true));
        if !net.step() {
            net.pass(1_000_000);
        }
    }
    assert!(!net.replica(3).log().manifest().complete);
    net.crash(3, true);
    net.restart(3);
    assert!(!net.replica(3).log().manifest().complete);
    assert!(!net.reports.iter().any(|r| matches!(r.1, Report::Copied { .. })));
    // Made a member nevertheless, it neither votes nor serves, and says why.
    let old = net.group.clone();
    let mut group = old.clone();
    group.learners.clear();
    group.members.push(net.member(3));
    net.change(group);
    net.tell_all();
    net.settle();
    let (partition, epoch) = (3, net.group.epoch);
    assert!(net.reported(Report::Damaged { partition, epoch }));
    net.leaves(3);
    net.heal();
    net.learns(3);
    until_member(&mut net, 3);
    check(&mut net, 3, 600);
    net.check_equal();
}

/// The index of half a copy has tombstones in it, for the order of versions: nothing may be cleaned by it, also when the
/// copy was given up and the next one has not begun.
#[test]
fn half_a_copy_is_not_cleaned() {
    let mut net = Net::new(3, 3, 5);
    net.settle();
    let big = |n: u32| format!("big{n}").into_bytes();
    for n in 0..300 {
        net.get(1, &big(n), put(&[7; 4000]));
    }
    net.get(1, b"k", put(b"v"));
    net.crash(3, true);
    net.leaves(3);
    net.heal();
    for n in 0..300 {
        let op = if n % 2 == 0 { REMOVE } else { put(b"new") };
        net.get(1, &big(n), op);
    }
    net.restart(3);
    net.learns(3);
    net.tell_all();
    for _ in 0..4_000 {
        net.sent.retain(|s| peer(s, |p| matches!(p, Peer::CopyData { left: 0, .. })) != Some(true));
        if !net.step() {
            net.pass(1_000_000);
        }
    }
    assert!(!net.replica(3).log().manifest().complete);
    net.leaves(3);
    net.tell(3);
    net.learns(3);
    net.tell(3);
    net.clean(3);
    net.tell_all();
    until_member(&mut net, 3);
    assert_eq!(net.value(3, &big(2)), None);
    assert_eq!(net.value(3, &big(3)).as_deref(), Some(&b"new"[..]));
    net.clean(3);
    net.check_equal();
}

/// Execution 10: once the learner is reported, the primary commits nothing without its vote, also
/// while it does not know yet that the learner is a member.
#[test]
fn after_the_report_every_commit_waits_for_the_learner() {
    let mut net = Net::new(2, 1, 5);
    net.settle();
    fill(&mut net, 50);
    net.keepers = false;
    net.learns(2);
    net.tell_all();
    net.settle();
    net.group.active = net.group.epoch;
    net.tell_all();
    net.settle();
    let report = Report::Copied { partition: 3, epoch: net.group.epoch, learner: 2 };
    assert!(net.reported(report));
    net.cut.push((1, 2));
    let token = net.ask(1, b"k", put(b"v"), None);
    net.settle();
    assert!(net.answer(token).is_none(), "acked without the learner");
    let silent = Report::Silent { partition: 3, epoch: net.group.epoch, brick: 2 };
    assert!(net.reported(silent));
    // Only a new map frees the primary from it: the learner may be a member already.
    net.cut.clear();
    let mut group = net.group.clone();
    group.members.push(group.learners[0]);
    group.learners.clear();
    net.keepers = true;
    net.change(group);
    net.heal();
    assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"v"[..]));
    net.check_equal();
}

#[test]
fn a_learner_drops_nothing_before_the_epoch_is_active() {
    let mut net = Net::new(2, 2, 5);
    net.settle();
    fill(&mut net, 50);
    net.crash(2, true);
    net.leaves(2);
    net.heal();
    net.get(1, b"k", put(b"v"));
    net.restart(2);
    net.keepers = false;
    net.learns(2);
    net.tell_all();
    let tail = net.replica(2).log().tail();
    net.settle();
    assert_eq!(net.replica(2).log().tail(), tail);
    assert!(net.replica(2).log().manifest().complete);
    net.keepers = true;
    until_member(&mut net, 2);
    net.check_equal();
}

#[test]
fn a_copy_goes_on_when_the_group_changes_and_another_source_takes_over() {
    for seed in 1..8 {
        let mut net = Net::new(4, 3, seed);
        net.settle();
        fill(&mut net, 400);
        net.learns(4);
        net.tell_all();
        for _ in 0..(seed * 40) {
            if !net.step() {
                net.pass(1_000_000);
            }
        }
        // A source dies, or the primary does.
        let dead = if seed % 2 == 0 { 3 } else { 1 };
        net.crash(dead, false);
        let mut group = net.group.clone();
        group.members.retain(|m| m.brick != dead);
        net.change(group);
        net.tell_all();
        let primary = net.primary();
        net.ask(primary, b"meanwhile", put(b"v"), None);
        until_member(&mut net, 4);
        check(&mut net, 4, 400);
        assert_eq!(net.value(4, b"meanwhile").as_deref(), Some(&b"v"[..]));
        net.check_equal();
    }
}

#[test]
fn what_a_copy_brought_is_there_after_a_crash() {
    let mut net = Net::new(2, 1, 5);
    net.settle();
    fill(&mut net, 300);
    net.learns(2);
    until_member(&mut net, 2);
    net.crash(2, true);
    net.crash(1, false);
    net.restart(2);
    let mut group = net.group.clone();
    group.members = vec![net.member(2)];
    net.change(group);
    net.heal();
    check(&mut net, 2, 300);
}

#[test]
fn sessions_go_along_in_a_copy() {
    let mut net = Net::new(2, 1, 5);
    net.settle();
    let Answer::Session { session } = net.get(1, b"", Op::OpenSession { client: 9 }).get() else {
        panic!("no session")
    };
    let id = |number| Some(Numbered { id: RequestId { session, number }, answered_to: 0 });
    let add = Op::Increment { by: 1 };
    for number in 1..=3 {
        net.ask(1, b"n", add, id(number));
    }
    net.settle();
    // The records of 1 and 2 are dead.
    let ended = SessionId { partition: 3, ..session };
    assert_eq!(ended, session);
    net.learns(2);
    until_member(&mut net, 2);
    let mut group = net.group.clone();
    group.members.reverse();
    net.change(group);
    net.heal();
    assert_eq!(net.primary(), 2);
    for number in [1, 3, 2] {
        let again = net.ask(2, b"n", add, id(number));
        net.settle();
        match net.answer(again) {
            Some(Answer::Integer { value, .. }) => assert_eq!(value, i64::from(number)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(net.value(2, b"n").as_deref(), Some(&b"3"[..]));
}

#[test]
fn a_clear_is_copied_as_what_it_hides_is_not() {
    let mut net = Net::new(2, 2, 5);
    net.settle();
    fill(&mut net, 60);
    net.crash(2, true);
    net.leaves(2);
    net.heal();
    net.get(1, b"", Op::Clear);
    net.get(1, b"after", put(b"v"));
    net.restart(2);
    net.learns(2);
    until_member(&mut net, 2);
    assert_eq!((net.replica(1).keys(), net.replica(2).keys()), (1, 1));
    assert_eq!(net.value(2, &key(1)), None);
    net.check_equal();
}
