//! Answers that rest on a record which is not committed yet: bounded in number and in bytes.

use super::{OwnedAnswer, WAITERS_MAX, WAITING_BYTES_MAX};

/// An answer that waits for a record to commit.
#[derive(Debug)]
pub(super) struct Waiter {
    pub rests_on: u64,
    pub token: u64,
    pub answer: OwnedAnswer,
}

/// All of a replica's.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    list: Vec<Waiter>,
    /// Of values in them.
    bytes: usize,
}

impl Waiters {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.list.len() >= WAITERS_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    pub fn push(&mut self, waiter: Waiter) {
        self.bytes += waiter.answer.bytes();
        self.list.push(waiter);
    }

    /// Those that rest on what is committed now.
    pub fn take_until(&mut self, commit: u64) -> impl Iterator<Item = Waiter> {
        let Self { list, bytes } = self;
        let ready = list.extract_if(.., move |w| w.rests_on <= commit);
        ready.inspect(|w| *bytes -= w.answer.bytes())
    }

    /// All of them.
    pub fn take(&mut self) -> Vec<Waiter> {
        std::mem::take(self).list
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
