//! The direct client: for a thread that polls, allocates nothing per request and never switches tasks.

use std::marker::PhantomData;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use firebrick_net::poll::{Mode, Next, Poller};
use firebrick_net::{CloseReason, Config, Ep, Event, Fabric, Port, Tcp, Token};
use firebrick_partition::op::{Answer, Condition, Expiry, Op, Version};

use crate::clock::boot_ns;
use crate::connection::refused;
use crate::error::{Error, Result};
use crate::options::{Options, Seeds, nanos};
use crate::session::{Dial, Link, Reply, Session, Sink, Submit, TableId, Target};
use crate::table::{stored, unexpected};

/// How a [`Direct`] behaves.
#[derive(Clone, Debug, Default)]
pub struct DirectOptions {
    /// As for every client. `in_flight_bytes` has no meaning here.
    pub client: Options,
    /// What to do while answers are due: spin, spin and then block, or block.
    pub poll: Mode,
}

/// A connection, from the dial on.
struct Line {
    link: Link,
    ep: Ep,
    address: Arc<str>,
    /// Until it is open: what else the address may mean, the next at the end.
    others: Vec<SocketAddr>,
    /// The endpoint was full: this frame goes first when it has room. Empty when there is none.
    held: Vec<u8>,
}

/// A client for one thread. Results come from [`Direct::poll`], in any order, under the caller's tokens.
///
/// ```no_run
/// use firebrick_client::{Answer, Direct, DirectOptions, Op, Reply};
/// # fn run() -> Result<(), firebrick_client::Error> {
/// let mut direct = Direct::connect("127.0.0.1:7400", &DirectOptions::default())?;
/// let table = direct.table("default")?;
/// direct.put(table, b"cart:7", b"three bricks")?;
///
/// direct.submit(table, b"cart:7", Op::Get, 1)?;
/// direct.submit(table, b"cart:8", Op::Get, 2)?;
/// while direct.in_flight() > 0 {
///     direct.poll(&mut |token: u64, result: Result<Reply<'_>, _>| match result {
///         Ok(Reply::Answer(Answer::Value { value, .. })) => println!("{token}: {value:?}"),
///         Ok(_) => println!("{token}: nothing there"),
///         Err(error) => println!("{token}: {error}"),
///     });
/// }
/// # Ok(())
/// # }
/// ```
///
/// It stays on its thread:
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<firebrick_client::Direct>();
/// ```
pub struct Direct {
    session: Session,
    fabric: Tcp,
    poller: Poller,
    lines: Vec<Line>,
    /// Lines with a frame held.
    holding: usize,
    seeds: Arc<str>,
    deadline_ns: u64,
    /// Arrived and not looked at yet.
    events: Vec<Event>,
    /// The frame being sent.
    frame: Vec<u8>,
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// The token of the blocking calls.
const BLOCKING: u64 = u64::MAX;

impl Direct {
    /// Connects to one address or several ([`Seeds`]); blocks until a brick answers, or says why none does.
    pub fn connect(seeds: impl Into<Seeds>, options: &DirectOptions) -> Result<Self> {
        let mut direct = Self::new(seeds.into(), options)?;
        direct.wait_connected()?;
        Ok(direct)
    }

    fn new(seeds: Seeds, options: &DirectOptions) -> Result<Self> {
        let fabric = Tcp::new(Config { rx_buffers: 64, ..Config::default() })
            .map_err(|e| Error::Local(e.to_string().into()))?;
        Ok(Self {
            seeds: seeds.to_string().into(),
            session: Session::new(options.client.session(seeds)),
            fabric,
            poller: Poller::new(options.poll),
            lines: Vec::new(),
            holding: 0,
            deadline_ns: nanos(options.client.deadline),
            events: Vec::new(),
            frame: Vec::new(),
            _stays_on_its_thread: PhantomData,
        })
    }

    /// One deadline for the first connection; the failure of every seed is the answer.
    fn wait_connected(&mut self) -> Result<()> {
        let until_ns = boot_ns().saturating_add(self.deadline_ns);
        let mut ignore = |_: u64, _: Result<Reply<'_>>| {};
        loop {
            self.turn(WAIT_NS_MAX, &mut ignore)?;
            if self.session.is_connected() {
                return Ok(());
            }
            if let Some(error) = self.session.unreachable() {
                return Err(error);
            }
            if boot_ns() >= until_ns {
                let why = format!("no answer within {} ms", self.deadline_ns / 1_000_000);
                return Err(Error::Connection { address: self.seeds.clone(), why: why.into() });
            }
        }
    }

