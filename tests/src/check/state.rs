//! One key, as its promises describe it: what each operation does to it, one after the other.

use std::collections::HashMap;

use super::history::{Back, Bytes, Call, Operation, Version};

/// A millisecond.
const MS: u64 = 1_000_000;

/// What the key holds. Small and cheap to compare: values are numbers, see [`Values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The value; 0 is none.
    pub value: u32,
    /// Its version; `None` while nobody was told.
    pub version: Option<Version>,
    /// The highest version that anybody was told: every later write's is higher.
    pub floor: Version,
    /// Between which times the value goes by itself.
    pub end: (u64, u64),
}

/// When a value goes that stays.
const NEVER: (u64, u64) = (u64::MAX, u64::MAX);

impl State {
    /// Nothing was written yet.
    pub const START: Self =
        Self { value: Values::NONE, version: None, floor: Version::NONE, end: NEVER };

    /// Its value may be gone by now.
    pub fn may_end(&self, now_ns: u64) -> bool {
        self.end.0 <= now_ns
    }

    /// Its value is gone.
    pub fn ended(self) -> Self {
        Self { value: Values::NONE, version: None, end: NEVER, ..self }
    }

    /// For whoever calls at this time, whatever others do.
    fn seen_at(self, called_ns: u64) -> Self {
        if self.end.1 < called_ns { self.ended() } else { self }
    }
}

/// All values met, each once.
///
/// A value that no get was told, nor any longer value that begins with it, is known by its length
/// alone: no answer can tell two such values apart. (Numbers are kept: increments answer with them.)
#[derive(Debug, Default)]
pub struct Values {
    told: Vec<Vec<u8>>,
    ids: HashMap<Value, u32>,
    all: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    None,
    Some(Vec<u8>),
    /// Nobody was told; its length.
    Untold(usize),
}

impl Values {
    /// No value.
    pub const NONE: u32 = 0;

    /// For a history in which gets were told these values.
    pub fn new(mut told: Vec<Vec<u8>>) -> Self {
        told.sort_unstable();
        told.dedup();
        Self { told, ids: HashMap::new(), all: vec![Value::None] }
    }

    /// The number of a value.
    pub fn id(&mut self, bytes: &[u8]) -> u32 {
        let keep = self.begins_told(bytes) || may_be_number(bytes);
        self.enter(if keep { Value::Some(bytes.to_vec()) } else { Value::Untold(bytes.len()) })
    }

    fn enter(&mut self, value: Value) -> u32 {
        if let Some(&id) = self.ids.get(&value) {
            return id;
        }
        let id = self.all.len() as u32;
        self.all.push(value.clone());
        self.ids.insert(value, id);
        id
    }

    /// Some get was told a value that begins so.
    pub fn begins_told(&self, bytes: &[u8]) -> bool {
        let at = self.told.partition_point(|told| told.as_slice() < bytes);
        self.told.get(at).is_some_and(|told| told.starts_with(bytes))
    }

    /// Some get was told a value that these bytes are in.
    pub fn in_told(&self, bytes: &[u8]) -> bool {
        let within = |told: &Vec<u8>| told.windows(bytes.len().max(1)).any(|part| part == bytes);
        bytes.is_empty() || self.told.iter().any(within)
    }

    /// The state, for people.
    pub fn describe(&self, state: State) -> String {
        let value = match &self.all[state.value as usize] {
            Value::None => return "absent".to_owned(),
            Value::Some(bytes) => format!("{:?}", Bytes(bytes.clone())),
            Value::Untold(len) => format!("{len} bytes that no get was told"),
        };
        state.version.map_or(value.clone(), |version| format!("{value} at {version:?}"))
    }

    /// The value that begins so may be told.
    pub fn may_become(&self, id: u32, told: &[u8]) -> bool {
        match &self.all[id as usize] {
            Value::None => true,
            Value::Some(bytes) => told.starts_with(bytes),
            Value::Untold(_) => false,
        }
    }

