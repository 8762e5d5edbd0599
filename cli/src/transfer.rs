//! Files to a brick and back: what `load`, `verify` and `demo` do.
//!
//! One thread walks and reads, so that a slow disk does not hold up the connection; the event loop
//! keeps a fixed number of requests in flight. What was read and is not done yet is bounded in bytes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::error::CliError;
use crate::output::show_key;
use crate::resp::Resp;
use crate::store::Store;
use crate::tree::{Skipped, Walk};

/// Bytes of files that were read and are not done yet, in KiB.
const BUFFER_KIB: u32 = 32 << 10;
/// Through RESP: requests and bytes of one batch.
const BATCH_ITEMS: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
/// Differences that are named; the rest is counted.
const EXAMPLES_MAX: usize = 10;

/// A file that was read.
pub struct Item {
    key: Vec<u8>,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Its share of the buffer.
    _permit: OwnedSemaphorePermit,
}

/// What was done.
#[derive(Debug)]
pub struct Tally {
    /// Files.
    pub items: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// From asking to the answer, in nanoseconds. Empty where only batches were timed.
    pub latency: Histogram<u64>,
    /// Files passed over.
    pub skipped: Skipped,
    /// Stored values that are not what the files say.
    pub differences: Differences,
}

/// What `verify` found.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct Differences {
    /// Files whose key has no value.
    pub missing: u64,
    /// Files whose value has other bytes.
    pub different: u64,
    /// The first few, by name.
    pub examples: Vec<String>,
}

impl Differences {
    /// How many.
    pub fn total(&self) -> u64 {
        self.missing + self.different
    }

    /// Compares a file with what is stored. A file that was written to after `began` cannot be
    /// compared, when that is asked for.
    fn compare(&mut self, item: &Item, stored: Option<&[u8]>, began: Option<SystemTime>) {
        if stored == Some(&item.bytes) {
            return;
        }
        let modified = std::fs::metadata(&item.path).and_then(|m| m.modified());
        if began.is_some_and(|began| modified.map_or(true, |m| m >= began)) {
            return;
        }
        let key = show_key(&item.key);
        let what = match stored {
            None => {
                self.missing += 1;
                format!("{key} is missing")
            }
            Some(stored) => {
                self.different += 1;
                format!("{key} differs ({})", first_difference(&item.bytes, stored))
            }
        };
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

/// Where two byte strings part.
fn first_difference(file: &[u8], stored: &[u8]) -> String {
    let at = file.iter().zip(stored).position(|(a, b)| a != b);
    match at {
        Some(at) => format!("from byte {at} on"),
        None => format!("{} bytes stored, {} in the file", stored.len(), file.len()),
    }
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            items: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            latency: new_histogram(),
            skipped: Skipped::default(),
            differences: Differences::default(),
        }
    }

    /// Items a second.
    pub fn rate(&self) -> f64 {
        self.items as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Bytes a second.
    pub fn bytes_rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn add(&mut self, item: &Item) {
        self.items += 1;
        self.bytes += item.bytes.len() as u64;
    }
}

/// Two digits, to a minute, in nanoseconds.
pub fn new_histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 2);
    histogram.unwrap_or_else(|e| unreachable!("constant bounds are in order: {e}"))
}

/// Reads the walk's files on a thread of their own.
fn feed(mut walk: Walk) -> (mpsc::Receiver<Item>, std::thread::JoinHandle<Skipped>) {
    let (sender, receiver) = mpsc::channel(BATCH_ITEMS);
    let budget = Arc::new(Semaphore::new(BUFFER_KIB as usize));
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::spawn(move || {
        while let Some(found) = walk.next() {
            let kib = u32::try_from(found.size / 1024 + 1).unwrap_or(u32::MAX).min(BUFFER_KIB);
            let permit = runtime.block_on(Arc::clone(&budget).acquire_many_owned(kib));
            let (Ok(permit), Some(bytes)) = (permit, walk.read(&found)) else { continue };
            let item = Item { key: found.key, path: found.path, bytes, _permit: permit };
            // The other side went away: it has its error already.
            if sender.blocking_send(item).is_err() {
                break;
            }
        }
        walk.skipped()
    });
    (receiver, thread)
}