    /// Requests submitted and not done.
    pub fn in_flight(&self) -> usize {
        self.session.in_flight()
    }

    /// How many more may be submitted now.
    pub fn room(&self) -> usize {
        self.session.room()
    }

    /// Takes a request, with the default deadline; it leaves with the next [`Direct::poll`]. `Busy`
    /// when [`Direct::room`] is 0. `token` is the caller's own, except `u64::MAX`.
    pub fn submit(&mut self, table: TableId, key: &[u8], op: Op<'_>, token: u64) -> Result<()> {
        self.submit_at(boot_ns(), table, Target::Key(key), op, token)
    }

    fn submit_at(
        &mut self,
        now_ns: u64,
        table: TableId,
        target: Target<'_>,
        op: Op<'_>,
        token: u64,
    ) -> Result<()> {
        let deadline_ns = now_ns.saturating_add(self.deadline_ns);
        self.session.submit(now_ns, &Submit { table, target, op, deadline_ns, token })
    }

    /// One turn: sends what was submitted, takes what arrived, and calls `sink` with each result. It
    /// returns after a few results, so that the caller can submit more while the brick works on the
    /// rest. While answers are due it may block as the poll mode says; else it returns at once.
    pub fn poll(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let longest_ns = if self.session.in_flight() > 0 { WAIT_NS_MAX } else { 0 };
        self.turn(longest_ns, sink)
    }

    /// [`Direct::poll`] for a caller who has something to submit after `longest`: when the poll mode blocks, it is no longer
    /// than that, but also with nothing in flight.
    pub fn poll_for(&mut self, longest: Duration, sink: &mut dyn Sink) -> Result<()> {
        self.turn(nanos(longest).min(WAIT_NS_MAX), sink)
    }

    /// A table by name. Blocks.
    pub fn table(&mut self, name: &str) -> Result<TableId> {
        if let Some(id) = self.session.table(name) {
            return Ok(id);
        }
        self.must_be_idle()?;
        let now_ns = boot_ns();
        self.session.fetch_map(now_ns, now_ns.saturating_add(self.deadline_ns), BLOCKING)?;
        self.finish(|reply| if reply == Reply::Map { Ok(()) } else { Err(unexpected()) })?;
        self.session.table(name).ok_or_else(|| Error::NoTable(name.into()))
    }

