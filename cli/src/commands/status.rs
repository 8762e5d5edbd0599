//! `firebrick status`.

use std::time::Duration;

use clap::Args;

use crate::args::Connect;
use crate::units::parse_duration;

/// Flags of `status`.
#[derive(Args, Debug, Clone)]
pub struct StatusArgs {
    /// Print again and again until Ctrl-C. Not with --json.
    #[arg(long)]
    pub watch: bool,
    /// How often, with --watch.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub every: Duration,
    /// Which brick.
    #[command(flatten)]
    pub connect: Connect,
}
