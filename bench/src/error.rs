//! Why a load has no report.

use std::fmt;
use std::io;

use firebrick_client::Error;

/// Why there is no report.
#[derive(Debug)]
pub enum BenchError {
    /// An option makes no sense: which, and what to do.
    Option(String),
    /// The CPU cannot be used.
    Pin(usize, io::Error),
    /// The brick cannot be reached, or the first requests failed.
    Client(Error),
    /// The server of [`redis`](crate::redis) cannot be reached.
    Unreachable(String),
    /// It is none, or went away in the middle.
    Server(String),
    /// The load's own ring failed.
    Ring(String),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(text)
            | Self::Unreachable(text)
            | Self::Server(text)
            | Self::Ring(text) => f.write_str(text),
            Self::Pin(cpu, error) => {
                write!(f, "cannot run on CPU {cpu}: {error}; choose another with --core")
            }
            Self::Client(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<Error> for BenchError {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}
