//! `firebrick demo`: the promise, shown on this machine in under a minute.

use std::path::PathBuf;

use clap::Args;

use crate::units::parse_size;

/// Flags of `demo`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Starts a brick in a temporary folder, loads the files, verifies them through the native client and
through RESP, kills the brick with SIGKILL in the middle of a write load, starts it again, and
verifies that every acknowledged write is there. Everything it made is removed at the end.")]
pub struct DemoArgs {
    /// The folder to load.
    #[arg(long, value_name = "DIR", default_value = "/usr/share")]
    pub tree: PathBuf,
    /// Skip files larger than this.
    #[arg(long, value_name = "SIZE", default_value = "1m", value_parser = parse_size)]
    pub max_file: u64,
    /// Load this much in all.
    #[arg(long, value_name = "SIZE", default_value = "256m", value_parser = parse_size)]
    pub max_total: u64,
}
