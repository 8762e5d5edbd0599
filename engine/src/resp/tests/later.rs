//! Answers that come later, from other cores: order, bounds, and steps that wait.

use super::replicas::{Replicas, partition_of};
use super::{Peer, Random, command};
use crate::resp::{Backend, Progress, limits};
use firebrick_partition::Now;

fn peer(remote: u64) -> Peer {
    let mut store = Replicas::new(Now { boot_ns: 5, unix_ms: 1_700_000_000_000 });
    store.remote = remote;
    Peer::new(store)
}

/// The same commands get the same replies wherever the partitions live and whenever they answer.
#[test]
fn replies_do_not_depend_on_where_the_partitions_live() {
    let mut random = Random(99);
    for round in 0..300 {
        let mut bytes = Vec::new();
        let count = 1 + random.below(200);
        for _ in 0..count {
            bytes.extend_from_slice(&super::differential::any_command(&mut random).encode());
        }
        let mut replies = Vec::new();
        for remote in [0, 15, 5, 8] {
            let mut peer = peer(remote);
            peer.room = if round % 3 == 0 { 200 } else { 1 << 20 };
            let progress = peer.send(&bytes);
            assert_eq!(progress, Progress::Ok, "round {round}");
            assert_eq!(peer.conn.outstanding(), 0);
            assert_eq!(peer.conn.held_bytes(), 0);
            replies.push(peer.out);
        }
        for reply in &replies[1..] {
            assert_eq!(
                String::from_utf8_lossy(reply),
                String::from_utf8_lossy(&replies[0]),
                "round {round}"
            );
        }
    }
}

#[test]
fn a_reply_waits_for_the_one_before_it() {
    let mut peer = peer(0);
    let key =
        (0..1000u32).map(|n| n.to_string()).find(|k| partition_of(k.as_bytes()) == 2).unwrap();
    peer.store.remote = 4;
    let bytes = [command(&[b"GET", key.as_bytes()]), command(&[b"PING"])].concat();
    let progress = peer.conn.on_bytes(&bytes, 1 << 20, &mut peer.store, &mut peer.out);
    assert_eq!(progress, Progress::Ok);
    assert!(peer.out.is_empty(), "PONG would overtake");
    peer.settle();
    assert_eq!(peer.out, b"$-1\r\n+PONG\r\n");
}

#[test]
fn what_is_owed_and_kept_is_bounded() {
    let mut peer = peer(15);
    let bytes = command(&[b"GET", b"k"]).repeat(5000);
    let progress = peer.conn.on_bytes(&bytes, 1 << 20, &mut peer.store, &mut peer.out);
    assert!(matches!(progress, Progress::Waiting | Progress::Again), "{progress:?}");
    for _ in 0..3 {
        let progress = peer.conn.resume(1 << 20, &mut peer.store, &mut peer.out);
        assert_eq!(progress, Progress::Waiting);
    }
    let submitted = peer.store.submitted as usize;
    assert!(submitted <= limits::REPLIES_WAITING_MAX, "{submitted} submitted");
    peer.last = progress;
    assert_eq!(peer.settle(), Progress::Ok);
    assert_eq!(peer.out, b"$-1\r\n".repeat(5000));
}

/// How many replies may be on their way depends on how large they may be, by those that came.
#[test]
fn few_replies_are_on_their_way_while_they_may_be_large() {
    let mut peer = peer(15);
    peer.ask(&[b"SET", b"large", &vec![b'v'; 4 << 20]]);
    let mut under_way = |key: &[u8], times| {
        let before = peer.store.submitted;
        let bytes = command(&[b"GET", key]).repeat(times);
        peer.last = peer.conn.on_bytes(&bytes, 1 << 20, &mut peer.store, &mut peer.out);
        let submitted = peer.store.submitted - before;
        assert_eq!(peer.settle(), Progress::Ok);
        let len = peer.out.len();
        peer.out.clear();
        (submitted, len)
    };
    let first = under_way(b"large", 20).0;
    assert!((8..=10).contains(&first), "{first}: little is known of a new connection's replies");
    let (submitted, len) = under_way(b"large", 20);
    assert_eq!((submitted, len), (4, 20 * ((4 << 20) + 12)));
    under_way(b"small", 100);
    assert_eq!(under_way(b"small", 900).0, 900);
    under_way(b"large", 2);
    assert_eq!(under_way(b"large", 20).0, 4);
}

#[test]
fn a_connection_without_an_answer_is_given_up() {
    let mut peer = peer(15);
    assert_eq!(peer.conn.gives_up_ns(), None);
    let bytes = command(&[b"GET", b"k"]).repeat(3);
    peer.conn.on_bytes(&bytes, 1 << 20, &mut peer.store, &mut peer.out);
    assert_eq!(peer.conn.gives_up_ns(), Some(5 + limits::ANSWER_NS_MAX));
    assert_eq!(peer.conn.give_up(&mut peer.out), Progress::Close);
    assert!(peer.out.starts_with(b"-TRYAGAIN no answer came") && peer.out.ends_with(b"\r\n"));
    assert_eq!((peer.conn.outstanding(), peer.conn.gives_up_ns()), (0, None));
    let told = peer.out.len();
    peer.settle();
    let ping = command(&[b"PING"]);
    let progress = peer.conn.on_bytes(&ping, 1 << 20, &mut peer.store, &mut peer.out);
    assert_eq!((progress, peer.out.len()), (Progress::Close, told), "nothing is said behind it");
}

