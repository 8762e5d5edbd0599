//! What clients call, and what they are answered.

use firebrick_partition::op::{Answer, Condition, ExpireWhen, Expiry, Op};

use crate::check::{Back, Bytes, Call, Version};
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

/// A random call on a key, of a hundred so many reads. `unique` is in no other call; `seen` is the version last seen.
pub fn call(
    random: &mut Random,
    reads: u64,
    key: &str,
    unique: &str,
    seen: Option<Version>,
) -> Call {
    if random.below(100) < reads { Call::Get } else { write(random, key, unique, seen) }
}

fn write(random: &mut Random, key: &str, unique: &str, seen: Option<Version>) -> Call {
    let value = || unique.into();
    let die = random.below(11);
    match (family(key), die) {
        (Family::Counter, _) => Call::Increment { by: 1 },
        (Family::List, _) => Call::Append { value: value() },
        (Family::Register, 0..=4) => Call::Put { value: value() },
        (Family::Register, 5 | 6) => Call::Remove,
        (Family::Register, 7 | 8) => Call::PutIfAbsent { value: value() },
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
    let (always, expiry) = (Condition::Always, Expiry::Never);
    match call {
        Call::Get => Op::Get,
        Call::Left => Op::Look,
        Call::PutFor { value, life } => {
            let expiry = Expiry::At(life.ms);
            Op::Put { value: &value.0, expiry, condition: always, want_old: false }
        }
        Call::Expire { life } => Op::Expire { at_ms: life.ms, when: ExpireWhen::default() },
        Call::Persist => Op::Expire { at_ms: 0, when: ExpireWhen::default() },
        Call::Put { value } => put(&value.0, always),
        Call::Swap { value } => {
            Op::Put { value: &value.0, expiry, condition: always, want_old: true }
        }
        Call::Remove => Op::Remove { condition: always, want_old: false },
        Call::Take => Op::Remove { condition: always, want_old: true },
        Call::PutIfAbsent { value } => put(&value.0, Condition::Absent),
        Call::PutIfVersion { value, version } => {
            let Version { epoch, seq } = *version;
            put(&value.0, Condition::Version(firebrick_partition::Version { epoch, seq }))
        }
        Call::Increment { by } => Op::Increment { by: *by },
        Call::Append { value } => Op::Append { value: &value.0 },
    }
}

#[allow(clippy::unnecessary_wraps)] // a history may lack versions; answers of this protocol never do
fn version(version: firebrick_partition::Version) -> Option<Version> {
    Some(Version { epoch: version.epoch, seq: version.seq })
}

/// What a history has of an answer; `None`: nothing was done.
pub fn back_of(answer: &Answer<'_>) -> Option<Back> {
    Some(match *answer {
        Answer::Value { value, version: v, .. } => {
            Back::Value { value: Bytes(value.to_vec()), version: version(v) }
        }
        Answer::Old { existed: true, value, .. } => {
            Back::Value { value: Bytes(value.to_vec()), version: None }
        }
        Answer::Absent | Answer::Old { .. } => Back::Absent,
        Answer::Done { version: v } => Back::Done { version: version(v) },
        Answer::Integer { value, version: v } => Back::Integer { value, version: version(v) },
        Answer::Length { len, version: v } => Back::Length { len, version: version(v) },
        Answer::Refused { current } => Back::Refused { current: version(current) },
        _ => return None,
    })
}
