//! From queued output and idle receives to submission entries.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use crate::fabric::{Body, Ep, Event, Full, Port, Token};
use crate::frame;
use crate::limits::{BODIES_MAX, BODY_COPY_MAX, OUT_BYTES_MAX};
use crate::ring::GROUP;

use super::Tcp;
use super::endpoint::{Endpoint, State};
use super::output::Next;

/// What a completion is of. With slot and generation it makes the operation's user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    Accept = 1,
    Receive,
    Send,
    Connect,
    Cancel,
    Bell,
    Disk,
    Sync,
}

impl Op {
    /// `op 8 | slot 24 | generation 32`.
    pub fn tag(self, ep: Ep) -> u64 {
        (self as u64) << 56 | u64::from(ep.slot) << 32 | u64::from(ep.generation)
    }

    pub fn parse(tag: u64) -> (Self, Ep) {
        let op = match tag >> 56 {
            1 => Self::Accept,
            2 => Self::Receive,
            3 => Self::Send,
            4 => Self::Connect,
            5 => Self::Cancel,
            6 => Self::Bell,
            7 => Self::Disk,
            8 => Self::Sync,
            other => unreachable!("a completion of operation {other}, which is never submitted"),
        };
        let slot = (tag >> 32) as u32 & 0xff_ffff;
        (op, Ep { slot, generation: tag as u32 })
    }
}

/// [`crate::Fabric::room`] of an endpoint.
pub fn room(endpoint: &Endpoint) -> usize {
    if !endpoint.takes_output() || endpoint.owed.get() {
        return 0;
    }
    let room = OUT_BYTES_MAX.saturating_sub(endpoint.output.queued());
    if room == 0 {
        endpoint.owed.set(true);
    }
    room
}

impl Tcp {
    /// [`crate::Fabric::send`].
    pub(super) fn queue(
        &mut self,
        ep: Ep,
        head: &[u8],
        body: Option<Body>,
        token: Token,
    ) -> Result<(), Full> {
        let endpoint = self.table.get_mut(ep).ok_or(Full)?;
        if !endpoint.takes_output() {
            return Err(Full);
        }
        let body_len = body.map_or(0, |b| b.len as usize);
        let queued = endpoint.output.queued();
        let over = queued > 0 && queued + head.len() + body_len > OUT_BYTES_MAX;
        if endpoint.owed.get() || over || endpoint.output.bodies() >= BODIES_MAX {
            endpoint.owed.set(true);
            return Err(Full);
        }
        let bytes = body.as_ref().map_or(&[][..], |b| {
            // SAFETY: the owner of the body keeps it in place and unchanged until `Done` (`Body`).
            unsafe { std::slice::from_raw_parts(b.ptr, b.len as usize) }
        });
        let buffer = endpoint.output.buffer(&mut self.pool);
        if endpoint.port == Port::Frames {
            buffer.extend_from_slice(&frame::header(head, bytes));
        }
        buffer.extend_from_slice(head);
        if let Some(body) = body {
            if body_len < BODY_COPY_MAX {
                buffer.extend_from_slice(bytes);
                self.ready.push(Event::Done { token, result: body_len as i32 });
            } else {
                endpoint.output.push_body(body, token);
            }
        }
        self.mark_dirty(ep.slot);
        Ok(())
    }

