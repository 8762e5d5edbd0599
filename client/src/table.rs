//! A table as an asynchronous program uses it.

use std::sync::Arc;
use std::time::Duration;

use firebrick_partition::op::{Answer, Condition, Expiry, Op, Version};

use crate::client::{Client, Pending, Where};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::scan::Scan;
use crate::session::TableId;

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// For [`Table::put_if_version`].
    pub version: Version,
    /// When it expires, Unix milliseconds; `None` is never.
    pub expires_ms: Option<u64>,
}

/// How [`Table::put_with`] stores.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    /// The value expires after this long. Default: never.
    pub ttl: Option<Duration>,
    /// Keep the expiry of the value that is replaced; `ttl` wins.
    pub keep_ttl: bool,
    /// Store only if this holds; otherwise `Exists`, `Absent` or `VersionMismatch`.
    pub condition: Condition,
}

/// A table of the store. Cheap to clone; all clones share the client's connections.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    id: TableId,
    name: Arc<str>,
    deadline: Duration,
}

impl Table {
    pub(crate) fn new(client: Client, id: TableId, name: Arc<str>, deadline: Duration) -> Self {
        Self { client, id, name, deadline }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id, for [`crate::Direct`] and [`crate::Session`].
    pub fn id(&self) -> TableId {
        self.id
    }

    /// The same table with another deadline for requests through this handle.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The value of a key; `None` when it has none.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        self.one(key, Op::Get, Vec::new(), value).await
    }

    /// Whether a key has a value.
    pub async fn exists(&self, key: impl Into<Key>) -> Result<bool> {
        self.one(key, Op::Look, Vec::new(), |answer| match answer {
            Answer::Seen { .. } => Ok(true),
            Answer::Absent => Ok(false),
            _ => Err(unexpected()),
        })
        .await
    }

    /// Stores a value, whatever was there. Answers with its version.
    pub async fn put(&self, key: impl Into<Key>, value: impl Into<Vec<u8>>) -> Result<Version> {
        self.put_with(key, value, PutOptions::default()).await
    }

    /// Stores a value as the options say.
    pub async fn put_with(
        &self,
        key: impl Into<Key>,
        value: impl Into<Vec<u8>>,
        options: PutOptions,
    ) -> Result<Version> {
        let condition = options.condition;
        let map = move |answer: Answer<'_>| stored(answer, condition);
        self.one(key, put(options), value.into(), map).await
    }

    /// Stores a value if the key has none; else `Error::Exists` with the version that is there.
    pub async fn put_if_absent(
        &self,
        key: impl Into<Key>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Version> {
        let options = PutOptions { condition: Condition::Absent, ..PutOptions::default() };
        self.put_with(key, value, options).await
    }

    /// Stores a value if the key is at this version; else `Error::VersionMismatch`.
    pub async fn put_if_version(
        &self,
        key: impl Into<Key>,
        value: impl Into<Vec<u8>>,
        version: Version,
    ) -> Result<Version> {
        let options =
            PutOptions { condition: Condition::Version(version), ..PutOptions::default() };
        self.put_with(key, value, options).await
    }

    /// Takes the value away. `false`: there was none.
    pub async fn remove(&self, key: impl Into<Key>) -> Result<bool> {
        let op = Op::Remove { condition: Condition::Always, want_old: false };
        self.one(key, op, Vec::new(), removed).await
    }

    /// Adds to a decimal integer (an absent key is 0) and answers with the sum.
    pub async fn increment(&self, key: impl Into<Key>, by: i64) -> Result<i64> {
        self.one(key, Op::Increment { by }, Vec::new(), |answer| match answer {
            Answer::Integer { value, .. } => Ok(value),
            _ => Err(unexpected()),
        })
        .await
    }

    /// Adds bytes at the end (an absent key is empty) and answers with the new length.
    pub async fn append(&self, key: impl Into<Key>, bytes: impl Into<Vec<u8>>) -> Result<u64> {
        self.one(key, Op::Append { value: &[] }, bytes.into(), |answer| match answer {
            Answer::Length { len, .. } => Ok(len),
            _ => Err(unexpected()),
        })
        .await
    }

    /// Many gets at once. In the order of the keys; the first error ends it.
    pub async fn get_many<K: Into<Key>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        let mut pending = Vec::new();
        for key in keys {
            pending.push(self.begin(Where::Key(key.into()), Op::Get, Vec::new(), value).await?);
        }
        let mut values = Vec::with_capacity(pending.len());
        for one in pending {
            values.push(one.wait().await?);
        }
        Ok(values)
    }

