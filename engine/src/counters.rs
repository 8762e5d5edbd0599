//! What a data core counts, and how others read it.
//!
//! A core counts in a plain [`Counts`] of its own and copies it into its [`Published`] about once a
//! turn: relaxed stores to lines that no other core writes. The control thread reads whenever it likes.
//! One row of the table below is everything about a figure: field, kind, metric, label, explanation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use firebrick_partition::keeper::Lack;

/// How a figure behaves, in Prometheus's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Only grows.
    Counter,
    /// Goes both ways.
    Gauge,
}

/// What a figure is called outside.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The field of [`Counts`].
    pub field: &'static str,
    /// Counter or gauge.
    pub sort: Sort,
    /// Prometheus name; rows of one name follow each other and share the explanation of the first.
    pub metric: &'static str,
    /// A label besides `core`, as `key="value"`, or nothing.
    pub label: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! figures {
    ($($field:ident $sort:ident $metric:literal $label:literal $help:literal;)*) => {
        /// The figures of one data core, as the core itself counts them.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $(#[doc = $help] pub $field: u64,)*
        }

        /// Every figure, in the order of [`Counts::values`].
        pub static FIGURES: [Figure; FIGURES_N] = [$(Figure {
            field: stringify!($field),
            sort: Sort::$sort,
            metric: concat!("firebrick_", $metric),
            label: $label,
            help: $help,
        },)*];

        const FIGURES_N: usize = [$(stringify!($field)),*].len();

        impl Counts {
            /// All figures, in the order of [`FIGURES`].
            #[inline]
            pub fn values(&self) -> [u64; FIGURES_N] {
                [$(self.$field,)*]
            }

            fn from_values(values: [u64; FIGURES_N]) -> Self {
                let [$($field,)*] = values;
                Self { $($field,)* }
            }
        }
    };
}

figures! {
    turns Counter "turns_total" "" "Turns of the hot loop.";
    idle_turns Counter "idle_turns_total" "" "Turns that found nothing to do.";
    parks Counter "parks_total" "" "Times the core slept in its ring.";
    gets Counter "ops_total" "kind=\"get\"" "Operations executed, by kind.";
    puts Counter "ops_total" "kind=\"put\"" "Operations executed: puts.";
    removes Counter "ops_total" "kind=\"remove\"" "Operations executed: removes.";
    others Counter "ops_total" "kind=\"other\"" "Operations executed: all others.";
    hits Counter "lookups_total" "result=\"hit\"" "Reads, by whether the key had a value.";
    misses Counter "lookups_total" "result=\"miss\"" "Reads of keys without a value.";
    bytes_in Counter "received_bytes_total" "" "Bytes received from clients.";
    bytes_out Counter "sent_bytes_total" "" "Bytes sent to clients.";
    connections Gauge "connections" "" "Open connections.";
    accepted Counter "connections_accepted_total" "" "Connections accepted.";
    connections_refused Counter "connections_refused_total" "" "Connections closed at once, because the limit was reached.";
    stalled_closed Counter "stalled_closed_total" "" "Redis clients closed because they took no replies while there was no room for more.";
    malformed Counter "connections_malformed_total" "" "Connections closed because of bytes that make no sense.";
    in_flight Gauge "requests_in_flight" "" "Requests taken and not answered yet.";
    writes_held Gauge "writes_held" "" "Writes that wait for a flush or for room.";
    hops_out Counter "mesh_hops_total" "direction=\"out\"" "Requests handed to or taken from another data core.";
    hops_in Counter "mesh_hops_total" "direction=\"in\"" "Requests taken from another data core.";
    stale_routes Counter "refusals_total" "reason=\"stale_route\"" "Requests answered with a refusal, by reason.";
    no_space Counter "refusals_total" "reason=\"no_space\"" "Requests refused for want of memory or disk.";
    too_large Counter "refusals_total" "reason=\"too_large\"" "Requests refused because key or value is too large.";
    unavailable Counter "refusals_total" "reason=\"unavailable\"" "Requests refused without a lease, or while starting or stopping.";
    overloaded Counter "refusals_total" "reason=\"busy\"" "Requests refused because too many were in flight.";
    errors Counter "refusals_total" "reason=\"other\"" "Requests refused for other reasons.";
    leases_lost Counter "leases_lost_total" "" "Times a lease ran out between a read and its answer.";
    items Gauge "items" "" "Keys that have a value.";
    log_capacity_bytes Gauge "log_capacity_bytes" "" "Memory that segments may take.";
    log_used_bytes Gauge "log_used_bytes" "" "Memory that segments take.";
    log_live_bytes Gauge "log_live_bytes" "" "Bytes of records that count.";
    log_dead_bytes Gauge "log_dead_bytes" "" "Bytes of records that were replaced or removed.";
    index_bytes Gauge "index_bytes" "" "Memory of the index.";
    segments Gauge "segments" "" "Segments mapped.";
    spares Gauge "segments_spare" "" "Segments made ahead of use.";
    flush_lag_bytes Gauge "flush_lag_bytes" "" "Bytes in memory that are not on the disk yet.";
    flushes Counter "flushes_total" "" "Disk writes completed.";
    flushed_bytes Counter "flushed_bytes_total" "" "Bytes written to the disk.";
    flush_errors Counter "flush_errors_total" "" "Disk writes that failed.";
    cleaned_bytes Counter "cleaned_bytes_total" "" "Bytes of segments freed by cleaning.";
    copied_bytes Counter "cleaning_copied_bytes_total" "" "Bytes that cleaning copied.";
    copy_bytes Gauge "copy_bytes" "" "Bytes of records that copies from other bricks brought to the replicas that are here.";
    copy_sent_bytes Gauge "copy_sent_bytes" "" "Bytes of records that the replicas that are here sent as sources of copies.";
    copy_pace Gauge "copy_pace_bytes" "" "Bytes a second that copies may move, because foreground requests wait; 0: there is no bound.";
    peer_full Counter "peer_full_total" "" "Messages to other bricks that found no room on their connection; they are sent again.";
    recovered_records Gauge "recovered_records" "" "Records found at the last start.";
    recovered_bytes Gauge "recovered_bytes" "" "Bytes scanned at the last start.";
    recovery_ns Gauge "recovery_nanoseconds" "" "How long the last start's scan took.";
    lost_records Counter "lost_records_total" "" "Records of async tables that were acknowledged and were not found whole on the disk at the start (at least).";
    corrupt_records Counter "corrupt_records_total" "" "Records whose checksum did not match.";
    corrupt_reads Counter "corrupt_reads_total" "" "Reads that met a damaged record and were refused.";
    memory_full Gauge "memory_full" "" "1 while memory_dir has no room for a segment.";
    partitions Gauge "partitions" "" "Partitions that this core serves.";
    partitions_unserved Gauge "partitions_unserved" "" "Partitions that this core should serve and does not, or not as it should.";
    partitions_sick Gauge "partitions_sick" "" "Partitions that take no writes, because their disk failed.";
}

