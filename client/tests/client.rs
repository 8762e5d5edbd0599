//! The asynchronous client against a brick on a real socket, healthy and not.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod brick;

use std::time::{Duration, Instant};

use brick::store::Store;
use brick::{Brick, Fault};
use firebrick_client::{
    Client, Condition, Declined, Error, Options, PutOptions, Table, VALUE_BYTES_MAX,
};

async fn table(brick: &Brick) -> Table {
    Client::connect(brick.address()).await.unwrap().table("default").await.unwrap()
}

fn short(deadline_ms: u64) -> Options {
    Options { deadline: Duration::from_millis(deadline_ms), ..Options::default() }
}

fn overdue(ms: u64, brick: &Brick) -> Error {
    Error::Deadline { ms, from: Some(format!("test ({})", brick.address).into()) }
}

#[tokio::test]
async fn every_operation_does_what_it_says() {
    let brick = Brick::start(Fault::None);
    let t = table(&brick).await;
    assert_eq!(t.get("k").await.unwrap(), None);
    let first = t.put("k", "v").await.unwrap();
    let value = t.get(b"k").await.unwrap().unwrap();
    assert_eq!((value.bytes.as_slice(), value.version, value.expires_ms), (&b"v"[..], first, None));
    assert!(t.exists("k").await.unwrap());

    assert_eq!(t.put_if_absent("k", "w").await, Err(Error::Exists { current: first }));
    let second = t.put_if_version("k", "w", first).await.unwrap();
    let mismatch = Error::VersionMismatch { current: Some(second) };
    assert_eq!(t.put_if_version("k", "x", first).await, Err(mismatch));
    let gone = Error::VersionMismatch { current: None };
    assert_eq!(t.put_if_version("nothing", "x", first).await, Err(gone));
    let present = PutOptions { condition: Condition::Present, ..PutOptions::default() };
    assert_eq!(t.put_with("nothing", "x", present).await, Err(Error::Absent));

    assert_eq!(t.append("k", "yz").await.unwrap(), 3);
    assert_eq!(t.increment("k", 1).await, Err(Error::NotInteger));
    assert_eq!(t.increment("n", i64::MAX).await.unwrap(), i64::MAX);
    assert_eq!(t.increment("n", 1).await, Err(Error::Overflow));
    assert!(t.remove("k").await.unwrap());
    assert!(!t.remove("k").await.unwrap());

    // A number is its 8 little-endian bytes.
    t.put(7u64, "seven").await.unwrap();
    assert_eq!(t.get(&[7, 0, 0, 0, 0, 0, 0, 0]).await.unwrap().unwrap().bytes, b"seven");
}

#[tokio::test]
async fn many_at_once_and_the_whole_table() {
    let brick = Brick::start(Fault::None);
    let t = table(&brick).await;
    // Far more than the window of 64 a partition and than the requests in flight.
    let stored = t.put_many((0..3000u64).map(|n| (n, n.to_string()))).await;
    assert!(stored.iter().all(Result::is_ok));
    let values = t.get_many(0..3001u64).await.unwrap();
    assert_eq!(values[2999].as_ref().unwrap().bytes, b"2999");
    assert_eq!(values[3000], None);
    assert_eq!(t.count().await.unwrap(), 3000);

    let mut scan = t.scan().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(key) = scan.next().await.unwrap() {
        assert!(seen.insert(key));
    }
    assert_eq!(seen.len(), 3000);

    let removed = t.remove_many([5u64, 5000]).await;
    assert_eq!(removed, [Ok(true), Ok(false)]);
    t.clear().await.unwrap();
    assert_eq!(t.count().await.unwrap(), 0);
}

