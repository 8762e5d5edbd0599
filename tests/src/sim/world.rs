//! Everything that happens, one event after the other, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use firebrick_partition::keeper::{Applied, Entry, Heartbeat, Settings};
use firebrick_partition::maps::{Intent, TableOptions};

use super::client::{Client, Wish};
use super::clock::{MS, Ns, US};
use super::keeper::Keeper;
use super::machine::{Crash, Machine};
use super::message::{Message, Node};
use super::net::{Net, Weather};
use super::plan::{Fault, Plan, storm};
use super::process::Effect;
use super::trace::{Coverage, Trace};
use super::watch::Watch;
use super::workload;
use crate::check::{Call, History, Line};
use crate::random::Random;

#[derive(Debug)]
enum Event {
    Deliver { from: Node, to: Node, message: Message },
    Wake { at: usize, incarnation: u64 },
    Tick { at: usize, incarnation: u64 },
    Beat { at: usize, incarnation: u64 },
    Flush { at: usize, incarnation: u64 },
    Landed { at: usize, incarnation: u64, partition: u32 },
    PeerUp { at: usize, brick: u32 },
    Start { at: usize },
    Client { at: usize },
    Think { at: usize },
    Plan { term: u64 },
    Apply { id: u64 },
    Answer { to: usize, heartbeat: Box<Heartbeat>, sent: u64, term: u64 },
    Lead { term: u64 },
    Fault(Fault),
    Calm,
}

/// See the module's text.
pub struct World {
    pub plan: Plan,
    random: Random,
    pub now: Ns,
    order: u64,
    queue: BinaryHeap<Reverse<(Ns, u64)>>,
    events: BTreeMap<u64, Event>,
    pub net: Net,
    pub machines: Vec<Machine>,
    pub keeper: Keeper,
    pub clients: Vec<Client>,
    pub history: History,
    watch: Watch,
    pub trace: Trace,
    pub cover: Coverage,
    /// Machine of a brick id.
    pub bricks: BTreeMap<u32, usize>,
    incarnations: u64,
    next_id: u64,
    disk_slow_until: BTreeMap<usize, Ns>,
    /// Clients call until then.
    pub load_until: Ns,
    /// What was found wrong.
    pub failure: Option<String>,
}

/// Heartbeats come this often in a lease.
const BEATS_IN_A_LEASE: u64 = 5;

