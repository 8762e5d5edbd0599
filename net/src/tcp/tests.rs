use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::fabric::CloseReason;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Turns a fabric until `done` says so; fails after ten seconds.
fn turn_until(tcp: &mut Tcp, mut done: impl FnMut(&mut Tcp, Event) -> bool) {
    let start = Instant::now();
    let mut events = Vec::new();
    loop {
        tcp.poll(boot_ns(), &mut events);
        let mut end = false;
        for event in events.drain(..) {
            end |= done(tcp, event);
        }
        if end {
            tcp.flush().unwrap();
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "nothing happened");
        tcp.wait(1, 20_000_000).unwrap();
    }
}

/// Answers every stream byte and every frame with itself, until the peer asks it to stop by `quit`.
fn echo(tcp: &mut Tcp, event: Event) -> bool {
    match event {
        Event::Bytes { ep, rx } => {
            let bytes = tcp.bytes(&rx).to_vec();
            tcp.release(rx);
            if let Some(out) = tcp.out(ep) {
                out.extend_from_slice(&bytes);
            }
            bytes.ends_with(b"quit")
        }
        Event::Frame { ep, rx } => {
            let bytes = tcp.bytes(&rx).to_vec();
            tcp.release(rx);
            tcp.send(ep, &bytes, None, Token(0)).unwrap();
            bytes == b"quit"
        }
        Event::Finished { ep } => {
            tcp.close(ep);
            false
        }
        _ => false,
    }
}

#[test]
fn a_stream_is_echoed() {
    let mut tcp = Tcp::new(Config::default()).unwrap();
    let address = tcp.listen(ANY, Port::Stream).unwrap();
    let client = std::thread::spawn(move || {
        let mut peer = TcpStream::connect(address).unwrap();
        for text in ["hello", "quit"] {
            peer.write_all(text.as_bytes()).unwrap();
            let mut back = [0; 5];
            peer.read_exact(&mut back[..text.len()]).unwrap();
            assert_eq!(&back[..text.len()], text.as_bytes());
        }
    });
    turn_until(&mut tcp, echo);
    client.join().unwrap();
    turn_until(&mut tcp, |tcp, event| match event {
        Event::Closed { reason, .. } => reason == CloseReason::Finished,
        event => echo(tcp, event),
    });
    assert_eq!((tcp.endpoints(), tcp.rx_free()), (0, 512));
}

#[test]
fn frames_go_both_ways_between_two_cores() {
    let mut server = Tcp::new(Config::default()).unwrap();
    let address = server.listen(ANY, Port::Frames).unwrap();
    let client = std::thread::spawn(move || {
        let mut tcp = Tcp::new(Config::default()).unwrap();
        let ep = tcp.dial(address, Port::Frames).unwrap();
        turn_until(&mut tcp, |_, e| matches!(e, Event::Opened { ep: opened, .. } if opened == ep));
        // Small, empty, exactly a buffer, over several buffers, the largest.
        let lens = [64, 0, 16 << 10, 100_000, crate::limits::FRAME_BYTES_MAX];
        for (n, len) in lens.into_iter().enumerate() {
            let payload: Vec<u8> = (0..len).map(|i| (i * 31 + n) as u8).collect();
            tcp.send(ep, &payload, None, Token(0)).unwrap();
            turn_until(&mut tcp, |tcp, event| match event {
                Event::Frame { rx, .. } => {
                    assert!(tcp.bytes(&rx) == payload, "frame {n} came back changed");
                    tcp.release(rx);
                    true
                }
                _ => false,
            });
        }
        tcp.send(ep, b"quit", None, Token(0)).unwrap();
        turn_until(&mut tcp, |_, event| matches!(event, Event::Frame { .. }));
        tcp.close(ep);
        turn_until(&mut tcp, |_, event| matches!(event, Event::Closed { .. }));
    });
    turn_until(&mut server, echo);
    client.join().unwrap();
    assert_eq!(server.counters().frames_in, 6);
}

#[test]
fn a_held_stream_brings_nothing_until_it_goes_on_and_nothing_is_lost() {
    let mut tcp = Tcp::new(Config::default()).unwrap();
    let address = tcp.listen(ANY, Port::Stream).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    let mut endpoint = None;
    turn_until(&mut tcp, |_, event| {
        if let Event::Opened { ep, .. } = event {
            endpoint = Some(ep);
        }
        endpoint.is_some()
    });
    let ep = endpoint.unwrap();
    assert_eq!(tcp.addresses(ep).0, peer.local_addr().unwrap().to_string());
    tcp.hold(ep, true);
    tcp.flush().unwrap();
    let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    peer.write_all(&sent).unwrap();
    let (mut got, mut events) = (Vec::new(), Vec::new());
    let mut turn = |tcp: &mut Tcp, got: &mut Vec<u8>| {
        tcp.poll(boot_ns(), &mut events);
        for event in events.drain(..) {
            if let Event::Bytes { rx, .. } = event {
                got.extend_from_slice(tcp.bytes(&rx));
                tcp.release(rx);
            }
        }
        tcp.wait(1, 2_000_000).unwrap();
    };
    for _ in 0..20 {
        turn(&mut tcp, &mut got);
    }
    let early = got.len();
    for _ in 0..20 {
        turn(&mut tcp, &mut got);
    }
    assert_eq!(got.len(), early, "bytes came in although the stream is held");
    tcp.hold(ep, false);
    while got.len() < sent.len() {
        turn(&mut tcp, &mut got);
    }
    assert!(got == sent);
}

