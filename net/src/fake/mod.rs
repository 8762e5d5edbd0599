//! The simulator's fabric: many ends in one process, virtual time, seeded delay and loss.
//!
//! A [`World`] is the network; each brick or client under test has a [`Fake`] of it. Time moves only by the
//! `boot_ns` that [`Fabric::poll`] is given, and all chance comes from the world's seed, so a run can be repeated.
//!
//! What holds, as over TCP: what is sent on one endpoint arrives in order and whole, or the connection ends. Between
//! endpoints every order is possible. A loss is the loss of a connection, seen by both ends at times of their own.

mod link;
mod peer;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::fabric::{Body, DiskWrite, Ep, Event, Fabric, Full, Load, Port, Rx, RxInner, Token};
use crate::limits::{
    CQES_PER_POLL_MAX, DISK_WRITES_MAX, ENDPOINTS_MAX, FRAME_BYTES_MAX, OUT_BYTES_MAX,
};
use link::Arrival;
pub use peer::Peer;
pub use world::{Disk, Settings};
use world::{Network, Place};

/// The network between all fakes.
#[derive(Clone)]
pub struct World(Rc<RefCell<Network>>);

impl World {
    /// A network with this seed.
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self(Rc::new(RefCell::new(Network::new(seed, settings))))
    }

    /// One more end, on a host of its own.
    pub fn fake(&self) -> Fake {
        let place = self.0.borrow_mut().add_place();
        self.make(place, usize::MAX - place)
    }

    /// One more end on a host, by the caller's number of it.
    pub fn fake_on(&self, host: usize) -> Fake {
        let place = self.0.borrow_mut().add_place();
        self.make(place, host)
    }

    fn make(&self, place: Place, host: usize) -> Fake {
        Fake {
            net: Rc::clone(&self.0),
            place,
            host,
            ends: Vec::new(),
            now: 0,
            ready: Vec::new(),
            dirty: Vec::new(),
            writes: BTreeMap::new(),
        }
    }

    /// From here on the network has a time of its own, which this moves: its ends may have clocks that drift, and
    /// what they give to [`Fabric::poll`] says nothing about when something arrives.
    pub fn set_time(&self, now_ns: u64) {
        self.0.borrow_mut().time_ns = Some(now_ns);
    }

    /// Nothing gets from one host to another, in this direction, until [`World::unblock`]: it waits, and whoever
    /// dials waits too.
    pub fn block(&self, from: usize, to: usize, now_ns: u64) {
        self.0.borrow_mut().block(from, to, now_ns);
    }

    /// Ends [`World::block`]. What waited arrives, at the latest after as long again.
    pub fn unblock(&self, from: usize, to: usize, now_ns: u64) {
        self.0.borrow_mut().unblock(from, to, now_ns);
    }

    /// All connections between two hosts are lost. New ones may be made.
    pub fn sever(&self, a: usize, b: usize, now_ns: u64) {
        self.0.borrow_mut().sever(a, b, now_ns);
    }

    /// Connects two fakes with a pair of endpoints. Both report [`Event::Opened`].
    pub fn connect(&self, a: &mut Fake, b: &mut Fake, port: Port) -> (Ep, Ep) {
        let link = self.0.borrow_mut().add_link([(a.place, a.host), (b.place, b.host)]);
        (a.open(link, 0, port), b.open(link, 1, port))
    }

    /// A stream endpoint fed by the test: [`Peer::feed`] is what it says, [`Peer::taken`] what it was answered.
    pub fn stream(&self, fake: &mut Fake) -> (Ep, Peer) {
        let mut net = self.0.borrow_mut();
        let place = net.add_place();
        let link = net.add_link([(fake.place, fake.host), (place, usize::MAX - place)]);
        drop(net);
        (fake.open(link, 0, Port::Stream), Peer { net: Rc::clone(&self.0), place, link })
    }

    /// Changes what goes wrong from here on.
    pub fn set(&self, settings: Settings) {
        self.0.borrow_mut().settings = settings;
    }

    /// Cuts all connections between the hosts of two fakes, now. New ones may be made.
    pub fn cut(&self, a: &Fake, b: &Fake) {
        self.sever(a.host, b.host, a.time().max(b.time()));
    }

    /// Nothing gets from one fake's host to the other's or back until [`World::join`].
    pub fn part(&self, a: &Fake, b: &Fake) {
        for (from, to) in [(a, b), (b, a)] {
            self.block(from.host, to.host, a.time().max(b.time()));
        }
    }

    /// Ends [`World::part`].
    pub fn join(&self, a: &Fake, b: &Fake) {
        for (from, to) in [(a, b), (b, a)] {
            self.unblock(from.host, to.host, a.time().max(b.time()));
        }
    }

    /// The earliest time at which something arrives anywhere; `None`: nothing is on its way.
    pub fn next_ns(&self) -> Option<u64> {
        self.0.borrow().next_ns()
    }
}

