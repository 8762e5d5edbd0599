//! `firebrick verify --tree DIR`.

use clap::Args;

use crate::args::Target;
use crate::commands::load::TreeArgs;

/// Flags of `verify`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Ends with exit code 1 when a file is missing or differs, and names the first ten.
Keys that are stored but have no file are not looked for.")]
pub struct VerifyArgs {
    /// Which files.
    #[command(flatten)]
    pub tree: TreeArgs,
    /// Where from.
    #[command(flatten)]
    pub target: Target,
}
