//! When a write counts as kept, and how people write that down.

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};

/// When a write counts as kept.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub enum Durability {
    /// In the memory of all replicas; no disk.
    Memory,
    /// As `Memory`, and on disk after at most `ms` milliseconds.
    Async {
        /// The bound.
        ms: u32,
    },
    /// On the disks of all replicas.
    #[default]
    Sync,
}

/// The bound of an `async` that names none.
const ASYNC_MS: u32 = 1000;
/// The largest one.
const ASYNC_MS_MAX: u32 = 60_000;

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Async { ms } => write!(f, "async({ms}ms)"),
            Self::Sync => f.write_str("sync"),
        }
    }
}

/// `memory`, `async`, `async(500ms)`, `async(2s)` or `sync`. The error says so.
impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = || {
            "give \"memory\", \"async\", \"async(500ms)\" (1 to 60000 ms) or \"sync\"".to_owned()
        };
        let text = text.trim();
        match text {
            "memory" => return Ok(Self::Memory),
            "async" => return Ok(Self::Async { ms: ASYNC_MS }),
            "sync" => return Ok(Self::Sync),
            _ => {}
        }
        let inner = text.strip_prefix("async(").and_then(|rest| rest.strip_suffix(')'));
        let inner = inner.ok_or_else(help)?.trim();
        let (number, scale) = if let Some(number) = inner.strip_suffix("ms") {
            (number, 1)
        } else if let Some(number) = inner.strip_suffix('s') {
            (number, 1000)
        } else {
            (inner, 1)
        };
        let behind: u32 = number.trim().parse().map_err(|_| help())?;
        match behind.checked_mul(scale) {
            Some(ms) if (1..=ASYNC_MS_MAX).contains(&ms) => Ok(Self::Async { ms }),
            _ => Err(help()),
        }
    }
}
