//! The fabric over TCP, on `io_uring`: multishot accept and receive into provided buffers, one send in flight an
//! endpoint, one system call a turn.
//!
//! Who calls whom: [`Fabric::poll`] takes completions (`complete.rs`), which move endpoints through their life
//! (`close.rs`) and report events. `send`, `out` and `close` only write memory and note the endpoint as dirty;
//! [`Fabric::flush`] and [`Fabric::wait`] turn the dirty ones into sends (`submit.rs`) and enter the kernel once.
//!
//! One-sided operations are not offered here: copies go in frames.

mod close;
mod complete;
mod endpoint;
mod output;
mod socket;
mod submit;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::{cqueue, opcode, squeue, types};

use crate::clock::boot_ns;
use crate::fabric::{
    Body, CloseReason, Counters, DiskWrite, Ep, Event, Fabric, Full, Load, Port, Rx, RxInner, Token,
};
use crate::frame::Hello;
use crate::limits::{
    CQES_PER_POLL_MAX, DISK_WRITES_MAX, ENDPOINTS_MAX, EVENTS_PER_POLL_MAX, HANDSHAKE_NS_MAX,
    LARGE_SEND_BYTES, RX_BUFFERS,
};
use crate::ring::{Bell, Buffers, Ring, RingError, Waker};
use endpoint::{State, Table};
use output::Pool;
use submit::Op;

/// How a [`Tcp`] is made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Provided receive buffers, each [`crate::limits::RX_BUFFER_BYTES`]. A power of two.
    pub rx_buffers: u16,
    /// Endpoints at most; a connection past them is accepted and closed, a stream already when the places that are left
    /// are those of frames ([`crate::limits::FRAMES_SHARE`]). Up to [`ENDPOINTS_MAX`].
    pub endpoints_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { rx_buffers: RX_BUFFERS, endpoints_max: ENDPOINTS_MAX }
    }
}

struct Listener {
    /// `None` once listening has stopped; the slot stays, because completions name it.
    fd: Option<OwnedFd>,
    port: Port,
    armed: bool,
    /// Out of descriptors: try again at this time.
    retry_at: u64,
}

/// A write to disk, and the flush behind it when it is to be durable.
struct Disk {
    token: Token,
    len: u32,
    written: Option<i32>,
    /// `Some(0)` from the start when nothing needs to be flushed.
    flushed: Option<i32>,
}

/// TCP on `io_uring`. Made on its core's thread and not `Send`.
pub struct Tcp {
    // Fields are dropped in this order: the ring goes before the memory that the kernel may use through it.
    ring: Ring,
    buffers: Buffers,
    bell: Bell,
    /// Where the kernel puts the eventfd's counter.
    bell_count: Box<u64>,
    bell_armed: bool,
    listeners: Vec<Listener>,
    table: Table,
    pool: Pool,
    dials: HashMap<u32, Box<socket::Address>>,
    disk: Vec<Disk>,
    disk_free: Vec<u32>,
    /// Endpoints that have something to send.
    dirty: Vec<u32>,
    /// Endpoints that wait for receive buffers, by when each last got one. (A queue would not do: who is let go on may
    /// find that those before it took all there was.)
    starved: BTreeSet<(u64, u32)>,
    /// Receive buffers that were filled so far.
    fed: u64,
    /// Endpoints whose life goes on at the next poll.
    sweep: Vec<u32>,
    /// Half-open handshakes and drains, each in order of time.
    greetings: VecDeque<(u64, Ep)>,
    drains: VecDeque<(u64, Ep)>,
    /// Events that a call other than `poll` made.
    ready: Vec<Event>,
    taken: Vec<cqueue::Entry>,
    assembling: usize,
    /// What went wrong in a poll, which cannot say so; the next flush or wait does.
    failed: Option<io::Error>,
    now: u64,
    counters: Counters,
}

impl Tcp {
    /// Makes the fabric of the calling thread.
    pub fn new(config: Config) -> Result<Self, RingError> {
        let ring = Ring::new()?;
        let buffers = Buffers::new(ring.uring(), config.rx_buffers)?;
        let bell = Bell::new().map_err(|error| RingError::from_io(error, "an eventfd"))?;
        Ok(Self {
            ring,
            buffers,
            bell,
            bell_count: Box::new(0),
            bell_armed: false,
            listeners: Vec::new(),
            table: Table::new(config.endpoints_max),
            pool: Pool::default(),
            dials: HashMap::new(),
            disk: Vec::new(),
            disk_free: Vec::new(),
            dirty: Vec::new(),
            starved: BTreeSet::new(),
            fed: 0,
            sweep: Vec::new(),
            greetings: VecDeque::new(),
            drains: VecDeque::new(),
            ready: Vec::new(),
            taken: Vec::with_capacity(CQES_PER_POLL_MAX),
            assembling: 0,
            failed: None,
            now: boot_ns(),
            counters: Counters::default(),
        })
    }

