//! How long to rest between attempts to connect.

/// Doubles from 1 ms to 1 s.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

const FIRST_NS: u64 = 1_000_000;
const LAST_NS: u64 = 1_000_000_000;

impl Backoff {
    pub fn next_ns(&mut self) -> u64 {
        let rest = (FIRST_NS << self.failures.min(16)).min(LAST_NS);
        self.failures = self.failures.saturating_add(1);
        rest
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}
