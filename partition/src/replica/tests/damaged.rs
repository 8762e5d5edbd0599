//! A member that lacks what a member must have: it neither votes nor serves, and goes as soon as it is asked to.

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
