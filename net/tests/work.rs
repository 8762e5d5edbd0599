//! What the fabric does beyond moving small messages: bodies from where they lie, disk writes, wake-ups.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{Seen, Server};
use firebrick_net::frame::{self, Hello};
use firebrick_net::{Body, Config, DiskWrite, Event, Fabric, Port, Tcp, Token, boot_ns};

#[test]
fn a_body_is_sent_from_where_it_lies_within_one_checked_frame() {
    let mut server = Server::new(Port::Frames);
    let address = server.address;
    let lens = [10, 8 << 10, 100_000, 3 << 20];
    let client = std::thread::spawn(move || {
        let mut peer = std::net::TcpStream::connect(address).unwrap();
        peer.write_all(&Hello::OURS.encode()).unwrap();
        peer.read_exact(&mut [0; 16]).unwrap();
        let mut frames = Vec::new();
        for _ in lens {
            let mut header = [0; 8];
            peer.read_exact(&mut header).unwrap();
            let len = u32::from_le_bytes(header[..4].try_into().unwrap());
            let mut payload = vec![0; len as usize];
            peer.read_exact(&mut payload).unwrap();
            assert_eq!(header, frame::header(&payload, b""), "one CRC over head and body");
            frames.push(payload);
        }
        frames
    });
    let ep = server.opened();
    let bodies: Vec<Vec<u8>> =
        lens.iter().map(|len| (0..*len).map(|i| i as u8).collect()).collect();
    for (n, bytes) in bodies.iter().enumerate() {
        let body = Body { ptr: bytes.as_ptr(), len: bytes.len() as u32 };
        let mut sent = server.tcp.send(ep, b"head", Some(body), Token(n as u64));
        while sent.is_err() {
            server.until("room", |_, seen| matches!(seen, Seen::Drained(_)).then_some(()));
            sent = server.tcp.send(ep, b"head", Some(body), Token(n as u64));
        }
        server.until("the body's memory back", |_, seen| match seen {
            Seen::Done(token, result) => {
                assert_eq!((token, result), (n as u64, bytes.len() as i32));
                Some(())
            }
            _ => None,
        });
    }
    for (frame, bytes) in client.join().unwrap().iter().zip(&bodies) {
        assert!(frame[..4] == *b"head" && frame[4..] == bytes[..]);
    }
}

/// Each has more under way than the kernel takes for a peer that does not read.
#[test]
fn two_that_send_much_to_each_other_both_read() {
    let mut ends = [Server::new(Port::Frames), Server::new(Port::Frames)];
    let address = ends[1].address;
    let here = ends[0].tcp.dial(address, Port::Frames).unwrap();
    let mut opened = [None, None];
    let start = Instant::now();
    let turns = |ends: &mut [Server; 2], mut done: Box<dyn FnMut(usize, Seen) -> bool>| {
        loop {
            assert!(start.elapsed() < Duration::from_secs(20), "they wait for each other");
            for (at, end) in ends.iter_mut().enumerate() {
                for seen in end.turn_at(boot_ns()) {
                    if done(at, seen) {
                        return;
                    }
                }
            }
        }
    };
    let (tell, told) = std::sync::mpsc::channel();
    turns(
        &mut ends,
        Box::new(move |at, seen| {
            if let Seen::Opened(ep) = seen {
                opened[at] = Some(ep);
            }
            let both = opened.iter().all(Option::is_some);
            if let (true, Some(ep)) = (both, opened[1]) {
                tell.send(ep).unwrap();
            }
            both
        }),
    );
    let eps = [here, told.recv().unwrap()];
    let much = vec![7; 8 << 20];
    for (end, ep) in ends.iter_mut().zip(eps) {
        end.tcp.read_on(ep);
        end.tcp.send(ep, &much, None, Token(0)).unwrap();
    }
    let mut came = [0, 0];
    turns(
        &mut ends,
        Box::new(move |at, seen| {
            if let Seen::Frame(_, bytes) = seen {
                came[at] += bytes.len();
            }
            came == [8 << 20; 2]
        }),
    );
}

