//! Is there an order of the calls on one key that explains every answer, in which no call comes before
//! one that was answered before it was called? (Wing and Gong, with Lowe's memory of configurations.)
//!
//! The history is walked in the order of time, with the set of all configurations that explain it so
//! far. An answer throws out the configurations in which its call cannot have happened by then; calls
//! are placed only when an answer asks for it. The set empty: no order exists, and the answer that
//! emptied it is the earliest at which that can be known. Cost: linear in the history, exponential in
//! the calls that are open at once (known answers), bounded by [`CONFIGS_MAX`].

use super::classes::resolve;
use super::frontier::{Config, Frontier, has, with};
use super::history::Operation;
use super::need::{Key, Open, TRIED_MAX};

/// Configurations at one moment. A history that needs more is not decided.
pub const CONFIGS_MAX: usize = 1 << 17;

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order exists.
    Linearizable,
    /// None does: up to the answer of the operation at this place.
    Violated {
        /// Index of the operation whose answer nothing explains.
        at: usize,
        /// States that the key may have had just before that answer.
        before: Vec<String>,
    },
    /// Too many calls are open at once.
    Undecided {
        /// Index of the operation at whose answer it was given up.
        at: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Call,
    Back,
}

/// In the order of time; at the same moment calls come first, so that nothing is taken for ordered
/// that a coarse clock cannot tell apart.
fn events(operations: &[Operation]) -> Vec<(u64, What, u32)> {
    let mut events = Vec::with_capacity(operations.len() * 2);
    for (at, operation) in operations.iter().enumerate() {
        events.push((operation.called_ns, What::Call, at as u32));
        if let Some((back_ns, _)) = operation.back {
            events.push((back_ns, What::Back, at as u32));
        }
    }
    events.sort_unstable();
    events
}

/// Checks the operations of one key, in any order.
pub fn check_key(operations: &[Operation]) -> Verdict {
    let operations = &resolve(operations);
    let mut key = Key::new(operations);
    let mut open = Open::default();
    let mut configs = vec![Config::start()];
    for (now_ns, what, at) in events(operations) {
        key.now_ns = now_ns;
        if what == What::Call {
            let is_known = operations[at as usize].back.is_some();
            if is_known {
                open.known.push(at);
            } else {
                open.call_unknown(key.classes.of(at));
            }
            if is_known {
                for config in &mut configs {
                    settle(&mut key, config, &[at]);
                }
            }
            continue;
        }
        let Some(next) = after_answer(&mut key, &configs, at, &open) else {
            return Verdict::Undecided { at: at as usize };
        };
        if next.len() == 0 {
            return violated(&key, &configs, at);
        }
        key.close(at);
        open.known.retain(|&known| known != at);
        configs = next.take();
    }
    Verdict::Linearizable
}

/// The configurations after an answer; `None`: too many.
fn after_answer(key: &mut Key<'_>, configs: &[Config], at: u32, open: &Open) -> Option<Frontier> {
    let mut next = Frontier::default();
    key.tried = 0;
    for config in configs {
        if has(&config.early, at) {
            next.insert(without(config, at));
            continue;
        }
        // All orders of open calls that end with this one.
        let mut seen = Frontier::default();
        let mut stack = vec![config.clone()];
        while let Some(config) = stack.pop() {
            for &call in &open.known {
                if has(&config.early, call) {
                    continue;
                }
                for (state, used) in key.ways(&config, call, open) {
                    let early = with(&config.early, call);
                    let mut after = Config { state, early, used };
                    settle(key, &mut after, &open.known);
                    if key.is_hopeless(&after, open) {
                        continue;
                    }
                    if has(&after.early, at) {
                        next.insert(without(&after, at));
                    } else if seen.insert(after.clone()) {
                        stack.push(after);
                    }
                }
            }
            if seen.len() + next.len() > CONFIGS_MAX || key.tried > TRIED_MAX {
                return None;
            }
        }
    }
    Some(next)
}

fn without(config: &Config, at: u32) -> Config {
    let mut config = config.clone();
    config.early.retain(|&early| early != at);
    config
}

/// Gets of just this value, and their like, happen now.
fn settle(key: &mut Key<'_>, config: &mut Config, calls: &[u32]) {
    for &call in calls {
        if !has(&config.early, call) && key.may_settle(config.state, call) {
            config.early = with(&config.early, call);
        }
    }
}

fn violated(key: &Key<'_>, configs: &[Config], at: u32) -> Verdict {
    let mut before: Vec<_> = configs.iter().map(|c| key.values.describe(c.state)).collect();
    before.dedup();
    before.truncate(4);
    Verdict::Violated { at: at as usize, before }
}
