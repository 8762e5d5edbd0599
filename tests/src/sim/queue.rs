//! What happens next: events in the order of their times, and of two at one time the one that was made first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::clock::Ns;

#[derive(Debug)]
struct Due<E> {
    at: Ns,
    order: u64,
    event: E,
}

/// The earliest is the greatest.
impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<E> Eq for Due<E> {}

/// See the module's text.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Due<E>>,
    made: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), made: 0 }
    }
}

impl<E> Queue<E> {
    /// Something will happen.
    pub fn push(&mut self, at: Ns, event: E) {
        self.made += 1;
        self.heap.push(Due { at, order: self.made, event });
    }

    /// When the next thing happens; `Ns::MAX`: nothing will.
    pub fn next_at(&self) -> Ns {
        self.heap.peek().map_or(Ns::MAX, |due| due.at)
    }

    /// It happens.
    pub fn pop(&mut self) -> Option<(Ns, E)> {
        self.heap.pop().map(|due| (due.at, due.event))
    }
}