/// Few buffers and many who never stop talking: whoever has waited longest gets the next one.
#[test]
fn nobody_waits_for_ever_when_receive_buffers_are_short() {
    for (buffers, peers) in [(2, 12), (8, 32)] {
        all_are_heard(buffers, peers);
    }
}

fn all_are_heard(rx_buffers: u16, peers: usize) {
    let mut tcp = Tcp::new(Config { rx_buffers, ..Config::default() }).unwrap();
    let address = tcp.listen(ANY, Port::Stream).unwrap();
    let mut peers: Vec<_> = (0..peers).map(|_| TcpStream::connect(address).unwrap()).collect();
    let (mut bytes_of, much) = (HashMap::new(), vec![b'x'; 64 << 10]);
    let mut events = Vec::new();
    for peer in &mut peers {
        peer.set_nonblocking(true).unwrap();
    }
    for _ in 0..400 {
        for peer in &mut peers {
            // As much as the socket takes.
            let _ = peer.write(&much);
        }
        tcp.poll(boot_ns(), &mut events);
        for event in events.drain(..) {
            if let Event::Bytes { ep, rx } = event {
                *bytes_of.entry(ep.slot).or_insert(0) += tcp.bytes(&rx).len();
                tcp.release(rx);
            }
        }
        tcp.wait(1, 2_000_000).unwrap();
    }
    let (least, most) = (bytes_of.values().min(), bytes_of.values().max());
    assert_eq!(bytes_of.len(), peers.len(), "some were never heard: {least:?} to {most:?} bytes");
    assert!(tcp.counters().enobufs > 0 && least.unwrap() * 4 > *most.unwrap(), "{bytes_of:?}");
}

/// What a peer has not taken when its connection is aborted never comes: not what is queued here, and not what the
/// kernel would send later.
#[test]
fn an_aborted_connection_takes_back_what_its_peer_has_not_taken() {
    let mut tcp = Tcp::new(Config::default()).unwrap();
    let address = tcp.listen(ANY, Port::Stream).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    let mut to = None;
    turn_until(&mut tcp, |tcp, event| {
        if let Event::Opened { ep, .. } = event {
            tcp.out(ep).unwrap().resize(32 << 20, b'x');
            to = Some(ep);
        }
        to.is_some()
    });
    let (ep, mut events, mut sent) = (to.unwrap(), Vec::new(), 0);
    // Until the kernel takes no more.
    for _ in 0..50 {
        tcp.wait(1, 2_000_000).unwrap();
        tcp.poll(boot_ns(), &mut events);
        sent = tcp.counters().bytes_out as usize;
    }
    assert!(sent < 32 << 20, "the kernel has taken it all");
    tcp.abort(ep);
    turn_until(&mut tcp, |_, event| matches!(event, Event::Closed { .. }));
    let mut came = Vec::new();
    let end = peer.read_to_end(&mut came).expect_err("it is reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(came.len() < sent, "{} bytes of {sent} came", came.len());
}

/// Bricks speak frames: one that streams have filled must not look unreachable to the others.
#[test]
fn streams_do_not_take_the_last_places() {
    let mut tcp = Tcp::new(Config { endpoints_max: 32, ..Config::default() }).unwrap();
    let streams = tcp.listen(ANY, Port::Stream).unwrap();
    let frames = tcp.listen(ANY, Port::Frames).unwrap();
    let _streams: Vec<_> = (0..40).map(|_| TcpStream::connect(streams).unwrap()).collect();
    let mut open = 0;
    turn_until(&mut tcp, |tcp, event| {
        open += usize::from(matches!(event, Event::Opened { .. }));
        open as u64 + tcp.counters().refused == 40
    });
    assert_eq!((open, tcp.endpoints()), (30, 30));
    let mut brick = TcpStream::connect(frames).unwrap();
    brick.write_all(&Hello::OURS.encode()).unwrap();
    turn_until(&mut tcp, |_, event| matches!(event, Event::Opened { port: Port::Frames, .. }));
}

/// A peer whose host has gone says nothing: its connection must not be kept for ever.
#[test]
fn what_is_accepted_is_asked_for_a_sign_of_life() {
    let mut tcp = Tcp::new(Config::default()).unwrap();
    let address = tcp.listen(ANY, Port::Stream).unwrap();
    let _peer = TcpStream::connect(address).unwrap();
    let mut fd = -1;
    turn_until(&mut tcp, |tcp, event| {
        if let Event::Opened { ep, .. } = event {
            fd = tcp.table.at(ep.slot).fd;
        }
        fd >= 0
    });
    let option = |level, option| {
        let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: both live through the call, and `len` is the value's size.
        let result =
            unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut len) };
        assert_eq!(result, 0);
        value
    };
    assert_eq!(option(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
    assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 300);
}
