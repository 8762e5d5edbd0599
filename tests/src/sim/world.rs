//! Everything that happens, one event after the other, in virtual time.

use std::collections::BTreeMap;

use firebrick_partition::keeper::{Heartbeat, LeaseAnswer};

use super::client::Client;
use super::clock::{MS, Ns, US};
use super::faults;
use super::grip::Grip;
use super::level::{Due, Level, Sim, happen};
use super::machine::{Crash, Machine};
use super::message::{Message, Node};
use super::mistake::Mistake;
use super::plan::Plan;
use super::process::Effect;
use super::queue::Queue;
use crate::check::Back;
use crate::random::Random;

/// What happens next.
#[derive(Debug)]
pub enum Event {
    Deliver { from: Node, to: Node, message: Message },
    Wake { at: usize, incarnation: u64 },
    Tick { at: usize, incarnation: u64 },
    Beat { at: usize, incarnation: u64 },
    Flush { at: usize, incarnation: u64 },
    Landed { at: usize, incarnation: u64, partition: u32 },
    PeerUp { at: usize, brick: u32 },
    Client { at: usize },
    Answer { to: usize, heartbeat: Box<Heartbeat>, sent: u64, term: u64 },
    Due(Due),
}

/// See the module's text.
pub struct World {
    pub sim: Sim,
    pub(super) queue: Queue<Event>,
    /// When each client is to be looked at next.
    pub(super) client_due: Vec<Ns>,
    pub machines: Vec<Machine>,
    pub clients: Vec<Client>,
    /// What a script holds.
    pub grip: Grip,
    /// What was answered, by call; `None`: nobody knows.
    pub answers: BTreeMap<u64, Option<Back>>,
    /// Events so far.
    pub(super) handled: u64,
}

/// Heartbeats come this often in a lease.
pub(super) const BEATS_IN_A_LEASE: u64 = 5;

