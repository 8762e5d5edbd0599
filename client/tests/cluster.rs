//! The session against several bricks in virtual time: primaries move, bricks die, come and go black, maps lag, answers
//! are lost after the request was executed. The bricks share the real replicas of a table: what is tested is the
//! client, so what the group itself promises is taken for granted.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "brick/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "brick/replicas.rs"]
mod replicas;

use std::collections::HashMap;

use cluster::Cluster;
use firebrick_client::session::Link;
use firebrick_client::{
    Error, Op, ReadFrom, Reply, Session, SessionOptions, Submit, TableId, Target,
};
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const TABLE: TableId = TableId(3);
/// The kind of an operation on the wire.
const REQUEST: u8 = 3;

/// How often what goes wrong, in 1/1024 a step.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    cut: u16,
    /// A brick dies for a while; its groups go on without it after a lease.
    die: u16,
    /// A brick takes everything and answers nothing for a while.
    mute: u16,
    /// A primary hands over.
    hand_over: u16,
    /// A brick hears of the newest map.
    news: u16,
    /// A brick is out of its lease for a while.
    lapse: u16,
    /// A brick joins or leaves for good.
    resize: u16,
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
    cluster: Cluster,
    /// Which brick each open connection leads to.
    links: HashMap<Link, u32>,
    dialling: Vec<(u64, Link, String)>,
    network: Vec<Frame>,
    results: HashMap<u64, (u64, Result<String, Error>)>,
}

fn options(numbered: bool, read_from: ReadFrom) -> SessionOptions {
    SessionOptions {
        name: "test".into(),
        client: 77,
        in_flight: 64,
        numbered,
        silence_ns: 100 * MS,
        seeds: vec!["nobody:1".into(), Cluster::address(1).into(), Cluster::address(2).into()],
        connections: 1,
        read_from,
    }
}

