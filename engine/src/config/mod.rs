//! The configuration of a brick: a TOML file, overridden by flags, checked key by key.
//!
//! Every key is one row of [`keys::KEYS`]; the file and the flags set it through the same function,
//! so that both refuse the same values with the same sentence. `docs/firebrick.toml` documents each.

mod keys;
mod parse;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use firebrick_partition::maps::Durability;

use crate::error::BrickError;
pub use keys::{KEYS, Key};
pub use parse::{bytes_text, parse_bytes};

/// How a data core waits when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Never sleeps.
    Busy,
    /// Spins for `spin_us`, then sleeps.
    Adaptive,
    /// Sleeps at once.
    Park,
}

/// The CPUs that data cores are pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// One data core, on the first CPU that this process may use.
    Auto,
    /// These, in order, without repetition.
    List(Vec<usize>),
}

/// Bounds that a person may want to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the brick, native and RESP together.
    pub connections_max: u32,
    /// Requests in flight of one data core.
    pub in_flight_max: u32,
    /// What 1% of foreground requests may wait before copies slow down, microseconds; 0: they never do.
    pub copy_wait_us: u32,
    /// HTTP connections of the control thread.
    pub http_connections_max: u32,
}

/// All of it. Values are checked; what depends on the host is settled by `check::settle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrickConfig {
    /// Name for people, in metrics and messages.
    pub name: String,
    /// CPUs of the data cores.
    pub cores: Cores,
    /// How they wait.
    pub poll: Poll,
    /// How long `adaptive` spins, microseconds.
    pub spin_us: u32,
    /// Native protocol.
    pub listen: SocketAddr,
    /// Keepers, heartbeats, joins.
    pub control: SocketAddr,
    /// Control ports of the cluster to join, `HOST:PORT` each; none: a new brick is a cluster of its own.
    pub join: Vec<String>,
    /// The host, as the placement of replicas sees it; `None`: the address of `listen`.
    pub host: Option<String>,
    /// The rack, likewise; `None`: not known.
    pub rack: Option<String>,
    /// The address under which others reach this brick; `None` is auto.
    pub advertise: Option<IpAddr>,
    /// Redis protocol; `None` is off.
    pub resp: Option<SocketAddr>,
    /// Metrics and health; `None` is off.
    pub http: Option<SocketAddr>,
    /// Where the mapped segments lie; `None` is auto.
    pub memory_dir: Option<PathBuf>,
    /// Where they are written behind to.
    pub data_dir: PathBuf,
    /// Bytes for records; `None` is auto.
    pub memory: Option<u64>,
    /// Partitions of a new table, per data core; `None` is auto: [`partitions_per_core`].
    pub partitions: Option<u32>,
    /// Durability of the table `default`.
    pub durability: Durability,
    /// How many bricks hold each partition of a new table, when there are as many.
    pub replicas: u8,
    /// Bounds.
    pub limits: Limits,
}

/// Partitions of a new table on each data core: as somebody said, or as its durability wants. A core's flush takes about
/// as long for one record as for a hundred, but one for each partition: so a `sync` table has one.
pub fn partitions_per_core(said: Option<u32>, durability: Durability) -> u32 {
    said.unwrap_or(if durability == Durability::Sync { 1 } else { 4 })
}

impl Default for BrickConfig {
    fn default() -> Self {
        Self {
            name: "brick".into(),
            cores: Cores::Auto,
            poll: Poll::Adaptive,
            spin_us: 50,
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            control: SocketAddr::from(([127, 0, 0, 1], 7401)),
            join: Vec::new(),
            host: None,
            rack: None,
            advertise: None,
            resp: Some(SocketAddr::from(([127, 0, 0, 1], 7379))),
            http: Some(SocketAddr::from(([127, 0, 0, 1], 7480))),
            memory_dir: None,
            data_dir: PathBuf::from("firebrick-data"),
            memory: None,
            partitions: None,
            durability: Durability::Async { ms: 1000 },
            replicas: 2,
            limits: Limits {
                connections_max: 12_000,
                in_flight_max: 4096,
                copy_wait_us: 1000,
                http_connections_max: 64,
            },
        }
    }
}

/// What the command line gave, as text; the names are those of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--name`
    pub name: Option<String>,
    /// `--cores`
    pub cores: Option<String>,
    /// `--poll`
    pub poll: Option<String>,
    /// `--spin-us`
    pub spin_us: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--control`
    pub control: Option<String>,
    /// `--join`
    pub join: Option<String>,
    /// `--host`
    pub host: Option<String>,
    /// `--rack`
    pub rack: Option<String>,
    /// `--resp`
    pub resp: Option<String>,
    /// `--http`
    pub http: Option<String>,
    /// `--memory-dir`
    pub memory_dir: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--memory`
    pub memory: Option<String>,
    /// `--partitions`
    pub partitions: Option<String>,
    /// `--durability`
    pub durability: Option<String>,
    /// `--replicas`
    pub replicas: Option<String>,
    /// `--advertise`
    pub advertise: Option<String>,
}

impl BrickConfig {
    /// The defaults, then the file if one is given, then the flags. All mistakes are told at once.
    pub fn load(file: Option<&Path>, flags: &Overrides) -> Result<Self, BrickError> {
        let mut config = Self::default();
        let mut mistakes = Vec::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(BrickError::file("read the configuration", path))?;
            let shown = path.display().to_string();
            mistakes.extend(config.apply_toml(&text).into_iter().map(|m| format!("{shown}: {m}")));
        }
        mistakes.extend(config.apply_flags(flags));
        mistakes.extend(config.check_together());
        if mistakes.is_empty() { Ok(config) } else { Err(BrickError::Config(mistakes)) }
    }

    /// A whole file's text over the defaults.
    pub fn from_toml(text: &str) -> Result<Self, BrickError> {
        let mut config = Self::default();
        let mut mistakes = config.apply_toml(text);
        mistakes.extend(config.check_together());
        if mistakes.is_empty() { Ok(config) } else { Err(BrickError::Config(mistakes)) }
    }

    /// Checks that take more than one key.
    fn check_together(&self) -> Vec<String> {
        let named = [
            ("listen", Some(self.listen)),
            ("control", Some(self.control)),
            ("resp", self.resp),
            ("http", self.http),
        ];
        let mut mistakes = Vec::new();
        for (at, (key, address)) in named.iter().enumerate() {
            for (other, taken) in &named[..at] {
                // Port 0 is "any free port", and two of those do not collide.
                if address.is_some() && address == taken && address.is_some_and(|a| a.port() != 0) {
                    let address = address.map(|a| a.to_string()).unwrap_or_default();
                    mistakes.push(format!(
                        "{other} and {key} are both {address}; give each its own port"
                    ));
                }
            }
        }
        if self.memory_dir.as_ref() == Some(&self.data_dir) {
            mistakes.push(format!(
                "memory_dir and data_dir are both {}; give each its own folder",
                self.data_dir.display()
            ));
        }
        mistakes
    }
}
