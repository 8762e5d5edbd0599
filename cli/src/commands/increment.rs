//! `firebrick increment`.

use std::ffi::OsString;

use clap::Args;

use crate::args::Target;

/// Flags of `increment`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Applied exactly once: when the brick dies in between and cannot tell, the exit code is 5 (in doubt).")]
pub struct IncrementArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    pub key: OsString,
    /// How much; may be negative.
    #[arg(value_name = "BY", default_value_t = 1, allow_negative_numbers = true)]
    pub by: i64,
    /// Where.
    #[command(flatten)]
    pub target: Target,
}