    /// Listens on one more address. Returns where (a port asked for as 0 has become one).
    pub fn listen(&mut self, address: SocketAddr, port: Port) -> io::Result<SocketAddr> {
        let fd = socket::listener(address)?;
        let bound = socket::local_address(fd.as_raw_fd())?;
        self.listeners.push(Listener { fd: Some(fd), port, armed: false, retry_at: 0 });
        self.arm_listeners()?;
        Ok(bound)
    }

    /// A handle with which other threads wake this core.
    pub fn waker(&self) -> Waker {
        self.bell.waker()
    }

    /// Endpoints in use.
    pub fn endpoints(&self) -> usize {
        self.table.len()
    }

    /// Receive buffers that the kernel may fill; the rest is held by tokens not released.
    pub fn rx_free(&self) -> usize {
        usize::from(self.buffers.free())
    }

    /// A new endpoint: behind all that wait for receive buffers. `None` when there is no room.
    fn admit(&mut self, fd: RawFd, port: Port, state: State) -> Option<Ep> {
        let ep = self.table.insert(fd, port, state)?;
        self.table.at(ep.slot).fed_at = self.fed;
        Some(ep)
    }

    fn mark_dirty(&mut self, slot: u32) {
        let endpoint = self.table.at(slot);
        if !endpoint.dirty {
            endpoint.dirty = true;
            self.dirty.push(slot);
        }
    }

    fn greet(&mut self, ep: Ep) {
        let hello = Hello::OURS.encode();
        self.table.at(ep.slot).output.buffer(&mut self.pool).extend_from_slice(&hello);
        self.mark_dirty(ep.slot);
    }

    /// Whether `poll` has something to do that no completion will announce.
    fn idle(&mut self) -> bool {
        self.ready.is_empty() && self.sweep.is_empty() && !self.ring.pending()
    }

    /// The earliest time at which `poll` has something to do of its own.
    fn deadline(&self) -> Option<u64> {
        let retry =
            self.listeners.iter().filter(|l| !l.armed && l.fd.is_some()).map(|l| l.retry_at);
        let queues = [self.greetings.front(), self.drains.front()];
        queues.into_iter().flatten().map(|(due, _)| *due).chain(retry).min()
    }
}

impl Fabric for Tcp {
    fn dial(&mut self, address: SocketAddr, port: Port) -> io::Result<Ep> {
        let fd = socket::stream(address)?;
        let Some(ep) = self.admit(fd.as_raw_fd(), port, State::Connecting) else {
            return Err(io::Error::other("all endpoints of this core are in use"));
        };
        let raw = Box::new(socket::Address::new(address));
        let connect = opcode::Connect::new(types::Fd(fd.into_raw_fd()), raw.as_ptr(), raw.len())
            .build()
            .user_data(Op::Connect.tag(ep));
        self.dials.insert(ep.slot, raw);
        let endpoint = self.table.at(ep.slot);
        endpoint.dialled = true;
        endpoint.connecting = true;
        self.greetings.push_back((self.now + HANDSHAKE_NS_MAX, ep));
        // SAFETY: the address stays in `dials` until the completion.
        unsafe { self.ring.push(&connect)? };
        Ok(ep)
    }

