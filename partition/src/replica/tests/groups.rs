//! Groups of three, story by story: writes, reads at backups, take-over, who may commit.

use super::net::{Fate, Net, REMOVE, is_failure, put, put_if_absent, route, versions};
use crate::maps::{Intent, Replicas};
use crate::op::{Answer, Failure, Numbered, Op, RequestId, SessionId};
use crate::replica::Report;
use crate::wire::peer::Peer;
use crate::wire::{self, Message};

fn kind_is(bytes: &[u8], test: impl Fn(&Peer<'_>) -> bool) -> bool {
    matches!(wire::decode(bytes), Ok(Message::Peer { peer, .. }) if test(&peer))
}

fn session(net: &mut Net) -> SessionId {
    let primary = net.primary();
    match net.get(primary, b"", Op::OpenSession { client: 9 }).get() {
        Answer::Session { session } => session,
        other => panic!("{other:?}"),
    }
}

#[allow(clippy::unnecessary_wraps)] // as a request has it
fn numbered(session: SessionId, number: u32) -> Option<Numbered> {
    Some(Numbered { id: RequestId { session, number }, answered_to: 0 })
}

#[test]
fn a_write_is_answered_when_every_replica_has_it_and_each_of_them_reads_it() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    let token = net.ask(1, b"k", put(b"v"), None);
    net.poll(1);
    // To one backup only: no answer yet.
    let at = net.sent.iter().position(|s| s.to == 3).expect("shipped to 3");
    let to_3 = net.sent.remove(at);
    while net.step() {}
    assert!(net.answer(token).is_none());
    net.deliver(&to_3);
    net.settle();
    assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
    for brick in 1..=3 {
        assert_eq!(net.value(brick, b"k").as_deref(), Some(&b"v"[..]));
    }
    net.check_equal();
}

#[test]
fn a_turns_writes_go_out_as_one_frame_a_backup() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    for n in 0..100u8 {
        net.ask(1, &[n], put(&[n; 50]), None);
    }
    net.poll(1);
    assert_eq!(net.sent.len(), 2);
    assert_eq!(versions(&net.sent[0]).len(), 100);
    net.settle();
    net.check_equal();
}

#[test]
fn loss_doubling_and_reordering_do_no_harm() {
    for seed in 1..40 {
        let mut net = Net::new(3, 3, seed);
        (net.loss, net.twice, net.shuffle) = (20, 20, 50);
        let mut tokens = Vec::new();
        for n in 0..60u32 {
            tokens.push(net.ask(1, &(n % 7).to_le_bytes(), put(&n.to_le_bytes()), None));
            for _ in 0..net.dice.roll(8) {
                net.step();
            }
            net.pass(1_000_000);
        }
        for _ in 0..20 {
            net.settle();
        }
        for token in tokens {
            assert!(matches!(net.answer(token), Some(Answer::Done { .. })), "seed {seed}");
        }
        net.check_equal();
        for n in 53..60u32 {
            let value = net.value(1 + n % 3, &(n % 7).to_le_bytes());
            assert_eq!(value.as_deref(), Some(&n.to_le_bytes()[..]));
        }
    }
}

#[test]
fn a_backup_waits_for_the_commit_of_what_it_holds_then_hands_the_read_over() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    net.ask(1, b"k", put(b"v"), None);
    net.poll(1);
    while net.sent.iter().any(|s| s.to == 2) {
        net.step();
    }
    // 2 has it and has voted; nobody told it that it is committed.
    let read = net.ask(2, b"k", Op::Get, None);
    assert!(matches!(net.fates[&read], Fate::Open));
    let other = net.ask(2, b"other", Op::Get, None);
    assert_eq!(net.answer(other), Some(Answer::Absent));
    assert!(net.sent.iter().any(|s| kind_is(&s.bytes, |p| matches!(p, Peer::AskCommit { .. }))));
    while net.step() {}
    assert!(matches!(net.answer(read), Some(Answer::Value { value: b"v", .. })));
    // The primary is not heard of: after a millisecond it is the primary's read.
    net.ask(1, b"k", put(b"w"), None);
    net.poll(1);
    net.step();
    net.sent.clear();
    let read = net.ask(2, b"k", Op::Get, None);
    net.sent.clear();
    net.pass(999_999);
    net.sent.clear();
    assert!(matches!(net.fates[&read], Fate::Open));
    net.pass(1);
    assert!(is_failure(net.answer(read), Failure::AskPrimary));
    // As is every write, and a read of what is about to expire.
    let write = net.ask(2, b"k", put(b"x"), None);
    assert!(is_failure(net.answer(write), Failure::AskPrimary));
}

