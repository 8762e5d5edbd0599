//! The load generator: gets and puts against a brick, through the client's busy-polled handle.
//!
//! *Closed loop*: a number of requests is kept in flight; the next is sent when one is answered. It measures
//! throughput, and latency at that depth. *Open loop*: requests leave at a rate, whether or not earlier ones
//! were answered, and latency counts from the moment at which a request *should* have left. So a server that
//! stalls for a second is charged for all the requests of that second, not for one ("coordinated omission").

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use firebrick_client::{
    Answer, Condition, Direct, DirectOptions, Error, Expiry, Op, Options, Reply, TableId,
};
use firebrick_net::poll::Mode;

use crate::error::BenchError;
use crate::keys::{Chooser, key};
use crate::load::LoadOptions;
use crate::report::{Report, Tally};

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
    /// What is sent.
    pub load: LoadOptions,
}

impl Default for KvOptions {
    fn default() -> Self {
        Self {
            connect: "127.0.0.1:7400".to_owned(),
            table: "default".to_owned(),
            in_flight: 64,
            rate: None,
            load: LoadOptions::default(),
        }
    }
}

/// Runs one load and reports what it found. Blocks; `progress` is called a few times a second with the part
/// that is done, 0 to 1.
pub fn run(options: &KvOptions, progress: &mut dyn FnMut(f64)) -> Result<Report, BenchError> {
    check(options)?;
    options.load.pin()?;
    let spins = options.rate.is_some() && options.load.poll != Mode::Park;
    let poll = if spins { Mode::Busy } else { options.load.poll };
    let client = Options {
        name: "firebrick-bench".to_owned(),
        in_flight: options.in_flight.max(PRELOAD_IN_FLIGHT),
        ..Options::default()
    };
    let mut direct = Direct::connect(&options.connect, &DirectOptions { client, poll })?;
    let table = direct.table(&options.table)?;
    let mut load = Load::new(options, table);
    if options.load.read_share > 0.0 {
        load.preload(&mut direct, options.load.keys)?;
    }
    let warm_up = options.load.warm_up;
    load.drive(&mut direct, warm_up, &mut |_| {})?;
    load.tally = Tally::new();
    let begin = Instant::now();
    load.drive(&mut direct, options.load.time, progress)?;
    Ok(load.report(begin.elapsed(), poll))
}

fn check(options: &KvOptions) -> Result<(), BenchError> {
    let refuse = |text: String| Err(BenchError::Option(text));
    if options.in_flight == 0 || options.in_flight > firebrick_client::IN_FLIGHT_MAX {
        let max = firebrick_client::IN_FLIGHT_MAX;
        return refuse(format!("{} requests in flight: choose 1 to {max}", options.in_flight));
    }
    if options.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return refuse("the rate must be above 0 requests a second".to_owned());
    }
    options.load.check()
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
            chooser: Chooser::new(options.load.distribution, options.load.keys, options.load.seed),
            value: vec![b'x'; options.load.value_bytes],
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
        let is_get = self.chooser.chance(self.options.load.read_share);
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

    fn report(self, elapsed: Duration, poll: Mode) -> Report {
        let Self { options, tally, .. } = self;
        let rate_wanted = options.rate;
        let in_flight = options.in_flight;
        Report { rate_wanted, ..Report::of(tally, elapsed, in_flight, poll, &options.load) }
    }
}

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}
