//! A client: a session with each partition, numbered writes, retries under the same number.
//!
//! Its promise to the checker: an operation is answered, or known not to have changed anything, or its
//! outcome is unknown.

use std::collections::BTreeMap;

use firebrick_partition::maps::Maps;
use firebrick_partition::op::{
    Answer, Failure, Numbered, Op, Request, RequestId, Route, SessionId,
};
use firebrick_partition::wire::{self, Message as Wire};
use firebrick_partition::{hash_key, maps};

use super::clock::{MS, Ns};
use super::mistake::Mistake;
use super::workload::{self, back_of};
use crate::check::{Back, Call, Version};
use crate::random::Random;

/// A try without an answer is repeated after this long.
const TRY_NS: Ns = 60 * MS;
/// An operation is given up after this long.
pub const DEADLINE_NS: Ns = 2_000 * MS;

/// Where a partition is, as this client knows it.
#[derive(Clone, Debug)]
struct Place {
    route: Route,
    members: Vec<u32>,
}

/// The session with a partition.
#[derive(Clone, Debug, Default)]
struct Numbers {
    session: Option<SessionId>,
    /// The operation that opens it.
    opening: bool,
    next: u32,
    /// Numbers given out and not done with.
    open: Vec<u32>,
}

/// What an operation is for.
#[derive(Clone, Debug, PartialEq)]
enum What {
    Call { id: u64, key: String, call: Call },
    Open,
}

/// One operation.
#[derive(Clone, Debug)]
struct Operation {
    what: What,
    partition: u32,
    number: Option<RequestId>,
    /// Tries that may still take effect.
    loose: u32,
    /// The try whose answer is awaited.
    tag: Option<u64>,
    retry_at: Ns,
    deadline: Ns,
    at_primary: bool,
    /// A member that only this operation asks.
    pinned: Option<u32>,
    tries: u32,
}

/// What a client wants done.
#[derive(Debug)]
pub enum Wish {
    Send {
        brick: u32,
        tag: u64,
        bytes: Vec<u8>,
    },
    FetchMaps,
    /// The operation of the history is over. `None`: unknown.
    Done {
        id: u64,
        back: Option<Back>,
    },
    Saw(&'static str),
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    at: usize,
    open_max: usize,
    mistake: Mistake,
    version: u64,
    places: BTreeMap<u32, Place>,
    table: Option<firebrick_partition::maps::TableMap>,
    numbers: BTreeMap<u32, Numbers>,
    operations: Vec<Operation>,
    next_tag: u64,
    seen: BTreeMap<String, Version>,
    maps_wanted_at: Ns,
    pub wishes: Vec<Wish>,
}

impl Client {
    /// A client that knows nothing.
    pub fn new(at: usize, open_max: usize, mistake: Mistake) -> Self {
        Self {
            at,
            open_max,
            mistake,
            version: 0,
            places: BTreeMap::new(),
            table: None,
            numbers: BTreeMap::new(),
            operations: Vec::new(),
            next_tag: 0,
            seen: BTreeMap::new(),
            maps_wanted_at: 0,
            wishes: Vec::new(),
        }
    }

    /// The next process of the same client.
    pub fn restarted(&self) -> Self {
        let mut next = Self::new(self.at, self.open_max, self.mistake);
        // (Tags are of the simulation: none is used twice.)
        next.next_tag = self.next_tag;
        if self.mistake == Mistake::SessionKept {
            let of = |n: &Numbers| Numbers { session: n.session, next: 1, ..Numbers::default() };
            next.numbers = self.numbers.iter().map(|(p, n)| (*p, of(n))).collect();
        }
        next
    }

    /// Nothing is open.
    pub fn is_idle(&self) -> bool {
        self.operations.is_empty()
    }

    /// It may call one more.
    pub fn has_room(&self) -> bool {
        self.table.is_some() && self.operations.len() < self.open_max
    }

    /// The version of a key that this client saw last.
    pub fn seen(&self, key: &str) -> Option<Version> {
        self.seen.get(key).copied()
    }

    /// A random member of the key's group.
    pub fn members(&self, key: &str) -> Vec<u32> {
        let place = self.partition(key).and_then(|p| self.places.get(&p));
        place.map(|place| place.members.clone()).unwrap_or_default()
    }

    fn partition(&self, key: &str) -> Option<u32> {
        let hash = hash_key(key.as_bytes());
        let leaf = self.table.as_ref()?.leaves.iter().find(|leaf| leaf.covers(hash))?;
        Some(leaf.partition)
    }

