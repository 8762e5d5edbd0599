//! The clients' part of the world: what they call, and what they are told.

use firebrick_partition::hash_key;
use firebrick_partition::maps::fingerprint;
use firebrick_partition::op::Route;

use super::expiring;
use super::fill;
use super::reader::Reader;
use super::world::World;
use crate::check::{Back, Call, Line};
use crate::sim::clock::{MS, Ns};
use crate::sim::level::Level;
use crate::sim::workload;

/// A read at one member is given up after so long.
const PATIENCE_NS: Ns = 2_000 * MS;

impl World {
    pub fn client_turn(&mut self, at: usize) {
        for (id, back) in self.clients[at].turn(self.sim.now) {
            if let Some(back) = &back {
                self.clients[at].saw(id, back);
            }
            self.ended(id, back);
        }
    }

    /// A call is over.
    pub fn ended(&mut self, id: u64, back: Option<Back>) {
        match back.map(fill::told) {
            None => {
                self.sim.cover.saw("an operation ends in doubt");
                self.sim.end(id, None);
            }
            Some(Err(wrong)) => self.sim.fail(format!("call {id}: {wrong}")),
            Some(Ok(back)) => {
                if back == Back::Failed {
                    self.sim.cover.saw("an operation fails");
                }
                self.sim.end(id, Some(back));
            }
        }
    }

    /// All keys that are used, but for those that fill a store.
    pub fn keys(&self) -> Vec<String> {
        let of = |n: usize| {
            ['r', 'c', 'l', expiring::LETTER].iter().map(move |kind| format!("{kind}{n}"))
        };
        let all = (0..self.sim.plan.keys).flat_map(of);
        // (They make a history slow to check.)
        all.filter(|key| self.sim.plan.seed.is_multiple_of(4) || !expiring::is_expiring(key))
            .collect()
    }

    /// A client that has room for it calls something; of a hundred calls so many are reads.
    pub fn call_something(&mut self, at: usize, reads: u64) {
        let (key, call) = self.choose(at, reads);
        let id = self.sim.begin(at, &key, &call);
        let long = if key.starts_with('f') { fill::long(&call) } else { call };
        let taken = self.clients[at].call(self.sim.now, id, &key, workload::op(&long));
        assert!(taken, "it had room");
    }

    /// What a session calls next.
    fn choose(&mut self, at: usize, reads: u64) -> (String, Call) {
        let unique = format!("[{at}.{}]", self.sim.next_call);
        if self.fills() {
            return fill::call(&mut self.sim.random, self.sim.now, &unique);
        }
        let mut keys = self.keys();
        let key = keys.swap_remove(self.sim.random.below(keys.len() as u64) as usize);
        if expiring::is_expiring(&key) {
            let call = self.call_expiring(reads, &key, &unique);
            return (key, call);
        }
        let seen = self.clients[at].seen(&key);
        let call = workload::call(&mut self.sim.random, reads, &key, &unique, seen);
        (key, call)
    }

    /// The next call is about filling a small store.
    pub fn fills(&mut self) -> bool {
        self.sim.plan.small.is_some() && self.sim.random.below(10) < 7
    }

    /// Somebody patient reads at one member, whatever becomes of it meanwhile: a session would ask another one soon.
    pub fn read_somewhere(&mut self) {
        let is_over = |reader: &Reader| self.sim.now > reader.since + PATIENCE_NS;
        if self.reader.as_ref().is_some_and(|reader| !is_over(reader)) {
            return;
        }
        let keys = self.keys();
        let key = &keys[self.sim.random.below(keys.len() as u64) as usize];
        let Some((route, members)) = self.group_of(key) else { return };
        let member = members[self.sim.random.below(members.len() as u64) as usize];
        if let Some(&at) = self.sim.ids.get(&member) {
            let id = self.sim.begin(self.client_hosts().len(), key, &Call::Get);
            self.ask(at, id, route, key);
        }
    }

    /// A read at one member begins.
    fn ask(&mut self, at: usize, id: u64, route: Route, key: &str) {
        let fabric = self.fabric.fake_on(self.client_hosts().end);
        let address = self.bricks[at].address;
        self.reader = Some(Reader::ask(self.sim.now, id, fabric, address, route, key));
        self.refused = None;
    }

    pub fn reader_turn(&mut self) {
        let now = self.sim.now;
        let Some(reader) = &mut self.reader else { return };
        let (id, over) = (reader.id, reader.turn(now));
        match over {
            None => return,
            Some(Ok(back)) => {
                let back = fill::told(back).unwrap_or(Back::Absent);
                self.sim.trace.line(now, format_args!("call {id}, at one member -> {back}"));
                if let Err(wrong) = self.sim.history.push(Line::Back { id, at_ns: now, back }) {
                    self.sim.fail(wrong);
                }
            }
            Some(Err(why)) => self.refused = Some(why),
        }
        self.reader = None;
    }

    /// Reads every key at every member, after all else.
    pub fn read_everything(&mut self) -> Result<(), String> {
        let over = self.all_is_over();
        self.run_until(self.sim.now.max(over));
        let fillers = fill::keys().take_while(|_| self.sim.plan.small.is_some());
        let all: Vec<String> = self.keys().into_iter().chain(fillers).collect();
        for key in all {
            let members = self.group_of(&key).ok_or("a key has no group")?.1;
            for brick in members {
                self.read_at(brick, &key)?;
            }
        }
        Ok(())
    }

    /// Route and members of a key's partition, as the keepers have them now.
    pub fn group_of(&self, key: &str) -> Option<(Route, Vec<u32>)> {
        let maps = self.sim.keeper.state.maps();
        let table = maps.tables.first()?;
        let hash = hash_key(key.as_bytes());
        let leaf = table.leaves.iter().find(|leaf| leaf.covers(hash))?;
        let group = table.groups.get(leaf.partition)?;
        let route = Route {
            table: table.id,
            partition: leaf.partition,
            epoch: group.epoch,
            fingerprint: fingerprint(table.id, leaf, group),
        };
        Some((route, group.members.iter().map(|m| m.brick).collect()))
    }

    /// One read at one member. It may take some tries: a core that must pass a read on to the partition's core does not
    /// answer it at a backup, and the next connection comes to another core; a lease may be on its way; and keepers
    /// may still make bricks more even.
    fn read_at(&mut self, brick: u32, key: &str) -> Result<(), String> {
        let at = *self.sim.ids.get(&brick).ok_or("a member is no brick")?;
        let id = self.sim.begin(self.client_hosts().len(), key, &Call::Get);
        // (A backup does not answer for what is about to expire.)
        let until = self.sim.now + if expiring::is_expiring(key) { 3 } else { 1 } * PATIENCE_NS;
        let (route, _) = self.group_of(key).ok_or("a key has no group")?;
        self.ask(at, id, route, key);
        while self.sim.now < until && self.sim.failure.is_none() {
            self.run_until(self.sim.now + MS);
            if self.reader.is_some() {
                continue;
            }
            if self.refused.is_none() {
                return Ok(());
            }
            let (route, members) = self.group_of(key).ok_or("a key has no group")?;
            if !members.contains(&brick) {
                return Ok(());
            }
            self.ask(at, id, route, key);
        }
        let why = self.refused.take().unwrap_or_else(|| "no answer".to_owned());
        Err(format!("brick{} does not answer a read of {key}: {why}", at + 1))
    }
}
