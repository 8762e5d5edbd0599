//! `firebrick bench`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::Target;
use crate::commands::brick::PollMode;
use crate::units::{parse_duration, parse_size};

/// What to measure.
#[derive(Subcommand, Debug, Clone)]
pub enum BenchCommand {
    /// Gets and puts against a running brick: throughput and latency.
    Kv(KvArgs),
    /// A brick without a store, on the same ring driver and frames: the floor to compare with.
    Null(NullArgs),
}

/// Which requests.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Gets only, of keys stored first.
    Get,
    /// Puts only.
    Put,
    /// Half and half.
    Mixed,
}

/// Flags of `bench kv`.
#[derive(Args, Debug, Clone)]
pub struct KvArgs {
    /// Which requests.
    #[arg(long, value_enum, value_name = "MIX", default_value = "mixed")]
    pub mix: Mix,
    /// For how long.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub time: Duration,
    /// Different keys.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of a value.
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_size)]
    pub value: u64,
    /// Requests in flight.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub in_flight: u32,
    /// What the load thread does while it waits.
    #[arg(long, value_enum, value_name = "MODE", default_value = "adaptive")]
    pub poll: PollMode,
    /// The brick.
    #[command(flatten)]
    pub target: Target,
}

/// Flags of `bench null`.
#[derive(Args, Debug, Clone)]
pub struct NullArgs {
    /// Where it listens.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7400")]
    pub listen: SocketAddr,
    /// The CPU to run on.
    #[arg(long, value_name = "CPU")]
    pub core: Option<usize>,
    /// What it does while it waits.
    #[arg(long, value_enum, value_name = "MODE", default_value = "adaptive")]
    pub poll: PollMode,
}
