//! Several bricks before one set of real replicas: each has its own idea of the maps, of its lease, and may be dead or
//! mute. What a brick answers follows docs/protocol.md; a brick whose map is behind has no lease and serves nobody.

use std::collections::BTreeMap;

use firebrick_partition::Failure;
use firebrick_partition::maps::{BrickEntry, GroupDelta, MapDelta, Maps, Member, Routes};
use firebrick_partition::op::{Answer, Request};
use firebrick_partition::wire::{self, Known, Message};
use firebrick_partition::{hash_key, maps};

use crate::replicas::{Replicas, welcome};

/// How long a dead brick stays in its groups.
pub const LEASE_NS: u64 = 60_000_000;

struct Brick {
    maps: Maps,
    dead_since: Option<u64>,
    dead_until: u64,
    mute_until: u64,
    lapsed_until: u64,
}

pub struct Cluster {
    pub replicas: Replicas,
    bricks: BTreeMap<u32, Brick>,
    next: u32,
    now_ns: u64,
    /// A backup says `AskPrimary` instead of reading, in 1/1024.
    pub ask_primary: u64,
    pub asked_primary: u64,
    /// The keepers do nothing.
    pub frozen: bool,
    /// Maps as they were told, by version.
    told: BTreeMap<u64, Maps>,
    /// How often all of them were told, and changes only.
    pub whole_maps: u64,
    pub changed_maps: u64,
}

impl Cluster {
    pub fn new(partitions: u32, bricks: u32) -> Self {
        let mut cluster = Self {
            replicas: Replicas::new(partitions),
            bricks: BTreeMap::new(),
            next: 1,
            now_ns: 0,
            ask_primary: 0,
            asked_primary: 0,
            frozen: false,
            told: BTreeMap::new(),
            whole_maps: 0,
            changed_maps: 0,
        };
        for _ in 0..bricks {
            cluster.add();
        }
        cluster.regroup();
        cluster.tell_all();
        cluster
    }

    pub fn address(brick: u32) -> String {
        format!("b{brick}:7400")
    }

    pub fn ids(&self) -> Vec<u32> {
        self.bricks.keys().copied().collect()
    }

    pub fn at(&self, address: &str) -> Option<u32> {
        self.ids().into_iter().find(|b| Self::address(*b) == address)
    }