#[test]
fn only_the_primary_says_that_a_key_expired() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    let at_ms = net.now.unix_ms + 60_000;
    net.get(1, b"k", put(b"v"));
    let when = crate::op::ExpireWhen::default();
    net.get(1, b"k", Op::Expire { at_ms, when });
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"v"[..]));
    net.now.unix_ms = at_ms - 500;
    let read = net.ask(2, b"k", Op::Get, None);
    assert!(is_failure(net.answer(read), Failure::AskPrimary));
    net.now.unix_ms = at_ms + 5_000;
    for _ in 0..3 {
        net.clean(2);
    }
    assert_eq!(net.replica(2).keys(), 1);
    for _ in 0..3 {
        net.clean(1);
    }
    net.settle();
    assert_eq!((net.replica(1).keys(), net.replica(2).keys()), (0, 0));
    net.check_equal();
}

#[test]
fn nothing_commits_before_the_keepers_know_the_epoch() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    net.keepers = false;
    let mut group = net.group.clone();
    group.members.rotate_left(1);
    net.change(group);
    net.tell_all();
    net.settle();
    let token = net.ask(2, b"k", put(b"v"), None);
    net.settle();
    assert!(net.answer(token).is_none());
    assert!(net.reported(Report::Active { partition: 3, epoch: 2 }));
    assert_eq!(net.replica(2).log().commit(), 1);
    net.group.active = 2;
    net.tell_all();
    net.settle();
    assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
}

/// The coordinator dies before any commit left: what one backup holds is decided once, the same
/// everywhere, and a retry gets the first answer or is applied once.
#[test]
fn take_over_decides_what_was_in_doubt() {
    for holder in [2, 3] {
        let mut net = Net::new(3, 3, 1);
        net.settle();
        let session = session(&mut net);
        let add = Op::Increment { by: 1 };
        net.ask(1, b"n", add, numbered(session, 1));
        net.poll(1);
        net.sent.retain(|s| s.to == holder);
        net.step();
        net.sent.clear();
        net.crash(1, true);
        net.leaves(1);
        net.tell_all();
        // Not before the take-over record is committed everywhere: a read waits.
        let early = net.ask(2, b"n", Op::Get, None);
        assert!(net.answer(early).is_none());
        net.settle();
        let value = net.value(2, b"n");
        assert_eq!(value.is_some(), holder == 2, "what the new primary held is committed");
        assert_eq!(net.value(3, b"n"), value);
        let again = net.ask(2, b"n", add, numbered(session, 1));
        net.settle();
        assert!(matches!(net.answer(again), Some(Answer::Integer { value: 1, .. })));
        net.check_equal();
    }
}

/// Execution 14: the take-over frame is lost and the next prepare arrives at a backup that holds a
/// different record there.
#[test]
fn a_backup_that_did_not_compare_does_not_vote() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    net.ask(1, b"old", put(b"old"), None);
    net.poll(1);
    // Only 3 gets it; 2 leads from now on.
    net.sent.retain(|s| s.to == 3);
    net.step();
    net.sent.clear();
    net.crash(1, true);
    net.leaves(1);
    net.tell_all();
    // The take-over is lost; whatever else arrives at 3 changes nothing there.
    net.sent.retain(|s| !kind_is(&s.bytes, |p| matches!(p, Peer::TakeOver { .. })));
    while net.step() {}
    let (tail, epoch) = (net.replica(3).log().tail(), net.group.epoch);
    let forged = net.replica(2).log().tail();
    assert_eq!((tail.seq, forged.seq, forged.epoch), (2, 2, epoch));
    assert_eq!(net.replica(2).log().commit(), 1, "3 did not vote");
    net.settle();
    net.check_equal();
    assert_eq!(net.value(3, b"old"), None);
}

/// One guard of execution 14 alone: what goes on behind the same record, before the comparison.
#[test]
fn a_prepare_of_an_epoch_that_was_not_compared_is_not_stored() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    let group = net.group.clone();
    net.change(group);
    net.tell_all();
    let to_3 = |s: &super::net::Sent| s.to == 3;
    net.sent.retain(|s| !to_3(s));
    net.settle_without(3);
    net.ask(1, b"k", put(b"v"), None);
    net.poll(1);
    let at = net.sent.iter().position(|s| !versions(s).is_empty()).expect("shipped to 2");
    let mut sent = net.sent.remove(at);
    assert_eq!(sent.to, 2);
    sent.to = 3;
    let tail = net.replica(3).log().tail();
    net.deliver(&sent);
    assert_eq!(net.replica(3).log().tail(), tail);
}

