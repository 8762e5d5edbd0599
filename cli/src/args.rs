//! The command line: flags, help texts, defaults. What the commands do is in `commands`.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    bench, brick, demo, drain, get, increment, load, moves, put, remove, status, table, up, verify,
};
use crate::error::{CliError, EXIT_CODES};
use crate::units::parse_duration;

/// Where a brick listens unless told otherwise.
pub const DEFAULT_CONNECT: &str = "127.0.0.1:7400";

/// Firebrick: a distributed hash table that keeps its data through a crash.
///
/// Start a brick with `firebrick up`, then use it from here, from redis-cli (port 7379) or from the
/// Rust client (port 7400).
#[derive(Parser, Debug)]
#[command(
    name = "firebrick",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = EXIT_CODES,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print exactly one JSON object on standard output, also for an error.
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run one brick in the foreground until Ctrl-C or SIGTERM.
    Brick(Box<brick::BrickArgs>),
    /// Start a brick on this machine, say where to connect, and keep it running.
    Up(Box<up::UpArgs>),
    /// Show that it works: load files, verify them, kill -9 under load, verify again.
    Demo(demo::DemoArgs),
    /// Store a value.
    Put(put::PutArgs),
    /// Print a value, byte for byte.
    Get(get::GetArgs),
    /// Remove a key.
    Remove(remove::RemoveArgs),
    /// Add to a decimal integer, and print the sum. An absent key counts as 0.
    Increment(increment::IncrementArgs),
    /// Store every file of a folder: the key is its path in the folder, the value its bytes.
    Load(load::LoadArgs),
    /// Compare every file of a folder with what is stored.
    Verify(verify::VerifyArgs),
    /// Create, list and drop tables.
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Print the cluster: bricks, partitions, copies, what is wrong; and the data cores of one brick.
    Status(status::StatusArgs),
    /// Move replicas from one brick to another, while they are served.
    Move(moves::MoveArgs),
    /// Make another replica the primary.
    HandOver(moves::HandOverArgs),
    /// Empty a brick, or end that.
    BrickDrain(drain::DrainArgs),
    /// Empty a brick and take it out of the cluster.
    BrickRemove(drain::RemoveArgs),
    /// Let a partition go on that has stopped, whatever may be lost.
    LeadAnyway(drain::LeadArgs),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

/// How to reach the brick and which table to use.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Connection")]
pub struct Connect {
    /// The native address of a brick, or of several with commas between them: one that is down is passed over,
    /// and the others are learnt from the first that answers.
    #[arg(long, value_name = "HOST:PORT,..", default_value = DEFAULT_CONNECT)]
    pub connect: String,
    /// Give up after this long without an answer.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// A table of a brick.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Connection")]
pub struct Target {
    /// How to reach the brick.
    #[command(flatten)]
    pub connect: Connect,
    /// The table.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub table: String,
}

impl Connect {
    /// The addresses to connect to, when they look like ones; names are the client's to resolve.
    pub fn addresses(&self) -> Result<Vec<&str>, CliError> {
        let is_address = |text: &&str| {
            let parts = text.rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        let addresses: Vec<&str> = self.connect.split(',').map(str::trim).collect();
        match addresses.iter().find(|text| !is_address(text)) {
            None => Ok(addresses),
            Some(text) => Err(CliError::Usage(format!(
                "--connect {text} is no address: write it as a host and a port, like \
                 {DEFAULT_CONNECT}; several have commas between them"
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