struct End {
    generation: u32,
    /// `None`: closed, the slot waits for its next use.
    link: Option<(usize, usize)>,
    port: Port,
    out: Vec<u8>,
    /// Frames that leave with the next flush.
    frames: Vec<Vec<u8>>,
    closing: bool,
    paused: bool,
    reads_on: bool,
    held: bool,
    owed: std::cell::Cell<bool>,
}

/// One end of the network. Implements [`Fabric`] without a system call.
pub struct Fake {
    net: Rc<RefCell<Network>>,
    place: Place,
    host: usize,
    ends: Vec<End>,
    /// By its own clock, when the network has none.
    now: u64,
    ready: Vec<Event>,
    dirty: Vec<u32>,
    /// Disk writes in flight, which the test may complete.
    writes: BTreeMap<u64, DiskWrite>,
}

impl Drop for Fake {
    /// Its process is gone: peers see their connections end, and nobody is reached here any more.
    fn drop(&mut self) {
        let now = self.time();
        self.net.borrow_mut().vanish(self.place, now);
    }
}

impl Fake {
    /// Others may dial this address from now on. Several of one host may share it: a connection comes to one.
    pub fn listen(&mut self, address: SocketAddr) {
        self.net.borrow_mut().listen(self.place, self.host, address);
    }

    /// When something arrives here; `None`: nothing is on its way.
    pub fn next_ns(&self) -> Option<u64> {
        if self.ready.is_empty() { self.net.borrow().next_at(self.place) } else { Some(0) }
    }

    /// The network's time.
    fn time(&self) -> u64 {
        self.net.borrow().time_ns.unwrap_or(self.now)
    }

    /// A connection that is there from the beginning.
    fn open(&mut self, link: usize, side: usize, port: Port) -> Ep {
        let ep = self.add(link, side, port);
        self.ready.push(Event::Opened { ep, port });
        ep
    }

    fn add(&mut self, link: usize, side: usize, port: Port) -> Ep {
        assert!(self.ends.len() < ENDPOINTS_MAX, "a fake has {ENDPOINTS_MAX} endpoints");
        let end = End {
            generation: 0,
            link: Some((link, side)),
            port,
            out: Vec::new(),
            frames: Vec::new(),
            closing: false,
            paused: false,
            reads_on: false,
            held: false,
            owed: std::cell::Cell::new(false),
        };
        let free = self.ends.iter().position(|e| e.link.is_none());
        let slot = free.unwrap_or(self.ends.len());
        if let Some(slot) = free {
            let generation = self.ends[slot].generation + 1;
            self.ends[slot] = End { generation, ..end };
        } else {
            self.ends.push(end);
        }
        let ep = Ep { slot: slot as u32, generation: self.ends[slot].generation };
        self.net.borrow_mut().set_end(link, side, ep);
        ep
    }

    fn end(&self, ep: Ep) -> Option<&End> {
        self.ends
            .get(ep.slot as usize)
            .filter(|e| e.generation == ep.generation && e.link.is_some())
    }

    fn end_mut(&mut self, ep: Ep) -> Option<&mut End> {
        self.ends
            .get_mut(ep.slot as usize)
            .filter(|e| e.generation == ep.generation && e.link.is_some())
    }

    /// Bytes queued and not taken by the peer.
    fn unsent(&self, end: &End) -> usize {
        let frames: usize = end.frames.iter().map(Vec::len).sum();
        end.out.len()
            + frames
            + end.link.map_or(0, |(link, side)| self.net.borrow().unread(link, side))
    }

