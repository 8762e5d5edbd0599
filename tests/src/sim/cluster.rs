//! The keepers' part of the world: heartbeats and leases; and entries that are wrong by mistake.

use firebrick_partition::keeper::{Entry, Heartbeat, LeaseAnswer};
use firebrick_partition::maps::Intent;

use super::clock::{MS, US};
use super::entries::{later, propose};
use super::level::Level;
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
        let period = self.sim.plan.lease_ms * MS / BEATS_IN_A_LEASE;
        let tells = self.sim.plan.mistake != Mistake::SilenceUnreported;
        let unreachable = if tells { self.unreachable(at) } else { Vec::new() };
        let now = self.machines[at].now(self.sim.now);
        let Some(process) = &mut self.machines[at].process else { return };
        let message = match process.heartbeat(now, unreachable) {
            Some(heartbeat) => Message::Beat { heartbeat: Box::new(heartbeat), sent: now.boot_ns },
            None => Message::Register(Box::new(process.registration.clone())),
        };
        self.send(Node::Brick(at), Node::Keeper, message);
        self.push(self.sim.now + period, Event::Beat { at, incarnation });
    }

    /// Bricks that a machine cannot reach.
    pub(super) fn unreachable(&self, at: usize) -> Vec<u32> {
        let cut = |other: usize| {
            let (a, b) = (Node::Brick(at), Node::Brick(other));
            self.sim.net.is_cut(self.sim.now, a, b) || self.sim.net.is_cut(self.sim.now, b, a)
        };
        let gone = |other: usize| {
            let machine = &self.machines[other];
            machine.process.is_none() || machine.paused_until > self.sim.now
        };
        let others = self.sim.ids.iter().filter(|(_, other)| **other != at);
        others.filter(|(_, other)| cut(**other) || gone(**other)).map(|(brick, _)| *brick).collect()
    }

    #[allow(clippy::collapsible_match)] // a guard that changes something would hide
    pub(super) fn deliver_to_keeper(&mut self, from: Node, message: Message) {
        if !self.sim.keeper.is_up(self.sim.now) {
            return;
        }
        match (from, message) {
            (Node::Brick(at), Message::Register(registration)) => {
                if let Some(id) = self.sim.keeper.on_register(self.sim.now, at, &registration) {
                    later(self, id);
                }
            }
            (Node::Brick(at), Message::Beat { heartbeat, sent }) => {
                if self.sim.keeper.on_beat(self.sim.now, &heartbeat) {
                    let due = self.sim.now + 50 * US + self.sim.random.below(3 * MS);
                    let term = self.sim.keeper.term;
                    self.push(due, Event::Answer { to: at, heartbeat, sent, term });
                }
            }
            (Node::Client(_), Message::FetchMaps) => {
                let maps = Box::new(self.sim.keeper.state.maps());
                self.send(Node::Keeper, from, Message::Maps(maps));
            }
            _ => {}
        }
    }

    pub(super) fn answer(&mut self, to: usize, heartbeat: &Heartbeat, sent: u64, term: u64) {
        if term != self.sim.keeper.term || !self.sim.keeper.is_up(self.sim.now) {
            return;
        }
        let careless = self.sim.plan.mistake == Mistake::AnswerWhileRemoving;
        let mut answer = self.sim.keeper.answer(self.sim.now, heartbeat);
        if answer.is_none() && careless {
            let delta = self.sim.keeper.state.changes_since(heartbeat.version);
            answer = Some(LeaseAnswer::Granted { lease_ms: Some(self.sim.plan.lease_ms), delta });
        }
        if let Some(answer) = answer {
            let (incarnation, answer) = (heartbeat.incarnation, Box::new(answer));
            let message = Message::Lease { incarnation, answer, sent };
            self.send(Node::Keeper, Node::Brick(to), message);
        }
    }

    /// Only for [`Mistake::LeadWaitsForAll`].
    pub(super) fn leads_before_all_are_back(&self, id: u64) -> bool {
        let flying = self.sim.keeper.flying.iter().find(|flying| flying.id == id);
        let Some(Entry::Lead { partition, .. }) = flying.map(|f| &f.entry) else { return false };
        let down =
            |brick| self.sim.ids.get(&brick).is_none_or(|&at| self.machines[at].process.is_none());
        let group = self.sim.keeper.state.group(*partition);
        group.is_some_and(|group| group.kept.iter().any(|kept| down(kept.brick)))
    }

    /// Only for [`Mistake::LeaveUnconfirmed`]: whoever was asked leaves at once.
    pub(super) fn leave_at_once(&mut self, entry: &Entry) {
        let Entry::SetIntent { partition, epoch, intent } = *entry else { return };
        let Some(group) = self.sim.keeper.state.group(partition) else { return };
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
            propose(self, entry);
        }
    }
}