    /// Many puts at once, each with its own result: they are not one transaction.
    pub async fn put_many<K: Into<Key>, V: Into<Vec<u8>>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<Result<Version>> {
        let mut pending = Vec::new();
        for (key, value) in items {
            let op = put(PutOptions::default());
            let map = |answer: Answer<'_>| stored(answer, Condition::Always);
            pending.push(self.begin(Where::Key(key.into()), op, value.into(), map).await);
        }
        wait_all(pending).await
    }

    /// Many removes at once, each with its own result: they are not one transaction.
    pub async fn remove_many<K: Into<Key>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<bool>> {
        let mut pending = Vec::new();
        for key in keys {
            let op = Op::Remove { condition: Condition::Always, want_old: false };
            pending.push(self.begin(Where::Key(key.into()), op, Vec::new(), removed).await);
        }
        wait_all(pending).await
    }

    /// All keys, page by page. A key that is there the whole time is seen at least once; one that comes
    /// or goes meanwhile may be seen or not.
    pub async fn scan(&self) -> Result<Scan> {
        let partitions = self.client.partitions(self.id, self.deadline).await?;
        Ok(Scan::new(self.clone(), partitions))
    }

    /// How many keys have a value: the sum over the partitions, each at its own moment.
    pub async fn count(&self) -> Result<u64> {
        let counts = self.each_partition(Op::Count, |answer| match answer {
            Answer::Count { count } => Ok(count),
            _ => Err(unexpected()),
        });
        Ok(counts.await?.into_iter().sum())
    }

    /// Removes everything, partition by partition.
    pub async fn clear(&self) -> Result<()> {
        self.each_partition(Op::Clear, |answer| match answer {
            Answer::Done { .. } | Answer::Absent => Ok(()),
            _ => Err(unexpected()),
        })
        .await?;
        Ok(())
    }

    async fn each_partition<T: Send + 'static>(
        &self,
        op: Op<'static>,
        map: fn(Answer<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut pending = Vec::new();
        for partition in self.client.partitions(self.id, self.deadline).await? {
            pending.push(self.begin(Where::Partition(partition), op, Vec::new(), map).await?);
        }
        wait_all(pending.into_iter().map(Ok)).await.into_iter().collect()
    }

    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        at: Where,
        op: Op<'static>,
        value: Vec<u8>,
        map: impl FnOnce(Answer<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>> {
        self.client.begin(self.id, at, op, value, self.deadline, map).await
    }

    async fn one<T: Send + 'static>(
        &self,
        key: impl Into<Key>,
        op: Op<'static>,
        value: Vec<u8>,
        map: impl FnOnce(Answer<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.begin(Where::Key(key.into()), op, value, map).await?.wait().await
    }
}

async fn wait_all<T>(pending: impl IntoIterator<Item = Result<Pending<T>>>) -> Vec<Result<T>> {
    let mut results = Vec::new();
    for one in pending {
        results.push(match one {
            Ok(one) => one.wait().await,
            Err(error) => Err(error),
        });
    }
    results
}

fn put(options: PutOptions) -> Op<'static> {
    let expiry = match options.ttl {
        Some(ttl) => {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            Expiry::At(crate::clock::unix_ms().saturating_add(ttl_ms))
        }
        None if options.keep_ttl => Expiry::Keep,
        None => Expiry::Never,
    };
    Op::Put { value: &[], expiry, condition: options.condition, want_old: false }
}

fn value(answer: Answer<'_>) -> Result<Option<Value>> {
    match answer {
        Answer::Value { value, version, expires_ms } => {
            let expires_ms = (expires_ms != 0).then_some(expires_ms);
            Ok(Some(Value { bytes: value.to_vec(), version, expires_ms }))
        }
        Answer::Absent => Ok(None),
        _ => Err(unexpected()),
    }
}

fn removed(answer: Answer<'_>) -> Result<bool> {
    match answer {
        Answer::Done { .. } => Ok(true),
        Answer::Absent => Ok(false),
        _ => Err(unexpected()),
    }
}

pub(crate) fn stored(answer: Answer<'_>, condition: Condition) -> Result<Version> {
    match answer {
        Answer::Done { version } => Ok(version),
        Answer::Refused { current } => Err(match condition {
            Condition::Absent => Error::Exists { current },
            Condition::Present => Error::Absent,
            Condition::Always | Condition::Version(_) => {
                let current = (current != Version::default()).then_some(current);
                Error::VersionMismatch { current }
            }
        }),
        _ => Err(unexpected()),
    }
}

pub(crate) fn unexpected() -> Error {
    Error::protocol("an answer to another kind of request")
}
