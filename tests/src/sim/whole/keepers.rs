//! The keepers' part of the world.

use firebrick_partition::keeper::Entry;

use super::control::{Beat, Message};
use super::world::{Event, World};
use crate::sim::clock::{MS, US};
use crate::sim::entries::{later, propose};
use crate::sim::message::Node;

impl World {
    #[allow(clippy::collapsible_match)] // a guard that changes something would hide
    pub fn deliver_to_keeper(&mut self, from: Node, message: Message) {
        let Node::Brick(at) = from else { return };
        if !self.sim.keeper.is_up(self.sim.now) {
            return;
        }
        match message {
            Message::Register(registration) => {
                if let Some(id) = self.sim.keeper.on_register(self.sim.now, at, &registration) {
                    later(self, id);
                }
            }
            Message::Beat(beat) => {
                if self.sim.keeper.on_beat(self.sim.now, &beat.heartbeat) {
                    let due = self.sim.now + 50 * US + self.sim.random.below(3 * MS);
                    let term = self.sim.keeper.term;
                    self.queue.push(due, Event::Answer { to: at, beat, term });
                }
            }
            Message::Forgotten { brick, partitions } => {
                propose(self, Entry::Forgotten { brick, partitions });
            }
            _ => {}
        }
    }

    pub fn answer(&mut self, to: usize, beat: &Beat, term: u64) {
        if term != self.sim.keeper.term || !self.sim.keeper.is_up(self.sim.now) {
            return;
        }
        if let Some(answer) = self.sim.keeper.answer(self.sim.now, &beat.heartbeat) {
            let (incarnation, ask) = (beat.heartbeat.incarnation, beat.ask);
            let message = Message::Lease { incarnation, ask, answer: Box::new(answer) };
            self.send(Node::Keeper, Node::Brick(to), message);
        }
    }
}
