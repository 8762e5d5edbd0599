//! Promise: 10,000 connections are served, and 1,000 that never read harm none of the others.

use std::io::Write;
use std::time::{Duration, Instant};

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::machine::{raise_open_files, skip};
use firebrick_tests::resp::{Resp, Value, command};

const SERVED: usize = 9_000;
const DEAF: usize = 1_000;

#[test]
fn ten_thousand_connections_of_which_a_thousand_never_read() {
    if let Err(why) = raise_open_files(14_100) {
        skip("ten_thousand_connections", &why);
        return;
    }
    let mut brick = Brick::start(&Options::default());
    let mut first = brick.connect();
    let big = vec![b'b'; 256 << 10];
    assert!(first.call(&[b"SET", &b"big"[..], &big]).unwrap().is_ok());

    // The deaf ask for far more than any buffer between us holds, and never read.
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        let resp = brick.connect();
        resp.stream().set_nonblocking(true).unwrap();
        let _ = resp.stream().write(&command(&["GET", "big"]).repeat(200));
        deaf.push(resp);
    }
    let mut served: Vec<Resp> = (0..SERVED).map(|_| brick.connect()).collect();

    // All are asked before any answer is taken: 9,000 requests at once.
    let begin = Instant::now();
    for (number, resp) in served.iter_mut().enumerate() {
        let (key, value) = (format!("key:{number}"), format!("value:{number}"));
        resp.send(&command(&["SET", &key, &value])).unwrap();
        resp.send(&command(&["GET", &key])).unwrap();
    }
    for (number, resp) in served.iter_mut().enumerate() {
        assert!(resp.receive().unwrap().is_ok(), "{number}");
        let wanted = Value::Bulk(format!("value:{number}").into_bytes());
        assert_eq!(resp.receive().unwrap(), wanted);
    }
    assert!(begin.elapsed() < Duration::from_mins(1), "18,000 requests took {:?}", begin.elapsed());

    // One connection alone is quick among them.
    let begin = Instant::now();
    for _ in 0..200 {
        assert_eq!(first.ask("PING"), Value::Simple("PONG".to_owned()));
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "200 pings took {:?}", begin.elapsed());

    // What the deaf asked for is not piled up: they could ask for 50 GiB.
    let anonymous = brick.anonymous_bytes();
    assert!(anonymous < 2 << 30, "{anonymous} bytes of memory for connections that do not read");
    drop(deaf);
    for _ in 0..20 {
        assert_eq!(first.ask("PING"), Value::Simple("PONG".to_owned()));
    }
    drop(served);
    let fresh = brick.connect().ask("GET key:77");
    assert_eq!(fresh, Value::Bulk(b"value:77".to_vec()));
    assert!(brick.is_running());
    assert!(brick.stop(libc::SIGTERM).success(), "{}", brick.said());
}

#[test]
fn a_pipeline_longer_than_every_buffer_is_answered_whole() {
    let brick = Brick::start(&Options::default());
    let mut resp = brick.connect();
    let value = vec![b'v'; 50_000];
    assert!(resp.call(&[b"SET", &b"k"[..], &value]).unwrap().is_ok());
    let writer = resp.stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut writer = writer;
            writer
                .write_all(&command(&["GET", "k"]).repeat(4000))
                .expect("all is taken in the end");
        });
        std::thread::sleep(Duration::from_millis(300));
        for number in 0..4000 {
            assert!(resp.receive().unwrap() == Value::Bulk(value.clone()), "{number}");
        }
    });
}
