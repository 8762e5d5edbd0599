//! `firebrick load --tree DIR`.

use std::path::PathBuf;

use clap::Args;

use crate::args::Target;
use crate::units::parse_size;

/// Which files of a folder.
#[derive(Args, Debug, Clone)]
pub struct TreeArgs {
    /// The folder. Regular files only; symbolic links are not followed.
    #[arg(long, value_name = "DIR")]
    pub tree: PathBuf,
    /// Skip files larger than this; 8 MiB, the largest value, is the most.
    #[arg(long, value_name = "SIZE", default_value = "8m", value_parser = parse_size)]
    pub max_file: u64,
    /// Stop before the file that would bring the total over this.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_total: Option<u64>,
    /// Requests in flight.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub in_flight: u32,
}

/// Flags of `load`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Files over the limit, unreadable files and keys over 32 KiB are skipped and counted, never cut.
`firebrick verify` with the same flags compares everything afterwards.")]
pub struct LoadArgs {
    /// Which files.
    #[command(flatten)]
    pub tree: TreeArgs,
    /// Where to.
    #[command(flatten)]
    pub target: Target,
}
