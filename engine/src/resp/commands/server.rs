//! COMMAND, CONFIG, INFO and the other commands on the brick.

use std::fmt::Write;

use super::{Call, Plan, Planned, SYNTAX, integer, is};
use crate::resp::number::{Digits, parse_i64};
use crate::resp::table::{self, COMMANDS, Command};
use crate::resp::write::{self, Protocol};
use crate::resp::{Backend, glob};

/// A question that the data core answers.
pub enum Ask<'a> {
    /// INFO; no section means the default ones.
    Info(&'a [&'a [u8]]),
    /// CONFIG GET.
    Config(&'a [&'a [u8]]),
    /// CLIENT LIST.
    Clients {
        /// Only these; empty is all.
        ids: &'a [&'a [u8]],
        /// A type of client that there is not.
        none: bool,
    },
}

/// Answers it. `own` is the asking connection's line of CLIENT LIST.
pub fn answer<B: Backend>(
    ask: &Ask<'_>,
    own: String,
    conn: u32,
    backend: &mut B,
    protocol: Protocol,
    out: &mut Vec<u8>,
) {
    match ask {
        Ask::Info(sections) => {
            let mut text = String::new();
            if sections.is_empty() {
                backend.info("default", &mut text);
            }
            for section in *sections {
                backend.info(&String::from_utf8_lossy(section).to_ascii_lowercase(), &mut text);
            }
            write::verbatim(out, protocol, &text);
        }
        Ask::Config(patterns) => {
            let mut found = Vec::new();
            for pattern in *patterns {
                backend.config_get(&pattern.to_ascii_lowercase(), &mut found);
            }
            let mut seen = std::collections::BTreeSet::new();
            found.retain(|(name, _)| seen.insert(name.clone()));
            write::map(out, protocol, found.len());
            for (name, value) in found {
                write::bulk(out, name.as_bytes());
                write::bulk(out, value.as_bytes());
            }
        }
        Ask::Clients { ids, none } => {
            let mut text = own;
            backend.clients(conn, &mut text);
            let wanted = |line: &str| {
                let id = line.strip_prefix("id=").and_then(|l| l.split(' ').next()).unwrap_or("");
                !none && (ids.is_empty() || ids.contains(&id.as_bytes()))
            };
            let mut shown = String::new();
            for line in text.lines().filter(|line| wanted(line)) {
                let _ = writeln!(shown, "{line}"); // to a String: cannot fail
            }
            write::verbatim(out, protocol, &shown);
        }
    }
}

/// INFO \[section...\]
pub fn info<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    Ok(Plan::Ask(Ask::Info(&call.args[1..])))
}

/// CONFIG GET pattern...
pub fn config_get<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    Ok(Plan::Ask(Ask::Config(&call.args[2..])))
}

/// CONFIG or CLIENT without a subcommand: the arity check has answered.
pub fn no_subcommand<'a>(_: &mut Call<'a, '_>) -> Planned<'a> {
    Err(SYNTAX)
}

/// TIME
pub fn time<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let ms = call.now.unix_ms;
    write::array(call.out, 2);
    write::bulk(call.out, Digits::of(ms / 1000).text());
    write::bulk(call.out, Digits::of(ms % 1000 * 1000).text());
    Ok(Plan::Replied)
}

/// WAIT replicas milliseconds: the group has no other member, so none has acknowledged.
pub fn wait<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    integer(call.args[1])?;
    let timeout = parse_i64(call.args[2]).ok_or("ERR timeout is not an integer or out of range")?;
    if timeout < 0 {
        return Err("ERR timeout is negative".into());
    }
    write::integer(call.out, 0);
    Ok(Plan::Replied)
}

/// COMMAND
pub fn command<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    write::array(call.out, COMMANDS.len());
    for command in COMMANDS {
        describe(command, None, call.client.protocol, call.out);
    }
    Ok(Plan::Replied)
}

/// COMMAND COUNT
pub fn command_count<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    write::integer(call.out, COMMANDS.len() as i64);
    Ok(Plan::Replied)
}

