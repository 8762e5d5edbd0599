//! Which connection carries what between two bricks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use firebrick_net::fake::{Fake, Settings, World};
use firebrick_net::{Ep, Event, Fabric, Token};
use firebrick_partition::maps::BrickEntry;
use firebrick_partition::replica::Me;
use firebrick_partition::wire::{self, Limits, Message, Welcome};

use super::super::{Holder, Peers};
use crate::shard::asker::ConnId;

const MS: u64 = 1_000_000;

/// A brick as far as its ways go.
struct End {
    me: Me,
    fake: Fake,
    peers: Peers,
    /// On which endpoint each message came.
    came_on: Vec<Ep>,
    /// Connections, and how many there have been.
    open: usize,
    opened: usize,
    /// As whom it answers greetings.
    named: u32,
}

struct Scene {
    now: u64,
    ends: [End; 2],
    incarnations: [u64; 2],
}

fn address(brick: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7400 + brick as u16))
}

impl End {
    fn new(world: &World, me: Me) -> Self {
        let mut fake = world.fake();
        fake.listen(address(me.brick));
        let (peers, came_on) = (Peers::new(me), Vec::new());
        Self { me, fake, peers, came_on, open: 0, opened: 0, named: me.brick }
    }

    fn on_frame(&mut self, ep: Ep, bytes: &[u8], now: u64) {
        match wire::decode(bytes).unwrap() {
            Message::Hello { slot, hello } => {
                let welcome = Welcome {
                    name: "it",
                    brick: self.named,
                    incarnation: self.me.incarnation,
                    cores: 1,
                    core: 0,
                    map_version: 1,
                    features: 0,
                    limits: Limits::default(),
                };
                let mut frame = Vec::new();
                wire::welcome(&mut frame, slot, &welcome);
                self.peers.on_came(ep, &hello, now);
                self.fake.read_on(ep);
                self.fake.send(ep, &frame, None, Token::NONE).unwrap();
            }
            Message::Welcome { welcome, .. } => {
                if !self.peers.on_welcome(ep, welcome.brick) {
                    self.fake.abort(ep);
                }
            }
            _ => self.came_on.push(ep),
        }
    }

    fn turn(&mut self, now: u64) {
        let mut events = Vec::new();
        self.fake.poll(now, &mut events);
        for event in events {
            match event {
                Event::Opened { ep, .. } => {
                    (self.open, self.opened) = (self.open + 1, self.opened + 1);
                    if self.peers.on_opened(&mut self.fake, ep, now).is_some() {
                        self.fake.read_on(ep);
                    }
                }
                Event::Frame { ep, rx } => {
                    let bytes = self.fake.bytes(&rx).to_vec();
                    self.fake.release(rx);
                    self.on_frame(ep, &bytes, now);
                }
                Event::Closed { ep, .. } => {
                    self.open -= 1;
                    self.peers.on_closed(ep, now);
                }
                _ => {}
            }
        }
        self.peers.poll(&mut self.fake, now);
        self.fake.flush().unwrap();
    }

    /// More than any queue or socket takes at once, in one frame.
    fn send_much(&mut self, to: u32) -> Option<Ep> {
        let mut message = Vec::new();
        let json = "x".repeat(3 << 20);
        wire::control(&mut message, 1, &json);
        self.peers.send(&mut self.fake, to, &message)
    }

    fn send(&mut self, to: u32) -> Option<Ep> {
        let mut message = Vec::new();
        wire::fetch_map(&mut message, 1, wire::Known::default());
        self.peers.send(&mut self.fake, to, &message)
    }
}

impl Scene {
    fn new() -> Self {
        let world = World::new(1, Settings::default());
        let end = |brick| End::new(&world, Me { brick, incarnation: 1 });
        let ends = [end(1), end(2)];
        let mut scene = Self { now: 1_000 * MS, ends, incarnations: [1, 1] };
        scene.set_bricks(0);
        scene.set_bricks(1);
        scene
    }

