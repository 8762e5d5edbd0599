//! Everything that happens, one event after the other, in virtual time.

use std::collections::BTreeMap;

use firebrick_partition::keeper::{Heartbeat, LeaseAnswer};

use super::client::Client;
use super::clock::{MS, Ns, US};
use super::grip::Grip;
use super::keeper::Keeper;
use super::machine::{Crash, Machine};
use super::message::{Message, Node};
use super::mistake::Mistake;
use super::net::{Net, Weather};
use super::plan::{Fault, Plan};
use super::process::Effect;
use super::queue::Queue;
use super::trace::{Coverage, Trace};
use super::watch::Watch;
use crate::check::{Back, History};
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
    pub(super) random: Random,
    pub now: Ns,
    queue: Queue<Event>,
    /// When each client is to be looked at next.
    pub(super) client_due: Vec<Ns>,
    pub net: Net,
    pub machines: Vec<Machine>,
    pub keeper: Keeper,
    pub clients: Vec<Client>,
    pub history: History,
    pub(super) watch: Watch,
    pub trace: Trace,
    pub cover: Coverage,
    /// Machine of a brick id.
    pub bricks: BTreeMap<u32, usize>,
    pub(super) incarnations: u64,
    pub(super) next_id: u64,
    pub(super) disk_slow_until: BTreeMap<usize, Ns>,
    /// What a script holds.
    pub grip: Grip,
    /// What was answered, by call; `None`: nobody knows.
    pub answers: BTreeMap<u64, Option<Back>>,
    /// Clients call until then.
    pub load_until: Ns,
    /// Events so far.
    pub handled: u64,
    /// What was found wrong.
    pub failure: Option<String>,
}

