//! ENGINE.md's fifteen points on segments and write-behind, each on real files.
#![allow(clippy::unwrap_used)]
#![cfg(not(miri))]

mod common;

use common::rig::*;
use common::*;
use firebrick_log::segment::{SegmentHead, SegmentKind, SegmentName};
use firebrick_log::storage::{Job, StorageError};
use firebrick_log::*;

const ASYNC: Durability = Durability::Async { ms: 100 };

fn rig(durability: Durability) -> Rig {
    Rig::new(config(durability))
}

#[test]
fn point_01_two_directories_mirror_each_other_and_numbers_are_never_used_again() {
    let mut rig = rig(Durability::Sync);
    for i in 0..400 {
        rig.put(i % 10, &[1; 64]);
    }
    rig.pump();
    let (memory, disk) = (rig.files("memory"), rig.files("data"));
    assert_eq!(memory, disk);
    assert!(memory.contains(&"t1.seg".to_owned()));
    for file in memory.iter().filter(|f| f.contains(".seg")) {
        let side = |s| std::fs::read(rig.dir(s).join(file)).unwrap();
        assert!(side("memory") == side("data"), "{file} differs");
    }
    rig.clean(true);
    let after = rig.files("memory");
    assert!(!after.contains(&"t1.seg".to_owned()), "{after:?}");
    assert_eq!(after, rig.files("data"));
    rig.kill();
    for i in 0..400 {
        rig.put(i % 10, &[2; 64]);
    }
    assert!(!rig.files("memory").contains(&"t1.seg".to_owned()));
    assert_eq!(rig.index.values(&rig.log).len(), 10);
}

#[test]
fn point_02_the_first_page_names_the_segment_and_checks_itself() {
    let mut rig = rig(Durability::Sync);
    rig.put(1, b"x");
    let page = std::fs::read(rig.dir("data").join("t1.seg")).unwrap();
    let head = SegmentHead::decode(&page).unwrap();
    assert_eq!(head.partition, PARTITION);
    assert_eq!(head.name, SegmentName { kind: SegmentKind::Tail, n: 1 });
    assert_eq!(head.bytes, page.len() as u64);
    for bit in 0..48 * 8 {
        let mut damaged = page.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(SegmentHead::decode(&damaged), Ok(head), "bit {bit}");
    }
}

#[test]
fn point_03_segments_are_a_sixteenth_and_a_bigger_record_forces_a_fitting_one() {
    let cfg = LogConfig { bytes_max: 128 << 20, segment_bytes_max: 8 << 20, ..config(ASYNC) };
    let mut log = Log::in_heap(cfg);
    let mut index = Index::default();
    assert_eq!(log.segment_bytes(), 2 << 20);
    let big = vec![1; 5 << 20];
    write(&mut log, &mut index, &put(b"big", &big)).unwrap();
    assert_eq!(log.stats().used_bytes, 8 << 20, "four would take an eighth of the room");
    assert_eq!(index.value(&log, b"big"), Some(&big[..]));
    let mut log = Log::in_heap(LogConfig { durability: Durability::Memory, ..cfg });
    let mut index = Index::default();
    for i in 0..160 {
        write(&mut log, &mut index, &put(&key(i), &vec![0; 1 << 19])).unwrap();
    }
    assert_eq!(log.segment_bytes(), 4 << 20, "of {} bytes", log.used_bytes());
}

#[test]
fn point_04_a_failed_spare_leaves_no_file_and_is_no_space() {
    // A folder that does not take files.
    let mut rig = rig(Durability::Sync);
    std::fs::create_dir(rig.data.join("spare-77.tmp")).unwrap();
    let job = Job::CreateSpare {
        id: firebrick_log::storage::SpareId(77),
        bytes: 1 << 20,
        disk: true,
        zeroed: false,
    };
    let done = rig.storage.perform(job);
    assert!(matches!(done, firebrick_log::storage::Done::Spare { result: Err(_), .. }), "{done:?}");
    assert!(!rig.memory.join("spare-77.seg").exists() && !rig.memory.join("spare-77.tmp").exists());
}

