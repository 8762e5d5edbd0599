//! The simulator must keep TCP's promises, or what is tested on it means nothing.

use super::*;

fn settle(world: &World, fakes: &mut [&mut Fake], until_ns: u64) -> Vec<Vec<String>> {
    let mut seen = vec![Vec::new(); fakes.len()];
    let mut events = Vec::new();
    let mut now = 0;
    loop {
        for (n, fake) in fakes.iter_mut().enumerate() {
            fake.poll(now, &mut events);
            for event in events.drain(..) {
                seen[n].push(match event {
                    Event::Frame { ep, rx } | Event::Bytes { ep, rx } => {
                        format!("{} {}", ep.slot, String::from_utf8_lossy(fake.bytes(&rx)))
                    }
                    Event::Opened { ep, .. } => format!("{} opened", ep.slot),
                    Event::Closed { ep, reason } => format!("{} {reason:?}", ep.slot),
                    other => format!("{other:?}"),
                });
            }
            fake.flush().unwrap();
        }
        match world.next_ns() {
            Some(next) if next <= until_ns => now = now.max(next),
            _ => return seen,
        }
    }
}

/// Forty messages over two pairs of endpoints.
fn two_pairs(seed: u64) -> Vec<String> {
    let world = World::new(seed, Settings::default());
    let (mut a, mut b) = (world.fake(), world.fake());
    let (first, _) = world.connect(&mut a, &mut b, Port::Frames);
    let (second, _) = world.connect(&mut a, &mut b, Port::Frames);
    for n in 0..20 {
        for ep in [first, second] {
            a.send(ep, format!("{n}").as_bytes(), None, Token(0)).unwrap();
        }
    }
    let mut seen = settle(&world, &mut [&mut a, &mut b], u64::MAX);
    seen.remove(1)
}

#[test]
fn one_endpoint_keeps_order_and_two_overtake_each_other() {
    let mut overtaken = 0;
    for seed in 0..50 {
        let seen = two_pairs(seed);
        for slot in ["0", "1"] {
            let own: Vec<_> =
                seen.iter().filter_map(|s| s.strip_prefix(&format!("{slot} "))).collect();
            let sent: Vec<_> = (0..20).map(|n| n.to_string()).collect();
            assert_eq!(own[1..], sent, "seed {seed}");
        }
        let alternate = (0..20).flat_map(|n| [format!("0 {n}"), format!("1 {n}")]);
        overtaken += usize::from(!seen[2..].iter().eq(alternate.collect::<Vec<_>>().iter()));
    }
    assert!(overtaken > 40);
}

#[test]
fn a_seed_repeats_its_run() {
    assert_eq!(two_pairs(7), two_pairs(7));
    assert!((0..20).any(|seed| two_pairs(seed) != two_pairs(7)));
}

#[test]
fn a_lost_connection_delivers_a_prefix_and_ends_once_on_both_sides() {
    for seed in 0..200 {
        let world = World::new(seed, Settings { loss_per_million: 100_000, ..Settings::default() });
        let (mut a, mut b) = (world.fake(), world.fake());
        let (ep, _) = world.connect(&mut a, &mut b, Port::Frames);
        for n in 0..100 {
            let _ = a.send(ep, format!("{n}").as_bytes(), None, Token(0));
        }
        let seen = settle(&world, &mut [&mut a, &mut b], u64::MAX);
        let ends = |n: usize| seen[n].iter().filter(|s| s.contains("Io(")).count();
        assert_eq!((ends(0), ends(1)), (1, 1), "seed {seed}: {seen:?}");
        let arrived: Vec<_> = seen[1].iter().filter(|s| !s.contains(['o', 'I'])).collect();
        let prefix: Vec<_> = (0..arrived.len()).map(|n| format!("0 {n}")).collect();
        assert!(arrived.into_iter().eq(&prefix), "seed {seed}");
        assert!(a.send(ep, b"late", None, Token(0)).is_err());
    }
}

#[test]
fn a_cut_ends_the_connections_between_two_and_no_others() {
    let world = World::new(1, Settings::default());
    let (mut a, mut b, mut c) = (world.fake(), world.fake(), world.fake());
    world.connect(&mut a, &mut b, Port::Frames);
    let (ac, _) = world.connect(&mut a, &mut c, Port::Frames);
    world.cut(&a, &b);
    a.send(ac, b"still here", None, Token(0)).unwrap();
    let seen = settle(&world, &mut [&mut a, &mut b, &mut c], u64::MAX);
    assert!(seen[1].last().is_some_and(|s| s.contains("Io(")));
    assert_eq!(seen[2], ["0 opened", "0 still here"]);
}

#[test]
fn a_stream_peer_that_does_not_read_fills_the_endpoint_and_drains_it_by_reading() {
    let world = World::new(3, Settings::default());
    let mut a = world.fake();
    let (ep, peer) = world.stream(&mut a);
    peer.feed(0, b"PING");
    let seen = settle(&world, &mut [&mut a], 1_000_000);
    assert_eq!(seen[0], ["0 opened", "0 PING"]);
    a.out(ep).unwrap().extend_from_slice(&vec![b'x'; OUT_BYTES_MAX]);
    a.flush().unwrap();
    assert_eq!(a.room(ep), 0);
    // Asked while full: kept back until there is room.
    peer.feed(1_000_000, b"AGAIN");
    let mut events = Vec::new();
    a.poll(2_000_000, &mut events);
    assert!(events.is_empty());
    assert_eq!(peer.taken(3_000_000).len(), OUT_BYTES_MAX);
    a.poll(3_000_000, &mut events);
    a.poll(3_000_001, &mut events);
    assert!(matches!(events[..], [Event::Drained { .. }, Event::Bytes { .. }]), "{events:?}");
    assert_eq!(a.room(ep), OUT_BYTES_MAX);
}

