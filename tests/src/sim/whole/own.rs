//! What this level does in its own way.

use firebrick_partition::keeper::{DEFAULT_TABLE, Entry};
use firebrick_partition::replica::Replica;

use super::client::Client;
use super::control::Message;
use super::fill;
use super::redis::Redis;
use super::world::{CLIENTS, Event, World, settings};
use crate::sim::clock::{MS, Ns, US};
use crate::sim::faults::cut_keeper;
use crate::sim::level::{Due, Level, Sim};
use crate::sim::machine::Crash;
use crate::sim::message::Node;
use crate::sim::net::Weather;

/// Events and turns of one run.
const EVENTS_MAX: u64 = 5_000_000;

impl Level for World {
    const TABLE: &'static str = DEFAULT_TABLE;
    const HEAL_NS: Ns = 600_000 * MS;
    const LOSES_DISKS: bool = false;

    fn sim(&self) -> &Sim {
        &self.sim
    }

    fn sim_mut(&mut self) -> &mut Sim {
        &mut self.sim
    }

    fn push_due(&mut self, at: Ns, due: Due) {
        self.queue.push(at, Event::Due(due));
    }

    fn run_until(&mut self, until: Ns) {
        while self.sim.failure.is_none() && self.step(until) {
            self.handled += 1;
            if self.handled > EVENTS_MAX {
                let what = format!("{EVENTS_MAX} events: something goes round and round");
                return self.sim.fail(what);
            }
        }
        self.set_time(self.sim.now.max(until));
    }

    fn start(&mut self, at: usize) {
        if self.bricks[at].process.is_some() {
            return;
        }
        self.sim.incarnations += 1;
        let incarnation = self.sim.incarnations;
        let line = format_args!("brick{} starts as process {incarnation}", at + 1);
        self.sim.trace.line(self.sim.now, line);
        self.power(at, true);
        self.bricks[at].start(&self.fabric, incarnation);
        self.register(at, incarnation);
    }

    fn crash(&mut self, at: usize, how: Crash) {
        self.note_seen(at);
        if self.runs(at) && how != Crash::Kill {
            self.power(at, false);
        }
        self.bricks[at].crash(how, &mut self.sim.random);
    }

    fn pause(&mut self, at: usize, until: Ns) {
        let brick = &mut self.bricks[at];
        brick.paused_until = brick.paused_until.max(until);
    }

    fn stick(&mut self, at: usize, core: usize, until: Ns) {
        self.sim.cover.saw("one core stands still");
        let process = self.bricks[at].process.as_mut();
        if let Some(core) = process.and_then(|process| process.cores.get_mut(core)) {
            core.stuck_until = core.stuck_until.max(until);
        }
    }

    fn drift(&mut self, at: usize) {
        let brick = &mut self.bricks[at];
        brick.clock.drift_anew(self.sim.now, &mut self.sim.random);
        brick.set_wall(self.sim.plan.skew_ms, &mut self.sim.random);
        // Timers are counted anew.
        for core in brick.process.iter_mut().flat_map(|process| &mut process.cores) {
            core.rung = true;
        }
    }

    fn runs(&self, at: usize) -> bool {
        self.bricks[at].process.is_some()
    }

    fn is_running(&self, at: usize, incarnation: u64) -> bool {
        self.bricks[at].process.as_ref().is_some_and(|p| p.incarnation == incarnation)
    }

    fn is_lost(&self, at: usize) -> bool {
        self.bricks[at].lost
    }

    fn replica(&self, at: usize, partition: u32) -> Option<&Replica> {
        self.bricks[at].process.as_ref()?.replica(partition)
    }

    fn leads(&self, at: usize, partition: u32) -> bool {
        let now = self.bricks[at].now(self.sim.now);
        self.bricks[at].process.as_ref().is_some_and(|process| process.leads(now, partition))
    }

    fn set_weather(&mut self, weather: Weather) {
        // Control threads ask over connections: what is lost there is late, and nothing comes twice.
        self.sim.net.weather = Weather { twice: 0, ..weather };
        self.fabric.set(settings(weather));
    }

    fn cut(&mut self, from: usize, to: usize, for_ns: Ns) {
        self.block(from, to, for_ns);
    }

    fn cut_off(&mut self, at: usize, for_ns: Ns, from_clients: bool) {
        let clients = if from_clients { self.client_hosts() } else { 0..0 };
        let others = (0..self.bricks.len()).chain(clients);
        for other in others.filter(|other| *other != at) {
            self.block(at, other, for_ns);
            self.block(other, at, for_ns);
        }
        cut_keeper(self, at, (true, true), for_ns);
    }

    fn sever(&mut self, a: usize, b: usize) {
        self.sim.cover.saw("connections are lost");
        self.fabric.sever(a, b, self.sim.now);
    }

    fn mend(&mut self) {
        self.sim.net.heal();
        for (from, to) in std::mem::take(&mut self.blocked).into_keys() {
            self.fabric.unblock(from, to, self.sim.now);
        }
    }

    fn registered(&mut self, at: usize, incarnation: u64, brick: u32) {
        self.bricks[at].lost = false;
        let dropped = self.sim.keeper.state.dropped(brick);
        let message = Message::Registered { incarnation, brick, dropped };
        self.send(Node::Keeper, Node::Brick(at), message);
    }

    /// Whoever asks for changes of the maps is told that there are some.
    fn applied(&mut self, _entry: &Entry) {
        for at in 0..self.bricks.len() {
            self.send(Node::Keeper, Node::Brick(at), Message::Changed);
        }
    }

    fn think(&mut self, at: usize) {
        if self.sim.now >= self.sim.load_until {
            return;
        }
        if at >= self.clients.len() {
            return self.redis_thinks(at - self.clients.len());
        }
        if self.clients[at].has_room() {
            self.call_something(at, self.sim.plan.reads);
        } else {
            self.clients[at].find_table(self.sim.now);
        }
        self.client_turn(at);
        if self.sim.random.below(4) == 0 {
            self.read_somewhere();
        }
        let wait = 100 * US + self.sim.random.below(self.sim.plan.think_ns);
        self.after(wait, Due::Think { at });
    }

    fn call_at_once(&mut self, at: usize, calls: usize) {
        for _ in 0..calls {
            if self.clients[at].has_room() {
                self.call_something(at, 0);
            }
        }
        self.client_turn(at);
    }

    fn restart_client(&mut self, at: usize) {
        let fabric = self.fabric.fake_on(CLIENTS + at);
        let seeds = self.bricks.iter().map(|brick| brick.address.to_string().into()).collect();
        let limits = (self.sim.plan.open_max, self.sim.plan.lease_ms);
        self.clients[at] = Client::new(at, fabric, seeds, limits, &mut self.sim.random);
    }

    fn is_idle(&self) -> bool {
        self.clients.iter().all(Client::is_idle) && self.redis.iter().all(Redis::is_idle)
    }

    fn rooms(&self) -> String {
        fill::rooms(&self.bricks)
    }
}

impl World {
    /// What a process has seen, before it ends.
    pub fn note_seen(&mut self, a: usize) {
        let Some(process) = &self.bricks[a].process else { return };
        let (seen, damaged) = (process.seen(), process.damaged());
        for what in seen {
            self.sim.cover.saw(what);
        }
        if damaged > 0 {
            self.sim.fail(format!("brick{} found {damaged} damaged records", a + 1));
        }
    }
}
