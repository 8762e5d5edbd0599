//! The interface that every fabric implements: `tcp` on `io_uring`, `fake` in tests, later `shm` and
//! `verbs`. A data core is generic over it (`Shard<F: Fabric>`), chosen once, not per message.

use std::io;
use std::net::SocketAddr;

/// An endpoint (a queue pair, a connection). The generation makes a stale handle harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ep {
    /// Slot in the fabric's endpoint table.
    pub slot: u32,
    /// Grows each time the slot is used again.
    pub generation: u32,
}

/// What an endpoint carries, fixed by the port it was opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Length- and CRC-checked frames, after the versioned handshake.
    Frames,
    /// A raw byte stream (RESP).
    Stream,
}

/// The caller's own word, returned with a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

impl Token {
    /// For a frame without a body: it has no completion, so its token is never seen.
    pub const NONE: Self = Self(u64::MAX);
}

/// Received bytes that the caller owns until it calls [`Fabric::release`].
///
/// An owned token and not a borrow, because a borrowed frame would fight `&mut self`.
#[derive(Debug)]
#[must_use = "received buffers go back with Fabric::release"]
pub struct Rx(pub(crate) RxInner);

#[derive(Debug)]
pub(crate) enum RxInner {
    /// A range of a provided receive buffer.
    Ring { buffer: u16, start: u32, len: u32 },
    /// Assembled from several buffers, because it was larger than one.
    Heap(Vec<u8>),
}

/// Bytes that are sent from where they lie (a slice of a mapped log), pinned by their owner until
/// [`Event::Done`] returns the token.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// First byte.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: u32,
}

/// Memory offered to peers for one-sided reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First byte.
    pub ptr: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

/// Names a registered region to peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// A range in a peer's registered region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The region.
    pub key: Key,
    /// Offset in it, bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
}

/// One write of mapped log bytes to a data file. The memory must stay mapped until the completion.
#[derive(Clone, Copy, Debug)]
pub struct DiskWrite {
    /// The open file (`O_DIRECT` where the file system allows it).
    pub fd: i32,
    /// First byte; aligned as the file asks.
    pub ptr: *const u8,
    /// Length in bytes; aligned likewise.
    pub len: u32,
    /// Offset in the file; aligned likewise.
    pub offset: u64,
    /// The completion means "durable" (a flush follows the write), not just "written".
    pub durable: bool,
}

/// The endpoint's credits are used up. Nothing was queued; try again after completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// How much is going on, for [`crate::poll::Poller`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Endpoints with output that the next flush sends; each is a completion soon.
    pub sends: u32,
    /// What they will bring back soon: who is answered asks again, who is asked answers.
    pub answers: u32,
    /// One of them is so large that it may not complete at once.
    pub large: bool,
}

/// What a fabric did since it was made. Plain numbers; the owner publishes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused, because all endpoints are in use.
    pub refused: u64,
    /// Receives that found no free buffer.
    pub enobufs: u64,
    /// Connections closed because what they sent is not the protocol (also before their handshake was done).
    pub malformed: u64,
    /// Writes to disk that completed. Not in `bytes_out`.
    pub disk_writes: u64,
}

/// Why an endpoint closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it, or we did.
    Finished,
    /// Bytes that are not a frame: the text says what was wrong.
    Malformed(&'static str),
    /// The peer speaks another version of the protocol.
    Version {
        /// The version the peer offered.
        theirs: u16,
    },
    /// The kernel's word (errno).
    Io(i32),
}

/// What a poll may report.
#[derive(Debug)]
pub enum Event {
    /// Accepted, or dialled, and (for frames) shaken hands.
    Opened {
        /// The new endpoint.
        ep: Ep,
        /// What it carries.
        port: Port,
    },
    /// One whole, CRC-checked frame.
    Frame {
        /// Where it came from.
        ep: Ep,
        /// Its payload.
        rx: Rx,
    },
    /// Raw bytes of a stream endpoint.
    Bytes {
        /// Where they came from.
        ep: Ep,
        /// The bytes.
        rx: Rx,
    },
    /// The peer of a stream endpoint sends no more and may wait for its answers: the owner closes the endpoint when it has
    /// given them. (A frames endpoint closes by itself; what is answered in the same turn still leaves.)
    Finished {
        /// The endpoint.
        ep: Ep,
    },
    /// An endpoint that had been full (no room, or `Full` while open) has drained; parsing of its input may go on.
    Drained {
        /// The endpoint.
        ep: Ep,
    },
    /// A body, read or write of this token is done; its memory is the owner's again.
    Done {
        /// The caller's token.
        token: Token,
        /// Bytes moved, or minus errno.
        result: i32,
    },
    /// The endpoint is gone. Sent exactly once for each `Opened`, and for each dialled endpoint that never opened
    /// (a refused connection, another version); no event follows it.
    Closed {
        /// The endpoint.
        ep: Ep,
        /// Why.
        reason: CloseReason,
    },
    /// Another thread or core rang (eventfd or `MSG_RING`): look at the rings in shared memory.
    Woken,
}