/// Events of one run.
const EVENTS_MAX: u64 = 2_000_000;
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
        let keeper = Keeper::new(&mut random);
        let mut world = Self {
            random,
            now: 0,
            queue: Queue::default(),
            client_due: vec![Ns::MAX; plan.clients],
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
            grip: Grip::default(),
            answers: BTreeMap::new(),
            load_until: 0,
            handled: 0,
            failure: None,
            plan,
        };
        for at in 0..world.machines.len() {
            world.push(at as u64 * MS, Event::Start { at });
        }
        world.push(10 * MS, Event::Plan { term: 1 });
        world
    }

    pub(super) fn push(&mut self, at: Ns, event: Event) {
        self.queue.push(at, event);
    }

    /// Runs until a time, or until something is wrong.
    pub fn run_until(&mut self, until: Ns) {
        while self.failure.is_none() {
            if self.queue.next_at() > until {
                break;
            }
            let Some((at, event)) = self.queue.pop() else { break };
            self.handled += 1;
            if self.handled > EVENTS_MAX {
                return self.fail(format!("{EVENTS_MAX} events: something goes round and round"));
            }
            // Every moment has one event, so that any two are ordered.
            self.now = at.max(self.now + 1);
            self.handle(event);
        }
        self.now = self.now.max(until);
    }

    pub(super) fn fail(&mut self, what: String) {
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
            // (Not when it was put forward since.)
            Event::Client { at } if self.now < self.client_due[at] => {}
            Event::Client { at } => {
                self.client_due[at] = Ns::MAX;
                self.client_turn(at);
            }
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

    #[allow(clippy::needless_pass_by_value)] // it may arrive twice, or never
    pub(super) fn send(&mut self, from: Node, to: Node, message: Message) {
        if self.gripped(from, to, &message) {
            return;
        }
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
        if self.trace.verbose {
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
            Message::Lease { incarnation, answer, .. }
                if !matches!(*answer, LeaseAnswer::Granted { .. })
                    && self.is_running(at, incarnation) =>
            {
                // It ends; whoever looks after it starts it again.
                self.cover.saw("a process is told to end");
                self.crash(at, Crash::Kill, 50 * MS);
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

    pub(super) fn is_running(&self, at: usize, incarnation: u64) -> bool {
        self.machines[at].process.as_ref().is_some_and(|p| p.incarnation == incarnation)
    }

    pub(super) fn stands_still(&self, at: usize) -> Option<Ns> {
        let until = self.machines[at].paused_until;
        (until > self.now).then_some(until)
    }

    pub(super) fn start(&mut self, at: usize) {
        if self.machines[at].process.is_some() {
            return;
        }
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.machines[at].start(self.now, incarnation, self.plan.mistake);
        self.trace.line(self.now, format_args!("brick{} starts as process {incarnation}", at + 1));
        self.push(self.now, Event::Beat { at, incarnation });
        self.push(self.now + 3 * MS, Event::Tick { at, incarnation });
    }

    /// A process does something: what it wants is done, and its answers leave.
    pub(super) fn turn(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut super::process::Process, firebrick_partition::op::Now),
    ) {
        let now = self.machines[at].turn_now(self.now);
        let Some(process) = &mut self.machines[at].process else { return };
        run(process, now);
        let (incarnation, answers) = (process.incarnation, !process.ready.is_empty());
        self.perform(at);
        let stop = self.grip.stop_before_answer.filter(|stop| answers && stop.0 == at);
        if let Some((_, for_ns)) = stop {
            self.grip.stop_before_answer = None;
            let until = self.now + for_ns;
            self.machines[at].pause(self.now, until);
            self.push(until, Event::Flush { at, incarnation });
        } else if answers && self.random.below(1000) < self.plan.stumbles {
            // The process is stopped just now.
            let lease = self.plan.lease_ms * MS;
            let until = self.now + self.random.below(2 * lease);
            self.cover.saw("a process stops in the middle of a turn");
            self.machines[at].pause(self.now, until);
            self.push(until, Event::Flush { at, incarnation });
        } else if answers {
            self.flush(at);
        }
        self.after_turn(at);
    }

    /// The end of a turn: the clock is read anew.
    pub(super) fn flush(&mut self, at: usize) {
        let before = self.machines[at].turn_now(self.now);
        let mut now = self.machines[at].now(self.now);
        if self.plan.mistake == Mistake::LeaseCheckedBefore {
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

    pub(super) fn perform(&mut self, at: usize) {
        let Some(process) = &mut self.machines[at].process else { return };
        let (incarnation, brick) = (process.incarnation, process.brick);
        for effect in std::mem::take(&mut process.effects) {
            let from = Node::Brick(at);
            match effect {
                Effect::Peer { to, bytes } => {
                    let (Some(&to), Some(from_id)) = (self.bricks.get(&to), brick) else {
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
                    let slow = self.disk_slow_until.get(&at).is_some_and(|&t| self.now < t);
                    let most = if slow { 50 * MS } else { 500 * US };
                    let due = self.now + 20 * US + self.random.below(most);
                    if !self.grip.stalled.contains(&at) {
                        self.push(due, Event::Landed { at, incarnation, partition });
                    }
                }
                Effect::Saw(what) => {
                    self.cover.saw(what);
                    self.trace.line(self.now, format_args!("brick{}: {what}", at + 1));
                }
                Effect::Note(text) => {
                    self.trace.line(self.now, format_args!("brick{}: {text}", at + 1));
                }
                Effect::Corrupt(partition) => {
                    self.fail(format!("brick{} has a damaged record in {partition}", at + 1));
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
            if self.now < process.wake {
                // It was put forward since.
                return;
            }
            process.wake = u64::MAX;
        }
        self.turn(at, |process, now| process.on_wake(now, tick));
        if tick {
            let quiet = self.now > self.load_until && self.load_until > 0;
            let most = if quiet { 200 * MS } else { 20 * MS };
            let due = self.now + MS + self.random.below(most);
            self.push(due, Event::Tick { at, incarnation });
        }
    }

    pub(super) fn land(&mut self, at: usize, partition: u32) {
        let op = self.machines[at].disks.get_mut(&partition).and_then(super::disk::Disk::land);
        if let Some(op) = op {
            self.turn(at, |process, now| process.on_written(now, partition, &op));
        }
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
}
