//! This core and the other bricks: ways that open and end, requests that another brick must answer.

use firebrick_net::{Ep, Fabric, Rx, Token};
use firebrick_partition::replica::OwnedAnswer;
use firebrick_partition::wire::{self, Message};
use firebrick_partition::{Answer, Failure};

use super::Shard;
use super::asker::Asker;
use super::conns::{Kind, Native};
use super::control::Stopping;
use super::hopping::UNANSWERED;
use super::hops::Hop;
use super::peers::{Forward, Holder, SILENT_NS, is_temporary};
use crate::mesh;

/// Forwarded requests tried in one turn.
const FORWARDS_PER_TURN_MAX: usize = 512;

impl<F: Fabric> Shard<F> {
    /// Log bytes have been sent and need no pin any more. `false`: the completion was another's.
    pub(super) fn on_shipped(&mut self, token: Token) -> bool {
        let Some(shipped) = self.store.peers.shipped(token) else { return false };
        match self.store.at(shipped.partition) {
            Some(replica) => replica.log().unpin(shipped.loc),
            None => self.files.drop_left(&self.store),
        }
        true
    }

    /// A connection that this core dialled has opened.
    pub(super) fn on_peer_opened(&mut self, ep: Ep) -> bool {
        if self.store.peers.probes.on_opened(ep) {
            return true;
        }
        let now_ns = self.store.now.boot_ns;
        let opened = self.store.peers.on_opened(&mut self.fabric, ep, now_ns);
        let Some(brick) = opened else { return false };
        let native = Native { dialled: true, heard_ns: now_ns, ..Native::default() };
        self.conns.insert(ep, Kind::Native(Box::new(native)));
        self.fabric.read_on(ep);
        if matches!(self.stopping, Some(Stopping::Closing { .. } | Stopping::Stopped)) {
            self.fabric.close(ep);
            return true;
        }
        self.files.on_peer_up(&mut self.fabric, &mut self.store, brick);
        true
    }

    /// A frame that only a brick sends. `false`: it is none that may come here.
    pub(super) fn on_brick_frame(&mut self, ep: Ep, rx: &Rx) -> bool {
        let Some(native) = self.conns.native(ep) else { return false };
        let bytes = self.fabric.bytes(rx);
        match wire::decode(bytes) {
            Ok(Message::Peer { partition, peer }) if native.brick != 0 => {
                if self.store.has(partition) {
                    self.files.on_peer(&mut self.store, partition, native.brick, &peer);
                    self.files.take_asks(&mut self.fabric, &mut self.store, partition);
                    return true;
                }
                let core =
                    self.store.routes.partition(partition).filter(|e| e.here).map(|e| e.core);
                if let Some(core) = core.filter(|&core| core != self.store.core()) {
                    // What does not fit is sent again by whoever sent it.
                    let _ = self.store.mesh().peer_message(core, native.brick, bytes);
                }
            }
            Ok(Message::Answer { slot, answer }) if native.is_brick() => {
                if let Some(forward) = self.store.peers.forwards.answered(slot, Holder::Way(ep)) {
                    let answer = OwnedAnswer::new(&answer);
                    self.on_forward_answer(forward, answer.get());
                }
            }
            Ok(Message::Welcome { welcome, .. }) if native.dialled => {
                native.brick = welcome.brick;
                return self.store.peers.on_welcome(ep, welcome.brick);
            }
            _ => return false,
        }
        true
    }

    /// The same, from the core that received it.
    pub(super) fn on_hop_peer(&mut self, hop: &mesh::Hop) {
        let Ok(Message::Peer { partition, peer }) = wire::decode(hop.bytes()) else { return };
        self.files.on_peer(&mut self.store, partition, hop.token as u32, &peer);
        self.files.take_asks(&mut self.fabric, &mut self.store, partition);
    }

    /// A write was prepared here and another primary decides it: nobody here will ever know. A native
    /// client asks again with the same number (it would take "in doubt" for "this try changed nothing"); whoever cannot
    /// is told that it is in doubt. Which of the two, the core knows that the request came to.
    pub(super) fn leave_unanswered(&mut self, asker: Asker) {
        match asker {
            Asker::Native { conn, .. } => {
                if let Some(ep) = self.conns.find(conn) {
                    self.fabric.abort(ep);
                }
            }
            Asker::Hop { entry } => {
                let Hop { core, token, .. } = self.store.hops.remove(entry);
                self.store.mesh().answer(core, token, UNANSWERED);
            }
            other => self.deliver(other, Answer::Failed(Failure::InDoubt)),
        }
    }

    /// A connection has ended.
    pub(super) fn on_peer_closed(&mut self, ep: Ep) {
        if !self.store.peers.probes.on_closed(ep) {
            self.store.peers.on_closed(ep, self.store.now.boot_ns);
        }
    }

    /// A connection to a brick has ended: the requests that went on it have no answer.
    pub(super) fn lose_forwards(&mut self, ep: Ep) {
        for slot in self.store.peers.forwards.lost(ep) {
            if let Some(forward) = self.store.peers.forwards.answered(slot, Holder::Way(ep)) {
                self.doubt_forward(forward);
            }
        }
    }

    /// Nobody here will know whether it was done. What changes nothing is tried again.
    fn doubt_forward(&mut self, forward: Forward) {
        let request = wire::decode(&forward.request);
        if matches!(request, Ok(Message::Request { request, .. }) if request.op.is_read()) {
            return self.store.peers.forwards.wait(forward, self.store.now.boot_ns);
        }
        self.deliver(forward.asker(), Answer::Failed(Failure::InDoubt));
        self.end_forward(&forward);
    }