#[test]
fn point_05_one_aligned_write_in_flight_and_einval_goes_through_the_page_cache() {
    let mut rig = rig(Durability::Sync);
    rig.put(1, &[1; 100]);
    rig.hold_writes = true;
    rig.pump();
    rig.put(2, &[2; 100]);
    rig.pump();
    assert_eq!(rig.held.len(), 1, "one write in flight");
    let op = rig.held[0];
    assert!(op.durable);
    for n in [op.offset, u64::from(op.len), op.ptr as u64] {
        assert!(n.is_multiple_of(512), "{op:?}");
    }
    rig.disk = Disk::RefusesDirect;
    rig.hold_writes = false;
    let op = rig.held.pop_front().unwrap();
    rig.perform(op);
    assert_eq!(rig.written, [Written::Buffered]);
    assert_eq!(rig.log.flushed(), 0);
    rig.disk = Disk::Works;
    rig.pump();
    assert_eq!(rig.log.flushed(), 2);
    rig.lose_power();
    assert_eq!(rig.index.values(&rig.log).len(), 2);
}

#[test]
fn point_06_any_mix_of_old_and_new_sectors_keeps_what_was_acked() {
    let mut rig = rig(Durability::Sync);
    for i in 0..20 {
        rig.put(i, &[1; 64]);
    }
    rig.pump();
    let path = rig.dir("data").join("t1.seg");
    let old = std::fs::read(&path).unwrap();
    // Not committed before they are flushed: that is what `sync` means.
    for seq in 21..=60 {
        let body = put(b"a new key, 16 by", &[2; 64]);
        rig.log.append(&meta(seq, 20), &body, Room::Write).unwrap();
    }
    rig.pump();
    let new = std::fs::read(&path).unwrap();
    let mut state = 7u64;
    for _ in 0..20 {
        let mut mixed = old.clone();
        for sector in 0..mixed.len() / 512 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(9);
            if state >> 63 == 0 {
                let at = sector * 512..(sector + 1) * 512;
                mixed[at.clone()].copy_from_slice(&new[at]);
            }
        }
        std::fs::write(&path, &mixed).unwrap();
        // The manifest must not claim more than the first flush.
        rig.lose_power();
        let values = rig.index.values(&rig.log);
        assert!((20..=60).contains(&rig.log.tail().seq));
        assert!((0..20).all(|i| values.contains_key(&key(i))));
        assert!(rig.report.corruptions.is_empty(), "{:?}", rig.report);
    }
}

#[test]
fn point_07_what_was_appended_during_a_write_goes_with_the_next() {
    let mut rig = rig(Durability::Sync);
    rig.put(1, b"x");
    rig.hold_writes = true;
    rig.pump();
    for i in 2..=50 {
        rig.put(i, b"x");
    }
    let op = rig.held.pop_front().unwrap();
    rig.perform(op);
    assert_eq!(rig.written, [Written::Tail(1)]);
    assert_eq!((rig.log.flushed(), rig.log.votable(0)), (1, 1));
    rig.pump();
    let op = rig.held.pop_front().unwrap();
    rig.perform(op);
    assert_eq!(rig.written[1], Written::Tail(50), "49 records in one write");
}

