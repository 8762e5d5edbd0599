//! The clients' part of the world: what they call, and what they are told.

use super::client::Wish;
use super::clock::US;
use super::message::{Message, Node};
use super::workload;
use super::world::{Event, World};
use crate::check::{Back, Call};

impl World {
    pub(super) fn client_turn(&mut self, at: usize) {
        let due = self.clients[at].turn(self.sim.now, &mut self.sim.random);
        for wish in std::mem::take(&mut self.clients[at].wishes) {
            match wish {
                Wish::Send { brick, tag, bytes } => {
                    if let Some(&to) = self.sim.ids.get(&brick) {
                        self.send(
                            Node::Client(at),
                            Node::Brick(to),
                            Message::Request { tag, bytes },
                        );
                    }
                }
                Wish::FetchMaps => self.send(Node::Client(at), Node::Keeper, Message::FetchMaps),
                Wish::Done { id, back } => self.done(id, back),
                Wish::Saw(what) => self.sim.cover.saw(what),
            }
        }
        let due = due.max(self.sim.now + 100 * US);
        if !self.clients[at].is_idle() && due < self.client_due[at] {
            self.client_due[at] = due;
            self.push(due, Event::Client { at });
        }
    }

    /// A client asks for the maps.
    pub(super) fn fetch_maps(&mut self, at: usize) {
        self.send(Node::Client(at), Node::Keeper, Message::FetchMaps);
    }

    pub(super) fn done(&mut self, id: u64, back: Option<Back>) {
        self.answers.insert(id, back.clone());
        self.sim.end(id, back);
    }

    /// All keys that are used.
    pub fn keys(&self) -> Vec<String> {
        let kinds = ["r", "c", "l"];
        let of = |n: usize| kinds.iter().map(move |kind| format!("{kind}{n}"));
        (0..self.sim.plan.keys).flat_map(of).collect()
    }

    /// A client calls something; of a hundred calls so many are reads.
    pub(super) fn call_something(&mut self, at: usize, reads: u64) {
        let keys = self.keys();
        let key = &keys[self.sim.random.below(keys.len() as u64) as usize];
        let seen = self.clients[at].seen(key);
        let unique = format!("[{}.{}]", at, self.sim.next_call);
        let call = workload::call(&mut self.sim.random, reads, key, &unique, seen);
        self.call(at, key, call, None);
    }

    /// A client calls; the number of its call.
    pub fn call(&mut self, at: usize, key: &str, call: Call, pinned: Option<u32>) -> u64 {
        let id = self.sim.begin(at, key, &call);
        self.clients[at].call(self.sim.now, &mut self.sim.random, id, key, call, pinned);
        self.client_turn(at);
        id
    }
}