    /// The value of a key into `out`, which is cleared first, and its version; `None` when it has
    /// none. Blocks; `Busy` when other requests are in flight, as for all blocking calls.
    pub fn get(
        &mut self,
        table: TableId,
        key: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Version>> {
        out.clear();
        self.call(table, key, Op::Get, |answer| match answer {
            Answer::Value { value, version, .. } => {
                out.extend_from_slice(value);
                Ok(Some(version))
            }
            Answer::Absent => Ok(None),
            _ => Err(unexpected()),
        })
    }

    /// Stores a value. Blocks.
    pub fn put(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<Version> {
        let (expiry, condition) = (Expiry::Never, Condition::Always);
        let op = Op::Put { value, expiry, condition, want_old: false };
        self.call(table, key, op, |answer| stored(answer, condition))
    }

    /// Takes the value away; `false`: there was none. Blocks.
    pub fn remove(&mut self, table: TableId, key: &[u8]) -> Result<bool> {
        let op = Op::Remove { condition: Condition::Always, want_old: false };
        self.call(table, key, op, |answer| match answer {
            Answer::Done { .. } => Ok(true),
            Answer::Absent => Ok(false),
            _ => Err(unexpected()),
        })
    }

    /// Any operation on one key. Blocks.
    pub fn call<T>(
        &mut self,
        table: TableId,
        key: &[u8],
        op: Op<'_>,
        map: impl FnOnce(Answer<'_>) -> Result<T>,
    ) -> Result<T> {
        self.must_be_idle()?;
        self.submit_at(boot_ns(), table, Target::Key(key), op, BLOCKING)?;
        self.finish(|reply| match reply {
            Reply::Answer(answer) => map(answer),
            _ => Err(unexpected()),
        })
    }

    fn must_be_idle(&self) -> Result<()> {
        if self.session.in_flight() > 0 { Err(Error::Busy) } else { Ok(()) }
    }

    fn finish<T>(&mut self, map: impl FnOnce(Reply<'_>) -> Result<T>) -> Result<T> {
        let mut map = Some(map);
        let mut outcome = None;
        while outcome.is_none() {
            self.turn(WAIT_NS_MAX, &mut |_: u64, result: Result<Reply<'_>>| {
                if let Some(map) = map.take() {
                    outcome = Some(result.and_then(map));
                }
            })?;
        }
        outcome.unwrap_or(Err(Error::Closed))
    }

    fn turn(&mut self, longest_ns: u64, sink: &mut dyn Sink) -> Result<()> {
        let now_ns = boot_ns();
        let before = (self.session.in_flight(), self.session.is_connected());
        if self.poller.mode() != Mode::Park {
            // Before the answers are digested: the brick works meanwhile.
            self.send(now_ns, sink);
            self.fabric.flush().map_err(local)?;
        }
        let mut taken = std::mem::take(&mut self.events);
        if taken.is_empty() {
            self.fabric.poll(now_ns, &mut taken);
        }
        let events = taken.len();
        for event in taken.drain(..events.min(TURN_EVENTS)) {
            self.handle_event(now_ns, event, sink);
        }
        self.events = taken;
        self.session.handle_timeout(now_ns, sink);
        while let Some(link) = self.session.poll_close() {
            if let Some(at) = self.lines.iter().position(|l| l.link == link) {
                self.forget(at);
            }
        }
        self.dial(now_ns, sink);
        if !self.events.is_empty() {
            return Ok(());
        }
        self.send(now_ns, sink);
        // A caller who got results has more to submit, as a rule.
        let is_news = before != (self.session.in_flight(), self.session.is_connected());
        self.end_turn(now_ns, events, if is_news { 0 } else { longest_ns }).map_err(local)
    }

    fn end_turn(&mut self, now_ns: u64, events: usize, longest_ns: u64) -> std::io::Result<()> {
        let due_ns = self.session.poll_timeout();
        let timer_ns = due_ns.saturating_sub(now_ns).min(longest_ns);
        match self.poller.after(now_ns, events, self.fabric.load(), timer_ns) {
            Next::Flush => self.fabric.flush(),
            Next::Wait { want, timeout_ns } => self.fabric.wait(want, timeout_ns),
        }
    }

    fn handle_event(&mut self, now_ns: u64, event: Event, sink: &mut dyn Sink) {
        match event {
            Event::Opened { ep, .. } => {
                if let Some(line) = self.lines.iter_mut().find(|l| l.ep == ep) {
                    line.others.clear();
                    // A brick that is full of answers reads nothing until they are taken.
                    self.fabric.read_on(ep);
                    self.session.handle_connected(now_ns, line.link);
                }
            }
            Event::Frame { ep, rx } => {
                let at = self.lines.iter().position(|l| l.ep == ep);
                let mut taken = Ok(());
                if let Some(at) = at {
                    let bytes = self.fabric.bytes(&rx);
                    taken = self.session.handle_frame(now_ns, self.lines[at].link, bytes, sink);
                }
                self.fabric.release(rx);
                if let (Some(at), Err(error)) = (at, taken) {
                    self.disconnect(now_ns, at, error, sink);
                }
            }
            Event::Bytes { rx, .. } => self.fabric.release(rx),
            Event::Closed { ep, reason } => {
                let Some(at) = self.lines.iter().position(|l| l.ep == ep) else { return };
                let line = &mut self.lines[at];
                if !line.others.is_empty()
                    && let Ok(ep) =
                        dial_next(&mut line.others, |at| self.fabric.dial(at, Port::Frames))
                {
                    line.ep = ep;
                    return;
                }
                let why = why(&self.lines[at].address, &reason);
                self.disconnect(now_ns, at, why, sink);
            }
            Event::Finished { .. } | Event::Drained { .. } | Event::Done { .. } | Event::Woken => {}
        }
    }

    /// Closes a line and tells the session.
    fn disconnect(&mut self, now_ns: u64, at: usize, why: Error, sink: &mut dyn Sink) {
        let link = self.forget(at);
        self.session.handle_disconnected(now_ns, link, why, sink);
    }

    fn forget(&mut self, at: usize) -> Link {
        let line = self.lines.swap_remove(at);
        self.holding -= usize::from(!line.held.is_empty());
        // What is queued for it is sent again elsewhere, or in doubt: it must not leave later.
        self.fabric.abort(line.ep);
        line.link
    }

    fn dial(&mut self, now_ns: u64, sink: &mut dyn Sink) {
        while let Some(Dial { link, address }) = self.session.poll_dial(now_ns) {
            let opened = resolve(&address).and_then(|all| self.open(link, &address, all));
            if let Err(error) = opened {
                let why = error.to_string().into();
                let error = Error::Connection { address, why };
                self.session.handle_disconnected(now_ns, link, error, sink);
            }
        }
    }

    /// Dials the last of what an address means, and the others when nobody answers there.
    fn open(
        &mut self,
        link: Link,
        address: &Arc<str>,
        mut others: Vec<SocketAddr>,
    ) -> std::io::Result<()> {
        let ep = dial_next(&mut others, |at| self.fabric.dial(at, Port::Frames))?;
        self.lines.push(Line { link, ep, address: address.clone(), others, held: Vec::new() });
        Ok(())
    }

    fn send(&mut self, now_ns: u64, sink: &mut dyn Sink) {
        if self.holding > 0 {
            self.send_held();
        }
        loop {
            self.frame.clear();
            let Some(link) = self.session.poll_send(now_ns, &mut self.frame, sink) else { break };
            let Some(line) = self.lines.iter_mut().find(|l| l.link == link) else { continue };
            if self.fabric.send(line.ep, &self.frame, None, Token::NONE).is_err() {
                // Nothing more comes for it, except a hello that nobody will miss.
                if line.held.is_empty() {
                    std::mem::swap(&mut line.held, &mut self.frame);
                    self.holding += 1;
                }
                self.session.handle_blocked(link);
            }
        }
        if self.frame.capacity() > FRAME_KEPT_BYTES {
            self.frame = Vec::new();
        }
    }

    fn send_held(&mut self) {
        for line in self.lines.iter_mut().filter(|l| !l.held.is_empty()) {
            if self.fabric.send(line.ep, &line.held, None, Token::NONE).is_ok() {
                line.held = Vec::new();
                self.holding -= 1;
                self.session.handle_drained(line.link);
            }
        }
    }
}

/// The socket addresses of a text, the first at the end. A name blocks until it is looked up.
fn resolve(address: &str) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let mut all: Vec<_> = address.to_socket_addrs()?.collect();
    all.reverse();
    Ok(all)
}

/// Dials the last one for which there can be a socket: the system may lack IPv6, which `localhost` names first.
fn dial_next<T>(
    others: &mut Vec<SocketAddr>,
    mut dial: impl FnMut(SocketAddr) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let mut result = Err(std::io::Error::other("the name has no address"));
    while result.is_err()
        && let Some(next) = others.pop()
    {
        result = dial(next);
    }
    result
}

fn why(address: &Arc<str>, reason: &CloseReason) -> Error {
    let why = match reason {
        CloseReason::Io(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
        CloseReason::Finished => "it closed the connection".to_owned(),
        other => return refused(other),
    };
    Error::Connection { address: address.clone(), why: why.into() }
}

/// Events of one turn: few enough that brick and client work at the same time and not in turns, and
/// enough for one system call.
const TURN_EVENTS: usize = 32;
/// The longest block in one turn.
const WAIT_NS_MAX: u64 = 1_000_000_000;
/// A larger frame buffer is given back.
const FRAME_KEPT_BYTES: usize = 256 << 10;

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn local(error: std::io::Error) -> Error {
    Error::Local(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// As `localhost` where a brick listens on one of the two loopbacks.
    #[test]
    fn a_name_with_a_dead_address_leads_to_the_living_one() {
        let living = TcpListener::bind("127.0.0.1:0").unwrap();
        living.set_nonblocking(true).unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut direct = Direct::new("name:1".into(), &DirectOptions::default()).unwrap();
        let began = boot_ns();
        let dial = direct.session.poll_dial(began).unwrap();
        let addresses = vec![living.local_addr().unwrap(), dead];
        direct.open(dial.link, &dial.address, addresses).unwrap();
        while living.accept().is_err() {
            direct.turn(1_000_000, &mut |_: u64, _: Result<Reply<'_>>| {}).unwrap();
            assert!(boot_ns() - began < 5_000_000_000, "nobody dialled the second address");
        }
    }

    #[test]
    fn an_address_without_a_socket_leads_to_the_next() {
        let mut others = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
        let no_v6 = |at: SocketAddr| {
            let lacks = || std::io::Error::from_raw_os_error(97); // EAFNOSUPPORT
            if at.is_ipv4() { Ok(at) } else { Err(lacks()) }
        };
        assert_eq!(dial_next(&mut others, no_v6).unwrap().port(), 1);
        others.push("[::1]:1".parse().unwrap());
        assert_eq!(dial_next(&mut others, no_v6).unwrap_err().raw_os_error(), Some(97));
    }
}