fn sink(
    now_ns: u64,
    results: &mut HashMap<u64, (u64, Result<String, Error>)>,
) -> impl FnMut(u64, Result<Reply<'_>, Error>) + '_ {
    move |token, result| {
        let result = result.map(|reply| format!("{reply:?}"));
        assert!(results.insert(token, (now_ns, result)).is_none(), "{token} was answered twice");
    }
}

impl World {
    fn new(seed: u64, weather: Weather, numbered: bool) -> Self {
        Self {
            now_ns: MS,
            random: seed | 1,
            weather,
            session: Session::new(options(numbered, ReadFrom::Any)),
            cluster: Cluster::new(4, 3),
            links: HashMap::new(),
            dialling: Vec::new(),
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

    fn chance(&mut self, of_1024: u16) -> bool {
        self.dice(1024) < u64::from(of_1024)
    }

    fn submit(&mut self, token: u64, key: &[u8], op: Op<'_>) {
        let deadline_ns = self.now_ns + 5_000 * MS;
        let submit = Submit { table: TABLE, target: Target::Key(key), op, deadline_ns, token };
        self.session.submit(self.now_ns, &submit).unwrap();
    }

    fn post(&mut self, link: Link, to_brick: bool, bytes: Vec<u8>) {
        let at_ns = self.now_ns + self.dice(2 * MS);
        self.network.push(Frame { at_ns, link, to_brick, bytes });
    }

    /// What the session sends now.
    fn sends(&mut self) -> Vec<(Link, Vec<u8>)> {
        let mut frames = Vec::new();
        loop {
            let mut frame = Vec::new();
            let results = &mut self.results;
            let sink = &mut sink(self.now_ns, results);
            match self.session.poll_send(self.now_ns, &mut frame, sink) {
                Some(link) => frames.push((link, frame)),
                None => return frames,
            }
        }
    }

    fn lose(&mut self, link: Link, why: &str) {
        self.links.remove(&link);
        let error = Error::Connection { address: "there".into(), why: why.into() };
        let results = &mut self.results;
        let sink = &mut sink(self.now_ns, results);
        self.session.handle_disconnected(self.now_ns, link, error, sink);
    }

    fn dial(&mut self) {
        while let Some(dial) = self.session.poll_dial(self.now_ns) {
            let at_ns = self.now_ns + self.dice(MS);
            self.dialling.push((at_ns, dial.link, dial.address.to_string()));
        }
        let due: Vec<_> = self.dialling.extract_if(.., |d| d.0 <= self.now_ns).collect();
        for (at_ns, link, address) in due {
            match self.cluster.at(&address) {
                Some(brick) if self.cluster.is_mute(brick) => {
                    self.dialling.push((at_ns + MS, link, address));
                }
                Some(brick) if self.cluster.is_up(brick) => {
                    self.links.insert(link, brick);
                    self.session.handle_connected(self.now_ns, link);
                }
                _ => self.lose(link, "refused"),
            }
        }
    }

    fn step(&mut self) {
        for (link, frame) in self.sends() {
            self.post(link, true, frame);
        }
        self.now_ns += MS / 4 + self.dice(MS);
        self.cluster.set_time(self.now_ns);
        self.strike();
        self.deliver();
        let results = &mut self.results;
        self.session.handle_timeout(self.now_ns, &mut sink(self.now_ns, results));
        while let Some(link) = self.session.poll_close() {
            self.links.remove(&link);
            self.dialling.retain(|d| d.1 != link);
        }
        self.dial();
    }

    /// Things go wrong.
    fn strike(&mut self) {
        let weather = self.weather;
        let bricks = self.cluster.ids();
        let brick = bricks[self.dice(bricks.len() as u64) as usize];
        let until = self.now_ns + (20 + self.dice(150)) * MS;
        if self.chance(weather.cut)
            && let Some(link) = self.links.keys().min().copied()
        {
            self.lose(link, "cut");
        }
        if self.chance(weather.die) {
            self.cluster.die(brick, until);
        }
        if self.chance(weather.mute) {
            self.cluster.mute(brick, until);
        }
        if self.chance(weather.lapse) {
            self.cluster.lapse(brick, until);
        }
        if self.chance(weather.hand_over) {
            self.cluster.hand_over();
        }
        if self.chance(weather.news) {
            self.cluster.tell(brick);
        }
        // Last: it may take away the brick that was chosen.
        if self.chance(weather.resize) {
            self.cluster.resize();
        }
        self.cluster.keep();
        let dead: Vec<_> =
            self.links.iter().filter(|(_, b)| !self.cluster.is_up(**b)).map(|l| *l.0).collect();
        for link in dead {
            self.lose(link, "reset");
        }
    }

    fn deliver(&mut self) {
        let now_ns = self.now_ns;
        let mut due: Vec<_> = self.network.extract_if(.., |f| f.at_ns <= now_ns).collect();
        due.sort_by_key(|f| f.at_ns);
        for frame in due {
            let Some(&brick) = self.links.get(&frame.link) else { continue };
            if self.cluster.is_mute(brick) {
                continue;
            }
            if frame.to_brick {
                let mut answer = Vec::new();
                let dice = self.dice(1 << 20);
                self.cluster.handle(brick, &frame.bytes, dice, &mut answer);
                self.post(frame.link, false, answer);
            } else {
                let results = &mut self.results;
                let sink = &mut sink(now_ns, results);
                self.session.handle_frame(now_ns, frame.link, &frame.bytes, sink).unwrap();
            }
        }
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

    /// Submits one and takes the time of its answer.
    fn ask(&mut self, token: u64, key: &[u8], op: Op<'_>) -> (u64, Result<String, Error>) {
        let began = self.now_ns;
        self.submit(token, key, op);
        self.run_until_done();
        let (ended, result) = self.results[&token].clone();
        (ended - began, result)
    }
}

fn key(n: u64) -> [u8; 1] {
    [b'a' + (n % 6) as u8]
}

/// Increments of a few keys in bursts. Every acked one counts once, what is in doubt at most once, the rest not;
/// every read sees at least what was acked before it was asked.
fn increments(world: &mut World, writes: u64) {
    let mut reads = Vec::new();
    for token in 0..writes {
        world.submit(token, &key(token), Op::Increment { by: 1 });
        if world.dice(3) == 0 && world.session.room() > 1 {
            let asked = key(world.dice(6));
            let acked = acked(world, writes, &asked);
            world.submit(1_000_000 + token, &asked, Op::Get);
            reads.push((1_000_000 + token, acked));
        }
        while world.session.room() < 2 || world.dice(3) == 0 {
            world.step();
        }
    }
    world.run_until_done();
    for n in 0..6 {
        let sum = sum(world.cluster.replicas.value(&key(n)));
        let of_key = || (0..writes).filter(|t| key(*t) == key(n)).map(|t| &world.results[&t].1);
        let acked = of_key().filter(|r| r.is_ok()).count() as u64;
        let doubtful = of_key().filter(|r| **r == Err(Error::InDoubt)).count() as u64;
        assert!(
            acked <= sum && sum <= acked + doubtful,
            "{acked} acked, {doubtful} in doubt: {sum}"
        );
    }
    for (token, acked) in reads {
        let Ok(answer) = &world.results[&token].1 else { continue };
        let value = answer.split("value: [").nth(1).map_or(0, |rest| {
            let digits = rest.split(']').next().unwrap();
            let bytes = digits.split(", ").map(|b| b.parse::<u8>().unwrap()).collect();
            sum(Some(bytes))
        });
        assert!(value >= acked, "a read gave {value} after {acked} were acked");
    }
}

fn acked(world: &World, writes: u64, asked: &[u8]) -> u64 {
    let done = (0..writes).filter(|t| key(*t) == asked);
    done.filter(|t| world.results.get(t).is_some_and(|r| r.1.is_ok())).count() as u64
}

fn sum(value: Option<Vec<u8>>) -> u64 {
    value.map_or(0, |v| String::from_utf8(v).unwrap().parse().unwrap())
}

/// A calm cluster whose session has the map, its write sessions and a connection to every brick.
fn settled(numbered: bool) -> World {
    settled_by(9, numbered)
}

fn settled_by(seed: u64, numbered: bool) -> World {
    let mut world = World::new(seed, Weather::default(), numbered);
    world.dial();
    for n in 0..60 {
        world.ask(100_000 + n, &key(n), Op::Increment { by: 0 }).1.unwrap();
        world.ask(200_000 + n, &key(n), Op::Get).1.unwrap();
    }
    assert_eq!(world.links.len(), 3);
    world
}

fn requests(frames: &[(Link, Vec<u8>)]) -> usize {
    frames.iter().filter(|(_, frame)| frame[0] == REQUEST).count()
}

/// A backup that says "ask the primary" costs a round trip, not a rest.
#[test]
fn a_read_that_a_backup_cannot_answer_goes_to_the_primary_at_once() {
    let mut world = settled(true);
    world.cluster.ask_primary = 1024;
    for n in 0..30 {
        let (took, result) = world.ask(n, &key(n), Op::Get);
        assert!(result.is_ok() && took < 9 * MS, "{took} ns");
    }
    assert!(world.cluster.asked_primary > 5);
}

/// Reads go on when a brick dies, and writes of its partitions when the map has moved them.
#[test]
fn a_dead_primary_costs_reads_nothing_and_writes_the_time_until_the_map_moves() {
    let mut world = settled(true);
    let primary = world.cluster.primary_of(&key(0));
    world.cluster.die(primary, u64::MAX);
    let (took, result) = world.ask(1, &key(0), Op::Get);
    assert!(result.is_ok() && took < 12 * MS, "{took} ns");
    let (took, result) = world.ask(2, &key(0), Op::Increment { by: 1 });
    assert!(result.is_ok() && took < cluster::LEASE_NS + 140 * MS, "{took} ns");
}

/// The same when the link is cut and nobody says so.
#[test]
fn a_mute_primary_is_noticed_and_its_write_counts_once() {
    let mut world = settled(true);
    let before = sum(world.cluster.replicas.value(&key(0)));
    let primary = world.cluster.primary_of(&key(0));
    world.cluster.mute(primary, u64::MAX);
    let (took, result) = world.ask(2, &key(0), Op::Increment { by: 1 });
    assert!(result.is_ok() && took < cluster::LEASE_NS + 400 * MS, "{took} ns");
    assert_eq!(sum(world.cluster.replicas.value(&key(0))), before + 1);
    // Its reads are spread over the others meanwhile.
    let (took, result) = world.ask(3, &key(0), Op::Get);
    assert!(result.is_ok() && took < 12 * MS, "{took} ns");
}

/// The request was executed, the connection cut before the answer: the same number brings the same answer.
#[test]
fn a_cut_between_the_execution_and_the_answer() {
    for numbered in [true, false] {
        let mut world = settled(numbered);
        let before = sum(world.cluster.replicas.value(&key(0)));
        world.submit(1, &key(0), Op::Increment { by: 1 });
        let frames = world.sends();
        assert_eq!(requests(&frames), 1);
        let (link, frame) = &frames[0];
        let brick = world.links[link];
        world.cluster.handle(brick, frame, 0, &mut Vec::new());
        world.lose(*link, "cut");
        world.cluster.hand_over();
        world.run_until_done();
        let expected = if numbered { "Ok" } else { "Err(InDoubt)" };
        let result = format!("{:?}", world.results[&1].1);
        assert!(result.starts_with(expected), "{result}");
        assert_eq!(sum(world.cluster.replicas.value(&key(0))), before + 1);
    }
}

/// A stale route is repaired by its answer: the request leaves again in the same breath, to the same brick.
#[test]
fn a_stale_route_costs_a_round_trip() {
    let mut world = settled(true);
    world.cluster.replicas.regroup(|_, _| {});
    world.cluster.tell_all();
    let (took, result) = world.ask(1, &key(0), Op::Increment { by: 1 });
    assert!(result.is_ok() && took < 10 * MS, "{took} ns");
}

/// The map does not have a brick any more: its connection is closed, and its address not dialled again.
#[test]
fn an_address_that_the_map_drops_is_dropped() {
    let mut world = settled(true);
    world.cluster.remove(3);
    world.cluster.tell_all();
    for n in 0..40 {
        world.ask(n, &key(n), Op::Increment { by: 1 }).1.unwrap();
        world.ask(1000 + n, &key(n), Op::Get).1.unwrap();
    }
    assert!(world.links.values().all(|b| *b != 3), "{:?}", world.links);
    assert!(world.dialling.is_empty());
}

/// What nobody serves ends at its deadline, with the brick and the reason; a write that was never sent is not in doubt.
#[test]
fn the_deadline_names_the_brick() {
    for seed in 1..40 {
        let mut world = settled_by(seed, true);
        world.cluster.frozen = true;
        let primary = world.cluster.primary_of(&key(0));
        world.cluster.die(primary, u64::MAX);
        // The connection is reset, so nothing is sent into the void.
        world.step();
        assert!(!world.links.values().any(|brick| *brick == primary));
        let (took, result) = world.ask(1, &key(0), Op::Increment { by: 1 });
        assert!((5_000 * MS..5_010 * MS).contains(&took), "{took} ns");
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "seed {seed}: {error}");
        assert!(error.to_string().contains(&Cluster::address(primary)), "{error}");
    }
}

#[test]
fn a_client_fetches_the_whole_map_once_and_then_changes() {
    let weather = Weather { hand_over: 20, news: 400, ..Weather::default() };
    let mut world = World::new(11, weather, true);
    increments(&mut world, 400);
    let (whole, changed) = (world.cluster.whole_maps, world.cluster.changed_maps);
    assert!(whole == 1 && changed > 10, "{whole} whole maps, {changed} times changes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Promise 4, exactly once: whatever happens to the bricks, every acked increment counts once.
    #[test]
    fn every_acked_increment_counts_once(
        seed: u64,
        cut in 0u16..20,
        die in 0u16..8,
        mute in 0u16..6,
        hand_over in 0u16..20,
        news in 0u16..400,
        lapse in 0u16..10,
        resize in 0u16..6,
        ask_primary in 0u64..500,
        numbered in prop::bool::weighted(0.8),
    ) {
        let weather = Weather { cut, die, mute, hand_over, news, lapse, resize };
        let mut world = World::new(seed, weather, numbered);
        world.cluster.ask_primary = ask_primary;
        increments(&mut world, 200);
    }

    /// Faults that the cluster repairs within a lease fail no request and leave no doubt.
    #[test]
    fn hand_overs_lapses_and_cuts_fail_no_request(
        seed: u64,
        cut in 0u16..20,
        hand_over in 0u16..20,
        news in 50u16..400,
        lapse in 0u16..10,
        ask_primary in 0u64..500,
    ) {
        let weather = Weather { cut, hand_over, news, lapse, ..Weather::default() };
        let mut world = World::new(seed, weather, true);
        world.cluster.ask_primary = ask_primary;
        increments(&mut world, 200);
        let failed: Vec<_> = world.results.iter().filter(|r| r.1.1.is_err()).collect();
        prop_assert!(failed.is_empty(), "{:?}", failed);
        // (What a cut takes away is asked for again.)
        prop_assert!(cut > 0 || world.cluster.whole_maps == 1, "the whole map once, then changes");
    }
}
