//! A function a command. It reads the arguments and says what to do as a [`Plan`]; the connection does
//! it. Errors are Redis's own words.

// Handlers share one signature, whether they can fail or not.
#![allow(clippy::unnecessary_wraps)]

mod client;
pub mod connection;
pub mod keys;
mod options;
pub mod server;
pub mod strings;

use std::borrow::Cow;

use firebrick_partition::{Failure, Now, Op};

pub use client::Client;
pub use server::{Ask, answer};

use super::job::{Each, Work};
use super::number::parse_i64;
use super::reply::{Then, failure_text};
use super::table::{self, Command, Flags};

/// What a command asks for.
pub enum Plan<'a> {
    /// The reply has been written.
    Replied,
    /// The reply has been written; close the connection.
    Quit,
    /// One operation.
    One {
        /// The key; empty for SCAN.
        key: &'a [u8],
        /// The operation.
        op: Op<'a>,
        /// How its answer becomes the reply.
        then: Then,
    },
    /// The same operation on many keys.
    Each(Each, &'a [&'a [u8]]),
    /// Other work in steps.
    Work(Work),
    /// Questions about the brick.
    Ask(Ask<'a>),
}

/// An error reply, without the leading minus.
pub type Fault = Cow<'static, str>;
/// What a handler returns.
pub type Planned<'a> = Result<Plan<'a>, Fault>;

/// One command being handled.
pub struct Call<'a, 'c> {
    /// All words, the command's own first.
    pub args: &'a [&'a [u8]],
    /// Who asks.
    pub client: &'c mut Client,
    /// The moment.
    pub now: Now,
    /// For replies that need no data.
    pub out: &'c mut Vec<u8>,
}

/// A command's function.
pub type Handler = for<'a, 'c> fn(&mut Call<'a, 'c>) -> Planned<'a>;

/// Finds the command and asks its function for a plan. `serving`: the brick has all its data.
pub fn plan<'a>(
    args: &'a [&'a [u8]],
    client: &mut Client,
    now: Now,
    serving: bool,
    out: &mut Vec<u8>,
) -> Planned<'a> {
    let Some(command) = table::find(args[0]) else {
        // What a browser sends when a web page makes it speak to us: never go on, as Redis.
        if args[0].eq_ignore_ascii_case(b"post") || args[0].eq_ignore_ascii_case(b"host:") {
            return Ok(Plan::Quit);
        }
        return Err(unknown_command(args));
    };
    client.last_command = command.name;
    let handler = select(command, args)?;
    if !serving && command.flags == Flags::Serving {
        return Err(failure_text(Failure::Unavailable).into());
    }
    handler(&mut Call { args, client, now, out })
}

/// The command's function or its subcommand's, once the number of arguments is right.
fn select(command: &'static Command, args: &[&[u8]]) -> Result<Handler, Fault> {
    if command.subcommands.is_empty() || args.len() == 1 {
        if !command.takes(args.len()) {
            return Err(wrong_arity(command.name));
        }
        return Ok(command.handler);
    }
    let Some(sub) =
        command.subcommands.iter().find(|s| s.name.as_bytes().eq_ignore_ascii_case(args[1]))
    else {
        return Err(format!(
            "ERR unknown subcommand '{}'. Try {} HELP.",
            c_text(args[1], 128),
            command.name.to_ascii_uppercase()
        )
        .into());
    };
    if !sub.takes(args.len()) {
        return Err(wrong_arity(&format!("{}|{}", command.name, sub.name)));
    }
    Ok(sub.handler)
}

/// The error of a command that there is not.
fn unknown_command(args: &[&[u8]]) -> Fault {
    let mut text =
        format!("ERR unknown command '{}', with args beginning with: ", c_text(args[0], 128));
    let mut shown = 0;
    for arg in &args[1..] {
        if shown >= 128 {
            break;
        }
        let arg = c_text(arg, 128 - shown);
        shown += arg.len() + 3;
        text.push('\'');
        text.push_str(&arg);
        text.push_str("' ");
    }
    text.into()
}

/// The error of a wrong number of arguments.
pub fn wrong_arity(name: &str) -> Fault {
    format!("ERR wrong number of arguments for '{name}' command").into()
}

/// A client's words as C would print them: up to a NUL, and not too many.
pub fn c_text(bytes: &[u8], max: usize) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()).min(max);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An integer argument.
pub fn integer(arg: &[u8]) -> Result<i64, Fault> {
    parse_i64(arg).ok_or(Cow::Borrowed(NOT_INTEGER))
}

/// A word of the protocol, in either case.
pub fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// An argument that should be a number.
pub const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
/// Options that do not go together, or that there are not.
pub const SYNTAX: Fault = Cow::Borrowed("ERR syntax error");
