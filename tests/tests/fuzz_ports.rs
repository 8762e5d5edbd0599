//! Promise: whatever arrives at a port is answered with an error or a closed connection: no panic, no leak,
//! and other connections notice nothing. (The parsers alone take millions of cases in their own crates; here
//! the whole brick takes what they would have let through.)

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::random::Random;
use firebrick_tests::resp::{Resp, Value, command};

/// Connections of one fuzz test; `$FIREBRICK_FUZZ_CASES` for a long run.
fn cases() -> u64 {
    std::env::var("FIREBRICK_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2500)
}

/// A client that must not notice anything.
struct Canary {
    resp: Resp,
    number: u64,
}

impl Canary {
    fn new(brick: &Brick) -> Self {
        Self { resp: brick.connect(), number: 0 }
    }

    fn sing(&mut self) {
        self.number += 1;
        let begin = Instant::now();
        let value = format!("{}", self.number);
        assert!(self.resp.ask(&format!("SET canary {value}")).is_ok());
        assert_eq!(self.resp.ask("GET canary"), Value::Bulk(value.into_bytes()));
        assert!(begin.elapsed() < Duration::from_secs(10), "a canary waited {:?}", begin.elapsed());
    }
}

/// Sends bytes, in two pieces at times, and takes what comes until the brick closes or is silent.
fn throw(address: SocketAddr, bytes: &[u8], random: &mut Random) {
    let mut stream = TcpStream::connect(address).expect("the port accepts");
    stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let cut = random.below(bytes.len() as u64 + 1) as usize;
    let sent = stream.write_all(&bytes[..cut]).and_then(|()| stream.write_all(&bytes[cut..]));
    if sent.is_ok() && random.below(4) == 0 {
        let _ = stream.shutdown(Shutdown::Write);
    }
    if random.below(3) == 0 {
        let mut sink = [0; 4096];
        while stream.read(&mut sink).is_ok_and(|got| got > 0) {}
    }
}

/// Throws cases at a port, with the canary singing in between; then looks at the brick's health.
fn fuzz(port: fn(&Brick) -> SocketAddr, case: impl Fn(&mut Random) -> Vec<u8>) {
    let mut random = Random::from_environment();
    let mut brick = Brick::start(&Options::default());
    let mut canary = Canary::new(&brick);
    let mut after_warm_up = 0;
    for number in 0..cases() {
        throw(port(&brick), &case(&mut random), &mut random);
        if number % 16 == 0 {
            canary.sing();
        }
        if number == cases() / 4 {
            after_warm_up = brick.anonymous_bytes();
        }
    }
    canary.sing();
    assert!(brick.is_running(), "{}", brick.said());
    assert!(!brick.said().contains("panicked"), "{}", brick.said());
    let grown = brick.anonymous_bytes().saturating_sub(after_warm_up);
    assert!(grown < 24 << 20, "{} cases cost {grown} bytes of memory", cases());
    assert!(brick.stop(libc::SIGTERM).success(), "{}", brick.said());
}

/// Takes bytes away, adds some, flips some.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(4) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => {
                let extra = random.below(9) as usize;
                let extra = random.bytes(extra);
                bytes.splice(at..at, extra);
            }
            _ if at < bytes.len() => bytes[at] = b"0123456789-\r\n$*:"[random.below(16) as usize],
            _ => {}
        }
    }
}

const COMMANDS: [&str; 24] = [
    "GET k",
    "SET k v",
    "SET k v EX 10 NX GET",
    "MSET a 1 b 2",
    "MGET a b c",
    "INCR n",
    "INCRBYFLOAT f 1.5",
    "APPEND k x",
    "SETRANGE k 5 y",
    "GETRANGE k 0 -1",
    "EXPIRE k 100 NX",
    "PEXPIREAT k 1 GT",
    "SCAN 0 COUNT 10",
    "SCAN 7 MATCH * TYPE string",
    "KEYS *",
    "HELLO 3",
    "HELLO 2 SETNAME x",
    "CLIENT LIST",
    "CONFIG GET *",
    "COMMAND DOCS get",
    "DEL k a b",
    "TTL k",
    "RANDOMKEY",
    "WAIT 0 0",
];

