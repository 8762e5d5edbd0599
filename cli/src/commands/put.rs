//! `firebrick put`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::args::Target;

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

impl std::fmt::Display for VersionArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}
