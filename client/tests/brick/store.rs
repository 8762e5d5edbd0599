//! A brick's side of the protocol in memory, strict about what a client may send: a number outside of the
//! window is a panic here, not an answer. It counts what was applied, so that tests can tell.

use std::collections::{BTreeMap, HashMap};

use firebrick_partition::maps::{
    BrickEntry, Durability, MapDelta, Maps, Member, Replicas, TableMap, TableOptions, fingerprint,
};
use firebrick_partition::op::{
    Answer, Condition, Numbered, Op, Request, Route, SessionId, Version,
};
use firebrick_partition::wire::{self, Limits, Message, Welcome};
use firebrick_partition::{Failure, hash_key};

const WINDOW: u32 = 64;

/// What a request was answered.
#[derive(Clone, Debug)]
enum Kept {
    Done(Version),
    Integer(i64, Version),
    Length(u64, Version),
    Absent,
    Refused(Version),
    Failed(Failure),
}

#[derive(Default)]
struct Window {
    answered_to: u32,
    kept: BTreeMap<u32, Kept>,
}

pub struct Store {
    pub maps: Maps,
    seq: u64,
    values: BTreeMap<(u32, Vec<u8>), (Vec<u8>, Version)>,
    sessions: HashMap<SessionId, Window>,
    /// The next operations that come get these, and nothing else happens.
    pub refuse: Vec<Failure>,
    pub in_flight_limit: u32,
    /// Requests seen, retries included.
    pub seen: u64,
    /// The same by brick and whether it was a read.
    pub seen_by: HashMap<(u32, bool), u64>,
    pub opened: u64,
}

impl Store {
    pub fn new(partitions: u32) -> Self {
        let options = TableOptions { durability: Durability::Memory, partitions, replicas: 1 };
        let table = TableMap::on_one_brick(3, "default", options, 10, 1, 2, 1).unwrap();
        Self {
            maps: Maps { version: 1, tables: vec![table], ..Maps::default() },
            seq: 0,
            values: BTreeMap::new(),
            sessions: HashMap::new(),
            refuse: Vec::new(),
            in_flight_limit: 1000,
            seen: 0,
            seen_by: HashMap::new(),
            opened: 0,
        }
    }

    /// The group changes: clients' routes are stale now.
    pub fn next_epoch(&mut self) {
        self.maps.version += 1;
        for table in &mut self.maps.tables {
            let groups: Vec<_> = table.groups.iter().map(|(p, g)| (p, g.clone())).collect();
            for (partition, group) in groups {
                let replicas = Replicas { epoch: group.epoch + 1, ..group };
                table.groups.set(partition, replicas);
            }
        }
    }

    /// From now on these bricks hold every partition, each brick leading its share.
    pub fn spread(&mut self, bricks: &[(u32, String)]) {
        self.next_epoch();
        let entry = |(id, listen): &(u32, String)| BrickEntry {
            id: *id,
            name: format!("b{id}"),
            listen: listen.clone(),
            ..BrickEntry::default()
        };
        self.maps.bricks = bricks.iter().map(entry).collect();
        for table in &mut self.maps.tables {
            let partitions: Vec<_> = table.groups.iter().map(|(p, g)| (p, g.clone())).collect();
            for (nth, (partition, mut group)) in partitions.into_iter().enumerate() {
                let member = |id: &(u32, String)| Member { brick: id.0, core: 0, incarnation: 1 };
                group.members = bricks.iter().map(member).collect();
                group.members.rotate_left(nth % bricks.len());
                table.groups.set(partition, group);
            }
        }
    }

    /// What a brick does not answer because of its place in the group.
    fn refusal(&self, brick: u32, request: &Request<'_>) -> Option<Failure> {
        let group = self.maps.tables[0].groups.get(request.route.partition)?;
        match group.position(brick) {
            None => Some(Failure::WrongPartition),
            Some(0) => None,
            Some(_) if request.op.is_read() => None,
            Some(_) => Some(Failure::AskPrimary),
        }
    }

    /// As after 60 s without a request.
    pub fn end_sessions(&mut self) {
        self.sessions.clear();
    }

