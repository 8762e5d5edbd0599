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
use crate::random::Random;
use crate::sim::clock::{MS, Ns, US};
use crate::sim::level::{Due, Level, Sim, happen};
use crate::sim::message::Node;
use crate::sim::net::Weather;
use crate::sim::plan::Plan;
use crate::sim::queue::Queue;
use crate::sim::watch::one_primary;

/// What happens next.
#[derive(Debug)]
pub enum Event {
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
    Answer {
        to: usize,
        beat: Box<super::control::Beat>,
        term: u64,
    },
    /// A way in the network is free again.
    Free {
        from: usize,
        to: usize,
    },
    Due(Due),
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
    pub sim: Sim,
    pub queue: Queue<Event>,
    /// The fabric between bricks and clients.
    pub fabric: fake::World,
    /// Until when a way between two hosts is blocked.
    pub blocked: BTreeMap<(usize, usize), Ns>,
    pub bricks: Vec<Brick>,
    pub clients: Vec<Client>,
    /// Clients that speak RESP; their numbers come after the others'.
    pub redis: Vec<Redis>,
    /// A read at one member.
    pub reader: Option<Reader>,
    /// Why the last one has no answer.
    pub refused: Option<String>,
    pub handled: u64,
}

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
        let mut world = Self {
            queue: Queue::default(),
            fabric,
            blocked: BTreeMap::new(),
            bricks,
            clients,
            redis,
            reader: None,
            refused: None,
            handled: 0,
            sim: Sim::new(plan, random),
        };
        for at in 0..world.bricks.len() {
            world.push_due(at as u64 * MS, Due::Start { at });
        }
        world.push_due(10 * MS, Due::Plan { term: 1 });
        world
    }

    /// The earliest of all that is next, if it is due by then.
    pub fn step(&mut self, until: Ns) -> bool {
        let (due, next) = self.next();
        if due > until {
            return false;
        }
        self.set_time(due.max(self.sim.now + 1));
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
        true
    }

    pub fn set_time(&mut self, now: Ns) {
        self.sim.now = now;
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

    fn handle(&mut self, event: Event) {
        match event {
            Event::Register { at, incarnation } => self.register(at, incarnation),
            Event::Beat { at, incarnation, beat } => self.beat(at, incarnation, beat),
            Event::Late { at, incarnation, ask } => self.late(at, incarnation, ask),
            Event::Flush { at, incarnation, core } => self.flush(at, incarnation, core),
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Answer { to, beat, term } => self.answer(to, &beat, term),
            Event::Free { from, to } => self.free(from, to),
            Event::Due(due) => happen(self, due),
        }
    }

    pub fn stands_still(&self, at: usize) -> Option<Ns> {
        let until = self.bricks[at].paused_until;
        (until > self.sim.now).then_some(until)
    }

    fn pace(&self, at: usize) -> Pace {
        let slow = self.sim.disk_slow_until.get(&at).is_some_and(|&until| self.sim.now < until);
        let disk_ns = if slow { 50 * MS } else { 500 * US };
        Pace { job_ns: disk_ns, disk_ns }
    }

    /// A turn of a data core.
    fn turn(&mut self, at: usize, number: usize) {
        let brick = &mut self.bricks[at];
        let shown = brick.now(self.sim.now);
        let Some(process) = &mut brick.process else { return };
        let incarnation = process.incarnation;
        let core = &mut process.cores[number];
        let loaded = self.sim.now < self.sim.load_until && core.began.is_none();
        if loaded && self.sim.random.below(STUMBLES_OF) < self.sim.plan.stumbles {
            // The process is stopped just behind the look at the clock: what comes meanwhile belongs to this turn.
            self.sim.cover.saw("a process stops before it takes what came");
            let until = self.sim.now + self.sim.random.below(2 * self.sim.plan.lease_ms * MS);
            core.began = Some(shown);
            brick.paused_until = brick.paused_until.max(until);
            return;
        }
        let now = core.began.take().unwrap_or(shown);
        process.do_work(self.sim.now, number, &mut brick.disk);
        let core = &mut process.cores[number];
        core.rung = false;
        core.turn = core.shard.turn(now);
        let turn = core.turn;
        core.free = self.sim.now + US + self.sim.random.below(TURN_NS);
        self.sim.trace.mix(self.sim.now ^ (turn.work as u64) << 48);
        if self.sim.trace.verbose && turn.work > 0 {
            let line = format_args!("brick{} core {number}: {} things", at + 1, turn.work);
            self.sim.trace.line(self.sim.now, line);
        }
        let loaded = self.sim.now < self.sim.load_until && turn.work > 0;
        if loaded && self.sim.random.below(STUMBLES_OF) < self.sim.plan.stumbles {
            // The process is stopped just now: the clock goes on before anything leaves.
            self.sim.cover.saw("a process stops in the middle of a turn");
            let until = self.sim.now + self.sim.random.below(2 * self.sim.plan.lease_ms * MS);
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
        let now = brick.now(self.sim.now);
        let Some(process) = &mut brick.process else { return };
        let core = &mut process.cores[number];
        core.unflushed = false;
        core.shard.flush().expect("the fake fabric");
        if core.turn.background {
            core.shard.background(now);
        }
        let next_ns = core.turn.next_ns;
        core.timer = match next_ns {
            0 => self.sim.now,
            u64::MAX => Ns::MAX,
            next_ns => brick.clock.when(next_ns),
        };
        process.take_work(self.sim.now, number, pace, &mut self.sim.random);
        let (sentences, failure) = (process.sentences(), process.failure());
        let looked =
            self.sim.watch.look_at_core(at, &process.cores[number].shard, process.incarnation);
        brick.look_whether_settled();
        for sentence in sentences {
            self.sim.trace.line(self.sim.now, format_args!("brick{} says: {sentence}", at + 1));
        }
        if let Some(why) = failure {
            self.sim.fail(format!("brick{} cannot go on: {why}", at + 1));
        }
        let looked = looked.and_then(|()| self.one_primary(at));
        if let Err(wrong) = looked {
            self.sim.fail(wrong);
        }
        self.control_turn(at);
    }

    /// Of the partitions that a brick leads, nobody else does.
    fn one_primary(&self, at: usize) -> Result<(), String> {
        let mut partitions = self.sim.keeper.state.groups().map(|(partition, _)| partition);
        partitions.try_for_each(|partition| {
            one_primary(at, self.bricks.len(), partition, |at| self.leads(at, partition))
        })
    }
}
