//! RESP connections whose answers are late, whose output is full, or who are gone.

use super::resp_client::{RespClient, command};
use super::rig::{Build, Rig};
use crate::resp::limits::{CORE_BYTES_MAX, STALLED_NS};
use firebrick_partition::maps::Durability;

fn settle(rig: &mut Rig, client: &mut RespClient, limit_ns: u64) {
    rig.run_until(limit_ns, |rig| {
        client.read(rig.now);
        client.owed() == 0
    });
}

/// More commands than replies may wait: receiving is held, and goes on when answers come.
#[test]
fn a_connection_held_for_answers_goes_on() {
    for seed in 0..2 {
        let mut rig = Rig::new(Build::new(seed, 2, Durability::Sync)).serve();
        let mut client = RespClient::new(&mut rig, 0, "c");
        rig.run_for(200_000);
        rig.disk_stalled = true;
        for _ in 0..2500 {
            let mut random = super::Random(rig.random.next());
            client.any(rig.now, &mut random);
        }
        rig.run_for(5_000_000);
        client.read(rig.now);
        assert!(client.owed() > 0);
        rig.disk_stalled = false;
        settle(&mut rig, &mut client, 5_000_000_000);
        assert_eq!(client.replies, 2500);
    }
}

/// A client that sends far more than it reads is served what it read, then goes on.
#[test]
fn a_connection_that_is_full_goes_on_when_it_is_read() {
    let mut rig = Rig::new(Build::new(9, 2, Durability::Memory)).serve();
    let mut client = RespClient::new(&mut rig, 0, "c");
    let value = vec![b'x'; 50_000];
    let reply = [b"$50000\r\n", &value[..], b"\r\n"].concat();
    for n in 0..8 {
        let key = format!("big{n}");
        client.say(rig.now, &[b"SET", key.as_bytes(), &value], b"+OK\r\n", Vec::new());
    }
    for n in 0..400 {
        let key = format!("big{}", n % 8);
        client.say(rig.now, &[b"GET", key.as_bytes()], &reply, Vec::new());
    }
    client.reads_at = rig.now + 50_000_000;
    rig.run_for(50_000_000);
    let mut other = RespClient::new(&mut rig, 0, "o");
    for _ in 0..100 {
        let mut random = super::Random(rig.random.next());
        other.any(rig.now, &mut random);
    }
    settle(&mut rig, &mut other, 1_000_000_000);
    settle(&mut rig, &mut client, 5_000_000_000);
}

/// What the front takes for a number travels to the core that holds the key, also what no sum can be made of.
#[test]
fn an_infinite_increment_is_refused_by_the_core_that_holds_the_key() {
    let mut rig = Rig::new(Build::new(3, 2, Durability::Memory)).serve();
    let mut client = RespClient::new(&mut rig, 0, "c");
    let refused = b"-ERR increment would produce NaN or Infinity\r\n";
    for n in 0..16 {
        let key = format!("float{n}");
        client.say(rig.now, &[b"INCRBYFLOAT", key.as_bytes(), b"-inf"], refused, Vec::new());
    }
    settle(&mut rig, &mut client, 1_000_000_000);
    assert_eq!(client.replies, 16);
}

/// Replies of a connection that has gone do not reach the one that got its slot.
#[test]
fn late_replies_do_not_reach_the_next_connection_of_the_slot() {
    for seed in 0..3 {
        let mut rig = Rig::new(Build::new(seed, 2, Durability::Sync)).serve();
        let mut old = RespClient::new(&mut rig, 0, "old");
        rig.run_for(200_000);
        // (That its replies are small must be known, or few of them wait at a time.)
        for _ in 0..100 {
            let mut random = super::Random(rig.random.next());
            old.any(rig.now, &mut random);
        }
        settle(&mut rig, &mut old, 1_000_000_000);
        rig.disk_stalled = true;
        for _ in 0..50 {
            let mut random = super::Random(rig.random.next());
            old.any(rig.now, &mut random);
        }
        rig.run_for(1_000_000);
        old.peer.cut(rig.now);
        rig.run_for(1_000_000);
        let mut new = RespClient::new(&mut rig, 0, "new");
        assert_eq!(new.ep.slot, old.ep.slot);
        for _ in 0..50 {
            let mut random = super::Random(rig.random.next());
            new.any(rig.now, &mut random);
        }
        rig.run_for(1_000_000);
        rig.disk_stalled = false;
        settle(&mut rig, &mut new, 1_000_000_000);
        rig.run_for(10_000_000);
        new.read(rig.now);
    }
}

/// The disk stalls, and what all wait for is more than a core may keep: it is not theirs to be closed for, neither
/// meanwhile nor when the answers are there.
#[test]
fn clients_that_this_brick_keeps_waiting_are_not_closed() {
    let mut rig = Rig::new(Build::new(5, 1, Durability::Sync)).serve();
    let clients: Vec<_> = (0..40).map(|_| rig.stream(0)).collect();
    rig.run_for(200_000);
    rig.disk_stalled = true;
    let echo = vec![b'e'; 7 << 20];
    for (ep, peer) in &clients {
        let set = command(&[b"SET", format!("of {}", ep.slot).as_bytes(), b"v"]);
        peer.feed(rig.now, &[set, command(&[b"ECHO", &echo])].concat());
    }
    rig.pace.turn_ns = 1_000_000;
    rig.run_for(2 * STALLED_NS + 500_000_000);
    let bytes = rig.cores[0].shard.burden.bytes;
    assert!(bytes >= CORE_BYTES_MAX, "all of them have {bytes} bytes waiting");
    rig.disk_stalled = false;
    // (None reads at once.)
    rig.run_for(STALLED_NS / 2);
    let mut due = vec![b"+OK\r\n$7340032\r\n\r\n".len() + echo.len(); clients.len()];
    rig.run_until(5_000_000_000, |rig| {
        for ((_, peer), due) in clients.iter().zip(&mut due) {
            *due -= peer.taken(rig.now).len();
        }
        due.iter().all(|&due| due == 0) || rig.cores[0].shard.store.counts.stalled_closed > 0
    });
    assert_eq!(rig.cores[0].shard.store.counts.stalled_closed, 0);
}

/// All that a core may keep are commands that wait for it to have less: then one of them is served, and the next one.
#[test]
fn commands_that_fill_a_core_are_served_one_after_another() {
    let mut rig = Rig::new(Build::new(5, 1, Durability::Memory)).serve();
    let clients: Vec<_> = (0..40).map(|_| rig.stream(0)).collect();
    rig.run_for(200_000);
    rig.pace.turn_ns = 1_000_000;
    let echo = command(&[b"ECHO", &vec![b'e'; 7 << 20]]);
    let (most, end) = echo.split_at(echo.len() - 10);
    for (_, peer) in &clients {
        peer.feed(rig.now, most);
    }
    rig.run_for(10_000_000);
    let bytes = rig.cores[0].shard.burden.bytes;
    assert!(bytes >= CORE_BYTES_MAX, "all of them have {bytes} bytes waiting");
    for (_, peer) in &clients {
        peer.feed(rig.now, end);
    }
    let mut due = vec![b"$7340032\r\n\r\n".len() + (7 << 20); clients.len()];
    rig.run_until(5_000_000_000, |rig| {
        for ((_, peer), due) in clients.iter().zip(&mut due) {
            *due -= peer.taken(rig.now).len();
        }
        due.iter().all(|&due| due == 0)
    });
    assert_eq!(rig.cores[0].shard.store.counts.stalled_closed, 0);
}
