//! What level one does in its own way.

use firebrick_partition::keeper::Entry;
use firebrick_partition::replica::Replica;

use super::client::Client;
use super::clock::{MS, Ns, US};
use super::level::{Due, Level, Sim};
use super::machine::Crash;
use super::message::{Message, Node};
use super::mistake::Mistake;
use super::net::Weather;
use super::world::{Event, World};

/// Events of one run.
const EVENTS_MAX: u64 = 2_000_000;

impl Level for World {
    const TABLE: &'static str = "t";
    const HEAL_NS: Ns = 1_500_000 * MS;
    const LOSES_DISKS: bool = true;

    fn sim(&self) -> &Sim {
        &self.sim
    }

    fn sim_mut(&mut self) -> &mut Sim {
        &mut self.sim
    }

    fn push_due(&mut self, at: Ns, due: Due) {
        self.push(at, Event::Due(due));
    }

    fn run_until(&mut self, until: Ns) {
        while self.sim.failure.is_none() {
            if self.queue.next_at() > until {
                break;
            }
            let Some((at, event)) = self.queue.pop() else { break };
            self.handled += 1;
            if self.handled > EVENTS_MAX {
                let what = format!("{EVENTS_MAX} events: something goes round and round");
                return self.sim.fail(what);
            }
            // Every moment has one event, so that any two are ordered.
            self.sim.now = at.max(self.sim.now + 1);
            self.handle(event);
        }
        self.sim.now = self.sim.now.max(until);
    }

    fn start(&mut self, at: usize) {
        if self.machines[at].process.is_some() {
            return;
        }
        self.sim.incarnations += 1;
        let incarnation = self.sim.incarnations;
        self.machines[at].start(self.sim.now, incarnation, self.sim.plan.mistake);
        self.sim
            .trace
            .line(self.sim.now, format_args!("brick{} starts as process {incarnation}", at + 1));
        self.push(self.sim.now, Event::Beat { at, incarnation });
        self.push(self.sim.now + 3 * MS, Event::Tick { at, incarnation });
    }

    fn crash(&mut self, at: usize, how: Crash) {
        self.machines[at].crash(how);
    }

    fn pause(&mut self, at: usize, until: Ns) {
        self.machines[at].pause(self.sim.now, until);
    }

    /// Here a process has no cores: all of it stands still.
    fn stick(&mut self, at: usize, _core: usize, until: Ns) {
        self.pause(at, until);
    }

    fn drift(&mut self, at: usize) {
        self.machines[at].clock.drift_anew(self.sim.now, &mut self.sim.random);
    }

    fn runs(&self, at: usize) -> bool {
        self.machines[at].process.is_some()
    }

    fn is_running(&self, at: usize, incarnation: u64) -> bool {
        self.machines[at].process.as_ref().is_some_and(|p| p.incarnation == incarnation)
    }

    fn is_lost(&self, at: usize) -> bool {
        self.machines[at].lost
    }

    fn replica(&self, at: usize, partition: u32) -> Option<&Replica> {
        self.machines[at].process.as_ref()?.replicas.get(&partition)
    }

    fn leads(&self, at: usize, partition: u32) -> bool {
        self.machines[at].leads(self.sim.now, partition)
    }

    fn set_weather(&mut self, weather: Weather) {
        self.sim.net.weather = weather;
    }

    fn cut(&mut self, from: usize, to: usize, for_ns: Ns) {
        self.sim.net.cut(Node::Brick(from), Node::Brick(to), self.sim.now + for_ns);
    }

    fn cut_off(&mut self, at: usize, for_ns: Ns, from_clients: bool) {
        let (me, until) = (Node::Brick(at), self.sim.now + for_ns);
        let bricks = (0..self.machines.len()).map(Node::Brick);
        let clients = if from_clients { self.clients.len() } else { 0 };
        let clients = (0..clients).map(Node::Client);
        for other in bricks.chain(clients).chain([Node::Keeper]).filter(|n| *n != me) {
            self.sim.net.cut(me, other, until);
            self.sim.net.cut(other, me, until);
        }
    }

    /// Messages have no connections here.
    fn sever(&mut self, _a: usize, _b: usize) {}

    fn mend(&mut self) {
        self.sim.net.heal();
    }

    fn holds(&mut self, id: u64) -> bool {
        if self.grip.hold_entries {
            self.grip.entries.push(id);
        }
        self.grip.hold_entries
    }

    fn forgets(&self, id: u64) -> bool {
        self.sim.plan.mistake == Mistake::LeadWaitsForAll && self.leads_before_all_are_back(id)
    }

    fn registered(&mut self, at: usize, incarnation: u64, brick: u32) {
        self.machines[at].registered();
        let message = Message::Registered { incarnation, brick };
        self.send(Node::Keeper, Node::Brick(at), message);
    }

    fn applied(&mut self, entry: &Entry) {
        if self.sim.plan.mistake == Mistake::LeaveUnconfirmed {
            self.leave_at_once(entry);
        }
    }

    fn think(&mut self, at: usize) {
        if self.sim.now >= self.sim.load_until {
            return;
        }
        if self.clients[at].has_room() {
            self.call_something(at, self.sim.plan.reads);
        } else if self.clients[at].is_idle() {
            self.fetch_maps(at);
        }
        let wait = 100 * US + self.sim.random.below(self.sim.plan.think_ns);
        self.after(wait, Due::Think { at });
    }

    fn call_at_once(&mut self, at: usize, calls: usize) {
        for _ in 0..calls {
            self.call_something(at, 0);
        }
    }

    fn restart_client(&mut self, at: usize) {
        self.clients[at] = self.clients[at].restarted();
        self.fetch_maps(at);
    }

    fn is_idle(&self) -> bool {
        self.clients.iter().all(Client::is_idle)
    }
}
