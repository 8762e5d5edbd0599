//! `firebrick up`: a brick on this machine, kept running.

use std::path::PathBuf;

use clap::Args;

use crate::commands::brick::Tuning;

/// Flags of `up`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Ctrl-C or SIGTERM stops the brick cleanly: it answers what is in flight, flushes, and ends. A brick
that dies is started again, after 0.2 s at first and up to 10 s when it keeps dying.
With --json, one object is printed when the brick is ready.")]
pub struct UpArgs {
    /// How many bricks. Only 1 today: bricks do not replicate to each other yet.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub bricks: u32,
    /// Where the data lives; one folder a brick [default: ~/.local/share/firebrick]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Native port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7400, help_heading = "Addresses")]
    pub port: u16,
    /// RESP port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7379, help_heading = "Addresses")]
    pub resp_port: u16,
    /// HTTP port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7480, help_heading = "Addresses")]
    pub http_port: u16,
    /// Flags passed on to the brick.
    #[command(flatten)]
    pub tuning: Tuning,
}
