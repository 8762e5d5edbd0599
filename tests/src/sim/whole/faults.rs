//! What goes wrong in the world.

use firebrick_partition::keeper::Entry;
use firebrick_partition::maps::Durability;

use super::world::{Event, World};
use crate::sim::clock::{MS, Ns};
use crate::sim::machine::Crash;
use crate::sim::message::Node;
use crate::sim::plan::{Fault, storm};

impl World {
    pub fn fault(&mut self, fault: Fault) {
        self.trace.line(self.now, format_args!("fault: {fault:?}"));
        match fault {
            Fault::Cut { a, b, both, for_ns } => {
                self.block(a, b, for_ns);
                if both {
                    self.block(b, a, for_ns);
                }
            }
            Fault::CutKeeper { a, to, from, for_ns } => self.cut_keeper(a, (to, from), for_ns),
            Fault::Isolate { a, for_ns } => self.cut_off(a, for_ns, true),
            Fault::CutOff { a, for_ns } => self.cut_off(a, for_ns, false),
            Fault::Sever { a, b } => {
                self.cover.saw("connections are lost");
                self.fabric.sever(a, b, self.now);
            }
            Fault::Pause { a, for_ns } => {
                let brick = &mut self.bricks[a];
                brick.paused_until = brick.paused_until.max(self.now + for_ns);
            }
            Fault::Stuck { a, core, for_ns } => {
                self.cover.saw("one core stands still");
                let process = self.bricks[a].process.as_mut();
                if let Some(core) = process.and_then(|process| process.cores.get_mut(core)) {
                    core.stuck_until = core.stuck_until.max(self.now + for_ns);
                }
            }
            Fault::Drift { a } => self.drift(a),
            Fault::Crash { a, how, for_ns } => self.crash(a, how, for_ns),
            Fault::KeeperFalls { for_ns, entries_lost } => self.keeper_falls(for_ns, entries_lost),
            Fault::Storm { for_ns } => {
                let weather = storm(&mut self.random);
                self.set_weather(weather);
                self.queue.push(self.now + for_ns, Event::Calm);
            }
            Fault::SlowDisk { a, for_ns } => {
                self.disk_slow_until.insert(a, self.now + for_ns);
            }
            Fault::Drain { a, on, for_ns } => self.drain_for(a, on, for_ns),
            Fault::HandOver { partition } => {
                let entry = self.keeper.hand_over(self.now, partition);
                self.propose(entry);
            }
            Fault::Move { partition } => {
                let entry = self.keeper.wish_a_move(partition, &mut self.random);
                self.propose(entry);
            }
            Fault::PowerOff { for_ns } => self.power_fails(for_ns),
            Fault::HalfHeard { partition, for_ns } => self.half_heard(partition, for_ns),
            Fault::ClientEnds { client, calls, after_ns } => {
                self.client_ends(client, calls, after_ns);
            }
        }
    }

    /// The keepers have no leader for a while, then another.
    fn keeper_falls(&mut self, for_ns: Ns, entries_lost: bool) {
        let until = self.now + for_ns;
        self.keeper.fall(until, &mut self.random);
        if entries_lost {
            self.keeper.flying.clear();
        }
        let term = self.keeper.term;
        self.queue.push(until, Event::Lead { term });
    }

    /// All machines lose their memory.
    fn power_fails(&mut self, for_ns: Ns) {
        self.cover.saw("all power fails");
        for a in 0..self.bricks.len() {
            let apart = self.random.below(5 * MS);
            self.crash(a, Crash::Power, for_ns + apart);
        }
    }

    /// Nothing gets from one host to another for a while, in this direction.
    fn block(&mut self, from: usize, to: usize, for_ns: Ns) {
        let until = self.now + for_ns;
        let end = self.blocked.entry((from, to)).or_default();
        *end = (*end).max(until);
        self.fabric.block(from, to, self.now);
        self.queue.push(until, Event::Free { from, to });
    }

    pub fn free(&mut self, from: usize, to: usize) {
        if self.blocked.get(&(from, to)).is_some_and(|until| *until <= self.now) {
            self.blocked.remove(&(from, to));
            self.fabric.unblock(from, to, self.now);
        }
    }

    fn cut_keeper(&mut self, a: usize, (to, from): (bool, bool), for_ns: Ns) {
        let (a, until) = (Node::Brick(a), self.now + for_ns);
        if to {
            self.net.cut(a, Node::Keeper, until);
        }
        if from {
            self.net.cut(Node::Keeper, a, until);
        }
    }

