//! A brick that answers anything: messages of every kind to requests of every kind, maps of nonsense, damaged bytes. A
//! client must outlive it: no panic, each request ends once, and when its deadline says so.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, VecDeque};

use firebrick_client::session::Link;
use firebrick_client::{
    Error, Op, ReadFrom, Reply, Session, SessionOptions, Submit, TableId, Target,
};
use firebrick_partition::maps::{
    BrickEntry, Durability, GroupDelta, MapDelta, Maps, Member, Replicas, TableMap, TableOptions,
};
use firebrick_partition::op::{Answer, Condition, Expiry, Route, SessionId, Version};
use firebrick_partition::wire::{self, Limits, Welcome};
use firebrick_partition::{Failure, hash_key};
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const DEADLINE_NS: u64 = 300 * MS;
/// As the wire has it.
const OPEN_SESSION: u8 = 14;

struct Dice(u64);

impl Dice {
    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Mostly small, so that it means something; at times as large as can be.
    fn number(&mut self) -> u32 {
        match self.below(8) {
            0 => u32::MAX - self.below(2) as u32,
            _ => self.below(5) as u32,
        }
    }
}

fn route(dice: &mut Dice) -> Route {
    let (table, partition) = (1 + dice.below(2) as u32, dice.number());
    Route { table, partition, epoch: dice.number(), fingerprint: dice.number() }
}

fn replicas(dice: &mut Dice) -> Replicas {
    let members = (0..dice.below(4))
        .map(|_| Member { brick: dice.number(), core: 0, incarnation: 1 })
        .collect();
    Replicas { epoch: dice.number(), members, ..Replicas::default() }
}

/// Some of it fits together.
fn delta(dice: &mut Dice) -> MapDelta {
    let options = TableOptions {
        durability: Durability::Memory,
        partitions: 1 << dice.below(3),
        replicas: dice.below(4) as u8,
    };
    let whole = dice.below(2) == 0;
    let tables = (0..dice.below(3)).map(|_| {
        let (id, first) = (1 + dice.below(2) as u32, dice.below(6) as u32);
        let mut table = TableMap::on_one_brick(id, "t", options, first, 1, 1, 1).unwrap();
        if dice.below(3) == 0 {
            table.leaves.truncate(dice.below(4) as usize);
        }
        for _ in 0..dice.below(3) {
            table.groups.set(first + dice.below(4) as u32, replicas(dice));
        }
        table
    });
    let tables = tables.collect();
    let brick = |dice: &mut Dice| BrickEntry {
        id: dice.number(),
        name: "b".into(),
        listen: ["a:1", "b:1", "c:1", "", ":", "0.0.0.0:7"][dice.below(6) as usize].into(),
        ..BrickEntry::default()
    };
    let bricks: Vec<_> = (0..dice.below(4)).map(|_| brick(dice)).collect();
    let version = u64::from(dice.number());
    if whole {
        return MapDelta::whole(Maps { version, tables, bricks });
    }
    let groups = (0..dice.below(3))
        .map(|_| {
            let (table, partition) = (1 + dice.below(2) as u32, dice.number());
            GroupDelta { table, partition, replicas: replicas(dice) }
        })
        .collect();
    MapDelta {
        since: Some(u64::from(dice.number())),
        version,
        tables,
        groups,
        dropped: (0..dice.below(2)).map(|_| dice.number()).collect(),
        bricks: (dice.below(2) == 0).then_some(bricks),
    }
}

fn session(dice: &mut Dice) -> Answer<'static> {
    Answer::Session {
        session: SessionId { partition: dice.below(4) as u32, opened: dice.below(2) },
    }
}

fn answer<'a>(dice: &mut Dice, bytes: &'a [u8]) -> Answer<'a> {
    let version = Version { epoch: dice.number(), seq: dice.next() };
    match dice.below(16) {
        0 => Answer::Value { value: bytes, version, expires_ms: dice.next() },
        1 => Answer::Seen { len: dice.number(), version, expires_ms: 0 },
        2 => Answer::Absent,
        3 => Answer::Done { version },
        4 => Answer::Integer { value: dice.next() as i64, version },
        5 => Answer::Refused { current: version },
        6 => Answer::Keys { cursor: dice.next(), packed: bytes },
        7 => Answer::Count { count: dice.next() },
        8 => session(dice),
        9..12 => Answer::StaleRoute { route: route(dice) },
        _ => Answer::Failed(Failure::parse(1 + dice.below(15) as u8).unwrap()),
    }
}

/// Something that a frame may carry, mostly to the request that came.
fn reply(dice: &mut Dice, request: &[u8]) -> Vec<u8> {
    let mut slot = u32::from_le_bytes(request[4..8].try_into().unwrap());
    if dice.below(12) == 0 {
        slot = slot.wrapping_add(dice.number() << (16 * dice.below(2)));
    }
    let mut out = Vec::new();
    let likely = match request[0] {
        1 => 3,
        5 => 1,
        7 => 2,
        _ => 0,
    };
    match if dice.below(10) == 0 { dice.below(5) } else { likely } {
        0 => {
            let bytes = vec![dice.below(3) as u8; dice.below(40) as usize];
            let opens = request[..2] == [3, OPEN_SESSION] && dice.below(4) > 0;
            let answer = if opens { session(dice) } else { answer(dice, &bytes) };
            wire::answer(&mut out, slot, &answer);
        }
        1 => wire::map(&mut out, slot, dice.below(20) / 18, delta(dice)),
        2 => wire::control_answer(&mut out, slot, "{\"error\""),
        3 => {
            let limits =
                Limits { key_bytes: 0, value_bytes: dice.number(), in_flight: dice.number() };
            let welcome = Welcome {
                name: "b",
                brick: dice.number(),
                incarnation: 1,
                cores: 0,
                core: dice.number() as u16,
                map_version: 7,
                features: u64::MAX,
                limits,
            };
            wire::welcome(&mut out, slot, &welcome);
        }
        _ => out.extend_from_slice(request),
    }
    if dice.below(12) == 0 {
        let at = dice.below(out.len() as u64) as usize;
        out[at] ^= 1 << dice.below(8);
    }
    out
}

