//! Stopping in the middle: all that is in flight is answered or refused, in bounded time.

use firebrick_partition::Op;

use super::native_client::{NativeClient, put};
use super::resp_client::{RespClient, command};
use super::rig::{Build, Rig};
use crate::counters::CoreState;
use firebrick_partition::maps::Durability;

fn all_stopped(rig: &mut Rig) -> bool {
    rig.cores.iter().all(|core| core.stopped)
}

#[test]
fn a_stop_answers_what_is_in_flight_on_both_cores() {
    for seed in 0..3 {
        let mut rig = Rig::new(Build::new(seed, 2, Durability::Sync)).serve();
        let mut natives: Vec<NativeClient> =
            (0..2).map(|core| NativeClient::new(&mut rig, core, "default")).collect();
        let mut resp = RespClient::new(&mut rig, 0, "r");
        rig.run_for(200_000);
        for n in 0..20u32 {
            for client in &mut natives {
                let key = client.key_on((n % 2) as u16, n);
                client.ask(rig.now, &key, put(b"v"), None);
            }
            resp.any(rig.now, &mut rig.random);
        }
        let wait = rig.random.below(300_000);
        rig.run_for(wait);
        rig.stop();
        let began = rig.now;
        rig.run_until(3_000_000_000, |rig| {
            for client in &mut natives {
                client.read(rig.now);
            }
            all_stopped(rig)
        });
        assert!(rig.now - began < 2_500_000_000, "seed {seed}: {} ns", rig.now - began);
        rig.now += 1_000_000;
        for client in &mut natives {
            client.read(rig.now);
            assert!(client.closed, "seed {seed}");
            assert_eq!(client.waiting(), 0, "seed {seed}: requests without an answer");
            for said in client.got.values() {
                assert!(said == "done" || said == "failed Unavailable", "seed {seed}: {said}");
            }
        }
        assert!((0..2).all(|core| rig.state(core) == CoreState::Stopped));
        // What was answered is there after the power failed too.
        let acked: Vec<u32> = (0..2)
            .map(|n| natives[n].got.values().filter(|s| *s == "done").count() as u32)
            .collect();
        let mut rig = rig.power_fails().serve();
        let mut client = NativeClient::new(&mut rig, 0, "default");
        let there = (0..20u32).filter(|&n| {
            let key = client.key_on((n % 2) as u16, n);
            client.call(&mut rig, &key, Op::Get) == "value v"
        });
        assert!(there.count() as u32 >= *acked.iter().max().unwrap(), "seed {seed}");
    }
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_client_that_does_not_read() {
    let mut rig = Rig::new(Build::new(3, 1, Durability::Memory)).serve();
    let mut resp = RespClient::new(&mut rig, 0, "r");
    let value = vec![b'x'; 300_000];
    resp.say(rig.now, &[b"SET", b"k", &value], b"+OK\r\n", Vec::new());
    for _ in 0..40 {
        resp.peer.feed(rig.now, &command(&[b"GET", b"k"]));
    }
    rig.run_for(3_000_000);
    rig.stop();
    rig.run_until(3_000_000_000, all_stopped);
}

/// The second core stops first; requests relayed to it meanwhile are refused, not forgotten.
#[test]
fn requests_relayed_to_a_core_that_stops_are_refused() {
    let mut rig = Rig::new(Build::new(5, 2, Durability::Memory)).serve();
    let mut client = NativeClient::new(&mut rig, 0, "default");
    rig.run_for(200_000);
    let far = client.key_on(1, 1);
    assert_eq!(client.call(&mut rig, &far, put(b"v")), "done");
    rig.tell(1, crate::shard::FromControl::Stop);
    rig.run_for(2_000_000);
    let slot = client.ask(rig.now, &far, put(b"w"), None);
    rig.run_for(2_000_000);
    client.read(rig.now);
    let early = client.got.remove(&slot);
    rig.tell(0, crate::shard::FromControl::Stop);
    rig.run_until(3_000_000_000, |rig| {
        client.read(rig.now);
        all_stopped(rig)
    });
    rig.now += 1_000_000;
    client.read(rig.now);
    let said = early.or(client.got.remove(&slot));
    assert_eq!(said.as_deref(), Some("failed Unavailable"));
}
