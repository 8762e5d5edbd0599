//! A write load that knows what was acknowledged and how long nothing was, and the check afterwards.
//!
//! Each writer has keys of its own and writes growing numbers to them, one request at a time. So for
//! every key there are at most two numbers that may be found later: the last acknowledged one and the
//! one that was in flight. Every fourth request adds 1 to a sum that all writers share: it must be what
//! was acknowledged, and at most by the requests in doubt more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::error::CliError;
use crate::store::{Store, from_client};
use crate::transfer::{Tally, new_histogram};

const WRITERS: u64 = 64;
const KEYS_EACH: u64 = 64;
const INCREMENT_EVERY: u64 = 4;
/// No path has a zero byte, so no file of the tree has this key.
const SUM_KEY: &[u8] = b"\0demo/sum";
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// Writers at work.
pub struct Writers {
    tasks: JoinSet<Result<Writer, CliError>>,
    signs: Arc<Signs>,
    started: Instant,
}

/// What writers and the demo tell each other while the load goes on.
#[derive(Debug, Default)]
struct Signs {
    stop: AtomicBool,
    /// Requests that failed, for whatever reason.
    failed: AtomicU64,
    /// The longest time from one acknowledged write of a writer to its next.
    gap_ns: AtomicU64,
}

/// What one writer knows.
#[derive(Debug)]
struct Writer {
    id: u64,
    slots: Vec<Slot>,
    sum_acked: u64,
    sum_in_doubt: u64,
    tally: Tally,
}

/// What is known of a key. 0 is "never written".
#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    acked: u64,
    /// A write whose answer never came.
    in_doubt: Option<u64>,
}

impl Slot {
    /// Whether a key may have this number.
    fn allows(self, found: u64) -> bool {
        found == self.acked || self.in_doubt == Some(found)
    }
}

/// What all writers know.
#[derive(Debug)]
pub struct Written {
    writers: Vec<Writer>,
    /// Acknowledged writes.
    pub tally: Tally,
    /// Writes whose answer never came.
    pub in_doubt: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Keys looked at.
    pub keys: u64,
    /// What is not as it was acknowledged.
    pub failures: Vec<String>,
}

impl Writers {
    /// Starts them.
    pub fn start(store: &Store) -> Self {
        let signs = Arc::new(Signs::default());
        let mut tasks = JoinSet::new();
        for id in 0..WRITERS {
            tasks.spawn(Writer::new(id).run(store.clone(), Arc::clone(&signs)));
        }
        Self { tasks, signs, started: Instant::now() }
    }

    /// The longest gap between two acknowledged writes of one writer since this was asked last.
    pub fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.signs.gap_ns.swap(0, Ordering::Relaxed))
    }

    /// Requests that have failed so far.
    pub fn failed(&self) -> u64 {
        self.signs.failed.load(Ordering::Relaxed)
    }

    /// Each ends with the answer to its request in flight; none begins another.
    pub fn stop(&self) {
        self.signs.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the last answers. The rate is that up to `until`.
    pub async fn finish(mut self, until: Instant) -> Result<Written, CliError> {
        let mut written = Written { writers: Vec::new(), tally: Tally::new(), in_doubt: 0 };
        while let Some(ended) = self.tasks.join_next().await {
            let writer = ended.map_err(|e| CliError::Failed(format!("a writer ended: {e}")))??;
            let tally = &mut written.tally;
            tally.items += writer.tally.items;
            tally.bytes += writer.tally.bytes;
            tally.latency += &writer.tally.latency;
            written.in_doubt += writer.sum_in_doubt
                + writer.slots.iter().filter(|s| s.in_doubt.is_some()).count() as u64;
            written.writers.push(writer);
        }
        written.tally.elapsed = until - self.started;
        Ok(written)
    }
}

