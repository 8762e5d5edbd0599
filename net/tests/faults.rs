//! What bad peers do to a fabric: nothing, beyond their own connection.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;

use common::{Seen, Server};
use firebrick_net::frame::{self, Hello};
use firebrick_net::{CloseReason, Config, Ep, Fabric, Full, Port, Token, boot_ns, limits};

fn reset(peer: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option lives through the call and has its size.
    let result = unsafe {
        libc::setsockopt(
            peer.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(result, 0);
    drop(peer);
}

fn greet(server: &mut Server) -> (TcpStream, Ep) {
    let mut peer = server.connect();
    peer.write_all(&Hello::OURS.encode()).unwrap();
    let ep = server.opened();
    let mut hello = [0; 16];
    peer.read_exact(&mut hello).unwrap();
    assert_eq!(hello, Hello::OURS.encode());
    (peer, ep)
}

#[test]
fn a_peer_that_resets_is_an_io_error_and_the_bodies_it_was_owed_come_back() {
    let mut server = Server::new(Port::Stream);
    let peer = server.connect();
    let ep = server.opened();
    let bytes = vec![7; 512 << 10];
    let body = firebrick_net::Body { ptr: bytes.as_ptr(), len: bytes.len() as u32 };
    // More than the socket's buffers take, so that some are still queued when the reset comes.
    let mut pinned = 0;
    for n in 0..100 {
        match server.tcp.send(ep, b"head", Some(body), Token(n)) {
            Ok(()) => pinned += 1,
            Err(Full) => drop(server.quiet(1)),
        }
    }
    assert!(pinned > 1);
    let mut back = 0;
    reset(peer);
    let reason = server.until("the end", |_, seen| match seen {
        Seen::Closed(gone, reason) if gone == ep => Some(reason),
        Seen::Done(..) => {
            back += 1;
            None
        }
        _ => None,
    });
    assert!(matches!(reason, CloseReason::Io(libc::ECONNRESET | libc::EPIPE)), "{reason:?}");
    assert!(back > 0);
    assert_eq!(server.tcp.endpoints(), 0);
}

#[test]
fn a_peer_that_only_shuts_its_half_gets_what_it_asked_for() {
    let mut server = Server::new(Port::Stream);
    let mut peer = server.connect();
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    server.lingers = true;
    let mut asked = Vec::new();
    let ep = server.until("the end of what is asked", |_, seen| match seen {
        Seen::Bytes(_, bytes) => {
            asked.extend(bytes);
            None
        }
        Seen::Finished(ep) => Some(ep),
        _ => None,
    });
    // The answer takes its time.
    let meanwhile = server.quiet(20);
    assert!(meanwhile.iter().all(|seen| *seen == Seen::Woken), "{meanwhile:?}");
    server.tcp.out(ep).unwrap().extend_from_slice(&asked);
    server.tcp.close(ep);
    assert_eq!(server.closed(ep), CloseReason::Finished);
    let mut back = String::new();
    peer.read_to_string(&mut back).unwrap();
    assert_eq!(back, "last words");
}

#[test]
fn a_peer_that_never_reads_is_paused_harms_nobody_and_loses_nothing_when_it_reads_again() {
    let mut server = Server::new(Port::Stream);
    let mut slow = server.connect();
    let slow_ep = server.opened();
    let mut quick = server.connect();
    let quick_ep = server.opened();
    // Replies until there is no room.
    let mut written = 0;
    let chunk = vec![b'x'; 64 << 10];
    for _ in 0..1000 {
        let room = server.tcp.room(slow_ep);
        if room > 0 {
            server.tcp.out(slow_ep).unwrap().extend_from_slice(&chunk);
            written += chunk.len();
        }
        server.quiet(usize::from(room == 0));
        if room == 0 && server.quiet(3).is_empty() && server.tcp.room(slow_ep) == 0 {
            break;
        }
    }
    assert_eq!(server.tcp.room(slow_ep), 0, "the socket took {written} bytes");
    // It goes on asking; nothing is received from it now, and the other is served.
    slow.write_all(b"asked while paused").unwrap();
    quick.write_all(b"ping").unwrap();
    let seen = server.quiet(10);
    assert!(seen.contains(&Seen::Bytes(quick_ep, b"ping".to_vec())), "{seen:?}");
    assert!(!seen.iter().any(|s| matches!(s, Seen::Bytes(ep, _) if *ep == slow_ep)));
    // It reads at last: drained, told so, and what it asked arrives.
    let reader = std::thread::spawn(move || {
        let mut left = written;
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            left -= slow.read(&mut buffer).unwrap();
        }
        slow
    });
    let mut drained = false;
    let asked = server.until("its question", |tcp, seen| match seen {
        Seen::Drained(ep) => {
            assert!(ep == slow_ep && tcp.room(ep) > 0);
            drained = true;
            None
        }
        Seen::Bytes(_, bytes) => Some(bytes),
        _ => None,
    });
    assert!(drained);
    assert_eq!(asked, b"asked while paused");
    drop(reader.join().unwrap());
}

/// Descriptors for both ends of thousands of connections.
fn raise_nofile() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    assert!(
        limit.rlim_cur > 4100,
        "raise the limit of open files to 5000: it is {}",
        limit.rlim_cur
    );
}

