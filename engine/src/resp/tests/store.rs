//! A quick data core for the tests, which can be told to fail: four partitions of a `BTreeMap`, and answers now or later.

use std::collections::{BTreeMap, VecDeque};

use firebrick_partition::replica::OwnedAnswer;
use firebrick_partition::{Answer, Condition, Expiry, Failure, Now, Op, Version};

use super::Core;
use crate::resp::{Backend, ReplyToken, glob_matches, hash_key};

const PARTITIONS: u64 = 4;
const NEW: Version = Version { epoch: 1, seq: 1 };

#[derive(Clone, Debug)]
struct Item {
    key: Vec<u8>,
    value: Vec<u8>,
    expires_ms: u64,
}

/// An answer with its bytes.
#[derive(Debug)]
pub struct Owned {
    answer: Answer<'static>,
    bytes: Vec<u8>,
}

impl Owned {
    fn plain(answer: Answer<'static>) -> Self {
        Self { answer, bytes: Vec::new() }
    }

    pub fn borrow(&self) -> Answer<'_> {
        let bytes = &self.bytes[..];
        match self.answer {
            Answer::Value { version, expires_ms, .. } => {
                Answer::Value { value: bytes, version, expires_ms }
            }
            Answer::Old { applied, existed, version, .. } => {
                Answer::Old { applied, existed, value: bytes, version }
            }
            Answer::Float { version, .. } => Answer::Float { value: bytes, version },
            Answer::Keys { cursor, .. } => Answer::Keys { cursor, packed: bytes },
            Answer::Key { .. } => Answer::Key { key: bytes },
            other => other,
        }
    }
}

pub struct Store {
    /// By bit-reversed hash, so that a partition is a range.
    items: BTreeMap<u64, Item>,
    pub now: Now,
    /// Partitions whose answers come later: a bit each.
    pub remote: u64,
    pub fail: Option<Failure>,
    waiting: Vec<VecDeque<(ReplyToken, OwnedAnswer)>>,
    turn: usize,
    answer: Owned,
    pub submitted: u64,
}

impl Store {
    pub fn new(now: Now) -> Self {
        Self {
            items: BTreeMap::new(),
            now,
            remote: 0,
            fail: None,
            waiting: (0..PARTITIONS).map(|_| VecDeque::new()).collect(),
            turn: 0,
            answer: Owned::plain(Answer::Absent),
            submitted: 0,
        }
    }

    fn run(&mut self, hash: u64, key: &[u8], op: Op<'_>) -> Owned {
        let at = hash.reverse_bits();
        let now_ms = self.now.unix_ms;
        self.items.retain(|_, item| item.expires_ms == 0 || item.expires_ms > now_ms);
        let part = at >> 62;
        let first = part << 62;
        let last = first | (u64::MAX >> 2);
        match op {
            Op::Scan { cursor, count } => {
                let mut packed = Vec::new();
                let mut range = self.items.range(cursor..=last);
                for (_, item) in range.by_ref().take(count as usize) {
                    packed.extend_from_slice(&(item.key.len() as u32).to_le_bytes());
                    packed.extend_from_slice(&item.key);
                }
                let cursor = range.next().map_or(last.wrapping_add(1), |(&at, _)| at);
                return Owned { answer: Answer::Keys { cursor, packed: &[] }, bytes: packed };
            }
            Op::Count => {
                let count = self.items.range(first..=last).count() as u64;
                return Owned::plain(Answer::Count { count });
            }
            Op::Clear => {
                self.items.retain(|&at, _| at >> 62 != part);
                return Owned::plain(Answer::Done { version: NEW });
            }
            Op::RandomKey { .. } => {
                return match self.items.range(first..=last).next() {
                    Some((_, item)) => {
                        Owned { answer: Answer::Key { key: &[] }, bytes: item.key.clone() }
                    }
                    None => Owned::plain(Answer::Absent),
                };
            }
            _ => {}
        }
        let old = self.items.get(&at).cloned();
        let (answer, bytes, new) = on_key(key, old, op, now_ms);
        match new {
            New::Same => {}
            New::Gone => drop(self.items.remove(&at)),
            New::Item(item) if item.expires_ms != 0 && item.expires_ms <= now_ms => {
                self.items.remove(&at);
            }
            New::Item(item) => drop(self.items.insert(at, item)),
        }
        Owned { answer, bytes }
    }
}

enum New {
    Same,
    Gone,
    Item(Item),
}

