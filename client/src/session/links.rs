//! Connections come and go: dials, hellos, signs of life, losses.
//!
//! A line on which answers are due and nothing comes is asked for a sign of life (`Hello` again, which a brick answers
//! whatever its requests wait for) after half of the time of silence; without one it is closed after the rest.

use std::sync::Arc;

use firebrick_partition::wire::Welcome;

use super::peers::{LineState, Peer};
use super::place::Hint;
use super::slot::State;
use super::{Dial, Link, Session, Sink};
use crate::error::Error;

/// Nobody is up and a dial has taken so long: the next address is tried beside it.
const STAGGER_NS: u64 = 100_000_000;
/// What is under way may take so long beside: a large value on a slow link (2 MB/s) is no silence.
const NS_PER_BYTE: u64 = 500;
const SENDING_NS_MAX: u64 = NS_PER_BYTE * (crate::VALUE_BYTES_MAX + crate::KEY_BYTES_MAX) as u64;
/// The time of silence doubles so often at most.
const DOUBLINGS_MAX: u32 = 4;

impl Session {
    /// A connection that the shell is to open, and then to report as connected or disconnected.
    pub fn poll_dial(&mut self, now_ns: u64) -> Option<Dial> {
        if !self.dial_due {
            return None;
        }
        let Some(at) = self.next_dial(now_ns) else {
            self.dial_due = false;
            return None;
        };
        let link = self.peers.dial(now_ns, at)?;
        let slow_ns = now_ns.saturating_add(STAGGER_NS.min(self.options.silence_ns));
        self.wake_ns = self.wake_ns.min(slow_ns);
        Some(Dial { link, address: self.peers.get(at).address.clone() })
    }

    fn next_dial(&mut self, now_ns: u64) -> Option<u32> {
        // Whoever answers first will do.
        let anyone = (self.starting || !self.anywhere.is_empty()) && !self.peers.any_up();
        let under_way = self.peers.links().into_iter().filter_map(|l| self.peers.line(l));
        let last_ns = under_way.filter(|l| l.state == LineState::Dialling).map(|l| l.since_ns);
        let stagger_ns = last_ns.max().map_or(0, |since| since + STAGGER_NS);
        let mut best = None;
        for at in self.peers.indices() {
            let peer = self.peers.get(at);
            let lines = peer.up.len() + peer.dialling.len();
            let needed = peer.wanted || !peer.ready.is_empty() || peer.is_up();
            if lines >= self.options.connections || !(needed || anyone && lines == 0) {
                continue;
            }
            let due_ns = peer.retry_at_ns.max(if needed { 0 } else { stagger_ns });
            if due_ns > now_ns {
                self.wake_ns = self.wake_ns.min(due_ns);
                continue;
            }
            let rank = (!needed, peer.backoff.failures(), at);
            best = best.map_or(Some(rank), |b: (bool, u32, u32)| Some(b.min(rank)));
        }
        best.map(|(_, _, at)| at)
    }

    /// A connection is open and shaken hands.
    pub fn handle_connected(&mut self, now_ns: u64, link: Link) {
        let Some(at) = self.peers.open(now_ns, link) else { return };
        self.starting = false;
        self.dial_due |= self.options.connections > 1;
        // Whoever waits for anybody, or was placed when this one was not up.
        self.scatter_anywhere(now_ns);
        self.peers.list(at);
    }

    /// A dial failed, or a connection is gone: what was sent on it is sent again where that cannot apply twice, and
    /// is `InDoubt` where it could. What only waited for it goes elsewhere if it can.
    pub fn handle_disconnected(
        &mut self,
        now_ns: u64,
        link: Link,
        why: Error,
        sink: &mut dyn Sink,
    ) {
        let Some((at, was_up)) = self.peers.close(link) else { return };
        if self.peers.exists(at) {
            self.forget_line(now_ns, at, why);
        }
        self.peers.refresh();
        if was_up {
            self.resend(now_ns, link, sink);
        }
        if self.peers.exists(at) {
            self.scatter(now_ns, at);
        }
        self.sort_ready();
        self.dial_due = true;
        if self.peers.iter().count() > 1 && self.routes.knows_all() {
            self.want_map(now_ns, Hint::NotFrom(at));
        }
    }

    fn forget_line(&mut self, now_ns: u64, at: u32, why: Error) {
        let brick = self.peers.get(at).brick;
        let mapped_elsewhere = brick.is_some_and(|b| self.peers.is_mapped_elsewhere(b, at));
        let peer = self.peers.get_mut(at);
        peer.why = Some(why);
        peer.retry_at_ns = now_ns + peer.backoff.next_ns();
        if !peer.is_up() {
            peer.suspect = false;
            // What a brick said of itself holds while it is connected; the map knows where each is now.
            if peer.is_mapped {
                let mut bricks = self.routes.bricks().iter();
                peer.brick = bricks.find(|b| *b.listen == *peer.address).map(|b| b.id);
            } else if mapped_elsewhere {
                peer.brick = None;
            }
        }
    }

