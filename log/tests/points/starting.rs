//! Points 11 to 15: what counts after a crash, and what is refused.

use super::*;

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
fn point_11_a_write_of_the_dead_process_that_lands_late_hits_no_file_that_counts() {
    let mut rig = rig(Durability::Sync);
    for i in 0..50 {
        rig.put(i, &[1; 64]);
    }
    rig.pump();
    let late =
        std::fs::OpenOptions::new().write(true).open(rig.dir("data").join("t1.seg")).unwrap();
    rig.kill();
    std::os::unix::fs::FileExt::write_all_at(&late, &[0; 4096], 4096).unwrap();
    rig.lose_power();
    assert_eq!(rig.index.values(&rig.log).len(), 50);
    assert!(rig.report.intact, "{:?}", rig.report);
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

/// Killed between its two folders, a removal leaves what any start can open: the partition may be named here again.
#[test]
fn a_removal_that_ends_half_way_leaves_what_opens() {
    for (blocked, durability) in
        [("memory", Durability::Sync), ("data", Durability::Sync), ("memory", Durability::Memory)]
    {
        let mut rig = Rig::new(config(durability));
        rig.put(1, &[1; 64]);
        rig.pump();
        // In the way of the one folder.
        std::fs::create_dir_all(rig.dir(blocked).with_extension("gone").join("x")).unwrap();
        let partition = rig.cfg.partition;
        let done = rig.storage.perform(Job::Remove { partition });
        assert!(matches!(done, Done::Removed { result: Err(_), .. }), "{done:?}");
        // The next start.
        let mut storage = Storage::start(rig.memory.clone(), rig.data.clone()).unwrap();
        let opened = open_files(&mut storage, &rig.cfg, 1, 2);
        assert!(opened.is_ok(), "{blocked}, {durability:?}: {:?}", opened.err());
    }
}

#[test]
fn point_11_what_waited_for_the_disk_in_two_segments_is_flushed_again() {
    let mut rig = rig(ASYNC);
    rig.hold_writes = true;
    let mut n = 0;
    while rig.try_write(&put(&key(n), &[1; 64])).is_ok() {
        n += 1;
    }
    let names: std::collections::BTreeSet<_> =
        rig.index.at.values().map(|at| rig.log.segment_name(at.0)).collect();
    assert_eq!((names.len(), rig.log.flushed()), (2, 0));
    rig.hold_writes = false;
    rig.kill();
    assert_eq!(rig.log.flushed(), n, "it says that the disk has them");
    rig.lose_power();
    assert_eq!(rig.index.values(&rig.log).len() as u64, n);
}

/// What tells damage in an `async` table, where nobody else knows what the disk had: writes come one at a time and in order.
#[test]
fn point_12_on_disk_what_lies_behind_one_write_is_proof_of_damage() {
    // A later segment; the same segment, further than one write reaches.
    for (segment_bytes_max, records) in [(16 << 10, 200), (4 << 20, 12_000)] {
        let mut rig =
            Rig::quick(LogConfig { bytes_max: 64 << 20, segment_bytes_max, ..config(ASYNC) });
        for i in 0..records {
            rig.put(i, &[1; 64]);
            rig.now += 1_000_000;
            if i % 50 == 0 {
                rig.pump();
            }
        }
        for _ in 0..20 {
            rig.now += 1_000_000_000;
            rig.pump();
        }
        assert_eq!(rig.log.flushed(), records);
        rig.flip("data", "t1.seg", 4096 + 20 * 128 + 60, 4);
        rig.lose_power();
        assert_eq!((rig.report.corruptions_total, rig.report.lost_records), (1, 0));
        assert_eq!(rig.index.values(&rig.log).len() as u64, records - 1);
    }
}

/// Somebody stores what is itself a record: behind damage the scan goes on where the bad record ends, and not in its value.
#[test]
fn point_13_what_lies_in_a_bad_records_value_is_not_taken_for_a_record() {
    let mut rig = rig(Durability::Memory);
    let mut other = Log::in_heap(config(Durability::Memory));
    let loc = other.append(&meta(4, 3), &put(b"a key of 16 byte", b"stored"), Room::Write).unwrap();
    let record = other.record(loc).unwrap().bytes().to_vec();
    for i in 1..=8 {
        rig.put(i, if i == 4 { &record } else { &[1; 64] });
    }
    // In the key of the fourth.
    rig.flip("memory", "t1.seg", 4096 + 3 * 128 + 40, 1);
    rig.kill();
    assert_eq!(rig.report.corruptions_total, 1, "{:?}", rig.report);
    let keys: Vec<Vec<u8>> = rig.index.values(&rig.log).into_keys().collect();
    assert_eq!(keys, [1, 2, 3, 5, 6, 7, 8].map(key));
}

/// Somebody has copied files about.
#[test]
fn point_15_a_segment_of_another_name_or_partition_is_refused() {
    for (partition, n) in [(PARTITION, 1), (PARTITION + 1, 9)] {
        let mut rig = rig(Durability::Sync);
        rig.put(1, b"x");
        rig.pump();
        let name = SegmentName { kind: SegmentKind::Tail, n };
        let head = SegmentHead { partition, name, made_at_seq: 0, bytes: 16 << 10 };
        let mut copied = head.encode().to_vec();
        copied.resize(16 << 10, 0);
        let path = rig.dir("data").join("t9.seg");
        std::fs::write(&path, &copied).unwrap();
        let error = rig.restart().unwrap_err();
        assert!(
            matches!(&error, StorageError::Foreign { path: told, .. } if *told == path),
            "{error}"
        );
        assert!(path.exists());
    }
}
