//! Point 10: what is freed, and when.

use super::*;

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

#[test]
fn point_10_settled_segments_go_to_the_disk_in_pieces_behind_the_tail() {
    let cfg =
        LogConfig { bytes_max: 32 << 20, segment_bytes_max: 2 << 20, ..config(Durability::Sync) };
    let mut rig = Rig::quick(cfg);
    // A mebibyte that stays, among what is overwritten.
    for i in 0..1000 {
        rig.put(if i % 4 == 0 { 1000 + i } else { i % 4 }, &[4; 4000]);
    }
    rig.pump();
    rig.hold_writes = true;
    rig.put(1, b"under way");
    while rig.log.clean(1 << 20, true, &mut rig.index) != CleanProgress::Nothing {
        rig.pump();
    }
    rig.put(2, b"behind it");
    let mut ops = Vec::new();
    while let Some(op) = rig.held.pop_front() {
        ops.push((op.segment.kind, op.len as usize));
        rig.perform(op);
        rig.pump();
    }
    let (tail, settled) = ops.split_at(2);
    assert!(tail.iter().all(|op| op.0 == SegmentKind::Tail), "{ops:?}");
    assert!(settled.len() >= 2, "{ops:?}");
    for &(kind, bytes) in settled {
        assert!(kind == SegmentKind::Settled && bytes <= (256 << 10) + 4096, "{ops:?}");
    }
}