#[test]
fn a_close_comes_after_what_was_queued() {
    let world = World::new(4, Settings::default());
    let (mut a, mut b) = (world.fake(), world.fake());
    let (ep, _) = world.connect(&mut a, &mut b, Port::Stream);
    a.out(ep).unwrap().extend_from_slice(b"bye");
    a.close(ep);
    assert!(a.out(ep).is_none());
    let seen = settle(&world, &mut [&mut a, &mut b], u64::MAX);
    assert_eq!(seen, [["0 opened", "0 Finished"].as_slice(), &["0 opened", "0 bye", "0 Finished"]]);
}

#[test]
fn disk_writes_complete_by_themselves_or_by_hand() {
    let write = DiskWrite { fd: 1, ptr: [0u8; 8].as_ptr(), len: 8, offset: 0, durable: true };
    let world = World::new(5, Settings::default());
    let mut a = world.fake();
    a.disk_write(write, Token(1)).unwrap();
    world.set(Settings { disk: Disk::ByHand, ..Settings::default() });
    a.disk_write(write, Token(2)).unwrap();
    let seen = settle(&world, &mut [&mut a], u64::MAX);
    assert_eq!(seen[0], ["Done { token: Token(1), result: 8 }"]);
    assert_eq!(a.writes().map(|(token, _)| token).collect::<Vec<_>>(), [Token(2)]);
    a.complete(Token(2), -libc::EIO);
    let seen = settle(&world, &mut [&mut a], u64::MAX);
    assert_eq!(seen[0], ["Done { token: Token(2), result: -5 }"]);
}

#[test]
fn a_way_that_is_blocked_delays_what_is_on_it_and_nothing_that_goes_back() {
    for seed in 0..50 {
        let world = World::new(seed, Settings::default());
        let (mut a, mut b) = (world.fake_on(1), world.fake_on(2));
        let (ep, back) = world.connect(&mut a, &mut b, Port::Frames);
        settle(&world, &mut [&mut a, &mut b], 1_000_000);
        world.block(1, 2, 1_000_000);
        a.send(ep, b"late", None, Token(0)).unwrap();
        b.send(back, b"soon", None, Token(0)).unwrap();
        let seen = settle(&world, &mut [&mut a, &mut b], 9_000_000);
        assert_eq!(seen, [vec!["0 soon".to_owned()], Vec::new()], "seed {seed}");
        world.unblock(1, 2, 9_000_000);
        a.send(ep, b"later", None, Token(0)).unwrap();
        let seen = settle(&world, &mut [&mut a, &mut b], 9_000_000 + 8_000_000 + 50_000);
        assert_eq!(seen[1], ["0 late", "0 later"], "seed {seed}: after as long again at most");
    }
}

#[test]
fn a_dial_opens_after_a_round_trip_waits_while_a_way_is_blocked_and_is_refused_by_nobody() {
    let address = SocketAddr::from(([10, 0, 0, 1], 7400));
    let settings = Settings { delay_ns: 1_000..=1_000, ..Settings::default() };
    let world = World::new(1, settings);
    let (mut a, mut b) = (world.fake_on(1), world.fake_on(2));
    a.dial(address, Port::Frames).unwrap();
    let seen = settle(&world, &mut [&mut a, &mut b], u64::MAX);
    assert_eq!(seen[0], [format!("0 Io({})", libc::ECONNREFUSED)]);
    b.listen(address);
    a.dial(address, Port::Frames).unwrap();
    let mut events = Vec::new();
    for (now, opened) in [(2_500, 0), (4_000, 1)] {
        a.poll(now, &mut events);
        assert_eq!(events.len(), opened, "at {now}");
    }
    for (from, to) in [(1, 2), (2, 1)] {
        world.block(from, to, 5_000);
        a.dial(address, Port::Frames).unwrap();
        let seen = settle(&world, &mut [&mut a, &mut b], u64::MAX);
        assert!(seen[0].is_empty(), "{from} to {to}");
        world.unblock(from, to, 50_000);
        let seen = settle(&world, &mut [&mut a, &mut b], u64::MAX);
        assert!(matches!(&seen[0][..], [one] if one.ends_with("opened")), "{seen:?}");
    }
    drop(b);
    let seen = settle(&world, &mut [&mut a], u64::MAX);
    assert_eq!(seen[0].len(), 3, "each connection is lost: {seen:?}");
}

#[test]
fn a_closed_end_is_over_at_once_though_nothing_gets_through() {
    let world = World::new(1, Settings::default());
    let (mut a, mut b) = (world.fake_on(1), world.fake_on(2));
    let (ep, _) = world.connect(&mut a, &mut b, Port::Frames);
    settle(&world, &mut [&mut a, &mut b], 1_000_000);
    world.part(&a, &b);
    a.abort(ep);
    let seen = settle(&world, &mut [&mut a, &mut b], u64::MAX);
    assert_eq!(seen, [vec!["0 Finished".to_owned()], Vec::new()]);
}
