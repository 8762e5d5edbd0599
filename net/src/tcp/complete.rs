//! Completions: what the kernel did, and what follows from it.

use io_uring::cqueue;

use crate::fabric::{CloseReason, Ep, Event, Port, Rx, RxInner};
use crate::frame::{Decoded, Decoder, HELLO_BYTES, Hello};
use crate::limits::{
    ACCEPT_RETRY_NS, ASSEMBLY_BYTES_MAX, DRAIN_NS_MAX, HANDSHAKE_NS_MAX, OUT_BYTES_MAX,
};

use super::endpoint::{Input, State};
use super::submit::Op;
use super::{Tcp, socket};

impl Tcp {
    pub(super) fn complete(&mut self, cqe: &cqueue::Entry, out: &mut Vec<Event>) {
        let (op, ep) = Op::parse(cqe.user_data());
        let result = cqe.result();
        match op {
            Op::Receive => self.on_receive(ep, result, cqe.flags(), out),
            Op::Send => self.on_send(ep, result, out),
            Op::Accept => self.on_accept(ep.slot as usize, result, cqe.flags(), out),
            Op::Connect => self.on_connect(ep, result, out),
            Op::Disk => self.on_disk(ep.slot, result, false, out),
            Op::Sync => self.on_disk(ep.slot, result, true, out),
            // The bell itself is a flag, looked at in every poll; this only unblocked the wait.
            Op::Bell => self.bell_armed = false,
            Op::Cancel => {}
        }
    }

    /// A write, or the flush behind it. A write that failed or fell short cancels its flush; which of the
    /// two is told first does not matter.
    fn on_disk(&mut self, slot: u32, result: i32, flush: bool, out: &mut Vec<Event>) {
        let disk = &mut self.disk[slot as usize];
        if flush {
            disk.flushed = Some(result);
        } else {
            disk.written = Some(result);
        }
        let (Some(written), Some(flushed)) = (disk.written, disk.flushed) else { return };
        let whole = written == disk.len as i32;
        let result = if whole && flushed < 0 { flushed } else { written };
        let token = disk.token;
        self.counters.disk_writes += 1;
        self.disk_free.push(slot);
        out.push(Event::Done { token, result });
    }

    fn on_accept(&mut self, index: usize, result: i32, flags: u32, out: &mut Vec<Event>) {
        let listener = &mut self.listeners[index];
        if listener.fd.is_none() {
            // Listening has stopped; what was accepted until then is let go.
            if result >= 0 {
                socket::close(result);
            }
            return;
        }
        if !cqueue::more(flags) {
            listener.armed = false;
            // EMFILE and the like would come back at once.
            listener.retry_at = if result < 0 { self.now + ACCEPT_RETRY_NS } else { 0 };
        }
        if result < 0 {
            return;
        }
        let port = listener.port;
        let admitted = match port {
            Port::Stream if !self.table.takes_streams() => None,
            Port::Stream => self.admit(result, port, State::Open),
            Port::Frames => self.admit(result, port, State::Greeting),
        };
        let Some(ep) = admitted else {
            self.counters.refused += 1;
            socket::close(result);
            return;
        };
        self.counters.accepted += 1;
        match port {
            Port::Stream => self.opened(ep, out),
            Port::Frames => {
                self.greetings.push_back((self.now + HANDSHAKE_NS_MAX, ep));
                self.greet(ep);
            }
        }
        self.or_fail(ep, |tcp| tcp.receive(ep.slot));
    }

    fn on_connect(&mut self, ep: Ep, result: i32, out: &mut Vec<Event>) {
        self.dials.remove(&ep.slot);
        let endpoint = self.table.at(ep.slot);
        endpoint.connecting = false;
        if endpoint.state != State::Connecting {
            self.sweep_later(ep.slot);
        } else if result < 0 {
            self.fail(ep, CloseReason::Io(-result));
        } else {
            match endpoint.port {
                Port::Stream => {
                    endpoint.state = State::Open;
                    self.opened(ep, out);
                }
                Port::Frames => {
                    endpoint.state = State::Greeting;
                    self.greet(ep);
                }
            }
            self.or_fail(ep, |tcp| tcp.receive(ep.slot));
        }
    }

    fn opened(&mut self, ep: Ep, out: &mut Vec<Event>) {
        let endpoint = self.table.at(ep.slot);
        endpoint.state = State::Open;
        endpoint.opened = true;
        out.push(Event::Opened { ep, port: endpoint.port });
    }

    fn on_send(&mut self, ep: Ep, result: i32, out: &mut Vec<Event>) {
        let endpoint = self.table.at(ep.slot);
        endpoint.sending = false;
        if endpoint.state == State::Dying {
            self.sweep_later(ep.slot);
            return;
        }
        if result < 0 && !matches!(-result, libc::EINTR | libc::EAGAIN) {
            self.fail(ep, CloseReason::Io(-result));
            return;
        }
        let sent = result.max(0) as usize;
        if sent > 0 {
            endpoint.drain_due = self.now + DRAIN_NS_MAX;
        }
        self.counters.bytes_out += sent as u64;
        let done = |token, len: u32| out.push(Event::Done { token, result: len as i32 });
        if !endpoint.output.landed(sent, &mut self.pool, done) {
            self.or_fail(ep, |tcp| tcp.send_next(ep.slot));
        }
        let endpoint = self.table.at(ep.slot);
        let queued = endpoint.output.queued();
        if queued > 0 && !endpoint.sending {
            self.mark_dirty(ep.slot);
        } else if queued == 0 && endpoint.state == State::Draining {
            self.sweep_later(ep.slot);
        }
        self.drained(ep, queued, out);
    }

