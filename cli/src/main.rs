//! The `firebrick` command.

mod args;
mod commands;
mod error;
mod output;
mod units;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::Cli;
use crate::error::CliError;
use crate::output::Out;

fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => {
            let out = Out::new(cli.json);
            let result = commands::run(cli.command, &out);
            out.finish(result)
        }
        Err(error) => refuse(&error),
    };
    ExitCode::from(code)
}

/// Help and version go to standard output and end with 0; anything else is a usage error, in JSON
/// when the line asked for it anywhere.
fn refuse(error: &clap::Error) -> u8 {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
    if json && !help {
        let text = error.render().to_string();
        let line = text.lines().next().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line);
        return Out::new(true).finish(Err(CliError::Usage(line.to_owned())));
    }
    // A reader that left (`firebrick --help | head -1`) is no error.
    let _ = error.print();
    u8::try_from(error.exit_code()).unwrap_or(2)
}
