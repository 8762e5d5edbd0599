//! A file per command: its arguments and what it does.

pub mod bench;
pub mod brick;
pub mod cluster;
pub mod demo;
pub mod drain;
pub mod get;
pub mod increment;
pub mod load;
pub mod moves;
pub mod put;
pub mod remove;
pub mod status;
pub mod table;
pub mod up;
pub mod verify;

use std::os::unix::ffi::OsStrExt as _;

use crate::args::Command;
use crate::error::CliError;
use crate::output::{Out, Output};

/// Runs a command to its end.
pub fn run(command: Command, out: &Out) -> Result<Output, CliError> {
    match command {
        Command::Brick(args) => brick::run(&args, out),
        Command::Up(args) => wait_for(up::run(&args, out)),
        Command::Demo(args) => wait_for(demo::run(&args, out)),
        Command::Put(args) => wait_for(put::run(&args)),
        Command::Get(args) => wait_for(get::run(&args)),
        Command::Remove(args) => wait_for(remove::run(&args)),
        Command::Increment(args) => wait_for(increment::run(&args)),
        Command::Load(args) => wait_for(load::run(&args, out)),
        Command::Verify(args) => wait_for(verify::run(&args, out)),
        Command::Table(command) => wait_for(table::run(&command, out)),
        Command::Move(args) => wait_for(moves::run_move(&args, out)),
        Command::HandOver(args) => wait_for(moves::run_hand_over(&args, out)),
        Command::BrickDrain(args) => wait_for(drain::run_drain(&args, out)),
        Command::BrickRemove(args) => wait_for(drain::run_remove(&args, out)),
        Command::LeadAnyway(args) => wait_for(drain::run_lead(&args)),
        Command::Status(args) => wait_for(status::run(&args, out)),
        Command::Bench(command) => bench::run(&command, out),
    }
}

/// One thread of tokio is enough: the brick is where the work is.
fn wait_for<F>(work: F) -> Result<Output, CliError>
where
    F: Future<Output = Result<Output, CliError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::io("cannot start an event loop", &e))?;
    let result = runtime.block_on(work);
    // Nothing that still runs is worth waiting for: the command's answer is known.
    runtime.shutdown_background();
    result
}

/// The bytes of a key as typed: any bytes that the shell can pass, not only UTF-8.
fn key_bytes(key: &std::ffi::OsStr) -> Result<&[u8], CliError> {
    let bytes = key.as_bytes();
    let max = crate::store::KEY_BYTES_MAX;
    if bytes.len() > max {
        return Err(CliError::Usage(format!(
            "the key has {} bytes; the most is {max}: shorten it",
            bytes.len()
        )));
    }
    Ok(bytes)
}
