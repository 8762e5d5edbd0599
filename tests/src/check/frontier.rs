//! Sets of configurations.
//!
//! A configuration says how a history may have gone so far: the key's state, which calls that are still
//! open have already taken effect (`early`: their answers are known and are still to come), and which
//! calls of unknown outcome have (`used`).
//!
//! Nothing ever forces a call of unknown outcome to happen. So of two configurations that differ in
//! `used` alone, the one that used less can do all that the other can: only the least ones are kept.

use std::collections::HashMap;

use super::state::State;

/// See the module's text. `early` is sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub state: State,
    pub early: Vec<u32>,
    pub used: Used,
}

/// How many calls of each class happened; sorted by class, without those of which none did.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used(Vec<(u32, u32)>);

impl Used {
    /// How many of this class.
    pub fn count(&self, class: u32) -> u32 {
        self.0.binary_search_by_key(&class, |u| u.0).map_or(0, |at| self.0[at].1)
    }

    /// One more.
    pub fn with(&self, class: u32) -> Self {
        let mut more = self.0.clone();
        match more.binary_search_by_key(&class, |u| u.0) {
            Ok(at) => more[at].1 += 1,
            Err(at) => more.insert(at, (class, 1)),
        }
        Self(more)
    }

    fn is_within(&self, other: &Self) -> bool {
        self.0.len() <= other.0.len() && self.0.iter().all(|&(c, n)| n <= other.count(c))
    }
}

impl Config {
    /// Nothing happened yet.
    pub fn start() -> Self {
        Self { state: State::START, early: Vec::new(), used: Used::default() }
    }
}

/// Adds to a sorted list.
pub fn with(list: &[u32], item: u32) -> Vec<u32> {
    let at = list.partition_point(|&x| x < item);
    let mut longer = Vec::with_capacity(list.len() + 1);
    longer.extend_from_slice(&list[..at]);
    longer.push(item);
    longer.extend_from_slice(&list[at..]);
    longer
}

/// In a sorted list.
pub fn has(list: &[u32], item: u32) -> bool {
    list.binary_search(&item).is_ok()
}

/// Configurations of which none can do all that another can.
#[derive(Debug, Default)]
pub struct Frontier {
    least: HashMap<(State, Vec<u32>), Vec<Used>>,
    len: usize,
}

impl Frontier {
    /// Whether it says something that no other one here does.
    pub fn insert(&mut self, config: Config) -> bool {
        let Config { state, early, used } = config;
        let sets = self.least.entry((state, early)).or_default();
        if sets.iter().any(|set| set.is_within(&used)) {
            return false;
        }
        self.len -= sets.len();
        sets.retain(|set| !used.is_within(set));
        sets.push(used);
        self.len += sets.len();
        true
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// All of them, in an order that depends on nothing but them.
    pub fn take(self) -> Vec<Config> {
        let mut all: Vec<Config> = self
            .least
            .into_iter()
            .flat_map(|((state, early), sets)| {
                sets.into_iter().map(move |used| Config { state, early: early.clone(), used })
            })
            .collect();
        all.sort_by(|a, b| (&a.state, &a.early, &a.used).cmp(&(&b.state, &b.early, &b.used)));
        all
    }
}