    /// Sends again what was sent on a line that is gone.
    fn resend(&mut self, now_ns: u64, link: Link, sink: &mut dyn Sink) {
        let mut position = 0;
        while let Some(index) = self.slots.in_use(position) {
            position += 1;
            let slot = self.slots.get(index);
            if slot.state != State::Sent(link) {
                continue;
            }
            if slot.may_repeat() {
                self.lose_try(now_ns, index);
            } else {
                self.finish(now_ns, index, Err(Error::InDoubt), sink);
                position -= 1;
            }
        }
    }

    /// The fate of a try is not known, and the request may be sent again.
    pub(super) fn lose_try(&mut self, now_ns: u64, index: u32) {
        let slot = self.slots.get_mut(index);
        slot.uncertain |= slot.is_write();
        self.unsent(index);
        self.place(now_ns, index, false);
    }

    /// The shell cannot take more for this connection: nothing comes for it until it has drained.
    pub fn handle_blocked(&mut self, link: Link) {
        if let Some(line) = self.peers.line_mut(link) {
            line.blocked = true;
        }
    }

    /// The shell can take more for this connection.
    pub fn handle_drained(&mut self, link: Link) {
        let Some(line) = self.peers.line_mut(link) else { return };
        line.blocked = false;
        let at = line.peer;
        self.peers.list(at);
    }

    /// A connection that the shell is to close; the session has forgotten it.
    pub fn poll_close(&mut self) -> Option<Link> {
        self.closing.pop_front()
    }

    /// Closes a line from this side.
    pub(super) fn close_line(&mut self, now_ns: u64, link: Link, why: Error, sink: &mut dyn Sink) {
        self.closing.push_back(link);
        self.handle_disconnected(now_ns, link, why, sink);
    }

    /// Something arrived on a connection, if only a part of a frame.
    #[inline]
    pub fn handle_progress(&mut self, now_ns: u64, link: Link) {
        let Some(line) = self.peers.line_mut(link) else { return };
        line.heard_ns = now_ns;
        let probed = std::mem::take(&mut line.probed_ns) != 0;
        let at = line.peer;
        let peer = self.peers.get_mut(at);
        if probed || peer.why.is_some() || peer.backoff.failures() > 0 {
            peer.suspect = false;
            peer.why = None;
            peer.backoff.reset();
            self.peers.refresh();
        }
    }

    /// The peer takes what is sent to it: no word, but no silence either.
    pub fn handle_sent(&mut self, now_ns: u64, link: Link) {
        let Some(line) = self.peers.line_mut(link) else { return };
        line.heard_ns = now_ns;
        if line.probed_ns != 0 {
            line.probed_ns = now_ns;
        }
    }

    /// The brick says who it is.
    pub(super) fn handle_welcome(&mut self, now_ns: u64, link: Link, welcome: &Welcome<'_>) {
        let Some(line) = self.peers.line_mut(link) else { return };
        line.limit = welcome.limits.in_flight.max(1);
        let at = line.peer;
        let peer = self.peers.get_mut(at);
        if peer.brick == Some(welcome.brick) {
            return;
        }
        if peer.is_mapped {
            // Bricks have changed places, and the map known here does not say so. Only for a newer one is this brick
            // asked: what else it may be asked for, that map says.
            peer.brick = None;
            self.peers.refresh();
            self.scatter(now_ns, at);
            self.want_map(now_ns, Hint::From(at));
            return;
        }
        peer.brick = Some(welcome.brick);
        peer.name = welcome.name.into();
        self.peers.refresh();
        self.scatter_anywhere(now_ns);
    }

    /// Looks after every line; when to do so next.
    pub(super) fn tend_lines(&mut self, now_ns: u64, sink: &mut dyn Sink) -> u64 {
        let mut wake_ns = u64::MAX;
        for link in self.peers.links() {
            let Some(line) = self.peers.line(link) else { continue };
            wake_ns = wake_ns.min(match line.state {
                LineState::Dialling => self.tend_dial(now_ns, link, sink),
                LineState::Up => self.tend_open(now_ns, link, sink),
                LineState::Free => u64::MAX,
            });
        }
        wake_ns
    }

