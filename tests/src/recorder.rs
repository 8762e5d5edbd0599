//! Clients that write down what they call and what they are answered, for [`crate::check`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use firebrick_client::{Client, Error, Options, Table};
use firebrick_net::boot_ns;

use crate::check::{Back, Bytes, Call, History, Line, Version, check};
use crate::random::Random;
use crate::runtime;

/// What all recording clients share.
#[derive(Debug, Default)]
pub struct Recorder {
    lines: Mutex<Vec<Line>>,
    next: AtomicU64,
    /// Set to end the clients.
    pub stop: AtomicBool,
    /// Calls that were answered, other than with a failure.
    pub answered: AtomicU64,
    /// Calls that failed although nothing may have been applied.
    pub failed: AtomicU64,
    /// Calls whose outcome is not known.
    pub unknown: AtomicU64,
}

impl Recorder {
    fn write(&self, line: Line) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// All that was recorded.
    pub fn history(&self) -> History {
        let mut history = History::default();
        for line in self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            history.push(line.clone()).expect("a history of its own making");
        }
        history
    }

    /// All that was recorded fits one order; else it says what does not.
    pub fn judge(&self) {
        if let Err(violation) = check(&self.history()) {
            panic!("{violation}");
        }
    }

    /// One client until `stop`: random calls on a few keys. To be run on the clients' host.
    pub fn client(&self, number: u32, seeds: &str, keys: u64, deadline: Duration, seed: u64) {
        runtime().block_on(async {
            let options = Options { deadline, ..Options::default() };
            let client = loop {
                match Client::connect_with(seeds, options.clone()).await {
                    Ok(client) => break client,
                    Err(_) if self.stop.load(Ordering::Relaxed) => return,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            let Ok(table) = client.table("default").await else { return };
            let mut random = Random::new(seed ^ u64::from(number) << 32);
            let mut seen = Version::NONE;
            while !self.stop.load(Ordering::Relaxed) {
                let key = format!("key-{}", random.below(keys));
                let call = self.choose(number, &mut random, &key, seen);
                let back = self.one(number, &table, &key, call).await;
                if let Some(Back::Value { version: Some(version), .. }) = back {
                    seen = version;
                }
            }
        });
    }

    /// Integers and texts live on keys of their own, so that every call can succeed.
    fn choose(&self, number: u32, random: &mut Random, key: &str, seen: Version) -> Call {
        let unique = self.next.load(Ordering::Relaxed);
        let value = Bytes::from(format!("{number}.{unique}").as_str());
        let counts = key.ends_with(['0', '5']);
        match random.below(10) {
            0..=4 => Call::Get,
            5 if counts => Call::Remove,
            _ if counts => Call::Increment { by: 1 },
            5 => Call::Remove,
            6 => Call::PutIfAbsent { value },
            7 => Call::PutIfVersion { value, version: seen },
            8 => Call::Append { value },
            _ => Call::Put { value },
        }
    }

    /// One call, written down. `None`: its outcome is not known.
    pub(crate) async fn one(
        &self,
        client: u32,
        table: &Table,
        key: &str,
        call: Call,
    ) -> Option<Back> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = Line::Call { id, client, at_ns: boot_ns(), key: key.into(), call: call.clone() };
        self.write(line);
        let back = perform(table, key, call).await;
        match &back {
            Some(Back::Failed) => self.failed.fetch_add(1, Ordering::Relaxed),
            Some(_) => self.answered.fetch_add(1, Ordering::Relaxed),
            None => self.unknown.fetch_add(1, Ordering::Relaxed),
        };
        if let Some(back) = back.clone() {
            self.write(Line::Back { id, at_ns: boot_ns(), back });
        }
        back
    }
}

fn version(version: firebrick_client::Version) -> Version {
    Version { epoch: version.epoch, seq: version.seq }
}

async fn perform(table: &Table, key: &str, call: Call) -> Option<Back> {
    let done = |v| Back::Done { version: Some(version(v)) };
    let result = match call {
        Call::Get => table.get(key).await.map(|value| match value {
            Some(value) => {
                Back::Value { value: Bytes(value.bytes), version: Some(version(value.version)) }
            }
            None => Back::Absent,
        }),
        Call::Put { value } => table.put(key, value.0).await.map(done),
        Call::Remove => table
            .remove(key)
            .await
            .map(|existed| if existed { Back::Done { version: None } } else { Back::Absent }),
        Call::Take | Call::Swap { .. } => unreachable!("the library has none"),
        Call::PutFor { .. } | Call::Expire { .. } | Call::Persist | Call::Left => {
            unreachable!("nothing expires here")
        }
        Call::PutIfAbsent { value } => table.put_if_absent(key, value.0).await.map(done),
        Call::PutIfVersion { value, version } => {
            let wanted = firebrick_client::Version { epoch: version.epoch, seq: version.seq };
            table.put_if_version(key, value.0, wanted).await.map(done)
        }
        Call::Increment { by } => {
            let sum = table.increment(key, by).await;
            sum.map(|value| Back::Integer { value, version: None })
        }
        Call::Append { value } => {
            let len = table.append(key, value.0).await;
            len.map(|len| Back::Length { len, version: None })
        }
    };
    match result {
        Ok(back) => Some(back),
        Err(Error::Exists { current }) => Some(Back::Refused { current: Some(version(current)) }),
        Err(Error::VersionMismatch { current }) => {
            Some(Back::Refused { current: current.map(version).or(Some(Version::NONE)) })
        }
        Err(Error::InDoubt | Error::Closed) => None,
        Err(_) => Some(Back::Failed),
    }
}
