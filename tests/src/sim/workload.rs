//! What clients call.

use firebrick_partition::op::{Condition, Expiry, Op};

use crate::check::{Call, Version};
use crate::random::Random;

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Whole values.
    Register,
    /// A number that grows.
    Counter,
    /// A value that grows.
    List,
}

/// The family of a key, by its name.
pub fn family(key: &str) -> Family {
    match key.as_bytes().first() {
        Some(b'c') => Family::Counter,
        Some(b'l') => Family::List,
        _ => Family::Register,
    }
}

/// A random call on a key. `unique` is in no other call; `seen` is the version last seen.
pub fn call(random: &mut Random, key: &str, unique: &str, seen: Option<Version>) -> Call {
    let value = || unique.into();
    let die = random.below(100);
    match (family(key), die) {
        (_, 0..=44) => Call::Get,
        (Family::Counter, _) => Call::Increment { by: 1 },
        (Family::List, _) => Call::Append { value: value() },
        (Family::Register, 45..=69) => Call::Put { value: value() },
        (Family::Register, 70..=79) => Call::Remove,
        (Family::Register, 80..=89) => Call::PutIfAbsent { value: value() },
        (Family::Register, _) => match seen {
            Some(version) => Call::PutIfVersion { value: value(), version },
            None => Call::Put { value: value() },
        },
    }
}

/// The operation of a call.
pub fn op(call: &Call) -> Op<'_> {
    let put =
        |value, condition| Op::Put { value, expiry: Expiry::Never, condition, want_old: false };
    match call {
        Call::Get => Op::Get,
        Call::Put { value } => put(&value.0, Condition::Always),
        Call::Remove => Op::Remove { condition: Condition::Always, want_old: false },
        Call::PutIfAbsent { value } => put(&value.0, Condition::Absent),
        Call::PutIfVersion { value, version } => {
            let Version { epoch, seq } = *version;
            put(&value.0, Condition::Version(firebrick_partition::Version { epoch, seq }))
        }
        Call::Increment { by } => Op::Increment { by: *by },
        Call::Append { value } => Op::Append { value: &value.0 },
    }
}