impl Writer {
    fn new(id: u64) -> Self {
        let slots = vec![Slot::default(); KEYS_EACH as usize];
        Self { id, slots, sum_acked: 0, sum_in_doubt: 0, tally: Tally::new() }
    }

    async fn run(mut self, store: Store, signs: Arc<Signs>) -> Result<Self, CliError> {
        let (mut number, mut acked) = (0, Instant::now());
        while !signs.stop.load(Ordering::Relaxed) {
            number += 1;
            let asked = Instant::now();
            let done = if number % INCREMENT_EVERY == 0 {
                self.increment(&store).await
            } else {
                self.put(&store, number).await
            };
            match done {
                Ok(bytes) => {
                    self.tally.items += 1;
                    self.tally.bytes += bytes;
                    self.tally.latency.saturating_record(asked.elapsed().as_nanos() as u64);
                    let gap = acked.elapsed().as_nanos() as u64;
                    signs.gap_ns.fetch_max(gap, Ordering::Relaxed);
                    acked = Instant::now();
                    continue;
                }
                Err(CliError::Unavailable(_)) => tokio::time::sleep(BETWEEN_TRIES).await,
                Err(CliError::InDoubt(_)) => {}
                Err(other) => return Err(other),
            }
            signs.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self)
    }

    async fn put(&mut self, store: &Store, number: u64) -> Result<u64, CliError> {
        let slot = number % KEYS_EACH;
        let value = value(self.id, slot, number);
        let result = store.put(&key(self.id, slot), &value).await;
        let known = &mut self.slots[slot as usize];
        match &result {
            Ok(_) => *known = Slot { acked: number, in_doubt: None },
            Err(CliError::InDoubt(_)) => known.in_doubt = Some(number),
            // It says that nothing was changed, and is held to it.
            Err(_) => {}
        }
        result.map(|_| value.len() as u64)
    }

    async fn increment(&mut self, store: &Store) -> Result<u64, CliError> {
        match store.table().increment(SUM_KEY, 1).await.map_err(from_client) {
            Ok(_) => {
                self.sum_acked += 1;
                Ok(8)
            }
            Err(error) => {
                if matches!(error, CliError::InDoubt(_)) {
                    self.sum_in_doubt += 1;
                }
                Err(error)
            }
        }
    }
}

fn key(writer: u64, slot: u64) -> Vec<u8> {
    format!("\0demo/writer/{writer}/{slot}").into_bytes()
}

/// Says whose it is, so that a torn or swapped value is seen; of several lengths.
fn value(writer: u64, slot: u64, number: u64) -> Vec<u8> {
    let mut value = format!("{number} ").into_bytes();
    let mark = format!("{writer}/{slot}/{number};").into_bytes();
    while value.len() < 64 + (number % 7) as usize * 100 {
        value.extend_from_slice(&mark);
    }
    value
}

/// The number in a value, when every byte of the value is as it was written.
fn number_of(writer: u64, slot: u64, bytes: &[u8]) -> Option<u64> {
    let digits = bytes.split(|&b| b == b' ').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value(writer, slot, number) == bytes).then_some(number)
}

/// Looks at every key that was written.
pub async fn check(store: &Store, written: &Written) -> Result<Found, CliError> {
    let mut found = Found::default();
    for writer in &written.writers {
        for (slot, known) in writer.slots.iter().enumerate() {
            let slot = slot as u64;
            let stored = store.get(&key(writer.id, slot)).await?.map(|s| s.bytes);
            found.keys += 1;
            found.failures.extend(judge(writer.id, slot, *known, stored.as_deref()));
        }
    }
    let acked: u64 = written.writers.iter().map(|w| w.sum_acked).sum();
    let in_doubt: u64 = written.writers.iter().map(|w| w.sum_in_doubt).sum();
    let stored = store.get(SUM_KEY).await?.map_or(Vec::new(), |s| s.bytes);
    found.keys += 1;
    found.failures.extend(judge_sum(acked, in_doubt, &stored));
    Ok(found)
}

