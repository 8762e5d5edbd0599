//! A scripted execution: one partition, calm weather, and somebody who decides what arrives when.

use super::clock::{MS, Ns};
use super::faults::fault;
use super::grip::{Fate, Rule};
use super::level::Level;
use super::machine::Crash;
use super::message::Node;
use super::plan::{Fault, Plan};
use super::run::{conclude, heal, run_for, set_up};
use super::trace::lines_wanted;
use super::world::World;
use crate::check::{Back, Call};

/// How a scripted execution ends: well, or with what was wrong.
pub type Story = Result<(), String>;

/// Virtual time after which a script says that what it waits for does not come.
const PATIENCE: Ns = 20_000 * MS;

/// See the module's text. Machines are named by their numbers.
pub struct Script {
    /// What runs.
    pub world: World,
    /// The partition.
    pub partition: u32,
}

impl Script {
    /// A whole cluster with one partition, and clients that know the maps.
    pub fn begin(plan: Plan) -> Result<Self, String> {
        let mut world = World::new(plan);
        world.sim.trace.verbose = lines_wanted().is_some();
        set_up(&mut world)?;
        let partition =
            world.sim.keeper.state.groups().next().map_or(0, |(partition, _)| partition);
        for at in 0..world.clients.len() {
            world.fetch_maps(at);
        }
        let mut script = Self { world, partition };
        script.run(20)?;
        // Sessions are open from here on.
        for at in 0..script.world.clients.len() {
            script.put(at, "r1", "session")?;
        }
        Ok(script)
    }

    /// Time goes by, in ms.
    pub fn run(&mut self, ms: u64) -> Story {
        run_for(&mut self.world, ms * MS)
    }

    /// Time goes by until something is so.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&World) -> bool) -> Story {
        let end = self.world.sim.now + PATIENCE;
        while !is_so(&self.world) {
            if self.world.sim.now >= end {
                return Err(self.wrong(&format!("this does not come: {what}")));
            }
            run_for(&mut self.world, MS / 10)?;
        }
        Ok(())
    }

    /// What is wrong, with what happened before if `$FIREBRICK_SIM_LINES` asks for it.
    pub fn wrong(&self, what: &str) -> String {
        match lines_wanted() {
            Some(lines) => format!("{}\n{what}", self.world.sim.trace.tail(lines)),
            None => what.to_owned(),
        }
    }

    /// Machines of the group, the primary first, as the keepers have it.
    pub fn group(&self) -> Vec<usize> {
        group(&self.world, self.partition)
    }

    /// Messages that fit arrive no more.
    pub fn lose(&mut self, from: Option<Node>, to: Option<Node>, names: &'static [&'static str]) {
        self.world.grip.rules.push(Rule { from, to, names, fate: Fate::Lost });
    }

    /// Messages that fit wait.
    pub fn hold(&mut self, from: Option<Node>, to: Option<Node>, names: &'static [&'static str]) {
        self.world.grip.rules.push(Rule { from, to, names, fate: Fate::Held });
    }

    /// Two machines do not hear each other from now on.
    pub fn cut(&mut self, a: usize, b: usize) {
        let (a, b) = (Node::Brick(a), Node::Brick(b));
        self.world.sim.net.cut(a, b, Ns::MAX);
        self.world.sim.net.cut(b, a, Ns::MAX);
    }

    /// Nobody but clients hears a machine.
    pub fn cut_off(&mut self, at: usize) {
        fault(&mut self.world, Fault::CutOff { a: at, for_ns: PATIENCE * 100 });
    }

    /// Links carry again.
    pub fn mend(&mut self) {
        self.world.sim.net.heal();
    }

    /// Lets everything go that was held or lost.
    pub fn let_go(&mut self) {
        self.world.let_go();
    }

    /// What is held is lost.
    pub fn forget(&mut self) {
        self.world.grip.held.clear();
    }

    /// The process ends. Nobody starts it again.
    pub fn down(&mut self, at: usize, how: Crash) {
        self.world
            .sim
            .trace
            .line(self.world.sim.now, format_args!("brick{} is down: {how:?}", at + 1));
        self.world.machines[at].crash(how);
    }

    /// It is started again.
    pub fn up(&mut self, at: usize) {
        self.world.start(at);
    }

    /// The process stands still for so many ms.
    pub fn pause(&mut self, at: usize, ms: u64) {
        fault(&mut self.world, Fault::Pause { a: at, for_ns: ms * MS });
    }

    /// A client calls.
    pub fn call(&mut self, client: usize, key: &str, call: Call) -> u64 {
        self.world.call(client, key, call, None)
    }

    /// A client reads, at this machine and no other.
    pub fn read_at(&mut self, client: usize, key: &str, at: usize) -> u64 {
        let brick = self.world.sim.ids.iter().find(|(_, machine)| **machine == at);
        let brick = brick.map(|(brick, _)| *brick);
        self.world.call(client, key, Call::Get, brick)
    }

    /// The call is answered; with what, or given up.
    pub fn answered(&mut self, id: u64) -> Result<Option<Back>, String> {
        self.until("an answer", |world| world.answers.contains_key(&id))?;
        Ok(self.world.answers.get(&id).cloned().flatten())
    }

    /// The call is not answered yet.
    pub fn is_open(&self, id: u64) -> bool {
        !self.world.answers.contains_key(&id)
    }

    /// The call is answered with a value or a success, within so many ms from now.
    pub fn within(&mut self, ms: u64, id: u64) -> Result<Back, String> {
        let end = self.world.sim.now + ms * MS;
        match self.answered(id)? {
            Some(Back::Failed) | None => Err(self.wrong(&format!("call {id} failed"))),
            Some(_) if self.world.sim.now > end => {
                let late = (self.world.sim.now - end) / MS;
                Err(self.wrong(&format!("call {id} was answered {late} ms later than it may be")))
            }
            Some(back) => Ok(back),
        }
    }

    /// A put, answered.
    pub fn put(&mut self, client: usize, key: &str, value: &str) -> Story {
        let id = self.call(client, key, Call::Put { value: value.into() });
        self.within(2_000, id).map(|_| ())
    }

    /// A read at a machine gives this.
    pub fn expect(&mut self, client: usize, key: &str, at: usize, value: &str) -> Story {
        let id = self.read_at(client, key, at);
        match self.within(2_000, id)? {
            Back::Value { value: found, .. } if found == value.into() => Ok(()),
            other => Err(format!("{key} at brick{} is {other}, not {value}", at + 1)),
        }
    }

    /// Everything is let go and mended; the cluster becomes whole, and the history is checked.
    pub fn end(mut self) -> Story {
        if let Some(lines) = lines_wanted() {
            println!("{}", self.world.sim.trace.tail(lines));
        }
        self.world.let_go();
        heal(&mut self.world);
        conclude(&mut self.world).map(|_| ())
    }
}

/// Machines of the group, the primary first, as the keepers have it.
pub fn group(world: &World, partition: u32) -> Vec<usize> {
    let group = world.sim.keeper.state.group(partition);
    let members = group.into_iter().flat_map(|group| &group.replicas.members);
    members.filter_map(|m| world.sim.ids.get(&m.brick).copied()).collect()
}

/// The last record that a machine holds.
pub fn tail(world: &World, partition: u32, at: usize) -> u64 {
    world.replica(at, partition).map_or(0, |replica| replica.log().tail().seq)
}

/// The last record that a machine committed.
pub fn commit(world: &World, partition: u32, at: usize) -> u64 {
    world.replica(at, partition).map_or(0, |replica| replica.log().commit())
}
