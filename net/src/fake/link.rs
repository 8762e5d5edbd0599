//! A connection: what travels on it in each direction.

use std::collections::VecDeque;

use super::world::Place;
use crate::fabric::{CloseReason, Ep, Port};

/// What reaches a place.
pub enum Arrival {
    /// The connection that was dialled is there.
    Opened(Port),
    /// A frame's payload, or bytes of a stream.
    Bytes(Vec<u8>),
    /// The endpoint's end.
    End(CloseReason),
}

/// One direction of a link.
#[derive(Default)]
pub struct Lane {
    queue: VecDeque<(u64, Arrival)>,
    last_ns: u64,
    pub unread: usize,
    pub paused: bool,
    pub ended: bool,
    /// Nobody will take anything here any more.
    pub over: bool,
    /// Whoever takes it has ended it: no network is needed for that.
    pub ends_here: bool,
}

impl Lane {
    /// Something is on its way, unless the end is.
    pub fn push(&mut self, due_ns: u64, arrival: Arrival) {
        if self.ended {
            return;
        }
        match &arrival {
            Arrival::Opened(_) => {}
            Arrival::Bytes(bytes) => self.unread += bytes.len(),
            Arrival::End(_) => self.ended = true,
        }
        // In order on one endpoint: never due before what was sent earlier.
        self.last_ns = self.last_ns.max(due_ns);
        self.queue.push_back((self.last_ns, arrival));
    }

    /// When the next thing arrives. The end comes even to one who has paused.
    pub fn due_ns(&self) -> Option<u64> {
        let (due, arrival) = self.queue.front()?;
        (!self.paused || !matches!(arrival, Arrival::Bytes(_))).then_some(*due)
    }

    /// Takes what arrives next.
    pub fn pop(&mut self) -> Option<Arrival> {
        let (_, arrival) = self.queue.pop_front()?;
        match &arrival {
            Arrival::Opened(_) => {}
            Arrival::Bytes(bytes) => self.unread -= bytes.len(),
            Arrival::End(_) => self.over = true,
        }
        Some(arrival)
    }

    /// How much is on its way.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Loses all but the first `keep`, the end too.
    pub fn truncate(&mut self, keep: usize) {
        self.queue.truncate(keep);
        self.ended = false;
    }

    /// Its taker ends it: what was on its way is nobody's any more.
    pub fn end_here(&mut self, due_ns: u64, arrival: Arrival) {
        self.truncate(0);
        self.ends_here = true;
        self.push(due_ns, arrival);
    }

    /// What was on its way while the network was cut is sent again.
    pub fn again(&mut self, not_before_ns: u64) {
        for (due_ns, _) in &mut self.queue {
            *due_ns = (*due_ns).max(not_before_ns);
        }
        if !self.queue.is_empty() {
            self.last_ns = self.last_ns.max(not_before_ns);
        }
    }

    /// Whoever would take it is gone.
    pub fn give_up(&mut self) {
        self.queue.clear();
        self.over = true;
        self.ended = true;
    }
}

/// A connection between two places.
pub struct Link {
    pub places: [Place; 2],
    pub hosts: [usize; 2],
    pub ends: [Option<Ep>; 2],
    /// What travels to each side.
    pub to: [Lane; 2],
    /// It was dialled while the network was cut: the other side does not know of it.
    pub unheard: bool,
}

impl Link {
    /// A connection on which nothing travels yet.
    pub fn new(places: [Place; 2], hosts: [usize; 2]) -> Self {
        Self { places, hosts, ends: [None; 2], to: Default::default(), unheard: false }
    }

    /// Both sides know that it has ended.
    pub fn is_over(&self) -> bool {
        self.to.iter().all(|lane| lane.over)
    }
}
