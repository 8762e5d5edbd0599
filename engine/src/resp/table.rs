//! The commands there are: one table for dispatch, COMMAND and docs/resp.md.

use super::commands::{Handler, connection, keys, server, strings};

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Values.
    String,
    /// Keys.
    Generic,
    /// The connection.
    Connection,
    /// The brick.
    Server,
}

impl Group {
    /// As COMMAND DOCS and the docs say it.
    pub fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Generic => "generic",
            Group::Connection => "connection",
            Group::Server => "server",
        }
    }
}

/// What client libraries want to know of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// Reads, quickly.
    Read,
    /// Reads as much as there is.
    ReadSlow,
    /// Writes.
    Write,
    /// Writes, and may need room.
    WriteMore,
    /// Concerns no data, and is answered only by a brick that serves.
    Serving,
    /// Concerns no data.
    Other,
}

impl Flags {
    /// In COMMAND INFO's words.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Flags::Read => &["readonly", "fast"],
            Flags::ReadSlow => &["readonly"],
            Flags::Write => &["write", "fast"],
            Flags::WriteMore => &["write", "denyoom"],
            Flags::Serving => &["fast"],
            Flags::Other => &["loading", "stale", "fast"],
        }
    }
}

/// One command or subcommand.
#[derive(Debug)]
pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// Words in all; negative is "at least".
    pub arity: i8,
    /// Read or write.
    pub flags: Flags,
    /// First key, last key (negative counts from the end), step; zeros for none.
    pub keys: (i8, i8, i8),
    /// What it is about.
    pub group: Group,
    /// Its function.
    pub handler: Handler,
    /// What may follow its name.
    pub subcommands: &'static [Command],
    /// A line for people.
    pub summary: &'static str,
}

impl Command {
    /// Whether so many words, its own included, are right.
    pub fn takes(&self, words: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { words >= arity } else { words == arity }
    }

    /// ACL categories, for tools that show them.
    pub fn categories(&self) -> &'static [&'static str] {
        match (self.group, self.flags) {
            (Group::String, Flags::Read | Flags::ReadSlow) => &["@read", "@string", "@fast"],
            (Group::String, _) => &["@write", "@string", "@fast"],
            (Group::Generic, Flags::Read | Flags::ReadSlow) => &["@keyspace", "@read"],
            (Group::Generic, _) => &["@keyspace", "@write"],
            (Group::Connection, _) => &["@connection"],
            (Group::Server, _) => &["@slow"],
        }
    }
}

/// One key, the first argument.
const ONE: (i8, i8, i8) = (1, 1, 1);
/// All arguments are keys.
const ALL: (i8, i8, i8) = (1, -1, 1);
/// None.
const NONE: (i8, i8, i8) = (0, 0, 0);

const fn c(
    name: &'static str,
    arity: i8,
    flags: Flags,
    keys: (i8, i8, i8),
    group: Group,
    handler: Handler,
    summary: &'static str,
) -> Command {
    Command { name, arity, flags, keys, group, handler, subcommands: &[], summary }
}

const fn container(
    name: &'static str,
    arity: i8,
    group: Group,
    handler: Handler,
    subcommands: &'static [Command],
    summary: &'static str,
) -> Command {
    Command { name, arity, flags: Flags::Other, keys: NONE, group, handler, subcommands, summary }
}

use Flags::{Other, Read, ReadSlow, Serving, Write, WriteMore};
use Group::{Connection, Generic, Server, String};

