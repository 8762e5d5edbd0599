//! A brick's control thread: it registers, sends heartbeats, and gives the cores what comes back.

use firebrick_log::storage::Job;
use firebrick_partition::keeper::{Heartbeat, LeaseAnswer, Registration};

use super::process::Asked;
use super::world::{Event, World};
use crate::sim::clock::{MS, Ns};
use crate::sim::faults::fault;
use crate::sim::level::Level;
use crate::sim::machine::Crash;
use crate::sim::message::Node;
use crate::sim::plan::Fault;

/// Before a registration that was not answered is tried again.
const REGISTER_AGAIN_NS: Ns = 50 * MS;
/// Between two heartbeats that something urgent asks for.
const URGENT_NS: Ns = 5 * MS;
/// Before another keeper is asked when one did not answer.
const AGAIN_NS: Ns = 20 * MS;
/// Heartbeats come this often in a lease; after half of one without an answer another keeper is asked.
const BEATS_IN_A_LEASE: u64 = 5;

/// A heartbeat, and which of its process's it is.
#[derive(Clone, Debug)]
pub struct Beat {
    pub heartbeat: Heartbeat,
    pub ask: u64,
}

/// Between control threads and keepers.
#[derive(Clone, Debug)]
pub enum Message {
    /// A process wants to act for its brick.
    Register(Box<Registration>),
    /// It does now; files of these partitions are nobody's.
    Registered { incarnation: u64, brick: u32, dropped: Vec<u32> },
    /// A heartbeat.
    Beat(Box<Beat>),
    /// Its answer.
    Lease { incarnation: u64, ask: u64, answer: Box<LeaseAnswer> },
    /// Files of dropped partitions are gone.
    Forgotten { brick: u32, partitions: Vec<u32> },
    /// This brick's keeper has applied something.
    Changed,
}

impl World {
    /// A message leaves.
    #[allow(clippy::needless_pass_by_value)] // it may arrive twice, or never
    pub fn send(&mut self, from: Node, to: Node, message: Message) {
        for at in self.sim.net.arrivals(self.sim.now, &mut self.sim.random, from, to) {
            self.queue.push(at, Event::Deliver { from, to, message: message.clone() });
        }
    }

    pub fn deliver(&mut self, from: Node, to: Node, message: Message) {
        match to {
            Node::Brick(at) => {
                if let Some(until) = self.stands_still(at) {
                    return self.queue.push(until, Event::Deliver { from, to, message });
                }
                self.deliver_to_brick(at, message);
            }
            Node::Keeper => self.deliver_to_keeper(from, message),
            Node::Client(_) => {}
        }
    }

    fn deliver_to_brick(&mut self, at: usize, message: Message) {
        match message {
            Message::Registered { incarnation, brick, dropped } => {
                self.registered(at, incarnation, brick, dropped);
            }
            Message::Lease { incarnation, ask, answer } if self.is_running(at, incarnation) => {
                self.on_lease(at, ask, &answer);
            }
            Message::Changed => self.hasten(at),
            _ => {}
        }
    }

    /// The process asks to act for its brick, until it does.
    pub fn register(&mut self, at: usize, incarnation: u64) {
        if !self.is_running(at, incarnation) {
            return;
        }
        let again = self.stands_still(at).unwrap_or(self.sim.now + REGISTER_AGAIN_NS);
        let Some(process) = &self.bricks[at].process else { return };
        if process.brick.is_some() {
            return;
        }
        if self.stands_still(at).is_none() {
            let registration = Box::new(process.registration.clone());
            self.send(Node::Brick(at), Node::Keeper, Message::Register(registration));
        }
        self.queue.push(again, Event::Register { at, incarnation });
    }

    fn registered(&mut self, at: usize, incarnation: u64, brick: u32, dropped: Vec<u32>) {
        let Some(process) = &mut self.bricks[at].process else { return };
        if process.incarnation != incarnation || process.brick.is_some() {
            return;
        }
        process.brick = Some(brick);
        for &partition in &dropped {
            drop(process.storage.perform(Job::Remove { partition }));
        }
        self.forgotten(at, dropped);
        self.beat_at(at, self.sim.now);
    }

