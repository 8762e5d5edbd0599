//! The direct client on this thread, against a brick on a real socket.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod brick;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use brick::{Brick, Fault};
use firebrick_client::{
    Answer, Condition, Direct, DirectOptions, Error, Expiry, Op, Options, Reply, TableId,
};
use firebrick_net::poll::Mode;

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: as our caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as our caller's promise.
        unsafe { System.dealloc(ptr, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn options(poll: Mode) -> DirectOptions {
    DirectOptions { client: Options { in_flight: 32, ..Options::default() }, poll }
}

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}

#[test]
fn blocking_calls() {
    let brick = Brick::start(Fault::None);
    let mut direct = Direct::connect(brick.address(), &options(Mode::Park)).unwrap();
    let table = direct.table("default").unwrap();
    let mut out = Vec::new();
    assert_eq!(direct.get(table, b"k", &mut out).unwrap(), None);
    let version = direct.put(table, b"k", b"value").unwrap();
    assert_eq!(direct.get(table, b"k", &mut out).unwrap(), Some(version));
    assert_eq!(out, b"value");
    assert!(direct.remove(table, b"k").unwrap());
    assert!(!direct.remove(table, b"k").unwrap());
    assert_eq!(direct.table("orders"), Err(Error::NoTable("orders".into())));
    // The largest value, there and back.
    let large = vec![7; firebrick_client::VALUE_BYTES_MAX];
    direct.put(table, b"large", &large).unwrap();
    direct.get(table, b"large", &mut out).unwrap();
    assert_eq!(out, large);
}

/// Keeps `room` requests in flight until `total` were answered.
fn pump(direct: &mut Direct, table: TableId, total: u64, op: Op<'_>) -> u64 {
    let (mut sent, mut done) = (0, 0);
    while done < total {
        while sent < total && direct.room() > 0 {
            direct.submit(table, &(sent % 100).to_le_bytes(), op, sent).unwrap();
            sent += 1;
        }
        direct
            .poll(&mut |_: u64, result: Result<Reply<'_>, Error>| match result {
                Ok(Reply::Answer(Answer::Done { .. } | Answer::Value { .. })) => done += 1,
                other => panic!("{other:?}"),
            })
            .unwrap();
    }
    done
}

#[test]
fn many_in_flight_and_nothing_allocated_for_them() {
    let brick = Brick::start(Fault::None);
    let mut direct = Direct::connect(brick.address(), &options(Mode::default())).unwrap();
    let table = direct.table("default").unwrap();
    for _ in 0..3 {
        pump(&mut direct, table, 1000, put(&[1; 64]));
        pump(&mut direct, table, 1000, Op::Get);
    }
    let before = ALLOCATIONS.with(Cell::get);
    pump(&mut direct, table, 2000, put(&[2; 64]));
    pump(&mut direct, table, 2000, Op::Get);
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    // Not one a request. A frame that lies across two receive buffers may be assembled.
    assert!(allocations < 40, "{allocations} allocations for 4000 requests");
}

#[test]
fn a_full_client_says_busy() {
    let brick = Brick::start(Fault::None);
    let mut direct = Direct::connect(brick.address(), &options(Mode::Park)).unwrap();
    let table = direct.table("default").unwrap();
    for token in 0..32 {
        direct.submit(table, b"k", Op::Get, token).unwrap();
    }
    assert_eq!(direct.submit(table, b"k", Op::Get, 32), Err(Error::Busy));
    assert_eq!(direct.put(table, b"k", b"v"), Err(Error::Busy));
    let mut done = 0;
    while direct.in_flight() > 0 {
        direct.poll(&mut |_: u64, _: Result<Reply<'_>, Error>| done += 1).unwrap();
    }
    assert_eq!(done, 32);
    // With nothing in flight a turn does not block.
    direct.poll(&mut |_: u64, _: Result<Reply<'_>, Error>| ()).unwrap();
}

/// A brick that is full of answers reads nothing until they are taken: whoever writes much must read meanwhile.
#[test]
fn large_values_both_ways_do_not_wait_for_each_other() {
    let brick = Brick::start(Fault::None);
    let mut direct = Direct::connect(brick.address(), &options(Mode::Park)).unwrap();
    let table = direct.table("default").unwrap();
    let large = vec![7; 4 << 20];
    direct.put(table, b"k", &large).unwrap();
    for token in 0..16 {
        let put = Op::Put {
            value: &large,
            expiry: Expiry::Never,
            condition: Condition::Always,
            want_old: false,
        };
        let op = if token % 2 == 0 { Op::Get } else { put };
        direct.submit(table, b"k", op, token).unwrap();
    }
    let mut failed = Vec::new();
    while direct.in_flight() > 0 {
        let mut sink = |_: u64, result: Result<Reply<'_>, Error>| failed.extend(result.err());
        direct.poll(&mut sink).unwrap();
    }
    assert_eq!((failed, brick.accepted()), (Vec::new(), 1));
}

#[test]
fn no_brick_and_bad_bricks() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Direct::connect(address.to_string(), &options(Mode::Park)).unwrap_err();
    let sentence = format!("no brick answers at {address} (");
    assert!(error.to_string().starts_with(&sentence), "{error}");

    let brick = Brick::start(Fault::Version);
    let error = Direct::connect(brick.address(), &options(Mode::Park)).unwrap_err();
    assert!(matches!(&error, Error::Protocol(what) if what.contains("version 9")), "{error}");

    let brick = Brick::start(Fault::NeverAnswers);
    let client = Options { deadline: Duration::from_millis(100), ..Options::default() };
    let options = DirectOptions { client, poll: Mode::Park };
    let mut direct = Direct::connect(brick.address(), &options).unwrap();
    let table = direct.table("default").unwrap();
    let error = direct.get(table, b"k", &mut Vec::new()).unwrap_err();
    let from = format!("test ({})", brick.address).into();
    assert_eq!(error, Error::Deadline { ms: 100, from: Some(from) });
}

#[test]
fn a_brick_that_dies_in_mid_frame_gets_the_write_once() {
    let brick = Brick::start(Fault::DiesInMidFrame(3));
    let mut direct = Direct::connect(brick.address(), &options(Mode::Park)).unwrap();
    let table = direct.table("default").unwrap();
    let len = direct.call(table, b"k", Op::Append { value: b"once" }, |answer| match answer {
        Answer::Length { len, .. } => Ok(len),
        other => panic!("{other:?}"),
    });
    assert_eq!(len.unwrap(), 4);
    assert!(brick.accepted() >= 4);
}