#[test]
fn a_client_that_does_not_read_is_not_served_further() {
    let mut peer = peer(0);
    peer.ask(&[b"SET", b"k", &[b'v'; 1000]]);
    let served = peer.store.submitted;
    let bytes = command(&[b"GET", b"k"]).repeat(500);
    for _ in 0..3 {
        let progress = peer.conn.on_bytes(&bytes, 10_000, &mut peer.store, &mut peer.out);
        assert_eq!(progress, Progress::Full);
    }
    assert!(peer.out.len() < 12_000 && peer.store.submitted - served < 20);
    assert_eq!(peer.conn.resume(10_000, &mut peer.store, &mut peer.out), Progress::Full);
    peer.last = Progress::Full;
    assert_eq!(peer.settle(), Progress::Ok);
    assert_eq!(peer.out.len(), 1500 * 1009);
}

#[test]
fn many_keys_go_in_steps() {
    for remote in [0, 15, 6] {
        let mut peer = peer(remote);
        let keys: Vec<String> = (0..1000).map(|n| format!("key:{n}")).collect();
        let mut set: Vec<&[u8]> = vec![b"MSET"];
        let mut get: Vec<&[u8]> = vec![b"MGET"];
        for key in &keys {
            set.extend([key.as_bytes(), key.as_bytes()]);
            get.push(key.as_bytes());
        }
        let bytes = [command(&set), command(&get)].concat();
        let mut want = b"+OK\r\n*1000\r\n".to_vec();
        for key in &keys {
            want.extend_from_slice(format!("${}\r\n{key}\r\n", key.len()).as_bytes());
        }
        peer.last = peer.conn.on_bytes(&bytes, 1 << 20, &mut peer.store, &mut peer.out);
        assert!(peer.store.submitted <= limits::KEYS_PER_STEP as u64, "one step a call");
        peer.settle();
        assert_eq!(peer.out, want);
        peer.out.clear();
        assert_eq!(peer.say("DBSIZE"), ":1000\r\n");
        let all = peer.say("KEYS key:*");
        assert!(all.starts_with("*1000\r\n") && keys.iter().all(|k| all.contains(k)));
        assert!(peer.say("RANDOMKEY").contains("key:"));
        assert_eq!(
            scan_all(&mut peer, "MATCH *9*"),
            keys.iter().filter(|k| k.contains('9')).count()
        );
        assert_eq!(scan_all(&mut peer, "TYPE hash"), 0);
        get[0] = b"UNLINK";
        assert_eq!(peer.ask(&get), b":1000\r\n");
        assert_eq!(peer.say("DBSIZE"), ":0\r\n");
        assert_eq!(peer.say("RANDOMKEY"), "$-1\r\n");
    }
}

fn scan_all(peer: &mut Peer, filter: &str) -> usize {
    let (mut cursor, mut found) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let reply = peer.say(&format!("SCAN {cursor} COUNT 37 {filter}"));
        let lines: Vec<&str> = reply.split("\r\n").collect();
        found.extend(lines[4..].iter().filter(|l| l.starts_with("key:")).map(ToString::to_string));
        cursor = lines[2].to_owned();
        if cursor == "0" {
            return found.len();
        }
    }
}

#[test]
fn an_answer_that_nobody_awaits_is_ignored() {
    let mut peer = peer(0);
    let token = crate::resp::ReplyToken::new(7, 0x63);
    let now = peer.store.now();
    let answer = firebrick_partition::Answer::Absent;
    assert_eq!(peer.conn.on_answer(token, answer, now, &mut peer.out), Progress::Ok);
    assert!(peer.out.is_empty());
}

#[test]
fn large_values_go_in_steps_and_a_huge_reply_is_refused() {
    for remote in [0, 15] {
        let mut peer = peer(remote);
        let value = vec![b'v'; 1 << 20];
        let keys: Vec<String> = (0..9).map(|n| format!("key:{n}")).collect();
        let mut set: Vec<&[u8]> = vec![b"MSET"];
        for key in &keys {
            set.extend([key.as_bytes(), &value]);
        }
        assert_eq!(peer.ask(&set), b"+OK\r\n");
        let mut get: Vec<&[u8]> = vec![b"MGET"];
        get.extend(keys.iter().map(String::as_bytes));
        let served = peer.store.submitted;
        peer.last = peer.conn.on_bytes(&command(&get), 1 << 20, &mut peer.store, &mut peer.out);
        if remote == 0 {
            assert_eq!(peer.store.submitted - served, 1, "a megabyte is more than a step");
        }
        peer.settle();
        assert_eq!(peer.out.len(), 4 + 9 * ((1 << 20) + 12));
        peer.out.clear();
        let many: Vec<&[u8]> = get.iter().copied().chain([&b"key:1"[..]; 60]).collect();
        let reply = String::from_utf8(peer.ask(&many)).unwrap();
        assert!(
            reply.starts_with("-ERR TooLarge: a reply of more than 67108864 bytes"),
            "{remote}"
        );
        assert_eq!(peer.say("PING"), "+PONG\r\n");
    }
}