#[tokio::test]
async fn control_requests_and_tables() {
    let brick = Brick::start(Fault::None);
    let client = Client::connect(brick.address()).await.unwrap();
    assert_eq!(client.status().await.unwrap(), r#"{"name":"test"}"#);
    let refused = Error::Control {
        kind: Declined::Refused,
        text: "there is no such command: look at the docs".into(),
    };
    assert_eq!(client.tables().await, Err(refused));
    let error = client.table("orders").await.unwrap_err();
    assert!(error.to_string().starts_with("there is no table orders: create it with"), "{error}");
}

#[tokio::test]
async fn no_brick_there() {
    // Bound and closed: the port is free.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::connect(address.to_string()).await.unwrap_err();
    let sentence = format!("no brick answers at {address} (");
    assert!(error.to_string().starts_with(&sentence), "{error}");
    let error = Client::connect("no such host").await.unwrap_err();
    assert!(matches!(error, Error::Connection { .. }), "{error}");
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_is_of_another_version() {
    let brick = Brick::start(Fault::Mute);
    let options = Options { silence: Duration::from_millis(50), ..Options::default() };
    let error = Client::connect_with(brick.address(), options).await.unwrap_err();
    assert!(error.to_string().contains("no answer within 50 ms"), "{error}");

    let brick = Brick::start(Fault::Version);
    let error = Client::connect(brick.address()).await.unwrap_err();
    assert!(matches!(&error, Error::Protocol(what) if what.contains("version 9")), "{error}");
}

#[tokio::test]
async fn a_brick_that_never_answers_costs_one_deadline() {
    let brick = Brick::start(Fault::NeverAnswers);
    let client = Client::connect_with(brick.address(), short(150)).await.unwrap();
    let t = client.table("default").await.unwrap();
    let began = Instant::now();
    assert_eq!(t.get("k").await, Err(overdue(150, &brick)));
    // The session for writes never opened, so the put was never sent.
    assert_eq!(t.put("k", "v").await, Err(overdue(150, &brick)));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(3), "{took:?}");

    // Without numbers it was sent, and nobody knows.
    let options = Options { exactly_once: false, ..short(150) };
    let t = Client::connect_with(brick.address(), options).await.unwrap();
    let t = t.table("default").await.unwrap();
    assert_eq!(t.put("k", "v").await, Err(Error::InDoubt));
    // One handle may have more time than another.
    let began = Instant::now();
    let patient = t.with_deadline(Duration::from_millis(300));
    assert_eq!(patient.get("k").await, Err(overdue(300, &brick)));
    assert!(began.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let brick = Brick::start(Fault::FallsSilent);
    let options = Options { silence: Duration::from_millis(50), ..short(1500) };
    let t = Client::connect_with(brick.address(), options).await.unwrap();
    let t = t.table("default").await.unwrap();
    let error = t.get("k").await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(brick.accepted() > 2, "only {} connections", brick.accepted());
}

#[tokio::test]
async fn a_brick_that_dies_in_mid_frame_gets_the_write_once() {
    let brick = Brick::start(Fault::DiesInMidFrame(3));
    let t = table(&brick).await;
    // Applied at the first try, and its answer cut: the retries must not append again.
    assert_eq!(t.append("k", "once").await.unwrap(), 4);
    assert_eq!(t.get("k").await.unwrap().unwrap().bytes, b"once");
    assert!(brick.accepted() >= 4);

    // Without numbers there is no retry.
    let brick = Brick::start(Fault::DiesInMidFrame(1));
    let options = Options { exactly_once: false, ..Options::default() };
    let t = Client::connect_with(brick.address(), options).await.unwrap();
    let t = t.table("default").await.unwrap();
    assert_eq!(t.append("k", "once").await, Err(Error::InDoubt));
    assert_eq!(t.append("k", "twice").await.unwrap(), 9);
}

#[tokio::test]
async fn garbage_is_an_error_not_a_panic() {
    let brick = Brick::start(Fault::Garbage);
    let t = Client::connect_with(brick.address(), short(200)).await.unwrap();
    let t = t.table("default").await.unwrap();
    let error = t.get("k").await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_) | Error::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn too_large_is_refused_here() {
    let brick = Brick::start(Fault::None);
    // It is about sizes: a busy machine may take its time over them.
    let client = Client::connect_with(brick.address(), short(30_000)).await.unwrap();
    let t = client.table("default").await.unwrap();
    let seen = brick.store.with(|store| store.seen);
    let error = t.put("k", vec![0; VALUE_BYTES_MAX + 1]).await.unwrap_err();
    let bytes = VALUE_BYTES_MAX + 1;
    assert_eq!(error, Error::TooLarge { what: "value", bytes, limit: VALUE_BYTES_MAX });
    let error = t.get(vec![0; 40_000]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "key", bytes: 40_000, .. }));
    assert_eq!(brick.store.with(|store| store.seen), seen, "nothing was sent");
    // The largest fits.
    t.put("k", vec![7; VALUE_BYTES_MAX]).await.unwrap();
    assert_eq!(t.get("k").await.unwrap().unwrap().bytes.len(), VALUE_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_are_kept_when_the_brick_is_killed_and_started_again() {
    let brick = Brick::start(Fault::None);
    let address = brick.address;
    let options = Options { connections: 2, in_flight: 50, ..Options::default() };
    let client = Client::connect_with(address.to_string(), options).await.unwrap();
    let t = client.table("default").await.unwrap();
    let tasks: Vec<_> = (0..8u8)
        .map(|task| {
            let t = t.clone();
            tokio::spawn(async move {
                for n in 1..=200u64 {
                    let len = t.append([b'k', task].as_slice(), "x").await.unwrap();
                    assert_eq!(len, n, "applied twice, or lost");
                }
            })
        })
        .collect();
    let mut brick = Some(brick);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let store = brick.take().unwrap().kill();
        tokio::time::sleep(Duration::from_millis(10)).await;
        store.with(Store::next_epoch);
        brick = Some(Brick::start_at(address, Fault::None, store));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_dead_brick_is_named_when_the_deadline_comes() {
    let brick = Brick::start(Fault::None);
    let t = Client::connect_with(brick.address(), short(200)).await.unwrap();
    let t = t.table("default").await.unwrap();
    let address = brick.address();
    drop(brick);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = t.get("k").await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("no brick answers at {address}")), "{error}");
}