    fn tend_dial(&mut self, now_ns: u64, link: Link, sink: &mut dyn Sink) -> u64 {
        let silence_ns = self.options.silence_ns;
        let Some(line) = self.peers.line(link) else { return u64::MAX };
        let (at, until_ns) = (line.peer, line.since_ns.saturating_add(silence_ns));
        let slow_ns = line.since_ns.saturating_add(STAGGER_NS);
        if until_ns <= now_ns {
            let address = self.peers.get(at).address.clone();
            let why = format!("no answer within {} ms", silence_ns / 1_000_000).into();
            self.close_line(now_ns, link, Error::Connection { address, why }, sink);
            return u64::MAX;
        }
        let peer = self.peers.get_mut(at);
        if peer.is_up() || peer.slow {
            return until_ns;
        }
        if slow_ns <= now_ns {
            peer.slow = true;
            self.scatter(now_ns, at);
            self.sort_ready();
            return until_ns;
        }
        slow_ns.min(until_ns)
    }

    fn tend_open(&mut self, now_ns: u64, link: Link, sink: &mut dyn Sink) -> u64 {
        let Some(line) = self.peers.line(link) else { return u64::MAX };
        let at = line.peer;
        // A brick that is only slow must not be sent the same again and again, each time a little too early.
        let doublings = self.peers.get(at).silences.min(DOUBLINGS_MAX);
        let silence_ns = self.options.silence_ns.saturating_mul(1 << doublings);
        let half_ns = silence_ns / 2;
        let Some(line) = self.peers.line_mut(link) else { return u64::MAX };
        if line.probed_ns != 0 {
            let until_ns = line.probed_ns.saturating_add(silence_ns - half_ns);
            if until_ns > now_ns {
                return until_ns;
            }
            let peer = self.peers.get_mut(at);
            peer.silences = peer.silences.saturating_add(1);
            let address = peer.address.clone();
            let why = format!("it was silent for {} ms", silence_ns / 1_000_000).into();
            self.close_line(now_ns, link, Error::Connection { address, why }, sink);
            return u64::MAX;
        }
        if line.unanswered == 0 {
            return u64::MAX;
        }
        let sending_ns = (line.owed_bytes * NS_PER_BYTE).min(SENDING_NS_MAX);
        let until_ns = line.heard_ns.saturating_add(half_ns + sending_ns);
        if until_ns > now_ns {
            return until_ns;
        }
        line.probed_ns = now_ns;
        line.greets = true;
        self.peers.greeting.push_back(link);
        self.peers.get_mut(at).suspect = true;
        self.displace_reads(now_ns, link);
        now_ns.saturating_add(silence_ns - half_ns)
    }

    /// What changes nothing is asked elsewhere, if there is an elsewhere, when a line falls silent.
    fn displace_reads(&mut self, now_ns: u64, link: Link) {
        let mut position = 0;
        while let Some(index) = self.slots.in_use(position) {
            position += 1;
            let slot = self.slots.get(index);
            if slot.state != State::Sent(link) || slot.is_write() {
                continue;
            }
            let elsewhere = match slot.target {
                super::slot::Target::Brick => self.peers.iter().filter(|p| p.is_up()).count() > 1,
                _ => self.members_for(index) > 1,
            };
            if elsewhere {
                self.lose_try(now_ns, index);
            }
        }
        self.sort_ready();
    }

    /// A brick is connected.
    pub fn is_connected(&self) -> bool {
        self.peers.any_up()
    }

    /// Why there is no connection; `None` when there is one, or not all seeds were tried.
    pub fn unreachable(&self) -> Option<Error> {
        let mut seeds = self.peers.iter().filter(|p| p.is_seed);
        if self.peers.any_up() || !seeds.all(|p| p.why.is_some()) {
            return None;
        }
        let failed: Vec<&Peer> = self.peers.iter().filter(|p| p.why.is_some()).collect();
        match failed[..] {
            [] => {
                let why = "no address was given".into();
                return Some(Error::Connection { address: "no address".into(), why });
            }
            [one] => return one.why.clone(),
            _ => {}
        }
        let addresses: Vec<&str> = failed.iter().map(|p| &*p.address).collect();
        let whys: Vec<String> =
            failed.iter().map(|p| format!("{}: {}", p.address, reason(p))).collect();
        let (address, why) = (addresses.join(", ").into(), whys.join("; ").into());
        Some(Error::Connection { address, why })
    }
}

/// Why a peer does not answer, without its address.
pub(super) fn reason(peer: &Peer) -> Arc<str> {
    match &peer.why {
        Some(Error::Connection { why, .. } | Error::Protocol(why)) => why.clone(),
        Some(error) => error.to_string().into(),
        None => "it was not asked yet".into(),
    }
}
