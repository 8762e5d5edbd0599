//! `firebrick load --tree DIR`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::args::Target;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::store::Store;
use crate::transfer::{self, Tally};
use crate::tree::{Limits, Walk};
use crate::units::{count, micros, parse_size, size};
use crate::{child, progress};

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
Files over the limit and unreadable ones are skipped and counted, never cut.
`firebrick verify` with the same flags compares everything afterwards.")]
pub struct LoadArgs {
    /// Which files.
    #[command(flatten)]
    pub tree: TreeArgs,
    /// Where to.
    #[command(flatten)]
    pub target: Target,
}

/// Runs it.
pub async fn run(args: &LoadArgs, out: &Out) -> Result<Output, CliError> {
    let store = Store::open(&args.target).await?;
    let walk = args.tree.walk()?;
    let bar = progress::bar(out, "storing files", args.tree.measure(out)?);
    let work = transfer::load(walk, &store, args.tree.in_flight, &bar);
    let tally = tokio::select! {
        tally = work => tally?,
        signal = child::interrupted() => return signal.and(Err(CliError::Interrupted)),
    };
    bar.finish_and_clear();
    Ok(Output::new(to_json(&tally).into(), to_text("stored", &tally)))
}

impl TreeArgs {
    /// The walk that these flags ask for.
    pub fn walk(&self) -> Result<Walk, CliError> {
        let limits = Limits {
            file_bytes_max: self.max_file,
            total_bytes_max: self.max_total.unwrap_or(u64::MAX),
        };
        Walk::new(&self.tree, limits)
    }

    /// How many bytes there are to go, when a bar will show it.
    pub fn measure(&self, out: &Out) -> Result<u64, CliError> {
        if out.draws() { Ok(self.walk()?.map(|found| found.size).sum()) } else { Ok(0) }
    }
}

/// The figures of a transfer.
pub fn to_json(tally: &Tally) -> serde_json::Map<String, serde_json::Value> {
    let mut map = serde_json::Map::new();
    map.insert("items".to_owned(), tally.items.into());
    map.insert("bytes".to_owned(), tally.bytes.into());
    map.insert("seconds".to_owned(), json!(tally.elapsed.as_secs_f64()));
    map.insert("items_per_second".to_owned(), json!(tally.rate()));
    map.insert("bytes_per_second".to_owned(), json!(tally.bytes_rate()));
    if !tally.latency.is_empty() {
        for (name, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            let ns = tally.latency.value_at_quantile(quantile);
            map.insert(name.to_owned(), json!(ns as f64 / 1e3));
        }
    }
    map.insert("skipped".to_owned(), json!(tally.skipped));
    map
}

/// The figures of a transfer, for people.
pub fn to_text(verb: &str, tally: &Tally) -> String {
    let mut text = format!(
        "{verb} {} files, {}, in {} ({} files/s, {}/s; p50 {}, p99.9 {})\n",
        count(tally.items),
        size(tally.bytes),
        micros(tally.elapsed.as_micros() as u64),
        count(tally.rate() as u64),
        size(tally.bytes_rate() as u64),
        micros(tally.latency.value_at_quantile(0.5) / 1000),
        micros(tally.latency.value_at_quantile(0.999) / 1000),
    );
    let skipped = tally.skipped.describe();
    if !skipped.is_empty() {
        text.push_str("skipped: ");
        text.push_str(&skipped);
        text.push('\n');
    }
    text
}
