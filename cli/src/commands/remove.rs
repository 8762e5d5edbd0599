//! `firebrick remove`.

use std::ffi::OsString;

use clap::Args;

use crate::args::Target;

/// Flags of `remove`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "A key without a value ends with exit code 3.")]
pub struct RemoveArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    pub key: OsString,
    /// Where from.
    #[command(flatten)]
    pub target: Target,
}
