//! The load generator: gets and puts against a brick, through the client's busy-polled handle.
//!
//! *Closed loop*: a number of requests is kept in flight; the next is sent when one is answered. It measures
//! throughput, and latency at that depth. *Open loop*: requests leave at a rate, whether or not earlier ones
//! were answered, and latency counts from the moment at which a request *should* have left. So a server that
//! stalls for a second is charged for all the requests of that second, not for one ("coordinated omission").

pub mod keys;
pub mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use firebrick_client::{
    Answer, Condition, Direct, DirectOptions, Error, Expiry, Op, Options, Reply, TableId,
};
use firebrick_net::poll::Mode;

use crate::pin::pin_to;
pub use keys::Distribution;
use keys::{Chooser, key};
use report::Tally;
pub use report::{KvReport, Latency};

/// What to send.
#[derive(Clone, Debug)]
pub struct KvOptions {
    /// The brick's native address.
    pub connect: String,
    /// The table.
    pub table: String,
    /// Closed loop: requests in flight. Open loop: at most as many.
    pub in_flight: usize,
    /// Open loop: requests a second.
    pub rate: Option<f64>,
    /// The share of gets, 0 to 1; the rest are puts.
    pub read_share: f64,
    /// Different keys.
    pub keys: u64,
    /// Which of them how often.
    pub distribution: Distribution,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Not measured, before.
    pub warm_up: Duration,
    /// Measured.
    pub time: Duration,
    /// The load's CPU.
    pub core: Option<usize>,
    /// What the load does while it waits. An open loop spins, to be on time, unless it is told to park: then it shares
    /// its CPU with others, and the timer's delay counts as the server's.
    pub poll: Mode,
    /// Store every key once before a run with gets.
    pub preload: bool,
    /// Chooses keys and the order of gets and puts.
    pub seed: u64,
}

impl Default for KvOptions {
    fn default() -> Self {
        Self {
            connect: "127.0.0.1:7400".to_owned(),
            table: "default".to_owned(),
            in_flight: 64,
            rate: None,
            read_share: 0.5,
            keys: 100_000,
            distribution: Distribution::Uniform,
            value_bytes: 64,
            warm_up: Duration::from_millis(500),
            time: Duration::from_secs(5),
            core: None,
            poll: Mode::default(),
            preload: true,
            seed: 1,
        }
    }
}

/// Why there is no report.
#[derive(Debug)]
pub enum BenchError {
    /// An option makes no sense: which, and what to do.
    Option(String),
    /// The CPU cannot be used.
    Pin(usize, io::Error),
    /// The brick cannot be reached, or the first requests failed.
    Client(Error),
    /// The server of [`redis`](crate::redis) cannot be reached, or is none.
    Server(String),
    /// The load's own ring failed.
    Ring(String),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(text) | Self::Server(text) | Self::Ring(text) => f.write_str(text),
            Self::Pin(cpu, error) => {
                write!(f, "cannot run on CPU {cpu}: {error}; choose another with --core")
            }
            Self::Client(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<Error> for BenchError {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

/// Runs one load and reports what it found. Blocks; `progress` is called a few times a second with the part
/// that is done, 0 to 1.
pub fn run(options: &KvOptions, progress: &mut dyn FnMut(f64)) -> Result<KvReport, BenchError> {
    check(options)?;
    if let Some(cpu) = options.core {
        pin_to(cpu).map_err(|error| BenchError::Pin(cpu, error))?;
    }
    let spins = options.rate.is_some() && options.poll != Mode::Park;
    let poll = if spins { Mode::Busy } else { options.poll };
    let client = Options {
        name: "firebrick-bench".to_owned(),
        in_flight: options.in_flight.max(PRELOAD_IN_FLIGHT),
        ..Options::default()
    };
    let mut direct = Direct::connect(&options.connect, &DirectOptions { client, poll })?;
    let table = direct.table(&options.table)?;
    let mut load = Load::new(options, table);
    if options.preload && options.read_share > 0.0 {
        load.preload(&mut direct, options.keys)?;
    }
    let warm_up = options.warm_up;
    load.drive(&mut direct, warm_up, &mut |_| {})?;
    load.tally = Tally::new();
    let begin = Instant::now();
    load.drive(&mut direct, options.time, progress)?;
    Ok(load.report(begin.elapsed(), poll))
}

fn check(options: &KvOptions) -> Result<(), BenchError> {
    let refuse = |text: String| Err(BenchError::Option(text));
    if options.in_flight == 0 || options.in_flight > firebrick_client::IN_FLIGHT_MAX {
        let max = firebrick_client::IN_FLIGHT_MAX;
        return refuse(format!("{} requests in flight: choose 1 to {max}", options.in_flight));
    }
    if !(0.0..=1.0).contains(&options.read_share) {
        return refuse(format!("a share of gets of {}: choose 0 to 1", options.read_share));
    }
    if options.keys == 0 || options.keys > 999_999_999_999 {
        return refuse(format!("{} keys: choose 1 to 999,999,999,999", options.keys));
    }
    if options.value_bytes > firebrick_client::VALUE_BYTES_MAX {
        let max = firebrick_client::VALUE_BYTES_MAX;
        return refuse(format!("values of {} bytes: the limit is {max}", options.value_bytes));
    }
    if options.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return refuse("the rate must be above 0 requests a second".to_owned());
    }
    if options.time.is_zero() {
        return refuse("the time must be above 0".to_owned());
    }
    Ok(())
}

/// Puts in flight while keys are stored before a run.
const PRELOAD_IN_FLIGHT: usize = 256;
/// Between two calls of `progress`; so no turn waits longer.
const PROGRESS: Duration = Duration::from_millis(200);

/// One request in flight.
#[derive(Clone, Copy, Debug)]
struct Pending {
    since: Instant,
    is_get: bool,
}

struct Load<'a> {
    options: &'a KvOptions,
    table: TableId,
    chooser: Chooser,
    value: Vec<u8>,
    /// By token.
    pending: Vec<Pending>,
    free: Vec<u32>,
    tally: Tally,
}

impl<'a> Load<'a> {
    fn new(options: &'a KvOptions, table: TableId) -> Self {
        let slots = options.in_flight.max(PRELOAD_IN_FLIGHT);
        let idle = Pending { since: Instant::now(), is_get: false };
        Self {
            options,
            table,
            chooser: Chooser::new(options.distribution, options.keys, options.seed),
            value: vec![b'x'; options.value_bytes],
            pending: vec![idle; slots],
            free: (0..slots as u32).rev().collect(),
            tally: Tally::new(),
        }
    }

