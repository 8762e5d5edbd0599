//! Everything that happens, one event after the other, in virtual time.
//!
//! Two kinds of things are next: events, and the turns of data cores and clients, which are due when something reaches
//! them or a timer of theirs ends. Time jumps to the earliest.

use std::collections::BTreeMap;

use firebrick_net::fake::{self, Settings};

use super::brick::Brick;
use super::client::Client;
use super::control::Message;
use super::process::Pace;
use super::reader::Reader;
use super::redis::Redis;
use crate::check::History;
use crate::random::Random;
use crate::sim::clock::{MS, Ns, US};
use crate::sim::keeper::Keeper;
use crate::sim::message::Node;
use crate::sim::net::{Net, Weather};
use crate::sim::plan::{Fault, Plan};
use crate::sim::queue::Queue;
use crate::sim::trace::{Coverage, Trace};
use crate::sim::watch::Watch;

/// What happens next.
#[derive(Debug)]
pub enum Event {
    Start {
        at: usize,
    },
    Register {
        at: usize,
        incarnation: u64,
    },
    /// A heartbeat is due.
    Beat {
        at: usize,
        incarnation: u64,
        beat: u64,
    },
    /// It has no answer by now.
    Late {
        at: usize,
        incarnation: u64,
        ask: u64,
    },
    /// What a core's turn left behind leaves.
    Flush {
        at: usize,
        incarnation: u64,
        core: usize,
    },
    /// Between a brick's control thread and the keepers.
    Deliver {
        from: Node,
        to: Node,
        message: Message,
    },
    Plan {
        term: u64,
    },
    Apply {
        id: u64,
    },
    Answer {
        to: usize,
        beat: Box<super::control::Beat>,
        term: u64,
    },
    Lead {
        term: u64,
    },
    Think {
        at: usize,
    },
    Fault(Fault),
    /// A way in the network is free again.
    Free {
        from: usize,
        to: usize,
    },
    Calm,
}

enum Next {
    Event,
    Core(usize, usize),
    Client(usize),
    Redis(usize),
    Reader,
}

/// See the module's text.
pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub now: Ns,
    pub queue: Queue<Event>,
    /// The fabric between bricks and clients.
    pub fabric: fake::World,
    /// Until when a way between two hosts is blocked.
    pub blocked: BTreeMap<(usize, usize), Ns>,
    /// The way between control threads and keepers.
    pub net: Net,
    pub bricks: Vec<Brick>,
    pub keeper: Keeper,
    pub clients: Vec<Client>,
    /// Clients that speak RESP; their numbers come after the others'.
    pub redis: Vec<Redis>,
    /// A read at one member.
    pub reader: Option<Reader>,
    /// Why the last one has no answer.
    pub refused: Option<String>,
    pub history: History,
    pub watch: Watch,
    pub trace: Trace,
    pub cover: Coverage,
    /// Machine of a brick id.
    pub ids: BTreeMap<u32, usize>,
    pub incarnations: u64,
    pub next_call: u64,
    pub disk_slow_until: BTreeMap<usize, Ns>,
    /// Clients call until then.
    pub load_until: Ns,
    handled: u64,
    /// What was found wrong.
    pub failure: Option<String>,
}

/// Events and turns of one run.
const EVENTS_MAX: u64 = 5_000_000;
/// The plan's stumbles are in so many turns: there are many more here than in level one.
const STUMBLES_OF: u64 = 20_000;
/// A turn takes so long at most.
const TURN_NS: Ns = 20 * US;
/// Clients' hosts have numbers from here on.
pub const CLIENTS: usize = 100;

