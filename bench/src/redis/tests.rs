use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use firebrick_net::poll::Mode;

use super::reply::{Reply, command};
use super::{RedisOptions, run};
use crate::load::LoadOptions;
use crate::null::{Null, NullOptions};

fn options(address: SocketAddr) -> RedisOptions {
    RedisOptions {
        connect: address.to_string(),
        connections: 5,
        load: LoadOptions {
            keys: 100,
            warm_up: Duration::from_millis(20),
            time: Duration::from_millis(200),
            poll: Mode::Park,
            ..LoadOptions::default()
        },
        ..RedisOptions::default()
    }
}

#[test]
fn every_answer_is_counted() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let null = NullOptions { listen: any, resp: Some(any), core: None, poll: Mode::Park };
    let null = Null::start(null).unwrap();
    let mut told = 0;
    let report = run(&options(null.resp().unwrap()), &mut |_| told += 1).unwrap();
    assert_eq!((report.errors, report.misses, report.in_flight), (0, 0, 5));
    assert!(report.gets.count > 100 && report.puts.count > 100, "{report:?}");
    assert_eq!(report.all.count, report.gets.count + report.puts.count);
    assert!(told > 0);
}

/// A server that answers each chunk that it receives with this.
fn serve(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while stream.read(&mut chunk).is_ok_and(|n| n > 0) {
                    for piece in answer.chunks(3) {
                        // The load may be gone.
                        let _ = stream.write_all(piece);
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_put_waits_for_its_replicas_and_fewer_are_a_failure() {
    let puts = |address| {
        let mut options = RedisOptions { replicas: Some(2), ..options(address) };
        options.load.read_share = 0.0;
        options
    };
    let report = run(&puts(serve(b"+OK\r\n:2\r\n")), &mut |_| {}).unwrap();
    assert!(report.errors == 0 && report.puts.count > 10, "{report:?}");
    let report = run(&puts(serve(b"+OK\r\n:1\r\n")), &mut |_| {}).unwrap();
    assert!(report.errors > 10 && report.puts.count == 0, "{report:?}");
    assert_eq!(report.first_error.as_deref(), Some("1 replicas have it"));
    let report = run(&puts(serve(b"-ERR no\r\n:2\r\n")), &mut |_| {}).unwrap();
    assert_eq!(report.first_error.as_deref(), Some("ERR no"));
}

#[test]
fn what_is_no_server_is_said() {
    let mut wrong = options(serve(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    wrong.load.read_share = 0.0;
    let said = run(&wrong, &mut |_| {}).unwrap_err().to_string();
    assert!(said.contains("does not speak RESP") && said.contains("HTTP/1.1"), "{said}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = run(&options(nobody), &mut |_| {}).unwrap_err().to_string();
    assert!(said.contains("refused") && said.contains("is a server running there?"), "{said}");
    let none = RedisOptions { connections: 0, ..options(nobody) };
    assert!(run(&none, &mut |_| {}).unwrap_err().to_string().contains("0 connections"));
}

#[test]
fn replies_are_read_whole_or_not_at_all() {
    let text = b"+OK\r\n-ERR x\r\n:17\r\n$3\r\na\r\n\r\n$-1\r\n";
    let wanted = [
        Reply::Simple,
        Reply::Error("ERR x".to_owned()),
        Reply::Integer(17),
        Reply::Bulk(3),
        Reply::Null,
    ];
    let mut at = 0;
    for reply in wanted {
        let (found, len) = Reply::parse(&text[at..]).unwrap().unwrap();
        assert_eq!(found, reply);
        for short in 0..len {
            assert_eq!(Reply::parse(&text[at..at + short]), Ok(None));
        }
        at += len;
    }
    assert_eq!(at, text.len());
    assert!(Reply::parse(b"$-2\r\n").is_err() && Reply::parse(b":x\r\n").is_err());
    let mut out = Vec::new();
    command(&mut out, &[b"GET", b"k\r\n"]);
    assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\nk\r\n\r\n");
}
