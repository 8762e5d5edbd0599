//! The session against the real replicas of a table, over a network that loses, repeats, delays and
//! cuts, in virtual time. Each write appends its own mark to a key, so the keys say at the end what was
//! applied, and how often.

#![allow(clippy::unwrap_used)]

#[path = "brick/replicas.rs"]
mod replicas;

use std::collections::HashMap;

use firebrick_client::session::Link;
use firebrick_client::{
    Error, Op, ReadFrom, Reply, Session, SessionOptions, Submit, TableId, Target,
};
use firebrick_partition::Failure;
use proptest::prelude::*;
use replicas::Replicas;

const MS: u64 = 1_000_000;
/// The kind of an operation on the wire.
const REQUEST: u8 = 3;
const TABLE: TableId = TableId(3);
const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

/// How bad the network and the brick are, in 1/256.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    lose: u8,
    repeat: u8,
    cut: u8,
    refuse: u8,
    /// `kill -9` of the brick, and a start.
    restart: u8,
    /// After a write: wait for all, then a minute of silence.
    idle: u8,
}

struct Frame {
    at_ns: u64,
    link: Link,
    to_brick: bool,
    bytes: Vec<u8>,
}

struct World {
    now_ns: u64,
    random: u64,
    weather: Weather,
    session: Session,
    brick: Replicas,
    link: Option<Link>,
    network: Vec<Frame>,
    results: HashMap<u64, Result<Vec<u8>, Error>>,
}

fn options(in_flight: usize) -> SessionOptions {
    SessionOptions {
        name: "test".into(),
        client: 1,
        in_flight,
        numbered: true,
        silence_ns: 500 * MS,
        seeds: vec!["brick:1".into()],
        connections: 1,
        read_from: ReadFrom::Any,
    }
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        Self {
            now_ns: MS,
            random: seed | 1,
            weather,
            session: Session::new(options(200)),
            brick: Replicas::new(2),
            link: None,
            network: Vec::new(),
            results: HashMap::new(),
        }
    }

    fn dice(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % below
    }

    fn chance(&mut self, of_256: u8) -> bool {
        self.dice(256) < u64::from(of_256)
    }

    /// Opens what the session asks for; a rest after a failure passes.
    fn connect(&mut self) {
        self.now_ns += 2 * MS;
        let results = &mut self.results;
        self.session.handle_timeout(self.now_ns, &mut sink(results));
        self.dial();
        assert!(self.link.is_some(), "the session wants a connection");
    }

    fn dial(&mut self) {
        while let Some(dial) = self.session.poll_dial(self.now_ns) {
            assert_eq!((&*dial.address, self.link), ("brick:1", None), "one connection a brick");
            self.link = Some(dial.link);
            self.session.handle_connected(self.now_ns, dial.link);
        }
    }

    fn cut(&mut self) {
        let Some(link) = self.link.take() else { return };
        let why = Error::Connection { address: "brick:1".into(), why: "cut".into() };
        let results = &mut self.results;
        self.session.handle_disconnected(self.now_ns, link, why, &mut sink(results));
    }

    fn submit(&mut self, token: u64, key: &[u8], op: Op<'_>) {
        let deadline_ns = self.now_ns + 5_000 * MS;
        let submit = Submit { table: TABLE, target: Target::Key(key), op, deadline_ns, token };
        self.session.submit(self.now_ns, &submit).unwrap();
    }

    /// Puts a frame on the network, some of them twice or not at all.
    fn post(&mut self, link: Link, to_brick: bool, bytes: &[u8]) {
        if self.chance(self.weather.lose) {
            return;
        }
        // No connection repeats a request: one copy refused (`NoSpace`) and the other applied is beyond any
        // client. Without refusals it must not matter.
        let may_repeat = !to_brick || self.weather.refuse == 0;
        let copies = if may_repeat && self.chance(self.weather.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let at_ns = self.now_ns + self.dice(3 * MS);
            self.network.push(Frame { at_ns, link, to_brick, bytes: bytes.to_vec() });
        }
    }

    fn step(&mut self) {
        let mut frame = Vec::new();
        loop {
            frame.clear();
            let results = &mut self.results;
            let sent = self.session.poll_send(self.now_ns, &mut frame, &mut sink(results));
            let Some(link) = sent else { break };
            self.post(link, true, &frame);
        }
        self.now_ns += MS / 4 + self.dice(MS);
        let weather = self.weather;
        if self.chance(weather.cut) {
            self.cut();
        }
        if self.chance(weather.restart) {
            self.brick.restart();
        }
        if self.chance(weather.refuse) {
            let failures =
                [Failure::Unavailable, Failure::Busy, Failure::NoSpace, Failure::DiskFailed];
            let failure = failures[self.dice(4) as usize];
            self.brick.refuse.push(failure);
        }
        self.deliver();
        let results = &mut self.results;
        self.session.handle_timeout(self.now_ns, &mut sink(results));
        while let Some(link) = self.session.poll_close() {
            assert_eq!(self.link.take(), Some(link));
        }
        if self.link.is_none() && self.chance(200) {
            self.dial();
        }
    }

    fn deliver(&mut self) {
        let now_ns = self.now_ns;
        let (mut due, later): (Vec<_>, Vec<_>) =
            self.network.drain(..).partition(|f| f.at_ns <= now_ns);
        self.network = later;
        due.sort_by_key(|f| f.at_ns);
        for frame in due {
            if frame.to_brick {
                // A request of a connection that is gone may still be read; its answer goes nowhere.
                let mut answer = Vec::new();
                self.brick.now.boot_ns = now_ns;
                self.brick.handle(&frame.bytes, &mut answer);
                self.post(frame.link, false, &answer);
            } else if self.link == Some(frame.link) {
                let results = &mut self.results;
                self.session
                    .handle_frame(now_ns, frame.link, &frame.bytes, &mut sink(results))
                    .unwrap();
            }
        }
    }

    /// A minute with nothing in flight: every frame has arrived or is lost, and sessions end.
    fn idle(&mut self) {
        self.run_until_done();
        // Also what the session asked for itself.
        while !self.network.is_empty() {
            self.step();
        }
        self.now_ns += 61_000 * MS;
        self.brick.now.boot_ns = self.now_ns;
        self.brick.tick();
    }

    fn run_until_done(&mut self) {
        for _ in 0..200_000 {
            if self.session.in_flight() == 0 {
                return;
            }
            self.step();
        }
        panic!("something is in flight long after its deadline");
    }

    fn count(&mut self, token: u64) -> usize {
        let mark = mark(token);
        let values = KEYS.iter().filter_map(|key| self.brick.value(key));
        values.map(|v| v.chunks(8).filter(|&chunk| chunk == mark).count()).sum()
    }
}