#[test]
fn disk_writes_complete_with_their_token_and_are_not_network() {
    let mut tcp = Tcp::new(Config::default()).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let bytes = vec![0x42; 8192];
    for (n, durable) in [(0, false), (1, true)] {
        let write = DiskWrite {
            fd: file.as_raw_fd(),
            ptr: bytes.as_ptr(),
            len: 4096,
            offset: n * 4096,
            durable,
        };
        tcp.disk_write(write, Token(70 + n)).unwrap();
    }
    // A descriptor that is none: the owner gets the kernel's word.
    let bad = DiskWrite { fd: -1, ptr: bytes.as_ptr(), len: 1, offset: 0, durable: false };
    tcp.disk_write(bad, Token(99)).unwrap();
    let mut done = Vec::new();
    let start = Instant::now();
    while done.len() < 3 && start.elapsed() < Duration::from_secs(10) {
        tcp.wait(1, 10_000_000).unwrap();
        let mut events = Vec::new();
        tcp.poll(boot_ns(), &mut events);
        for event in events {
            if let Event::Done { token, result } = event {
                done.push((token.0, result));
            }
        }
    }
    done.sort_unstable();
    assert_eq!(done, [(70, 4096), (71, 4096), (99, -libc::EBADF)]);
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert_eq!(back, bytes);
    assert_eq!((tcp.counters().bytes_out, tcp.counters().disk_writes), (0, 3));
}

#[test]
fn no_wake_up_is_lost_between_a_look_and_a_nap() {
    // The ringer waits for each answer, so one lost wake-up is a core asleep for the whole time limit.
    const ROUNDS: u64 = 20_000;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let mut tcp = Tcp::new(Config::default()).unwrap();
    let waker = tcp.waker();
    let work = Arc::new(AtomicU64::new(0));
    let seen = Arc::new(AtomicU64::new(0));
    let ringer = std::thread::spawn({
        let (work, seen) = (Arc::clone(&work), Arc::clone(&seen));
        move || {
            for round in 1..=ROUNDS {
                work.store(round, Ordering::Relaxed);
                waker.wake();
                while seen.load(Ordering::Acquire) < round {
                    // Moments of differing length, so that the ring falls at every point of the core's turn.
                    for _ in 0..round % 64 {
                        std::hint::spin_loop();
                    }
                    std::thread::yield_now();
                }
            }
        }
    });
    let mut events = Vec::new();
    let mut last = 0;
    while last < ROUNDS {
        let start = Instant::now();
        tcp.wait(1, 5_000_000_000).unwrap();
        assert!(start.elapsed() < Duration::from_secs(4), "a wake-up was lost after round {last}");
        tcp.poll(boot_ns(), &mut events);
        if events.drain(..).any(|event| matches!(event, Event::Woken)) {
            last = work.load(Ordering::Relaxed);
            seen.store(last, Ordering::Release);
        }
    }
    ringer.join().unwrap();
}

#[test]
fn an_idle_core_uses_no_cpu_and_a_wake_costs_a_core_that_runs_no_system_call() {
    let mut tcp = Tcp::new(Config::default()).unwrap();
    tcp.listen("127.0.0.1:0".parse().unwrap(), Port::Frames).unwrap();
    tcp.wait(1, 100_000_000).unwrap();
    let enters = tcp.counters().enters;
    let mut events = Vec::new();
    for _ in 0..1000 {
        tcp.poll(boot_ns(), &mut events);
        tcp.flush().unwrap();
    }
    assert_eq!(tcp.counters().enters, enters, "polling an idle ring is free of system calls");
    tcp.waker().wake();
    tcp.poll(boot_ns(), &mut events);
    assert!(matches!(events[..], [Event::Woken]));
    assert_eq!(tcp.counters().enters, enters);
}

/// Written, and not flushed: whoever asked for it to be durable must not take it for that.
#[test]
fn a_flush_that_fails_is_an_error_although_the_write_went_well() {
    let mut tcp = Tcp::new(Config::default()).unwrap();
    // It takes all bytes, and knows no flush.
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    let bytes = [1; 512];
    let (fd, ptr, len) = (null.as_raw_fd(), bytes.as_ptr(), bytes.len() as u32);
    for durable in [false, true] {
        tcp.disk_write(DiskWrite { fd, ptr, len, offset: 0, durable }, Token(7)).unwrap();
        let (mut events, start) = (Vec::new(), Instant::now());
        let result = loop {
            tcp.wait(1, 10_000_000).unwrap();
            tcp.poll(boot_ns(), &mut events);
            if let Some(Event::Done { result, .. }) = events.pop() {
                break result;
            }
            assert!(start.elapsed() < Duration::from_secs(10));
        };
        assert_eq!(result, if durable { -libc::EINVAL } else { 512 });
    }
}
