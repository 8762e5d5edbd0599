//! Which calls of unknown outcome may have happened just before a call, so that it was answered as it
//! was.
//!
//! A breadth-first search over them. What keeps it small, and loses nothing:
//! * calls that do the same (see [`Classes`]) are one class, of which the first called goes first;
//! * a put or a remove of unknown outcome (and their like that tell what was there) leaves the same whatever was before it, so it only comes
//!   first: had others come before it in this search, leaving them out gives the same with less used;
//! * the rest can wait until after the call when the call changes nothing;
//! * what a call leaves must still be able to become what the answer says ([`Key::leads_to`]).

use std::collections::VecDeque;

use super::classes::Classes;
use super::frontier::{Config, Frontier, Used, has};
use super::history::{Back, Call, Operation};
use super::state::{State, Values, answer, happen};

/// The open calls of one key at a moment.
#[derive(Debug, Default)]
pub struct Open {
    /// Called; the answer is known and still to come.
    pub known: Vec<u32>,
    /// Called, and never answered: how many of each class.
    pub unknown: Vec<(u32, u32)>,
}

impl Open {
    /// One more of a class.
    pub fn call_unknown(&mut self, class: u32) {
        match self.unknown.iter_mut().find(|u| u.0 == class) {
            Some(known) => known.1 += 1,
            None => self.unknown.push((class, 1)),
        }
    }
}

/// The operations of one key.
pub struct Key<'a> {
    pub operations: &'a [Operation],
    pub classes: Classes,
    pub values: Values,
    /// Values only grow here, and this is the last one that a get was told.
    last: Option<(u32, &'a [u8])>,
    /// States tried since the last answer.
    pub tried: usize,
    /// The time of that answer.
    pub now_ns: u64,
}

/// It leaves the same whatever was before it.
fn replaces_all(call: &Call) -> bool {
    matches!(
        call,
        Call::Put { .. } | Call::PutFor { .. } | Call::Swap { .. } | Call::Remove | Call::Take
    )
}

/// States tried for one answer; past that the search is given up.
pub const TRIED_MAX: usize = 1 << 21;

impl<'a> Key<'a> {
    pub fn new(operations: &'a [Operation]) -> Self {
        let told = operations.iter().filter_map(|o| match &o.back {
            Some((_, Back::Value { value, .. })) => Some(value.0.clone()),
            _ => None,
        });
        let values = Values::new(told.collect());
        let classes = Classes::new(operations, &values);
        let grows = |o: &Operation| matches!(o.call, Call::Get | Call::Append { .. });
        let told = operations.iter().enumerate().filter_map(|(at, o)| match &o.back {
            Some((back_ns, Back::Value { value, .. })) => Some((*back_ns, at, &value.0[..])),
            _ => None,
        });
        let last = told.max().filter(|_| operations.iter().all(grows));
        let last = last.map(|(_, at, value)| (at as u32, value));
        Self { operations, classes, values, last, tried: 0, now_ns: 0 }
    }

