//! `sync` groups: a vote says that everything up to it is flushed, a learner's too.

use firebrick_log::Durability;

use super::net::{Net, put};
use crate::op::Answer;
use crate::replica::Report;

fn turns(net: &mut Net, bricks: &[u32]) {
    for _ in 0..300 {
        while net.step() {}
        for &brick in bricks {
            net.land(brick);
        }
        net.pass(1_000_000);
    }
}

#[test]
fn a_write_is_answered_when_it_is_on_every_disk() {
    let mut net = Net::with_disks(3, 3, 1, Durability::Sync);
    net.settle();
    for slow in 1..=3 {
        let token = net.ask(1, b"k", put(&[slow as u8; 100]), None);
        let others: Vec<u32> = (1..=3).filter(|&b| b != slow).collect();
        turns(&mut net, &others);
        assert!(net.answer(token).is_none(), "it is not on the disk of {slow}");
        turns(&mut net, &[slow]);
        assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
    }
    net.check_equal();
}

/// A slow disk is no reason to send everything again.
#[test]
fn what_a_backup_holds_is_not_shipped_again_while_its_disk_is_slow() {
    let mut net = Net::with_disks(2, 2, 1, Durability::Sync);
    net.settle();
    net.ask(1, b"k", put(&[1; 1000]), None);
    let mut prepares = 0;
    for _ in 0..400 {
        prepares += net.sent.iter().filter(|s| !super::net::versions(s).is_empty()).count();
        while net.step() {}
        net.land(1);
        net.pass(1_000_000);
    }
    assert!(prepares <= 2, "{prepares} prepares for one record");
    net.settle();
    net.check_equal();
}

/// Execution 18, at promotion with unflushed copied segments.
#[test]
fn a_learner_is_whole_when_what_was_copied_is_flushed() {
    let mut net = Net::with_disks(3, 2, 1, Durability::Sync);
    net.settle();
    for n in 0..200u32 {
        net.ask(1, &n.to_le_bytes(), put(&[n as u8; 100]), None);
    }
    net.settle();
    net.learns(3);
    net.tell_all();
    turns(&mut net, &[1, 2]);
    let is_copied = |net: &Net| net.reports.iter().any(|r| matches!(r.1, Report::Copied { .. }));
    assert!(!net.replica(3).log().manifest().complete && !is_copied(&net));
    assert_eq!(net.replica(3).keys(), 200, "it was copied");
    // A brick that reads it now would have it; one that loses power would not.
    turns(&mut net, &[1, 2, 3]);
    assert!(net.replica(3).log().manifest().complete && is_copied(&net));
    net.heal();
    assert_eq!(net.group.members.len(), 3);
    net.check_equal();
}
