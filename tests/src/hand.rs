//! A client that a test plays by hand: one call at a time, each written down for [`crate::check`].

use std::time::Duration;

use firebrick_client::{Client, Options, ReadFrom, Table};
use tokio::runtime::Runtime;

use crate::check::{Back, Bytes, Call, Version};
use crate::recorder::Recorder;
use crate::runtime;

/// See the module's text. To be made and used on a thread of the clients' host.
pub struct Hand<'a> {
    recorder: &'a Recorder,
    number: u32,
    runtime: Runtime,
    table: Table,
}

impl<'a> Hand<'a> {
    /// Connects. `number`: its own in the history.
    pub fn new(recorder: &'a Recorder, number: u32, seeds: &str, deadline: Duration) -> Self {
        let runtime = runtime();
        let options = Options { deadline, read_from: ReadFrom::Any, ..Options::default() };
        let table = runtime.block_on(async {
            let client = Client::connect_with(seeds, options).await.expect("a connection");
            client.table("default").await.expect("the table")
        });
        Self { recorder, number, runtime, table }
    }

    /// One call. `None`: its outcome is not known.
    pub fn call(&self, key: &str, call: Call) -> Option<Back> {
        self.runtime.block_on(self.recorder.one(self.number, &self.table, key, call))
    }

    /// Puts; the version, when it was acked.
    pub fn put(&self, key: &str, value: &str) -> Option<Version> {
        match self.call(key, Call::Put { value: Bytes::from(value) }) {
            Some(Back::Done { version }) => version,
            _ => None,
        }
    }

    /// Gets; `Err`: no answer.
    pub fn get(&self, key: &str) -> Result<Option<String>, String> {
        match self.call(key, Call::Get) {
            Some(Back::Value { value, .. }) => {
                Ok(Some(String::from_utf8_lossy(&value.0).into_owned()))
            }
            Some(Back::Absent) => Ok(None),
            other => Err(format!("{other:?}")),
        }
    }

    /// Adds; the sum, when it was acked.
    pub fn increment(&self, key: &str) -> Option<i64> {
        match self.call(key, Call::Increment { by: 1 }) {
            Some(Back::Integer { value, .. }) => Some(value),
            _ => None,
        }
    }
}