/// What a data core is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CoreState {
    /// Its thread is being made.
    Starting = 0,
    /// It opens its partitions.
    Opening = 1,
    /// It serves all its partitions.
    Serving = 2,
    /// It answers what is in flight and flushes.
    Stopping = 3,
    /// It has ended as asked.
    Stopped = 4,
    /// It has ended by itself.
    Failed = 5,
}

impl CoreState {
    const ALL: [Self; 6] =
        [Self::Starting, Self::Opening, Self::Serving, Self::Stopping, Self::Stopped, Self::Failed];

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Opening => "opening its partitions",
            Self::Serving => "serving",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// One data core's figures, for others to read. Written by that core alone.
#[repr(align(64))]
pub struct Published {
    values: [AtomicU64; FIGURES_N],
    longest_turn_ns: AtomicU64,
    state: AtomicU8,
    settled: AtomicBool,
    flushed: AtomicBool,
    lease_end_ns: AtomicU64,
    maps_version: AtomicU64,
}

/// What a core has taken of the control thread: it has turned its loop since that was pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Version of the maps that it serves by.
    pub version: u64,
    /// End of its lease, `CLOCK_BOOTTIME`; `u64::MAX`: none.
    pub end_ns: u64,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            values: std::array::from_fn(|_| AtomicU64::new(0)),
            longest_turn_ns: AtomicU64::new(0),
            state: AtomicU8::new(CoreState::Starting as u8),
            settled: AtomicBool::new(false),
            flushed: AtomicBool::new(false),
            lease_end_ns: AtomicU64::new(0),
            maps_version: AtomicU64::new(0),
        }
    }
}

impl Published {
    /// Says which lease the core has taken, and by which maps it serves.
    pub fn took(&self, taken: Taken) {
        self.maps_version.store(taken.version, Ordering::Relaxed);
        self.lease_end_ns.store(taken.end_ns, Ordering::Release);
    }

    /// What the core has taken last.
    pub fn taken(&self) -> Taken {
        let end_ns = self.lease_end_ns.load(Ordering::Acquire);
        Taken { version: self.maps_version.load(Ordering::Relaxed), end_ns }
    }