fn mark(token: u64) -> [u8; 8] {
    token.to_le_bytes()
}

fn sink(
    results: &mut HashMap<u64, Result<Vec<u8>, Error>>,
) -> impl FnMut(u64, Result<Reply<'_>, Error>) + '_ {
    move |token, result| {
        let result = result.map(|reply| format!("{reply:?}").into_bytes());
        assert!(results.insert(token, result).is_none(), "{token} was answered twice");
    }
}

/// Submits appends in bursts, waits for all of them, and compares answers with what was applied.
fn appends(world: &mut World, writes: u64) {
    world.connect();
    for token in 0..writes {
        let key = KEYS[world.dice(3) as usize];
        world.submit(token, key, Op::Append { value: &mark(token) });
        while world.session.room() == 0 || world.dice(4) == 0 {
            world.step();
        }
        if world.chance(world.weather.idle) {
            world.idle();
        }
    }
    world.run_until_done();
    for token in 0..writes {
        let applied = world.count(token);
        match world.results.get(&token).expect("every request is answered") {
            Ok(_) => assert_eq!(applied, 1, "{token} was acked"),
            Err(Error::InDoubt) => assert!(applied <= 1, "{token} was applied {applied} times"),
            Err(error) => assert_eq!(applied, 0, "{token} said that nothing changed: {error}"),
        }
    }
}

fn in_doubt(world: &World) -> usize {
    world.results.values().filter(|r| **r == Err(Error::InDoubt)).count()
}

/// The frames that are ready, by link.
fn frames(world: &mut World) -> Vec<(Link, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut frame = Vec::new();
        let results = &mut world.results;
        match world.session.poll_send(world.now_ns, &mut frame, &mut sink(results)) {
            Some(link) => frames.push((link, frame)),
            None => return frames,
        }
    }
}

/// Gives the brick's answers to frames, `copies` of each.
fn answer(world: &mut World, frames: &[(Link, Vec<u8>)], copies: usize) {
    for (link, frame) in frames {
        let mut answer = Vec::new();
        world.brick.handle(frame, &mut answer);
        for _ in 0..copies {
            let results = &mut world.results;
            let sink = &mut sink(results);
            world.session.handle_frame(world.now_ns, *link, &answer, sink).unwrap();
        }
    }
}

/// A world whose session knows the map and, when numbered, has its write sessions.
fn settled(numbered: bool) -> World {
    let mut world = World::new(7, Weather::default());
    world.session = Session::new(SessionOptions { numbered, ..options(200) });
    world.connect();
    for (token, key) in KEYS.iter().enumerate() {
        world.submit(1000 + token as u64, key, Op::Append { value: b"settled!" });
    }
    while world.session.in_flight() > 0 {
        let sent = frames(&mut world);
        answer(&mut world, &sent, 1);
    }
    world
}

/// An answer that comes twice must not send a write again which cannot be told apart from the first.
#[test]
fn a_repeated_stale_route_sends_an_unnumbered_write_once_more_not_twice() {
    let mut world = settled(false);
    world.brick.restart();
    world.submit(1, KEYS[0], Op::Append { value: &mark(1) });
    let first = frames(&mut world);
    answer(&mut world, &first, 2);
    let mut second = frames(&mut world);
    // The map is fetched beside.
    second.retain(|(_, frame)| frame[0] == REQUEST);
    assert_eq!(second.len(), 1);
    // The first answer once more, now that the second try is on its way.
    answer(&mut world, &first, 1);
    let third = frames(&mut world);
    assert!(third.iter().all(|(_, f)| f[0] != REQUEST), "the write left a third time");
    answer(&mut world, &second, 2);
    assert_eq!(world.count(1), 1);
    assert!(world.results[&1].is_ok());
}