#[test]
fn point_08_votes_wait_for_a_disk_that_is_behind_and_an_error_is_never_forgiven() {
    let mut rig = rig(ASYNC);
    rig.hold_writes = true;
    let mut n = 0;
    while rig.try_write(&put(&key(n), &[0; 64])).is_ok() {
        n += 1;
    }
    assert_eq!(rig.try_write(&put(b"k", b"v")), Err(AppendError::NotYet));
    let unflushed = rig.files("memory").iter().filter(|f| f.starts_with('t')).count();
    assert_eq!(unflushed, 3, "two with records, one ready");
    assert_eq!(rig.log.votable(0), n);
    rig.now = 200_000_000;
    assert_eq!(rig.log.votable(rig.now), 0, "past the table's bound");
    rig.release_writes();
    rig.now += 100_000_000;
    rig.pump();
    rig.put(n, &[0; 64]);
    assert_eq!(rig.log.votable(rig.now), n + 1);

    rig.now += 100_000_000;
    rig.disk = Disk::Fails;
    rig.pump();
    rig.now += 100_000_000;
    rig.pump();
    assert_eq!(rig.written.last(), Some(&Written::Failed));
    assert!(rig.log.is_sick());
    rig.disk = Disk::Works;
    let writes = rig.written.len();
    rig.pump();
    assert_eq!(rig.written.len(), writes, "nothing is tried again");
}

#[test]
fn point_09_rolling_leaves_the_manifest_alone_and_freeing_lists_survivors() {
    let mut rig = rig(Durability::Sync);
    for i in 0..60 {
        rig.put(i, &[3; 64]);
    }
    // From here on everything but the first segment's keys is overwritten.
    for i in 0..600 {
        rig.put(100 + i % 5, &[1; 64]);
    }
    rig.pump();
    assert!(!rig.trace.contains(&"manifest".to_owned()), "{:?}", rig.trace);
    rig.clean(false);
    let manifest = rig.log.manifest().clone();
    assert!(manifest.lowest > 2);
    let first = SegmentName { kind: SegmentKind::Tail, n: 1 };
    assert!(manifest.settled.iter().any(|l| l.name == first), "{manifest:?}");
    let before = rig.index.values(&rig.log);
    rig.kill();
    assert_eq!(rig.index.values(&rig.log), before);
    rig.lose_power();
    assert_eq!(rig.index.values(&rig.log), before);
    assert!(rig.report.intact);

    // A gap means: not intact.
    let tails: Vec<String> = rig.files("data").into_iter().filter(|f| f.starts_with('t')).collect();
    let victim = format!("t{}.seg", rig.log.manifest().lowest);
    assert!(tails.contains(&victim), "{tails:?}");
    for _ in 0..200 {
        rig.put(1000, &[1; 64]);
    }
    rig.pump();
    std::fs::remove_file(rig.dir("data").join(&victim)).unwrap();
    rig.lose_power();
    assert!(!rig.report.intact);
    assert!(rig.notes.iter().any(|n| n.contains(&victim)), "{:?}", rig.notes);
}

#[test]
fn point_10_a_segment_goes_only_when_its_copies_and_what_judged_it_are_safe() {
    let mut rig = rig(ASYNC);
    for i in 0..600 {
        rig.put(i % 60, &[4; 64]);
        rig.now += 10_000_000;
        if i % 50 == 0 {
            rig.pump();
        }
    }
    rig.now += 1_000_000_000;
    rig.pump();
    rig.put(1, b"newest, not flushed");
    rig.trace.clear();
    rig.hold_writes = true;
    let pinned = rig.index.at[&key(59)].0;
    while rig.log.clean(1 << 20, true, &mut rig.index) != CleanProgress::Nothing {
        rig.pump();
    }
    rig.pump();
    assert!(rig.log.stats().emptied > 0);
    assert!(
        !rig.trace.iter().any(|t| t.starts_with("unlink") || t == "manifest"),
        "{:?}",
        rig.trace
    );
    rig.log.pin(rig.index.at[&key(59)].0);
    let _ = pinned;
    rig.hold_writes = false;
    rig.hold_manifest = true;
    let op = rig.held.pop_front().unwrap();
    rig.perform(op);
    rig.now += 1_000_000_000;
    rig.pump();
    assert!(!rig.trace.iter().any(|t| t.starts_with("unlink")), "the manifest comes first");
    rig.hold_manifest = false;
    while let Some(job) = rig.held_jobs.pop_front() {
        rig.job(job);
    }
    rig.pump();
    let manifest = rig.trace.iter().position(|t| t == "manifest").unwrap();
    let unlink = rig.trace.iter().position(|t| t.starts_with("unlink")).unwrap();
    assert!(manifest < unlink);
    let before = rig.index.values(&rig.log);
    rig.lose_power();
    assert_eq!(rig.index.values(&rig.log), before);
}

