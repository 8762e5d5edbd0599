//! What goes wrong in the world.

use firebrick_partition::keeper::Entry;
use firebrick_partition::maps::{Durability, Intent};

use super::clock::{MS, Ns};
use super::machine::Crash;
use super::message::Node;
use super::plan::{Fault, storm};
use super::world::{Event, World};

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
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
            Fault::Isolate { a, for_ns } => self.cut_off(a, self.now + for_ns, true),
            Fault::Pause { a, for_ns } | Fault::Stuck { a, for_ns, .. } => {
                let until = self.now + for_ns;
                self.machines[a].pause(self.now, until);
            }
            Fault::Crash { a, how, for_ns } => self.crash(a, how, for_ns),
            Fault::KeeperFalls { for_ns, entries_lost } => self.keeper_falls(for_ns, entries_lost),
            Fault::Storm { for_ns } => {
                self.net.weather = storm(&mut self.random);
                self.push(self.now + for_ns, Event::Calm);
            }
            Fault::SlowDisk { a, for_ns } => {
                self.disk_slow_until.insert(a, self.now + for_ns);
            }
            Fault::Drain { a, on, for_ns } => self.drain_for(a, on, for_ns),
            Fault::HandOver { partition } => {
                if let Some(entry) = self.keeper.hand_over(self.now, partition) {
                    self.propose(entry);
                }
            }
            Fault::Move { partition } => {
                if let Some(entry) = self.keeper.wish_a_move(partition, &mut self.random) {
                    self.propose(entry);
                }
            }
            Fault::Drift { a } => {
                self.cover.saw("a clock changes its rate");
                self.machines[a].clock.drift_anew(self.now, &mut self.random);
            }
            // Messages have no connections here.
            Fault::Sever { .. } => {}
            Fault::CutOff { a, for_ns } => self.cut_off(a, self.now + for_ns, false),
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
        self.push(until, Event::Lead { term });
    }

    /// All machines lose their memory.
    fn power_fails(&mut self, for_ns: Ns) {
        self.cover.saw("all power fails");
        for a in 0..self.machines.len() {
            let apart = self.random.below(5 * MS);
            self.crash(a, Crash::Power, for_ns + apart);
        }
    }

    pub(super) fn cut_off(&mut self, a: usize, until: Ns, from_clients: bool) {
        let me = Node::Brick(a);
        let bricks = (0..self.machines.len()).map(Node::Brick);
        let clients = if from_clients { self.clients.len() } else { 0 };
        let clients = (0..clients).map(Node::Client);
        for other in bricks.chain(clients).chain([Node::Keeper]).filter(|n| *n != me) {
            self.net.cut(me, other, until);
            self.net.cut(other, me, until);
        }
    }

    /// A primary and one of its backups hear each other; nobody else but clients hears the primary.
    fn half_heard(&mut self, partition: usize, for_ns: Ns) {
        let pair = self.keeper.primary_and_backup(partition, &mut self.random);
        let machine = |brick| self.bricks.get(&brick).copied();
        let pair = pair.and_then(|(a, b)| machine(a).zip(machine(b)));
        let Some((primary, backup)) = pair else { return };
        let (me, until) = (Node::Brick(primary), self.now + for_ns);
        let deaf = |at: &usize| ![primary, backup].contains(at);
        let bricks = (0..self.machines.len()).filter(deaf).map(Node::Brick);
        for other in bricks.chain([Node::Keeper]) {
            self.net.cut(me, other, until);
            self.net.cut(other, me, until);
        }
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
            self.call_something(client, 0);
        }
        let end = Fault::ClientEnds { client, calls: 0, after_ns };
        self.push(self.now + after_ns, Event::Fault(end));
    }

    pub(super) fn crash(&mut self, a: usize, how: Crash, for_ns: Ns) {
        let how = if how == Crash::Kill || self.may_lose(a, how) { how } else { Crash::Kill };
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

    /// What is promised outlives the loss of this machine.
    pub(super) fn may_lose(&self, a: usize, how: Crash) -> bool {
        if how == Crash::Power && self.plan.durability == Durability::Sync {
            return true;
        }
        let machine = |brick: u32| self.bricks.get(&brick).copied();
        self.keeper
            .has_others(|brick| machine(brick).is_some_and(|at| at != a && !self.machines[at].lost))
    }

    /// A machine's brick is to be emptied, or not any more.
    pub(super) fn drain(&mut self, at: usize, on: bool) {
        let brick = self.bricks.iter().find(|(_, machine)| **machine == at);
        if let Some((&brick, _)) = brick
            && self.keeper.is_up(self.now)
        {
            self.propose(Entry::Drain { brick, on });
        }
    }

    /// Empties a brick for a while; then it takes replicas again, whatever becomes of the keepers' leader meanwhile.
    fn drain_for(&mut self, a: usize, on: bool, for_ns: Ns) {
        let brick = self.bricks.iter().find(|(_, machine)| **machine == a).map(|(brick, _)| *brick);
        if on || brick.is_some_and(|brick| self.keeper.is_emptied(brick)) {
            self.drain(a, on);
            let for_ns = if on { for_ns } else { 100 * MS };
            self.push(self.now + for_ns, Event::Fault(Fault::Drain { a, on: false, for_ns }));
        }
    }

    pub(super) fn propose(&mut self, entry: Entry) {
        if let Some(id) = self.keeper.propose(self.now, entry, None) {
            self.later(id);
        }
    }

    /// Only for [`Mistake::LeaveUnconfirmed`]: whoever was asked leaves at once.
    pub(super) fn leave_at_once(&mut self, entry: &Entry) {
        let Entry::SetIntent { partition, epoch, intent } = *entry else { return };
        let Some(group) = self.keeper.state.group(partition) else { return };
        let members = &group.replicas.members;
        let of = |brick: u32| members.iter().find(|m| m.brick == brick).map(|m| m.incarnation);
        let entry = match intent {
            Intent::None => None,
            Intent::Leave { brick } => {
                of(brick).map(|incarnation| Entry::Leave { partition, epoch, brick, incarnation })
            }
            Intent::StepDown { brick } => {
                let to = members.iter().find(|m| m.brick != brick).map(|m| m.brick);
                of(brick).zip(to).map(|(incarnation, to)| Entry::StepDown {
                    partition,
                    epoch,
                    brick,
                    incarnation,
                    to,
                })
            }
        };
        if let Some(entry) = entry {
            self.propose(entry);
        }
    }
}