    fn cut_off(&mut self, a: usize, for_ns: Ns, from_clients: bool) {
        let clients = if from_clients { self.client_hosts() } else { 0..0 };
        let others = (0..self.bricks.len()).chain(clients);
        for other in others.filter(|other| *other != a) {
            self.block(a, other, for_ns);
            self.block(other, a, for_ns);
        }
        self.cut_keeper(a, (true, true), for_ns);
    }

    /// A primary and one of its backups hear each other; nobody else but clients hears the primary.
    fn half_heard(&mut self, partition: usize, for_ns: Ns) {
        let pair = self.keeper.primary_and_backup(partition, &mut self.random);
        let machine = |brick| self.ids.get(&brick).copied();
        let pair = pair.and_then(|(a, b)| machine(a).zip(machine(b)));
        let Some((primary, backup)) = pair else { return };
        for other in (0..self.bricks.len()).filter(|at| ![primary, backup].contains(at)) {
            self.block(primary, other, for_ns);
            self.block(other, primary, for_ns);
        }
        self.cut_keeper(primary, (true, true), for_ns);
        self.cover.saw("a primary is heard by one backup only");
    }

    /// A client's last calls, then its end.
    fn client_ends(&mut self, client: usize, calls: usize, after_ns: Ns) {
        // (A smaller plan may have fewer.)
        let client = client % self.clients.len();
        if calls == 0 {
            self.cover.saw("a client's process ends");
            return self.restart_client(client);
        }
        for _ in 0..calls {
            if self.clients[client].has_room() {
                self.call_something(client, 0);
            }
        }
        self.client_turn(client);
        let end = Fault::ClientEnds { client, calls: 0, after_ns };
        self.queue.push(self.now + after_ns, Event::Fault(end));
    }

    fn drift(&mut self, a: usize) {
        self.cover.saw("a clock changes its rate");
        let brick = &mut self.bricks[a];
        brick.clock.drift_anew(self.now, &mut self.random);
        brick.set_wall(self.plan.skew_ms, &mut self.random);
        // Timers are counted anew.
        for core in brick.process.iter_mut().flat_map(|process| &mut process.cores) {
            core.rung = true;
        }
    }

    /// A machine without power says nothing to anybody, not even that its connections are over.
    pub fn power(&mut self, at: usize, on: bool) {
        let others = (0..self.bricks.len()).chain(self.client_hosts());
        for other in others.filter(|other| *other != at).collect::<Vec<_>>() {
            for way in [(at, other), (other, at)] {
                if !on {
                    self.fabric.block(way.0, way.1, self.now);
                } else if !self.blocked.contains_key(&way) {
                    self.fabric.unblock(way.0, way.1, self.now);
                }
            }
        }
    }

    fn crash(&mut self, a: usize, how: Crash, for_ns: Ns) {
        let how = if how == Crash::Kill || self.may_lose(a) { how } else { Crash::Kill };
        self.note_seen(a);
        if self.bricks[a].process.is_some() {
            self.cover.saw(match how {
                Crash::Kill => "a process is killed",
                Crash::Power | Crash::Lost => "a machine loses its memory",
            });
            self.trace.line(self.now, format_args!("brick{} crashes: {how:?}", a + 1));
            if how != Crash::Kill {
                self.power(a, false);
            }
        }
        self.bricks[a].crash(how, &mut self.random);
        self.queue.push(self.now + for_ns, Event::Start { at: a });
    }

    /// What a process has seen, before it ends.
    pub fn note_seen(&mut self, a: usize) {
        let Some(process) = &self.bricks[a].process else { return };
        let (seen, damaged) = (process.seen(), process.damaged());
        for what in seen {
            self.cover.saw(what);
        }
        if damaged > 0 {
            self.fail(format!("brick{} found {damaged} damaged records", a + 1));
        }
    }

    /// What is promised outlives the loss of this machine's memory.
    fn may_lose(&self, a: usize) -> bool {
        if self.plan.durability == Durability::Sync {
            return true;
        }
        let machine = |brick: u32| self.ids.get(&brick).copied();
        self.keeper
            .has_others(|brick| machine(brick).is_some_and(|at| at != a && !self.bricks[at].lost))
    }

    /// Empties a brick for a while.
    fn drain_for(&mut self, a: usize, on: bool, for_ns: Ns) {
        let Some((&brick, _)) = self.ids.iter().find(|(_, at)| **at == a) else { return };
        if !on && !self.keeper.is_emptied(brick) {
            return;
        }
        if self.keeper.is_up(self.now) {
            self.propose(Some(Entry::Drain { brick, on }));
        }
        let for_ns = if on { for_ns } else { 100 * MS };
        let end = Fault::Drain { a, on: false, for_ns };
        self.queue.push(self.now + for_ns, Event::Fault(end));
    }
}