    /// Copies the core's figures out.
    #[inline]
    pub fn publish(&self, counts: &Counts) {
        for (slot, value) in self.values.iter().zip(counts.values()) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    /// Notes how long a turn took. A note that races with a scrape may fall into either interval.
    #[inline]
    pub fn note_turn(&self, ns: u64) {
        if ns > self.longest_turn_ns.load(Ordering::Relaxed) {
            self.longest_turn_ns.store(ns, Ordering::Relaxed);
        }
    }

    /// Says what the core is doing.
    pub fn set_state(&self, state: CoreState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Says that this core relays nothing to others any more and has all their answers.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// No request of this core is, or will be, on its way to another.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Says that the core has ended, and that the disk has all that its replicas of tables with one have.
    pub fn set_flushed(&self) {
        self.flushed.store(true, Ordering::Release);
    }

    /// It has said so.
    pub fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Acquire)
    }

    /// What the core is doing.
    pub fn state(&self) -> CoreState {
        let byte = self.state.load(Ordering::Acquire);
        CoreState::ALL[usize::from(byte)]
    }

    /// The figures as last published.
    pub fn read(&self) -> Counts {
        Counts::from_values(std::array::from_fn(|at| self.values[at].load(Ordering::Relaxed)))
    }

    /// The longest turn so far of this interval, nanoseconds.
    pub fn longest_turn_ns(&self) -> u64 {
        self.longest_turn_ns.load(Ordering::Relaxed)
    }

    /// The longest turn since the last call, nanoseconds.
    pub fn take_longest_turn_ns(&self) -> u64 {
        self.longest_turn_ns.swap(0, Ordering::Relaxed)
    }
}

/// The figures of all data cores, and the state of the brick.
pub struct Board {
    cores: Vec<Published>,
    stopping: AtomicBool,
    failure: OnceLock<String>,
    /// What cores have no room for, as they told the control thread. No data core looks at it.
    lacks: Mutex<BTreeMap<u16, Lack>>,
    started_unix_ms: u64,
}

