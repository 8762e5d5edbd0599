//! Native connections: bounds, slow readers, late answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_partition::Op;

use super::native_client::{NativeClient, put};
use super::rig::{Build, IN_FLIGHT_MAX, Rig};
use crate::control::ControlAnswer;
use crate::shard::FromControl;
use firebrick_partition::maps::Durability;

#[test]
fn past_the_bound_requests_are_refused_and_none_is_forgotten() {
    let mut rig = Rig::new(Build::new(1, 2, Durability::Sync)).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    rig.run_for(200_000);
    let keys = [client.key_on(0, 0), client.key_on(1, 0)];
    rig.disk_stalled = true;
    for n in 0..300 {
        client.ask(rig.now, &keys[n % 2], put(b"v"), None);
        client.fake_flush();
    }
    rig.run_for(20_000_000);
    client.read(rig.now);
    let busy = client.got.values().filter(|said| *said == "failed Busy").count();
    assert_eq!(busy, 300 - IN_FLIGHT_MAX as usize);
    rig.disk_stalled = false;
    client.settle(&mut rig, 1_000_000_000);
    let done = client.got.values().filter(|said| *said == "done").count();
    assert_eq!(done, IN_FLIGHT_MAX as usize);
    assert_eq!(client.call(&mut rig, &keys[1], Op::Get), "value v");
}

/// Answers and frames wait while the client does not read; then all come, and nobody else waited.
#[test]
fn a_client_that_does_not_read_gets_everything_later() {
    let mut rig = Rig::new(Build::new(2, 2, Durability::Async { ms: 5 })).serve();
    let mut slow = NativeClient::new(&mut rig, 0, "default");
    let mut other = NativeClient::new(&mut rig, 0, "default");
    let keys = [slow.key_on(0, 0), slow.key_on(1, 0)];
    for key in &keys {
        assert_eq!(slow.call(&mut rig, key, put(&vec![b'v'; 100_000])), "done");
    }
    for n in 0..60 {
        slow.ask(rig.now, &keys[n % 2], Op::Get, None);
        slow.fake_flush();
        rig.run_for(30_000);
        if n % 10 == 0 {
            assert!(other.call(&mut rig, &keys[0], Op::Get).starts_with("value v"));
        }
    }
    let held = rig.cores[0].shard.conns.iter().filter_map(|(_, kind)| match kind {
        crate::shard::conns::Kind::Native(native) => Some(native.held.len() + native.late.len()),
        crate::shard::conns::Kind::Resp(_) => None,
    });
    assert!(held.sum::<usize>() > 0, "the output was full");
    slow.settle(&mut rig, 1_000_000_000);
    assert!(slow.got.values().all(|said| said.len() > 100_000));
}

/// A brick's input does not wait for room, so what it makes this one owe is bounded another way: it is told to ask again.
#[test]
fn a_brick_that_does_not_read_is_told_to_ask_again_and_its_connection_stays() {
    let mut rig = Rig::new(Build::new(4, 1, Durability::Memory)).serve();
    let mut brick = NativeClient::new(&mut rig, 0, "default");
    let key = brick.key_on(0, 0);
    assert_eq!(brick.call(&mut rig, &key, put(&vec![b'v'; 1 << 20])), "done");
    brick.greet_as_brick(rig.now, 9);
    for _ in 0..100 {
        brick.ask(rig.now, &key, Op::Get, None);
        brick.fake_flush();
        rig.run_for(30_000);
    }
    brick.settle(&mut rig, 1_000_000_000);
    let again = brick.got.values().filter(|said| *said == "failed Unavailable").count();
    assert!((20..40).contains(&again), "{again} of 100");
    assert!(brick.call(&mut rig, &key, Op::Get).starts_with("value v"));
}

