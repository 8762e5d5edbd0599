//! Whether the bricks that share a partition with this core, or have requests of its clients, can be reached at all.
//!
//! A connection of its own to each, on which a greeting goes out and must be answered: it shares the network
//! with what replicas send, and no queue, so a brick is not missed because a copy goes to it. A brick that gave
//! no answer for a while is one that this core cannot reach, until it answers: also after it left the groups
//! that it was in, since that answer is what lets the keepers group the two again.
//!
//! A host without power says nothing, and TCP would wait for it for a quarter of an hour: when a brick is silent for
//! [`SILENT_NS`], here and on its other connections, those are closed, and what waits for it is told.

use std::net::SocketAddr;

use firebrick_net::{Ep, Fabric, Port, Token};

use super::Link;

/// Between two questions.
const EVERY_NS: u64 = 100_000_000;
/// Without an answer for so long a brick cannot be reached.
const LATE_NS: u64 = 250_000_000;
/// A connection without an answer for so long is replaced: TCP may wait for minutes after a long cut.
const REPLACE_NS: u64 = 500_000_000;
/// Without a word for so long a brick is not there.
pub const SILENT_NS: u64 = 1_000_000_000;
/// A brick that had a request is asked for so long after: asking anew costs a connection.
const KEPT_NS: u64 = 10_000_000_000;

#[derive(Debug)]
struct Probe {
    brick: u32,
    address: Option<SocketAddr>,
    /// It shares a partition with this core.
    wanted: bool,
    /// It had requests of this core's a while ago, or has.
    asked_until_ns: u64,
    link: Link,
    /// A question is out.
    asked: bool,
    /// When the link became what it is, or the question went out.
    at_ns: u64,
    /// When the next question goes out, or the next dial.
    next_ns: u64,
    /// Since when an answer has been missing; 0: none is.
    since_ns: u64,
    late: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Probes {
    all: Vec<Probe>,
    wake_ns: u64,
}

impl Probe {
    fn new(brick: u32) -> Self {
        Self {
            brick,
            address: None,
            wanted: false,
            asked_until_ns: 0,
            link: Link::Down,
            asked: false,
            at_ns: 0,
            next_ns: 0,
            since_ns: 0,
            late: false,
        }
    }

    fn is_in_use(&self, now_ns: u64) -> bool {
        self.address.is_some() && (self.wanted || self.late || now_ns < self.asked_until_ns)
    }

    fn hang_up<F: Fabric>(&mut self, fabric: &mut F) {
        if let Link::Open(ep) | Link::Dialling(ep) = self.link {
            fabric.abort(ep);
        }
    }

    /// Does what is due. When something is next.
    fn poll<F: Fabric>(&mut self, fabric: &mut F, now_ns: u64, hello: &[u8]) -> u64 {
        if !self.is_in_use(now_ns) {
            (self.late, self.since_ns) = (false, 0);
            self.hang_up(fabric);
            return u64::MAX;
        }
        let waits = self.asked || !matches!(self.link, Link::Open(_));
        if waits && self.since_ns == 0 {
            self.since_ns = now_ns;
        }
        self.late |= self.since_ns != 0 && now_ns >= self.since_ns + LATE_NS;
        match self.link {
            Link::Down if now_ns >= self.next_ns => {
                self.next_ns = now_ns + EVERY_NS;
                if let Some(address) = self.address
                    && let Ok(ep) = fabric.dial(address, Port::Frames)
                {
                    (self.link, self.at_ns) = (Link::Dialling(ep), now_ns);
                }
            }
            Link::Dialling(ep) if now_ns >= self.at_ns + REPLACE_NS => fabric.abort(ep),
            Link::Open(ep) if self.asked && now_ns >= self.at_ns + REPLACE_NS => fabric.abort(ep),
            Link::Open(ep) if !self.asked && now_ns >= self.next_ns => {
                if fabric.send(ep, hello, None, Token::NONE).is_ok() {
                    (self.asked, self.at_ns) = (true, now_ns);
                    if self.since_ns == 0 {
                        self.since_ns = now_ns;
                    }
                }
                self.next_ns = now_ns + EVERY_NS;
            }
            _ => {}
        }
        let waits = self.asked || matches!(self.link, Link::Dialling(_));
        let next = if waits { self.at_ns + REPLACE_NS } else { self.next_ns };
        let late = if self.late || self.since_ns == 0 { u64::MAX } else { self.since_ns + LATE_NS };
        next.min(late)
    }
}

impl Probes {
    /// Where a brick is, and whether it shares a partition with this core.
    pub fn set<F: Fabric>(
        &mut self,
        fabric: &mut F,
        brick: u32,
        address: Option<SocketAddr>,
        wanted: bool,
    ) {
        if !wanted && self.all.binary_search_by_key(&brick, |p| p.brick).is_err() {
            return;
        }
        let probe = self.entry(brick);
        if probe.address != address {
            probe.address = address;
            probe.hang_up(fabric);
        }
        probe.wanted = wanted;
        self.wake_ns = 0;
    }