#[test]
fn point_10_a_pinned_segment_stays_mapped() {
    let mut rig = rig(Durability::Memory);
    for i in 0..600 {
        rig.put(i % 60, &[4; 64]);
    }
    let mut early = None;
    for i in 0..60 {
        let loc = rig.index.at[&key(i)].0;
        let name = rig.log.segment_name(loc).unwrap();
        early = early.min(Some((name, loc))).or(Some((name, loc)));
    }
    let (_, loc) = early.unwrap();
    let bytes = rig.log.record(loc).unwrap().bytes().to_vec();
    rig.log.pin(loc);
    for i in 0..600 {
        rig.put(i % 60, &[5; 64]);
    }
    rig.clean(true);
    assert_eq!(rig.log.record(loc).unwrap().bytes(), bytes);
    let with_pin = rig.log.stats().segments;
    rig.log.unpin(loc);
    rig.pump();
    assert_eq!(rig.log.stats().segments, with_pin - 1);
}

#[test]
fn point_10_tombstones_stay_until_nothing_older_can_be_anywhere() {
    let mut rig = rig(Durability::Memory);
    rig.put(1, &[1; 64]);
    rig.try_write(&Body::Remove { key: &key(1), id: None }).unwrap();
    for i in 0..2000 {
        rig.put(100 + i % 20, &[4; 64]);
        if i % 100 == 0 {
            rig.clean(false);
        }
    }
    rig.clean(true);
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).get(&key(1)), None, "the removed key came back");
    for i in 0..2000 {
        rig.put(100 + i % 20, &[4; 64]);
        rig.clean(true);
    }
    assert!(rig.log.manifest().dropped >= 2, "{:?}", rig.log.manifest());
    assert!(!rig.index.at.contains_key(&key(1)));
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).len(), 20);
}

#[test]
fn point_11_memory_counts_only_in_its_own_boot_and_incarnation() {
    let mut rig = rig(ASYNC);
    rig.put(1, b"flushed");
    rig.now += 1_000_000_000;
    rig.pump();
    rig.now += 1_000_000_000;
    rig.pump();
    assert_eq!(rig.log.flushed(), 1);
    rig.put(2, b"in memory only");
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).len(), 2, "the memory of a killed process counts");
    assert_eq!(rig.log.flushed(), 2, "and was flushed again");

    rig.put(3, b"in memory only");
    rig.boot += 1;
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).len(), 2, "another boot: the disk counts");

    // Memory of another life of this partition: same boot, other nonce.
    rig.put(4, b"in memory only");
    let stale = std::fs::read(rig.dir("memory").join("manifest")).unwrap();
    rig.kill();
    rig.kill();
    std::fs::write(rig.dir("memory").join("manifest"), stale).unwrap();
    rig.put(5, b"never counts");
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).len(), 3);
}

#[test]
fn point_11_killed_between_the_two_manifest_writes_memory_still_counts() {
    let mut rig = rig(ASYNC);
    rig.put(1, b"in memory only");
    let memory = std::fs::read(rig.dir("memory").join("manifest")).unwrap();
    rig.kill();
    // As if the kill came after data_dir's manifest and before memory's.
    std::fs::write(rig.dir("memory").join("manifest"), memory).unwrap();
    rig.put(2, b"in memory only");
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).len(), 2);
}