    pub fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(&(3, key.to_vec())).map(|(value, _)| value.as_slice())
    }

    /// One frame in, its answer's payload appended to `out`.
    pub fn handle(&mut self, brick: u32, payload: &[u8], out: &mut Vec<u8>) {
        match wire::decode(payload).expect("a client sends what can be read") {
            Message::Hello { slot, .. } => {
                let limits = Limits {
                    key_bytes: 32 << 10,
                    value_bytes: 8 << 20,
                    in_flight: self.in_flight_limit,
                };
                let welcome = Welcome {
                    name: "test",
                    brick,
                    incarnation: 1,
                    cores: 2,
                    core: 0,
                    map_version: self.maps.version,
                    features: 0,
                    limits,
                };
                wire::welcome(out, slot, &welcome);
            }
            Message::FetchMap { slot, .. } => {
                wire::map(out, slot, 1, MapDelta::whole(self.maps.clone()));
            }
            Message::Control { slot, json } => {
                let json = match json {
                    r#"{"do":"status"}"# => r#"{"name":"test"}"#,
                    _ => r#"{"error":"there is no such command: look at the docs"}"#,
                };
                wire::control_answer(out, slot, json);
            }
            Message::Request { slot, request } => {
                self.seen += 1;
                *self.seen_by.entry((brick, request.op.is_read())).or_default() += 1;
                if let Some(failure) = self.refusal(brick, &request) {
                    return wire::answer(out, slot, &Answer::Failed(failure));
                }
                self.request(slot, &request, out);
            }
            other => panic!("a brick's message from a client: {other:?}"),
        }
    }

    fn route(&self, partition: u32) -> Option<Route> {
        let table = &self.maps.tables[0];
        let leaf = table.leaves.iter().find(|l| l.partition == partition)?;
        let group = table.groups.get(partition)?;
        let fingerprint = fingerprint(table.id, leaf, group);
        Some(Route { table: table.id, partition, epoch: group.epoch, fingerprint })
    }

    fn request(&mut self, slot: u32, request: &Request<'_>, out: &mut Vec<u8>) {
        let partition = request.route.partition;
        let Some(route) = self.route(partition) else {
            return wire::answer(out, slot, &Answer::Failed(Failure::WrongPartition));
        };
        if route != request.route {
            return wire::answer(out, slot, &Answer::StaleRoute { route });
        }
        if !request.key.is_empty() {
            let suffix = hash_key(request.key) & (self.maps.tables[0].leaves.len() as u64 - 1);
            let leaf = self.maps.tables[0].leaves.iter().find(|l| l.partition == partition);
            assert_eq!(u64::from(leaf.unwrap().suffix), suffix, "the key is not the partition's");
        }
        if let Some(failure) = self.refuse.pop() {
            return wire::answer(out, slot, &Answer::Failed(failure));
        }
        match request.op {
            Op::Get | Op::Look => wire::answer(out, slot, &self.read(request)),
            Op::Count => {
                let count = self.values.keys().filter(|(_, k)| self.is_in(k, partition)).count();
                wire::answer(out, slot, &Answer::Count { count: count as u64 });
            }
            Op::Scan { cursor, .. } => self.scan(slot, partition, cursor, out),
            Op::OpenSession { .. } => {
                self.seq += 1;
                self.opened += 1;
                let session = SessionId { partition, opened: self.seq };
                self.sessions.insert(session, Window::default());
                wire::answer(out, slot, &Answer::Session { session });
            }
            _ => {
                let kept = match request.numbered {
                    Some(numbered) => self.numbered(numbered, request),
                    None => self.write(request),
                };
                let answer = match kept {
                    Kept::Done(version) => Answer::Done { version },
                    Kept::Integer(value, version) => Answer::Integer { value, version },
                    Kept::Length(len, version) => Answer::Length { len, version },
                    Kept::Absent => Answer::Absent,
                    Kept::Refused(current) => Answer::Refused { current },
                    Kept::Failed(failure) => Answer::Failed(failure),
                };
                wire::answer(out, slot, &answer);
            }
        }
    }

    fn read(&self, request: &Request<'_>) -> Answer<'_> {
        let Some((value, version)) = self.values.get(&(3, request.key.to_vec())) else {
            return Answer::Absent;
        };
        let (len, version, expires_ms) = (value.len() as u32, *version, 0);
        match request.op {
            Op::Look => Answer::Seen { len, version, expires_ms },
            _ => Answer::Value { value, version, expires_ms },
        }
    }

    fn is_in(&self, key: &[u8], partition: u32) -> bool {
        let table = &self.maps.tables[0];
        let leaf = table.leaves.iter().find(|l| l.covers(hash_key(key)));
        leaf.is_some_and(|l| l.partition == partition)
    }

    /// Three keys a page; the cursor is how many came before.
    fn scan(&self, slot: u32, partition: u32, cursor: u64, out: &mut Vec<u8>) {
        let keys: Vec<_> =
            self.values.keys().filter(|(_, key)| self.is_in(key, partition)).collect();
        let mut packed = Vec::new();
        let page: Vec<_> = keys.iter().skip(cursor as usize).take(3).collect();
        for (_, key) in &page {
            packed.extend_from_slice(&(key.len() as u32).to_le_bytes());
            packed.extend_from_slice(key);
        }
        let next = cursor as usize + page.len();
        let cursor = if next == keys.len() { 0 } else { next as u64 };
        wire::answer(out, slot, &Answer::Keys { cursor, packed: &packed });
    }

    fn numbered(&mut self, numbered: Numbered, request: &Request<'_>) -> Kept {
        let number = numbered.id.number;
        let Some(window) = self.sessions.get_mut(&numbered.id.session) else {
            return Kept::Failed(Failure::InDoubt);
        };
        window.answered_to = window.answered_to.max(numbered.answered_to);
        let answered_to = window.answered_to;
        window.kept.retain(|&n, _| n > answered_to);
        if number <= answered_to {
            return Kept::Failed(Failure::InDoubt);
        }
        assert!(number <= answered_to + WINDOW, "number {number} is above {answered_to} + 64");
        if let Some(kept) = window.kept.get(&number) {
            return kept.clone();
        }
        let kept = self.write(request);
        self.sessions.get_mut(&numbered.id.session).unwrap().kept.insert(number, kept.clone());
        kept
    }

    fn write(&mut self, request: &Request<'_>) -> Kept {
        let key = (3, request.key.to_vec());
        let old = self.values.get(&key).cloned();
        let epoch = request.route.epoch;
        let version = Version { epoch, seq: self.seq + 1 };
        let (value, kept) = match request.op {
            Op::Put { value, condition, .. } => {
                let current = old.as_ref().map(|(_, version)| *version);
                let holds = match condition {
                    Condition::Always => true,
                    Condition::Absent => current.is_none(),
                    Condition::Present => current.is_some(),
                    Condition::Version(v) => current == Some(v),
                };
                if !holds {
                    return Kept::Refused(current.unwrap_or_default());
                }
                (value.to_vec(), Kept::Done(version))
            }
            Op::Append { value } => {
                let mut bytes = old.map_or(Vec::new(), |(value, _)| value);
                bytes.extend_from_slice(value);
                let len = bytes.len() as u64;
                (bytes, Kept::Length(len, version))
            }
            Op::Increment { by } => {
                let text = old.map_or("0".to_owned(), |(v, _)| String::from_utf8(v).unwrap());
                let Ok(n) = text.parse::<i64>() else { return Kept::Failed(Failure::NotInteger) };
                let Some(sum) = n.checked_add(by) else { return Kept::Failed(Failure::Overflow) };
                (sum.to_string().into_bytes(), Kept::Integer(sum, version))
            }
            Op::Remove { .. } => {
                if self.values.remove(&key).is_none() {
                    return Kept::Absent;
                }
                self.seq += 1;
                return Kept::Done(version);
            }
            Op::Clear => {
                let gone: Vec<_> = self
                    .values
                    .keys()
                    .filter(|(_, key)| self.is_in(key, request.route.partition))
                    .cloned()
                    .collect();
                for key in gone {
                    self.values.remove(&key);
                }
                self.seq += 1;
                return Kept::Done(version);
            }
            other => panic!("not in these tests: {other:?}"),
        };
        self.seq += 1;
        self.values.insert(key, (value, version));
        kept
    }
}
