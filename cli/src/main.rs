//! The `firebrick` command.

mod args;
mod child;
mod commands;
mod error;
mod http;
mod output;
mod progress;
mod resp;
mod store;
mod transfer;
mod tree;
mod units;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::Cli;
use crate::error::CliError;
use crate::output::Out;

fn main() -> ExitCode {
    say_panics_in_a_sentence();
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
    if help {
        // A reader that left (`firebrick --help | head -1`) is no error.
        let _ = error.print();
        return u8::try_from(error.exit_code()).unwrap_or(2);
    }
    let text = in_our_words(&error.render().to_string());
    if json {
        return Out::new(true).finish(Err(CliError::Usage(one_line(&text))));
    }
    let _ = write!(std::io::stderr(), "firebrick: {text}");
    CliError::Usage(String::new()).exit_code()
}

/// The parser's text without its own prefix, and numbers that are none without the words of Rust's library.
fn in_our_words(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let whole = "it is not a whole number";
    text.replace("invalid digit found in string", whole)
        .replace("cannot parse integer from empty string", whole)
        .replace("number too large to fit in target type", "it is too large")
        .replace("number too small to fit in target type", "it is too small")
        .replace("invalid float literal", "it is not a number")
}

/// What is wrong, without the usage and the hints that stand on lines of their own.
fn one_line(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A bug of ours is said in a sentence, not as a backtrace.
fn say_panics_in_a_sentence() {
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(|l| format!(" at {}:{}", l.file(), l.line()));
        let _ = writeln!(
            std::io::stderr(),
            "firebrick: this is a bug in firebrick: {what}{}; please report it with this line",
            place.unwrap_or_default()
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::{in_our_words, one_line};

    #[test]
    fn a_usage_error_is_one_line_in_json() {
        let text =
            "error: the following required arguments were not provided:\n  <KEY>\n\nUsage: f";
        let text = in_our_words(text);
        assert_eq!(one_line(&text), "the following required arguments were not provided: <KEY>");
    }
}
