//! The network: loses, delays, repeats and reorders messages; links are cut one way or both.

use std::collections::BTreeMap;

use super::clock::{MS, Ns, US};
use super::message::Node;
use crate::random::Random;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Messages lost, in thousands.
    pub lost: u64,
    /// Messages that arrive twice, in thousands.
    pub twice: u64,
    /// Messages that are late, in thousands.
    pub late: u64,
    /// How late at most.
    pub late_ns: Ns,
    /// The usual delay at most.
    pub usual_ns: Ns,
}

impl Weather {
    /// Nothing is lost and everything is soon there.
    pub const CALM: Self = Self { lost: 0, twice: 0, late: 0, late_ns: MS, usual_ns: 200 * US };
}

/// See the module's text.
#[derive(Debug)]
pub struct Net {
    /// As it is.
    pub weather: Weather,
    /// Directed links that carry nothing before a time.
    cuts: BTreeMap<(Node, Node), Ns>,
}

impl Net {
    /// A whole network.
    pub fn new(weather: Weather) -> Self {
        Self { weather, cuts: BTreeMap::new() }
    }

    /// A link carries nothing, in this direction, until then.
    pub fn cut(&mut self, from: Node, to: Node, until: Ns) {
        let end = self.cuts.entry((from, to)).or_default();
        *end = (*end).max(until);
    }

    /// Everything is whole again.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// The link carries nothing now.
    pub fn is_cut(&self, now: Ns, from: Node, to: Node) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|&until| now < until)
    }

    /// When a message sent now arrives: never, once or twice.
    pub fn arrivals(&self, now: Ns, random: &mut Random, from: Node, to: Node) -> Vec<Ns> {
        let w = self.weather;
        if self.is_cut(now, from, to) || random.below(1000) < w.lost {
            return Vec::new();
        }
        let mut one = || {
            let late = random.below(1000) < w.late;
            let most = if late { w.late_ns } else { w.usual_ns };
            now + 5 * US + random.below(most.max(1))
        };
        let first = one();
        let again = one();
        if random.below(1000) < w.twice { vec![first, again] } else { vec![first] }
    }
}
