//! What a connection knows of its client.

use std::fmt::Write;

use crate::resp::write::Protocol;

/// Who is at the other end.
#[derive(Debug)]
pub struct Client {
    /// Unique in the brick.
    pub id: u64,
    /// The protocol spoken.
    pub protocol: Protocol,
    /// Commands executed.
    pub commands: u64,
    /// The last command's name.
    pub last_command: &'static str,
    /// When the last command came.
    pub last_ms: u64,
    /// When it connected.
    pub since_ms: u64,
    /// What it calls itself; most say nothing.
    names: Option<Box<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    name: Vec<u8>,
    lib_name: Vec<u8>,
    lib_ver: Vec<u8>,
}

/// Which of a client's names.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// CLIENT SETNAME.
    Connection,
    /// CLIENT SETINFO lib-name.
    Library,
    /// CLIENT SETINFO lib-ver.
    LibraryVersion,
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(id: u64, now_ms: u64) -> Self {
        Self {
            id,
            protocol: Protocol::Resp2,
            commands: 0,
            last_command: "NULL",
            last_ms: now_ms,
            since_ms: now_ms,
            names: None,
        }
    }

    /// The name set, or nothing.
    pub fn name(&self) -> &[u8] {
        self.names.as_ref().map_or(b"", |names| &names.name)
    }

    /// A name has no bytes that would break a line of CLIENT LIST.
    pub fn takes(value: &[u8]) -> bool {
        value.iter().all(|b| (b'!'..=b'~').contains(b))
    }

    /// Sets a name; false when it is none.
    pub fn set(&mut self, which: Name, value: &[u8]) -> bool {
        if !Self::takes(value) {
            return false;
        }
        let names = self.names.get_or_insert_default();
        match which {
            Name::Connection => names.name = value.to_vec(),
            Name::Library => names.lib_name = value.to_vec(),
            Name::LibraryVersion => names.lib_ver = value.to_vec(),
        }
        true
    }

    /// RESET.
    pub fn reset(&mut self) {
        self.protocol = Protocol::Resp2;
        if let Some(names) = &mut self.names {
            names.name.clear();
        }
    }

    /// A line of CLIENT LIST.
    pub fn describe(&self, peer: &str, local: &str, now_ms: u64, held: usize, out: &mut String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let names = self.names.as_deref();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "id={} addr={peer} laddr={local} fd=-1 name={} age={} idle={} flags=N db=0 sub=0 psub=0 \
             ssub=0 multi=-1 qbuf={held} tot-cmds={} cmd={} user=default redir=-1 resp={} \
             lib-name={} lib-ver={}",
            self.id,
            text(self.name()),
            now_ms.saturating_sub(self.since_ms) / 1000,
            now_ms.saturating_sub(self.last_ms) / 1000,
            self.commands,
            self.last_command,
            if self.protocol == Protocol::Resp3 { 3 } else { 2 },
            text(names.map_or(b"", |n| &n.lib_name)),
            text(names.map_or(b"", |n| &n.lib_ver)),
        );
    }
}