fn judge(writer: u64, slot: u64, known: Slot, stored: Option<&[u8]>) -> Option<String> {
    let number = match stored {
        None => Some(0),
        Some(bytes) => number_of(writer, slot, bytes),
    };
    let name = format!("key {slot} of writer {writer}");
    match number {
        Some(number) if known.allows(number) => None,
        Some(number) => {
            Some(format!("{name} has write {number}, and write {} was acknowledged", known.acked))
        }
        None => Some(format!("{name} has a value that nobody wrote")),
    }
}

fn judge_sum(acked: u64, in_doubt: u64, stored: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stored);
    let found: u64 = if stored.is_empty() { 0 } else { text.parse().unwrap_or(u64::MAX) };
    (found < acked || found > acked + in_doubt).then(|| {
        format!("the sum is `{text}` after {acked} acknowledged increments and {in_doubt} in doubt")
    })
}

/// Gets of the written keys, as many as one client has answered in `time`.
pub async fn read_for(time: Duration, store: &Store) -> Result<Tally, CliError> {
    let started = Instant::now();
    let mut tasks: JoinSet<Result<Tally, CliError>> = JoinSet::new();
    for id in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut tally = Tally::new();
            let mut slot = 0;
            while started.elapsed() < time {
                slot = (slot + 1) % KEYS_EACH;
                let asked = Instant::now();
                let stored = store.get(&key(id, slot)).await?;
                tally.latency.saturating_record(asked.elapsed().as_nanos() as u64);
                tally.items += 1;
                tally.bytes += stored.map_or(0, |s| s.bytes.len() as u64);
            }
            Ok(tally)
        });
    }
    let mut sum = Tally { latency: new_histogram(), ..Tally::new() };
    while let Some(ended) = tasks.join_next().await {
        let tally = ended.map_err(|e| CliError::Failed(format!("a reader ended: {e}")))??;
        sum.items += tally.items;
        sum.bytes += tally.bytes;
        sum.latency += &tally.latency;
    }
    sum.elapsed = started.elapsed();
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_have_the_acked_write_or_the_one_in_flight_and_nothing_else() {
        let known = Slot { acked: 5, in_doubt: Some(69) };
        let look = |known, number| judge(1, 2, known, Some(&value(1, 2, number)));
        assert_eq!(look(known, 5), None);
        assert_eq!(look(known, 69), None);
        let lost = look(known, 4).unwrap();
        assert!(lost.contains("write 4") && lost.contains("write 5 was acknowledged"), "{lost}");
        assert!(look(Slot { in_doubt: None, ..known }, 69).is_some(), "an unasked-for write");
        assert!(judge(1, 2, known, None).is_some(), "an acknowledged write is gone");
        assert_eq!(judge(1, 2, Slot::default(), None), None);
    }

    #[test]
    fn a_torn_or_swapped_value_is_seen() {
        let known = Slot { acked: 70, in_doubt: None };
        let whole = value(1, 2, 70);
        assert_eq!(judge(1, 2, known, Some(&whole)), None);
        let mut torn = whole.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert!(judge(1, 2, known, Some(&torn)).is_some());
        assert!(judge(1, 2, known, Some(&whole[..60])).is_some());
        assert!(judge(1, 3, known, Some(&whole)).is_some());
        assert!(judge(1, 2, known, Some(b"")).is_some());
    }

    #[test]
    fn the_sum_is_exact_but_for_what_is_in_doubt() {
        assert_eq!(judge_sum(100, 0, b"100"), None);
        assert_eq!(judge_sum(100, 2, b"102"), None);
        assert_eq!(judge_sum(0, 0, b""), None);
        for (in_doubt, stored) in [(0, "99"), (0, "101"), (2, "103"), (2, ""), (2, "x")] {
            assert!(judge_sum(100, in_doubt, stored.as_bytes()).is_some(), "{stored}");
        }
    }
}