/// The other guard of execution 14: the record before must be the same one.
#[test]
fn a_prepare_behind_another_record_is_not_stored() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    net.ask(1, b"k", put(b"v"), None);
    net.poll(1);
    let mut sent = net.sent.remove(0);
    let before = crate::wire::peer::PREPARE_HEAD_BYTES - 4;
    sent.bytes[before] ^= 1;
    net.deliver(&sent);
    assert_eq!(net.replica(2).log().tail().seq, 1);
    sent.bytes[before] ^= 1;
    net.deliver(&sent);
    assert_eq!(net.replica(2).log().tail().seq, 2);
}

/// Execution 33: the comparison arrives twice, a watermark at a log that was not compared.
#[test]
fn a_comparison_happens_once_an_epoch() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    net.crash(1, true);
    net.leaves(1);
    net.tell_all();
    let at =
        net.sent.iter().position(|s| kind_is(&s.bytes, |p| matches!(p, Peer::TakeOver { .. })));
    let compare = net.sent.remove(at.expect("a comparison"));
    net.deliver(&compare);
    net.settle();
    let token = net.ask(2, b"k", put(b"v"), None);
    net.poll(2);
    while net.sent.iter().any(|s| s.to == 3) {
        net.step();
    }
    let tail = net.replica(3).log().tail();
    net.deliver(&compare);
    net.poll(3);
    assert_eq!(net.replica(3).log().tail(), tail, "voted for, and kept");
    net.settle();
    assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
    // A watermark of the next epoch at a log that has not been compared in it.
    net.ask(2, b"k", put(b"w"), None);
    net.poll(2);
    net.step();
    net.sent.clear();
    let group = net.group.clone();
    net.change(group);
    net.tell(3);
    let commit = net.replica(3).log().commit();
    let (epoch, mut bytes) = (net.group.epoch, Vec::new());
    wire::peer::encode(&mut bytes, 3, &Peer::Commit { epoch, commit: commit + 1 });
    net.deliver(&super::net::Sent { from: 2, to: 3, bytes });
    net.poll(3);
    assert_eq!(net.replica(3).log().commit(), commit);
}

#[test]
fn an_old_primary_becomes_a_backup_and_drops_what_it_prepared_alone() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    let session = session(&mut net);
    let lost = net.ask(1, b"n", Op::Increment { by: 1 }, numbered(session, 1));
    let refused = net.ask(1, b"n", put_if_absent(b"x"), None);
    net.poll(1);
    net.sent.clear();
    // Another leads, and 1 stays in the group.
    let mut group = net.group.clone();
    group.members.rotate_left(1);
    net.change(group);
    let old = net.replica(1).route();
    net.tell_all();
    assert!(matches!(net.fates[&lost], Fate::Unanswered), "never answered: it is in doubt");
    let stale = Answer::StaleRoute { route: route(&net.group) };
    assert_eq!(net.answer(refused), Some(stale), "the refusal rested on what may be dropped");
    let late = net.ask_as(1, b"k", put(b"v"), None, old);
    assert_eq!(net.answer(late), Some(stale));
    net.settle();
    net.check_equal();
    assert_eq!(net.value(1, b"n"), None);
    let again = net.ask(2, b"n", Op::Increment { by: 1 }, numbered(session, 1));
    net.settle();
    assert!(matches!(net.answer(again), Some(Answer::Integer { value: 1, .. })));
    assert_eq!(net.value(1, b"n").as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_continuing_primary_counts_votes_from_zero() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    let token = net.ask(1, b"k", put(b"v"), None);
    net.poll(1);
    // 3 is gone; 2 has voted for the record in the old epoch only.
    net.cut.push((1, 3));
    while net.step() {}
    assert!(net.answer(token).is_none());
    net.leaves(3);
    net.tell(1);
    net.poll(1);
    assert!(net.answer(token).is_none(), "the vote of the old epoch does not count");
    let tail = net.replica(1).log().tail().seq;
    net.tell(2);
    net.settle();
    assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
    assert_eq!(net.replica(1).log().tail().seq, tail, "it needs no take-over record");
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"v"[..]));
    net.check_equal();
}

#[test]
fn a_silent_backup_is_reported_and_the_write_completes_on_the_rest() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    net.crash(3, false);
    let token = net.ask(1, b"k", put(b"v"), None);
    net.settle();
    assert!(net.answer(token).is_none());
    assert!(net.reported(Report::Silent { partition: 3, epoch: 1, brick: 3 }));
    assert!(!net.reported(Report::Silent { partition: 3, epoch: 1, brick: 2 }));
    net.leaves(3);
    net.tell_all();
    net.settle();
    assert!(matches!(net.answer(token), Some(Answer::Done { .. })));
    net.check_equal();
}