#[test]
fn two_thousand_connections_at_once_are_all_served() {
    raise_nofile();
    let mut server = Server::new(Port::Stream);
    let mut peers: Vec<TcpStream> = (0..2000).map(|_| server.connect()).collect();
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&(n as u32).to_le_bytes()).unwrap();
    }
    let mut served = 0;
    server.until("two thousand questions", |tcp, seen| {
        if let Seen::Bytes(ep, bytes) = seen {
            tcp.out(ep).unwrap().extend_from_slice(&bytes);
            served += 1;
        }
        (served == 2000).then_some(())
    });
    server.quiet(1);
    for (n, peer) in peers.iter_mut().enumerate() {
        let mut back = [0; 4];
        peer.read_exact(&mut back).unwrap();
        assert_eq!(u32::from_le_bytes(back), n as u32);
    }
    assert_eq!(server.tcp.endpoints(), 2000);
    drop(peers);
    let mut gone = 0;
    server.until("two thousand ends", |_, seen| {
        gone += usize::from(matches!(seen, Seen::Closed(..)));
        (gone == 2000).then_some(())
    });
    assert_eq!((server.tcp.endpoints(), server.tcp.rx_free()), (0, 512));
}

#[test]
fn random_bytes_on_a_frames_port_close_that_connection_only() {
    let mut server = Server::new(Port::Frames);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200 {
        // Before the handshake, and after it.
        let mut peer = server.connect();
        let mut opened = None;
        if round % 2 == 1 {
            peer.write_all(&Hello::OURS.encode()).unwrap();
            opened = Some(server.opened());
        }
        let noise: Vec<u8> = (0..64)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 56) as u8
            })
            .collect();
        peer.write_all(&noise).unwrap();
        drop(peer);
        if let Some(ep) = opened {
            let reason = server.closed(ep);
            let fine =
                matches!(reason, CloseReason::Malformed(_) | CloseReason::Io(libc::ECONNRESET));
            assert!(fine, "{reason:?}");
        }
    }
    server.quiet(5);
    server.still_serves();
    assert!(server.tcp.counters().malformed >= 150, "{:?}", server.tcp.counters());
    assert_eq!((server.tcp.endpoints(), server.tcp.rx_free()), (0, 512));
}