    fn set_bricks(&mut self, at: usize) {
        let entry = |brick: u32| BrickEntry {
            id: brick,
            incarnation: self.incarnations[brick as usize - 1],
            name: format!("brick-{brick}"),
            listen: address(brick).to_string(),
            ..BrickEntry::default()
        };
        let bricks = [entry(1), entry(2)];
        let end = &mut self.ends[at];
        end.peers.set_bricks(&mut end.fake, &bricks, &BTreeSet::new());
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += MS;
            self.ends.iter_mut().for_each(|end| end.turn(self.now));
        }
    }

    /// Sends from one and from the other: each on its end of which connection, and where both came.
    fn exchange(&mut self) -> [Ep; 2] {
        let sent = [self.ends[0].send(2), self.ends[1].send(1)].map(|ep| ep.expect("a way"));
        self.ends.iter_mut().for_each(|end| end.came_on.clear());
        self.run(5);
        let came = [self.ends[0].came_on.clone(), self.ends[1].came_on.clone()];
        assert_eq!(came, [vec![sent[0]], vec![sent[1]]], "each comes on what the other sends on");
        sent
    }
}

#[test]
fn one_connection_carries_both_directions_whoever_dialled_it() {
    for first in [0, 1] {
        let mut scene = Scene::new();
        assert_eq!(scene.ends[first].send(2 - first as u32), None, "it is dialled now");
        scene.run(5);
        scene.exchange();
        assert_eq!([scene.ends[0].open, scene.ends[1].open], [1, 1]);
    }
}

#[test]
fn of_two_both_use_the_one_that_the_lower_number_dialled() {
    let mut scene = Scene::new();
    assert_eq!([scene.ends[0].send(2), scene.ends[1].send(1)], [None, None]);
    scene.run(5);
    assert_eq!([scene.ends[0].open, scene.ends[1].open], [2, 2]);
    let way = scene.exchange()[0];
    // It ends: the other one is there.
    scene.ends[0].fake.abort(way);
    scene.run(5);
    assert_ne!(scene.exchange()[0], way);
    assert_eq!([scene.ends[0].open, scene.ends[1].open], [1, 1]);
}

#[test]
fn a_way_of_an_earlier_process_is_given_up() {
    let mut scene = Scene::new();
    scene.ends[1].send(1);
    scene.run(5);
    scene.exchange();
    // Brick 2 has a new process; its old one is only cut off.
    scene.incarnations[1] = 2;
    scene.set_bricks(0);
    assert_eq!(scene.ends[0].send(2), None, "the old process has nothing to hear any more");
    scene.run(5);
    // What greets as the old one is no way either.
    let hello =
        wire::Hello { client: "brick", features: wire::BOTH_WAYS, brick: 2, incarnation: 1 };
    let ep = Ep { slot: 77, generation: 0 };
    assert!(!scene.ends[0].peers.on_came(ep, &hello, scene.now));
    let hello = wire::Hello { incarnation: 2, ..hello };
    assert!(scene.ends[0].peers.on_came(ep, &hello, scene.now));
    // And what greets for a look, as probes do, or as a client, never is.
    let probe = wire::Hello { features: 0, ..hello };
    assert!(!scene.ends[0].peers.on_came(ep, &probe, scene.now));
    let client = wire::Hello { brick: 0, ..hello };
    assert!(!scene.ends[0].peers.on_came(ep, &client, scene.now));
}

#[test]
fn another_brick_at_the_address_is_dialled_seldom_and_is_no_way() {
    let mut scene = Scene::new();
    scene.ends[1].named = 3;
    // It knows no other to dial.
    scene.ends[1].peers = Peers::new(Me { brick: 3, incarnation: 1 });
    scene.ends[0].send(2);
    scene.run(5);
    assert_eq!((scene.ends[0].open, scene.ends[0].send(2)), (0, None));
    let before = scene.ends[1].opened;
    for _ in 0..100 {
        scene.ends[0].send(2);
        scene.run(10);
    }
    let dials = scene.ends[1].opened - before;
    assert!((3..=6).contains(&dials), "{dials} dials in a second");
}