#[test]
fn point_12_damage_in_memory_is_told_from_a_torn_tail_on_disk() {
    let mut rig = rig(Durability::Sync);
    for i in 0..50 {
        rig.put(i, &[1; 64]);
    }
    rig.pump();
    let at = |n: u64| 4096 + n * 128 + 60;
    rig.flip("memory", "t1.seg", at(20), 4);
    rig.kill();
    assert_eq!(rig.report.corruptions.len(), 1, "{:?}", rig.report);
    assert_eq!(rig.report.corruptions[0].offset, 4096 + 20 * 128);
    assert_eq!(rig.report.corruptions[0].bytes, Some(128));
    assert!(!rig.report.intact);
    assert_eq!(rig.index.values(&rig.log).len(), 49);
}

#[test]
fn point_12_on_disk_sync_knows_damage_by_the_watermark_and_async_cuts() {
    for (durability, kept, corruptions) in [(Durability::Sync, 49, 1), (ASYNC, 20, 0)] {
        let mut rig = rig(durability);
        for i in 0..50 {
            rig.put(i, &[1; 64]);
        }
        rig.now += 1_000_000_000;
        rig.pump();
        rig.now += 1_000_000_000;
        rig.pump();
        assert_eq!(rig.log.flushed(), 50);
        rig.flip("data", "t1.seg", 4096 + 20 * 128 + 60, 4);
        rig.lose_power();
        assert_eq!(rig.index.values(&rig.log).len(), kept);
        assert_eq!(rig.report.corruptions_total, corruptions, "{:?}", rig.report);
        if durability == ASYNC {
            assert!(rig.report.torn);
            assert_eq!(rig.report.lost_records, 29);
            // What was cut does not come back behind a new record.
            rig.put(999, &[9; 64]);
            rig.now += 1_000_000_000;
            rig.pump();
            rig.now += 1_000_000_000;
            rig.pump();
            rig.lose_power();
            assert_eq!(rig.index.values(&rig.log).len(), 21);
        }
    }
}

#[test]
fn point_13_past_a_bad_length_the_scan_finds_the_next_record() {
    let mut rig = rig(Durability::Memory);
    for i in 0..50 {
        rig.put(i, &[1; 64]);
    }
    // The length itself: the next record is found in steps of 8 bytes.
    rig.flip("memory", "t1.seg", 4096 + 20 * 128, 0x10);
    rig.flip("memory", "t1.seg", 4096 + 30 * 128 + 2, 0x10);
    rig.kill();
    let offsets: Vec<u64> = rig.report.corruptions.iter().map(|c| c.offset).collect();
    assert_eq!(offsets, [4096 + 20 * 128, 4096 + 30 * 128]);
    assert_eq!(rig.index.values(&rig.log).len(), 48);
    let sentence = rig.report.corruptions[0].to_string();
    assert!(sentence.starts_with("partition 7: segment t1.seg, offset 6656: "), "{sentence}");
}

#[test]
fn point_14_truncation_reaches_the_disk_before_the_history_and_old_bytes_never_return() {
    let mut rig = rig(Durability::Sync);
    for i in 0..10 {
        rig.put(i, &[1; 64]);
    }
    for seq in 11..=400u64 {
        let body = put(b"prepared", &[8; 64]);
        while rig.log.append(&meta(seq, 10), &body, Room::Write).is_err() {
            rig.pump();
        }
    }
    rig.pump();
    assert_eq!(rig.log.flushed(), 400);
    rig.trace.clear();
    assert_eq!(rig.log.truncate(15), 385 * 120);
    assert!(rig.log.truncating());
    assert_eq!(rig.log.votable(0), 15);
    let ticket = rig.log.change_manifest(|m| m.history.push(Version { epoch: 2, seq: 16 }));
    rig.hold_writes = true;
    rig.pump();
    assert!(rig.trace.is_empty(), "the history waits for the zeros: {:?}", rig.trace);
    rig.release_writes();
    assert!(!rig.log.truncating());
    assert!(rig.log.manifest_saved() >= ticket);
    assert_eq!(rig.trace.last().unwrap(), "manifest");
    let new = Meta { seq: 16, epoch: 2, ..meta(16, 15) };
    rig.log.set_commit(15);
    rig.log.append(&new, &put(b"new", b"x"), Room::Write).unwrap();
    rig.kill();
    assert_eq!(rig.log.tail(), Version { epoch: 2, seq: 16 });
    rig.pump();
    rig.lose_power();
    assert_eq!(rig.log.tail(), Version { epoch: 2, seq: 16 });
    assert!(rig.report.intact && rig.report.corruptions.is_empty(), "{:?}", rig.report);
}

