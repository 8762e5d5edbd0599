//! The numbering of writes within one session (docs/protocol.md, "Exactly once").
//!
//! Invariant: no number is given out 64 or more above the lowest unanswered one, so the brick, which
//! remembers a window of 64, always knows the answer of everything that may still be retried.

use firebrick_partition::op::{Numbered, RequestId, SessionId};

/// How many numbers may be unanswered at once, from the lowest on.
pub(crate) const WINDOW: u32 = 64;
/// A session is left before its numbers run out.
const LAST_NUMBER: u32 = u32::MAX - 1;

/// Numbers of one session, from 1.
#[derive(Debug)]
pub(crate) struct Numbers {
    session: SessionId,
    next: u32,
    lowest_unanswered: u32,
    /// Bit `i`: number `lowest_unanswered + i` was answered. Bit 0 is never set.
    answered: u64,
}

impl Numbers {
    pub(crate) fn new(session: SessionId) -> Self {
        Self { session, next: 1, lowest_unanswered: 1, answered: 0 }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    /// The next number, or `None` while the window is full.
    pub(crate) fn take(&mut self) -> Option<RequestId> {
        if self.next - self.lowest_unanswered >= WINDOW || self.is_used_up() {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some(RequestId { session: self.session, number })
    }

    /// All numbers were given out: a new session is needed.
    pub(crate) fn is_used_up(&self) -> bool {
        self.next > LAST_NUMBER
    }

    /// Nothing is unanswered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.next == self.lowest_unanswered
    }

    /// The request was answered, or will never be sent again. `true` when the window moved.
    pub(crate) fn finish(&mut self, id: RequestId) -> bool {
        // (A number above was given out by a session of this name before: only a brick that makes no sense names two alike.)
        if id.session != self.session || !(self.lowest_unanswered..self.next).contains(&id.number) {
            return false;
        }
        self.answered |= 1 << (id.number - self.lowest_unanswered);
        let moved = self.answered.trailing_ones();
        self.lowest_unanswered += moved;
        self.answered = self.answered.checked_shr(moved).unwrap_or(0);
        moved > 0
    }

    /// `id` as it travels.
    pub(crate) fn numbered(&self, id: RequestId) -> Numbered {
        let answered_to = if id.session == self.session { self.lowest_unanswered - 1 } else { 0 };
        Numbered { id, answered_to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Numbers {
        Numbers::new(SessionId { partition: 1, opened: 7 })
    }

    #[test]
    fn the_window_stops_64_above_the_lowest_unanswered() {
        let mut n = numbers();
        let ids: Vec<_> = std::iter::from_fn(|| n.take()).collect();
        assert_eq!(ids.len(), 64);
        // All but the first answered: still none may be sent, because 65 is 64 above 1.
        for id in &ids[1..] {
            assert!(!n.finish(*id));
        }
        assert_eq!(n.take(), None);
        assert!(n.finish(ids[0]));
        assert!(n.is_quiet());
        let next = n.take().unwrap();
        assert_eq!(next.number, 65);
        assert_eq!(n.numbered(next).answered_to, 64);
    }

    #[test]
    fn an_answer_of_an_earlier_session_changes_nothing() {
        let mut n = numbers();
        let id = n.take().unwrap();
        let old = RequestId { session: SessionId { partition: 1, opened: 3 }, number: 1 };
        assert!(!n.finish(old));
        assert_eq!(n.numbered(id).answered_to, 0);
        assert!(!n.finish(RequestId { number: 9, ..id }), "a number that was never given out");
        assert!(n.finish(id));
        assert!(!n.finish(id), "a second answer changes nothing");
    }

    #[test]
    fn a_session_ends_before_its_numbers_do() {
        let mut n = numbers();
        n.next = LAST_NUMBER;
        n.lowest_unanswered = LAST_NUMBER;
        let last = n.take().unwrap();
        assert_eq!(n.take(), None);
        assert!(n.is_used_up() && !n.is_quiet());
        n.finish(last);
        assert!(n.is_quiet());
    }
}
