//! The keepers' part of the world: heartbeats, leases, entries.

use firebrick_partition::keeper::{Applied, Entry, Heartbeat, LeaseAnswer, Settings};
use firebrick_partition::maps::TableOptions;

use super::clock::{MS, US};
use super::keeper::{brief, kind};
use super::message::{Message, Node};
use super::mistake::Mistake;
use super::world::{BEATS_IN_A_LEASE, Event, World};

impl World {
    pub(super) fn beat(&mut self, at: usize, incarnation: u64) {
        if !self.is_running(at, incarnation) {
            return;
        }
        if let Some(until) = self.stands_still(at) {
            return self.push(until, Event::Beat { at, incarnation });
        }
        let period = self.plan.lease_ms * MS / BEATS_IN_A_LEASE;
        let tells = self.plan.mistake != Mistake::SilenceUnreported;
        let unreachable = if tells { self.unreachable(at) } else { Vec::new() };
        let now = self.machines[at].now(self.now);
        let Some(process) = &mut self.machines[at].process else { return };
        let message = match process.heartbeat(now, unreachable) {
            Some(heartbeat) => Message::Beat { heartbeat: Box::new(heartbeat), sent: now.boot_ns },
            None => Message::Register(Box::new(process.registration.clone())),
        };
        self.send(Node::Brick(at), Node::Keeper, message);
        self.push(self.now + period, Event::Beat { at, incarnation });
    }

    /// Bricks that a machine cannot reach.
    pub(super) fn unreachable(&self, at: usize) -> Vec<u32> {
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

    #[allow(clippy::collapsible_match)] // a guard that changes something would hide
    pub(super) fn deliver_to_keeper(&mut self, from: Node, message: Message) {
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

    pub(super) fn answer(&mut self, to: usize, heartbeat: &Heartbeat, sent: u64, term: u64) {
        if term != self.keeper.term || !self.keeper.is_up(self.now) {
            return;
        }
        let careless = self.plan.mistake == Mistake::AnswerWhileRemoving;
        let mut answer = self.keeper.answer(self.now, heartbeat);
        if answer.is_none() && careless {
            let delta = self.keeper.state.changes_since(heartbeat.version);
            answer = Some(LeaseAnswer::Granted { lease_ms: Some(self.plan.lease_ms), delta });
        }
        if let Some(answer) = answer {
            let (incarnation, answer) = (heartbeat.incarnation, Box::new(answer));
            let message = Message::Lease { incarnation, answer, sent };
            self.send(Node::Keeper, Node::Brick(to), message);
        }
    }

    /// An entry is on its way through the keepers' log.
    pub(super) fn later(&mut self, id: u64) {
        if self.grip.hold_entries {
            return self.grip.entries.push(id);
        }
        let due = self.now + 100 * US + self.random.below(6 * MS);
        self.push(due, Event::Apply { id });
    }

    pub(super) fn keeper_plans(&mut self, term: u64) {
        if term != self.keeper.term || !self.keeper.is_up(self.now) {
            return;
        }
        for id in self.keeper.plan(self.now) {
            self.later(id);
        }
        let due = self.now + 5 * MS + self.random.below(self.plan.lease_ms * MS / 6);
        self.push(due, Event::Plan { term });
    }

    pub(super) fn apply(&mut self, id: u64) {
        if self.plan.mistake == Mistake::LeadWaitsForAll && self.leads_before_all_are_back(id) {
            return self.keeper.forget(id);
        }
        let Some((flying, applied)) = self.keeper.apply(id) else { return };
        if let Some(why) = applied.refusal() {
            self.trace
                .line(self.now, format_args!("keepers: {:?} does nothing: {why}", flying.entry));
            return;
        }
        self.trace.line(self.now, format_args!("keepers: {}", brief(&flying.entry)));
        self.cover.saw(kind(&flying.entry));
        if let Err(wrong) = self.watch.look_at_keepers(&self.keeper.state) {
            return self.fail(wrong);
        }
        if self.plan.mistake == Mistake::LeaveUnconfirmed {
            self.leave_at_once(&flying.entry);
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

    /// Only for [`Mistake::LeadWaitsForAll`].
    fn leads_before_all_are_back(&self, id: u64) -> bool {
        let flying = self.keeper.flying.iter().find(|flying| flying.id == id);
        let Some(Entry::Lead { partition, .. }) = flying.map(|f| &f.entry) else { return false };
        let down =
            |brick| self.bricks.get(&brick).is_none_or(|&at| self.machines[at].process.is_none());
        let group = self.keeper.state.group(*partition);
        group.is_some_and(|group| group.kept.iter().any(|kept| down(kept.brick)))
    }

    pub(super) fn on_registered(&mut self, at: Option<usize>, incarnation: u64, brick: u32) {
        let Some(at) = at else { return };
        self.bricks.insert(brick, at);
        if self.is_running(at, incarnation) {
            self.machines[at].registered();
            let message = Message::Registered { incarnation, brick };
            self.send(Node::Keeper, Node::Brick(at), message);
        }
    }

    pub(super) fn lead(&mut self, term: u64) {
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
}
