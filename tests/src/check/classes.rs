//! Calls of unknown outcome, by what they do.

use std::collections::HashMap;

use super::history::{Back, Bytes, Call, Operation, Version};
use super::state::{Values, may_be_number};

/// Two calls are of one class when they do the same, but for bytes that no get was told. Any of them
/// can stand for any other that was called, so it is enough to count them.
#[derive(Debug, Default)]
pub struct Classes {
    /// The class of an operation of unknown outcome.
    of: Vec<u32>,
    /// An operation of each class.
    ones: Vec<u32>,
    /// Some are puts on a version.
    pub replaces: bool,
    /// Some are increments.
    pub increments: bool,
    /// Some say for how long a value is there.
    pub expires: bool,
}

impl Classes {
    pub fn new(operations: &[Operation], values: &Values) -> Self {
        let mut ids = HashMap::new();
        let mut classes = Self::default();
        let plain = |bytes: &Bytes| {
            let matters = may_be_number(&bytes.0) || values.in_told(&bytes.0);
            if matters { bytes.clone() } else { Bytes(vec![b'?'; bytes.0.len()]) }
        };
        for (at, operation) in operations.iter().enumerate() {
            if operation.back.is_some() {
                classes.of.push(u32::MAX);
                continue;
            }
            let call = match &operation.call {
                Call::Put { value } => Call::Put { value: plain(value) },
                Call::Swap { value } => Call::Swap { value: plain(value) },
                Call::PutFor { value, life } => Call::PutFor { value: plain(value), life: *life },
                Call::PutIfAbsent { value } => Call::PutIfAbsent { value: plain(value) },
                Call::Append { value } => Call::Append { value: plain(value) },
                Call::PutIfVersion { value, version } => {
                    Call::PutIfVersion { value: plain(value), version: *version }
                }
                other => other.clone(),
            };
            classes.replaces |= matches!(call, Call::PutIfVersion { .. });
            classes.increments |= matches!(call, Call::Increment { .. });
            classes.expires |=
                matches!(call, Call::PutFor { .. } | Call::Expire { .. } | Call::Persist);
            let class = *ids.entry(call).or_insert_with(|| {
                classes.ones.push(at as u32);
                classes.ones.len() as u32 - 1
            });
            classes.of.push(class);
        }
        classes
    }

    /// The class of an operation of unknown outcome.
    pub fn of(&self, at: u32) -> u32 {
        self.of[at as usize]
    }

    /// An operation of the class.
    pub fn one(&self, class: u32) -> u32 {
        self.ones[class as usize]
    }
}

/// A write of unknown outcome whose value some get was told did happen, and before that answer. Where
/// only one call wrote the value and the get was told its version, the write is as good as answered.
pub fn resolve(operations: &[Operation]) -> Vec<Operation> {
    let mut all = operations.to_vec();
    let rewrites = |o: &Operation| {
        matches!(
            o.call,
            Call::Append { .. } | Call::Increment { .. } | Call::Expire { .. } | Call::Persist
        )
    };
    if all.iter().any(rewrites) {
        return all;
    }
    let mut told: HashMap<&Bytes, (u64, Version)> = HashMap::new();
    for operation in operations {
        if let Some((back_ns, Back::Value { value, version: Some(version) })) = &operation.back {
            let first = told.entry(value).or_insert((*back_ns, *version));
            first.0 = first.0.min(*back_ns);
        }
    }
    let mut writers: HashMap<&Bytes, u32> = HashMap::new();
    for value in operations.iter().filter_map(|o| o.call.value()) {
        *writers.entry(value).or_default() += 1;
    }
    for (operation, was) in all.iter_mut().zip(operations) {
        if let (None, Some(value)) = (&was.back, was.call.value())
            && writers.get(value) == Some(&1)
            && let Some(&(back_ns, version)) = told.get(value)
            && back_ns >= was.called_ns
        {
            operation.back = Some((back_ns, Back::Done { version: Some(version) }));
        }
    }
    all
}