    pub fn set_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.replicas.now.boot_ns = now_ns;
    }

    pub fn is_up(&self, brick: u32) -> bool {
        self.bricks.get(&brick).is_some_and(|b| b.dead_until <= self.now_ns)
    }

    pub fn is_mute(&self, brick: u32) -> bool {
        self.bricks.get(&brick).is_some_and(|b| b.mute_until > self.now_ns)
    }

    fn add(&mut self) {
        let brick = Brick {
            maps: Maps::default(),
            dead_since: None,
            dead_until: 0,
            mute_until: 0,
            lapsed_until: 0,
        };
        self.bricks.insert(self.next, brick);
        self.next += 1;
    }

    pub fn remove(&mut self, brick: u32) {
        self.bricks.remove(&brick);
        self.regroup();
    }

    /// A brick is added, or the oldest but two leaves.
    pub fn resize(&mut self) {
        if self.bricks.len() < 4 {
            self.add();
            self.regroup();
        } else {
            let oldest = self.ids()[2];
            self.remove(oldest);
        }
    }

    pub fn die(&mut self, brick: u32, until_ns: u64) {
        let brick = self.bricks.get_mut(&brick).unwrap();
        brick.dead_until = until_ns;
        brick.dead_since.get_or_insert(self.now_ns);
    }

    pub fn mute(&mut self, brick: u32, until_ns: u64) {
        let brick = self.bricks.get_mut(&brick).unwrap();
        brick.mute_until = until_ns;
        brick.dead_since.get_or_insert(self.now_ns);
    }

    pub fn lapse(&mut self, brick: u32, until_ns: u64) {
        self.bricks.get_mut(&brick).unwrap().lapsed_until = until_ns;
    }

    pub fn tell(&mut self, brick: u32) {
        let maps = self.replicas.maps.clone();
        self.bricks.get_mut(&brick).unwrap().maps = maps;
    }

    pub fn tell_all(&mut self) {
        for brick in self.ids() {
            self.tell(brick);
        }
    }

    /// What the keepers do: dead bricks leave, living ones come back, and somebody hears of each map.
    pub fn keep(&mut self) {
        if self.frozen {
            return;
        }
        let now_ns = self.now_ns;
        let mut changed = false;
        for brick in self.bricks.values_mut() {
            let gone = brick.dead_until > now_ns || brick.mute_until > now_ns;
            match brick.dead_since {
                Some(_) if !gone => {
                    brick.dead_since = None;
                    changed = true;
                }
                Some(since) if since + LEASE_NS <= now_ns && since != 0 => {
                    brick.dead_since = Some(0);
                    changed = true;
                }
                _ => {}
            }
        }
        if changed {
            self.regroup();
        }
    }

    /// Every group has all bricks that live, each brick leading its share.
    fn regroup(&mut self) {
        let living: Vec<u32> = self
            .bricks
            .iter()
            .filter(|(_, b)| b.dead_since.is_none_or(|since| since != 0))
            .map(|(id, _)| *id)
            .collect();
        let living = if living.is_empty() { self.ids() } else { living };
        let entry = |id: &u32| BrickEntry {
            id: *id,
            name: format!("b{id}"),
            listen: Self::address(*id),
            ..BrickEntry::default()
        };
        self.replicas.maps.bricks = self.bricks.keys().map(entry).collect();
        self.replicas.regroup(|partition, group| {
            let member = |brick: &u32| Member { brick: *brick, core: 0, incarnation: 1 };
            group.members = living.iter().map(member).collect();
            group.members.rotate_left(partition as usize % living.len());
        });
        let first = living[0];
        self.tell(first);
    }

    /// Every primary hands over to the next member.
    pub fn hand_over(&mut self) {
        self.replicas.regroup(|_, group| group.members.rotate_left(1));
    }

    pub fn primary_of(&self, key: &[u8]) -> u32 {
        let routes = Routes::new(&self.replicas.maps, u32::MAX).unwrap();
        routes.route(3, hash_key(key)).unwrap().replicas.members[0].brick
    }

    /// What a brick's maps have that those the client knows have not.
    fn changes(&mut self, brick: u32, known: Known) -> MapDelta {
        let maps = &self.bricks[&brick].maps;
        self.told.entry(maps.version).or_insert_with(|| maps.clone());
        let old = self.told.get(&known.version).filter(|_| known.cluster == 1);
        let Some(old) = old else {
            self.whole_maps += 1;
            return MapDelta::whole(maps.clone());
        };
        self.changed_maps += 1;
        let nothing = MapDelta::nothing(old.version);
        if maps.version <= old.version {
            return nothing;
        }
        assert_eq!(maps.tables.len(), old.tables.len(), "no tables come and go here");
        let groups = maps.tables.iter().zip(&old.tables).flat_map(|(table, before)| {
            let news = table.groups.iter().filter(|(p, now)| before.groups.get(*p) != Some(*now));
            news.map(|(partition, now)| GroupDelta {
                table: table.id,
                partition,
                replicas: now.clone(),
            })
        });
        let bricks = (maps.bricks != old.bricks).then(|| maps.bricks.clone());
        MapDelta { version: maps.version, groups: groups.collect(), bricks, ..nothing }
    }

    pub fn handle(&mut self, brick: u32, payload: &[u8], dice: u64, out: &mut Vec<u8>) {
        match wire::decode(payload).expect("a client sends what can be read") {
            Message::Hello { slot, .. } => {
                let version = self.bricks[&brick].maps.version;
                welcome(out, slot, (brick, &format!("b{brick}")), version);
            }
            Message::FetchMap { slot, known } => {
                let changes = self.changes(brick, known);
                wire::map(out, slot, 1, changes);
            }
            Message::Request { slot, request } => match self.refusal(brick, &request, dice) {
                Some(answer) => wire::answer(out, slot, &answer),
                None => self.replicas.handle(payload, out),
            },
            other => panic!("not in these tests: {other:?}"),
        }
    }

    fn refusal(&mut self, brick: u32, request: &Request<'_>, dice: u64) -> Option<Answer<'static>> {
        let state = &self.bricks[&brick];
        let failed = |failure| Some(Answer::Failed(failure));
        let mine = Routes::new(&state.maps, brick).unwrap();
        let Some(entry) = mine.partition(request.route.partition) else {
            return failed(Failure::WrongPartition);
        };
        if entry.mine.is_none() {
            return failed(Failure::WrongPartition);
        }
        match maps::check(entry.route, request.route) {
            maps::RouteCheck::Older(route) => return Some(Answer::StaleRoute { route }),
            maps::RouteCheck::Newer => {
                // Fetches the map from the keepers; until then it cannot say.
                self.tell(brick);
                return failed(Failure::RouteTooNew);
            }
            maps::RouteCheck::Current | maps::RouteCheck::Unknown => {}
        }
        let newest = Routes::new(&self.replicas.maps, brick).unwrap();
        let is_behind = newest.partition(request.route.partition).map(|e| e.route);
        if is_behind != Some(entry.route) || state.lapsed_until > self.now_ns {
            self.tell(brick);
            return failed(Failure::Unavailable);
        }
        let asks = !request.op.is_read() || dice % 1024 < self.ask_primary;
        if entry.mine != Some(0) && asks {
            self.asked_primary += 1;
            return failed(Failure::AskPrimary);
        }
        None
    }
}
