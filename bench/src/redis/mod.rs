//! The same load for whatever speaks RESP: redis, valkey, dragonfly, or a brick's own front. It is to the Redis
//! protocol what [`kv`](crate::kv) is to the native one, on the ring driver of this crate's null brick.
//!
//! A closed loop: each connection has one request under way, a `GET`, or a `SET` and perhaps a `WAIT` for replicas in the
//! same write. The next leaves when all its answers are there.

pub mod reply;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use firebrick_net::poll::{Next, Poller};
use firebrick_net::{CloseReason, Config, Ep, Event, Fabric, Port, Rx, Tcp};

use crate::error::BenchError;
use crate::keys::{Chooser, key};
use crate::load::LoadOptions;
use crate::report::{Report, Tally};
use reply::Reply;

/// What to send.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The server.
    pub connect: String,
    /// Connections, each with one request under way.
    pub connections: usize,
    /// Behind each put: `WAIT` for so many replicas, without a limit of time. An answer with fewer is a failure.
    pub replicas: Option<u32>,
    /// What is sent.
    pub load: LoadOptions,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            connect: "127.0.0.1:7379".to_owned(),
            connections: 16,
            replicas: None,
            load: LoadOptions::default(),
        }
    }
}

/// Connections at most.
pub const CONNECTIONS_MAX: usize = 10_000;
/// No answer to anything for so long: the server is not there.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest sleep.
const WAIT_NS_MAX: u64 = 100_000_000;

/// Runs one load and reports what it found. Blocks; `progress` is called a few times a second with the part
/// that is done, 0 to 1.
pub fn run(options: &RedisOptions, progress: &mut dyn FnMut(f64)) -> Result<Report, BenchError> {
    check(options)?;
    options.load.pin()?;
    let mut load = Load::new(options)?;
    load.connect().map_err(|error| match error {
        BenchError::Server(why) => BenchError::Unreachable(why),
        other => other,
    })?;
    if options.load.read_share > 0.0 {
        load.phase = Phase::Preload { next: 0 };
        load.drive(Duration::MAX, &mut |_| {})?;
    }
    load.phase = Phase::Run;
    load.drive(options.load.warm_up, &mut |_| {})?;
    load.tally = Tally::new();
    let begin = Instant::now();
    load.drive(options.load.time, progress)?;
    Ok(load.report(begin.elapsed()))
}

fn check(options: &RedisOptions) -> Result<(), BenchError> {
    let connections = options.connections;
    if connections == 0 || connections > CONNECTIONS_MAX {
        let text = format!("{connections} connections: choose 1 to {CONNECTIONS_MAX}");
        return Err(BenchError::Option(text));
    }
    options.load.check()
}

/// What the next requests are.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Each key once.
    Preload { next: u64 },
    /// The mix.
    Run,
}

/// A connection and its request.
#[derive(Debug)]
struct Line {
    since: Instant,
    is_get: bool,
    /// Answers that are still to come; 0: it rests.
    owed: u32,
    /// The beginning of an answer.
    rest: Vec<u8>,
}

struct Load<'a> {
    options: &'a RedisOptions,
    address: SocketAddr,
    tcp: Tcp,
    poller: Poller,
    events: Vec<Event>,
    begin: Instant,
    lines: HashMap<Ep, Line>,
    /// Requests under way.
    in_flight: usize,
    phase: Phase,
    /// The time of this phase is over.
    ends: bool,
    chooser: Chooser,
    value: Vec<u8>,
    tally: Tally,
}

impl<'a> Load<'a> {
    fn new(options: &'a RedisOptions) -> Result<Self, BenchError> {
        let unknown =
            |why: String| BenchError::Option(format!("`{}` is no address: {why}", options.connect));
        let mut found = options.connect.to_socket_addrs().map_err(|e| unknown(e.to_string()))?;
        let address = found.next().ok_or_else(|| unknown("it has none".to_owned()))?;
        let tcp =
            Tcp::new(Config::default()).map_err(|error| BenchError::Ring(error.to_string()))?;
        Ok(Self {
            options,
            address,
            tcp,
            poller: Poller::new(options.load.poll),
            events: Vec::new(),
            begin: Instant::now(),
            lines: HashMap::new(),
            in_flight: 0,
            phase: Phase::Run,
            ends: false,
            chooser: Chooser::new(options.load.distribution, options.load.keys, options.load.seed),
            value: vec![b'x'; options.load.value_bytes],
            tally: Tally::new(),
        })
    }

    fn unreachable(&self, why: &str) -> BenchError {
        BenchError::Server(format!("{}: {why}; is a server running there?", self.options.connect))
    }

    fn connect(&mut self) -> Result<(), BenchError> {
        for _ in 0..self.options.connections {
            let dialled = self.tcp.dial(self.address, Port::Stream);
            dialled.map_err(|error| self.unreachable(&error.to_string()))?;
        }
        let begin = Instant::now();
        while self.lines.len() < self.options.connections {
            self.turn()?;
            if begin.elapsed() >= SILENCE {
                return Err(self.unreachable("it does not answer"));
            }
        }
        Ok(())
    }

