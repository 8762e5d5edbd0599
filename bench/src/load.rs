//! What is sent, whichever protocol carries it.

use std::time::Duration;

use firebrick_client::VALUE_BYTES_MAX;
use firebrick_net::poll::Mode;

use crate::error::BenchError;
use crate::keys::Distribution;
use crate::pin::pin_to;

/// The load's keys, values, times and thread.
#[derive(Clone, Debug)]
pub struct LoadOptions {
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
    /// Chooses keys and the order of gets and puts.
    pub seed: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            read_share: 0.5,
            keys: 100_000,
            distribution: Distribution::Uniform,
            value_bytes: 64,
            warm_up: Duration::from_millis(500),
            time: Duration::from_secs(5),
            core: None,
            poll: Mode::default(),
            seed: 1,
        }
    }
}

impl LoadOptions {
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let refuse = |text: String| Err(BenchError::Option(text));
        if !(0.0..=1.0).contains(&self.read_share) {
            return refuse(format!("a share of gets of {}: choose 0 to 1", self.read_share));
        }
        if self.keys == 0 || self.keys > 999_999_999_999 {
            return refuse(format!("{} keys: choose 1 to 999,999,999,999", self.keys));
        }
        if self.value_bytes > VALUE_BYTES_MAX {
            let bytes = self.value_bytes;
            return refuse(format!("values of {bytes} bytes: the limit is {VALUE_BYTES_MAX}"));
        }
        if self.time.is_zero() {
            return refuse("the time must be above 0".to_owned());
        }
        Ok(())
    }

    pub(crate) fn pin(&self) -> Result<(), BenchError> {
        self.core.map_or(Ok(()), |cpu| pin_to(cpu).map_err(|error| BenchError::Pin(cpu, error)))
    }
}
