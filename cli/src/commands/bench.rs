//! `firebrick bench`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use firebrick_bench::kv::{self, KvOptions};
use firebrick_bench::null::{Null, NullError, NullOptions};
use firebrick_bench::redis::{self, RedisOptions};
use firebrick_bench::{BenchError, Distribution, Latency, LoadOptions, Mode, Report};
use serde_json::json;

use crate::args::DEFAULT_CONNECT;
use crate::child;
use crate::commands::brick::PollMode;
use crate::commands::wait_for;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::progress;
use crate::store::from_client;
use crate::units::{count, parse_duration, parse_size};

/// What to measure.
#[derive(Subcommand, Debug, Clone)]
pub enum BenchCommand {
    /// Gets and puts against a running brick: throughput and latency.
    Kv(KvArgs),
    /// The same over the Redis protocol, against a brick, redis, valkey or dragonfly.
    Redis(RedisArgs),
    /// Run a brick without a store, on the same ring driver and frames: the floor to compare with.
    Null(NullArgs),
}

/// Which requests.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Gets only, of keys that are stored first.
    Get,
    /// Puts only.
    Put,
    /// Half and half, of keys that are stored first.
    Mixed,
}

/// Flags of `bench kv`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Without --rate as many requests as said are kept in flight. With --rate requests leave at that rate
whether or not earlier ones were answered, and latency counts from when each should have left.
The keys (key:000000000000 and on) stay in the table: give the benchmark one of its own, and drop it.")]
pub struct KvArgs {
    /// The brick's native address, or that of `bench null`.
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_CONNECT)]
    pub connect: String,
    /// The table.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub table: String,
    /// What all loads share.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Requests in flight.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub in_flight: usize,
    /// Requests a second; without it, as many as are answered.
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
}

/// What is sent, whichever protocol carries it.
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// Which requests.
    #[arg(long, value_enum, value_name = "MIX", default_value = "mixed")]
    pub mix: Mix,
    /// For how long.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub time: Duration,
    /// For how long before, not measured.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// Different keys.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub keys: u64,
    /// Some keys far more often than others: the skew of a Zipf distribution, 0 to 1, such as 0.99.
    #[arg(long, value_name = "SKEW", value_parser = parse_skew)]
    pub zipf: Option<f64>,
    /// Bytes of a value.
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_size)]
    pub value: u64,
    /// The load's CPU.
    #[arg(long, value_name = "CPU")]
    pub core: Option<usize>,
    /// What the load does while it waits.
    #[arg(long, value_enum, value_name = "MODE", default_value = "adaptive")]
    pub poll: PollMode,
    /// Chooses the keys and the order of gets and puts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Flags of `bench redis`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Each connection has one request under way. With --replicas each SET has a WAIT behind it in the same
write, and the next leaves when both are answered.
The keys (key:000000000000 and on) stay in the server: give the benchmark one of its own.")]
pub struct RedisArgs {
    /// The server.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7379")]
    pub connect: String,
    /// What all loads share.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub connections: usize,
    /// Behind each put `WAIT N 0`; fewer replicas are a failure.
    #[arg(long, value_name = "N")]
    pub replicas: Option<u32>,
}

/// Flags of `bench null`.
#[derive(Args, Debug, Clone)]
pub struct NullArgs {
    /// Native protocol.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7400")]
    pub listen: SocketAddr,
    /// Redis protocol; without it, none.
    #[arg(long, value_name = "ADDR:PORT")]
    pub resp: Option<SocketAddr>,
    /// Its CPU.
    #[arg(long, value_name = "CPU")]
    pub core: Option<usize>,
    /// What it does while it waits.
    #[arg(long, value_enum, value_name = "MODE", default_value = "adaptive")]
    pub poll: PollMode,
}

fn parse_skew(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(skew) if (0.0..1.0).contains(&skew) => Ok(skew),
        _ => Err(format!("`{text}` is no skew: give a number from 0 up to, not including, 1")),
    }
}

/// Runs it.
pub fn run(command: &BenchCommand, out: &Out) -> Result<Output, CliError> {
    match command {
        BenchCommand::Kv(args) => run_kv(args, out),
        BenchCommand::Redis(args) => run_redis(args, out),
        BenchCommand::Null(args) => wait_for(run_null(args, out)),
    }
}

