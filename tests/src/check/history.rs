//! What clients called and what they were answered.
//!
//! As JSON lines a call and its answer are two lines, so that a client that is killed leaves its calls
//! behind; a call without an answer may or may not have taken effect, at any later time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A key or value. In JSON it is text, with every byte that is not printable escaped.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Bytes(pub Vec<u8>);

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.0.escape_ascii().to_string()
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` has an escape that is none");
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'\\' {
                bytes.push(byte);
                continue;
            }
            bytes.push(match rest.next().ok_or_else(wrong)? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let mut digit = || char::from(rest.next().unwrap_or(b'?')).to_digit(16);
                    let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
                    (high << 4 | low) as u8
                }
                plain @ (b'\\' | b'\'' | b'"') => plain,
                _ => return Err(wrong()),
            });
        }
        Ok(Self(bytes))
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        write!(f, "\"{}\"", self.0[..self.0.len().min(SHOWN)].escape_ascii())?;
        if self.0.len() > SHOWN { write!(f, "... ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// The version of a value. The versions of one key grow with every write of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Version {
    /// Epoch of the group.
    pub epoch: u32,
    /// Sequence number.
    pub seq: u64,
}

impl Version {
    /// Of a key that has no value.
    pub const NONE: Self = Self { epoch: 0, seq: 0 };
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// How long a value is to be there, and what that says in the history's time, whose clocks and how wrong they may be
/// included. (Who records a history knows that; who checks it does not.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Life {
    /// As the call said it, in milliseconds.
    pub ms: u64,
    /// It counts from the call on; else the times are times.
    pub from_now: bool,
    /// Before this nobody finds it gone.
    pub early_ns: u64,
    /// Whoever asks later than this finds it gone.
    pub late_ns: u64,
}

impl Life {
    /// Between which times the value of a call goes.
    pub fn end(&self, called_ns: u64, back_ns: Option<u64>) -> (u64, u64) {
        if !self.from_now {
            return (self.early_ns, self.late_ns);
        }
        // Without an answer it may begin at any time.
        let late_ns = back_ns.map_or(u64::MAX, |back_ns| back_ns + self.late_ns);
        (called_ns + self.early_ns, late_ns)
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// The value.
    Get,
    /// Store.
    Put {
        /// What.
        value: Bytes,
    },
    /// Take away.
    Remove,
    /// Take away, and tell what it was.
    Take,
    /// Store, and tell what was there.
    Swap {
        /// What.
        value: Bytes,
    },
    /// Store for a while.
    PutFor {
        /// What.
        value: Bytes,
        /// How long.
        life: Life,
    },
    /// From now on the value is to be there for so long.
    Expire {
        /// How long.
        life: Life,
    },
    /// From now on the value stays.
    Persist,
    /// For how many milliseconds the value will be there.
    Left,
    /// Store when there is no value.
    PutIfAbsent {
        /// What.
        value: Bytes,
    },
    /// Store when the version is this one.
    PutIfVersion {
        /// What.
        value: Bytes,
        /// The version that was read.
        version: Version,
    },
    /// Add to a decimal number; no value is 0.
    Increment {
        /// How much.
        by: i64,
    },
    /// Add bytes at the end; no value is empty.
    Append {
        /// What.
        value: Bytes,
    },
}

impl Call {
    /// The whole value that the call stores.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put { value }
            | Self::Swap { value }
            | Self::PutFor { value, .. }
            | Self::PutIfAbsent { value }
            | Self::PutIfVersion { value, .. } => Some(value),
            _ => None,
        }
    }
}

/// What was answered. A version is `None` where the protocol does not tell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// To a get; to a take or a swap, which tell no version: what was there.
    Value {
        /// The value.
        value: Bytes,
        /// Its version.
        version: Option<Version>,
    },
    /// There is no value (a get), or there was none (a remove, a take, a swap).
    Absent,
    /// A put or a remove happened.
    Done {
        /// The version written.
        version: Option<Version>,
    },
    /// A condition did not hold.
    Refused {
        /// The key's version; [`Version::NONE`] when it has no value.
        current: Option<Version>,
    },
    /// An increment happened; or how long a value will be there, with -1 for a value that stays.
    Integer {
        /// The sum, or the time.
        value: i64,
        /// The version written.
        version: Option<Version>,
    },
    /// An append happened.
    Length {
        /// The value's length now.
        len: u64,
        /// The version written.
        version: Option<Version>,
    },
    /// It failed, and it is certain that nothing was changed and never will be.
    Failed,
}

impl Back {
    /// The version that the call wrote.
    pub fn written(&self) -> Option<Version> {
        match self {
            Self::Done { version }
            | Self::Integer { version, .. }
            | Self::Length { version, .. } => *version,
            _ => None,
        }
    }
}

/// A call and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Unique in its history.
    pub id: u64,
    /// Who called.
    pub client: u32,
    /// When it was called.
    pub called_ns: u64,
    /// What.
    pub call: Call,
    /// When it was answered, and what. `None`: nobody knows the outcome.
    pub back: Option<(u64, Back)>,
}

/// A line of a recorded history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Line {
    /// Written before the request is sent.
    Call {
        /// Unique in the history, whichever process wrote it.
        id: u64,
        /// Who called.
        client: u32,
        /// A clock that all clients of the history share (`CLOCK_BOOTTIME` of one machine).
        at_ns: u64,
        /// The key.
        key: Bytes,
        /// What.
        call: Call,
    },
    /// Written when the answer is there. Not written when the outcome is unknown.
    Back {
        /// The call's.
        id: u64,
        /// The same clock.
        at_ns: u64,
        /// What.
        back: Back,
    },
}

/// All calls of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Bytes, Vec<Operation>>,
    /// Where an id is.
    places: BTreeMap<u64, (Bytes, usize)>,
}

impl History {
    /// Takes one line.
    pub fn push(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Call { id, client, at_ns, key, call } => {
                let operations = self.keys.entry(key.clone()).or_default();
                operations.push(Operation { id, client, called_ns: at_ns, call, back: None });
                let place = (key, operations.len() - 1);
                match self.places.insert(id, place) {
                    None => Ok(()),
                    Some(_) => Err(format!("two calls have the id {id}")),
                }
            }
            Line::Back { id, at_ns, back } => {
                let place = self.places.get(&id);
                let (key, at) = place.ok_or_else(|| format!("answer {id} has no call"))?;
                let operation = self.keys.get_mut(key).and_then(|o| o.get_mut(*at));
                let operation = operation.ok_or_else(|| format!("answer {id} has no call"))?;
                if at_ns < operation.called_ns {
                    return Err(format!("{id} was answered before it was called"));
                }
                // What the retry of a take of nothing is told.
                let taken = operation.call == Call::Take && matches!(back, Back::Refused { .. });
                let back = if taken { Back::Absent } else { back };
                match operation.back.replace((at_ns, back)) {
                    None => Ok(()),
                    Some(_) => Err(format!("{id} was answered twice")),
                }
            }
        }
    }

    /// What became of a call, as far as it is known.
    pub fn back(&self, id: u64) -> Option<&Back> {
        let (key, at) = self.places.get(&id)?;
        self.keys.get(key)?.get(*at)?.back.as_ref().map(|(_, back)| back)
    }

    /// Takes JSON lines. A last line that a killed process left torn is left out.
    pub fn read_lines(&mut self, text: &str) -> Result<(), String> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (n, line) in whole.lines().enumerate() {
            let wrong = |e: &dyn fmt::Display| format!("line {}: {e}", n + 1);
            let line = serde_json::from_str(line).map_err(|e| wrong(&e))?;
            self.push(line).map_err(|e| wrong(&e))?;
        }
        Ok(())
    }

    /// Operations by key, without those that are certain not to have happened.
    pub fn by_key(&self) -> impl Iterator<Item = (&Bytes, Vec<Operation>)> {
        self.keys.iter().map(|(key, operations)| {
            let happened = |o: &&Operation| !matches!(o.back, Some((_, Back::Failed)));
            (key, operations.iter().filter(happened).cloned().collect())
        })
    }

    /// How many calls were made.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// None were.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
