//! Ways between hosts: blocked for a while, or for as long as a machine has no power.

use super::world::{Event, World};
use crate::sim::clock::Ns;

impl World {
    /// Nothing gets from one host to another for a while, in this direction.
    pub fn block(&mut self, from: usize, to: usize, for_ns: Ns) {
        let until = self.sim.now + for_ns;
        let end = self.blocked.entry((from, to)).or_default();
        *end = (*end).max(until);
        self.fabric.block(from, to, self.sim.now);
        self.queue.push(until, Event::Free { from, to });
    }

    pub fn free(&mut self, from: usize, to: usize) {
        if self.blocked.get(&(from, to)).is_some_and(|until| *until <= self.sim.now) {
            self.blocked.remove(&(from, to));
            self.fabric.unblock(from, to, self.sim.now);
        }
    }

    /// A machine without power says nothing to anybody, not even that its connections are over.
    pub fn power(&mut self, at: usize, on: bool) {
        let others = (0..self.bricks.len()).chain(self.client_hosts());
        for other in others.filter(|other| *other != at).collect::<Vec<_>>() {
            for way in [(at, other), (other, at)] {
                if !on {
                    self.fabric.block(way.0, way.1, self.sim.now);
                } else if !self.blocked.contains_key(&way) {
                    self.fabric.unblock(way.0, way.1, self.sim.now);
                }
            }
        }
    }
}