impl Board {
    /// A board for that many data cores.
    pub fn new(cores: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            cores: (0..cores).map(|_| Published::default()).collect(),
            stopping: AtomicBool::new(false),
            failure: OnceLock::new(),
            lacks: Mutex::default(),
            started_unix_ms: now.map_or(0, |since| since.as_millis() as u64),
        }
    }

    /// One data core's figures.
    pub fn core(&self, core: usize) -> &Published {
        &self.cores[core]
    }

    /// All of them.
    pub fn cores(&self) -> &[Published] {
        &self.cores
    }

    /// When the brick was started, Unix milliseconds.
    pub fn started_unix_ms(&self) -> u64 {
        self.started_unix_ms
    }

    /// From now on the brick is not ready. Answers whether this call began it.
    pub fn begin_stop(&self) -> bool {
        !self.stopping.swap(true, Ordering::AcqRel)
    }

    /// The brick is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The brick cannot serve, and why. The first reason is kept.
    pub fn fail(&self, why: String) {
        let _ = self.failure.set(why);
    }

    /// Why the brick cannot serve.
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// A core has no room for this, or has room again.
    pub fn set_lack(&self, core: u16, lack: Option<Lack>) {
        let mut lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        lacks.remove(&core);
        lacks.extend(lack.map(|lack| (core, lack)));
    }

    /// What the brick has no room for.
    pub fn lack(&self) -> Option<Lack> {
        let lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        // One that partitions wait for says more.
        let why = lacks.values().max_by_key(|lack| lack.partitions.len())?.why.clone();
        let all = lacks.values().flat_map(|lack| lack.partitions.iter().copied());
        let mut partitions: Vec<u32> = all.collect();
        partitions.sort_unstable();
        let full = lacks.values().any(|lack| lack.full);
        Some(Lack { why, full, partitions })
    }

    /// The same, if partitions wait for it.
    fn lack_of_partitions(&self) -> Option<Lack> {
        self.lack().filter(|lack| !lack.partitions.is_empty())
    }

    /// Whether the brick serves everything that it has; else why not.
    pub fn serves_all(&self) -> Result<(), String> {
        self.serving()?;
        let unserved: u64 = self.cores.iter().map(|core| core.read().partitions_unserved).sum();
        if unserved == 0 {
            return Ok(());
        }
        // (Why comes a moment later.)
        let lack = self.lack_of_partitions();
        let some = || format!("{unserved} partitions are not served as they should be");
        Err(lack.map_or_else(some, |lack| lack.to_string()))
    }

    /// Whether every data core serves what it can; else why not.
    pub fn serving(&self) -> Result<(), String> {
        if self.is_stopping() {
            return Err("the brick is stopping".into());
        }
        for (core, published) in self.cores.iter().enumerate() {
            let state = published.state();
            if state != CoreState::Serving {
                let lack = self.lack_of_partitions();
                let why = lack.map_or_else(String::new, |lack| format!(": {lack}"));
                return Err(format!("data core {core} is {}{why}", state.word()));
            }
        }
        Ok(())
    }

    /// As [`Board::serves_all`], and every core has a lease: without one it answers nothing.
    pub fn ready(&self, now_ns: u64) -> Result<(), String> {
        self.serves_all()?;
        match self.cores.iter().position(|core| core.taken().end_ns <= now_ns) {
            None => Ok(()),
            Some(core) => Err(format!(
                "data core {core} has no lease, so it answers nothing: the keepers, or most of them, do not \
                 answer this brick"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_core_publishes_is_what_others_read() {
        let board = Board::new(2);
        let counts = Counts { gets: 7, partitions_sick: 3, turns: u64::MAX, ..Counts::default() };
        board.core(1).publish(&counts);
        assert_eq!(board.core(1).read(), counts);
        assert_eq!(board.core(0).read(), Counts::default());
        let at = FIGURES.iter().position(|figure| figure.field == "gets").unwrap();
        assert_eq!(counts.values()[at], 7, "rows and values have one order");
    }

    #[test]
    fn the_longest_turn_is_of_one_interval() {
        let core = Published::default();
        for ns in [5, 900, 7] {
            core.note_turn(ns);
        }
        assert_eq!(core.longest_turn_ns(), 900);
        assert_eq!(core.take_longest_turn_ns(), 900);
        core.note_turn(6);
        assert_eq!(core.take_longest_turn_ns(), 6);
    }

    #[test]
    fn a_brick_is_ready_when_every_core_serves_and_until_it_stops() {
        let board = Board::new(2);
        board.core(0).set_state(CoreState::Serving);
        assert_eq!(board.serves_all(), Err("data core 1 is starting".into()));
        board.core(1).set_state(CoreState::Opening);
        assert_eq!(board.serves_all(), Err("data core 1 is opening its partitions".into()));
        board.core(1).set_state(CoreState::Serving);
        assert_eq!(board.serves_all(), Ok(()));
        board.core(1).set_state(CoreState::Opening);
        let why = "data_dir has no room";
        let lack = |partitions| Some(Lack { why: why.into(), full: true, partitions });
        board.set_lack(0, lack(vec![]));
        assert_eq!(board.serves_all(), Err("data core 1 is opening its partitions".into()));
        board.set_lack(1, lack(vec![7, 9]));
        let waits = "2 partitions (7, 9) are not served as they should be: data_dir has no room";
        let why = format!("data core 1 is opening its partitions: {waits}");
        assert_eq!(board.serves_all(), Err(why));
        board.core(1).set_state(CoreState::Serving);
        assert_eq!(board.serves_all(), Ok(()), "they went elsewhere");
        board.core(1).publish(&Counts { partitions_unserved: 2, ..Counts::default() });
        assert_eq!((board.serves_all(), board.serving()), (Err(waits.into()), Ok(())));
        board.set_lack(1, None);
        assert_eq!(board.serves_all(), Err("2 partitions are not served as they should be".into()));
        board.core(1).publish(&Counts::default());
        assert_eq!(board.serves_all(), Ok(()));
        board.core(0).took(Taken { version: 1, end_ns: u64::MAX });
        board.core(1).took(Taken { version: 1, end_ns: 50 });
        assert_eq!(board.ready(49), Ok(()));
        let told = board.ready(50).unwrap_err();
        assert!(told.starts_with("data core 1 has no lease"), "{told}");
        assert!(board.begin_stop() && !board.begin_stop());
        assert_eq!(board.serves_all(), Err("the brick is stopping".into()));
    }

    #[test]
    fn metrics_of_one_name_follow_each_other_and_keep_to_the_naming_rules() {
        let mut seen: Vec<&str> = Vec::new();
        for figure in &FIGURES {
            if seen.last() != Some(&figure.metric) {
                assert!(!seen.contains(&figure.metric), "{} is scattered", figure.metric);
                seen.push(figure.metric);
            }
            assert_eq!(figure.sort == Sort::Counter, figure.metric.ends_with("_total"));
        }
    }
}