/// Every command, in alphabetical order.
pub static COMMANDS: &[Command] = &[
    c("append", 3, WriteMore, ONE, String, strings::append, "Appends bytes to a value."),
    container("client", -2, Connection, server::no_subcommand, CLIENT, "About connections."),
    container("command", -1, Server, server::command, COMMAND, "Describes the commands."),
    container("config", -2, Server, server::no_subcommand, CONFIG, "About the settings."),
    c("dbsize", 1, Read, NONE, Server, keys::dbsize, "Counts the keys."),
    c("decr", 2, WriteMore, ONE, String, strings::decr, "Takes one from an integer."),
    c("decrby", 3, WriteMore, ONE, String, strings::decrby, "Takes from an integer."),
    c("del", -2, Write, ALL, Generic, keys::del, "Removes keys."),
    c("echo", 2, Other, NONE, Connection, connection::echo, "Answers with its argument."),
    c("exists", -2, Read, ALL, Generic, keys::exists, "Counts the keys that have a value."),
    c("expire", -3, Write, ONE, Generic, keys::expire, "Lets a key expire in seconds."),
    c("expireat", -3, Write, ONE, Generic, keys::expireat, "Lets a key expire at a time."),
    c("expiretime", 2, Read, ONE, Generic, keys::expiretime, "When a key expires, in seconds."),
    c("flushall", -1, Write, NONE, Server, keys::flush, "Removes all keys."),
    c("flushdb", -1, Write, NONE, Server, keys::flush, "Removes all keys."),
    c("get", 2, Read, ONE, String, strings::get, "The value of a key."),
    c("getdel", 2, Write, ONE, String, strings::getdel, "The value of a key, which is removed."),
    c("getex", -2, Write, ONE, String, strings::getex, "The value, changing when it expires."),
    c("getrange", 4, Read, ONE, String, strings::getrange, "A part of a value."),
    c("getset", 3, WriteMore, ONE, String, strings::getset, "The old value of a key that is set."),
    c("hello", -1, Other, NONE, Connection, connection::hello, "Chooses RESP2 or RESP3."),
    c("incr", 2, WriteMore, ONE, String, strings::incr, "Adds one to an integer."),
    c("incrby", 3, WriteMore, ONE, String, strings::incrby, "Adds to an integer."),
    c("incrbyfloat", 3, WriteMore, ONE, String, strings::incrbyfloat, "Adds to a number."),
    c("info", -1, Other, NONE, Server, server::info, "What the brick tells of itself."),
    c("keys", 2, ReadSlow, NONE, Generic, keys::keys, "All keys that match a pattern."),
    c("mget", -2, Read, ALL, String, strings::mget, "The values of keys."),
    c("mset", -3, WriteMore, (1, -1, 2), String, strings::mset, "Sets keys, one by one."),
    c("persist", 2, Write, ONE, Generic, keys::persist, "Lets a key never expire."),
    c("pexpire", -3, Write, ONE, Generic, keys::pexpire, "Lets a key expire in milliseconds."),
    c("pexpireat", -3, Write, ONE, Generic, keys::pexpireat, "Lets a key expire at a time in ms."),
    c("pexpiretime", 2, Read, ONE, Generic, keys::pexpiretime, "When a key expires, in ms."),
    c(
        "ping",
        -1,
        Serving,
        NONE,
        Connection,
        connection::ping,
        "Answers PONG or its argument, once the brick serves.",
    ),
    c("psetex", 4, WriteMore, ONE, String, strings::psetex, "Sets a value for milliseconds."),
    c("pttl", 2, Read, ONE, Generic, keys::pttl, "Milliseconds until a key expires."),
    c("quit", -1, Other, NONE, Connection, connection::quit, "Closes the connection."),
    c("randomkey", 1, Read, NONE, Generic, keys::randomkey, "Any key."),
    c("reset", 1, Other, NONE, Connection, connection::reset, "Back to a new connection's state."),
    c("scan", -2, ReadSlow, NONE, Generic, keys::scan, "Some keys and where to go on."),
    c("select", 2, Other, NONE, Connection, connection::select, "Chooses database 0."),
    c("set", -3, WriteMore, ONE, String, strings::set, "Sets a value."),
    c("setex", 4, WriteMore, ONE, String, strings::setex, "Sets a value for seconds."),
    c("setnx", 3, WriteMore, ONE, String, strings::setnx, "Sets a value if there is none."),
    c("setrange", 4, WriteMore, ONE, String, strings::setrange, "Overwrites a part of a value."),
    c("strlen", 2, Read, ONE, String, strings::strlen, "The length of a value."),
    c("substr", 4, Read, ONE, String, strings::getrange, "A part of a value."),
    c("time", 1, Other, NONE, Server, server::time, "The brick's clock."),
    c("touch", -2, Read, ALL, Generic, keys::exists, "Counts the keys that have a value."),
    c("ttl", 2, Read, ONE, Generic, keys::ttl, "Seconds until a key expires."),
    c("type", 2, Read, ONE, Generic, keys::type_of, "The type of a value: string or none."),
    c("unlink", -2, Write, ALL, Generic, keys::del, "Removes keys."),
    c("wait", 3, Serving, NONE, Generic, server::wait, "Replicas that have the last write: 0."),
];

static CLIENT: &[Command] = &[
    c("getname", 2, Other, NONE, Connection, connection::client_getname, "The connection's name."),
    c("id", 2, Other, NONE, Connection, connection::client_id, "The connection's number."),
    c("list", -2, Other, NONE, Connection, connection::client_list, "The core's connections."),
    c("setinfo", 4, Other, NONE, Connection, connection::client_setinfo, "Names the library."),
    c("setname", 3, Other, NONE, Connection, connection::client_setname, "Names the connection."),
];

static COMMAND: &[Command] = &[
    c("count", 2, Other, NONE, Server, server::command_count, "How many commands there are."),
    c("docs", -2, Other, NONE, Server, server::command_docs, "Documents commands."),
    c("info", -2, Other, NONE, Server, server::command_info, "Describes commands."),
    c("list", -2, Other, NONE, Server, server::command_list, "The names of commands."),
];

static CONFIG: &[Command] =
    &[c("get", -3, Other, NONE, Server, server::config_get, "Settings that match a pattern.")];

/// The names as numbers in the same order, so that a look-up compares no strings.
static NAMES: [u128; COMMANDS.len()] = {
    let mut names = [0; COMMANDS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = packed(COMMANDS[at].name.as_bytes());
        assert!(at == 0 || names[at - 1] < names[at], "the table is sorted by name");
        at += 1;
    }
    names
};

/// Up to 16 bytes in lower case as a number that sorts as they do.
const fn packed(name: &[u8]) -> u128 {
    let mut number = 0;
    let mut at = 0;
    while at < 16 {
        let byte = if at < name.len() { name[at].to_ascii_lowercase() } else { 0 };
        number = number << 8 | byte as u128;
        at += 1;
    }
    number
}

/// The command of a name in any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    let at = NAMES.binary_search(&packed(name)).ok()?;
    let command = &COMMANDS[at];
    // A name with NULs at its end, or too long, packs to the same number.
    (command.name.len() == name.len()).then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_command_is_found() {
        for command in COMMANDS {
            assert!(command.name.len() <= 16);
            let upper = command.name.to_ascii_uppercase();
            assert_eq!(find(upper.as_bytes()).unwrap().name, command.name);
        }
        assert!(
            find(b"geT").is_some()
                && find(b"gett").is_none()
                && find(b"get\0").is_none()
                && find(&[b'x'; 99]).is_none()
        );
    }
}
