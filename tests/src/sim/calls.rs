//! The clients' part of the world: what they call, and what they are told.

use super::client::Wish;
use super::clock::US;
use super::message::{Message, Node};
use super::workload;
use super::world::{Event, World};
use crate::check::{Back, Call, Line};

impl World {
    pub(super) fn client_turn(&mut self, at: usize) {
        let due = self.clients[at].turn(self.now, &mut self.random);
        for wish in std::mem::take(&mut self.clients[at].wishes) {
            match wish {
                Wish::Send { brick, tag, bytes } => {
                    if let Some(&to) = self.bricks.get(&brick) {
                        self.send(
                            Node::Client(at),
                            Node::Brick(to),
                            Message::Request { tag, bytes },
                        );
                    }
                }
                Wish::FetchMaps => self.send(Node::Client(at), Node::Keeper, Message::FetchMaps),
                Wish::Done { id, back } => self.done(id, back),
                Wish::Saw(what) => self.cover.saw(what),
            }
        }
        let due = due.max(self.now + 100 * US);
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
        match back {
            Some(back) => {
                self.trace.line(self.now, format_args!("call {id} -> {back}"));
                let line = Line::Back { id, at_ns: self.now, back };
                if let Err(wrong) = self.history.push(line) {
                    self.fail(wrong);
                }
            }
            None => self.trace.line(self.now, format_args!("call {id} -> nobody knows")),
        }
    }

    /// A client's process ends, and another begins. What it had open stays without an answer.
    pub(super) fn restart_client(&mut self, at: usize) {
        self.clients[at] = self.clients[at].restarted();
        self.fetch_maps(at);
    }

    /// All keys that are used.
    pub fn keys(&self) -> Vec<String> {
        let kinds = ["r", "c", "l"];
        let of = |n: usize| kinds.iter().map(move |kind| format!("{kind}{n}"));
        (0..self.plan.keys).flat_map(of).collect()
    }

    pub(super) fn think(&mut self, at: usize) {
        if self.now >= self.load_until {
            return;
        }
        if self.clients[at].has_room() {
            self.call_something(at, self.plan.reads);
        } else if self.clients[at].is_idle() {
            self.send(Node::Client(at), Node::Keeper, Message::FetchMaps);
        }
        let due = self.now + 100 * US + self.random.below(self.plan.think_ns);
        self.push(due, Event::Think { at });
    }

    /// A client calls something; of a hundred calls so many are reads.
    pub(super) fn call_something(&mut self, at: usize, reads: u64) {
        let keys = self.keys();
        let key = &keys[self.random.below(keys.len() as u64) as usize];
        let seen = self.clients[at].seen(key);
        let unique = format!("[{}.{}]", at, self.next_id);
        let call = workload::call(&mut self.random, reads, key, &unique, seen);
        self.call(at, key, call, None);
    }

    /// A client calls; the number of its call.
    pub fn call(&mut self, at: usize, key: &str, call: Call, pinned: Option<u32>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.trace.line(self.now, format_args!("call {id}: client {at} {key} {call}"));
        let line = Line::Call {
            id,
            client: at as u32,
            at_ns: self.now,
            key: key.into(),
            call: call.clone(),
        };
        if let Err(wrong) = self.history.push(line) {
            self.fail(wrong);
        }
        self.clients[at].call(self.now, &mut self.random, id, key, call, pinned);
        self.client_turn(at);
        id
    }
}
