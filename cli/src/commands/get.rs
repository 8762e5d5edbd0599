//! `firebrick get`.

use std::ffi::OsString;

use clap::Args;
use serde_json::Map;

use crate::args::Target;
use crate::commands::key_bytes;
use crate::error::CliError;
use crate::output::{Output, put_bytes, show_key};
use crate::store::{Store, version_text};

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

/// Runs it.
pub async fn run(args: &GetArgs) -> Result<Output, CliError> {
    let key = key_bytes(&args.key)?;
    let store = Store::open(&args.target).await?;
    let Some(stored) = store.get(key).await? else {
        return Err(CliError::NotFound(format!(
            "no value under {} in the table {}: check the key's spelling",
            show_key(key),
            args.target.table
        )));
    };
    let mut json = Map::new();
    put_bytes(&mut json, "key", key);
    put_bytes(&mut json, "value", &stored.bytes);
    json.insert("bytes".to_owned(), stored.bytes.len().into());
    json.insert("version".to_owned(), version_text(stored.version).into());
    Ok(Output::new(json.into(), stored.bytes))
}