    /// Makes submission entries of all that is wanted of the kernel.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            self.table.at(slot).dirty = false;
            self.take_off(slot)?;
        }
        self.dirty = dirty;
        for _ in 0..self.starved.len().min(usize::from(self.buffers.free())) {
            if let Some((_, slot)) = self.starved.pop_first() {
                self.table.at(slot).starved = false;
                self.receive(slot)?;
            }
        }
        if self.listeners.iter().any(|l| !l.armed && l.fd.is_some() && l.retry_at <= self.now) {
            self.arm_listeners()?;
        }
        Ok(())
    }

    /// Begins a send, unless one is in flight. Pauses receiving when the output is full.
    fn take_off(&mut self, slot: u32) -> io::Result<()> {
        let endpoint = self.table.at(slot);
        if endpoint.state < State::Greeting || endpoint.state == State::Dying {
            return Ok(());
        }
        if !endpoint.sending && endpoint.output.take_off(&mut self.pool) {
            self.send_next(slot)?;
        }
        let endpoint = self.table.at(slot);
        if endpoint.output.queued() >= OUT_BYTES_MAX {
            endpoint.owed.set(true);
            if !endpoint.paused && !endpoint.reads_on {
                endpoint.paused = true;
                self.stop_receiving(slot)?;
            }
        }
        Ok(())
    }

    /// Submits what is left of the flight.
    pub(super) fn send_next(&mut self, slot: u32) -> io::Result<()> {
        let ep = self.table.handle(slot);
        let endpoint = self.table.at(slot);
        let fd = types::Fd(endpoint.fd);
        let entry = match endpoint.output.next() {
            Next::Bytes(ptr, len) => {
                opcode::Send::new(fd, ptr, len).flags(libc::MSG_NOSIGNAL).build()
            }
            Next::Message(message) => {
                opcode::SendMsg::new(fd, message).flags(libc::MSG_NOSIGNAL as u32).build()
            }
        };
        endpoint.sending = true;
        // SAFETY: the flight's buffer is neither grown nor freed until the completion; the caller's bodies are
        // pinned until their `Done`; the message is boxed.
        unsafe { self.ring.push(&entry.user_data(Op::Send.tag(ep))) }
    }

    /// Arms a multishot receive where input is wanted and none is armed.
    pub(super) fn receive(&mut self, slot: u32) -> io::Result<()> {
        let ep = self.table.handle(slot);
        let endpoint = self.table.at(slot);
        let stopped = endpoint.paused || endpoint.held || endpoint.starved;
        if !endpoint.takes_input() || endpoint.receiving || stopped {
            return Ok(());
        }
        endpoint.receiving = true;
        let entry = opcode::RecvMulti::new(types::Fd(endpoint.fd), GROUP)
            .build()
            .user_data(Op::Receive.tag(ep));
        // SAFETY: the kernel writes into provided buffers only, which outlive the ring.
        unsafe { self.ring.push(&entry) }
    }

    /// Cancels the multishot receive. What it has received until then still comes.
    pub(super) fn stop_receiving(&mut self, slot: u32) -> io::Result<()> {
        if self.table.at(slot).receiving {
            self.cancel(slot, Op::Receive)?;
        }
        Ok(())
    }

    pub(super) fn cancel(&mut self, slot: u32, op: Op) -> io::Result<()> {
        let ep = self.table.handle(slot);
        let entry = opcode::AsyncCancel::new(op.tag(ep)).build().user_data(Op::Cancel.tag(ep));
        // SAFETY: nothing is pointed to.
        unsafe { self.ring.push(&entry) }
    }

    pub(super) fn arm_listeners(&mut self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let Some(fd) = &listener.fd else { continue };
            if listener.armed || listener.retry_at > self.now {
                continue;
            }
            let entry = opcode::AcceptMulti::new(types::Fd(fd.as_raw_fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(Op::Accept.tag(Ep { slot: index as u32, generation: 0 }));
            // SAFETY: nothing is pointed to.
            unsafe { self.ring.push(&entry)? };
            listener.armed = true;
        }
        Ok(())
    }

    /// The read that another thread's ring completes. Armed when the core first parks.
    pub(super) fn arm_bell(&mut self) -> io::Result<()> {
        if self.bell_armed {
            return Ok(());
        }
        self.bell_armed = true;
        let entry =
            opcode::Read::new(types::Fd(self.bell.fd()), (&raw mut *self.bell_count).cast(), 8)
                .build()
                .user_data(Op::Bell.tag(Ep { slot: 0, generation: 0 }));
        // SAFETY: the counter is boxed and nobody else touches it; it goes after the ring.
        unsafe { self.ring.push(&entry) }
    }
}