/// Nobody answers a request for the map, and nothing can be done about it: the shell must not be woken for that.
#[test]
fn a_silent_brick_leaves_the_shell_asleep() {
    let mut world = World::new(1, Weather::default());
    world.connect();
    let deadline_ns = world.now_ns + 60_000 * MS;
    world.session.fetch_map(world.now_ns, deadline_ns, 7).unwrap();
    let _ = frames(&mut world);
    let mut woken = 0;
    for _ in 0..100 {
        let due_ns = world.session.poll_timeout();
        if due_ns > world.now_ns + 10_000 * MS {
            break;
        }
        world.now_ns = due_ns.max(world.now_ns + 1);
        let results = &mut world.results;
        world.session.handle_timeout(world.now_ns, &mut sink(results));
        let _ = frames(&mut world);
        woken += 1;
    }
    assert!(woken < 20, "woken {woken} times");
}

/// After a cut, an answer of the old connection says nothing of the new one's try.
#[test]
fn an_answer_of_a_connection_that_is_gone_is_ignored() {
    let mut world = settled(true);
    world.submit(1, KEYS[0], Op::Append { value: &mark(1) });
    let first = frames(&mut world);
    world.cut();
    world.connect();
    let second = frames(&mut world);
    answer(&mut world, &first, 1);
    assert!(!world.results.contains_key(&1));
    answer(&mut world, &second, 1);
    assert!(world.results[&1].is_ok());
    assert_eq!(world.count(1), 1, "sent twice, applied once");
}

/// Without numbers a lost write is in doubt at once, a read is simply sent again.
#[test]
fn an_unnumbered_write_is_not_retried_after_a_cut() {
    let mut world = settled(false);
    world.submit(1, KEYS[0], Op::Append { value: &mark(1) });
    world.submit(2, KEYS[0], Op::Get);
    assert_eq!(frames(&mut world).len(), 2);
    world.submit(3, KEYS[0], Op::Append { value: &mark(3) });
    world.cut();
    assert_eq!(world.results[&1], Err(Error::InDoubt));
    world.connect();
    let again = frames(&mut world);
    assert_eq!(again.len(), 3, "hello, the read, and the write that had not left");
    answer(&mut world, &again, 1);
    assert!(world.results[&2].is_ok() && world.results[&3].is_ok());
    assert_eq!((world.count(1), world.count(3)), (0, 1));
}

/// 64 writes to one partition are in flight at most, and the 65th leaves when the *lowest* is answered.
#[test]
fn the_window_holds_writes_back_and_reads_pass() {
    let mut world = settled(true);
    for token in 0..80 {
        world.submit(token, KEYS[0], Op::Append { value: &mark(token) });
    }
    world.submit(500, KEYS[0], Op::Get);
    let sent = frames(&mut world);
    assert_eq!(sent.len(), 65, "64 writes and the read");
    answer(&mut world, &sent[1..64], 1);
    assert!(frames(&mut world).is_empty(), "the lowest is still unanswered");
    answer(&mut world, &sent[..1], 1);
    assert_eq!(frames(&mut world).len(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    /// Promise 4, exactly once: whatever the network does, no write is applied twice, every acked one
    /// is there, and what failed for sure is not.
    #[test]
    fn nothing_is_applied_twice_and_no_ack_is_lost(
        seed: u64,
        lose in 0u8..20,
        repeat in 0u8..60,
        cut in 0u8..20,
        refuse in prop_oneof![Just(0u8), 0u8..40],
        restart in 0u8..10,
        idle in 0u8..40,
    ) {
        let weather = Weather { lose, repeat, cut, refuse, restart, idle };
        let mut world = World::new(seed, weather);
        appends(&mut world, 150);
    }

    /// `InDoubt` only when true: without a lost frame or a cut, refusals, stale routes and ended
    /// sessions leave no doubt.
    #[test]
    fn no_doubt_without_a_loss(
        seed: u64,
        refuse in 0u8..60,
        restart in 0u8..30,
        idle in 0u8..60,
    ) {
        let weather = Weather { refuse, restart, idle, ..Weather::default() };
        let mut world = World::new(seed, weather);
        appends(&mut world, 150);
        prop_assert_eq!(in_doubt(&world), 0);
    }

    /// Cuts alone cost nobody an answer: what was lost is sent again under its number.
    #[test]
    fn cuts_alone_leave_no_doubt(seed: u64, cut in 1u8..40) {
        let mut world = World::new(seed, Weather { cut, ..Weather::default() });
        appends(&mut world, 150);
        prop_assert_eq!(in_doubt(&world), 0);
        prop_assert!(world.results.values().all(Result::is_ok));
    }
}