    /// Stores each key once. A failure here ends the run.
    fn preload(&mut self, direct: &mut Direct, keys: u64) -> Result<(), BenchError> {
        let mut failed = None;
        let mut next = 0;
        while next < keys || direct.in_flight() > 0 {
            while next < keys && direct.in_flight() < PRELOAD_IN_FLIGHT {
                direct.submit(self.table, &key(next), put(&self.value), 0)?;
                next += 1;
            }
            direct.poll(&mut |_: u64, result: Result<Reply<'_>, Error>| {
                if let Err(error) = result {
                    failed.get_or_insert(error);
                }
            })?;
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Sends for this long, then waits for what is in flight.
    fn drive(
        &mut self,
        direct: &mut Direct,
        time: Duration,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(), BenchError> {
        let begin = Instant::now();
        let mut sent = 0;
        let mut told = begin;
        loop {
            let now = Instant::now();
            let elapsed = now - begin;
            if elapsed >= time {
                break;
            }
            if now - told >= PROGRESS {
                told = now;
                progress(elapsed.as_secs_f64() / time.as_secs_f64());
            }
            let longest = match self.options.rate {
                None => {
                    while direct.in_flight() < self.options.in_flight {
                        self.submit(direct, Instant::now())?;
                    }
                    PROGRESS
                }
                Some(rate) => {
                    let intended = |nth: u64| begin + Duration::from_secs_f64(nth as f64 / rate);
                    let due = (elapsed.as_secs_f64() * rate) as u64 + 1;
                    while sent < due && direct.in_flight() < self.options.in_flight {
                        self.submit(direct, intended(sent))?;
                        sent += 1;
                    }
                    if sent < due { PROGRESS } else { intended(sent) - now }
                }
            };
            self.poll(direct, longest)?;
        }
        while direct.in_flight() > 0 {
            self.poll(direct, PROGRESS)?;
        }
        Ok(())
    }

    fn submit(&mut self, direct: &mut Direct, since: Instant) -> Result<(), BenchError> {
        let Some(token) = self.free.pop() else { return Ok(()) };
        let is_get = self.chooser.chance(self.options.read_share);
        let key = key(self.chooser.next_key());
        let op = if is_get { Op::Get } else { put(&self.value) };
        self.pending[token as usize] = Pending { since, is_get };
        direct.submit(self.table, &key, op, u64::from(token))?;
        Ok(())
    }

    fn poll(&mut self, direct: &mut Direct, longest: Duration) -> Result<(), BenchError> {
        let Self { pending, free, tally, .. } = self;
        direct.poll_for(longest, &mut |token: u64, result: Result<Reply<'_>, Error>| {
            let Pending { since, is_get } = pending[token as usize];
            free.push(token as u32);
            match result {
                Ok(reply) => {
                    tally.record(is_get, since.elapsed().as_nanos() as u64);
                    if is_get && matches!(reply, Reply::Answer(Answer::Absent)) {
                        tally.misses += 1;
                    }
                }
                Err(error) => tally.fail(&error),
            }
        })?;
        Ok(())
    }

    fn report(self, elapsed: Duration, poll: Mode) -> KvReport {
        let options = self.options;
        let mut report = KvReport::of(self.tally, elapsed, poll.to_string());
        (report.rate_wanted, report.in_flight) = (options.rate, options.in_flight);
        (report.keys, report.value_bytes) = (options.keys, options.value_bytes);
        report.read_share = options.read_share;
        report
    }
}

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}