/// An interconnect as a data core sees it. All calls are for the owning thread only and none blocks,
/// except [`Fabric::wait`].
pub trait Fabric {
    /// Connects. [`Event::Opened`] or [`Event::Closed`] follows for the endpoint.
    fn dial(&mut self, address: SocketAddr, port: Port) -> io::Result<Ep>;

    /// Collects what happened into `out`, which the caller reuses. Bounded work per call.
    /// `boot_ns` is `CLOCK_BOOTTIME`: time is an argument.
    fn poll(&mut self, boot_ns: u64, out: &mut Vec<Event>);

    /// The bytes of a received token.
    fn bytes<'a>(&'a self, rx: &'a Rx) -> &'a [u8];

    /// Gives a receive buffer back.
    fn release(&mut self, rx: Rx);

    /// Queues one frame: `head`, then `body` from where it lies. `token` returns in
    /// [`Event::Done`] when `body` is not needed any more; without a body there is no completion.
    /// On a stream endpoint the bytes are queued as they are.
    fn send(&mut self, ep: Ep, head: &[u8], body: Option<Body>, token: Token) -> Result<(), Full>;

    /// The out buffer of a stream endpoint, for replies written in place; `None` when it has closed.
    /// The caller checks [`Fabric::room`] before it starts another reply.
    fn out(&mut self, ep: Ep) -> Option<&mut Vec<u8>>;

    /// Bytes that may still be queued on the endpoint; 0 when it is full or closed. An endpoint
    /// that reached 0 gets [`Event::Drained`] later, and its receiving is paused until then (but [`Fabric::read_on`]).
    fn room(&self, ep: Ep) -> usize;

    /// Bytes queued on the endpoint and not taken by the kernel.
    fn queued(&self, ep: Ep) -> usize;

    /// Bytes that its output takes: what the kernel has taken of a send is given back when it has all.
    fn kept(&self, ep: Ep) -> usize {
        self.queued(ep)
    }

    /// Stops (or resumes) receiving on an endpoint whose owner cannot take more for now, for reasons
    /// of its own. What was received before still comes.
    fn hold(&mut self, ep: Ep, held: bool);

    /// From now on this endpoint receives also while its output is full: two that send to each other must not wait
    /// for each other to read. Its owner bounds what the input makes it queue.
    fn read_on(&mut self, ep: Ep);

    /// The peer's address and ours, for people; `?` when it has closed. Costs system calls.
    fn addresses(&self, ep: Ep) -> (String, String);

    /// Accepts no more connections; those that are open stay.
    fn stop_listening(&mut self);

    /// Closes after what is queued has been sent.
    fn close(&mut self, ep: Ep);

    /// Closes at once: what has not reached the peer's host when [`Event::Closed`] reports the end never does (but for
    /// what a network still carries).
    fn abort(&mut self, ep: Ep);

    /// Offers memory for one-sided operations. A fabric that has none leaves this and the next three as they are.
    fn register(&mut self, _region: Region) -> io::Result<Key> {
        let why = "one-sided operations are not offered here: ask the peer in a frame";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    /// Ends that offer.
    fn withdraw(&mut self, _key: Key) {}

    /// Reads a peer's registered memory into `local`.
    fn read(&mut self, _: Ep, _: Remote, _local: Region, _: Token) -> Result<(), Full> {
        Err(Full)
    }

    /// Writes `local` into a peer's registered memory.
    fn write(&mut self, _: Ep, _: Remote, _local: Body, _: Token) -> Result<(), Full> {
        Err(Full)
    }

    /// Queues a write-behind of log bytes; completes as [`Event::Done`].
    fn disk_write(&mut self, write: DiskWrite, token: Token) -> Result<(), Full>;

    /// Submits all that was queued: at most one system call.
    fn flush(&mut self) -> io::Result<()>;

    /// Submits, then blocks until `want` completions or `timeout_ns`. A wake-up is one completion; so that
    /// it is not waited past, keep the time short when `want` is more than 1.
    fn wait(&mut self, want: u32, timeout_ns: u64) -> io::Result<()>;

    /// What was done so far. A fabric for tests may leave it at zeroes.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// How much is going on.
    fn load(&self) -> Load;
}
