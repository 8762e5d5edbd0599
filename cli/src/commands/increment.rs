//! `firebrick increment`.

use std::ffi::OsString;

use clap::Args;
use serde_json::Map;

use crate::args::Target;
use crate::commands::key_bytes;
use crate::error::CliError;
use crate::output::{Output, put_bytes};
use crate::store::{Store, from_client};

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

/// Runs it.
pub async fn run(args: &IncrementArgs) -> Result<Output, CliError> {
    let key = key_bytes(&args.key)?;
    let store = Store::open(&args.target).await?;
    let value = store.table().increment(key, args.by).await.map_err(from_client)?;
    let mut json = Map::new();
    put_bytes(&mut json, "key", key);
    json.insert("value".to_owned(), value.into());
    Ok(Output::new(json.into(), format!("{value}\n")))
}
