//! `firebrick brick`: one storage server in the foreground.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use firebrick_engine::config::Overrides;
use firebrick_engine::{Brick, BrickConfig, BrickError};
use serde_json::json;

use crate::error::CliError;
use crate::output::{Out, Output, warn};

/// Flags of `brick`. Every one overrides the same key of the configuration file; the engine checks
/// both, so that both are refused with the same sentence.
#[derive(Args, Debug, Clone, Default)]
#[command(after_help = "\
Flags win over the configuration file, which wins over the defaults. docs/firebrick.toml lists every
key of the file with its default. SIGTERM and Ctrl-C stop the brick cleanly: it answers what is in
flight, flushes, and ends with 0. With --json, one object is printed when the brick is ready.")]
pub struct BrickArgs {
    /// The brick's name, in logs, metrics and `status`.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// TOML configuration file; an unknown key in it is an error.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Native protocol [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Addresses")]
    pub listen: Option<String>,
    /// Control port: keepers, heartbeats, joins [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Addresses")]
    pub control: Option<String>,
    /// Redis protocol (RESP2 and RESP3), or `off` [default: 127.0.0.1:7379]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Addresses")]
    pub resp: Option<String>,
    /// HTTP (/metrics, /healthz, /readyz), or `off` [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Addresses")]
    pub http: Option<String>,
    /// Join the cluster of these bricks: their control ports, separated by commas. Without it a new
    /// brick is a cluster of its own; one that was a member stays it.
    #[arg(long, value_name = "ADDR:PORT,...", help_heading = "Cluster")]
    pub join: Option<String>,
    /// The host this brick runs on: no two replicas are put on one host when there is another
    /// [default: the address of --listen]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub host: Option<String>,
    /// The rack it is in, likewise.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub rack: Option<String>,
    /// IP address under which others reach this brick [default: that of --listen]
    #[arg(long, value_name = "ADDR", help_heading = "Cluster")]
    pub advertise: Option<String>,
    /// Bricks that hold each partition of a new table, when there are as many [default: 2]
    #[arg(long, value_name = "N", help_heading = "Cluster")]
    pub replicas: Option<String>,
    /// Where records live while the brick runs: a folder in tmpfs, or `auto`, which is /dev/shm when
    /// it has room [default: auto]
    #[arg(long, value_name = "DIR", help_heading = "Storage")]
    pub memory_dir: Option<PathBuf>,
    /// Where records are written behind to, on disk [default: firebrick-data]
    #[arg(long, value_name = "DIR", help_heading = "Storage")]
    pub data_dir: Option<PathBuf>,
    /// Flags that `up` has too.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// What a brick may use, and how it works.
#[derive(Args, Debug, Clone, Default)]
pub struct Tuning {
    /// CPUs for data cores: a list such as `0`, `0,2` or `0-3`, or `auto`, which is one [default: auto]
    #[arg(long, value_name = "LIST", help_heading = "Resources")]
    pub cores: Option<String>,
    /// What an idle data core does [default: adaptive]
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Resources")]
    pub poll: Option<PollMode>,
    /// How long `adaptive` spins before it sleeps, in microseconds [default: 50]
    #[arg(long, value_name = "US", help_heading = "Resources")]
    pub spin_us: Option<String>,
    /// Memory for records, such as 512MiB or 4GiB, or `auto` [default: auto]
    #[arg(long, value_name = "SIZE", help_heading = "Resources")]
    pub memory: Option<String>,
    /// When a write counts as done: `memory` (no disk), `async` or `async(20ms)` (on disk within that
    /// time), `sync` (on disk before the answer) [default: async(1000ms)]
    #[arg(long, value_name = "WHEN", help_heading = "Storage")]
    pub durability: Option<String>,
    /// Partitions of a new table on each data core, 1 to 64, or `auto`: 4, and 1 for a `sync` table
    /// [default: auto]
    #[arg(long, value_name = "N", help_heading = "Storage")]
    pub partitions: Option<String>,
}

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

impl PollMode {
    /// As the configuration file has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Adaptive => "adaptive",
            Self::Park => "park",
        }
    }
}