    fn back(&self, at: u32) -> Option<&'a Back> {
        self.operations[at as usize].back.as_ref().map(|(_, back)| back)
    }

    /// The state after the call was answered as it was.
    pub fn answered(&mut self, state: State, at: u32) -> Option<State> {
        let operation = &self.operations[at as usize];
        answer(&mut self.values, state, operation)
    }

    /// All least ways to come to the answer of `goal` from `from`, `goal` included.
    pub fn ways(&mut self, from: &Config, goal: u32, open: &Open) -> Vec<(State, Used)> {
        let mut found = Vec::new();
        let mut seen = Frontier::default();
        let mut queue = VecDeque::from([(from.state, from.used.clone(), true)]);
        while let Some((state, used, first)) = queue.pop_front() {
            if let Some(after) = self.answered(state, goal) {
                found.push((after, used.clone()));
                if self.looks_only(state, after, goal) || self.decides_all(goal) {
                    continue;
                }
            }
            if state.may_end(self.now_ns) {
                let (after, used) = (state.ended(), used.clone());
                let config = Config { state: after, early: Vec::new(), used: used.clone() };
                if seen.insert(config) {
                    queue.push_back((after, used, false));
                }
            }
            for &(class, called) in &open.unknown {
                self.tried += 1;
                if self.tried > TRIED_MAX {
                    return found;
                }
                if used.count(class) >= called {
                    continue;
                }
                let operation = &self.operations[self.classes.one(class) as usize];
                let call = &operation.call;
                if !first && replaces_all(call) {
                    continue;
                }
                if !self.fits(state, call, &from.early) {
                    continue;
                }
                let Some(after) = happen(&mut self.values, state, operation) else { continue };
                if !self.leads_to(after, goal, from) {
                    continue;
                }
                let used = used.with(class);
                let config = Config { state: after, early: Vec::new(), used: used.clone() };
                if seen.insert(config) {
                    queue.push_back((after, used, false));
                }
            }
        }
        found
    }

    /// The call changes nothing, whenever it happens, and its answer tells nothing new here.
    fn looks_only(&self, state: State, after: State, at: u32) -> bool {
        let reads = matches!(self.operations[at as usize].call, Call::Get | Call::Left);
        let refused = matches!(self.back(at), Some(Back::Absent | Back::Refused { .. }));
        (reads || refused) && state == after
    }

    /// The call may be answered in this state and then looks only: it may as well happen now, whatever
    /// comes later stays possible.
    pub fn may_settle(&mut self, state: State, at: u32) -> bool {
        self.answered(state, at).is_some_and(|after| self.looks_only(state, after, at))
    }

    /// This cannot be how it went: a write that has yet to happen was told a version that is past, or
    /// the value cannot become what a get is going to be told.
    pub fn is_hopeless(&self, config: &Config, open: &Open) -> bool {
        let late = open.known.iter().any(|&at| {
            let version = self.back(at).and_then(Back::written);
            version.is_some_and(|v| v <= config.state.floor) && !has(&config.early, at)
        });
        late || !self.may_be_last(config.state, &config.early)
    }

    fn may_be_last(&self, state: State, early: &[u32]) -> bool {
        self.last
            .is_none_or(|(at, told)| has(early, at) || self.values.may_become(state.value, told))
    }

    /// As [`Key::may_be_last`], before the value is made.
    fn fits(&self, state: State, call: &Call, early: &[u32]) -> bool {
        let (Some((at, told)), Call::Append { value }) = (self.last, call) else { return true };
        let rest = told.get(self.values.len(state.value) as usize..);
        has(early, at) || rest.is_some_and(|rest| rest.starts_with(&value.0))
    }

    /// The call was answered.
    pub fn close(&mut self, at: u32) {
        self.last.take_if(|last| last.0 == at);
    }

    /// The state after the call does not depend on the one before: where it can be answered at once, no
    /// longer way is better.
    fn decides_all(&self, goal: u32) -> bool {
        match (&self.operations[goal as usize].call, self.back(goal)) {
            (Call::Expire { .. } | Call::Persist, Some(Back::Done { .. })) => false,
            (_, Some(Back::Done { .. } | Back::Absent))
            | (Call::Take | Call::Swap { .. }, Some(Back::Value { .. })) => true,
            (Call::Get, Some(Back::Value { version, .. }))
            | (Call::Increment { .. }, Some(Back::Integer { version, .. })) => {
                version.is_some() && !self.classes.expires
            }
            _ => false,
        }
    }

    /// After a call of unknown outcome: what comes behind it in a search adds to the value, fills an
    /// absent one, or (a put on a version) replaces it.
    fn leads_to(&self, after: State, goal: u32, from: &Config) -> bool {
        if !self.may_be_last(after, &from.early) {
            return false;
        }
        if self.classes.replaces || self.classes.increments || after.may_end(self.now_ns) {
            return true;
        }
        let is_absent = after.value == Values::NONE;
        match (&self.operations[goal as usize].call, self.back(goal)) {
            (Call::Get | Call::Take | Call::Swap { .. }, Some(Back::Value { value, .. })) => {
                self.values.may_become(after.value, &value.0)
            }
            (Call::Append { .. }, Some(Back::Length { len, .. })) => {
                self.values.len(after.value) <= *len
            }
            (Call::Get | Call::Remove | Call::Take | Call::Swap { .. }, Some(Back::Absent))
            | (Call::PutIfAbsent { .. }, Some(Back::Done { .. })) => is_absent,
            _ => true,
        }
    }
}