    /// Maps came.
    pub fn on_maps(&mut self, maps: &Maps) {
        if maps.version < self.version {
            return;
        }
        self.version = maps.version;
        let Some(table) = maps.tables.first() else { return };
        for leaf in &table.leaves {
            let Some(group) = table.groups.get(leaf.partition) else { continue };
            let (partition, epoch) = (leaf.partition, group.epoch);
            let fingerprint = maps::fingerprint(table.id, leaf, group);
            let route = Route { table: table.id, partition, epoch, fingerprint };
            let members = group.members.iter().map(|m| m.brick).collect();
            let known = self.places.get(&partition).map_or(0, |place| place.route.epoch);
            if epoch >= known {
                self.places.insert(partition, Place { route, members });
            }
        }
        self.table = Some(table.clone());
    }

    /// Calls. `pinned`: at this member, whatever it answers.
    pub fn call(
        &mut self,
        now: Ns,
        random: &mut Random,
        id: u64,
        key: &str,
        call: Call,
        pinned: Option<u32>,
    ) {
        let Some(partition) = self.partition(key) else { return };
        let at_primary = call != Call::Get || random.below(4) == 0;
        self.operations.push(Operation {
            what: What::Call { id, key: key.to_owned(), call },
            partition,
            number: None,
            loose: 0,
            tag: None,
            retry_at: now,
            deadline: now + DEADLINE_NS,
            at_primary,
            pinned,
            tries: 0,
        });
        self.turn(now, random);
    }

    /// Sends what is due, gives up what is late. When to call again.
    pub fn turn(&mut self, now: Ns, random: &mut Random) -> Ns {
        let mut at = 0;
        while at < self.operations.len() {
            if now >= self.operations[at].deadline {
                self.give_up(at);
            } else {
                if now >= self.operations[at].retry_at {
                    self.try_one(now, random, at);
                }
                at += 1;
            }
        }
        let due = self.operations.iter().map(|o| o.retry_at.min(o.deadline));
        due.min().unwrap_or(now + 50 * MS).max(now + MS)
    }

    fn give_up(&mut self, at: usize) {
        let back = (self.operations[at].loose == 0).then_some(Back::Failed);
        self.finish(at, back);
    }

    fn finish(&mut self, at: usize, back: Option<Back>) {
        let operation = self.operations.remove(at);
        let numbers = self.numbers.entry(operation.partition).or_default();
        if let Some(id) = operation.number
            && numbers.session == Some(id.session)
        {
            numbers.open.retain(|&n| n != id.number);
        }
        match operation.what {
            What::Open => numbers.opening = false,
            What::Call { id, key, .. } => {
                if back.is_none() {
                    self.wishes.push(Wish::Saw("an operation ends in doubt"));
                }
                let version = match &back {
                    Some(Back::Value { version, .. }) => *version,
                    Some(back) => back.written(),
                    None => None,
                };
                if let Some(version) = version {
                    self.seen.insert(key, version);
                }
                self.wishes.push(Wish::Done { id, back });
            }
        }
    }

    fn want_maps(&mut self, now: Ns) {
        if now >= self.maps_wanted_at {
            self.maps_wanted_at = now + 15 * MS;
            self.wishes.push(Wish::FetchMaps);
        }
    }

    /// A number for a write; false: it has to wait.
    fn number(&mut self, now: Ns, at: usize) -> bool {
        let operation = &self.operations[at];
        let What::Call { call, .. } = &operation.what else { return true };
        if *call == Call::Get || operation.number.is_some() {
            return true;
        }
        let partition = operation.partition;
        let numbers = self.numbers.entry(partition).or_default();
        let Some(session) = numbers.session else {
            if !std::mem::replace(&mut numbers.opening, true) {
                self.operations.push(Operation {
                    what: What::Open,
                    partition,
                    number: None,
                    loose: 0,
                    tag: None,
                    retry_at: now,
                    deadline: Ns::MAX,
                    at_primary: true,
                    pinned: None,
                    tries: 0,
                });
            }
            return false;
        };
        let lowest = numbers.open.iter().min().copied().unwrap_or(numbers.next);
        if numbers.next >= lowest + 60 {
            return false;
        }
        let number = numbers.next;
        numbers.next += 1;
        numbers.open.push(number);
        self.operations[at].number = Some(RequestId { session, number });
        true
    }

