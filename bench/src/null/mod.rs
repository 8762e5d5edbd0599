//! A brick without a store: what the fabric alone costs.
//!
//! Every request is received, checked and decoded as a brick does it, and answered with fixed bytes. What a
//! brick needs above this is the price of its routing, index, log and replication.

mod native;
mod resp;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use firebrick_net::poll::{Mode, Next, Poller};
use firebrick_net::{CloseReason, Config, Event, Fabric, Port, RingError, Tcp, Waker};

use crate::pin::pin_to;

/// Bytes of the value that every get is answered with.
pub const VALUE_BYTES: usize = 64;
/// The longest block: what a stop may take when its wake-up is waited past.
const WAIT_NS_MAX: u64 = 100_000_000;

/// How to run a null brick.
#[derive(Clone, Copy, Debug)]
pub struct NullOptions {
    /// Native protocol; port 0 takes a free one.
    pub listen: SocketAddr,
    /// RESP, when wanted.
    pub resp: Option<SocketAddr>,
    /// The CPU of its one core; `None` leaves it to the kernel.
    pub core: Option<usize>,
    /// What it does while it waits.
    pub poll: Mode,
}

/// Why a null brick does not run.
#[derive(Debug)]
pub enum NullError {
    /// No ring.
    Ring(RingError),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The CPU cannot be used.
    Pin(usize, io::Error),
    /// The kernel refused a submit.
    Loop(io::Error),
    /// No thread.
    Thread(io::Error),
}

impl fmt::Display for NullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => write!(f, "{error}"),
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}; choose another with --listen")
            }
            Self::Pin(cpu, error) => {
                write!(f, "cannot run on CPU {cpu}: {error}; choose another with --core")
            }
            Self::Loop(error) => write!(f, "the ring failed: {error}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for NullError {}

/// A null brick on a thread of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Null {
    native: SocketAddr,
    resp: Option<SocketAddr>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<Result<(), NullError>>>,
}

impl Null {
    /// Starts one; it answers when this returns.
    pub fn start(options: NullOptions) -> Result<Self, NullError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let stop_seen = stop.clone();
        let body = move || match Core::new(options) {
            Ok((core, ready)) => {
                // The other side waits for this and nothing else.
                let _ = tell.send(Ok(ready));
                core.run(options.poll, &stop_seen)
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                Ok(())
            }
        };
        let thread = std::thread::Builder::new().name("null".to_owned()).spawn(body);
        let thread = thread.map_err(NullError::Thread)?;
        let gone = || NullError::Thread(io::Error::other("it ended before it was ready"));
        let Ready { native, resp, waker } = told.recv().map_err(|_| gone())??;
        Ok(Self { native, resp, stop, waker, thread: Some(thread) })
    }

    /// Where the native protocol is spoken.
    pub fn native(&self) -> SocketAddr {
        self.native
    }

    /// Where RESP is spoken.
    pub fn resp(&self) -> Option<SocketAddr> {
        self.resp
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<(), NullError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), NullError> {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.thread.take().map_or(Ok(()), join)
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.end();
    }
}

fn join(thread: JoinHandle<Result<(), NullError>>) -> Result<(), NullError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Ready {
    native: SocketAddr,
    resp: Option<SocketAddr>,
    waker: Waker,
}

/// The fabric's listeners share a port, for bricks of several cores; two bricks must not.
fn must_be_free(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

/// What the thread owns.
struct Core {
    tcp: Tcp,
    native: native::Native,
    resp: resp::Streams,
}

impl Core {
    fn new(options: NullOptions) -> Result<(Self, Ready), NullError> {
        if let Some(cpu) = options.core {
            pin_to(cpu).map_err(|error| NullError::Pin(cpu, error))?;
        }
        let mut tcp = Tcp::new(Config::default()).map_err(NullError::Ring)?;
        let mut listen = |address: SocketAddr, port| {
            let listening = must_be_free(address).and_then(|()| tcp.listen(address, port));
            listening.map_err(|error| NullError::Listen(address, error))
        };
        let native = listen(options.listen, Port::Frames)?;
        let resp = options.resp.map(|address| listen(address, Port::Stream)).transpose()?;
        let waker = tcp.waker();
        let core = Self { tcp, native: native::Native::new(), resp: resp::Streams::default() };
        Ok((core, Ready { native, resp, waker }))
    }

    /// The hot loop of a data core, with the store left out.
    fn run(mut self, mode: Mode, stop: &AtomicBool) -> Result<(), NullError> {
        let begin = Instant::now();
        let mut poller = Poller::new(mode);
        let mut events = Vec::new();
        while !stop.load(Ordering::Acquire) {
            let now_ns = begin.elapsed().as_nanos() as u64;
            self.tcp.poll(now_ns, &mut events);
            let seen = events.len();
            for event in events.drain(..) {
                self.handle(event);
            }
            match poller.after(now_ns, seen, self.tcp.load(), WAIT_NS_MAX) {
                Next::Flush => self.tcp.flush(),
                Next::Wait { want, timeout_ns } => self.tcp.wait(want, timeout_ns),
            }
            .map_err(NullError::Loop)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Frame { ep, rx } => {
                self.native.handle_frame(&mut self.tcp, ep, &rx);
                self.tcp.release(rx);
            }
            Event::Bytes { ep, rx } => {
                self.resp.handle_bytes(&mut self.tcp, ep, &rx);
                self.tcp.release(rx);
            }
            Event::Closed { ep, reason } => {
                self.resp.forget(ep);
                if let CloseReason::Malformed(why) = reason {
                    eprintln!("null brick: a connection was closed: {why}");
                }
            }
            Event::Finished { ep } => self.tcp.close(ep),
            Event::Drained { ep } => self.resp.handle_drained(&mut self.tcp, ep),
            Event::Opened { .. } | Event::Done { .. } | Event::Woken => {}
        }
    }
}