impl BrickArgs {
    /// The flags that were given.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            name: self.name.clone(),
            listen: self.listen.clone(),
            control: self.control.clone(),
            join: self.join.clone(),
            host: self.host.clone(),
            rack: self.rack.clone(),
            advertise: self.advertise.clone(),
            replicas: self.replicas.clone(),
            resp: self.resp.clone(),
            http: self.http.clone(),
            memory_dir: self.memory_dir.clone(),
            data_dir: self.data_dir.clone(),
            cores: self.tuning.cores.clone(),
            poll: self.tuning.poll.map(|poll| poll.word().to_owned()),
            spin_us: self.tuning.spin_us.clone(),
            memory: self.tuning.memory.clone(),
            durability: self.tuning.durability.clone(),
            partitions: self.tuning.partitions.clone(),
        }
    }

    /// The same flags, for a brick in a process of its own.
    pub fn to_args(&self) -> Vec<OsString> {
        let text = |value: &Option<String>| value.as_ref().map(OsString::from);
        let path = |value: &Option<PathBuf>| value.as_ref().map(OsString::from);
        let poll = self.tuning.poll.map(|poll| OsString::from(poll.word()));
        [
            ("--name", text(&self.name)),
            ("--config", path(&self.config)),
            ("--listen", text(&self.listen)),
            ("--control", text(&self.control)),
            ("--join", text(&self.join)),
            ("--host", text(&self.host)),
            ("--rack", text(&self.rack)),
            ("--advertise", text(&self.advertise)),
            ("--replicas", text(&self.replicas)),
            ("--resp", text(&self.resp)),
            ("--http", text(&self.http)),
            ("--memory-dir", path(&self.memory_dir)),
            ("--data-dir", path(&self.data_dir)),
            ("--cores", text(&self.tuning.cores)),
            ("--poll", poll),
            ("--spin-us", text(&self.tuning.spin_us)),
            ("--memory", text(&self.tuning.memory)),
            ("--durability", text(&self.tuning.durability)),
            ("--partitions", text(&self.tuning.partitions)),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some([OsString::from(flag), value?]))
        .flatten()
        .collect()
    }
}

/// Runs it until it is told to stop.
pub fn run(args: &BrickArgs, out: &Out) -> Result<Output, CliError> {
    let config =
        BrickConfig::load(args.config.as_deref(), &args.overrides()).map_err(from_brick)?;
    let brick = match Brick::start(&config, true) {
        Err(BrickError::Stopped) => return Ok(Output::default()),
        started => started.map_err(from_brick)?,
    };
    for warning in brick.warnings() {
        warn(&format!("warning: {warning}"));
    }
    match brick.wait_ready() {
        Ok(true) => {}
        Ok(false) => {
            brick.wait().map_err(from_brick)?;
            return Ok(Output::default());
        }
        Err(error) => {
            // What made it fail to start may keep it from ending by itself.
            brick.stop();
            return Err(from_brick(error));
        }
    }
    let recovered = brick.recovered();
    if recovered.records > 0 {
        out.note(&format!("firebrick: {recovered}"));
    }
    let name = &config.name;
    let addresses = brick.addresses();
    let (listen, resp, http) = (addresses.listen, addresses.resp, addresses.http);
    let shown = |address: Option<SocketAddr>| address.map_or("off".to_owned(), |a| a.to_string());
    out.print(&Output::new(
        json!({
            "name": name, "listen": listen, "control": addresses.control, "resp": resp, "http": http,
            "pid": std::process::id(),
        }),
        format!(
            "{name} is ready: native {listen}, RESP {}, HTTP {}\n",
            shown(resp),
            shown(http)
        ),
    ))?;
    brick.wait().map_err(from_brick)?;
    Ok(Output::default())
}

/// The exit code of an engine error; the sentences are the engine's own.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn from_brick(error: BrickError) -> CliError {
    let text = error.to_string();
    match error {
        BrickError::Config(_) => CliError::Usage(text),
        BrickError::Removed(_) => CliError::Refused(text),
        _ => CliError::Failed(text),
    }
}
