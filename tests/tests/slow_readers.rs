//! Promise: connections, requests and bytes in flight are bounded. A client that does not read is not served
//! further; it costs little memory and harms nobody.

use std::io::Write;
use std::time::{Duration, Instant};

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::cluster::{Cluster, Shape};
use firebrick_tests::machine::growth_while;
use firebrick_tests::resp::{Resp, Value, command};

const BIG: usize = 8 << 20;

/// Asks for `times` answers without reading any, as far as the brick takes the requests.
fn ask_and_never_read(brick: &Brick, request: &[u8], times: usize) -> Resp {
    let resp = brick.connect();
    resp.stream().set_nonblocking(true).expect("the brick answers");
    let bytes = request.repeat(times);
    let (mut at, begin) = (0, Instant::now());
    while at < bytes.len() && begin.elapsed() < Duration::from_millis(300) {
        match resp.stream().write(&bytes[at..]) {
            Ok(sent) => at += sent,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    resp
}

fn is_quick(resp: &mut Resp, what: &str) {
    let begin = Instant::now();
    for number in 0..100 {
        let set = resp.ask(&format!("SET quick:{number} {number}"));
        assert!(set.is_ok(), "{what}: {set:?}");
        let found = resp.ask(&format!("GET quick:{number}"));
        assert_eq!(found, Value::Bulk(number.to_string().into_bytes()));
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{what}: {:?}", begin.elapsed());
}

fn a_hundred_thousand_commands(cores: &'static str) {
    let brick = Brick::start(&Options { cores, ..Options::default() });
    let mut other = brick.connect();
    assert!(other.call(&[b"SET", &b"k"[..], &[b'v'; 1000]]).expect("the brick answers").is_ok());
    let before = brick.anonymous_bytes();
    let get = command(&["GET", "k"]);
    let set = command(&["SET", "n", "1"]);
    let deaf: Vec<Resp> = (0..10)
        .map(|n| ask_and_never_read(&brick, if n % 2 == 0 { &get } else { &set }, 100_000))
        .collect();
    is_quick(&mut other, "beside ten that never read");
    let grown = brick.anonymous_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "ten connections that never read cost {grown} bytes");
    drop(deaf);
    is_quick(&mut other, "when they are gone");
}

#[test]
fn a_hundred_thousand_commands_and_nobody_reads() {
    a_hundred_thousand_commands("0");
}

#[test]
fn a_hundred_thousand_commands_and_nobody_reads_with_two_data_cores() {
    a_hundred_thousand_commands("0-1");
}

/// 1000 GETs of 8 MiB: 8 GiB are asked for, by each of several.
fn giants(cores: &'static str, durability: &'static str) {
    let brick = Brick::start(&Options { cores, durability, ..Options::default() });
    let mut other = brick.connect();
    let value = vec![b'g'; BIG];
    let keys: Vec<String> = (0..4).map(|n| format!("giant:{n}")).collect();
    for key in &keys {
        let set = other.call(&[b"SET", key.as_bytes(), &value[..]]).expect("the brick answers");
        assert!(set.is_ok(), "{set:?}");
    }
    let before = brick.anonymous_bytes();
    let gets: Vec<u8> = keys.iter().flat_map(|key| command(&["GET", key])).collect();
    let deaf: Vec<Resp> = (0..4).map(|_| ask_and_never_read(&brick, &gets, 250)).collect();
    is_quick(&mut other, "beside four that ask for 8 GiB each");
    let grown = brick.anonymous_bytes().saturating_sub(before);
    assert!(grown < 400 << 20, "four connections that never read cost {} MiB", grown >> 20);
    // One that reads slowly gets everything.
    let mut slow = brick.connect();
    slow.send(&gets.repeat(5)).expect("the brick answers");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        assert!(slow.receive().expect("the brick answers") == Value::Bulk(value.clone()));
    }
    drop(deaf);
}

#[test]
fn giants_that_nobody_reads() {
    giants("0", "memory");
}

#[test]
fn giants_that_nobody_reads_with_two_data_cores() {
    giants("0-1", "memory");
}

fn store(resp: &mut Resp, key: &str, len: usize) {
    let set = resp.call(&[b"SET", key.as_bytes(), &vec![b'g'; len]]).expect("the brick answers");
    assert!(set.is_ok(), "{set:?}");
}

/// One connection asks for 9 GiB in one pipeline and reads nothing: most of it waits as requests, whichever core has the
/// value. When it reads, it gets all that it asked for.
#[test]
fn a_pipeline_of_giants_is_served_as_it_is_read() {
    let brick = Brick::start(&Options { cores: "0-1", ..Options::default() });
    let mut other = brick.connect();
    // (Whichever core a connection comes to, half of these are the other's.)
    let gets: Vec<u8> = (0..4).flat_map(|n| command(&["GET", &format!("giant:{n}")])).collect();
    let (grown, mut deaf) = growth_while(brick.pid(), || {
        (0..4).for_each(|n| store(&mut other, &format!("giant:{n}"), BIG));
        let deaf = ask_and_never_read(&brick, &gets, 300);
        is_quick(&mut other, "beside one that asks for 9 GiB");
        deaf
    });
    eprintln!("a pipeline that nobody reads costs {} MiB", grown >> 20);
    assert!(grown < 128 << 20, "a pipeline that nobody reads costs {} MiB", grown >> 20);
    deaf.stream().set_nonblocking(false).expect("a socket");
    for n in 0..50 {
        let got = deaf.receive().unwrap_or_else(|error| panic!("value {n}: {error}"));
        assert!(got == Value::Bulk(vec![b'g'; BIG]), "value {n}");
    }
}

/// Small replies, so that large ones are not expected, and then as many large ones as may wait.
#[test]
fn giants_that_are_not_expected_cost_what_one_connection_may() {
    let brick = Brick::start(&Options { cores: "0-1", ..Options::default() });
    let mut other = brick.connect();
    let small: Vec<u8> = (0..1500).flat_map(|n| command(&["GET", &format!("no:{n}")])).collect();
    let gets: Vec<u8> = (0..4).flat_map(|n| command(&["GET", &format!("giant:{n}")])).collect();
    let (grown, deaf) = growth_while(brick.pid(), || {
        (0..4).for_each(|n| store(&mut other, &format!("giant:{n}"), BIG));
        let deaf = ask_and_never_read(&brick, &[small, gets.repeat(300)].concat(), 1);
        is_quick(&mut other, "beside one that asks for 9 GiB");
        deaf
    });
    eprintln!("giants that were not expected cost {} MiB", grown >> 20);
    assert!(grown < 256 << 20, "giants that were not expected cost {} MiB", grown >> 20);
    drop(deaf);
}

/// Each of many that do not read may have a reply waiting: together they have what a core may.
#[test]
fn many_that_read_no_giants_cost_what_a_core_may() {
    let brick = Brick::start(&Options { cores: "0", ..Options::default() });
    let mut other = brick.connect();
    store(&mut other, "giant", BIG);
    let get = command(&["GET", "giant"]);
    let (grown, deaf) = growth_while(brick.pid(), || {
        let ask = |_| {
            let mut deaf = brick.connect();
            deaf.send(&get.repeat(20)).expect("the brick takes it");
            deaf
        };
        let deaf: Vec<_> = (0..150).map(ask).collect();
        is_quick(&mut other, "beside a hundred and fifty that ask for giants");
        deaf
    });
    eprintln!("a hundred and fifty that do not read cost {} MiB", grown >> 20);
    assert!(grown < 640 << 20, "a hundred and fifty that do not read cost {} MiB", grown >> 20);
    // Who takes nothing for two seconds is closed, and so there is room for who reads.
    std::thread::sleep(Duration::from_secs(3));
    assert!(brick.metric("firebrick_stalled_closed_total") > 0.0, "nobody was closed");
    let found = brick.connect().call(&["GET", "giant"]).expect("the brick answers");
    assert!(found == Value::Bulk(vec![b'g'; BIG]));
    drop(deaf);
    store(&mut other, "giant", BIG);
    is_quick(&mut other, "when they are gone");
}

/// The same where another brick has the value. (Smaller ones: a brick that is built to be debugged works on a giant for
/// so long that others miss it.)
#[test]
fn a_pipeline_of_giants_of_another_brick_costs_neither_much() {
    let test = "a_pipeline_of_giants_of_another_brick_costs_neither_much";
    let Some(cluster) = Cluster::for_test(test, &Shape::default()) else { return };
    let key = cluster.key_of(|group| group[0] == 1);
    let connect = || Resp::connect(cluster.resp(0)).expect("a connection");
    let mut other = connect();
    store(&mut other, &key, BIG / 32);
    let gets = command(&["GET", &key]).repeat(1100);
    let (there, (here, deaf)) = growth_while(cluster.pid(1), || {
        growth_while(cluster.pid(0), || {
            let mut deaf = connect();
            deaf.send(&gets).expect("the brick takes it");
            is_quick(&mut other, "beside a pipeline of another brick's values");
            deaf
        })
    });
    eprintln!("a pipeline that nobody reads costs {} and {} MiB", here >> 20, there >> 20);
    assert!(here < 96 << 20, "it costs the brick that passes it on {} MiB", here >> 20);
    assert!(there < 64 << 20, "it costs the brick that has the value {} MiB", there >> 20);
    let mut deaf = deaf;
    for n in 0..20 {
        let got = deaf.receive().unwrap_or_else(|error| panic!("value {n}: {error}"));
        assert!(got == Value::Bulk(vec![b'g'; BIG / 32]), "value {n}: {:?}", got.error());
    }
}

#[test]
fn connections_past_the_limit_are_closed_and_counted() {
    let config = "[limits]\nconnections_max = 40\n";
    let brick = Brick::start(&Options { config, ..Options::default() });
    let mut open: Vec<Resp> = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        let mut resp = brick.connect();
        match resp.call(&["PING"]) {
            Ok(_) => open.push(resp),
            Err(_) => refused += 1,
        }
    }
    // (The last sixteenth of the places is not for RESP.)
    assert!((36..=38).contains(&open.len()), "{} connections are open", open.len());
    assert_eq!(refused, 60 - open.len());
    let begin = Instant::now();
    while brick.metric("firebrick_connections_refused_total") < refused as f64 {
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(20), "{refused} were refused and not counted");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The others go on, and who leaves makes room.
    for resp in &mut open {
        assert_eq!(resp.ask("PING"), Value::Simple("PONG".to_owned()));
    }
    open.truncate(20);
    let begin = Instant::now();
    while brick.connect().call(&["PING"]).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "no room after others have left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As `printf .. | nc -N` does. With `sync` every reply of a write comes later than the end.
#[test]
fn a_client_that_has_said_all_gets_every_reply() {
    let brick = Brick::start(&Options { durability: "sync", ..Options::default() });
    let mut resp = brick.connect();
    let lines = (0..200).map(|n| format!("SET k{n} v{n}\r\nGET k{n}\r\n"));
    // (The last is only begun.)
    let said = lines.collect::<String>() + "SET k0 not";
    resp.send(said.as_bytes()).expect("the brick reads");
    resp.stream().shutdown(std::net::Shutdown::Write).expect("the connection is open");
    for n in 0..200 {
        assert!(resp.receive().expect("a reply of SET").is_ok());
        let value = resp.receive().expect("a reply of GET");
        assert_eq!(value, Value::Bulk(format!("v{n}").into_bytes()));
    }
    let end = resp.receive().expect_err("the brick closes the connection");
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "{end}");
    assert_eq!(brick.connect().ask("GET k0"), Value::Bulk(b"v0".to_vec()));
}
