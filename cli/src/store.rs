//! The client library as the commands use it: one table, errors with exit codes.

use firebrick_client::{Client, Declined, Error, Options, Table, Version};
use serde_json::Value;

use crate::args::{Connect, Target};
use crate::error::CliError;

pub use firebrick_client::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// A stored value.
pub struct Stored {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its version.
    pub version: Version,
}

/// One table of a brick.
#[derive(Clone)]
pub struct Store {
    table: Table,
}

/// Connects to the first brick that answers.
pub async fn connect(to: &Connect) -> Result<Client, CliError> {
    let options =
        Options { deadline: to.timeout, name: "firebrick-cli".to_owned(), ..Options::default() };
    Client::connect_with(to.addresses()?, options).await.map_err(from_client)
}

impl Store {
    /// Connects and looks the table up.
    pub async fn open(target: &Target) -> Result<Self, CliError> {
        let client = connect(&target.connect).await?;
        let table = client.table(&target.table).await.map_err(from_client)?;
        Ok(Self { table })
    }

    /// The value under a key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Stored>, CliError> {
        let value = self.table.get(key).await.map_err(from_client)?;
        Ok(value.map(|value| Stored { version: value.version, bytes: value.bytes }))
    }

    /// Stores a value.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<Version, CliError> {
        self.table.put(key, value).await.map_err(from_client)
    }

    /// The table itself, for what is rarely used.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

/// The exit code of a client error; the sentence is the client's own.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn from_client(error: Error) -> CliError {
    let text = error.to_string();
    match error {
        Error::InDoubt => CliError::InDoubt(text),
        Error::NoSpace => CliError::NoSpace(text),
        Error::Unavailable(_) | Error::Busy | Error::Deadline { .. } | Error::Connection { .. } => {
            CliError::Unavailable(text)
        }
        Error::VersionMismatch { .. } | Error::Exists { .. } => CliError::Refused(text),
        Error::Absent | Error::NoTable(_) => CliError::NotFound(text),
        Error::Control { kind, .. } => match kind {
            Declined::NotFound => CliError::NotFound(text),
            Declined::NotNow => CliError::Unavailable(text),
            Declined::InDoubt => CliError::InDoubt(text),
            Declined::Refused | Declined::Exists => CliError::Refused(text),
        },
        Error::TooLarge { .. } => CliError::Usage(text),
        _ => CliError::Failed(text),
    }
}

/// As [`from_client`], for a change of tables or of the cluster: what is in doubt is not a key.
pub fn from_change(error: Error) -> CliError {
    match error {
        Error::InDoubt => CliError::InDoubt(
            "there was no answer in time, so it is not known whether this was done: `firebrick status` tells"
                .to_owned(),
        ),
        error => from_client(error),
    }
}

/// What a brick answered to a request about itself.
pub fn parse_answer(answer: &str) -> Result<Value, CliError> {
    serde_json::from_str(answer).map_err(|e| {
        CliError::Failed(format!(
            "the brick's answer is no JSON ({e}): are brick and command of the same version?"
        ))
    })
}

/// A version as people and JSON see it: `EPOCH.SEQ`.
pub fn version_text(version: Version) -> String {
    format!("{}.{}", version.epoch, version.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_documented_exit_codes() {
        for (error, code) in [
            (Error::NotInteger, 1),
            (Error::Corrupt, 1),
            (Error::TooLarge { what: "value", bytes: 9 << 20, limit: 8 << 20 }, 2),
            (Error::NoTable("t".into()), 3),
            (Error::Unavailable("a (a:1) does not answer".into()), 4),
            (Error::Connection { address: "a:1".into(), why: "refused (os error 9)".into() }, 4),
            (Error::Deadline { ms: 10, from: None }, 4),
            (Error::InDoubt, 5),
            (Error::NoSpace, 6),
            (Error::VersionMismatch { current: None }, 7),
            (Error::Exists { current: Version::default() }, 7),
        ] {
            let said = error.to_string();
            let ours = from_client(error);
            assert_eq!(ours.exit_code(), code, "{said}");
            assert_eq!(ours.to_string(), said.replace(" (os error 9)", ""));
        }
    }

    #[test]
    fn what_is_in_doubt_is_a_key_or_the_cluster() {
        let (write, change) = (from_client(Error::InDoubt), from_change(Error::InDoubt));
        assert_eq!((write.exit_code(), change.exit_code()), (5, 5));
        assert!(write.to_string().contains("read the key"), "{write}");
        assert!(change.to_string().contains("firebrick status"), "{change}");
        assert!(!change.to_string().contains("key"), "{change}");
    }
}