impl LoadArgs {
    fn options(&self) -> LoadOptions {
        LoadOptions {
            read_share: match self.mix {
                Mix::Get => 1.0,
                Mix::Put => 0.0,
                Mix::Mixed => 0.5,
            },
            keys: self.keys,
            distribution: match self.zipf {
                None => Distribution::Uniform,
                Some(theta) => Distribution::Zipf { theta },
            },
            value_bytes: usize::try_from(self.value).unwrap_or(usize::MAX),
            warm_up: self.warm_up,
            time: self.time,
            core: self.core,
            poll: mode(self.poll),
            seed: self.seed,
        }
    }
}

fn run_kv(args: &KvArgs, out: &Out) -> Result<Output, CliError> {
    let options = KvOptions {
        connect: args.connect.clone(),
        table: args.table.clone(),
        in_flight: args.in_flight,
        rate: args.rate,
        load: args.load.options(),
    };
    measure(out, |progress| kv::run(&options, progress))
}

fn run_redis(args: &RedisArgs, out: &Out) -> Result<Output, CliError> {
    let options = RedisOptions {
        connect: args.connect.clone(),
        connections: args.connections,
        replicas: args.replicas,
        load: args.load.options(),
    };
    measure(out, |progress| redis::run(&options, progress))
}

fn measure(
    out: &Out,
    run: impl FnOnce(&mut dyn FnMut(f64)) -> Result<Report, BenchError>,
) -> Result<Output, CliError> {
    let bar = progress::part(out, "measuring");
    let report = run(&mut |part| bar.set_position((part * 100.0) as u64));
    bar.finish_and_clear();
    let report = report.map_err(from_bench)?;
    let json = serde_json::to_value(&report)
        .map_err(|e| CliError::Failed(format!("the report is no JSON: {e}")))?;
    let output = Output::new(json, to_text(&report));
    Ok(match &report.first_error {
        None => output,
        Some(first) => output.failed(CliError::Failed(format!(
            "{} requests failed; the first: {first}",
            count(report.errors)
        ))),
    })
}

async fn run_null(args: &NullArgs, out: &Out) -> Result<Output, CliError> {
    let options = NullOptions {
        listen: args.listen,
        resp: args.resp,
        core: args.core,
        poll: mode(args.poll),
    };
    let failed = |error: NullError| CliError::Failed(error.to_string());
    let null = Null::start(options).map_err(failed)?;
    let (listen, resp) = (null.native(), null.resp());
    let more = resp.map(|resp| format!(", RESP {resp}")).unwrap_or_default();
    out.print(&Output::new(
        json!({ "listen": listen, "resp": resp, "pid": std::process::id() }),
        format!("null brick: native {listen}{more}; Ctrl-C ends it\n"),
    ))?;
    child::interrupted().await?;
    null.stop().map_err(failed)?;
    Ok(Output::default())
}

fn mode(poll: PollMode) -> Mode {
    match poll {
        PollMode::Busy => Mode::Busy,
        PollMode::Adaptive => Mode::default(),
        PollMode::Park => Mode::Park,
    }
}

fn from_bench(error: BenchError) -> CliError {
    match error {
        BenchError::Client(error) => from_client(error),
        BenchError::Option(text) => CliError::Usage(text),
        BenchError::Unreachable(text) => CliError::Unavailable(text),
        BenchError::Pin(..) | BenchError::Server(_) | BenchError::Ring(_) => {
            CliError::Failed(error.to_string())
        }
    }
}

fn to_text(report: &Report) -> String {
    let line = |name: &str, latency: &Latency| {
        format!(
            "{name:6} {:>12} {:>10.1} {:>10.1} {:>10.1} {:>10.1}\n",
            count(latency.count),
            latency.p50_us,
            latency.p99_us,
            latency.p999_us,
            latency.max_us
        )
    };
    let mut text = format!(
        "{} requests/s, {} in flight, values of {} B, {} keys, {} misses\n\
         {:6} {:>12} {:>10} {:>10} {:>10} {:>10}\n",
        count(report.ops_per_second as u64),
        report.in_flight,
        report.value_bytes,
        count(report.keys),
        count(report.misses),
        "us",
        "requests",
        "p50",
        "p99",
        "p99.9",
        "max"
    );
    text.push_str(&line("all", &report.all));
    if report.gets.count > 0 && report.puts.count > 0 {
        text.push_str(&line("get", &report.gets));
        text.push_str(&line("put", &report.puts));
    }
    text
}
