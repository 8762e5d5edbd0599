//! The shells' clocks. The session has none: time is an argument.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use firebrick_net::boot_ns;

/// Wall clock in milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