/// COMMAND LIST \[FILTERBY MODULE name|ACLCAT category|PATTERN pattern\]
pub fn command_list<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let names: Vec<&str> = match &call.args[2..] {
        [] => COMMANDS.iter().map(|c| c.name).collect(),
        [by, what, pattern] if is(by, "filterby") && is(what, "pattern") => {
            let fits = |c: &&Command| glob::matches(pattern, c.name.as_bytes());
            COMMANDS.iter().filter(fits).map(|c| c.name).collect()
        }
        [by, what, category] if is(by, "filterby") && is(what, "aclcat") => {
            let fits = |c: &&Command| c.categories().iter().any(|have| is(category, &have[1..]));
            COMMANDS.iter().filter(fits).map(|c| c.name).collect()
        }
        [by, what, _] if is(by, "filterby") && is(what, "module") => Vec::new(),
        _ => return Err(SYNTAX),
    };
    write::array(call.out, names.len());
    for name in names {
        write::bulk(call.out, name.as_bytes());
    }
    Ok(Plan::Replied)
}

/// The command or `container|subcommand` of a name.
fn named(name: &[u8]) -> Option<(&'static Command, Option<&'static Command>)> {
    let mut words = name.split(|&b| b == b'|');
    let command = table::find(words.next()?)?;
    let Some(word) = words.next() else { return Some((command, None)) };
    let sub = command.subcommands.iter().find(|s| is(word, s.name))?;
    words.next().is_none().then_some((sub, Some(command)))
}

/// COMMAND INFO \[name...\]
pub fn command_info<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let names = &call.args[2..];
    if names.is_empty() {
        return command(call);
    }
    write::array(call.out, names.len());
    for name in names {
        match named(name) {
            Some((found, parent)) => describe(found, parent, call.client.protocol, call.out),
            None => write::null(call.out, call.client.protocol),
        }
    }
    Ok(Plan::Replied)
}

fn full_name(command: &Command, parent: Option<&Command>) -> String {
    parent.map_or_else(|| command.name.into(), |p| format!("{}|{}", p.name, command.name))
}

/// The ten fields of COMMAND INFO.
fn describe(command: &Command, parent: Option<&Command>, protocol: Protocol, out: &mut Vec<u8>) {
    write::array(out, 10);
    write::bulk(out, full_name(command, parent).as_bytes());
    write::integer(out, i64::from(command.arity));
    let flags = command.flags.names();
    write::set(out, protocol, flags.len());
    for flag in flags {
        write::simple(out, flag);
    }
    let (first, last, step) = command.keys;
    for n in [first, last, step] {
        write::integer(out, i64::from(n));
    }
    let categories = command.categories();
    write::set(out, protocol, categories.len());
    for category in categories {
        write::simple(out, category);
    }
    write::array(out, 0); // tips
    write::array(out, 0); // key specifications: first, last and step say it all
    write::array(out, command.subcommands.len());
    for sub in command.subcommands {
        describe(sub, Some(command), protocol, out);
    }
}

/// COMMAND DOCS \[name...\]
pub fn command_docs<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let names = &call.args[2..];
    let found: Vec<_> = if names.is_empty() {
        COMMANDS.iter().map(|c| (c, None)).collect()
    } else {
        names.iter().filter_map(|name| named(name)).collect()
    };
    write::map(call.out, call.client.protocol, found.len());
    for (command, parent) in found {
        write::bulk(call.out, full_name(command, parent).as_bytes());
        docs(command, call.client.protocol, call.out);
    }
    Ok(Plan::Replied)
}

fn docs(command: &Command, protocol: Protocol, out: &mut Vec<u8>) {
    let subcommands = usize::from(!command.subcommands.is_empty());
    write::map(out, protocol, 4 + subcommands);
    for (field, value) in [
        ("summary", command.summary),
        ("since", "1.0.0"),
        ("group", command.group.name()),
        ("complexity", "O(N) with N keys or bytes"),
    ] {
        write::bulk(out, field.as_bytes());
        write::bulk(out, value.as_bytes());
    }
    if subcommands > 0 {
        write::bulk(out, b"subcommands");
        write::map(out, protocol, command.subcommands.len());
        for sub in command.subcommands {
            write::bulk(out, full_name(sub, Some(command)).as_bytes());
            docs(sub, protocol, out);
        }
    }
}
