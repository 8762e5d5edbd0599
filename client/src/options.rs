//! What a client may be told, and its defaults.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

/// How a client behaves. `Options::default()` suits most.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a request may take, retries and waiting for its turn included. Default 5 s.
    pub deadline: Duration,
    /// How the client calls itself, for the brick's logs. Default: the program's name.
    pub name: String,
    /// Requests in flight at once; more wait for their turn. Default 1024.
    pub in_flight: usize,
    /// Bytes of keys and values in flight at once. Default 64 MiB; one value always fits.
    pub in_flight_bytes: usize,
    /// Connections to each brick that is used, 1 to 64. One is enough unless a single stream is the limit. Default 1.
    pub connections: usize,
    /// Number writes, so that they are retried without applying twice (docs/client.md). Without it a
    /// write whose connection breaks is `InDoubt` at once. Default true.
    pub exactly_once: bool,
    /// Silence of a connection with answers due, after which it is given up and what was sent on it is sent
    /// again; also the longest wait for a new one. (After half of it the brick is asked for a sign of life, which it
    /// gives however long its requests take.) Default 600 ms, a little more than the bricks' leases.
    pub silence: Duration,
    /// Which replicas answer reads. Default any.
    pub read_from: ReadFrom,
}

/// Which replicas of a key answer reads. Any of them gives the newest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// All alike: reads are spread over the group.
    #[default]
    Any,
    /// The one that orders the writes.
    Primary,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            name: program_name(),
            in_flight: 1024,
            in_flight_bytes: 64 << 20,
            connections: 1,
            exactly_once: true,
            silence: Duration::from_millis(600),
            read_from: ReadFrom::Any,
        }
    }
}

impl Options {
    /// The part that the session decides by, with a fresh client id.
    pub(crate) fn session(&self, seeds: Seeds) -> SessionOptions {
        SessionOptions {
            seeds: seeds.0,
            connections: self.connections.clamp(1, 64),
            read_from: self.read_from,
            name: self.name.clone(),
            client: client_id(),
            in_flight: self.in_flight.clamp(1, IN_FLIGHT_MAX),
            numbered: self.exactly_once,
            silence_ns: nanos(self.silence).max(10_000_000),
        }
    }
}

/// The most requests one session holds.
pub const IN_FLIGHT_MAX: usize = 1 << 15;

/// What a [`crate::Session`] is told.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// How the client calls itself.
    pub name: String,
    /// 128 random bits per process start.
    pub client: u128,
    /// Requests that may be submitted and not done.
    pub in_flight: usize,
    /// Number writes, so that they may be retried.
    pub numbered: bool,
    /// Silence of a link with answers due, after which it is given up; the longest wait for a dial.
    pub silence_ns: u64,
    /// Where bricks may be: at least one `HOST:PORT`.
    pub seeds: Vec<Arc<str>>,
    /// Connections to each brick that is used.
    pub connections: usize,
    /// Which replicas answer reads.
    pub read_from: ReadFrom,
}

/// Addresses to begin with, each `HOST:PORT`: one string with commas between them, or a list. The other bricks are
/// learnt from the first that answers.
///
/// ```
/// use firebrick_client::Seeds;
/// assert_eq!(Seeds::from("a:7400, b:7400"), Seeds::from(["a:7400", "b:7400"]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub(crate) Vec<Arc<str>>);

impl From<&str> for Seeds {
    fn from(text: &str) -> Self {
        Self(text.split(',').map(|address| address.trim().into()).collect())
    }
}

impl From<&String> for Seeds {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Seeds {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl<S: AsRef<str>> From<&[S]> for Seeds {
    fn from(list: &[S]) -> Self {
        Self(list.iter().map(|address| address.as_ref().trim().into()).collect())
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Seeds {
    fn from(list: [S; N]) -> Self {
        list.as_slice().into()
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Seeds {
    fn from(list: Vec<S>) -> Self {
        list.as_slice().into()
    }
}

impl std::fmt::Display for Seeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// 128 bits that no other client has: the standard library's hasher keys come from the kernel.
fn client_id() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    half() << 64 | half()
}

fn program_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| {
            let name = std::path::Path::new(&path).file_name()?;
            Some(name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| "client".to_owned())
}

/// Saturating: a duration of over 500 years is for ever.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