    /// Disk writes in flight, by token: for a test that completes them by hand ([`Disk::ByHand`]).
    pub fn writes(&self) -> impl Iterator<Item = (Token, &DiskWrite)> {
        self.writes.iter().map(|(token, write)| (Token(*token), write))
    }

    /// Completes a disk write: `result` is bytes written, or minus errno.
    pub fn complete(&mut self, token: Token, result: i32) {
        if self.writes.remove(&token.0).is_some() {
            self.ready.push(Event::Done { token, result });
        }
    }

    /// Rings, as another core would.
    pub fn wake(&mut self) {
        self.ready.push(Event::Woken);
    }

    /// Moves queued bytes into the network.
    fn push_out(&mut self) {
        let now = self.time();
        for slot in std::mem::take(&mut self.dirty) {
            let end = &mut self.ends[slot as usize];
            let Some((link, side)) = end.link else { continue };
            for frame in std::mem::take(&mut end.frames) {
                self.net.borrow_mut().send(link, side, now, frame);
            }
            if !end.out.is_empty() {
                let bytes = std::mem::take(&mut end.out);
                self.net.borrow_mut().send(link, side, now, bytes);
            }
            if self.unsent(&self.ends[slot as usize]) >= OUT_BYTES_MAX {
                let end = &mut self.ends[slot as usize];
                end.owed.set(true);
                if !end.reads_on {
                    end.paused = true;
                    self.net.borrow_mut().pause(link, side, true);
                }
            }
        }
    }

    fn arrived(&mut self, ep: Ep, arrival: Arrival, out: &mut Vec<Event>) {
        let Some(end) = self.end_mut(ep) else { return };
        match arrival {
            Arrival::Opened(_) | Arrival::Bytes(_) if end.closing => {}
            Arrival::Opened(port) => out.push(Event::Opened { ep, port }),
            Arrival::Bytes(bytes) => {
                let rx = Rx(RxInner::Heap(bytes));
                out.push(match end.port {
                    Port::Frames => Event::Frame { ep, rx },
                    Port::Stream => Event::Bytes { ep, rx },
                });
            }
            Arrival::End(reason) => {
                end.link = None;
                end.out = Vec::new();
                end.frames = Vec::new();
                out.push(Event::Closed { ep, reason });
            }
        }
    }

    fn tell_drained(&mut self, out: &mut Vec<Event>) {
        for slot in 0..self.ends.len() {
            let end = &self.ends[slot];
            let Some((link, side)) = end.link else { continue };
            if end.owed.get() && self.unsent(end) <= OUT_BYTES_MAX / 2 {
                let end = &mut self.ends[slot];
                end.owed.set(false);
                if std::mem::take(&mut end.paused) && !end.held {
                    self.net.borrow_mut().pause(link, side, false);
                }
                if !end.closing {
                    out.push(Event::Drained {
                        ep: Ep { slot: slot as u32, generation: end.generation },
                    });
                }
            }
        }
    }
}

impl Fabric for Fake {
    fn dial(&mut self, address: SocketAddr, port: Port) -> io::Result<Ep> {
        let now = self.time();
        let link = self.net.borrow_mut().dial((self.place, self.host), address, port, now);
        Ok(self.add(link, 0, port))
    }