/// What to do with each file.
#[derive(Clone, Copy)]
enum Work {
    Put,
    Compare { began: Option<SystemTime> },
}

/// Stores every file.
pub async fn load(
    walk: Walk,
    store: &Store,
    in_flight: u32,
    bar: &ProgressBar,
) -> Result<Tally, CliError> {
    through_client(walk, store, in_flight, bar, Work::Put).await
}

/// Compares every file. With `began`, a file that changed since then is not held against the brick.
pub async fn verify(
    walk: Walk,
    store: &Store,
    in_flight: u32,
    bar: &ProgressBar,
    began: Option<SystemTime>,
) -> Result<Tally, CliError> {
    through_client(walk, store, in_flight, bar, Work::Compare { began }).await
}

async fn through_client(
    walk: Walk,
    store: &Store,
    in_flight: u32,
    bar: &ProgressBar,
    work: Work,
) -> Result<Tally, CliError> {
    let start = Instant::now();
    let (items, reader) = feed(walk);
    let items = Arc::new(tokio::sync::Mutex::new(items));
    let tally = Arc::new(Mutex::new(Tally::new()));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (items, store) = (Arc::clone(&items), store.clone());
        let (tally, bar) = (Arc::clone(&tally), bar.clone());
        workers.spawn(async move {
            loop {
                let next = items.lock().await.recv().await;
                let Some(item) = next else { return Ok(()) };
                let asked = Instant::now();
                let stored = match work {
                    Work::Put => store.put(&item.key, &item.bytes).await.map(|_| None),
                    Work::Compare { .. } => store.get(&item.key).await,
                };
                let stored = stored.map_err(|error| error.about(&show_key(&item.key)))?;
                let waited = asked.elapsed().as_nanos() as u64;
                bar.inc(item.bytes.len() as u64);
                let mut tally = tally.lock().unwrap_or_else(|e| unreachable!("poisoned: {e}"));
                tally.add(&item);
                tally.latency.saturating_record(waited);
                if let Work::Compare { began } = work {
                    let stored = stored.as_ref().map(|s| s.bytes.as_slice());
                    tally.differences.compare(&item, stored, began);
                }
            }
        });
    }
    // One failure ends all: dropping the set stops the others, and the reader with them.
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|e| CliError::Failed(format!("a worker ended: {e}")))??;
    }
    drop(items);
    let tally = std::mem::replace(
        &mut *tally.lock().unwrap_or_else(|e| unreachable!("poisoned: {e}")),
        Tally::new(),
    );
    finish(tally, start, reader).await
}

/// Compares every file through the Redis protocol, in pipelined batches.
pub async fn verify_resp(
    walk: Walk,
    resp: &mut Resp,
    bar: &ProgressBar,
    began: Option<SystemTime>,
) -> Result<Tally, CliError> {
    let start = Instant::now();
    let (mut items, reader) = feed(walk);
    let mut tally = Tally::new();
    let mut batch: Vec<Item> = Vec::with_capacity(BATCH_ITEMS);
    loop {
        batch.clear();
        let mut bytes = 0;
        while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            // Waits for the first only: a batch goes when there is nothing more to add.
            let item = if batch.is_empty() { items.recv().await } else { items.try_recv().ok() };
            let Some(item) = item else { break };
            bytes += item.bytes.len();
            batch.push(item);
        }
        if batch.is_empty() {
            break;
        }
        let keys: Vec<&[u8]> = batch.iter().map(|item| item.key.as_slice()).collect();
        let values = resp.get_many_patiently(&keys).await;
        let values = values.map_err(|e| CliError::io("the RESP connection failed", &e))?;
        for (item, value) in batch.iter().zip(values) {
            tally.add(item);
            bar.inc(item.bytes.len() as u64);
            tally.differences.compare(item, value.as_deref(), began);
        }
    }
    finish(tally, start, reader).await
}

async fn finish(
    mut tally: Tally,
    start: Instant,
    reader: std::thread::JoinHandle<Skipped>,
) -> Result<Tally, CliError> {
    tally.elapsed = start.elapsed();
    let skipped = tokio::task::spawn_blocking(move || reader.join()).await;
    tally.skipped = match skipped {
        Ok(Ok(skipped)) => skipped,
        _ => return Err(CliError::Failed("the thread that reads the files ended early".into())),
    };
    Ok(tally)
}
