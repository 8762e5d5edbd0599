//! How endpoints end: by the peer, by us, by an error, by time. Always in two steps, so that what is answered in
//! the turn that saw the end still leaves, and so that no slot is reused while the kernel works for it.

use std::collections::VecDeque;
use std::io;

use crate::fabric::{CloseReason, Ep, Event, Port};
use crate::limits::DRAIN_NS_MAX;

use super::endpoint::{Input, State};
use super::submit::Op;
use super::{Tcp, socket};

impl Tcp {
    /// The peer has finished. Output is taken until the owner closes a stream, for one more turn of frames.
    pub(super) fn finish(&mut self, ep: Ep, out: &mut Vec<Event>) {
        let endpoint = self.table.at(ep.slot);
        if let Input::Frames(decoder) = &endpoint.input
            && !decoder.between_frames()
        {
            self.fail(ep, CloseReason::Malformed("the connection ended within a frame"));
        } else if endpoint.state == State::Open {
            endpoint.state = State::Finishing;
            match endpoint.port {
                Port::Stream => out.push(Event::Finished { ep }),
                Port::Frames => self.sweep_later(ep.slot),
            }
        } else {
            self.fail(ep, CloseReason::Malformed("the connection ended within the handshake"));
        }
    }

    /// Closes once what is queued has been sent.
    pub(super) fn drain(&mut self, ep: Ep) {
        let endpoint = self.table.at(ep.slot);
        if endpoint.state >= State::Draining {
            return;
        }
        endpoint.state = if endpoint.state < State::Open { State::Dying } else { State::Draining };
        let due = self.now + DRAIN_NS_MAX;
        endpoint.drain_due = due;
        self.drains.push_back((due, ep));
        self.sweep_later(ep.slot);
        self.or_fail(ep, |tcp| tcp.stop_receiving(ep.slot));
    }

    /// Closes now; what is queued is lost.
    pub(super) fn fail(&mut self, ep: Ep, reason: CloseReason) {
        if matches!(reason, CloseReason::Malformed(_) | CloseReason::Version { .. }) {
            self.counters.malformed += 1;
        }
        let endpoint = self.table.at(ep.slot);
        if endpoint.state != State::Dying {
            endpoint.state = State::Dying;
            endpoint.reason = reason;
        }
        self.sweep_later(ep.slot);
    }

    /// An operation on an endpoint that the ring did not take ends the endpoint, not the core.
    pub(super) fn or_fail(&mut self, ep: Ep, operation: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = operation(self) {
            self.fail(ep, CloseReason::Io(error.raw_os_error().unwrap_or(libc::EIO)));
        }
    }

    pub(super) fn sweep_later(&mut self, slot: u32) {
        let endpoint = self.table.at(slot);
        if !endpoint.swept {
            endpoint.swept = true;
            self.sweep.push(slot);
        }
    }

    /// Moves ending endpoints on, at the beginning of a poll.
    pub(super) fn sweep(&mut self, out: &mut Vec<Event>) {
        for slot in std::mem::take(&mut self.sweep) {
            let endpoint = self.table.at(slot);
            endpoint.swept = false;
            if endpoint.state == State::Finishing && endpoint.port == Port::Frames {
                let ep = self.table.handle(slot);
                self.drain(ep);
            }
            let endpoint = self.table.at(slot);
            if endpoint.state == State::Draining && endpoint.output.queued() == 0 {
                endpoint.state = State::Dying;
            }
            if endpoint.state == State::Dying {
                self.die(slot, out);
            }
        }
    }

    /// Ends operations in flight; the last one's completion comes back here.
    fn die(&mut self, slot: u32, out: &mut Vec<Event>) {
        let endpoint = self.table.at(slot);
        if endpoint.busy() {
            socket::shutdown(endpoint.fd);
            if endpoint.connecting {
                let ep = self.table.handle(slot);
                self.or_fail(ep, |tcp| tcp.cancel(slot, Op::Connect));
            }
            return;
        }
        let ep = self.table.handle(slot);
        if std::mem::take(&mut self.table.at(slot).starved) {
            self.starved.remove(&(self.table.at(slot).fed_at, slot));
        }
        if std::mem::take(&mut self.table.at(slot).dirty) {
            self.dirty.retain(|other| *other != slot);
        }
        let endpoint = self.table.at(slot);
        socket::close(endpoint.fd);
        if let Input::Frames(decoder) = &endpoint.input {
            self.assembling -= decoder.held();
        }
        endpoint.output.abandon(&mut self.pool, |token| {
            out.push(Event::Done { token, result: -libc::ECANCELED });
        });
        if endpoint.opened || endpoint.dialled {
            let reason = std::mem::replace(&mut endpoint.reason, CloseReason::Finished);
            out.push(Event::Closed { ep, reason });
        }
        self.table.remove(slot);
        // A descriptor is free again.
        for listener in &mut self.listeners {
            listener.retry_at = 0;
        }
    }

    /// Handshakes and drains that took too long.
    pub(super) fn expire(&mut self) {
        while let Some(ep) = pop_due(&mut self.greetings, self.now) {
            if self.table.get(ep).is_some_and(|e| e.state <= State::Greeting) {
                self.fail(ep, CloseReason::Io(libc::ETIMEDOUT));
            }
        }
        while let Some(ep) = pop_due(&mut self.drains, self.now) {
            match self.table.get(ep).filter(|e| e.state == State::Draining).map(|e| e.drain_due) {
                // Its peer has taken something meanwhile.
                Some(due) if due > self.now => {
                    let at = self.drains.partition_point(|(other, _)| *other <= due);
                    self.drains.insert(at, (due, ep));
                }
                Some(_) => self.fail(ep, CloseReason::Io(libc::ETIMEDOUT)),
                None => {}
            }
        }
    }
}

fn pop_due(queue: &mut VecDeque<(u64, Ep)>, now: u64) -> Option<Ep> {
    let (_, ep) = *queue.front().filter(|(due, _)| *due <= now)?;
    queue.pop_front();
    Some(ep)
}
