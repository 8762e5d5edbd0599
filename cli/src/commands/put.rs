//! `firebrick put`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::Args;
use firebrick_client::Version;
use serde_json::Map;

use crate::args::Target;
use crate::commands::key_bytes;
use crate::error::CliError;
use crate::output::{Output, put_bytes};
use crate::store::{Store, VALUE_BYTES_MAX, from_client, version_text};

/// Flags of `put`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  firebrick put greeting hello
  firebrick put photo --file cat.jpg
  tar c src | firebrick put src.tar -
  firebrick put greeting hi --if-version 1.17")]
pub struct PutArgs {
    /// The key: up to 32 KiB of any bytes.
    #[arg(value_name = "KEY")]
    pub key: OsString,
    /// The value: up to 8 MiB of any bytes; `-` reads standard input.
    #[arg(value_name = "VALUE", allow_hyphen_values = true, required_unless_present = "file")]
    pub value: Option<OsString>,
    /// Take the value from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub file: Option<PathBuf>,
    /// Only when the key has no value.
    #[arg(long, conflicts_with = "if_version")]
    pub if_absent: bool,
    /// Only when the key's version is this one, as `get --json` printed it.
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<VersionArg>,
    /// Where to.
    #[command(flatten)]
    pub target: Target,
}

/// A version as the command line writes it: `EPOCH.SEQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionArg {
    /// The epoch.
    pub epoch: u32,
    /// The sequence number.
    pub seq: u64,
}

impl std::str::FromStr for VersionArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no version: write it as `get --json` does, like 1.17");
        let (epoch, seq) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self { epoch: epoch.parse().map_err(|_| bad())?, seq: seq.parse().map_err(|_| bad())? })
    }
}

impl From<VersionArg> for Version {
    fn from(arg: VersionArg) -> Self {
        Self { epoch: arg.epoch, seq: arg.seq }
    }
}

/// Runs it.
pub async fn run(args: &PutArgs) -> Result<Output, CliError> {
    let key = key_bytes(&args.key)?;
    let value = value_bytes(args)?;
    let bytes = value.len();
    let store = Store::open(&args.target).await?;
    let table = store.table();
    let version = if args.if_absent {
        table.put_if_absent(key, value).await.map_err(from_client)?
    } else if let Some(version) = args.if_version {
        table.put_if_version(key, value, version.into()).await.map_err(from_client)?
    } else {
        store.put(key, &value).await?
    };
    let mut json = Map::new();
    put_bytes(&mut json, "key", key);
    json.insert("bytes".to_owned(), bytes.into());
    json.insert("version".to_owned(), version_text(version).into());
    Ok(Output::new(json.into(), ""))
}

/// The value, from wherever the arguments say. Read to one byte over the limit at most.
fn value_bytes(args: &PutArgs) -> Result<Vec<u8>, CliError> {
    let (mut source, name): (Box<dyn Read>, String) = match (&args.file, &args.value) {
        (Some(path), _) => {
            let name = path.display().to_string();
            let file =
                File::open(path).map_err(|e| CliError::io(&format!("cannot open {name}"), &e))?;
            (Box::new(file), name)
        }
        (None, Some(value)) if value == "-" => {
            (Box::new(std::io::stdin().lock()), "standard input".to_owned())
        }
        (None, Some(value)) => return Ok(value.as_bytes().to_vec()),
        (None, None) => unreachable!("the parser demands a value or a file"),
    };
    let mut bytes = Vec::new();
    let limit = VALUE_BYTES_MAX as u64 + 1;
    source
        .by_ref()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| CliError::io(&format!("cannot read {name}"), &e))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(CliError::Usage(format!(
            "{name} has more than {VALUE_BYTES_MAX} bytes, the most a value may have: split it"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(words: &[&str]) -> PutArgs {
        match Cli::try_parse_from([&["firebrick", "put"], words].concat()).unwrap().command {
            Command::Put(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_taken_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        let file = File::create(&path).unwrap();
        let args = args(&["k", "--file", path.to_str().unwrap()]);
        assert_eq!(value_bytes(&args).unwrap(), b"");
        file.set_len(VALUE_BYTES_MAX as u64).unwrap();
        assert_eq!(value_bytes(&args).unwrap().len(), VALUE_BYTES_MAX);
        file.set_len(VALUE_BYTES_MAX as u64 + 1).unwrap();
        let error = value_bytes(&args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("8388608"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = value_bytes(&args(&["k", "--file", "/nowhere/at/all"])).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        assert!(!error.to_string().contains("os error"), "{error}");
    }
}