    fn poll(&mut self, boot_ns: u64, out: &mut Vec<Event>) {
        self.now = self.now.max(boot_ns);
        let now = self.time();
        out.append(&mut self.ready);
        for _ in 0..CQES_PER_POLL_MAX {
            let done = self.net.borrow_mut().done(self.place, now);
            let Some((token, result)) = done else { break };
            out.push(Event::Done { token, result });
        }
        for _ in 0..CQES_PER_POLL_MAX {
            let arrived = self.net.borrow_mut().arrive(self.place, now);
            let Some((link, side, end, arrival)) = arrived else { break };
            let ep = match (end, &arrival) {
                (Some(ep), _) => ep,
                (None, Arrival::Opened(port)) => self.add(link, side, *port),
                // It ended before it was taken.
                (None, _) => continue,
            };
            self.arrived(ep, arrival, out);
        }
        self.tell_drained(out);
    }

    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8] {
        match &rx.0 {
            RxInner::Heap(bytes) => bytes,
            RxInner::Ring { .. } => unreachable!("a fake has no ring"),
        }
    }

    fn release(&mut self, rx: Rx) {
        drop(rx);
    }

    fn send(&mut self, ep: Ep, head: &[u8], body: Option<Body>, token: Token) -> Result<(), Full> {
        let end = self.end(ep).filter(|end| !end.closing).ok_or(Full)?;
        let port = end.port;
        let queued = self.unsent(end);
        let mut bytes = head.to_vec();
        if let Some(body) = body {
            // SAFETY: the owner of the body keeps it in place and unchanged until `Done` (`Body`).
            let body = unsafe { std::slice::from_raw_parts(body.ptr, body.len as usize) };
            bytes.extend_from_slice(body);
        }
        assert!(bytes.len() <= FRAME_BYTES_MAX, "a frame of {} bytes is too long", bytes.len());
        if end.owed.get() || (queued > 0 && queued + bytes.len() > OUT_BYTES_MAX) {
            end.owed.set(true);
            return Err(Full);
        }
        if let Some(body) = body {
            let now = self.time();
            let mut net = self.net.borrow_mut();
            let wait = net.settings.delay_ns.clone();
            net.later(self.place, now, &wait, (token, body.len as i32));
        }
        match port {
            Port::Frames => self.ends[ep.slot as usize].frames.push(bytes),
            // Behind what was written in place.
            Port::Stream => self.ends[ep.slot as usize].out.extend_from_slice(&bytes),
        }
        self.dirty.push(ep.slot);
        Ok(())
    }

    fn out(&mut self, ep: Ep) -> Option<&mut Vec<u8>> {
        self.end(ep).filter(|end| !end.closing && end.port == Port::Stream)?;
        self.dirty.push(ep.slot);
        self.end_mut(ep).map(|end| &mut end.out)
    }

    fn room(&self, ep: Ep) -> usize {
        let Some(end) = self.end(ep).filter(|end| !end.closing && !end.owed.get()) else {
            return 0;
        };
        let room = OUT_BYTES_MAX.saturating_sub(self.unsent(end));
        if room == 0 {
            end.owed.set(true);
        }
        room
    }

    fn queued(&self, ep: Ep) -> usize {
        self.end(ep).map_or(0, |end| self.unsent(end))
    }

    fn hold(&mut self, ep: Ep, held: bool) {
        let Some(end) = self.end_mut(ep) else { return };
        end.held = held;
        let paused = end.paused || held;
        if let Some((link, side)) = end.link {
            self.net.borrow_mut().pause(link, side, paused);
        }
    }

    fn read_on(&mut self, ep: Ep) {
        if let Some(end) = self.end_mut(ep) {
            end.reads_on = true;
        }
    }

    fn addresses(&self, ep: Ep) -> (String, String) {
        (format!("fake:{}", ep.slot), "fake:0".into())
    }

    /// Nothing listens here: a test connects the ends itself.
    fn stop_listening(&mut self) {}

    fn close(&mut self, ep: Ep) {
        self.push_out();
        let now = self.time();
        let Some(end) = self.end_mut(ep).filter(|end| !end.closing) else { return };
        end.closing = true;
        if let Some((link, side)) = end.link {
            self.net.borrow_mut().close(link, side, now);
        }
    }

    fn abort(&mut self, ep: Ep) {
        let now = self.time();
        let Some(end) = self.end_mut(ep).filter(|end| !end.closing) else { return };
        end.closing = true;
        end.out = Vec::new();
        end.frames = Vec::new();
        if let Some((link, side)) = end.link {
            self.net.borrow_mut().close(link, side, now);
        }
    }

    fn disk_write(&mut self, write: DiskWrite, token: Token) -> Result<(), Full> {
        if self.writes.len() >= DISK_WRITES_MAX {
            return Err(Full);
        }
        let now = self.time();
        let mut net = self.net.borrow_mut();
        match net.settings.disk.clone() {
            Disk::ByHand => drop(self.writes.insert(token.0, write)),
            Disk::After(wait) => net.later(self.place, now, &wait, (token, write.len as i32)),
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push_out();
        Ok(())
    }

    /// Does not block: time is the test's.
    fn wait(&mut self, _want: u32, _timeout_ns: u64) -> io::Result<()> {
        self.flush()
    }

    fn load(&self) -> Load {
        Load { sends: self.dirty.len() as u32, ..Load::default() }
    }
}

#[cfg(test)]
mod tests;
