//! `firebrick remove`.

use std::ffi::OsString;

use clap::Args;
use serde_json::Map;

use crate::args::Target;
use crate::commands::key_bytes;
use crate::error::CliError;
use crate::output::{Output, put_bytes, show_key};
use crate::store::{Store, from_client};

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

/// Runs it.
pub async fn run(args: &RemoveArgs) -> Result<Output, CliError> {
    let key = key_bytes(&args.key)?;
    let store = Store::open(&args.target).await?;
    let removed = store.table().remove(key).await.map_err(from_client)?;
    if !removed {
        return Err(CliError::NotFound(format!(
            "no value under {} in the table {}: nothing was removed",
            show_key(key),
            args.target.table
        )));
    }
    let mut json = Map::new();
    put_bytes(&mut json, "key", key);
    json.insert("removed".to_owned(), true.into());
    Ok(Output::new(json.into(), ""))
}