impl World {
    /// A world in which nothing runs yet.
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed ^ 0x5eed);
        let machines = (0..plan.machines).map(|at| Machine::new(at, &mut random)).collect();
        let clients = (0..plan.clients).map(Client::new).collect();
        let keeper = Keeper::new(&mut random);
        let mut world = Self {
            random,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            net: Net::new(Weather::CALM),
            machines,
            keeper,
            clients,
            history: History::default(),
            watch: Watch::default(),
            trace: Trace::default(),
            cover: Coverage::default(),
            bricks: BTreeMap::new(),
            incarnations: 0,
            next_id: 0,
            disk_slow_until: BTreeMap::new(),
            load_until: 0,
            failure: None,
            plan,
        };
        for at in 0..world.machines.len() {
            world.push(at as u64 * MS, Event::Start { at });
        }
        world.push(10 * MS, Event::Plan { term: 1 });
        world
    }

    fn push(&mut self, at: Ns, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order)));
        self.events.insert(self.order, event);
    }

    /// Runs until a time, or until something is wrong.
    pub fn run_until(&mut self, until: Ns) {
        while self.failure.is_none() {
            let Some(&Reverse((at, order))) = self.queue.peek() else { break };
            if at > until {
                break;
            }
            self.queue.pop();
            let Some(event) = self.events.remove(&order) else { continue };
            // Every moment has one event, so that any two are ordered.
            self.now = at.max(self.now + 1);
            self.handle(event);
        }
        self.now = self.now.max(until);
    }

    fn fail(&mut self, what: String) {
        if self.failure.is_none() {
            self.trace.line(self.now, format_args!("WRONG: {what}"));
            self.failure = Some(what);
        }
    }

    fn handle(&mut self, event: Event) {
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
            Event::Start { at } => self.start(at),
            Event::Client { at } => self.client_turn(at),
            Event::Think { at } => self.think(at),
            Event::Plan { term } => self.keeper_plans(term),
            Event::Apply { id } => self.apply(id),
            Event::Answer { to, heartbeat, sent, term } => self.answer(to, &heartbeat, sent, term),
            Event::Lead { term } => self.lead(term),
            Event::Fault(fault) => self.fault(fault),
            Event::Calm => self.net.weather = self.plan.weather,
        }
    }

    // --- messages

    fn send(&mut self, from: Node, to: Node, message: Message) {
        for at in self.net.arrivals(self.now, &mut self.random, from, to) {
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
        self.trace.mix(self.now);
        if self.trace.verbose && !matches!(message, Message::Beat { .. } | Message::Lease { .. }) {
            self.trace.line(self.now, format_args!("{from:?} -> {to:?}: {}", message.name()));
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
            if other != at && self.random.below(3) > 0 {
                let soon = self.now + self.random.below(20 * MS);
                self.push(soon, Event::PeerUp { at: other, brick });
            }
        }
    }

    fn deliver_to_client(&mut self, at: usize, message: Message) {
        let (now, random, client) = (self.now, &mut self.random, &mut self.clients[at]);
        match message {
            Message::Answer { tag, bytes } => client.on_answer(now, random, tag, &bytes),
            Message::Closed { tag } => client.on_closed(now, random, tag),
            Message::Maps(maps) => client.on_maps(&maps),
            _ => {}
        }
        self.client_turn(at);
    }

    // --- machines

    fn is_running(&self, at: usize, incarnation: u64) -> bool {
        self.machines[at].process.as_ref().is_some_and(|p| p.incarnation == incarnation)
    }

    fn stands_still(&self, at: usize) -> Option<Ns> {
        let until = self.machines[at].paused_until;
        (until > self.now).then_some(until)
    }

    fn start(&mut self, at: usize) {
        if self.machines[at].process.is_some() {
            return;
        }
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.machines[at].start(self.now, incarnation);
        if let Some(process) = &mut self.machines[at].process {
            process.mistake = self.plan.mistake;
        }
        self.trace.line(self.now, format_args!("brick{} starts as process {incarnation}", at + 1));
        self.push(self.now, Event::Beat { at, incarnation });
        self.push(self.now + 3 * MS, Event::Tick { at, incarnation });
    }

    /// A process does something: what it wants is done, and its answers leave.
    fn turn(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut super::process::Process, firebrick_partition::op::Now),
    ) {
        let now = self.machines[at].now(self.now);
        let Some(process) = &mut self.machines[at].process else { return };
        run(process, now);
        let (incarnation, answers) = (process.incarnation, !process.ready.is_empty());
        self.perform(at);
        if answers && self.random.below(1000) < self.plan.stumbles {
            // The process is stopped just now.
            let lease = self.plan.lease_ms * MS;
            let until = self.now + self.random.below(2 * lease);
            self.cover.saw("a process stops in the middle of a turn");
            self.machines[at].paused_until = until;
            self.push(until, Event::Flush { at, incarnation });
        } else if answers {
            self.flush(at);
        }
        self.after_turn(at);
    }

    fn flush(&mut self, at: usize) {
        let now = self.machines[at].now(self.now);
        if let Some(process) = &mut self.machines[at].process {
            process.flush(now);
        }
        self.perform(at);
    }

    fn after_turn(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let Some(process) = &mut machine.process else { return };
        if let Some(local) = process.wake_at() {
            let due = machine.clock.when(local).max(self.now + US);
            if due < process.wake {
                process.wake = due;
                let incarnation = process.incarnation;
                self.push(due, Event::Wake { at, incarnation });
            }
        }
        if let Err(wrong) = self.watch.look(self.now, &self.machines, at) {
            self.fail(wrong);
        }
    }

    fn perform(&mut self, at: usize) {
        let Some(process) = &mut self.machines[at].process else { return };
        let (incarnation, brick) = (process.incarnation, process.brick);
        for effect in std::mem::take(&mut process.effects) {
            let from = Node::Brick(at);
            match effect {
                Effect::Peer { to, bytes } => {
                    let (Some(&to), Some(from_id)) = (self.bricks.get(&to), brick) else { continue };
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
                    let slow = self.disk_slow_until.get(&at).is_some_and(|&t| self.now < t);
                    let most = if slow { 50 * MS } else { 500 * US };
                    let due = self.now + 20 * US + self.random.below(most);
                    self.push(due, Event::Landed { at, incarnation, partition });
                }
                Effect::Saw(what) => {
                    self.cover.saw(what);
                    self.trace.line(self.now, format_args!("brick{}: {what}", at + 1));
                }
                Effect::Corrupt(partition) => {
                    self.fail(format!("brick{} has a damaged record in {partition}", at + 1));
                }
            }
        }
    }

    fn wake(&mut self, at: usize, incarnation: u64, tick: bool) {
        if !self.is_running(at, incarnation) {
            return;
        }
        if let Some(until) = self.stands_still(at) {
            let event = if tick { Event::Tick { at, incarnation } } else { Event::Wake { at, incarnation } };
            return self.push(until, event);
        }
        if let Some(process) = &mut self.machines[at].process {
            if !tick {
                process.wake = u64::MAX;
            }
        }
        self.turn(at, |process, now| process.on_wake(now, tick));
        if tick {
            let due = self.now + MS + self.random.below(20 * MS);
            self.push(due, Event::Tick { at, incarnation });
        }
    }

    fn land(&mut self, at: usize, partition: u32) {
        let op = self.machines[at].disks.get_mut(&partition).and_then(super::disk::Disk::land);
        if let Some(op) = op {
            self.turn(at, |process, now| process.on_written(now, partition, &op));
        }
    }

    // --- keepers

    fn beat(&mut self, at: usize, incarnation: u64) {
        if !self.is_running(at, incarnation) {
            return;
        }
        if let Some(until) = self.stands_still(at) {
            return self.push(until, Event::Beat { at, incarnation });
        }
        let period = self.plan.lease_ms * MS / BEATS_IN_A_LEASE;
        let unreachable = self.unreachable(at);
        let now = self.machines[at].now(self.now);
        let Some(process) = &mut self.machines[at].process else { return };
        let message = match process.heartbeat(now, unreachable) {
            Some(heartbeat) => {
                Message::Beat { heartbeat: Box::new(heartbeat), sent: now.boot_ns }
            }
            None => Message::Register(Box::new(process.registration.clone())),
        };
        self.send(Node::Brick(at), Node::Keeper, message);
        self.push(self.now + period, Event::Beat { at, incarnation });
    }

    /// Bricks that a machine cannot reach.
    fn unreachable(&self, at: usize) -> Vec<u32> {
        let cut = |other: usize| {
            let (a, b) = (Node::Brick(at), Node::Brick(other));
            self.net.is_cut(self.now, a, b) || self.net.is_cut(self.now, b, a)
        };
        let gone = |other: usize| {
            let machine = &self.machines[other];
            machine.process.is_none() || machine.paused_until > self.now
        };
        let others = self.bricks.iter().filter(|(_, other)| **other != at);
        others.filter(|(_, other)| cut(**other) || gone(**other)).map(|(brick, _)| *brick).collect()
    }

    fn deliver_to_keeper(&mut self, from: Node, message: Message) {
        if !self.keeper.is_up(self.now) {
            return;
        }
        match (from, message) {
            (Node::Brick(at), Message::Register(registration)) => {
                if let Some(id) = self.keeper.on_register(self.now, at, &registration) {
                    self.later(id);
                }
            }
            (Node::Brick(at), Message::Beat { heartbeat, sent }) => {
                if self.keeper.on_beat(self.now, &heartbeat) {
                    let due = self.now + 50 * US + self.random.below(3 * MS);
                    let term = self.keeper.term;
                    self.push(due, Event::Answer { to: at, heartbeat, sent, term });
                }
            }
            (Node::Client(_), Message::FetchMaps) => {
                let maps = Box::new(self.keeper.state.maps());
                self.send(Node::Keeper, from, Message::Maps(maps));
            }
            _ => {}
        }
    }

    fn answer(&mut self, to: usize, heartbeat: &Heartbeat, sent: u64, term: u64) {
        if term != self.keeper.term || !self.keeper.is_up(self.now) {
            return;
        }
        if let Some(answer) = self.keeper.answer(self.now, heartbeat) {
            let (incarnation, answer) = (heartbeat.incarnation, Box::new(answer));
            let message = Message::Lease { incarnation, answer, sent };
            self.send(Node::Keeper, Node::Brick(to), message);
        }
    }

    /// An entry is on its way through the keepers' log.
    fn later(&mut self, id: u64) {
        let due = self.now + 100 * US + self.random.below(6 * MS);
        self.push(due, Event::Apply { id });
    }

    fn keeper_plans(&mut self, term: u64) {
        if term != self.keeper.term || !self.keeper.is_up(self.now) {
            return;
        }
        for id in self.keeper.plan(self.now) {
            self.later(id);
        }
        let due = self.now + 5 * MS + self.random.below(self.plan.lease_ms * MS / 6);
        self.push(due, Event::Plan { term });
    }

    fn apply(&mut self, id: u64) {
        let Some((flying, applied)) = self.keeper.apply(id) else { return };
        if let Some(why) = applied.refusal() {
            self.trace.line(self.now, format_args!("keepers: {:?} does nothing: {why}", flying.entry));
            return;
        }
        self.trace.line(self.now, format_args!("keepers: {}", brief(&flying.entry)));
        self.cover.saw(kind(&flying.entry));
        if let Err(wrong) = self.watch.look_at_keepers(&self.keeper.state) {
            return self.fail(wrong);
        }
        match (&applied, &flying.entry) {
            (Applied::Registered { brick, .. }, Entry::Register { registration, .. }) => {
                self.on_registered(flying.asked_by, registration.incarnation, *brick);
            }
            (Applied::Led { loss: Some(loss), .. }, _) => {
                self.fail(format!("the keepers gave up acked writes: {loss}"));
            }
            _ => {}
        }
    }

    fn on_registered(&mut self, at: Option<usize>, incarnation: u64, brick: u32) {
        let Some(at) = at else { return };
        self.bricks.insert(brick, at);
        if self.is_running(at, incarnation) {
            self.machines[at].registered();
            let message = Message::Registered { incarnation, brick };
            self.send(Node::Keeper, Node::Brick(at), message);
        }
    }

    fn lead(&mut self, term: u64) {
        if term != self.keeper.term {
            return;
        }
        // What is left is applied before, in its order.
        for id in self.keeper.flying.iter().map(|f| f.id).collect::<Vec<_>>() {
            self.apply(id);
        }
        self.keeper.lead(self.now);
        self.trace.line(self.now, format_args!("keepers: a new leader"));
        self.push(self.now, Event::Plan { term });
    }

    // --- clients

    fn client_turn(&mut self, at: usize) {
        let due = self.clients[at].turn(self.now, &mut self.random);
        for wish in std::mem::take(&mut self.clients[at].wishes) {
            match wish {
                Wish::Send { brick, tag, bytes } => {
                    if let Some(&to) = self.bricks.get(&brick) {
                        self.send(Node::Client(at), Node::Brick(to), Message::Request { tag, bytes });
                    }
                }
                Wish::FetchMaps => self.send(Node::Client(at), Node::Keeper, Message::FetchMaps),
                Wish::Done { id, back } => self.done(id, back),
                Wish::Saw(what) => self.cover.saw(what),
            }
        }
        if !self.clients[at].is_idle() {
            self.push(due.max(self.now + 100 * US), Event::Client { at });
        }
    }

    fn done(&mut self, id: u64, back: Option<crate::check::Back>) {
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

    /// All keys that are used.
    pub fn keys(&self) -> Vec<String> {
        let kinds = ["r", "c", "l"];
        let of = |n: usize| kinds.iter().map(move |kind| format!("{kind}{n}"));
        (0..self.plan.keys).flat_map(of).collect()
    }

    fn think(&mut self, at: usize) {
        if self.now >= self.load_until {
            return;
        }
        if self.clients[at].has_room() {
            let keys = self.keys();
            let key = &keys[self.random.below(keys.len() as u64) as usize];
            let seen = self.clients[at].seen(key);
            let unique = format!("[{}.{}]", at, self.next_id);
            let call = workload::call(&mut self.random, key, &unique, seen);
            self.call(at, key, call, None);
        } else if self.clients[at].is_idle() {
            self.send(Node::Client(at), Node::Keeper, Message::FetchMaps);
        }
        let due = self.now + 100 * US + self.random.below(self.plan.think_ns);
        self.push(due, Event::Think { at });
    }

    /// A client calls.
    pub fn call(&mut self, at: usize, key: &str, call: Call, pinned: Option<u32>) {
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
    }

    /// Clients begin, and the plan's faults are scheduled from now on.
    pub fn begin_load(&mut self) {
        self.net.weather = self.plan.weather;
        self.load_until = self.now + self.plan.load_ns;
        for (after, fault) in self.plan.faults.clone() {
            self.push(self.now + after, Event::Fault(fault));
        }
        for at in 0..self.clients.len() {
            self.push(self.now, Event::Think { at });
        }
    }

    /// Everything is repaired: what is cut, paused or down comes back.
    pub fn heal(&mut self) {
        self.net.heal();
        self.net.weather = Weather::CALM;
        self.plan.weather = Weather::CALM;
        self.plan.stumbles = 0;
        self.disk_slow_until.clear();
        for at in 0..self.machines.len() {
            self.start(at);
        }
    }

    // --- set-up

    /// The keepers' settings, before anything else.
    pub fn configure(&mut self) {
        let settings = Settings {
            lease_ms: self.plan.lease_ms,
            repair_delay_ms: self.plan.repair_delay_ms,
            ..Settings::default()
        };
        if let Some(id) = self.keeper.propose(self.now, Entry::Settings(settings), None) {
            self.apply(id);
        }
    }

    /// Makes the table; an error while bricks are still missing.
    pub fn create_table(&mut self) -> Result<(), String> {
        let options = TableOptions {
            durability: self.plan.durability,
            partitions: self.plan.partitions,
            replicas: self.plan.replicas,
        };
        let id = self.keeper.create_table(self.now, "t", options)?;
        let id = id.ok_or("the table cannot be proposed now")?;
        self.apply(id);
        Ok(())
    }

    // --- faults

    fn fault(&mut self, fault: Fault) {
        self.trace.line(self.now, format_args!("fault: {fault:?}"));
        match fault {
            Fault::Cut { a, b, both, for_ns } => {
                let (a, b, until) = (Node::Brick(a), Node::Brick(b), self.now + for_ns);
                self.net.cut(a, b, until);
                if both {
                    self.net.cut(b, a, until);
                }
            }
            Fault::CutKeeper { a, to, from, for_ns } => {
                let (a, until) = (Node::Brick(a), self.now + for_ns);
                if to {
                    self.net.cut(a, Node::Keeper, until);
                }
                if from {
                    self.net.cut(Node::Keeper, a, until);
                }
            }
            Fault::Isolate { a, for_ns } => self.isolate(a, self.now + for_ns),
            Fault::Pause { a, for_ns } => {
                let until = self.now + for_ns;
                let machine = &mut self.machines[a];
                machine.paused_until = machine.paused_until.max(until);
            }
            Fault::Crash { a, how, for_ns } => self.crash(a, how, for_ns),
            Fault::KeeperFalls { for_ns, entries_lost } => {
                let until = self.now + for_ns;
                self.keeper.fall(until, &mut self.random);
                if entries_lost {
                    self.keeper.flying.clear();
                }
                let term = self.keeper.term;
                self.push(until, Event::Lead { term });
            }
            Fault::Storm { for_ns } => {
                self.net.weather = storm(&mut self.random);
                self.push(self.now + for_ns, Event::Calm);
            }
            Fault::SlowDisk { a, for_ns } => {
                self.disk_slow_until.insert(a, self.now + for_ns);
            }
            Fault::HandOver { partition } => self.hand_over(partition),
        }
    }

    fn isolate(&mut self, a: usize, until: Ns) {
        let me = Node::Brick(a);
        let bricks = (0..self.machines.len()).map(Node::Brick);
        let clients = (0..self.clients.len()).map(Node::Client);
        for other in bricks.chain(clients).chain([Node::Keeper]).filter(|n| *n != me) {
            self.net.cut(me, other, until);
            self.net.cut(other, me, until);
        }
    }

    fn crash(&mut self, a: usize, how: Crash, for_ns: Ns) {
        let how = if how == Crash::Kill || self.may_lose(a) { how } else { Crash::Kill };
        if self.machines[a].process.is_some() {
            self.cover.saw(match how {
                Crash::Kill => "a process is killed",
                Crash::Power => "a machine loses its memory",
                Crash::Lost => "a machine loses everything",
            });
            self.trace.line(self.now, format_args!("brick{} crashes: {how:?}", a + 1));
        }
        self.machines[a].crash(how);
        self.push(self.now + for_ns, Event::Start { at: a });
    }

    /// What is promised outlives the loss of this machine: another member of the last active group, that
    /// is one now too, has kept everything.
    fn may_lose(&self, a: usize) -> bool {
        self.keeper.state.groups().all(|(_, group)| {
            let members = &group.replicas.members;
            let mine = |brick: u32| self.bricks.get(&brick) == Some(&a);
            group.kept.iter().any(|kept| {
                let machine = self.bricks.get(&kept.brick).map(|&at| &self.machines[at]);
                kept.intact
                    && !mine(kept.brick)
                    && members.iter().any(|m| m.brick == kept.brick)
                    && machine.is_some_and(|m| !m.lost)
            })
        })
    }

    fn hand_over(&mut self, partition: usize) {
        let found = self.keeper.state.groups().nth(partition);
        let Some((partition, group)) = found else { return };
        let Some(primary) = group.replicas.primary() else { return };
        let (epoch, intent) = (group.replicas.epoch, Intent::StepDown { brick: primary.brick });
        if group.replicas.members.len() < 2 || !self.keeper.is_up(self.now) {
            return;
        }
        let entry = Entry::SetIntent { partition, epoch, intent };
        if let Some(id) = self.keeper.propose(self.now, entry, None) {
            self.later(id);
        }
    }
}

/// The kind of an entry, for counting.
fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Register { replaces: Some(_), .. } => "a restarted process registers",
        Entry::TakeOut { .. } => "a brick is taken out",
        Entry::Active { .. } => "an epoch becomes active",
        Entry::NameLearner { .. } => "a learner is named",
        Entry::DropLearner { .. } => "a learner is dropped",
        Entry::Promote { .. } => "a learner is promoted",
        Entry::SetIntent { .. } => "a hand-over is asked for",
        Entry::Withdraw { .. } => "a hand-over is withdrawn",
        Entry::Leave { .. } => "a live brick leaves",
        Entry::StepDown { .. } => "a primary steps down",
        Entry::Damaged { .. } => "a member reports damage",
        Entry::Lead { .. } => "a stopped group is led",
        _ => "another entry",
    }
}

/// An entry, for people.
fn brief(entry: &Entry) -> String {
    match entry {
        Entry::Register { registration: r, replaces, proof } => format!(
            "Register {} process {} instead of {replaces:?} ({proof:?}, memory {}, damaged {:?})",
            r.name, r.incarnation, r.memory_intact, r.damaged
        ),
        other => format!("{other:?}"),
    }
}
