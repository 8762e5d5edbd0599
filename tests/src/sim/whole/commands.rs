//! What the world's RESP clients call.

use super::expiring;
use super::fill;
use super::redis::Command;
use super::world::{CLIENTS, World};
use crate::check::{Back, Call};
use crate::resp::command;
use crate::sim::clock::US;
use crate::sim::level::{Due, Level};
use crate::sim::workload::{Family, family};

/// One in so many times a client leaves its brick, whatever is under way.
const LEAVES_OF: u64 = 300;
/// One in so many, when the brick said that it serves nothing.
const REFUSED_LEAVES_OF: u64 = 4;

impl World {
    pub fn redis_turn(&mut self, at: usize) {
        let mut done = Vec::new();
        let reached = self.reached(at);
        self.redis[at].sees(self.sim.now, reached);
        let taken = self.redis[at].turn(self.sim.now, &mut done);
        self.redis_done(done);
        if let Err(wrong) = taken {
            self.sim.fail(format!("RESP client {}: {wrong}", self.clients.len() + at));
        }
    }

    /// The process at the other end of a client's connection, if nothing is between the two.
    fn reached(&self, at: usize) -> Option<u64> {
        let (brick, host) = (self.redis[at].brick, CLIENTS + self.clients.len() + at);
        let is_cut = |way| self.blocked.contains_key(&way);
        let is_there = !is_cut((brick, host)) && !is_cut((host, brick));
        let process = self.bricks[brick].process.as_ref().filter(|_| is_there)?;
        Some(process.incarnation)
    }

    fn redis_done(&mut self, done: Vec<super::redis::Outcome>) {
        for (id, back) in done {
            match back {
                None => self.sim.cover.saw("a RESP command ends in doubt"),
                Some(Back::Failed) => self.sim.cover.saw("a RESP command is refused"),
                Some(_) => {}
            }
            self.ended(id, back);
        }
    }

    pub fn redis_thinks(&mut self, at: usize) {
        let of = if self.redis[at].is_refused { REFUSED_LEAVES_OF } else { LEAVES_OF };
        if self.redis[at].has_line() && self.sim.random.below(of) == 0 {
            self.sim.cover.saw("a RESP client leaves its brick");
            let mut done = Vec::new();
            self.redis[at].hang_up(&mut done);
            self.redis_done(done);
        }
        if !self.redis[at].has_line() {
            self.redis[at].dial(self.sim.now, &mut self.sim.random);
        }
        let room = self.redis[at].room(self.sim.plan.open_max) as u64;
        let count = room.min(1 + self.sim.random.below(4));
        let (mut commands, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            commands.push(self.redis_calls(at, &mut bytes));
        }
        if count > 0 {
            let mut done = Vec::new();
            self.redis[at].send(commands, &bytes, &mut self.sim.random, &mut done);
            self.redis_done(done);
        }
        self.redis_turn(at);
        let due = self.sim.now + 100 * US + self.sim.random.below(self.sim.plan.think_ns);
        self.push_due(due, Due::Think { at: self.clients.len() + at });
    }

    /// The machine of a key's primary.
    fn primary_of(&self, key: &str) -> Option<usize> {
        let (_, members) = self.group_of(key)?;
        self.sim.ids.get(members.first()?).copied()
    }

