//! What a script holds in its hands: messages on their way, entries of the keepers, disks, moments.

use std::collections::BTreeSet;

use super::clock::Ns;
use super::level::{Due, Level};
use super::message::{Message, Node};
use super::world::{Event, World};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It waits until the script lets it go.
    Held,
}

/// Messages that a script takes. The newest rule that fits a message counts.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Of anybody, or of this one.
    pub from: Option<Node>,
    /// To anybody, or to this one.
    pub to: Option<Node>,
    /// Names of messages; none: all.
    pub names: &'static [&'static str],
    /// What becomes of them.
    pub fate: Fate,
}

/// See the module's text. Random runs hold nothing.
#[derive(Debug, Default)]
pub struct Grip {
    pub rules: Vec<Rule>,
    pub held: Vec<(Node, Node, Message)>,
    /// Entries that were proposed stay on their way.
    pub hold_entries: bool,
    pub entries: Vec<u64>,
    /// Machines whose disks answer nothing.
    pub stalled: BTreeSet<usize>,
    /// This machine stops for so long between executing and answering, once.
    pub stop_before_answer: Option<(usize, Ns)>,
}

impl World {
    /// Whether a script takes the message.
    pub(super) fn gripped(&mut self, from: Node, to: Node, message: &Message) -> bool {
        let fits = |rule: &&Rule| {
            rule.from.is_none_or(|node| node == from)
                && rule.to.is_none_or(|node| node == to)
                && (rule.names.is_empty() || rule.names.contains(&message.name()))
        };
        let Some(rule) = self.grip.rules.iter().rev().find(fits) else { return false };
        if rule.fate == Fate::Held {
            self.grip.held.push((from, to, message.clone()));
        }
        true
    }

    /// A script lets everything go; what it held arrives, in its order.
    pub(super) fn let_go(&mut self) {
        self.grip.rules.clear();
        for (from, to, message) in std::mem::take(&mut self.grip.held) {
            self.push(self.sim.now, Event::Deliver { from, to, message });
        }
        self.grip.hold_entries = false;
        for id in std::mem::take(&mut self.grip.entries) {
            self.after(0, Due::Apply { id });
        }
        for at in std::mem::take(&mut self.grip.stalled) {
            let Some(process) = &self.machines[at].process else { continue };
            let incarnation = process.incarnation;
            for (partition, flying) in self.machines[at].flying() {
                for _ in 0..flying {
                    self.push(self.sim.now, Event::Landed { at, incarnation, partition });
                }
            }
        }
    }
}
