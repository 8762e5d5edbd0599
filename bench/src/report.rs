//! What a run found.

use std::fmt;
use std::time::Duration;

use firebrick_net::poll::Mode;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::LoadOptions;

/// Latencies of one kind of request, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many requests.
    pub count: u64,
    /// Half were faster.
    pub p50_us: f64,
    /// One in a hundred was slower.
    pub p99_us: f64,
    /// One in a thousand was slower.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1000.0,
        }
    }
}

/// The figures of one run. In JSON the latency of all requests stands at the top.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Answered requests a second.
    pub ops_per_second: f64,
    /// Seconds measured, warm-up apart.
    pub seconds: f64,
    /// All requests.
    #[serde(flatten)]
    pub all: Latency,
    /// Gets.
    pub gets: Latency,
    /// Puts.
    pub puts: Latency,
    /// Gets that found no value.
    pub misses: u64,
    /// Requests that failed.
    pub errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
    /// Requests a second that were asked for, in an open loop.
    pub rate_wanted: Option<f64>,
    /// How requests were sent.
    pub in_flight: usize,
    /// The load thread's poll mode.
    pub poll: String,
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// The share of gets.
    pub read_share: f64,
}

/// Histograms of a run in progress.
#[derive(Debug)]
pub struct Tally {
    gets: Histogram<u64>,
    puts: Histogram<u64>,
    /// Gets that found no value.
    pub misses: u64,
    /// Requests that failed.
    pub errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
}

/// Latencies past this are recorded as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        let histogram = || match Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3) {
            Ok(histogram) => histogram,
            Err(error) => unreachable!("the bounds are constants: {error}"),
        };
        Self { gets: histogram(), puts: histogram(), misses: 0, errors: 0, first_error: None }
    }

    /// One answered request.
    pub fn record(&mut self, is_get: bool, latency_ns: u64) {
        let histogram = if is_get { &mut self.gets } else { &mut self.puts };
        histogram.saturating_record(latency_ns);
    }

    /// One failed request.
    pub fn fail(&mut self, error: &impl fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    /// Answers and failures so far.
    pub fn count(&self) -> u64 {
        self.gets.len() + self.puts.len() + self.errors
    }

    /// Gets, puts and both.
    fn latencies(&self) -> (Latency, Latency, Latency) {
        let mut all = self.gets.clone();
        // Same bounds: it cannot fail.
        let added = all.add(&self.puts);
        assert!(added.is_ok(), "histograms of the same bounds add up");
        (Latency::of(&self.gets), Latency::of(&self.puts), Latency::of(&all))
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    /// What a closed loop counted in this time.
    pub fn of(
        tally: Tally,
        elapsed: Duration,
        in_flight: usize,
        poll: Mode,
        load: &LoadOptions,
    ) -> Self {
        let (gets, puts, all) = tally.latencies();
        let seconds = elapsed.as_secs_f64();
        Self {
            ops_per_second: all.count as f64 / seconds,
            seconds,
            all,
            gets,
            puts,
            misses: tally.misses,
            errors: tally.errors,
            first_error: tally.first_error,
            rate_wanted: None,
            in_flight,
            poll: poll.to_string(),
            keys: load.keys,
            value_bytes: load.value_bytes,
            read_share: load.read_share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut tally = Tally::new();
        for n in 1..=1000_u64 {
            tally.record(n.is_multiple_of(2), n * 1000);
        }
        let (gets, puts, all) = tally.latencies();
        assert_eq!((gets.count, puts.count, all.count), (500, 500, 1000));
        for (found, wanted) in
            [(all.p50_us, 500.0), (all.p99_us, 990.0), (all.p999_us, 999.0), (all.max_us, 1000.0)]
        {
            assert!((found - wanted).abs() < wanted / 500.0 + 1.0, "{found} {wanted}");
        }
    }
}