    /// A random command, appended to `bytes`.
    fn redis_calls(&mut self, at: usize, bytes: &mut Vec<u8>) -> Command {
        let at = self.clients.len() + at;
        if self.fills() {
            return self.redis_fills(at, bytes);
        }
        let keys = self.keys();
        let key = &keys[self.sim.random.below(keys.len() as u64) as usize];
        if expiring::is_expiring(key) && self.sim.random.below(2) == 0 {
            return self.redis_expires(at, key, bytes);
        }
        let value = format!("[{at}.{}]", self.sim.next_call);
        let value = || value.as_str().into();
        let word = |word: &'static str| word.as_bytes().to_vec();
        let own = |name| vec![word(name), key.clone().into_bytes()];
        let die = self.sim.random.below(100);
        let (call, words) = match (family(key), die) {
            (_, 0..=29) => (Call::Get, own("GET")),
            (_, 30..=39) => return self.several(at, &Call::Get, "MGET", bytes),
            (Family::Counter, _) => (Call::Increment { by: 1 }, own("INCR")),
            (Family::List, _) => (Call::Append { value: value() }, own("APPEND")),
            (Family::Register, 40..=44) => {
                return self.several(at, &Call::Put { value: value() }, "MSET", bytes);
            }
            (Family::Register, 45..=64) => (Call::Put { value: value() }, own("SET")),
            (Family::Register, 65..=72) => (Call::Remove, own("DEL")),
            (Family::Register, 73..=82) => (Call::Take, own("GETDEL")),
            (Family::Register, 83..=90) => (Call::Swap { value: value() }, own("SET")),
            (Family::Register, _) => (Call::PutIfAbsent { value: value() }, own("SET")),
        };
        let mut words = words;
        match &call {
            Call::Append { value } => words.push(value.0.clone()),
            call => words.extend(call.value().map(|value| value.0.clone())),
        }
        match &call {
            Call::Swap { .. } => words.push(word("GET")),
            Call::PutIfAbsent { .. } => words.push(word("NX")),
            _ => {}
        }
        if self
            .primary_of(key)
            .is_some_and(|primary| primary != self.redis[at - self.clients.len()].brick)
        {
            self.sim.cover.saw("a RESP command comes to a brick that is not its primary");
        }
        bytes.extend(command(&words));
        let id = self.sim.begin(at, key, &call);
        Command { since: self.sim.now, parts: vec![(id, key.clone(), call)] }
    }

    /// A command about how long a value is there.
    fn redis_expires(&mut self, at: usize, key: &str, bytes: &mut Vec<u8>) -> Command {
        let value = format!("[{at}.{}]", self.sim.next_call);
        let from_now = self.sim.random.below(3) == 0;
        let life = self.life(from_now);
        let (calls, words) = expiring::command(&mut self.sim.random, key, &value, life);
        let words: Vec<_> = words.iter().map(String::as_bytes).collect();
        bytes.extend(command(&words));
        let mut parts = Vec::new();
        for call in calls {
            parts.push((self.sim.begin(at, key, &call), key.to_owned(), call));
        }
        Command { since: self.sim.now, parts }
    }

    /// A command that fills a small store, or makes room there.
    fn redis_fills(&mut self, at: usize, bytes: &mut Vec<u8>) -> Command {
        let unique = format!("[{at}.{}]", self.sim.next_call);
        let (key, call) = fill::call(&mut self.sim.random, self.sim.now, &unique);
        let long = fill::long(&call);
        let name = match &call {
            Call::Get => "GET",
            Call::Remove => "DEL",
            _ => "SET",
        };
        let mut words = vec![name.as_bytes(), key.as_bytes()];
        words.extend(long.value().map(|value| &value.0[..]));
        bytes.extend(command(&words));
        let id = self.sim.begin(at, &key, &call);
        Command { since: self.sim.now, parts: vec![(id, key, call)] }
    }

    /// The same with all keys that it may be done with.
    fn several(
        &mut self,
        at: usize,
        call: &Call,
        name: &'static str,
        bytes: &mut Vec<u8>,
    ) -> Command {
        let fits = |key: &String| *call == Call::Get || family(key) == Family::Register;
        let keys: Vec<String> = self.keys().into_iter().filter(fits).collect();
        let value = call.value().map(|value| value.0.clone());
        let mut words = vec![name.as_bytes()];
        for key in &keys {
            words.push(key.as_bytes());
            words.extend(value.as_deref());
        }
        bytes.extend(command(&words));
        let mut parts = Vec::new();
        for key in keys {
            let id = self.sim.begin(at, &key, call);
            parts.push((id, key, call.clone()));
        }
        Command { since: self.sim.now, parts }
    }
}