    /// Keeps the promise of a `Full`.
    fn drained(&mut self, ep: Ep, queued: usize, out: &mut Vec<Event>) {
        let endpoint = self.table.at(ep.slot);
        if queued > OUT_BYTES_MAX / 2 || !endpoint.owed.replace(false) {
            return;
        }
        endpoint.paused = false;
        if endpoint.takes_output() {
            out.push(Event::Drained { ep });
        }
        self.or_fail(ep, |tcp| tcp.receive(ep.slot));
    }

    fn on_receive(&mut self, ep: Ep, result: i32, flags: u32, out: &mut Vec<Event>) {
        let endpoint = self.table.at(ep.slot);
        assert_eq!(endpoint.generation, ep.generation, "a slot outlives its operations");
        if !cqueue::more(flags) {
            endpoint.receiving = false;
        }
        let wanted = endpoint.takes_input();
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.taken(buffer);
            self.fed += 1;
            endpoint.fed_at = self.fed;
            if result > 0 && wanted {
                self.counters.bytes_in += result as u64;
                self.take_bytes(ep, buffer, result as u32, out);
            } else {
                self.buffers.release(buffer);
            }
        }
        if result <= 0 && wanted {
            self.on_receive_end(ep, -result, out);
        }
        if self.table.at(ep.slot).state == State::Dying {
            self.sweep_later(ep.slot);
        } else {
            self.or_fail(ep, |tcp| tcp.receive(ep.slot));
        }
    }

    /// A receive that brought nothing: the end, an error, or only a reason to arm again.
    fn on_receive_end(&mut self, ep: Ep, errno: i32, out: &mut Vec<Event>) {
        match errno {
            0 => self.finish(ep, out),
            libc::ENOBUFS => {
                self.counters.enobufs += 1;
                let endpoint = self.table.at(ep.slot);
                endpoint.starved = true;
                self.starved.insert((endpoint.fed_at, ep.slot));
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            errno => self.fail(ep, CloseReason::Io(errno)),
        }
    }

    /// Received bytes: the caller's, the handshake's, or frames.
    fn take_bytes(&mut self, ep: Ep, buffer: u16, len: u32, out: &mut Vec<Event>) {
        let mut start = 0;
        let endpoint = self.table.at(ep.slot);
        match &mut endpoint.input {
            Input::Stream => {
                let rx = Rx(RxInner::Ring { buffer, start, len });
                out.push(Event::Bytes { ep, rx });
                return;
            }
            Input::Greeting { have, bytes } => {
                let at = usize::from(*have);
                let take = (HELLO_BYTES - at).min(len as usize);
                let received = self.buffers.bytes(buffer, 0, take);
                bytes[at..at + take].copy_from_slice(received);
                *have += take as u8;
                start = take as u32;
                if at + take == HELLO_BYTES {
                    match Hello::decode(*bytes) {
                        Ok(_) => {
                            endpoint.input = Input::Frames(Decoder::new());
                            self.opened(ep, out);
                        }
                        Err(reason) => self.fail(ep, reason),
                    }
                }
            }
            Input::Frames(_) => {}
        }
        if start < len && self.table.at(ep.slot).takes_input() {
            self.take_frames(ep, buffer, start, len, out);
        }
        self.buffers.release(buffer);
    }

    /// Frames in `start..len` of a buffer. Each that lies whole in it shares it.
    fn take_frames(&mut self, ep: Ep, buffer: u16, start: u32, len: u32, out: &mut Vec<Event>) {
        let Input::Frames(decoder) = &mut self.table.at(ep.slot).input else {
            return;
        };
        let held = decoder.held();
        let before = out.len();
        let bytes = self.buffers.bytes(buffer, start as usize, (len - start) as usize);
        let mut shares = 0;
        let result = decoder.feed(bytes, |frame| {
            let rx = match frame {
                Decoded::Whole { start: at, len } => {
                    shares += 1;
                    RxInner::Ring { buffer, start: start + at as u32, len: len as u32 }
                }
                Decoded::Assembled(bytes) => RxInner::Heap(bytes),
            };
            out.push(Event::Frame { ep, rx: Rx(rx) });
        });
        self.assembling = self.assembling + decoder.held() - held;
        self.buffers.share(buffer, shares);
        self.counters.frames_in += (out.len() - before) as u64;
        if let Err(reason) = result {
            self.fail(ep, reason);
        } else if self.assembling > ASSEMBLY_BYTES_MAX {
            self.fail(ep, CloseReason::Io(libc::ENOBUFS));
        }
    }
}