fn op(dice: &mut Dice) -> Op<'static> {
    match dice.below(6) {
        0 => Op::Get,
        1 => Op::Increment { by: 1 },
        2 => Op::Append { value: b"x" },
        3 => Op::Remove { condition: Condition::Always, want_old: false },
        4 => Op::Put {
            value: b"v",
            expiry: Expiry::Never,
            condition: Condition::Absent,
            want_old: false,
        },
        _ => Op::Look,
    }
}

struct World {
    now_ns: u64,
    dice: Dice,
    session: Session,
    open: Vec<Link>,
    replies: VecDeque<(Link, Vec<u8>)>,
    /// When each request is to end at the latest, and when it did.
    due: HashMap<u64, u64>,
    ended: HashMap<u64, u64>,
}

impl World {
    fn new(seed: u64, numbered: bool) -> Self {
        let options = SessionOptions {
            name: "test".into(),
            client: 77,
            in_flight: 40,
            numbered,
            silence_ns: 50 * MS,
            seeds: vec!["a:1".into(), "b:1".into()],
            connections: 2,
            read_from: ReadFrom::Any,
        };
        Self {
            now_ns: MS,
            dice: Dice(seed | 1),
            session: Session::new(options),
            open: Vec::new(),
            replies: VecDeque::new(),
            due: HashMap::new(),
            ended: HashMap::new(),
        }
    }

    fn submit(&mut self, token: u64) {
        // At times it is late before it begins: the shell had no turn.
        let deadline_ns = match self.dice.below(20) {
            0 => self.now_ns - MS / 2,
            _ => self.now_ns + 1 + self.dice.below(DEADLINE_NS),
        };
        let key = [self.dice.below(9) as u8];
        let (table, op) = (TableId(1 + self.dice.below(2) as u32), op(&mut self.dice));
        let submit = Submit { table, target: Target::Key(&key), op, deadline_ns, token };
        let taken = match self.dice.below(12) {
            0 => self.session.control(self.now_ns, "{}", true, deadline_ns, token),
            1 => self.session.fetch_map(self.now_ns, deadline_ns, token),
            2 => {
                let target = Target::Partition(hash_key(&key) as u32 % 5);
                self.session.submit(self.now_ns, &Submit { target, op: Op::Count, ..submit })
            }
            _ => self.session.submit(self.now_ns, &submit),
        };
        if taken.is_ok() {
            self.due.insert(token, deadline_ns);
        }
    }

    fn step(&mut self) {
        let Self { now_ns, dice, session, open, replies, due, ended } = self;
        let now_ns = *now_ns;
        let mut sink = |token: u64, _: Result<Reply<'_>, Error>| {
            assert!(due.contains_key(&token), "nobody asked for {token}");
            assert!(ended.insert(token, now_ns).is_none(), "{token} ended twice");
        };
        session.handle_timeout(now_ns, &mut sink);
        while let Some(link) = session.poll_close() {
            open.retain(|l| *l != link);
        }
        while let Some(dial) = session.poll_dial(now_ns) {
            if dice.below(4) == 0 {
                let error = Error::Connection { address: dial.address, why: "no".into() };
                session.handle_disconnected(now_ns, dial.link, error, &mut sink);
            } else {
                open.push(dial.link);
                session.handle_connected(now_ns, dial.link);
            }
        }
        // A brick that says something at once to everything would be asked without end within one moment.
        for _ in 0..50 {
            let mut frame = Vec::new();
            let Some(link) = session.poll_send(now_ns, &mut frame, &mut sink) else { break };
            for _ in 0..[0, 1, 1, 1, 1, 2][dice.below(6) as usize] {
                replies.push_back((link, reply(dice, &frame)));
            }
        }
        for _ in 0..dice.below(20) {
            let Some((link, bytes)) = replies.pop_front() else { break };
            // Also what is late: the connection is gone, and its name perhaps another's.
            if let Err(error) = session.handle_frame(now_ns, link, &bytes, &mut sink) {
                open.retain(|l| *l != link);
                session.handle_disconnected(now_ns, link, error, &mut sink);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_outlives_a_brick_that_answers_anything(seed: u64, numbered: bool) {
        let mut world = World::new(seed, numbered);
        for token in 0..400 {
            if token < 300 {
                world.submit(token);
            }
            world.step();
            world.now_ns += world.dice.below(3 * MS);
        }
        world.now_ns += DEADLINE_NS;
        world.step();
        prop_assert_eq!(world.session.in_flight(), 0);
        prop_assert_eq!(world.ended.len(), world.due.len());
    }
}