#[test]
fn mutated_redis_commands() {
    fuzz(
        |brick| brick.resp,
        |random| {
            let mut bytes = Vec::new();
            for _ in 0..=random.below(12) {
                let line = COMMANDS[random.below(COMMANDS.len() as u64) as usize];
                let args: Vec<&str> = line.split(' ').collect();
                let inline = random.below(5) == 0;
                bytes.extend(if inline {
                    format!("{line}\r\n").into_bytes()
                } else {
                    command(&args)
                });
            }
            mutate(&mut bytes, random);
            bytes
        },
    );
}

#[test]
fn lies_about_lengths_at_the_redis_port() {
    let lies = [
        "9223372036854775807",
        "-9223372036854775808",
        "4294967296",
        "536870913",
        "-2",
        "007",
        "1e3",
        "",
    ];
    fuzz(
        |brick| brick.resp,
        move |random| {
            let lie = lies[random.below(lies.len() as u64) as usize];
            let text = match random.below(5) {
                0 => format!("*{lie}\r\n$3\r\nGET\r\n"),
                1 => format!("*2\r\n$3\r\nGET\r\n${lie}\r\nk\r\n"),
                2 => format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${lie}\r\nx"),
                3 => format!("GET {}\r\n", "k".repeat(70_000)),
                _ => format!("*1000000\r\n{}", "$1\r\na\r\n".repeat(2000)),
            };
            text.into_bytes()
        },
    );
}

#[test]
fn random_bytes_at_the_redis_port() {
    fuzz(
        |brick| brick.resp,
        |random| {
            let len = random.below(3000) as usize;
            random.bytes(len)
        },
    );
}

/// The handshake and frame layout of docs/formats.md, written out here on purpose: a test that used the
/// encoder could not see that both are wrong.
fn hello() -> Vec<u8> {
    let mut bytes = b"FBRK".to_vec();
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(((8_u32 << 20) + (64 << 10)).to_le_bytes());
    bytes
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn random_messages_in_good_frames_at_the_native_port() {
    fuzz(
        |brick| brick.native,
        |random| {
            let mut bytes = hello();
            for _ in 0..random.below(8) {
                let len = random.below(400) as usize;
                let mut payload = random.bytes(len);
                // Message kinds are small numbers: mostly hit one.
                if let Some(first) = payload.first_mut().filter(|_| len > 3) {
                    *first %= 32;
                }
                bytes.extend(frame(&payload));
            }
            bytes
        },
    );
}

#[test]
fn broken_frames_at_the_native_port() {
    fuzz(
        |brick| brick.native,
        |random| {
            let mut bytes = if random.below(6) == 0 { Vec::new() } else { hello() };
            let len = random.below(200) as usize;
            bytes.extend(frame(&random.bytes(len)));
            match random.below(4) {
                0 => bytes.extend([0xFF; 8]),
                1 => bytes.extend((8_u32 << 20).to_le_bytes()),
                _ => mutate(&mut bytes, random),
            }
            bytes
        },
    );
}

#[test]
fn announced_giants_cost_nothing() {
    let brick = Brick::start(&Options::default());
    let before = brick.anonymous_bytes();
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut native = TcpStream::connect(brick.native).unwrap();
        native.write_all(&hello()).unwrap();
        native.write_all(&(8_u32 << 20).to_le_bytes()).unwrap();
        native.write_all(&[1; 100]).unwrap();
        let mut resp = TcpStream::connect(brick.resp).unwrap();
        resp.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388608\r\nonly this").unwrap();
        held.push((native, resp));
    }
    std::thread::sleep(Duration::from_millis(200));
    let grown = brick.anonymous_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "600 announcements of 8 MiB cost {grown} bytes");
    Canary::new(&brick).sing();
}

#[test]
fn http_is_bounded_too() {
    let brick = Brick::start(&Options::default());
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(brick.http).unwrap();
        let _ = match number % 3 {
            0 => stream.write_all(b"GET /metrics HTTP/1.1\r\nX: "),
            1 => stream.write_all(&vec![b'A'; 100_000]),
            _ => Ok(()),
        };
        held.push(stream);
    }
    Canary::new(&brick).sing();
    drop(held);
    let begin = Instant::now();
    while !brick.http_get("/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(begin.elapsed() < Duration::from_secs(20), "/healthz does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
}