    /// Its length; 0 for none.
    pub fn len(&self, id: u32) -> u64 {
        match &self.all[id as usize] {
            Value::None => 0,
            Value::Some(bytes) => bytes.len() as u64,
            Value::Untold(len) => *len as u64,
        }
    }

    fn append(&mut self, id: u32, more: &[u8]) -> u32 {
        match &self.all[id as usize] {
            Value::None => self.id(more),
            Value::Some(bytes) => {
                let bytes = [bytes, more].concat();
                self.id(&bytes)
            }
            Value::Untold(len) => self.enter(Value::Untold(len + more.len())),
        }
    }

    fn integer(&self, id: u32) -> Option<i64> {
        match &self.all[id as usize] {
            Value::None => Some(0),
            Value::Some(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Value::Untold(_) => None,
        }
    }
}

/// It is the decimal digits of a number, or begins them.
pub fn may_be_number(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").or(bytes.strip_prefix(b"+")).unwrap_or(bytes);
    digits.iter().all(u8::is_ascii_digit)
}

/// The value that the call leaves, when it changes something. That the version is the expected one is
/// for the caller to see to.
fn written(values: &mut Values, state: State, call: &Call) -> Option<u32> {
    Some(match call {
        Call::Get | Call::Left => return None,
        Call::Put { value }
        | Call::PutFor { value, .. }
        | Call::Swap { value }
        | Call::PutIfVersion { value, .. } => values.id(&value.0),
        Call::Expire { .. } => (state.value != Values::NONE).then_some(state.value)?,
        Call::Persist => {
            (state.value != Values::NONE && state.end != NEVER).then_some(state.value)?
        }
        Call::Remove | Call::Take => (state.value != Values::NONE).then_some(Values::NONE)?,
        Call::PutIfAbsent { value } => {
            (state.value == Values::NONE).then(|| values.id(&value.0))?
        }
        Call::Increment { by } => {
            let sum = values.integer(state.value)?.checked_add(*by)?;
            values.id(sum.to_string().as_bytes())
        }
        Call::Append { value } => values.append(state.value, &value.0),
    })
}

/// The state, if the key's value can have this version.
fn at_version(state: State, version: Option<Version>) -> Option<State> {
    let Some(version) = version else { return Some(state) };
    if state.value == Values::NONE {
        return None;
    }
    match state.version {
        Some(known) => (known == version).then_some(state),
        None => (version > state.floor).then_some(State {
            version: Some(version),
            floor: version,
            ..state
        }),
    }
}

/// When the value goes that the operation leaves.
fn end(state: State, operation: &Operation) -> (u64, u64) {
    match &operation.call {
        Call::PutFor { life, .. } | Call::Expire { life } => {
            life.end(operation.called_ns, operation.back.as_ref().map(|(back_ns, _)| *back_ns))
        }
        Call::Increment { .. } | Call::Append { .. } => state.end,
        _ => NEVER,
    }
}

fn wrote(
    state: State,
    operation: &Operation,
    value: u32,
    version: Option<Version>,
) -> Option<State> {
    if version.is_some_and(|v| v <= state.floor) {
        return None;
    }
    let floor = version.unwrap_or(state.floor);
    let version = version.filter(|_| value != Values::NONE);
    let end = end(state, operation);
    Some(State { value, version, floor, end })
}

/// The state after a call whose outcome nobody knows; `None` when it changes nothing here.
pub fn happen(values: &mut Values, state: State, operation: &Operation) -> Option<State> {
    let (state, call) = (state.seen_at(operation.called_ns), &operation.call);
    let state = match call {
        Call::PutIfVersion { version, .. } => at_version(state, Some(*version))?,
        _ => state,
    };
    let value = written(values, state, call)?;
    wrote(state, operation, value, None)
}

/// The state after a call that was answered so; `None` when it cannot be answered so here.
pub fn answer(values: &mut Values, state: State, operation: &Operation) -> Option<State> {
    let (back_ns, back) = operation.back.as_ref()?;
    let state = state.seen_at(operation.called_ns);
    match (&operation.call, back) {
        (Call::Swap { .. }, Back::Absent) => done(values, state, operation, back),
        (Call::Get | Call::Left, _) | (_, Back::Absent | Back::Refused { .. }) => {
            told(values, state, operation, (*back_ns, back))
        }
        _ => done(values, state, operation, back),
    }
}

/// An answer that says something of the state, and changes nothing.
fn told(
    values: &mut Values,
    state: State,
    operation: &Operation,
    (back_ns, back): (u64, &Back),
) -> Option<State> {
    match (&operation.call, back) {
        (Call::Get, Back::Value { value, version }) => {
            (values.id(&value.0) == state.value).then(|| at_version(state, *version))?
        }
        (
            Call::Get
            | Call::Remove
            | Call::Take
            | Call::Expire { .. }
            | Call::Persist
            | Call::Left,
            Back::Absent,
        ) => (state.value == Values::NONE).then_some(state),
        (Call::PutIfAbsent { .. }, Back::Refused { current }) => {
            (state.value != Values::NONE).then_some(())?;
            at_version(state, *current)
        }
        (Call::PutIfVersion { version, .. }, Back::Refused { current }) => {
            refused(state, *version, *current)
        }
        (Call::Persist, Back::Refused { current }) => match current {
            None => (state.value == Values::NONE || state.end == NEVER).then_some(state),
            current => (state.end == NEVER).then(|| at_version(state, *current))?,
        },
        (Call::Left, Back::Integer { value: -1, .. }) => {
            (state.value != Values::NONE && state.end == NEVER).then_some(state)
        }
        (Call::Left, Back::Integer { value, .. }) => {
            let (least, most) = (*value as u64 * MS, (*value as u64 + 1) * MS);
            let fits = operation.called_ns + least <= state.end.1 && state.end.0 <= back_ns + most;
            (state.end != NEVER && fits).then_some(state)
        }
        // An answer to another question.
        _ => None,
    }
}

/// An answer to a call that wrote something.
fn done(values: &mut Values, state: State, operation: &Operation, back: &Back) -> Option<State> {
    let call = &operation.call;
    let wrote = |state, value, version| wrote(state, operation, value, version);
    match (call, back) {
        (Call::Take | Call::Swap { .. }, Back::Value { value, .. }) => {
            (values.id(&value.0) == state.value).then_some(())?;
            let value = written(values, state, call)?;
            wrote(state, value, None)
        }
        (Call::Swap { value }, Back::Absent) => {
            (state.value == Values::NONE).then_some(())?;
            let value = values.id(&value.0);
            wrote(state, value, None)
        }
        (
            Call::Put { .. }
            | Call::PutFor { .. }
            | Call::Expire { .. }
            | Call::Persist
            | Call::Swap { .. }
            | Call::PutIfAbsent { .. }
            | Call::Remove
            | Call::Take,
            Back::Done { version },
        ) => {
            let value = written(values, state, call)?;
            wrote(state, value, *version)
        }
        (Call::PutIfVersion { version: expected, .. }, Back::Done { version }) => {
            let state = at_version(state, Some(*expected))?;
            let value = written(values, state, call)?;
            wrote(state, value, *version)
        }
        (Call::Increment { .. }, Back::Integer { value, version }) => {
            let sum = written(values, state, call)?;
            (values.integer(sum) == Some(*value)).then_some(())?;
            wrote(state, sum, *version)
        }
        (Call::Append { .. }, Back::Length { len, version }) => {
            let value = written(values, state, call)?;
            (values.len(value) == *len).then_some(())?;
            wrote(state, value, *version)
        }
        // An answer to another question.
        _ => None,
    }
}

/// A put-if-version that was refused.
fn refused(state: State, expected: Version, current: Option<Version>) -> Option<State> {
    match current {
        Some(Version::NONE) => (state.value == Values::NONE).then_some(state),
        Some(current) if current == expected => None,
        Some(current) => at_version(state, Some(current)),
        None => (state.value == Values::NONE || state.version != Some(expected)).then_some(state),
    }
}