    /// Sends for this long, then waits for what is under way.
    fn drive(&mut self, time: Duration, progress: &mut dyn FnMut(f64)) -> Result<(), BenchError> {
        let begin = Instant::now();
        let mut heard = (self.tally.count(), begin);
        let mut told = begin;
        self.ends = false;
        let all: Vec<Ep> = self.lines.keys().copied().collect();
        for ep in all {
            self.ask(ep);
        }
        while self.in_flight > 0 {
            self.turn()?;
            let now = Instant::now();
            self.ends = now - begin >= time;
            if now - told >= Duration::from_millis(200) {
                told = now;
                progress((now - begin).as_secs_f64() / time.as_secs_f64());
            }
            if self.tally.count() != heard.0 {
                heard = (self.tally.count(), now);
            }
            if now - heard.1 >= SILENCE {
                return Err(self.unreachable("no request was answered for 10 s"));
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), BenchError> {
        let failed = |error: std::io::Error| BenchError::Ring(error.to_string());
        let now_ns = self.begin.elapsed().as_nanos() as u64;
        let mut events = std::mem::take(&mut self.events);
        self.tcp.poll(now_ns, &mut events);
        let seen = events.len();
        for event in events.drain(..) {
            self.on_event(event)?;
        }
        self.events = events;
        let next = self.poller.after(now_ns, seen, self.tcp.load(), WAIT_NS_MAX);
        match next {
            Next::Flush => self.tcp.flush(),
            Next::Wait { want, timeout_ns } => self.tcp.wait(want, timeout_ns),
        }
        .map_err(failed)
    }

    fn on_event(&mut self, event: Event) -> Result<(), BenchError> {
        match event {
            Event::Opened { ep, .. } => {
                let since = Instant::now();
                self.lines.insert(ep, Line { since, is_get: false, owed: 0, rest: Vec::new() });
            }
            Event::Bytes { ep, rx } => {
                let taken = self.take(ep, &rx);
                self.tcp.release(rx);
                taken?;
            }
            Event::Closed { reason: CloseReason::Io(errno), .. } => {
                let error = std::io::Error::from_raw_os_error(errno);
                return Err(self.unreachable(&error.to_string()));
            }
            Event::Finished { .. } | Event::Closed { .. } => {
                return Err(self.unreachable("it closed a connection"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The next request of a connection, if there is to be one.
    fn ask(&mut self, ep: Ep) {
        let (number, is_get) = match &mut self.phase {
            _ if self.ends => return,
            Phase::Preload { next } if *next == self.options.load.keys => return,
            Phase::Preload { next } => {
                *next += 1;
                (*next - 1, false)
            }
            Phase::Run => {
                let is_get = self.chooser.chance(self.options.load.read_share);
                (self.chooser.next_key(), is_get)
            }
        };
        let replicas = self.options.replicas.filter(|_| !is_get);
        let (Some(line), Some(out)) = (self.lines.get_mut(&ep), self.tcp.out(ep)) else { return };
        let (key, value) = (key(number), &self.value);
        if is_get {
            reply::command(out, &[b"GET", &key]);
        } else {
            reply::command(out, &[b"SET", &key, value]);
        }
        if let Some(replicas) = replicas {
            reply::command(out, &[b"WAIT", replicas.to_string().as_bytes(), b"0"]);
        }
        (line.since, line.is_get) = (Instant::now(), is_get);
        line.owed = 1 + u32::from(replicas.is_some());
        self.in_flight += 1;
    }

    /// Answers of a connection.
    fn take(&mut self, ep: Ep, rx: &Rx) -> Result<(), BenchError> {
        let Some(line) = self.lines.get_mut(&ep) else { return Ok(()) };
        line.rest.extend_from_slice(self.tcp.bytes(rx));
        let mut used = 0;
        let mut failure = None;
        while line.owed > 0 {
            let Some((found, len)) =
                Reply::parse(&line.rest[used..]).map_err(BenchError::Server)?
            else {
                break;
            };
            failure = failure.or(match found {
                Reply::Error(text) => Some(text),
                Reply::Integer(n) if n < i64::from(self.options.replicas.unwrap_or(0)) => {
                    Some(format!("{n} replicas have it"))
                }
                Reply::Null if line.is_get => {
                    self.tally.misses += 1;
                    None
                }
                _ => None,
            });
            used += len;
            line.owed -= 1;
        }
        line.rest.drain(..used);
        if line.owed > 0 || used == 0 {
            return Ok(());
        }
        match failure {
            None => self.tally.record(line.is_get, line.since.elapsed().as_nanos() as u64),
            Some(text) => self.tally.fail(&text),
        }
        self.in_flight -= 1;
        self.ask(ep);
        Ok(())
    }

    fn report(self, elapsed: Duration) -> Report {
        let Self { options, tally, .. } = self;
        Report::of(tally, elapsed, options.connections, options.load.poll, &options.load)
    }
}