#[test]
fn two_that_send_much_to_each_other_both_read() {
    let mut scene = Scene::new();
    scene.ends[0].send(2);
    scene.run(5);
    let sent = [scene.ends[0].send_much(2), scene.ends[1].send_much(1)];
    assert!(sent.iter().all(Option::is_some));
    scene.run(50);
    assert_eq!(scene.ends.each_ref().map(|end| end.came_on.len()), [1, 1]);
    scene.exchange();
}

/// What went one way comes before what goes another, for one connection.
#[test]
fn a_request_does_not_overtake_those_of_its_connection_on_a_way_that_was() {
    let mut scene = Scene::new();
    let conn = |slot| ConnId::new(Ep { slot, generation: 0 });
    scene.ends[1].send(1);
    scene.run(5);
    let peers = &mut scene.ends[1].peers;
    assert!(!peers.overtakes(conn(1), 1));
    peers.forwards.begin((conn(1), 0), 7, Vec::new(), false, 0).unwrap();
    let Some(Ok(mut forward)) = peers.forwards.next(scene.now) else { panic!("it is fresh") };
    let slot = peers.forwards.take_slot();
    let old = scene.ends[1].send(1).unwrap();
    forward.holder = Holder::Way(old);
    scene.ends[1].peers.forwards.sent(slot, forward);
    // The other brick dials too, and its number is lower.
    let hello =
        wire::Hello { client: "brick", features: wire::BOTH_WAYS, brick: 1, incarnation: 1 };
    let new = Ep { slot: 77, generation: 0 };
    let peers = &mut scene.ends[1].peers;
    assert!(peers.on_came(new, &hello, scene.now));
    assert!(peers.overtakes(conn(1), 1), "its first request is still on the old way");
    assert!(!peers.overtakes(conn(2), 1), "another's is not");
    assert!(peers.forwards.answered(slot, Holder::Way(old)).is_some());
    assert!(!peers.overtakes(conn(1), 1));
}

/// Several cores of a brick may have dialled this one. When the brick falls silent, all ways that have requests are.
#[test]
fn a_request_on_an_earlier_way_does_not_wait_for_a_brick_that_is_silent() {
    let mut scene = Scene::new();
    let peers = &mut scene.ends[1].peers;
    let hello =
        wire::Hello { client: "brick", features: wire::BOTH_WAYS, brick: 1, incarnation: 1 };
    let ways = [0, 1, 2].map(|n| Ep { slot: 70 + n, generation: 0 });
    let mut slots = Vec::new();
    for (n, way) in ways.into_iter().enumerate() {
        assert!(peers.on_came(way, &hello, scene.now));
        let conn = ConnId::new(Ep { slot: n as u32, generation: 0 });
        peers.forwards.begin((conn, 0), 7, Vec::new(), false, 0).unwrap();
        let Some(Ok(mut forward)) = peers.forwards.next(scene.now) else { panic!("it is fresh") };
        forward.holder = Holder::Way(way);
        slots.push(peers.forwards.take_slot());
        peers.forwards.sent(slots[n], forward);
    }
    // (Nobody is there to answer.)
    scene.ends[1].peers.probes.want(1, Some(address(9)), scene.now);
    for _ in 0..1_500 {
        scene.now += MS;
        let end = &mut scene.ends[1];
        end.peers.poll(&mut end.fake, scene.now);
    }
    let peers = &mut scene.ends[1].peers;
    let silent: Vec<Ep> = peers.silent_ways(scene.now).collect();
    assert!(ways.iter().all(|way| silent.contains(way)), "{silent:?}");
    // One that has none any more is not kept in mind.
    peers.forwards.answered(slots[0], Holder::Way(ways[0])).unwrap();
    assert!(peers.on_came(Ep { slot: 80, generation: 0 }, &hello, scene.now));
    assert!(peers.silent_ways(scene.now).all(|way| way != ways[0]));
}
