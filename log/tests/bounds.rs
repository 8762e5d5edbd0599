//! What is bounded: how late an `async` table's records reach the disk, and how long one step takes.
#![allow(clippy::unwrap_used)]
#![cfg(not(miri))]

mod common;

use common::rig::*;
use common::*;
use firebrick_log::limits::ZERO_SLICE_BYTES;
use firebrick_log::*;

const MS: u64 = 1_000_000;

/// A bound of 100 ms and a disk that takes 80 ms: what was appended just after a write was submitted is
/// 80 ms old when that write lands, and not new.
#[test]
fn a_slow_disk_does_not_make_async_records_look_younger_than_they_are() {
    let mut rig = Rig::quick(config(Durability::Async { ms: 100 }));
    rig.put(1, b"first");
    rig.pump();
    rig.now = 50 * MS;
    rig.hold_writes = true;
    rig.pump();
    assert_eq!(rig.held.len(), 1, "half of the bound is up");
    rig.now = 51 * MS;
    rig.put(2, b"second");
    rig.pump();
    rig.now = 130 * MS;
    assert_eq!(rig.log.votable(rig.now), 0, "the first record is past its bound");
    let first = rig.held.pop_front().unwrap();
    rig.perform(first);
    assert_eq!((rig.log.flushed(), rig.log.votable(rig.now)), (1, 2));

    // At 51 + 50 ms it had to be on its way, so it goes now, and not 50 ms after the landing.
    assert_eq!(rig.log.wake_at(), Some(101 * MS));
    rig.pump();
    assert_eq!(rig.held.len(), 1, "the second record has waited for more than half of the bound");
    rig.now = 150 * MS;
    assert_eq!(rig.log.votable(rig.now), 2);
    rig.put(3, b"third");
    rig.pump();
    rig.now = 152 * MS;
    assert_eq!(rig.log.votable(rig.now), 1, "the second is not on disk after 101 ms");
    rig.release_writes();
    assert_eq!((rig.log.flushed(), rig.log.votable(rig.now)), (2, 3));
    assert_eq!(rig.log.wake_at(), Some(200 * MS), "the third is as old as it is");
}

/// However long a disk hangs and however much is appended: the age of the oldest record is known, and
/// nobody counts them one by one.
#[test]
fn the_age_of_the_oldest_record_outlives_a_long_stall() {
    let mut rig = Rig::quick(LogConfig {
        bytes_max: 64 << 20,
        segment_bytes_max: 4 << 20,
        ..config(Durability::Async { ms: 10 })
    });
    rig.put(0, &[0; 64]);
    rig.pump();
    rig.hold_writes = true;
    rig.now = 5 * MS;
    rig.pump();
    for i in 1..2000 {
        rig.now += MS;
        rig.put(i, &[0; 64]);
        rig.pump();
    }
    let first = rig.held.pop_front().unwrap();
    rig.perform(first);
    // Record 1 was appended at 6 ms, and is late by two seconds.
    assert_eq!(rig.log.wake_at(), Some((6 + 5) * MS));
    assert_eq!(rig.log.votable(rig.now), 1);
    rig.release_writes();
    assert_eq!(rig.log.votable(rig.now), 2000);
    assert_eq!(rig.log.wake_at(), None);
}

fn large(durability: Durability) -> LogConfig {
    LogConfig { bytes_max: 64 << 20, segment_bytes_max: 2 << 20, ..config(durability) }
}

/// Ten committed records, and 3 MiB prepared behind them.
fn prepared(durability: Durability) -> Rig {
    let mut rig = Rig::quick(large(durability));
    for i in 0..10 {
        rig.put(i, &[1; 64]);
    }
    let value = vec![0xEE; 64 << 10];
    for seq in 11..=58 {
        let body = put(b"prepared", &value);
        while rig.log.append(&meta(seq, 10), &body, Room::Write).is_err() {
            rig.pump();
        }
    }
    rig
}

/// Pages of memory with something that was prepared.
fn prepared_pages(rig: &Rig) -> usize {
    let files = rig.files("memory");
    let tails = files.iter().filter(|f| f.starts_with('t'));
    let bytes = tails.map(|f| std::fs::read(rig.dir("memory").join(f)).unwrap());
    bytes.map(|b| b.chunks(4096).filter(|page| page.contains(&0xEE)).count()).sum()
}

/// A truncation of 3 MiB is dropped at once and zeroed a slice a step, from the back. Nothing is
/// appended and nothing written to disk meanwhile.
#[test]
fn a_large_truncation_is_zeroed_in_slices() {
    for durability in [Durability::Memory, Durability::Async { ms: 100 }, Durability::Sync] {
        let mut rig = prepared(durability);
        rig.pump();
        let mut before = prepared_pages(&rig);
        assert!(before > (3 << 20) / 4096 - 10, "{before}");
        rig.log.truncate(10);
        assert_eq!(rig.log.tail().seq, 10);
        let new = Meta { seq: 11, epoch: 2, ..meta(11, 10) };
        let mut steps = 0;
        while prepared_pages(&rig) > 0 {
            let left = prepared_pages(&rig);
            assert!(before - left <= ZERO_SLICE_BYTES / 4096 + 1, "{} in a step", before - left);
            (before, steps) = (left, steps + 1);
            assert!(rig.log.truncating());
            assert_eq!(rig.log.votable(rig.now), 10);
            assert_eq!(rig.log.wake_at(), Some(0), "there is more to do at once");
            let refused = rig.log.append(&new, &put(b"new", b"x"), Room::Write);
            assert_eq!(refused, Err(AppendError::NotYet));
            match rig.log.poll_ask(rig.now) {
                Some(Ask::Write(op)) => {
                    assert_eq!(prepared_pages(&rig), 0, "a write before memory is zero");
                    rig.perform(op);
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        assert!(steps >= 10, "{steps} steps");
        rig.pump();
        assert!(!rig.log.truncating());
        rig.log.append(&new, &put(b"new", b"x"), Room::Write).unwrap();
        rig.kill();
        assert_eq!(rig.log.tail(), Version { epoch: 2, seq: 11 });
    }
}

#[test]
fn a_kill_in_the_middle_of_a_large_truncation_leaves_no_hole() {
    let mut rig = prepared(Durability::Sync);
    rig.pump();
    rig.log.truncate(10);
    for _ in 0..5 {
        assert!(rig.log.poll_ask(rig.now).is_none());
    }
    rig.kill();
    let tail = rig.log.tail().seq;
    assert!((11..58).contains(&tail), "the tail ends at {tail}");
    assert!(rig.report.intact && rig.report.corruptions.is_empty(), "{:?}", rig.report);
}