fn on_key(
    key: &[u8],
    old: Option<Item>,
    op: Op<'_>,
    now_ms: u64,
) -> (Answer<'static>, Vec<u8>, New) {
    let done = Answer::Done { version: NEW };
    let fails = |failure| (Answer::Failed(failure), Vec::new(), New::Same);
    let expires_ms = old.as_ref().map_or(0, |o| o.expires_ms);
    let with = |value| New::Item(Item { key: key.to_vec(), value, expires_ms });
    let holds = |condition| match condition {
        Condition::Absent => old.is_none(),
        Condition::Present => old.is_some(),
        _ => true,
    };
    let old_answer = |applied| {
        let (existed, bytes) = (old.is_some(), old.clone().map_or(Vec::new(), |o| o.value));
        (Answer::Old { applied, existed, value: &[], version: NEW }, bytes)
    };
    match op {
        Op::Get => match old {
            Some(o) => (Answer::Value { value: &[], version: NEW, expires_ms }, o.value, New::Same),
            None => (Answer::Absent, Vec::new(), New::Same),
        },
        Op::Look => match old {
            Some(o) => {
                let len = o.value.len() as u32;
                (Answer::Seen { len, version: NEW, expires_ms }, Vec::new(), New::Same)
            }
            None => (Answer::Absent, Vec::new(), New::Same),
        },
        Op::Put { value, expiry, condition, want_old } => {
            let expires_ms = match expiry {
                Expiry::Never => 0,
                Expiry::Keep => expires_ms,
                Expiry::At(ms) => ms,
            };
            let applied = holds(condition);
            let item = Item { key: key.to_vec(), value: value.to_vec(), expires_ms };
            let new = if applied { New::Item(item) } else { New::Same };
            if want_old {
                let (answer, bytes) = old_answer(applied);
                return (answer, bytes, new);
            }
            let refused = Answer::Refused { current: NEW };
            (if applied { done } else { refused }, Vec::new(), new)
        }
        Op::Remove { want_old: true, .. } => {
            let (answer, bytes) = old_answer(old.is_some());
            (answer, bytes, New::Gone)
        }
        Op::Remove { .. } => {
            (if old.is_some() { done } else { Answer::Absent }, Vec::new(), New::Gone)
        }
        Op::Increment { by } => {
            let text = old.as_ref().map_or(&b"0"[..], |o| &o.value);
            let Some(value) = crate::resp::number::parse_i64(text) else {
                return fails(Failure::NotInteger);
            };
            let Some(value) = value.checked_add(by) else { return fails(Failure::Overflow) };
            let answer = Answer::Integer { value, version: NEW };
            (answer, Vec::new(), with(value.to_string().into_bytes()))
        }
        Op::IncrementFloat { by } => {
            let text = old.as_ref().map_or(&b"0"[..], |o| &o.value);
            let Some(value) = crate::resp::number::parse_f64(text) else {
                return fails(Failure::NotFloat);
            };
            if !(value + by).is_finite() {
                return fails(Failure::NotFinite);
            }
            let text = format!("{}", value + by).into_bytes();
            (Answer::Float { value: &[], version: NEW }, text.clone(), with(text))
        }
        Op::Append { value } => {
            let mut bytes = old.map_or(Vec::new(), |o| o.value);
            bytes.extend_from_slice(value);
            let answer = Answer::Length { len: bytes.len() as u64, version: NEW };
            (answer, Vec::new(), with(bytes))
        }
        Op::SetRange { offset, value } => {
            let mut bytes = old.map_or(Vec::new(), |o| o.value);
            let end = offset as usize + value.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(value);
            let answer = Answer::Length { len: bytes.len() as u64, version: NEW };
            (answer, Vec::new(), with(bytes))
        }
        Op::Expire { at_ms, when } => {
            let Some(old) = old else { return (Answer::Absent, Vec::new(), New::Same) };
            let infinite = |ms: u64| if ms == 0 { u64::MAX } else { ms };
            let (new, current) = (infinite(at_ms), infinite(expires_ms));
            if (when.nx && expires_ms != 0)
                || (when.xx && expires_ms == 0)
                || (when.gt && new <= current)
                || (when.lt && new >= current)
            {
                return (Answer::Absent, Vec::new(), New::Same);
            }
            if at_ms != 0 && at_ms <= now_ms {
                return (done, Vec::new(), New::Gone);
            }
            (done, Vec::new(), New::Item(Item { expires_ms: at_ms, ..old }))
        }
        _ => fails(Failure::Malformed),
    }
}

impl Core for Store {
    /// Of each partition in order, of the partitions in any.
    fn deliver(&mut self) -> Option<(ReplyToken, OwnedAnswer)> {
        for _ in 0..PARTITIONS {
            self.turn = (self.turn + 3) % PARTITIONS as usize;
            if let Some(next) = self.waiting[self.turn].pop_front() {
                return Some(next);
            }
        }
        None
    }
}

impl Backend for Store {
    fn now(&self) -> Now {
        self.now
    }

    fn is_serving(&self) -> bool {
        self.fail != Some(Failure::Unavailable)
    }

    fn prefetch_bucket(&self, _: u64) {}

    fn prefetch_record(&self, _: u64) {}

    fn submit(
        &mut self,
        token: ReplyToken,
        hash: u64,
        key: &[u8],
        op: Op<'_>,
    ) -> Option<Answer<'_>> {
        self.submitted += 1;
        let answer = match self.fail {
            Some(failure) => Owned::plain(Answer::Failed(failure)),
            None => self.run(hash, key, op),
        };
        let part = (hash.reverse_bits() >> 62) as usize;
        if self.remote >> part & 1 == 1 {
            self.waiting[part].push_back((token, OwnedAnswer::new(&answer.borrow())));
            return None;
        }
        self.answer = answer;
        Some(self.answer.borrow())
    }

    fn partition_hashes(&self, out: &mut Vec<u64>) {
        out.extend((0..PARTITIONS).map(|part| (part << 62).reverse_bits()));
    }

    fn info(&mut self, section: &str, out: &mut String) {
        if matches!(section, "default" | "server") {
            out.push_str("# Server\r\nredis_mode:standalone\r\n");
        }
    }

    fn config_get(&self, pattern: &[u8], out: &mut Vec<(String, String)>) {
        for (name, value) in [("appendonly", "yes"), ("save", "")] {
            if glob_matches(pattern, name.as_bytes()) {
                out.push((name.into(), value.into()));
            }
        }
    }

    fn clients(&mut self, _: u32, out: &mut String) {
        out.push_str("id=43 addr=b:2 laddr=a:1 name=\n");
    }

    fn addresses(&self, _: u32) -> (String, String) {
        ("b:1".into(), "a:1".into())
    }
}

/// The partition of a key.
pub fn partition_of(key: &[u8]) -> u64 {
    hash_key(key).reverse_bits() >> 62
}