#[test]
fn a_member_acts_only_in_a_map_that_names_its_incarnation() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    net.get(1, b"k", put(b"v"));
    net.crash(2, true);
    net.restart(2);
    // The map still names the process before.
    net.tell(2);
    let read = net.ask(2, b"k", Op::Get, None);
    assert!(is_failure(net.answer(read), Failure::Unavailable));
    let write = net.ask(1, b"k", put(b"w"), None);
    net.settle();
    assert!(net.answer(write).is_none(), "it does not vote");
    let mut group = net.group.clone();
    group.members[1] = net.member(2);
    net.change(group);
    net.heal();
    assert!(matches!(net.answer(write), Some(Answer::Done { .. })));
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"w"[..]));
    net.check_equal();
}

#[test]
fn whoever_is_to_leave_stops_first_and_what_it_holds_is_answered_by_the_next() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    let flying = net.ask(1, b"k", put(b"v"), None);
    let group = Replicas { intent: Intent::StepDown { brick: 1 }, ..net.group.clone() };
    net.group = group;
    net.tell_all();
    let held = net.ask(1, b"k", put(b"w"), None);
    let read = net.ask(1, b"k", Op::Get, None);
    assert!(!net.reported(Report::Stopped { partition: 3, epoch: 1 }), "a write is in flight");
    net.settle();
    assert!(matches!(net.answer(flying), Some(Answer::Done { .. })));
    assert!(net.reported(Report::Stopped { partition: 3, epoch: 1 }));
    assert!(net.answer(held).is_none() && net.answer(read).is_none());
    let mut group = net.group.clone();
    group.intent = Intent::None;
    group.members.rotate_left(1);
    net.change(group);
    net.tell_all();
    let stale = Answer::StaleRoute { route: route(&net.group) };
    assert_eq!((net.answer(held), net.answer(read)), (Some(stale), Some(stale)));
    net.settle();
    assert_eq!(net.value(2, b"k").as_deref(), Some(&b"v"[..]));
    net.check_equal();
}

#[test]
fn a_backup_below_its_reserve_stops_writes_and_removes_go_on() {
    let mut net = Net::new(2, 2, 1);
    let mut cfg = super::config(firebrick_log::Durability::Memory);
    cfg.bytes_max = 512 << 10;
    let small = crate::replica::Replica::new(firebrick_log::Log::in_heap(cfg), super::leaf());
    net.bricks.get_mut(&2).unwrap().replica = Some(small);
    net.tell(2);
    net.settle();
    let mut stored = 0u32;
    loop {
        let token = net.ask(1, &stored.to_le_bytes(), put(&[7; 900]), None);
        while net.step() {}
        net.pass(60_000);
        while net.step() {}
        match net.answer(token) {
            Some(Answer::Done { .. }) => stored += 1,
            Some(Answer::Failed(Failure::NoSpace)) => break,
            other => panic!("{other:?}"),
        }
        assert!(stored < 1000, "never full");
    }
    assert!(stored > 100, "{stored}");
    net.check_equal();
    for n in 0..stored {
        assert!(matches!(net.get(1, &n.to_le_bytes(), REMOVE).get(), Answer::Done { .. }));
        if n % 10 == 0 {
            net.clean(2);
        }
    }
    net.clean(2);
    net.settle();
    assert!(matches!(net.get(1, b"k", put(&[7; 900])).get(), Answer::Done { .. }));
    net.check_equal();
}

/// The keepers may act on it as long as the epoch lasts.
#[test]
fn what_was_confirmed_binds_for_the_epoch() {
    let mut net = Net::new(3, 3, 1);
    net.settle();
    net.get(1, b"k", put(b"v"));
    for (brick, intent) in [(1, Intent::StepDown { brick: 1 }), (2, Intent::Leave { brick: 2 })] {
        net.group.intent = intent;
        net.tell_all();
        net.settle();
        assert!(net.reported(Report::Stopped { partition: 3, epoch: net.group.epoch }));
        // Nobody asks any more, in the same epoch.
        net.group.intent = Intent::None;
        net.tell_all();
        let read = net.ask(brick, b"k", Op::Get, None);
        net.settle();
        let aside = is_failure(net.answer(read), Failure::AskPrimary);
        assert!(if brick == 1 { net.answer(read).is_none() } else { aside });
        net.reports.clear();
        let group = net.group.clone();
        net.change(group);
        net.heal();
    }
}