    /// Hangs up on bricks that say nothing, neither to a greeting nor on the connection itself: their hosts may have
    /// stopped. (One whose greetings are answered is only slow.)
    fn leave_silent(&mut self) {
        let now_ns = self.store.now.boot_ns;
        for way in self.store.peers.silent_ways(now_ns) {
            let heard_ns = self.conns.native(way).map_or(now_ns, |native| native.heard_ns);
            if now_ns >= heard_ns + SILENT_NS {
                self.fabric.abort(way);
            }
        }
    }

    /// A frame on a probe's connection.
    pub(super) fn on_probe_frame(&mut self, ep: Ep, rx: Rx) {
        match wire::decode(self.fabric.bytes(&rx)) {
            Ok(Message::Welcome { .. }) => {
                let now_ns = self.store.now.boot_ns;
                self.store.peers.on_probe_answer(&mut self.fabric, ep, now_ns);
            }
            Ok(_) | Err(_) => self.fabric.abort(ep),
        }
        self.fabric.release(rx);
    }

    /// A forwarded request was answered by a replica of this brick.
    pub(super) fn answer_forward(&mut self, slot: u32, holder: Holder, answer: Answer<'_>) {
        if let Some(forward) = self.store.peers.forwards.answered(slot, holder) {
            self.on_forward_answer(forward, answer);
        }
    }

    /// What says "nothing was done" is tried again; the rest is the client's.
    fn on_forward_answer(&mut self, forward: Forward, answer: Answer<'_>) {
        if is_temporary(&answer) && self.store.serving {
            return self.store.peers.forwards.wait(forward, self.store.now.boot_ns);
        }
        self.deliver(forward.asker(), answer);
        self.end_forward(&forward);
    }

    /// A request is over, and with it those that may not be tried after it.
    fn end_forward(&mut self, forward: &Forward) {
        for late in self.store.peers.forwards.over(forward, self.store.now.boot_ns) {
            self.deliver(late.asker(), Answer::Failed(Failure::Unavailable));
        }
    }

    /// Tries requests that no replica of this core answered at once, and dials whom something waits for.
    pub(super) fn forward_some(&mut self) -> usize {
        let now_ns = self.store.now.boot_ns;
        while let Some(stray) = self.store.peers.forwards.overdue(now_ns) {
            self.doubt_forward(stray);
        }
        let mut tried = 0;
        while tried < FORWARDS_PER_TURN_MAX
            && let Some(next) = self.store.peers.forwards.next(now_ns)
        {
            tried += 1;
            match next {
                Ok(forward) => self.try_forward(forward),
                Err(late) => self.deliver(late.asker(), Answer::Failed(Failure::Unavailable)),
            }
        }
        self.peers_ns = match self.stopping {
            None | Some(Stopping::Answering { .. }) => {
                self.leave_silent();
                self.store.peers.poll(&mut self.fabric, now_ns)
            }
            // Nobody is dialled by who hangs up.
            Some(_) => u64::MAX,
        };
        tried
    }

    /// Gives a request to whoever serves its partition now.
    fn try_forward(&mut self, mut forward: Forward) {
        let encoded = std::mem::take(&mut forward.request);
        let Ok(Message::Request { mut request, .. }) = wire::decode(&encoded) else {
            unreachable!("this process encoded it")
        };
        let Some(entry) = self.store.routes.route(self.store.resp_table, forward.hash) else {
            self.deliver(forward.asker(), Answer::Failed(Failure::NoTable));
            return self.end_forward(&forward);
        };
        (request.route, forward.route) = (entry.route, entry.route);
        let (mine, core) = (entry.mine == Some(0), entry.core);
        let primary = entry.replicas.primary().map_or(0, |m| m.brick);
        let slot = self.store.peers.forwards.take_slot();
        let asker = Asker::Forward { slot };
        let mut frame = Vec::with_capacity(encoded.len());
        wire::request(&mut frame, slot, &request);
        if mine && core == self.store.core() {
            forward.holder = Holder::Here;
            let (hash, own) = (forward.hash, forward.own);
            forward.request = frame;
            self.store.peers.forwards.sent(slot, forward);
            let answer = self.store.execute(asker, hash, &request, own);
            if let Some(answer) = answer.as_ref().map(OwnedAnswer::new) {
                self.answer_forward(slot, Holder::Here, answer.get());
            }
        } else if mine {
            forward.holder = Holder::Here;
            let refused = self.store.relay(core, asker, &frame);
            forward.request = frame;
            self.store.peers.forwards.sent(slot, forward);
            if let Some(failure) = refused {
                self.answer_forward(slot, Holder::Here, Answer::Failed(failure));
            }
        } else if self.store.peers.overtakes(forward.conn, primary) {
            self.store.peers.forwards.give_slot(slot);
            forward.request = frame;
            self.on_forward_answer(forward, Answer::Failed(Failure::Unavailable));
        } else if let Some(way) = self.store.peers.send(&mut self.fabric, primary, &frame) {
            forward.holder = Holder::Way(way);
            forward.request = frame;
            self.store.peers.forwards.sent(slot, forward);
        } else {
            self.store.peers.forwards.give_slot(slot);
            forward.request = frame;
            self.on_forward_answer(forward, Answer::Failed(Failure::Unavailable));
        }
    }
}