    fn entry(&mut self, brick: u32) -> &mut Probe {
        let at = match self.all.binary_search_by_key(&brick, |p| p.brick) {
            Ok(at) => at,
            Err(at) => {
                self.all.insert(at, Probe::new(brick));
                at
            }
        };
        &mut self.all[at]
    }

    /// A brick has requests of this core's.
    pub fn want(&mut self, brick: u32, address: Option<SocketAddr>, now_ns: u64) {
        let probe = self.entry(brick);
        let is_new = !probe.is_in_use(now_ns);
        probe.address = address;
        probe.asked_until_ns = now_ns + KEPT_NS;
        if is_new {
            self.wake_ns = 0;
        }
    }

    /// Bricks that have given no answer for [`SILENT_NS`].
    pub fn silent(&self, now_ns: u64) -> impl Iterator<Item = u32> {
        let is_silent = move |p: &&Probe| p.since_ns != 0 && now_ns >= p.since_ns + SILENT_NS;
        self.all.iter().filter(is_silent).map(|probe| probe.brick)
    }

    /// Once a turn. When it has something to do again.
    pub fn poll<F: Fabric>(&mut self, fabric: &mut F, now_ns: u64, hello: &[u8]) -> u64 {
        if now_ns >= self.wake_ns {
            let probes = self.all.iter_mut();
            let wake = probes.map(|probe| probe.poll(fabric, now_ns, hello)).min();
            // (What is due at once is due in the next turn.)
            self.wake_ns = wake.unwrap_or(u64::MAX).max(now_ns + 1);
        }
        self.wake_ns
    }

    /// Bricks that cannot be reached.
    pub fn late(&self) -> impl Iterator<Item = u32> {
        self.all.iter().filter(|probe| probe.late).map(|probe| probe.brick)
    }

    fn of(&mut self, ep: Ep) -> Option<&mut Probe> {
        let ours = |p: &&mut Probe| p.link == Link::Open(ep) || p.link == Link::Dialling(ep);
        self.all.iter_mut().find(ours)
    }

    /// A connection has opened. `true`: it is one of these.
    pub fn on_opened(&mut self, ep: Ep) -> bool {
        let Some(probe) = self.of(ep) else { return false };
        (probe.link, probe.asked, probe.next_ns) = (Link::Open(ep), false, 0);
        self.wake_ns = 0;
        true
    }

    /// A connection has ended. `true`: it was one of these.
    pub fn on_closed(&mut self, ep: Ep) -> bool {
        let Some(probe) = self.of(ep) else { return false };
        (probe.link, probe.asked) = (Link::Down, false);
        self.wake_ns = 0;
        true
    }

    /// An answer has come. `Some`: from which brick, and since when none had come before.
    pub fn on_answer(&mut self, ep: Ep) -> Option<(u32, u64)> {
        let probe = self.of(ep)?;
        probe.asked = false;
        probe.late = false;
        let since = std::mem::take(&mut probe.since_ns);
        let brick = probe.brick;
        self.wake_ns = 0;
        Some((brick, since))
    }
}