    fn forgotten(&mut self, at: usize, partitions: Vec<u32>) {
        let brick = self.bricks[at].process.as_ref().and_then(|process| process.brick);
        if let Some(brick) = brick.filter(|_| !partitions.is_empty()) {
            let message = Message::Forgotten { brick, partitions };
            self.send(Node::Brick(at), Node::Keeper, message);
        }
    }

    /// The next heartbeat is at that time, and no other.
    fn beat_at(&mut self, at: usize, due: Ns) {
        let Some(process) = &mut self.bricks[at].process else { return };
        process.beats += 1;
        let (incarnation, beat) = (process.incarnation, process.beats);
        self.queue.push(due, Event::Beat { at, incarnation, beat });
    }

    pub fn beat(&mut self, at: usize, incarnation: u64, beat: u64) {
        if !self.is_running(at, incarnation) {
            return;
        }
        if let Some(until) = self.stands_still(at) {
            return self.queue.push(until, Event::Beat { at, incarnation, beat });
        }
        let since_ns = self.bricks[at].now(self.sim.now).boot_ns;
        let Some(process) = &mut self.bricks[at].process else { return };
        if process.beats != beat || process.asked.is_some() {
            return;
        }
        let Some(heartbeat) = process.heartbeat(since_ns) else { return };
        if heartbeat.copy_pace > 0 {
            self.sim.cover.saw("a copy is slowed down");
        }
        process.asks += 1;
        let ask = process.asks;
        process.asked = Some(Asked { number: ask, since_ns });
        (process.beat_at, process.urgent) = (self.sim.now, false);
        let message = Message::Beat(Box::new(Beat { heartbeat, ask }));
        self.send(Node::Brick(at), Node::Keeper, message);
        let late = self.sim.now + self.sim.plan.lease_ms * MS / 2;
        self.queue.push(late, Event::Late { at, incarnation, ask });
    }

    pub fn late(&mut self, at: usize, incarnation: u64, ask: u64) {
        if !self.is_running(at, incarnation) {
            return;
        }
        let Some(process) = &mut self.bricks[at].process else { return };
        if process.asked.is_some_and(|asked| asked.number == ask) {
            process.asked = None;
            self.sim.cover.saw("a heartbeat has no answer");
            self.beat_at(at, self.sim.now + AGAIN_NS);
        }
    }

    /// Something should be told, or heard, soon.
    fn hasten(&mut self, at: usize) {
        let Some(process) = &mut self.bricks[at].process else { return };
        if process.brick.is_none() {
            return;
        }
        if process.asked.is_some() {
            process.urgent = true;
        } else {
            let due = self.sim.now.max(process.beat_at + URGENT_NS);
            self.beat_at(at, due);
        }
    }

    fn on_lease(&mut self, at: usize, ask: u64, answer: &LeaseAnswer) {
        let now_ns = self.bricks[at].now(self.sim.now).boot_ns;
        let Some(process) = &mut self.bricks[at].process else { return };
        let Some(asked) = process.asked.filter(|asked| asked.number == ask) else { return };
        process.asked = None;
        let LeaseAnswer::Granted { lease_ms, delta } = answer else {
            // It ends; whoever looks after it starts it again.
            self.sim.cover.saw("a process is told to end");
            let crash = Fault::Crash { a: at, how: Crash::Kill, for_ns: 50 * MS };
            return fault(self, crash);
        };
        let brick = process.brick.unwrap_or_default();
        let taken = process.grants.take(brick, asked.since_ns, *lease_ms, delta);
        let period = self.sim.plan.lease_ms * MS / BEATS_IN_A_LEASE;
        let wait = match (&taken, process.urgent) {
            (Err(_), _) => AGAIN_NS,
            (Ok(_), true) => URGENT_NS,
            (Ok(_), false) => period,
        };
        if taken.is_ok() {
            if process.cores.is_empty() {
                process.open();
            }
            process.push(now_ns);
        }
        let due = self.sim.now.max(process.beat_at + wait);
        self.beat_at(at, due);
    }

    /// It hears what the cores have to say, and gives those that took what they had what is newest.
    pub fn control_turn(&mut self, at: usize) {
        let now_ns = self.bricks[at].now(self.sim.now).boot_ns;
        let Some(process) = &mut self.bricks[at].process else { return };
        let (gone, urgent) = process.hear(now_ns);
        process.push(now_ns);
        self.forgotten(at, gone);
        if urgent {
            self.hasten(at);
        }
    }
}