#[test]
fn another_version_is_refused_on_both_sides_by_its_number() {
    // A peer of the future dials us: it never opens, and gets our handshake to see why.
    let mut server = Server::new(Port::Frames);
    let mut peer = server.connect();
    let future = Hello { version: 9, ..Hello::OURS };
    peer.write_all(&future.encode()).unwrap();
    let seen = server.quiet(10);
    assert_eq!(seen, []);
    let mut hello = [0; 16];
    peer.read_exact(&mut hello).unwrap();
    assert_eq!(hello, Hello::OURS.encode());
    assert_eq!((server.tcp.endpoints(), server.tcp.counters().malformed), (0, 1));
    // We dial one.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ep = server.tcp.dial(listener.local_addr().unwrap(), Port::Frames).unwrap();
    server.quiet(2);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(&future.encode()).unwrap();
    assert_eq!(server.closed(ep), CloseReason::Version { theirs: 9 });
}

#[test]
fn a_bad_checksum_and_an_oversized_frame_are_malformed_and_frames_before_them_are_not_lost() {
    let mut server = Server::new(Port::Frames);
    for spoil in [0usize, 4] {
        let (mut peer, ep) = greet(&mut server);
        let mut wire = [&frame::header(b"good", b"")[..], b"good"].concat();
        let mut bad = [&frame::header(b"bad", b"")[..], b"bad"].concat();
        // The length becomes huge, or the CRC wrong.
        bad[spoil + 3] ^= 0x7f;
        wire.extend_from_slice(&bad);
        peer.write_all(&wire).unwrap();
        let mut good = 0;
        let reason = server.until("the end", |_, seen| match seen {
            Seen::Frame(_, bytes) => {
                assert_eq!(bytes, b"good");
                good += 1;
                None
            }
            Seen::Closed(gone, reason) if gone == ep => Some(reason),
            _ => None,
        });
        assert!(matches!(reason, CloseReason::Malformed(_)), "{reason:?}");
        assert_eq!(good, 1);
    }
    server.still_serves();
}

#[test]
fn a_connection_that_says_nothing_is_let_go_in_time() {
    let mut server = Server::new(Port::Frames);
    let mut peer = server.connect();
    server.quiet(3);
    assert_eq!(server.tcp.endpoints(), 1);
    // Time is an argument.
    let late = boot_ns() + limits::HANDSHAKE_NS_MAX;
    for turn in 0..5 {
        server.turn_at(late + turn);
    }
    assert_eq!(server.tcp.endpoints(), 0);
    assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 16, "our handshake, then the end");
}

#[test]
fn sends_after_a_close_are_refused_and_stale_handles_reach_nobody() {
    let mut server = Server::new(Port::Frames);
    let (mut peer, ep) = greet(&mut server);
    server.tcp.send(ep, b"before", None, Token(0)).unwrap();
    server.tcp.close(ep);
    assert_eq!(server.tcp.send(ep, b"after", None, Token(0)), Err(Full));
    assert_eq!((server.tcp.room(ep), server.tcp.out(ep)), (0, None));
    assert_eq!(server.closed(ep), CloseReason::Finished);
    // What was queued before the close has left.
    let mut wire = Vec::new();
    peer.read_to_end(&mut wire).unwrap();
    assert_eq!(wire[8..], *b"before");
    // The slot is used again; the old handle does not reach the new connection.
    let (mut other, new) = greet(&mut server);
    assert_eq!(new.slot, ep.slot);
    assert_eq!(server.tcp.send(ep, b"stale", None, Token(0)), Err(Full));
    server.tcp.close(ep);
    server.tcp.send(new, b"fresh", None, Token(0)).unwrap();
    server.quiet(2);
    let mut wire = [0; 13];
    other.read_exact(&mut wire).unwrap();
    assert_eq!(wire[8..], *b"fresh");
}

#[test]
fn a_dial_to_nobody_is_closed_with_the_kernels_word() {
    let mut server = Server::new(Port::Stream);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ep = server.tcp.dial(nobody, Port::Frames).unwrap();
    assert_eq!(server.closed(ep), CloseReason::Io(libc::ECONNREFUSED));
}

