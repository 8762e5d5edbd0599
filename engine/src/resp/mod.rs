//! The Redis front of a data core: RESP2 and RESP3 over whatever carries the bytes.
//!
//! Sans-I/O: a [`Conn`] takes received bytes, asks the data core through [`Backend`], and writes
//! replies to the end of the connection's out buffer, in the order of the requests. docs/resp.md has
//! the commands and the differences from Redis.
//!
//! * [`parse`]: bytes to commands; GET and SET on a path of their own.
//! * `conn`: the order of replies, bounds, resumption; `execute`: the commands in between.
//! * `commands`: a function a command; it decides what to do (`Plan`), and does nothing itself.
//! * `reply`, `job`: answers to replies, of one operation and of many.

mod commands;
mod conn;
mod execute;
mod glob;
mod inline;
mod job;
pub mod limits;
mod number;
pub mod parse;
mod reply;
mod table;
mod write;

#[cfg(test)]
mod tests;

pub use conn::{Conn, Progress};
pub use firebrick_partition::hash::hash_key;

use firebrick_partition::{Answer, Now, Op};

/// Names an operation that is answered later: the connection's slot, and the operation's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyToken(u64);

impl ReplyToken {
    /// The slot number given to [`Conn::new`], and what [`Backend::submit`] was given with it.
    pub fn new(conn: u32, number: u32) -> Self {
        Self(u64::from(conn) << 32 | u64::from(number))
    }

    /// The slot number given to [`Conn::new`].
    pub fn conn(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The operation's number in it.
    pub fn number(self) -> u32 {
        self.0 as u32
    }
}

/// What the front needs of the data core.
pub trait Backend {
    /// The moment of this turn.
    fn now(&self) -> Now;

    /// The brick serves all its data: it is not starting or stopping.
    fn is_serving(&self) -> bool;

    /// Pass 1 over a batch: the bucket of a hash will be looked at.
    fn prefetch_bucket(&self, hash: u64);

    /// Pass 2: the bucket is near; its record will be looked at.
    fn prefetch_record(&self, hash: u64);

    /// Executes on this core, or ships to the owner of the hash. `Some`: the answer, borrowed from the
    /// mapped log. `None`: it comes later through [`Conn::on_answer`]. Operations of one connection on
    /// one key take effect in the order of submission. An empty key with one of
    /// `Op::{Scan, Count, RandomKey, Clear}` means the partition that `hash` falls in.
    fn submit(
        &mut self,
        token: ReplyToken,
        hash: u64,
        key: &[u8],
        op: Op<'_>,
    ) -> Option<Answer<'_>>;

    /// The first hash of each partition of the table in the order of bit-reversed hashes: its suffix,
    /// all other bits zero.
    fn partition_hashes(&self, out: &mut Vec<u64>);

    /// Appends a section of INFO, `# Name` line and all; "all", "default" and "everything" mean each.
    /// An unknown section appends nothing.
    fn info(&mut self, section: &str, out: &mut String);

    /// Appends the settings whose names match a glob pattern; [`glob_matches`] does the matching.
    fn config_get(&self, pattern: &[u8], out: &mut Vec<(String, String)>);

    /// Appends a line of CLIENT LIST, made by [`Conn::describe`], for each connection of this core
    /// but the asking one.
    fn clients(&mut self, asking: u32, out: &mut String);

    /// The remote and the local address of a connection, for CLIENT LIST.
    fn addresses(&self, conn: u32) -> (String, String);
}

/// Where a scan goes on when the partition that holds `cursor` has no more: the first place of the
/// next one in the order of bit-reversed hashes; 0 when there is none.
fn next_partition(backend: &impl Backend, cursor: u64) -> u64 {
    let mut hashes = Vec::new();
    backend.partition_hashes(&mut hashes);
    let places = hashes.into_iter().map(u64::reverse_bits);
    places.filter(|&place| place > cursor).min().unwrap_or(0)
}

/// Redis's glob matching, for [`Backend::config_get`].
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    glob::matches(pattern, text)
}
