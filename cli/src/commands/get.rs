//! `firebrick get`.

use std::ffi::OsString;

use clap::Args;

use crate::args::Target;

/// Flags of `get`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
The value is written as it is, with no newline added. With --json it is in `value` when it is UTF-8,
else in `value_base64`. A key without a value ends with exit code 3.")]
pub struct GetArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    pub key: OsString,
    /// Where from.
    #[command(flatten)]
    pub target: Target,
}