#[test]
fn a_caller_that_holds_every_receive_buffer_starves_itself_and_recovers() {
    let mut server = Server::with(Config { rx_buffers: 8, ..Config::default() }, Port::Stream);
    let mut peers: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.write_all(b"question").unwrap();
    }
    // Hold what comes.
    let mut held = Vec::new();
    let mut events = Vec::new();
    for _ in 0..20 {
        server.tcp.wait(1, 1_000_000).unwrap();
        server.tcp.poll(boot_ns(), &mut events);
        for event in events.drain(..) {
            if let firebrick_net::Event::Bytes { rx, .. } = event {
                held.push(rx);
            }
        }
    }
    assert_eq!((held.len(), server.tcp.rx_free()), (8, 0));
    assert!(server.tcp.counters().enobufs > 0);
    let mut got = held.len();
    for rx in held {
        server.tcp.release(rx);
    }
    server.until("the other questions", |_, seen| {
        got += usize::from(matches!(seen, Seen::Bytes(..)));
        (got == 40).then_some(())
    });
}

#[test]
fn connections_past_the_limit_are_closed_at_once_and_a_free_place_is_used_again() {
    let mut server = Server::with(Config { endpoints_max: 4, ..Config::default() }, Port::Stream);
    let mut peers: Vec<TcpStream> = (0..4).map(|_| server.connect()).collect();
    let mut open = 0;
    server.until("four endpoints", |tcp, seen| {
        if let Seen::Opened(ep) = seen {
            let (theirs, _) = tcp.addresses(ep);
            assert!(peers.iter().any(|p| p.local_addr().unwrap().to_string() == theirs));
            open += 1;
        }
        (open == 4).then_some(())
    });
    let mut fifth = server.connect();
    assert_eq!(server.quiet(5), []);
    assert_eq!(fifth.read(&mut [0; 1]).unwrap(), 0, "accepted and closed");
    assert_eq!(server.tcp.counters().refused, 1);
    assert!(server.tcp.dial(server.address, Port::Stream).is_err());
    peers.pop();
    server.until("an end", |_, seen| matches!(seen, Seen::Closed(..)).then_some(()));
    let _sixth = server.connect();
    server.opened();
}

#[test]
fn a_close_waits_for_a_slow_reader_to_take_what_was_queued_but_not_for_ever() {
    const REPLY: usize = 12 << 20; // far more than the socket's buffers take
    let mut server = Server::new(Port::Stream);
    let mut slow = server.connect();
    let ep = server.opened();
    server.tcp.out(ep).unwrap().resize(REPLY, b'x');
    server.tcp.close(ep);
    assert_eq!(server.quiet(5), []);
    let reader = std::thread::spawn(move || slow.read_to_end(&mut Vec::new()).unwrap());
    assert_eq!(server.closed(ep), CloseReason::Finished);
    assert_eq!(reader.join().unwrap(), REPLY);
    // One that reads no more is let go when its time is up, which begins anew with all that it reads.
    let mut never = server.connect();
    let ep = server.opened();
    server.tcp.out(ep).unwrap().resize(REPLY, b'x');
    server.tcp.close(ep);
    assert_eq!(server.quiet(5), []);
    let reads = boot_ns() + limits::DRAIN_NS_MAX - 1_000_000_000;
    let out = server.tcp.counters().bytes_out;
    let mut bytes = vec![0; 64 << 10];
    never.set_nonblocking(true).unwrap();
    while server.tcp.counters().bytes_out == out {
        let _ = never.read(&mut bytes);
        assert_eq!(server.turn_at(reads), []);
    }
    let turns =
        |server: &mut Server, at| (0..5).flat_map(|_| server.turn_at(at)).collect::<Vec<Seen>>();
    assert_eq!(turns(&mut server, reads + limits::DRAIN_NS_MAX - 1), []);
    let end = turns(&mut server, reads + limits::DRAIN_NS_MAX);
    assert_eq!(end, [Seen::Closed(ep, CloseReason::Io(libc::ETIMEDOUT))]);
}
