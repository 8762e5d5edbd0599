//! `firebrick verify --tree DIR`.

use clap::Args;

use crate::args::Target;
use crate::commands::load::{TreeArgs, to_json, to_text};
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::store::Store;
use crate::transfer::Differences;
use crate::{child, progress, transfer, units};

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

/// Runs it.
pub async fn run(args: &VerifyArgs, out: &Out) -> Result<Output, CliError> {
    let store = Store::open(&args.target).await?;
    let walk = args.tree.walk()?;
    let bar = progress::bar(out, "comparing files", args.tree.measure(out)?);
    let work = transfer::verify(walk, &store, args.tree.in_flight, &bar, None);
    let tally = tokio::select! {
        tally = work => tally?,
        signal = child::interrupted() => return signal.and(Err(CliError::Interrupted)),
    };
    bar.finish_and_clear();
    let mut json = to_json(&tally);
    json.insert("differences".to_owned(), serde_json::json!(tally.differences));
    let mut text = to_text("compared", &tally);
    for example in &tally.differences.examples {
        text.push_str(example);
        text.push('\n');
    }
    let output = Output::new(json.into(), text);
    Ok(match refusal(&tally.differences) {
        None => output,
        Some(error) => output.failed(error),
    })
}

/// What is to be said when something differs.
pub fn refusal(differences: &Differences) -> Option<CliError> {
    (differences.total() > 0).then(|| {
        CliError::Failed(format!(
            "{} files are missing and {} differ: if the files did not change since they were loaded, \
             the brick lost something",
            units::count(differences.missing),
            units::count(differences.different)
        ))
    })
}
