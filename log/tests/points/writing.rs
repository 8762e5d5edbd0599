//! Points 5 to 9: how bytes get to the disk, and what the manifest says of them.

use super::*;

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
fn point_09_memory_has_no_manifest_that_the_disk_has_not() {
    let mut rig = rig(Durability::Sync);
    rig.put(1, b"x");
    rig.pump();
    let manifest = |rig: &Rig, side| std::fs::read(rig.dir(side).join("manifest")).unwrap();
    let before = manifest(&rig, "memory");
    // A folder that takes no new one.
    std::fs::create_dir(rig.dir("data").join("manifest.tmp")).unwrap();
    rig.log.change_manifest(|m| m.dropped = 77);
    rig.pump();
    assert!(rig.log.is_sick(), "{:?}", rig.outcomes);
    assert_eq!(manifest(&rig, "memory"), before);
}
