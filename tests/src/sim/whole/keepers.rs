//! The keepers' part of the world.

use firebrick_partition::keeper::{Applied, DEFAULT_TABLE, Entry, Settings};
use firebrick_partition::maps::TableOptions;

use super::control::{Beat, Message};
use super::world::{Event, World};
use crate::sim::clock::{MS, US};
use crate::sim::keeper::{brief, kind};
use crate::sim::message::Node;

impl World {
    #[allow(clippy::collapsible_match)] // a guard that changes something would hide
    pub fn deliver_to_keeper(&mut self, from: Node, message: Message) {
        let Node::Brick(at) = from else { return };
        if !self.keeper.is_up(self.now) {
            return;
        }
        match message {
            Message::Register(registration) => {
                if let Some(id) = self.keeper.on_register(self.now, at, &registration) {
                    self.later(id);
                }
            }
            Message::Beat(beat) => {
                if self.keeper.on_beat(self.now, &beat.heartbeat) {
                    let due = self.now + 50 * US + self.random.below(3 * MS);
                    let term = self.keeper.term;
                    self.queue.push(due, Event::Answer { to: at, beat, term });
                }
            }
            Message::Forgotten { brick, partitions } => {
                self.propose(Some(Entry::Forgotten { brick, partitions }));
            }
            _ => {}
        }
    }

    pub fn answer(&mut self, to: usize, beat: &Beat, term: u64) {
        if term != self.keeper.term || !self.keeper.is_up(self.now) {
            return;
        }
        if let Some(answer) = self.keeper.answer(self.now, &beat.heartbeat) {
            let (incarnation, ask) = (beat.heartbeat.incarnation, beat.ask);
            let message = Message::Lease { incarnation, ask, answer: Box::new(answer) };
            self.send(Node::Keeper, Node::Brick(to), message);
        }
    }

    /// An entry is on its way through the keepers' log.
    fn later(&mut self, id: u64) {
        let due = self.now + 100 * US + self.random.below(6 * MS);
        self.queue.push(due, Event::Apply { id });
    }

    pub fn propose(&mut self, entry: Option<Entry>) {
        let id = entry.and_then(|entry| self.keeper.propose(self.now, entry, None));
        if let Some(id) = id {
            self.later(id);
        }
    }

    pub fn keeper_plans(&mut self, term: u64) {
        if term != self.keeper.term || !self.keeper.is_up(self.now) {
            return;
        }
        for id in self.keeper.plan(self.now) {
            self.later(id);
        }
        let due = self.now + 5 * MS + self.random.below(self.plan.lease_ms * MS / 6);
        self.queue.push(due, Event::Plan { term });
    }

    pub fn apply(&mut self, id: u64) {
        let Some((flying, applied)) = self.keeper.apply(id) else { return };
        if let Some(why) = applied.refusal() {
            let line = format_args!("keepers: {:?} does nothing: {why}", flying.entry);
            return self.trace.line(self.now, line);
        }
        self.trace.line(self.now, format_args!("keepers: {}", brief(&flying.entry)));
        self.cover.saw(kind(&flying.entry));
        if let Err(wrong) = self.watch.look_at_keepers(&self.keeper.state) {
            return self.fail(wrong);
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
        for at in 0..self.bricks.len() {
            self.send(Node::Keeper, Node::Brick(at), Message::Changed);
        }
    }

    fn on_registered(&mut self, at: Option<usize>, incarnation: u64, brick: u32) {
        let Some(at) = at else { return };
        self.ids.insert(brick, at);
        if self.is_running(at, incarnation) {
            self.bricks[at].lost = false;
            let dropped = self.keeper.state.dropped(brick);
            let message = Message::Registered { incarnation, brick, dropped };
            self.send(Node::Keeper, Node::Brick(at), message);
        }
    }

    pub fn lead(&mut self, term: u64) {
        if term != self.keeper.term {
            return;
        }
        // What is left is applied before, in its order.
        for id in self.keeper.flying.iter().map(|flying| flying.id).collect::<Vec<_>>() {
            self.apply(id);
        }
        self.keeper.lead(self.now);
        self.trace.line(self.now, format_args!("keepers: a new leader"));
        self.queue.push(self.now, Event::Plan { term });
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
        let id = self.keeper.create_table(self.now, DEFAULT_TABLE, options)?;
        let id = id.ok_or("the table cannot be proposed now")?;
        self.apply(id);
        Ok(())
    }
}
