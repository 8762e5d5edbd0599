//! Endpoints and their table.

use std::cell::Cell;
use std::os::fd::RawFd;

use crate::fabric::{CloseReason, Ep, Port};
use crate::frame::{Decoder, HELLO_BYTES};
use crate::limits::{ENDPOINTS_MAX, FRAMES_SHARE};

use super::output::Output;

/// The life of an endpoint, in this order; only forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The slot is unused.
    Free,
    /// Dialled, not connected.
    Connecting,
    /// Connected; the peer's handshake has not come.
    Greeting,
    /// Both directions work.
    Open,
    /// The peer has finished. A stream is its owner's to close; of frames, what is answered in this turn still leaves.
    Finishing,
    /// No more is queued; what was is being sent.
    Draining,
    /// Shut down; waits for operations in flight.
    Dying,
}

/// What received bytes mean.
pub enum Input {
    /// Nothing: they are the caller's.
    Stream,
    /// The peer's handshake, this much of it.
    Greeting { have: u8, bytes: [u8; HELLO_BYTES] },
    /// Frames.
    Frames(Decoder),
}

/// One connection.
pub struct Endpoint {
    pub fd: RawFd,
    pub generation: u32,
    pub state: State,
    pub port: Port,
    /// We dialled it, so the caller knows it although it was never reported open.
    pub dialled: bool,
    /// [`crate::Event::Opened`] was reported.
    pub opened: bool,
    pub receiving: bool,
    /// When it last got a receive buffer, or began: the core's count of buffers then.
    pub fed_at: u64,
    pub sending: bool,
    /// While it drains: when it is given up.
    pub drain_due: u64,
    pub connecting: bool,
    /// Receiving is stopped until the output has drained.
    pub paused: bool,
    /// Receiving never stops for a full output.
    pub reads_on: bool,
    /// Receiving is stopped because the caller said so.
    pub held: bool,
    /// Receiving stopped for want of buffers; the endpoint is in the list of the starved.
    pub starved: bool,
    /// In the list of endpoints with something to send.
    pub dirty: bool,
    /// In the list of endpoints to be swept.
    pub swept: bool,
    /// The caller was told "full" and is owed a [`crate::Event::Drained`]. A cell, because asking for room tells.
    pub owed: Cell<bool>,
    pub reason: CloseReason,
    pub input: Input,
    pub output: Output,
}

const _: () = assert!(size_of::<Endpoint>() < 300, "10,000 idle connections are a promise");

impl Endpoint {
    fn free() -> Self {
        Self {
            fd: -1,
            generation: 0,
            state: State::Free,
            port: Port::Stream,
            dialled: false,
            opened: false,
            receiving: false,
            fed_at: 0,
            sending: false,
            drain_due: 0,
            connecting: false,
            paused: false,
            reads_on: false,
            held: false,
            starved: false,
            dirty: false,
            swept: false,
            owed: Cell::new(false),
            reason: CloseReason::Finished,
            input: Input::Stream,
            output: Output::default(),
        }
    }

    /// Whether the caller may queue output.
    pub fn takes_output(&self) -> bool {
        matches!(self.state, State::Open | State::Finishing)
    }

    /// Whether received bytes are still wanted.
    pub fn takes_input(&self) -> bool {
        matches!(self.state, State::Greeting | State::Open)
    }

    /// Whether the kernel still has an operation of it.
    pub fn busy(&self) -> bool {
        self.receiving || self.sending || self.connecting
    }
}

/// The endpoints of a core. Slots are reused, last freed first; the generation tells handles apart.
pub struct Table {
    slots: Vec<Endpoint>,
    free: Vec<u32>,
    max: usize,
}

impl Table {
    /// An empty table, which grows as connections come.
    pub fn new(max: usize) -> Self {
        assert!(max <= ENDPOINTS_MAX, "a core has at most {ENDPOINTS_MAX} endpoints");
        Self { slots: Vec::new(), free: Vec::new(), max }
    }

    /// Takes a slot; `None` when all are in use.
    pub fn insert(&mut self, fd: RawFd, port: Port, state: State) -> Option<Ep> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.max => {
                self.slots.push(Endpoint::free());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let endpoint = &mut self.slots[slot as usize];
        let generation = endpoint.generation;
        *endpoint = Endpoint::free();
        endpoint.generation = generation;
        endpoint.fd = fd;
        endpoint.port = port;
        endpoint.state = state;
        endpoint.input = match port {
            Port::Stream => Input::Stream,
            Port::Frames => Input::Greeting { have: 0, bytes: [0; HELLO_BYTES] },
        };
        Some(Ep { slot, generation })
    }

    /// Frees a slot; handles to it are stale from here on.
    pub fn remove(&mut self, slot: u32) {
        let endpoint = &mut self.slots[slot as usize];
        let generation = endpoint.generation.wrapping_add(1);
        *endpoint = Endpoint::free();
        endpoint.generation = generation;
        self.free.push(slot);
    }

    /// The endpoint, unless the handle is stale.
    pub fn get(&self, ep: Ep) -> Option<&Endpoint> {
        self.slots
            .get(ep.slot as usize)
            .filter(|e| e.generation == ep.generation && e.state != State::Free)
    }

    /// The endpoint, unless the handle is stale.
    pub fn get_mut(&mut self, ep: Ep) -> Option<&mut Endpoint> {
        self.slots
            .get_mut(ep.slot as usize)
            .filter(|e| e.generation == ep.generation && e.state != State::Free)
    }

    /// The slot, in use or not.
    pub fn at(&mut self, slot: u32) -> &mut Endpoint {
        &mut self.slots[slot as usize]
    }

    /// The same, to look at.
    pub fn see(&self, slot: u32) -> &Endpoint {
        &self.slots[slot as usize]
    }

    /// The handle of a slot.
    pub fn handle(&self, slot: u32) -> Ep {
        Ep { slot, generation: self.slots[slot as usize].generation }
    }

    /// Whether one more stream may come in.
    pub fn takes_streams(&self) -> bool {
        self.len() < self.max - self.max / FRAMES_SHARE
    }

    /// Endpoints in use.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Descriptors in use.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.slots.iter().map(|e| e.fd).filter(|fd| *fd >= 0)
    }
}