    fn poll(&mut self, boot_ns: u64, out: &mut Vec<Event>) {
        self.now = self.now.max(boot_ns);
        let before = out.len();
        if self.bell.answer() {
            out.push(Event::Woken);
        }
        out.append(&mut self.ready);
        self.expire();
        self.sweep(out);
        // At most one system call: what comes while this poll works is for the flush to collect.
        if let Err(error) = self.ring.peek() {
            self.failed = Some(error);
        }
        let mut taken = std::mem::take(&mut self.taken);
        let mut left = CQES_PER_POLL_MAX;
        // In small bites, because one completion may bring hundreds of frames.
        while left > 0 && out.len() - before < EVENTS_PER_POLL_MAX {
            self.ring.take(left.min(32), &mut taken);
            if taken.is_empty() {
                break;
            }
            left -= taken.len().min(left);
            for cqe in taken.drain(..) {
                self.complete(&cqe, out);
            }
        }
        self.taken = taken;
    }

    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8] {
        match &rx.0 {
            RxInner::Ring { buffer, start, len } => {
                self.buffers.bytes(*buffer, *start as usize, *len as usize)
            }
            RxInner::Heap(bytes) => bytes,
        }
    }

    fn release(&mut self, rx: Rx) {
        if let RxInner::Ring { buffer, .. } = rx.0 {
            self.buffers.release(buffer);
        }
    }

    fn send(&mut self, ep: Ep, head: &[u8], body: Option<Body>, token: Token) -> Result<(), Full> {
        self.queue(ep, head, body, token)
    }

    fn out(&mut self, ep: Ep) -> Option<&mut Vec<u8>> {
        let endpoint = self.table.get_mut(ep)?;
        if !endpoint.takes_output() || endpoint.port != Port::Stream {
            return None;
        }
        if !endpoint.dirty {
            endpoint.dirty = true;
            self.dirty.push(ep.slot);
        }
        Some(endpoint.output.buffer(&mut self.pool))
    }

    fn room(&self, ep: Ep) -> usize {
        self.table.get(ep).map_or(0, submit::room)
    }

    fn queued(&self, ep: Ep) -> usize {
        self.table.get(ep).map_or(0, |endpoint| endpoint.output.queued())
    }

    fn kept(&self, ep: Ep) -> usize {
        self.table.get(ep).map_or(0, |endpoint| endpoint.output.kept())
    }

    fn close(&mut self, ep: Ep) {
        if self.table.get(ep).is_some() {
            self.drain(ep);
        }
    }

    fn abort(&mut self, ep: Ep) {
        if let Some(endpoint) = self.table.get(ep) {
            socket::discard(endpoint.fd);
            self.fail(ep, CloseReason::Finished);
        }
    }

    fn hold(&mut self, ep: Ep, held: bool) {
        let Some(endpoint) = self.table.get_mut(ep) else { return };
        endpoint.held = held;
        // A cancelled receive that has not ended yet is armed again when it does.
        self.or_fail(
            ep,
            |tcp| if held { tcp.stop_receiving(ep.slot) } else { tcp.receive(ep.slot) },
        );
    }

    fn read_on(&mut self, ep: Ep) {
        if let Some(endpoint) = self.table.get_mut(ep) {
            endpoint.reads_on = true;
        }
    }

    /// What waits in the backlog is reset by the kernel.
    fn stop_listening(&mut self) {
        for fd in self.listeners.iter_mut().filter_map(|l| l.fd.take()) {
            // Ends the multishot accept, which holds the socket.
            socket::shutdown(fd.as_raw_fd());
        }
    }

    fn addresses(&self, ep: Ep) -> (String, String) {
        let Some(endpoint) = self.table.get(ep) else { return ("?".into(), "?".into()) };
        let text = |a: io::Result<SocketAddr>| a.map_or_else(|_| "?".into(), |a| a.to_string());
        (text(socket::peer_address(endpoint.fd)), text(socket::local_address(endpoint.fd)))
    }

    fn disk_write(&mut self, write: DiskWrite, token: Token) -> Result<(), Full> {
        let flushed = if write.durable { None } else { Some(0) };
        let disk = Disk { token, len: write.len, written: None, flushed };
        let index = match self.disk_free.pop() {
            Some(index) => {
                self.disk[index as usize] = disk;
                index
            }
            None if self.disk.len() < DISK_WRITES_MAX => {
                self.disk.push(disk);
                self.disk.len() as u32 - 1
            }
            None => return Err(Full),
        };
        let (fd, ep) = (types::Fd(write.fd), Ep { slot: index, generation: 0 });
        let entry = opcode::Write::new(fd, write.ptr, write.len)
            .offset(write.offset)
            .build()
            .user_data(Op::Disk.tag(ep));
        let pushed = if write.durable {
            // Not RWF_DSYNC: its flush runs in a kernel worker that is bound to the CPU of the disk's
            // interrupt. A data core that spins there holds it up until the next tick, 4 ms.
            let flush = opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build()
                .user_data(Op::Sync.tag(ep));
            let linked = [entry.flags(squeue::Flags::IO_LINK), flush];
            // SAFETY: the caller keeps the memory mapped until the completion (`DiskWrite`).
            unsafe { self.ring.push_all(&linked) }
        } else {
            // SAFETY: as above.
            unsafe { self.ring.push(&entry) }
        };
        if pushed.is_err() {
            self.disk_free.push(index);
            return Err(Full);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)?;
        self.prepare()?;
        self.ring.submit()
    }

    fn wait(&mut self, want: u32, timeout_ns: u64) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)?;
        self.arm_bell()?;
        self.prepare()?;
        if !self.idle() || !self.bell.park() {
            return self.ring.submit();
        }
        let limit =
            self.deadline().map_or(timeout_ns, |due| timeout_ns.min(due.saturating_sub(self.now)));
        let result = self.ring.wait(want.max(1), limit);
        self.bell.unpark();
        result
    }

    fn counters(&self) -> Counters {
        Counters { enters: self.ring.enters(), ..self.counters }
    }

    fn load(&self) -> Load {
        // (A stream whose commands wait for something has touched its output and has none.)
        let leaves = |slot: &&u32| {
            let endpoint = self.table.see(**slot);
            !endpoint.sending && endpoint.output.queued() > 0
        };
        let leaving = self.dirty.iter().filter(leaves);
        let (sends, most) = leaving.fold((0, 0), |(sends, most), slot| {
            (sends + 1, self.table.see(*slot).output.queued().max(most))
        });
        Load { sends, answers: sends, large: most > LARGE_SEND_BYTES }
    }
}

impl Drop for Tcp {
    /// Ends what is in flight before its memory goes: a buffer belongs to the kernel until its completion.
    fn drop(&mut self) {
        let all = types::CancelBuilder::any();
        let limit = types::Timespec::new().sec(1);
        // Errors only mean that nothing was in flight, or that the kernel ends it when the ring is closed.
        let _ = self.ring.uring().submitter().register_sync_cancel(Some(limit), all);
        for fd in self.table.fds() {
            socket::close(fd);
        }
    }
}

#[cfg(test)]
mod tests;
