//! What the worlds of both levels have, and what each level does in its own way. What they do alike is in `faults`,
//! `entries` and `run`.

use std::collections::BTreeMap;

use firebrick_partition::keeper::Entry;
use firebrick_partition::replica::Replica;

use super::clock::Ns;
use super::keeper::Keeper;
use super::machine::Crash;
use super::net::{Net, Weather};
use super::plan::{Fault, Plan};
use super::trace::{Coverage, Trace};
use super::watch::Watch;
use super::{entries, faults};
use crate::check::{Back, Call, History, Line};
use crate::random::Random;

/// What happens in worlds of both levels.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    Start { at: usize },
    Think { at: usize },
    Plan { term: u64 },
    Apply { id: u64 },
    Lead { term: u64 },
    Fault(Fault),
    Calm,
}

/// What every world has.
pub struct Sim {
    pub plan: Plan,
    pub random: Random,
    pub now: Ns,
    /// The way to the keepers; in level one also that between bricks and clients.
    pub net: Net,
    pub keeper: Keeper,
    /// Machine of a brick id.
    pub ids: BTreeMap<u32, usize>,
    pub incarnations: u64,
    pub disk_slow_until: BTreeMap<usize, Ns>,
    /// Clients call until then.
    pub load_until: Ns,
    pub next_call: u64,
    pub history: History,
    pub watch: Watch,
    pub trace: Trace,
    pub cover: Coverage,
    /// What was found wrong.
    pub failure: Option<String>,
}

impl Sim {
    /// Nothing runs yet.
    pub fn new(plan: Plan, mut random: Random) -> Self {
        let keeper = Keeper::new(&mut random);
        Self {
            plan,
            random,
            now: 0,
            net: Net::new(Weather::CALM),
            keeper,
            ids: BTreeMap::new(),
            incarnations: 0,
            disk_slow_until: BTreeMap::new(),
            load_until: 0,
            next_call: 0,
            history: History::default(),
            watch: Watch::default(),
            trace: Trace::default(),
            cover: Coverage::default(),
            failure: None,
        }
    }

    /// Something is wrong.
    pub fn fail(&mut self, what: String) {
        if self.failure.is_none() {
            self.trace.line(self.now, format_args!("WRONG: {what}"));
            self.failure = Some(what);
        }
    }

    /// A call begins; its number.
    pub fn begin(&mut self, client: usize, key: &str, call: &Call) -> u64 {
        let id = self.next_call;
        self.next_call += 1;
        self.trace.line(self.now, format_args!("call {id}: client {client} {key} {call}"));
        let (client, at_ns) = (client as u32, self.now);
        let line = Line::Call { id, client, at_ns, key: key.into(), call: call.clone() };
        if let Err(wrong) = self.history.push(line) {
            self.fail(wrong);
        }
        id
    }

    /// A call is over; `None`: nobody knows how.
    pub fn end(&mut self, id: u64, back: Option<Back>) {
        let Some(back) = back else {
            return self.trace.line(self.now, format_args!("call {id} -> nobody knows"));
        };
        self.trace.line(self.now, format_args!("call {id} -> {back}"));
        if let Err(wrong) = self.history.push(Line::Back { id, at_ns: self.now, back }) {
            self.fail(wrong);
        }
    }
}

/// A world of one level. Machines are named by their numbers.
pub trait Level {
    /// The name of its table.
    const TABLE: &'static str;
    /// Virtual time that a cluster may take to be whole again.
    /// (Pairs of bricks that were cut off from each other are kept apart for minutes.)
    const HEAL_NS: Ns;
    /// A machine that is lost loses its disk also.
    const LOSES_DISKS: bool;

    fn sim(&self) -> &Sim;

    fn sim_mut(&mut self) -> &mut Sim;

    /// Something will happen at a time.
    fn push_due(&mut self, at: Ns, due: Due);

    /// Something will happen after so long.
    fn after(&mut self, for_ns: Ns, due: Due) {
        self.push_due(self.sim().now + for_ns, due);
    }

    /// Runs until a time, or until something is wrong.
    fn run_until(&mut self, until: Ns);

    // --- machines

    /// Starts the process, if none runs.
    fn start(&mut self, at: usize);

    /// Ends the process.
    fn crash(&mut self, at: usize, how: Crash);

    /// The process stands still until then.
    fn pause(&mut self, at: usize, until: Ns);

    /// One of its data cores does.
    fn stick(&mut self, at: usize, core: usize, until: Ns);

    /// The clock goes at another rate from now on.
    fn drift(&mut self, at: usize);

    /// A process runs.
    fn runs(&self, at: usize) -> bool;

    /// This process runs.
    fn is_running(&self, at: usize, incarnation: u64) -> bool;

    /// The machine lost memory, and its process has not registered since.
    fn is_lost(&self, at: usize) -> bool;

    /// The process's replica of a partition.
    fn replica(&self, at: usize, partition: u32) -> Option<&Replica>;

    /// The process answers as the primary of a partition.
    fn leads(&self, at: usize, partition: u32) -> bool;

    // --- the network

    fn set_weather(&mut self, weather: Weather);

    /// Nothing gets from one machine to another for a while, in this direction.
    fn cut(&mut self, from: usize, to: usize, for_ns: Ns);

    /// Neither bricks nor keepers hear a machine for a while, nor do clients if they are meant too.
    fn cut_off(&mut self, at: usize, for_ns: Ns, from_clients: bool);

    /// Connections between two machines are lost.
    fn sever(&mut self, a: usize, b: usize);

    /// What is cut carries again.
    fn mend(&mut self);

    // --- the keepers

    /// Whether a script keeps this entry on its way.
    fn holds(&mut self, _id: u64) -> bool {
        false
    }

    /// Whether a mistake is that this entry is applied nowhere.
    fn forgets(&self, _id: u64) -> bool {
        false
    }

    /// A process that runs is registered.
    fn registered(&mut self, at: usize, incarnation: u64, brick: u32);

    /// An entry did something.
    fn applied(&mut self, entry: &Entry);

    // --- clients

    /// A client calls something, and will think again.
    fn think(&mut self, client: usize);

    /// A client calls so often at once, and never reads.
    fn call_at_once(&mut self, client: usize, calls: usize);

    /// A client's process ends, and another begins. What it had open stays without an answer.
    fn restart_client(&mut self, client: usize);

    /// No client waits for an answer.
    fn is_idle(&self) -> bool;

    /// What each replica has, for people.
    fn rooms(&self) -> String {
        String::new()
    }
}

/// It happens.
pub fn happen<L: Level>(world: &mut L, due: Due) {
    match due {
        Due::Start { at } => world.start(at),
        Due::Think { at } => world.think(at),
        Due::Plan { term } => entries::plan(world, term),
        Due::Apply { id } => entries::apply(world, id),
        Due::Lead { term } => entries::lead(world, term),
        Due::Fault(fault) => faults::fault(world, fault),
        Due::Calm => world.set_weather(world.sim().plan.weather),
    }
}
