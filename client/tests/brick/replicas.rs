//! A brick without its loop: the real replicas of one table behind the real messages, and a check that
//! the client keeps to its window.

use std::collections::HashMap;

use firebrick_partition::log::{Durability, Log, LogConfig};
use firebrick_partition::maps::{self, MapDelta, Maps, TableMap, TableOptions, fingerprint};
use firebrick_partition::op::{Answer, Now, Op, Request, Route, SessionId};
use firebrick_partition::replica::{Action, Actions, Budget, Me, Outcome, Recovering, Replica};
use firebrick_partition::wire::{self, Limits, Message, Welcome};
use firebrick_partition::{Failure, hash_key};

/// How far above the client's mark a number may be.
const WINDOW: u32 = 64;

pub struct Replicas {
    pub now: Now,
    pub maps: Maps,
    list: Vec<Replica>,
    actions: Actions,
    /// By session: what the client says it has answers to.
    marks: HashMap<SessionId, u32>,
    /// The next operations that come get these, and nothing else happens.
    pub refuse: Vec<Failure>,
}

impl Replicas {
    pub fn new(partitions: u32) -> Self {
        let options =
            TableOptions { durability: maps::Durability::Memory, partitions, replicas: 1 };
        let table = TableMap::on_one_brick(3, "default", options, 10, 1, 2, 1).unwrap();
        let maps = Maps { version: 1, tables: vec![table], ..Maps::default() };
        let replicas = maps.tables[0].leaves.iter().map(|leaf| {
            let log = Log::in_heap(config(leaf.partition));
            Replica::new(log, *leaf)
        });
        let replicas = replicas.collect();
        let mut all = Self {
            now: Now { boot_ns: 1, unix_ms: 1_000_000 },
            maps,
            list: replicas,
            actions: Actions::default(),
            marks: HashMap::new(),
            refuse: Vec::new(),
        };
        all.begin();
        all
    }

    fn route(&self, partition: u32) -> Route {
        let table = &self.maps.tables[0];
        let leaf = table.leaves.iter().find(|l| l.partition == partition).unwrap();
        let group = table.groups.get(partition).unwrap();
        let fingerprint = fingerprint(table.id, leaf, group);
        Route { table: table.id, partition, epoch: group.epoch, fingerprint }
    }

    fn begin(&mut self) {
        for at in 0..self.list.len() {
            let route = self.route(self.list[at].leaf().partition);
            let group = self.maps.tables[0].groups.get(route.partition).unwrap();
            // One replica stands for all members, so it is alone.
            let primary = group.primary().unwrap();
            let (brick, incarnation) = (primary.brick, primary.incarnation);
            let alone = maps::Replicas::alone(group.epoch, brick, primary.core, incarnation);
            let me = Me { brick, incarnation };
            assert!(self.list[at].set_group(self.now, me, route, &alone, &mut self.actions));
            self.list[at].poll(self.now, &mut self.actions);
            assert!(self.list[at].is_serving());
        }
        self.actions.list.clear();
    }

    /// `kill -9` and a start from what is mapped: the epoch rises, clients' routes are stale.
    pub fn restart(&mut self) {
        self.regroup(|_, _| {});
    }

    /// The same, with other members of the groups: as a take-over, for these replicas are what all bricks hold.
    pub fn regroup(&mut self, change: impl Fn(u32, &mut maps::Replicas)) {
        self.maps.version += 1;
        for table in &mut self.maps.tables {
            let groups: Vec<_> = table.groups.iter().map(|(p, g)| (p, g.clone())).collect();
            for (partition, mut group) in groups {
                group.epoch += 1;
                group.active += 1;
                change(partition, &mut group);
                table.groups.set(partition, group);
            }
        }
        let now = self.now;
        let restarted = self.list.drain(..).map(|replica| {
            let leaf = replica.leaf();
            let opened = replica.into_log().crash();
            let (log, scan) = Log::open_in_heap(config(leaf.partition), opened);
            let mut replica = Replica::open(log, scan, leaf);
            while replica.recover_step(now, 64) == (Recovering::More {}) {}
            replica
        });
        self.list = restarted.collect();
        self.begin();
    }

    /// Time has passed: sessions idle for a minute end.
    pub fn tick(&mut self) {
        for replica in &mut self.list {
            // One a tick, and opening is retried when its answer is lost: there may be more than a few.
            for _ in 0..200 {
                replica.tick(self.now, Budget::default(), &mut self.actions);
            }
            assert_eq!(replica.stats().sessions, 0, "idle for a minute");
        }
        self.actions.list.clear();
    }

    pub fn value(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let hash = hash_key(key);
        let at = self.list.iter().position(|r| r.leaf().covers(hash)).unwrap();
        let route = self.list[at].route();
        let request = Request { route, numbered: None, key, op: Op::Get };
        match self.list[at].execute(self.now, 0, hash, &request, &mut self.actions) {
            Outcome::Now(Answer::Value { value, .. }) => Some(value.to_vec()),
            Outcome::Now(Answer::Absent) => None,
            other => panic!("{other:?}"),
        }
    }

    /// One frame in, its answer's payload appended to `out`.
    pub fn handle(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        match wire::decode(payload).expect("a client sends what can be read") {
            Message::Hello { slot, .. } => welcome(out, slot, (1, "test"), self.maps.version),
            Message::FetchMap { slot, .. } => {
                wire::map(out, slot, 1, MapDelta::whole(self.maps.clone()));
            }
            Message::Request { slot, request } => self.request(slot, &request, out),
            other => panic!("not in these tests: {other:?}"),
        }
    }

    fn request(&mut self, slot: u32, request: &Request<'_>, out: &mut Vec<u8>) {
        if let Some(numbered) = request.numbered {
            let mark = self.marks.entry(numbered.id.session).or_default();
            *mark = (*mark).max(numbered.answered_to);
            assert!(numbered.id.number <= *mark + WINDOW, "{numbered:?} is above {mark} + 64");
        }
        if let Some(failure) = self.refuse.pop() {
            return wire::answer(out, slot, &Answer::Failed(failure));
        }
        let partition = request.route.partition;
        let at = self.list.iter().position(|r| r.leaf().partition == partition).unwrap();
        let replica = &mut self.list[at];
        let (now, hash) = (self.now, hash_key(request.key));
        match replica.execute(now, u64::from(slot), hash, request, &mut self.actions) {
            Outcome::Now(answer) => return wire::answer(out, slot, &answer),
            Outcome::Later => replica.poll(now, &mut self.actions),
        }
        // In memory and alone, the next poll answers.
        let mut answered = false;
        for action in self.actions.list.drain(..) {
            if let Action::Reply { token, answer } = action {
                assert_eq!(token, u64::from(slot));
                wire::answer(out, slot, &answer.get());
                answered = true;
            }
        }
        assert!(answered, "{request:?} was not answered");
    }
}

/// What a brick says of itself.
pub fn welcome(out: &mut Vec<u8>, slot: u32, (brick, name): (u32, &str), map_version: u64) {
    let limits = Limits { key_bytes: 32 << 10, value_bytes: 8 << 20, in_flight: 1000 };
    let (incarnation, cores, core, features) = (1, 2, 0, 0);
    let welcome = Welcome { name, brick, incarnation, cores, core, map_version, features, limits };
    wire::welcome(out, slot, &welcome);
}

fn config(partition: u32) -> LogConfig {
    LogConfig {
        table: 3,
        partition,
        durability: Durability::Memory,
        bytes_max: 256 << 20,
        segment_bytes_max: 16 << 10,
    }
}