    fn try_one(&mut self, now: Ns, random: &mut Random, at: usize) {
        if !self.number(now, at) {
            self.operations[at].retry_at = now + 2 * MS;
            return;
        }
        let operation = &self.operations[at];
        let Some(place) = self.places.get(&operation.partition) else { return };
        let other = random.below(place.members.len().max(1) as u64) as usize;
        let chosen = if operation.at_primary { 0 } else { other };
        let Some(brick) = operation.pinned.or(place.members.get(chosen).copied()) else { return };
        let answered_to = operation.number.map_or(0, |id| {
            let numbers = &self.numbers[&operation.partition];
            let open = numbers.open.iter().filter(|_| numbers.session == Some(id.session));
            open.min().copied().unwrap_or(numbers.next) - 1
        });
        let numbered = operation.number.map(|id| Numbered { id, answered_to });
        let (key, op) = match &operation.what {
            What::Open => (&b""[..], Op::OpenSession { client: 77 + self.at as u128 }),
            What::Call { key, call, .. } => (key.as_bytes(), workload::op(call)),
        };
        let mut bytes = Vec::new();
        wire::request(&mut bytes, 0, &Request { route: place.route, numbered, key, op });
        let tag = (self.at as u64) << 32 | self.next_tag;
        self.next_tag += 1;
        let is_read = op.is_read();
        let operation = &mut self.operations[at];
        if self.mistake == Mistake::AsksOneOnly && is_read {
            operation.pinned = Some(brick);
        }
        operation.tries += 1;
        operation.loose += u32::from(!is_read);
        operation.tag = Some(tag);
        operation.retry_at = now + TRY_NS + random.below(TRY_NS);
        self.wishes.push(Wish::Send { brick, tag, bytes });
        if operation.tries > 1 {
            self.wishes.push(Wish::Saw("a request is tried again"));
            self.want_maps(now);
        }
    }

    fn again(&mut self, now: Ns, random: &mut Random, at: usize, appended_nothing: bool) {
        let operation = &mut self.operations[at];
        if appended_nothing {
            operation.loose = operation.loose.saturating_sub(1);
        }
        operation.tag = None;
        operation.retry_at = now + random.below(8 * MS);
    }

    /// The connection of a try is closed.
    pub fn on_closed(&mut self, now: Ns, random: &mut Random, tag: u64) {
        if let Some(at) = self.operations.iter().position(|o| o.tag == Some(tag)) {
            self.again(now, random, at, false);
            self.want_maps(now);
        }
    }

    /// An answer came. One to an earlier try is not heard.
    pub fn on_answer(&mut self, now: Ns, random: &mut Random, tag: u64, bytes: &[u8]) {
        let Some(at) = self.operations.iter().position(|o| o.tag == Some(tag)) else { return };
        let Ok(Wire::Answer { answer, .. }) = wire::decode(bytes) else { return };
        let read = matches!(&self.operations[at].what, What::Call { call: Call::Get, .. });
        match answer {
            Answer::StaleRoute { route } => {
                self.wishes.push(Wish::Saw("a stale route is answered"));
                if let Some(place) = self.places.get_mut(&route.partition)
                    && route.epoch > place.route.epoch
                {
                    place.route = route;
                }
                self.again(now, random, at, true);
                self.want_maps(now);
            }
            Answer::Failed(Failure::AskPrimary) => {
                self.wishes.push(Wish::Saw("a backup hands a read to the primary"));
                self.operations[at].at_primary = true;
                self.again(now, random, at, true);
            }
            Answer::Failed(Failure::InDoubt) => self.on_doubt(at),
            Answer::Failed(why) => {
                if why == Failure::NoSpace {
                    self.wishes.push(Wish::Saw("a write is refused for want of room"));
                }
                self.again(now, random, at, true);
                self.want_maps(now);
            }
            Answer::Session { session } => {
                let partition = self.operations[at].partition;
                let numbers = self.numbers.entry(partition).or_default();
                *numbers = Numbers { session: Some(session), next: 1, ..Numbers::default() };
                self.finish(at, None);
            }
            answer => {
                if !read && self.operations[at].loose > 1 {
                    self.wishes.push(Wish::Saw("a write is answered after a lost try"));
                }
                if let Some(back) = back_of(&answer) {
                    self.finish(at, Some(back));
                }
            }
        }
    }

    /// The partition does not know the session, or the number in it.
    fn on_doubt(&mut self, at: usize) {
        self.wishes.push(Wish::Saw("a write is in doubt"));
        let operation = &self.operations[at];
        let partition = operation.partition;
        if let Some(id) = operation.number {
            let numbers = self.numbers.entry(partition).or_default();
            if numbers.session == Some(id.session) {
                numbers.session = None;
            }
        }
        let only = operation.loose <= 1;
        self.finish(at, only.then_some(Back::Failed));
    }
}