/// What the weather is for connections.
pub fn settings(weather: Weather) -> Settings {
    Settings {
        delay_ns: 5 * US..=5 * US + weather.usual_ns,
        // A lost connection is worse than a lost message.
        loss_per_million: weather.lost as u32 * 20,
        disk: fake::Disk::ByHand,
    }
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed ^ 0x5eed);
        let fabric = fake::World::new(random.next_u64(), settings(Weather::CALM));
        fabric.set_time(0);
        let bricks = (0..plan.machines).map(|at| Brick::new(at, plan.cores, &mut random));
        let mut bricks: Vec<Brick> = bricks.collect();
        for brick in &mut bricks {
            let small = plan.small.filter(|(at, _)| *at == brick.at || *at >= plan.machines);
            brick.core_bytes = small.map_or(brick.core_bytes, |(_, bytes)| bytes);
            brick.set_wall(plan.skew_ms, &mut random);
        }
        let seeds: Vec<std::sync::Arc<str>> =
            bricks.iter().map(|brick| brick.address.to_string().into()).collect();
        let limits = (plan.open_max, plan.lease_ms);
        let clients = (0..plan.clients).map(|at| {
            Client::new(at, fabric.fake_on(CLIENTS + at), seeds.clone(), limits, &mut random)
        });
        let clients = clients.collect();
        let addresses: Vec<_> = bricks.iter().map(|brick| brick.address).collect();
        let redis = (plan.clients..plan.clients + plan.redis)
            .map(|at| Redis::new(fabric.fake_on(CLIENTS + at), addresses.clone()));
        let redis = redis.collect();
        let keeper = Keeper::new(&mut random);
        let mut world = Self {
            random,
            now: 0,
            queue: Queue::default(),
            fabric,
            blocked: BTreeMap::new(),
            net: Net::new(Weather::CALM),
            bricks,
            keeper,
            clients,
            redis,
            reader: None,
            refused: None,
            history: History::default(),
            watch: Watch::default(),
            trace: Trace::default(),
            cover: Coverage::default(),
            ids: BTreeMap::new(),
            incarnations: 0,
            next_call: 0,
            disk_slow_until: BTreeMap::new(),
            load_until: 0,
            handled: 0,
            failure: None,
            plan,
        };
        for at in 0..world.bricks.len() {
            world.queue.push(at as u64 * MS, Event::Start { at });
        }
        world.queue.push(10 * MS, Event::Plan { term: 1 });
        world
    }

    /// Runs until a time, or until something is wrong.
    pub fn run_until(&mut self, until: Ns) {
        while self.failure.is_none() {
            let (due, next) = self.next();
            if due > until {
                break;
            }
            self.handled += 1;
            if self.handled > EVENTS_MAX {
                return self.fail(format!("{EVENTS_MAX} events: something goes round and round"));
            }
            self.set_time(due.max(self.now + 1));
            match next {
                Next::Event => {
                    if let Some((_, event)) = self.queue.pop() {
                        self.handle(event);
                    }
                }
                Next::Core(at, core) => self.turn(at, core),
                Next::Client(at) => self.client_turn(at),
                Next::Redis(at) => self.redis_turn(at),
                Next::Reader => self.reader_turn(),
            }
        }
        self.set_time(self.now.max(until));
    }

    fn set_time(&mut self, now: Ns) {
        self.now = now;
        self.fabric.set_time(now);
    }

    /// What is due first.
    fn next(&mut self) -> (Ns, Next) {
        let mut first = (self.queue.next_at(), Next::Event);
        for (at, brick) in self.bricks.iter_mut().enumerate() {
            let Some(process) = &mut brick.process else { continue };
            for (number, core) in process.cores.iter_mut().enumerate() {
                let due = core.due().max(brick.paused_until);
                if due < first.0 {
                    first = (due, Next::Core(at, number));
                }
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            let due = client.due();
            if due < first.0 {
                first = (due, Next::Client(at));
            }
        }
        for (at, redis) in self.redis.iter().enumerate() {
            let due = redis.due();
            if due < first.0 {
                first = (due, Next::Redis(at));
            }
        }
        let reader = self.reader.as_ref().and_then(Reader::due);
        match reader {
            Some(due) if due < first.0 => (due, Next::Reader),
            _ => first,
        }
    }

    /// The hosts of clients, but for the reader's.
    pub fn client_hosts(&self) -> std::ops::Range<usize> {
        CLIENTS..CLIENTS + self.clients.len() + self.redis.len()
    }

    pub fn fail(&mut self, what: String) {
        if self.failure.is_none() {
            self.trace.line(self.now, format_args!("WRONG: {what}"));
            self.failure = Some(what);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start { at } => self.start(at),
            Event::Register { at, incarnation } => self.register(at, incarnation),
            Event::Beat { at, incarnation, beat } => self.beat(at, incarnation, beat),
            Event::Late { at, incarnation, ask } => self.late(at, incarnation, ask),
            Event::Flush { at, incarnation, core } => self.flush(at, incarnation, core),
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Plan { term } => self.keeper_plans(term),
            Event::Apply { id } => self.apply(id),
            Event::Answer { to, beat, term } => self.answer(to, &beat, term),
            Event::Lead { term } => self.lead(term),
            Event::Think { at } => self.think(at),
            Event::Fault(fault) => self.fault(fault),
            Event::Free { from, to } => self.free(from, to),
            Event::Calm => self.set_weather(self.plan.weather),
        }
    }

    pub fn set_weather(&mut self, weather: Weather) {
        // Control threads ask over connections: what is lost there is late, and nothing comes twice.
        self.net.weather = Weather { twice: 0, ..weather };
        self.fabric.set(settings(weather));
    }

    pub fn is_running(&self, at: usize, incarnation: u64) -> bool {
        self.bricks[at].process.as_ref().is_some_and(|p| p.incarnation == incarnation)
    }

    pub fn stands_still(&self, at: usize) -> Option<Ns> {
        let until = self.bricks[at].paused_until;
        (until > self.now).then_some(until)
    }

    fn start(&mut self, at: usize) {
        if self.bricks[at].process.is_some() {
            return;
        }
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.trace.line(self.now, format_args!("brick{} starts as process {incarnation}", at + 1));
        self.power(at, true);
        self.bricks[at].start(&self.fabric, incarnation);
        self.register(at, incarnation);
    }

    fn pace(&self, at: usize) -> Pace {
        let slow = self.disk_slow_until.get(&at).is_some_and(|&until| self.now < until);
        let disk_ns = if slow { 50 * MS } else { 500 * US };
        Pace { job_ns: disk_ns, disk_ns }
    }

    /// A turn of a data core.
    fn turn(&mut self, at: usize, number: usize) {
        let brick = &mut self.bricks[at];
        let shown = brick.now(self.now);
        let Some(process) = &mut brick.process else { return };
        let incarnation = process.incarnation;
        let core = &mut process.cores[number];
        let loaded = self.now < self.load_until && core.began.is_none();
        if loaded && self.random.below(STUMBLES_OF) < self.plan.stumbles {
            // The process is stopped just behind the look at the clock: what comes meanwhile belongs to this turn.
            self.cover.saw("a process stops before it takes what came");
            let until = self.now + self.random.below(2 * self.plan.lease_ms * MS);
            core.began = Some(shown);
            brick.paused_until = brick.paused_until.max(until);
            return;
        }
        let now = core.began.take().unwrap_or(shown);
        process.do_work(self.now, number, &mut brick.disk);
        let core = &mut process.cores[number];
        core.rung = false;
        core.turn = core.shard.turn(now);
        let turn = core.turn;
        core.free = self.now + US + self.random.below(TURN_NS);
        self.trace.mix(self.now ^ (turn.work as u64) << 48);
        if self.trace.verbose && turn.work > 0 {
            let line = format_args!("brick{} core {number}: {} things", at + 1, turn.work);
            self.trace.line(self.now, line);
        }
        let loaded = self.now < self.load_until && turn.work > 0;
        if loaded && self.random.below(STUMBLES_OF) < self.plan.stumbles {
            // The process is stopped just now: the clock goes on before anything leaves.
            self.cover.saw("a process stops in the middle of a turn");
            let until = self.now + self.random.below(2 * self.plan.lease_ms * MS);
            core.unflushed = true;
            brick.paused_until = brick.paused_until.max(until);
            self.queue.push(until, Event::Flush { at, incarnation, core: number });
            return;
        }
        self.end_turn(at, number);
    }

    /// It goes on where it was stopped.
    fn flush(&mut self, at: usize, incarnation: u64, core: usize) {
        if !self.is_running(at, incarnation) {
            return;
        }
        if let Some(until) = self.stands_still(at) {
            return self.queue.push(until, Event::Flush { at, incarnation, core });
        }
        self.end_turn(at, core);
    }

    fn end_turn(&mut self, at: usize, number: usize) {
        let pace = self.pace(at);
        let brick = &mut self.bricks[at];
        let now = brick.now(self.now);
        let Some(process) = &mut brick.process else { return };
        let core = &mut process.cores[number];
        core.unflushed = false;
        core.shard.flush().expect("the fake fabric");
        if core.turn.background {
            core.shard.background(now);
        }
        let next_ns = core.turn.next_ns;
        core.timer = match next_ns {
            0 => self.now,
            u64::MAX => Ns::MAX,
            next_ns => brick.clock.when(next_ns),
        };
        process.take_work(self.now, number, pace, &mut self.random);
        let (sentences, failure) = (process.sentences(), process.failure());
        let looked = self.watch.look_at_core(at, &process.cores[number].shard, process.incarnation);
        brick.look_whether_settled();
        for sentence in sentences {
            self.trace.line(self.now, format_args!("brick{} says: {sentence}", at + 1));
        }
        if let Some(why) = failure {
            self.fail(format!("brick{} cannot go on: {why}", at + 1));
        }
        let looked = looked.and_then(|()| self.one_primary(at));
        if let Err(wrong) = looked {
            self.fail(wrong);
        }
        self.control_turn(at);
    }

    /// Of the partitions that a brick leads, nobody else does.
    fn one_primary(&self, at: usize) -> Result<(), String> {
        let leads = |brick: &Brick, partition: u32| {
            let now = brick.now(self.now);
            brick.process.as_ref().is_some_and(|process| process.leads(now, partition))
        };
        for (partition, _) in self.keeper.state.groups() {
            if !leads(&self.bricks[at], partition) {
                continue;
            }
            let mut others = self.bricks.iter().filter(|brick| brick.at != at);
            if let Some(other) = others.find(|other| leads(other, partition)) {
                return Err(format!(
                    "partition {partition}: brick{} and brick{} both answer as primary",
                    at + 1,
                    other.at + 1
                ));
            }
        }
        Ok(())
    }

    /// Clients begin, and the plan's faults are scheduled from now on.
    pub fn begin_load(&mut self) {
        self.set_weather(self.plan.weather);
        self.load_until = self.now + self.plan.load_ns;
        for (after, fault) in self.plan.faults.clone() {
            self.queue.push(self.now + after, Event::Fault(fault));
        }
        for at in 0..self.clients.len() + self.redis.len() {
            self.queue.push(self.now, Event::Think { at });
        }
    }

    /// Everything is repaired: what is cut, paused or down comes back.
    pub fn heal(&mut self) {
        self.net.heal();
        for (from, to) in std::mem::take(&mut self.blocked).into_keys() {
            self.fabric.unblock(from, to, self.now);
        }
        self.plan.weather = Weather::CALM;
        self.set_weather(Weather::CALM);
        self.plan.stumbles = 0;
        self.disk_slow_until.clear();
        for at in 0..self.bricks.len() {
            self.start(at);
        }
    }
}
