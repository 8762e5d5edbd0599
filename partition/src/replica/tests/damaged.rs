//! A member that lacks what a member must have: it neither votes nor serves, and goes as soon as it is asked to.

use super::copies::until_member;
use super::net::{Net, is_failure, put};
use crate::maps::{Intent, Replicas};
use crate::op::{Answer, Failure, Op};
use crate::replica::Report;

/// The keepers ask it to leave, in the epoch as it is.
fn is_asked_to_leave(net: &mut Net, brick: u32) {
    net.group.intent = Intent::Leave { brick };
    net.tell(brick);
}

#[test]
fn found_by_the_comparison_it_reads_no_more_and_says_at_once_that_it_stopped() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    net.get(1, b"k", put(b"v"));
    net.ask(1, b"p", put(b"w"), None);
    net.poll(1);
    net.step();
    // The primary comes back without its memory, and nobody noticed.
    net.crash(1, false);
    net.restart(1);
    let mut group = net.group.clone();
    group.members[0] = net.member(1);
    net.change(group);
    net.tell(2);
    let read = net.ask(2, b"k", Op::Get, None);
    assert!(matches!(net.answer(read), Some(Answer::Value { value: b"v", .. })));
    let waits = net.ask(2, b"p", Op::Get, None);
    assert!(net.answer(waits).is_none(), "whether that is committed is not known");
    net.tell(1);
    net.settle();
    let (partition, epoch) = (3, net.group.epoch);
    assert!(net.reported(Report::Damaged { partition, epoch }));
    assert!(!net.reported(Report::Stopped { partition, epoch }), "nobody asked");
    assert!(is_failure(net.answer(waits), Failure::AskPrimary));
    let read = net.ask(2, b"k", Op::Get, None);
    assert!(is_failure(net.answer(read), Failure::AskPrimary));
    is_asked_to_leave(&mut net, 2);
    assert!(net.reported(Report::Stopped { partition, epoch }));
}

/// As a backup, and as the primary.
#[test]
fn with_half_a_copy_it_says_at_once_that_it_stopped() {
    for leads in [false, true] {
        let mut net = Net::new(3, 2, 5);
        net.settle();
        for n in 0..100u32 {
            net.get(1, &n.to_be_bytes(), put(&[7; 100]));
        }
        net.learns(3);
        net.tell_all();
        while net.replica(3).log().manifest().complete {
            assert!(net.step(), "the copy does not begin");
        }
        let mut group = Replicas { learners: Vec::new(), ..net.group.clone() };
        let at = if leads { 0 } else { 2 };
        group.members.insert(at, net.member(3));
        net.change(group);
        net.tell_all();
        net.settle();
        let (partition, epoch) = (3, net.group.epoch);
        assert!(net.reported(Report::Damaged { partition, epoch }));
        assert!(!net.reported(Report::Stopped { partition, epoch }), "nobody asked");
        is_asked_to_leave(&mut net, 3);
        assert!(net.reported(Report::Stopped { partition, epoch }));
        let read = net.ask(3, b"k", Op::Get, None);
        assert!(is_failure(net.answer(read), Failure::Unavailable));
        let write = net.ask(3, b"k", put(b"v"), None);
        assert!(is_failure(net.answer(write), Failure::Unavailable));
    }
}

/// A bit of the newest record with this value flips while the process is dead.
fn flips(net: &mut Net, brick: u32, value: &[u8]) {
    let opened = net.bricks.get_mut(&brick).unwrap().kept.as_mut().expect("it is down");
    for bound in &mut opened.segments {
        if let Some(at) = bound.bytes().windows(value.len()).rposition(|bytes| bytes == value) {
            bound.bytes_mut()[at] ^= 1;
            return;
        }
    }
    panic!("no record has that value");
}

/// A group whose brick 2 was down, and lost a record: the others' are whole.
fn two_lost_a_record(members: u32) -> Net {
    let mut net = Net::new(3, members, 5);
    net.settle();
    for value in [&b"the first"[..], b"the second", b"the last"] {
        net.get(1, b"k", put(value));
    }
    net.get(1, b"behind", put(b"v"));
    net.crash(2, true);
    flips(&mut net, 2, b"the last");
    net.restart(2);
    net
}

#[test]
fn records_that_a_start_finds_damaged_are_told_and_what_was_before_them_is_not_read() {
    let mut net = two_lost_a_record(3);
    let mut group = net.group.clone();
    group.members[1] = net.member(2);
    net.change(group);
    net.tell(2);
    let read = net.ask(2, b"k", Op::Get, None);
    assert!(is_failure(net.answer(read), Failure::Unavailable), "{:?}", net.answer(read));
    net.tell_all();
    net.settle();
    let (partition, epoch) = (3, net.group.epoch);
    assert!(net.reported(Report::Damaged { partition, epoch }));
    is_asked_to_leave(&mut net, 2);
    assert!(net.reported(Report::Stopped { partition, epoch }));
    // It is copied to anew, and keeps nothing of what it had.
    net.leaves(2);
    net.heal();
    net.learns(2);
    until_member(&mut net, 2);
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"the last"[..]));
    net.check_equal();
    // From then on it is a member as any other, also after another start.
    net.crash(2, true);
    net.restart(2);
    let mut group = net.group.clone();
    let at = group.position(2).unwrap();
    group.members[at] = net.member(2);
    net.change(group);
    net.heal();
    assert!(!net.reported(Report::Damaged { partition, epoch: net.group.epoch }));
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"the last"[..]));
}

/// The last of its group that is back, perhaps: another may have everything. It serves what is good of it only
/// once the keepers accepted the loss.
#[test]
fn it_leads_alone_only_when_the_loss_is_accepted() {
    let mut net = two_lost_a_record(3);
    net.crash(1, true);
    net.crash(3, true);
    net.change(Replicas { members: vec![net.member(2)], ..net.group.clone() });
    net.tell(2);
    net.settle();
    let (partition, epoch) = (3, net.group.epoch);
    assert!(net.reported(Report::Damaged { partition, epoch }));
    assert!(!net.reported(Report::Active { partition, epoch }), "it must not begin");
    net.group.active = 0;
    net.change(net.group.clone());
    net.heal();
    assert_eq!(net.value(2, b"behind").as_deref(), Some(&b"v"[..]));
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"the second"[..]));
    // Not said again in the next epoch of this process.
    net.learns(1);
    net.heal();
    assert!(!net.reported(Report::Damaged { partition, epoch: net.group.epoch }));
}

/// An operator's word on half a copy, of which nobody has more: what there is of it is served.
#[test]
fn half_a_copy_leads_when_the_loss_is_accepted() {
    let mut net = Net::new(2, 1, 5);
    net.settle();
    for n in 0..100u32 {
        net.get(1, &n.to_be_bytes(), put(&[7; 100]));
    }
    net.learns(2);
    net.tell_all();
    while net.replica(2).log().manifest().complete {
        assert!(net.step(), "the copy does not begin");
    }
    net.crash(1, false);
    net.crash(2, true);
    net.restart(2);
    net.change(Replicas { members: vec![net.member(2)], active: 0, ..Replicas::default() });
    net.group.active = 0;
    net.tell(2);
    net.settle();
    net.tell(2);
    net.settle();
    net.get(2, b"new", put(b"v"));
    assert_eq!(net.value(2, b"new").as_deref(), Some(&b"v"[..]));
}