#[test]
fn point_15_orphans_are_deleted_and_what_is_not_ours_is_refused() {
    let mut rig = rig(Durability::Sync);
    rig.put(1, b"x");
    rig.pump();
    let head = SegmentHead {
        partition: PARTITION,
        name: SegmentName { kind: SegmentKind::Settled, n: 9 },
        made_at_seq: 0,
        bytes: 16 << 10,
    };
    let mut orphan = head.encode().to_vec();
    orphan.resize(16 << 10, 0);
    for side in ["memory", "data"] {
        std::fs::write(rig.dir(side).join("s9.seg"), &orphan).unwrap();
    }
    rig.kill();
    assert!(!rig.files("memory").contains(&"s9.seg".into()));
    assert!(!rig.files("data").contains(&"s9.seg".into()));
    assert!(rig.notes.iter().any(|n| n.contains("s9.seg")));

    let foreign = rig.dir("data").join("notes.txt");
    std::fs::write(&foreign, "mine").unwrap();
    let error = rig.restart().unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("notes.txt"));
    assert!(foreign.exists());
    std::fs::remove_file(&foreign).unwrap();

    let foreign = rig.dir("data").join("t2.seg");
    let kept = std::fs::read(&foreign).ok();
    std::fs::write(&foreign, vec![5; 16 << 10]).unwrap();
    let error = rig.restart().unwrap_err();
    assert!(error.to_string().contains("t2.seg"), "{error}");
    assert!(foreign.exists() && kept.is_none());
}

#[test]
fn an_orderly_stop_flushes_at_once_and_says_so() {
    let mut rig = rig(Durability::Async { ms: 60_000 });
    for i in 0..50 {
        rig.put(i, &[1; 64]);
    }
    rig.pump();
    assert_eq!(rig.log.flushed(), 0);
    rig.log.hurry();
    rig.pump();
    assert_eq!(rig.log.flushed(), 50);
    let ticket = rig.log.change_manifest(|_| ());
    rig.pump();
    assert_eq!(rig.log.manifest_saved(), ticket);
    // What was flushed once cannot be a torn write.
    rig.flip("data", "t1.seg", 4096 + 20 * 128 + 60, 4);
    rig.lose_power();
    assert_eq!((rig.report.corruptions_total, rig.report.lost_records), (1, 0));
    assert_eq!(rig.index.values(&rig.log).len(), 49);
}

#[test]
fn point_10_the_originals_wait_for_their_copies_to_be_flushed() {
    let mut rig = rig(Durability::Sync);
    for i in 0..600 {
        rig.put(if i % 3 == 0 { 1000 + i } else { i % 60 }, &[4; 64]);
    }
    rig.pump();
    assert_eq!(rig.log.flushed(), rig.log.tail().seq, "the tail is safe");
    rig.hold_writes = true;
    rig.trace.clear();
    while rig.log.clean(1 << 20, true, &mut rig.index) != CleanProgress::Nothing {
        rig.pump();
    }
    rig.pump();
    assert!(rig.log.stats().moved_records > 0 && rig.log.stats().emptied > 0);
    assert!(rig.trace.iter().all(|t| t.starts_with("bind")), "{:?}", rig.trace);
    let before = rig.index.values(&rig.log);
    rig.lose_power();
    assert_eq!(rig.index.values(&rig.log), before);
}
