//! What the log costs: append, read, scan and clean, one core, heap memory.
//!
//! `cargo run --release -p firebrick-log --example log_speed [MILLION_RECORDS]`

use std::hint::black_box;
use std::time::Instant;

use firebrick_log::record::Answered;
use firebrick_log::{
    AppendError, Body, CleanProgress, Cleaner, Durability, Found, Loc, Log, LogConfig, Meta,
    Record, Room, ScanProgress, Verdict,
};

/// Records by key number: an index that costs nothing.
struct Flat(Vec<Loc>);

fn number(record: &Record<'_>) -> usize {
    let key = record.fields().key.first_chunk::<8>();
    key.map_or(0, |k| u64::from_le_bytes(*k) as usize)
}

impl Cleaner for Flat {
    fn judge(&mut self, _: &Log, loc: Loc, record: &Record<'_>, _: u64) -> Verdict {
        if self.0[number(record)] == loc { Verdict::Live } else { Verdict::Dead }
    }

    fn moved(&mut self, record: &Record<'_>, _: Loc, to: Loc) {
        self.0[number(record)] = to;
    }

    fn live_puts(&self) -> u64 {
        self.0.len() as u64
    }
}

fn put(log: &mut Log, n: u64, value: &[u8]) -> Loc {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&n.to_le_bytes());
    let seq = log.tail().seq + 1;
    let meta = Meta { seq, epoch: 1, commit: log.commit(), answered: Answered::Version };
    let body = Body::Put { key: &key, value, expires_ms: 0, id: None };
    let loc = match log.append(&meta, &body, Room::Write) {
        Ok(loc) => loc,
        Err(AppendError::NotYet | AppendError::NoSpace) => panic!("out of room: {:?}", log.stats()),
    };
    log.set_commit(seq);
    loc
}

fn ns(start: Instant, n: u64) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / n as f64
}

fn main() {
    let million = std::env::args().nth(1).and_then(|a| a.parse::<f64>().ok()).unwrap_or(1.0);
    for value_bytes in [64, 1024] {
        let n = (million * 1e6 * if value_bytes == 64 { 1.0 } else { 0.25 }) as u64;
        measure(n, value_bytes);
    }
}

fn measure(n: u64, value_bytes: usize) {
    let cfg = LogConfig {
        table: 1,
        partition: 1,
        durability: Durability::Memory,
        bytes_max: 4 << 30,
        segment_bytes_max: 64 << 20,
    };
    let value = vec![5; value_bytes];
    println!("{n} records, 16-byte keys, {value_bytes}-byte values");

    let mut log = Log::in_heap(cfg);
    let mut index = Flat((0..n).map(|i| put(&mut log, i, &value)).collect());
    let start = Instant::now();
    for i in 0..n {
        let old = std::mem::replace(&mut index.0[i as usize], put(&mut log, i, &value));
        log.mark_dead(old);
        if i % 64 == 0 {
            black_box(log.clean(0, false, &mut index));
        }
    }
    println!("  append with mark_dead (fresh memory)  {:8.1} ns", ns(start, n));
    while log.clean(1 << 20, false, &mut index) == CleanProgress::More {}
    println!("  appends into touched memory           {:8.1} ns", append_warm(cfg, &value));

    let start = Instant::now();
    let mut sum = 0;
    for i in 0..n {
        let at = i.wrapping_mul(7919) % n;
        log.prefetch(index.0[(at + 7919 * 8) as usize % n as usize]);
        if let Ok(record) = log.record(index.0[at as usize]) {
            sum += record.fields().value.len();
        }
    }
    println!("  record() with CRC, prefetched         {:8.1} ns", ns(start, n));
    black_box(sum);

    let mut log = scan_after_crash(cfg, log, &mut index);
    churn(&mut log, &mut index, n, &value);
}

fn scan_after_crash(cfg: LogConfig, log: Log, index: &mut Flat) -> Log {
    let (mut log, mut scan) = Log::open_in_heap(cfg, log.crash());
    index.0.fill(Loc::from_bits(u64::MAX));
    let start = Instant::now();
    let mut seen = 0;
    while scan.step(&mut log, 4096, &mut |log: &Log, batch: &[Found<'_>]| {
        for found in batch {
            let entry = &mut index.0[number(&found.record)];
            if *entry == Loc::from_bits(u64::MAX) {
                *entry = found.loc;
            } else {
                log.mark_dead(std::mem::replace(entry, found.loc));
            }
            seen += 1;
        }
    }) == ScanProgress::More
    {}
    let seconds = start.elapsed().as_secs_f64();
    for &loc in &scan.report().in_doubt {
        if let Ok(record) = log.record(loc) {
            log.mark_dead(std::mem::replace(&mut index.0[number(&record)], loc));
        }
    }
    log.set_commit(log.tail().seq);
    let report = scan.report();
    println!(
        "  scan {:9} records                 {:8.1} M/s {:6.2} GB/s",
        seen,
        report.records as f64 / seconds / 1e6,
        report.bytes as f64 / seconds / 1e9
    );
    log
}

/// Ten overwrites a key, in random order, with cleaning under load and then idle.
fn churn(log: &mut Log, index: &mut Flat, n: u64, value: &[u8]) {
    let (before, start) = (log.stats(), Instant::now());
    let (mut state, mut cleaning) = (1u64, 0.0);
    for i in 0..10 * n {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (state >> 33) % n;
        let new = put(log, at, value);
        let old = std::mem::replace(&mut index.0[at as usize], new);
        log.mark_dead(old);
        if i % 1024 == 0 {
            let t = Instant::now();
            while log.clean(256 << 10, false, index) == CleanProgress::More {}
            cleaning += t.elapsed().as_secs_f64();
        }
    }
    let stats = log.stats();
    let moved = stats.moved_records - before.moved_records;
    println!("  overwrite, 10 a key, with cleaning    {:8.1} ns", ns(start, 10 * n));
    println!(
        "  clean                                 {:8.1} ns a moved record, {:.2} moved a write, used {:.2} x live",
        cleaning * 1e9 / moved.max(1) as f64,
        moved as f64 / (10 * n) as f64,
        stats.used_bytes as f64 / stats.live_bytes as f64
    );
    let start = Instant::now();
    while log.clean(1 << 20, true, index) == CleanProgress::More {}
    let stats = log.stats();
    println!(
        "  idle cleaning took {:.3} s, used {:.3} x live ({:.1} MB)",
        start.elapsed().as_secs_f64(),
        stats.used_bytes as f64 / stats.live_bytes as f64,
        stats.used_bytes as f64 / 1e6
    );
}

/// One segment, filled, truncated and filled again: no page faults.
fn append_warm(cfg: LogConfig, value: &[u8]) -> f64 {
    let mut log = Log::in_heap(LogConfig { segment_bytes_max: 1 << 20, ..cfg });
    let mut best = f64::MAX;
    let body = Body::Put { key: &[1; 16], value, expires_ms: 0, id: None };
    let records = (900 << 10) / (value.len() as u64 + 64);
    for round in 0..50 {
        let start = Instant::now();
        for seq in 1..=records {
            let meta = Meta { seq, epoch: 1, commit: 0, answered: Answered::Version };
            black_box(log.append(&meta, &body, Room::Write)).ok();
        }
        if round > 0 {
            best = best.min(ns(start, records));
        }
        log.truncate(0);
    }
    best
}
