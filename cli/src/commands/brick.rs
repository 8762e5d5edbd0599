//! `firebrick brick`: one storage server in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::units::parse_size;

/// Flags of `brick`. Every one overrides the same key of the configuration file.
#[derive(Args, Debug, Clone, Default)]
#[command(after_help = "\
Without flags: data in ~/.local/share/firebrick/brick, records in /dev/shm, native protocol on
127.0.0.1:7400, RESP on 127.0.0.1:7379, HTTP on 127.0.0.1:7480. Flags win over the configuration
file, which wins over the defaults; docs/firebrick.toml lists every key of the file.")]
pub struct BrickArgs {
    /// The brick's name, in logs, metrics and `status`.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// TOML configuration file; an unknown key in it is an error.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Native protocol.
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Addresses")]
    pub listen: Option<SocketAddr>,
    /// Redis protocol (RESP2 and RESP3).
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Addresses")]
    pub resp: Option<SocketAddr>,
    /// HTTP: /metrics, /healthz, /readyz.
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Addresses")]
    pub http: Option<SocketAddr>,
    /// Where records live while the brick runs: a folder in tmpfs, or `auto` (/dev/shm when it has room).
    #[arg(long, value_name = "DIR", help_heading = "Storage")]
    pub memory_dir: Option<PathBuf>,
    /// Where records are written behind to, on disk.
    #[arg(long, value_name = "DIR", help_heading = "Storage")]
    pub data_dir: Option<PathBuf>,
    /// Flags that `up` has too.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// What a brick may use, and how it works.
#[derive(Args, Debug, Clone, Default)]
pub struct Tuning {
    /// CPUs for data cores: a list such as `0`, `0,2` or `0-3`.
    #[arg(long, value_name = "LIST", value_parser = parse_cores, help_heading = "Resources")]
    pub cores: Option<Cores>,
    /// What an idle data core does.
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Resources")]
    pub poll: Option<PollMode>,
    /// Memory for records, such as 512m or 4g.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Resources")]
    pub memory: Option<u64>,
    /// When a write counts as done: `memory` (no disk), `async` or `async(MS)` (on disk within that
    /// many milliseconds), `sync` (on disk before the answer).
    #[arg(long, value_name = "WHEN", value_parser = parse_durability, help_heading = "Storage")]
    pub durability: Option<Durability>,
}

/// CPUs, in ascending order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

/// What an idle data core does.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollMode {
    /// Never sleeps: lowest latency, a CPU each at 100%.
    Busy,
    /// Spins for a moment, then sleeps.
    Adaptive,
    /// Sleeps as soon as there is nothing to do: least CPU.
    Park,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No disk at all.
    Memory,
    /// Written behind; the bound in milliseconds, or the brick's default.
    Async(Option<u32>),
    /// Flushed before the answer.
    Sync,
}

/// `0,2-3` to CPU numbers.
fn parse_cores(text: &str) -> Result<Cores, String> {
    let bad = || format!("`{text}` is not a list of CPUs: write it like 0 or 0,2 or 0-3");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| bad())?;
        let last: usize = last.trim().parse().map_err(|_| bad())?;
        if first > last || last >= 1024 {
            return Err(bad());
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(Cores(cores))
}

/// `memory`, `async`, `async(20)`, `sync`.
fn parse_durability(text: &str) -> Result<Durability, String> {
    let bad = || format!("`{text}` is no durability: use memory, async, async(20) or sync");
    match text {
        "memory" => Ok(Durability::Memory),
        "async" => Ok(Durability::Async(None)),
        "sync" => Ok(Durability::Sync),
        _ => {
            let inner = text.strip_prefix("async(").and_then(|t| t.strip_suffix(')'));
            let ms = inner.ok_or_else(bad)?.trim_end_matches("ms").trim();
            ms.parse().map(|ms| Durability::Async(Some(ms))).map_err(|_| bad())
        }
    }
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, core) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{core}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for PollMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy",
            Self::Adaptive => "adaptive",
            Self::Park => "park",
        })
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Async(None) => f.write_str("async"),
            Self::Async(Some(ms)) => write!(f, "async({ms})"),
            Self::Sync => f.write_str("sync"),
        }
    }
}

impl Tuning {
    /// The same flags, for a brick in a process of its own.
    pub fn to_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        let mut push = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                args.extend([flag.to_owned(), value]);
            }
        };
        push("--cores", self.cores.as_ref().map(ToString::to_string));
        push("--poll", self.poll.map(|p| p.to_string()));
        push("--memory", self.memory.map(|m| m.to_string()));
        push("--durability", self.durability.map(|d| d.to_string()));
        args
    }
}
