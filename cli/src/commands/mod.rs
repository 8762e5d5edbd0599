//! A file per command: its arguments and what it does.

pub mod bench;
pub mod brick;
pub mod demo;
pub mod get;
pub mod increment;
pub mod load;
pub mod put;
pub mod remove;
pub mod status;
pub mod table;
pub mod up;
pub mod verify;

use crate::args::Command;
use crate::error::CliError;
use crate::output::{Out, Output};

/// Runs a command to its end.
pub fn run(command: Command, _out: &Out) -> Result<Output, CliError> {
    Err(CliError::Failed(format!("{command:?} is understood, and not built in yet")))
}
