//! What a replica returns: answers now or later, and what it wants done.

use firebrick_log::{Ask, Corrupt, Slice};

pub use crate::keeper::Report;
use crate::op::Answer;

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// Answered; bytes point into the mapped log or the replica's buffer.
    Now(Answer<'a>),
    /// An [`Action::Reply`] with the request's token comes later.
    Later,
}

/// An answer that owns its bytes.
#[derive(Clone, Debug)]
pub struct OwnedAnswer {
    shape: Answer<'static>,
    bytes: Box<[u8]>,
}

impl OwnedAnswer {
    /// A copy.
    pub fn new(answer: &Answer<'_>) -> Self {
        let (shape, bytes): (Answer<'static>, &[u8]) = match *answer {
            Answer::Value { value, version, expires_ms } => {
                (Answer::Value { value: &[], version, expires_ms }, value)
            }
            Answer::Old { applied, existed, value, version } => {
                (Answer::Old { applied, existed, value: &[], version }, value)
            }
            Answer::Float { value, version } => (Answer::Float { value: &[], version }, value),
            Answer::Keys { cursor, packed } => (Answer::Keys { cursor, packed: &[] }, packed),
            Answer::Key { key } => (Answer::Key { key: &[] }, key),
            Answer::Seen { len, version, expires_ms } => {
                (Answer::Seen { len, version, expires_ms }, &[])
            }
            Answer::Absent => (Answer::Absent, &[]),
            Answer::Done { version } => (Answer::Done { version }, &[]),
            Answer::Integer { value, version } => (Answer::Integer { value, version }, &[]),
            Answer::Length { len, version } => (Answer::Length { len, version }, &[]),
            Answer::Refused { current } => (Answer::Refused { current }, &[]),
            Answer::Count { count } => (Answer::Count { count }, &[]),
            Answer::Session { session } => (Answer::Session { session }, &[]),
            Answer::StaleRoute { route } => (Answer::StaleRoute { route }, &[]),
            Answer::Failed(failure) => (Answer::Failed(failure), &[]),
        };
        Self { shape, bytes: bytes.into() }
    }

    /// Of the value or the keys in it.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The answer, borrowed.
    pub fn get(&self) -> Answer<'_> {
        let bytes = &*self.bytes;
        match self.shape {
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

/// What a replica wants done.
#[derive(Debug)]
pub enum Action {
    /// Answer a request that was told `Later`.
    Reply {
        /// The request's.
        token: u64,
        /// The answer.
        answer: OwnedAnswer,
    },
    /// Something for the log: a segment, a write, a file job.
    Log(Ask),
    /// A stored record is damaged: report it. It is not served.
    Corrupt(Corrupt),
    /// A write of this request is prepared and will be decided by another primary: it is never
    /// answered. A native connection is closed (the client asks again with the same number); whoever
    /// cannot ask again is told that it is in doubt.
    Unanswered {
        /// The request's.
        token: u64,
    },
    /// A small message to a brick.
    Send {
        /// Brick id.
        to: u32,
        /// A payload, encoded.
        message: Vec<u8>,
    },
    /// Records to a brick: one payload of `head` and then `body`. The body is pinned already: call
    /// [`Log::unpin`](firebrick_log::Log::unpin) of `body.loc` once it was sent or given up.
    Ship {
        /// Brick id.
        to: u32,
        /// The message's beginning.
        head: Vec<u8>,
        /// Its end.
        body: Slice,
    },
    /// Something for the keepers. Repeated until the map shows that they know.
    Report(Report),
}

/// A buffer of actions, used again.
#[derive(Debug, Default)]
pub struct Actions {
    /// In order.
    pub list: Vec<Action>,
}

impl Actions {
    /// Adds one.
    pub fn push(&mut self, action: Action) {
        self.list.push(action);
    }
}
