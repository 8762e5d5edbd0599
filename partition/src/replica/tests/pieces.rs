//! The pieces of a copy: how far ahead they are sent, what is lost, what finds no room.

use firebrick_log::segment::SegmentKind;
use firebrick_log::{Room, Want};

use super::copies::{key, peer, until_member};
use super::net::{Net, Sent, put};
use crate::wire::peer::Peer;

/// Pieces under way to a brick, by number.
fn pieces(net: &Net) -> Vec<u32> {
    let number = |s: &Sent| {
        peer(s, |p| match p {
            Peer::CopyData { piece, .. } => Some(*piece),
            _ => None,
        })
        .flatten()
    };
    net.sent.iter().filter_map(number).collect()
}

/// Everything but a copy's pieces arrives, until so many of them are under way or nothing happens any more.
fn until_pieces(net: &mut Net, count: usize) {
    for _ in 0..200 {
        let piece = |s: &Sent| peer(s, |p| matches!(p, Peer::CopyData { .. })) == Some(true);
        match net.sent.iter().position(|s| !piece(s)) {
            Some(at) => {
                let sent = net.sent.remove(at);
                net.deliver(&sent);
                net.poll(sent.to);
            }
            None if pieces(net).len() >= count => return,
            None => net.pass(1_000_000),
        }
    }
}

/// A learner that takes 4 MB, about to be sent pieces.
fn with_some_megabytes(seed: u64) -> Net {
    let mut net = Net::new(2, 1, seed);
    net.settle();
    for n in 0..1024 {
        net.ask(1, &key(n), put(&[7; 4000]), None);
    }
    net.settle();
    net.learns(2);
    net.tell_all();
    net
}

#[test]
fn a_source_sends_as_far_ahead_as_its_learner_says_and_what_is_lost_again() {
    let mut net = with_some_megabytes(5);
    until_pieces(&mut net, 32);
    assert_eq!(pieces(&net), (0..32).collect::<Vec<_>>(), "one question, all these");
    // The third is lost: those behind it are of no use, and all come again.
    let lost = net
        .sent
        .iter()
        .position(|s| peer(s, |p| matches!(p, Peer::CopyData { piece: 2, .. })) == Some(true));
    net.sent.remove(lost.unwrap());
    let mut came = Vec::new();
    for _ in 0..400 {
        if let Some(sent) = net.sent.first()
            && let Some(Some(n)) = peer(sent, |p| match p {
                Peer::CopyData { piece, .. } => Some(*piece),
                _ => None,
            })
        {
            came.push(n);
        }
        if !net.step() {
            net.pass(500_000);
        }
    }
    assert_eq!(came.iter().filter(|&&n| n == 2).count(), 1, "{came:?}");
    assert_eq!(came.iter().filter(|&&n| n == 1).count(), 1, "{came:?}");
    until_member(&mut net, 2);
    assert_eq!(net.value(2, &key(1023)).map(|v| v.len()), Some(4000));
    net.check_equal();
}

#[test]
fn a_source_makes_no_piece_that_the_way_has_no_room_for() {
    let mut net = with_some_megabytes(5);
    net.replica(1).let_copy(66 << 10);
    until_pieces(&mut net, 2);
    let sent: usize = net.sent.iter().map(|s| s.bytes.len()).sum();
    assert!(!pieces(&net).is_empty() && sent <= 66 << 10, "{sent} bytes into 66 KiB");
    let taken = std::mem::take(&mut net.sent);
    for sent in &taken {
        net.deliver(sent);
    }
    net.settle();
    assert_eq!(pieces(&net), [] as [u32; 0]);
    assert!(!net.replica(2).log().manifest().complete);
    assert_eq!(net.replica(1).copies_to(), Some(2), "it waits for room");
    net.replica(1).let_copy(usize::MAX);
    until_member(&mut net, 2);
    assert_eq!(net.value(2, &key(1023)).map(|v| v.len()), Some(4000));
    net.check_equal();
}

#[test]
fn with_foreground_few_small_pieces_are_under_way() {
    let mut net = with_some_megabytes(5);
    net.replica(1).bound_copy(250_000);
    until_pieces(&mut net, 4);
    net.pass(1_000_000);
    assert_eq!(pieces(&net), [0, 1, 2, 3]);
    let piece = |s: &&Sent| peer(s, |p| matches!(p, Peer::CopyData { .. })) == Some(true);
    assert!(net.sent.iter().filter(piece).all(|s| s.bytes.len() <= 17 << 10));
    net.replica(1).bound_copy(0);
    until_pieces(&mut net, 32);
    assert_eq!(pieces(&net).len(), 32, "nobody else needs the way");
    until_member(&mut net, 2);
    net.check_equal();
}

#[test]
fn a_learner_takes_nothing_in_while_it_may_not() {
    let mut net = with_some_megabytes(5);
    net.replica(2).let_copy(0);
    net.settle();
    assert_eq!(net.replica(2).keys(), 0);
    assert!(net.replica(2).takes_copy(), "what came waits");
    net.replica(2).let_copy(usize::MAX);
    until_member(&mut net, 2);
    assert_eq!(net.replica(2).keys(), 1024);
    net.check_equal();
}

/// Found by the simulator: withdrawn and listed again for ever.
#[test]
fn a_full_source_goes_on_with_a_copy_that_keeps_nothing_from_being_freed() {
    let mut net = with_some_megabytes(5);
    let (kind, room) = (SegmentKind::Tail, Room::Write);
    let want = Want { kind, bytes_min: 1, bytes: 1, disk: false, zeroed: false, room };
    net.with(1, |replica, now, out| replica.on_segment(now, want, None, out));
    assert!(net.replica(1).log().is_full());
    until_member(&mut net, 2);
    assert_eq!(net.replica(2).keys(), 1024);
}