impl World {
    /// A world in which nothing runs yet.
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed ^ 0x5eed);
        let machines = (0..plan.machines).map(|at| {
            let mut machine = Machine::new(at, &mut random);
            let bytes = plan.small.filter(|small| small.0 == at);
            machine.limits.bytes = bytes.map_or(machine.limits.bytes, |small| small.1);
            machine.limits.segments = plan.ration.filter(|r| r.0 == at).map(|r| r.1);
            machine
        });
        let machines = machines.collect();
        let clients =
            (0..plan.clients).map(|at| Client::new(at, plan.open_max, plan.mistake)).collect();
        let mut world = Self {
            queue: Queue::default(),
            client_due: vec![Ns::MAX; plan.clients],
            machines,
            clients,
            grip: Grip::default(),
            answers: BTreeMap::new(),
            handled: 0,
            sim: Sim::new(plan, random),
        };
        for at in 0..world.machines.len() {
            world.push_due(at as u64 * MS, Due::Start { at });
        }
        world.push_due(10 * MS, Due::Plan { term: 1 });
        world
    }

    pub(super) fn push(&mut self, at: Ns, event: Event) {
        self.queue.push(at, event);
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Wake { at, incarnation } => self.wake(at, incarnation, false),
            Event::Tick { at, incarnation } => self.wake(at, incarnation, true),
            Event::Beat { at, incarnation } => self.beat(at, incarnation),
            Event::Flush { at, incarnation } => {
                if self.is_running(at, incarnation) {
                    self.flush(at);
                }
            }
            Event::Landed { at, incarnation, partition } => {
                if self.is_running(at, incarnation) {
                    self.land(at, partition);
                }
            }
            Event::PeerUp { at, brick } => self.turn(at, |process, now| {
                process.on_peer_up(now, brick);
            }),
            // (Not when it was put forward since.)
            Event::Client { at } if self.sim.now < self.client_due[at] => {}
            Event::Client { at } => {
                self.client_due[at] = Ns::MAX;
                self.client_turn(at);
            }
            Event::Answer { to, heartbeat, sent, term } => self.answer(to, &heartbeat, sent, term),
            Event::Due(due) => happen(self, due),
        }
    }

    // --- messages

    #[allow(clippy::needless_pass_by_value)] // it may arrive twice, or never
    pub(super) fn send(&mut self, from: Node, to: Node, message: Message) {
        if self.gripped(from, to, &message) {
            return;
        }
        for at in self.sim.net.arrivals(self.sim.now, &mut self.sim.random, from, to) {
            let message = message.clone();
            self.push(at, Event::Deliver { from, to, message });
        }
    }

    fn deliver(&mut self, from: Node, to: Node, message: Message) {
        if let Node::Brick(at) = to
            && let Some(until) = self.stands_still(at)
        {
            return self.push(until, Event::Deliver { from, to, message });
        }
        self.sim.trace.mix(self.sim.now);
        if self.sim.trace.verbose {
            self.sim
                .trace
                .line(self.sim.now, format_args!("{from:?} -> {to:?}: {}", message.name()));
        }
        match to {
            Node::Brick(at) => self.deliver_to_brick(from, at, message),
            Node::Client(at) => self.deliver_to_client(at, message),
            Node::Keeper => self.deliver_to_keeper(from, message),
        }
    }

    fn deliver_to_brick(&mut self, from: Node, at: usize, message: Message) {
        match message {
            Message::Peer { from, bytes } => {
                self.turn(at, |process, now| process.on_peer(now, from, &bytes));
            }
            Message::Request { tag, bytes } => {
                let Node::Client(client) = from else { return };
                if self.machines[at].process.is_none() {
                    // The machine says that nobody listens.
                    return self.send(Node::Brick(at), from, Message::Closed { tag });
                }
                self.turn(at, |process, now| process.on_request(now, client, tag, &bytes));
            }
            Message::Registered { incarnation, brick } => self.registered(at, incarnation, brick),
            Message::Lease { incarnation, answer, .. }
                if !matches!(*answer, LeaseAnswer::Granted { .. })
                    && self.is_running(at, incarnation) =>
            {
                // It ends; whoever looks after it starts it again.
                self.sim.cover.saw("a process is told to end");
                faults::crash(self, at, Crash::Kill, 50 * MS);
            }
            Message::Lease { incarnation, answer, sent } => self.turn(at, |process, now| {
                if process.incarnation == incarnation {
                    process.on_lease(now, &answer, sent);
                }
            }),
            _ => {}
        }
    }

    fn registered(&mut self, at: usize, incarnation: u64, brick: u32) {
        let Some(process) = &mut self.machines[at].process else { return };
        if process.incarnation != incarnation || process.brick.is_some() {
            return;
        }
        process.brick = Some(brick);
        for other in 0..self.machines.len() {
            if other != at && self.sim.random.below(3) > 0 {
                let soon = self.sim.now + self.sim.random.below(20 * MS);
                self.push(soon, Event::PeerUp { at: other, brick });
            }
        }
    }

    fn deliver_to_client(&mut self, at: usize, message: Message) {
        let (now, random, client) = (self.sim.now, &mut self.sim.random, &mut self.clients[at]);
        match message {
            Message::Answer { tag, bytes } => client.on_answer(now, random, tag, &bytes),
            Message::Closed { tag } => client.on_closed(now, random, tag),
            Message::Maps(maps) => client.on_maps(&maps),
            _ => {}
        }
        self.client_turn(at);
    }

    // --- machines

    pub(super) fn stands_still(&self, at: usize) -> Option<Ns> {
        let until = self.machines[at].paused_until;
        (until > self.sim.now).then_some(until)
    }

    /// A process does something: what it wants is done, and its answers leave.
    pub(super) fn turn(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut super::process::Process, firebrick_partition::op::Now),
    ) {
        let now = self.machines[at].turn_now(self.sim.now);
        let Some(process) = &mut self.machines[at].process else { return };
        run(process, now);
        let (incarnation, answers) = (process.incarnation, !process.ready.is_empty());
        self.perform(at);
        let stop = self.grip.stop_before_answer.filter(|stop| answers && stop.0 == at);
        if let Some((_, for_ns)) = stop {
            self.grip.stop_before_answer = None;
            let until = self.sim.now + for_ns;
            self.machines[at].pause(self.sim.now, until);
            self.push(until, Event::Flush { at, incarnation });
        } else if answers && self.sim.random.below(1000) < self.sim.plan.stumbles {
            // The process is stopped just now.
            let lease = self.sim.plan.lease_ms * MS;
            let until = self.sim.now + self.sim.random.below(2 * lease);
            self.sim.cover.saw("a process stops in the middle of a turn");
            self.machines[at].pause(self.sim.now, until);
            self.push(until, Event::Flush { at, incarnation });
        } else if answers {
            self.flush(at);
        }
        self.after_turn(at);
    }

    /// The end of a turn: the clock is read anew.
    pub(super) fn flush(&mut self, at: usize) {
        let before = self.machines[at].turn_now(self.sim.now);
        let mut now = self.machines[at].now(self.sim.now);
        if self.sim.plan.mistake == Mistake::LeaseCheckedBefore {
            now = before;
        }
        if let Some(process) = &mut self.machines[at].process {
            process.flush(now);
        }
        self.perform(at);
    }

    fn after_turn(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let Some(process) = &mut machine.process else { return };
        if let Some(local) = process.wake_at() {
            let due = machine.clock.when(local).max(self.sim.now + US);
            if due < process.wake {
                process.wake = due;
                let incarnation = process.incarnation;
                self.push(due, Event::Wake { at, incarnation });
            }
        }
        if let Err(wrong) = self.sim.watch.look(self.sim.now, &self.machines, at) {
            self.sim.fail(wrong);
        }
    }

    pub(super) fn perform(&mut self, at: usize) {
        let Some(process) = &mut self.machines[at].process else { return };
        let (incarnation, brick) = (process.incarnation, process.brick);
        for effect in std::mem::take(&mut process.effects) {
            let from = Node::Brick(at);
            match effect {
                Effect::Peer { to, bytes } => {
                    let (Some(&to), Some(from_id)) = (self.sim.ids.get(&to), brick) else {
                        continue;
                    };
                    self.send(from, Node::Brick(to), Message::Peer { from: from_id, bytes });
                }
                Effect::Answer { asker, bytes } => {
                    let message = Message::Answer { tag: asker.tag, bytes };
                    self.send(from, Node::Client(asker.client), message);
                }
                Effect::Close(asker) => {
                    let message = Message::Closed { tag: asker.tag };
                    self.send(from, Node::Client(asker.client), message);
                }
                Effect::Write { partition, op } => {
                    self.machines[at].disks.entry(partition).or_default().write(op);
                    let slow = self.sim.disk_slow_until.get(&at).is_some_and(|&t| self.sim.now < t);
                    let most = if slow { 50 * MS } else { 500 * US };
                    let due = self.sim.now + 20 * US + self.sim.random.below(most);
                    if !self.grip.stalled.contains(&at) {
                        self.push(due, Event::Landed { at, incarnation, partition });
                    }
                }
                Effect::Saw(what) => {
                    self.sim.cover.saw(what);
                    self.sim.trace.line(self.sim.now, format_args!("brick{}: {what}", at + 1));
                }
                Effect::Note(text) => {
                    self.sim.trace.line(self.sim.now, format_args!("brick{}: {text}", at + 1));
                }
                Effect::Corrupt(partition) => {
                    self.sim.fail(format!("brick{} has a damaged record in {partition}", at + 1));
                }
            }
        }
    }

    pub(super) fn wake(&mut self, at: usize, incarnation: u64, tick: bool) {
        if !self.is_running(at, incarnation) {
            return;
        }
        if let Some(until) = self.stands_still(at) {
            let event = if tick {
                Event::Tick { at, incarnation }
            } else {
                Event::Wake { at, incarnation }
            };
            return self.push(until, event);
        }
        if let Some(process) = &mut self.machines[at].process
            && !tick
        {
            if self.sim.now < process.wake {
                // It was put forward since.
                return;
            }
            process.wake = u64::MAX;
        }
        self.turn(at, |process, now| process.on_wake(now, tick));
        if tick {
            let quiet = self.sim.now > self.sim.load_until && self.sim.load_until > 0;
            let most = if quiet { 200 * MS } else { 20 * MS };
            let due = self.sim.now + MS + self.sim.random.below(most);
            self.push(due, Event::Tick { at, incarnation });
        }
    }

    pub(super) fn land(&mut self, at: usize, partition: u32) {
        let op = self.machines[at].disks.get_mut(&partition).and_then(super::disk::Disk::land);
        if let Some(op) = op {
            self.turn(at, |process, now| process.on_written(now, partition, &op));
        }
    }
}