/// An answer to a connection that has gone does not reach the one that got its slot.
#[test]
fn late_answers_do_not_reach_the_next_connection_of_the_slot() {
    for seed in 0..4 {
        let mut rig = Rig::new(Build::new(seed, 2, Durability::Sync)).serve();
        let mut old = NativeClient::new(&mut rig, 0, "default");
        rig.run_for(200_000);
        let keys = [old.key_on(0, 0), old.key_on(1, 0)];
        rig.disk_stalled = true;
        for key in &keys {
            old.ask(rig.now, key, put(b"old"), None);
            old.control(rig.now, "{\"do\":\"status\"}");
        }
        old.fake_flush();
        rig.run_for(5_000_000);
        let asked: Vec<_> = std::iter::from_fn(|| rig.asked()).collect();
        assert_eq!(asked.len(), 2);
        rig.world.cut(&old.fake, rig.cores[0].shard.fabric());
        rig.run_for(1_000_000);
        let mut new = NativeClient::new(&mut rig, 0, "default");
        rig.run_for(200_000);
        let slots: Vec<u32> = keys.iter().map(|key| new.ask(rig.now, key, Op::Get, None)).collect();
        new.fake_flush();
        for (core, token, _) in asked {
            let answer = ControlAnswer { token, json: "{}".into() };
            rig.tell(usize::from(core), FromControl::Answer(answer));
        }
        rig.run_for(1_000_000);
        rig.disk_stalled = false;
        new.settle(&mut rig, 1_000_000_000);
        rig.run_for(10_000_000);
        new.read(rig.now);
        assert_eq!(new.got.len(), 2, "seed {seed}: {:?}", new.got);
        let fine = |said: &String| said == "absent" || said == "value old";
        assert!(slots.iter().all(|slot| fine(&new.got[slot])), "seed {seed}: {:?}", new.got);
        assert_eq!(new.call(&mut rig, &keys[0], Op::Get), "value old");
    }
}

/// Control answers and requests share one count of what is in flight.
#[test]
fn a_control_request_is_answered_among_others() {
    let mut rig = Rig::new(Build::new(3, 1, Durability::Memory)).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    for round in 0..200 {
        let slot = client.control(rig.now, "{\"do\":\"table-list\"}");
        assert_eq!(client_call_with_control(&mut rig, &mut client), "done");
        assert_eq!(client.got.remove(&slot).as_deref(), Some("{\"ok\":true}"), "{round}");
    }
}

fn client_call_with_control(rig: &mut Rig, client: &mut NativeClient) -> String {
    let slot = client.ask(rig.now, b"k", put(b"v"), None);
    rig.run_until(1_000_000_000, |rig| {
        if let Some((core, token, _)) = rig.asked() {
            let answer = ControlAnswer { token, json: "{\"ok\":true}".into() };
            rig.tell(usize::from(core), FromControl::Answer(answer));
        }
        client.read(rig.now);
        client.waiting() == 0
    });
    client.got.remove(&slot).unwrap()
}

/// The other core may be in a turn that began before the process stood still.
#[test]
fn a_core_without_a_lease_asks_no_other() {
    let mut rig = Rig::new(Build::new(1, 2, Durability::Memory)).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    rig.run_for(200_000);
    let keys = [client.key_on(0, 0), client.key_on(1, 0)];
    for key in &keys {
        assert_eq!(client.call(&mut rig, key, put(b"v")), "done");
    }
    rig.tell(0, FromControl::Lease { end_ns: rig.now + 1_000_000 });
    rig.run_for(2_000_000);
    for key in &keys {
        assert_eq!(client.call(&mut rig, key, Op::Get), "failed Unavailable");
    }
}

/// The process stood still between the look at the clock and the lease that it then finds.
#[test]
fn what_was_read_before_a_lease_ended_does_not_leave_under_the_next() {
    let build = Build::new(1, 1, Durability::Memory);
    let clock = Arc::new(AtomicU64::new(0));
    let mut rig = Rig::with_clock(build, &clock).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    assert_eq!(client.call(&mut rig, b"k", put(b"v")), "done");
    let end_ns = rig.now + 10_000_000;
    rig.tell(0, FromControl::Lease { end_ns });
    rig.run_for(1_000_000);
    let read = client.ask(rig.now, b"k", Op::Get, None);
    client.fake_flush();
    rig.now += 1_000_000;
    clock.store(end_ns + 1_000_000_000, Ordering::Relaxed);
    rig.tell(0, FromControl::Lease { end_ns: end_ns + 2_000_000_000 });
    rig.turn(0);
    rig.now = end_ns + 1_000_000_000;
    rig.run_for(1_000_000);
    client.read(rig.now);
    assert_eq!(client.got.get(&read), None, "it may be old");
}
