//! A log in heap memory: append, read, clean, crash, scan.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use firebrick_log::*;

#[test]
fn what_was_appended_is_read_and_found_again_after_a_crash() {
    let mut log = Log::in_heap(config(Durability::Memory));
    let mut index = Index::default();
    for i in 0..1000u64 {
        write(&mut log, &mut index, &put(&key(i % 300), &i.to_le_bytes())).unwrap();
    }
    write(&mut log, &mut index, &Body::Remove { key: &key(5), id: None }).unwrap();
    let before = index.values(&log);
    assert_eq!(before.len(), 299);
    assert_eq!(log.stats().segments, 7);

    let (mut log, mut scan) = Log::open_in_heap(config(Durability::Memory), log.crash());
    assert_eq!(log.append(&meta(1002, 0), &Body::TakeOver, Room::Write), Err(AppendError::NotYet));
    let mut index = rescan(&mut log, &mut scan);
    let report = scan.report();
    assert!(report.intact && !report.torn, "{report:?}");
    assert_eq!((report.records, report.commit), (1001, 1000));
    assert_eq!(report.in_doubt.len(), 1, "the last record's commit rode on no frame");
    let loc = report.in_doubt[0];
    let record = log.record(loc).unwrap();
    index.take(&log, loc, &record);
    log.set_commit(1001);
    assert_eq!(index.values(&log), before);
    write(&mut log, &mut index, &put(b"more", b"x")).unwrap();
}

#[test]
fn cleaning_bounds_what_overwrites_leave_behind() {
    // Heads of 4 KiB would be a quarter of the smallest segments.
    let cfg = LogConfig { segment_bytes_max: 64 << 10, ..config(Durability::Memory) };
    let mut log = Log::in_heap(cfg);
    let mut index = Index::default();
    let value = [7; 64];
    for i in 0..40_000u64 {
        write(&mut log, &mut index, &put(&key(i * 7919 % 4000), &value)).unwrap();
        while log.clean(4096, false, &mut index) == CleanProgress::More {}
    }
    let stats = log.stats();
    let live = 4000 * 128;
    assert_eq!(stats.live_bytes, live);
    assert!(stats.used_bytes * 10 < live * 18, "busy: {stats:?}");
    while log.clean(1 << 20, true, &mut index) == CleanProgress::More {}
    let stats = log.stats();
    assert!(stats.used_bytes * 100 < live * 128, "idle: {stats:?}");
    assert_eq!(index.values(&log).len(), 4000);
}

/// A truncation makes a segment the tail's last again that cleaning has begun to empty: what is appended then does
/// not go with it.
#[test]
fn what_follows_a_truncation_is_not_cleaned_away() {
    // How far cleaning had come: not begun, in the middle, done.
    for slices in 0..12 {
        let mut log = Log::in_heap(config(Durability::Memory));
        let mut index = Index::default();
        // A segment whose records are dead but for five, with room for one more small record.
        for i in 0..30 {
            write(&mut log, &mut index, &put(&key(i % 5), &[1; 300])).unwrap();
        }
        // A record that needs another segment, and is not to be.
        let seq = log.tail().seq;
        log.append(&meta(seq + 1, seq), &put(b"big", &[2; 3000]), Room::Write).unwrap();
        let keep = log.commit();
        for _ in 0..slices {
            log.clean(700, true, &mut index);
        }
        log.truncate(keep);
        // As a new primary does.
        let loc = log.append(&meta(keep + 1, keep), &Body::TakeOver, Room::Remove).unwrap();
        while log.clean(1 << 20, true, &mut index) == CleanProgress::More {}
        let record = log.record(loc).unwrap();
        assert_eq!(record.version().seq, keep + 1, "after {slices} slices");
        let (mut log, mut scan) = Log::open_in_heap(config(Durability::Memory), log.crash());
        let again = rescan(&mut log, &mut scan);
        assert_eq!(scan.report().in_doubt.len(), 1, "after {slices} slices");
        assert_eq!(again.values(&log).len(), 5);
    }
}

/// Three records of a quarter leave a segment a quarter empty; moving them would win nothing.
#[test]
fn idle_cleaning_ends_when_large_records_never_fill_their_segments() {
    let cfg = LogConfig { segment_bytes_max: 64 << 10, ..config(Durability::Memory) };
    let mut log = Log::in_heap(cfg);
    let mut index = Index::default();
    for i in 0..60 {
        write(&mut log, &mut index, &put(&key(i), &vec![1; 16_000])).unwrap();
    }
    let steps =
        (0..200).take_while(|_| log.clean(1 << 20, true, &mut index) == CleanProgress::More);
    assert!(steps.count() < 100, "{:?}", log.stats());
    assert_eq!(index.values(&log).len(), 60);
}

/// No number of a segment is used twice: a tail segment below the manifest's `lowest` counts for nothing at the next
/// start.
#[test]
fn what_follows_a_crash_is_found_after_the_next_when_the_segments_before_are_gone() {
    let cfg = config(Durability::Memory);
    let mut log = Log::in_heap(cfg);
    let mut index = Index::default();
    for i in 0..10 {
        write(&mut log, &mut index, &put(&key(i), b"old")).unwrap();
    }
    // A learner that keeps nothing.
    let below = log.tail();
    log.rebase(below, false, |_| ());
    while log.poll_ask(0).is_some() {}
    let (mut log, mut scan) = Log::open_in_heap(cfg, log.crash());
    let mut index = rescan(&mut log, &mut scan);
    write(&mut log, &mut index, &put(b"more", b"x")).unwrap();
    let (mut log, mut scan) = Log::open_in_heap(cfg, log.crash());
    rescan(&mut log, &mut scan);
    assert_eq!(log.tail().seq, below.seq + 1);
}

/// What was refused is not told to be on its way: whoever waits for it would wait for ever, and not make room. What may
/// use more of the reserve asks still, and everybody does once there may be room again.
#[test]
fn a_segment_that_was_refused_is_not_waited_for() {
    let mut log = Log::in_heap(config(Durability::Memory));
    let mut index = Index::default();
    let first = write(&mut log, &mut index, &put(&key(0), &[1; 300])).unwrap();
    let bytes = log.record(first).unwrap().bytes().to_vec();
    let (tail, big) = (log.tail().seq, vec![1; 15_000]);
    log.ration(0);
    log.set_copying(true);
    for again in [false, true] {
        if again {
            log.room_again();
        }
        let rooms = [Room::Write, Room::Remove, Room::Clean];
        for (n, &room) in rooms.iter().enumerate() {
            let append =
                |log: &mut Log, room| log.append(&meta(tail + 1, tail), &put(b"big", &big), room);
            assert_eq!(append(&mut log, room), Err(AppendError::NotYet), "{room:?}");
            let Some(Ask::Segment(want)) = log.poll_ask(0) else { panic!("nothing is wanted") };
            assert_eq!(want.room, room);
            log.refuse(want.kind);
            for &lesser in &rooms[..=n] {
                let refused = append(&mut log, lesser);
                assert_eq!(refused, Err(AppendError::NoSpace), "{lesser:?} after {room:?}");
            }
            assert!(log.poll_ask(0).is_none());
        }
        // A copy: settled segments, with the room of cleaning.
        let record = Unchecked::new(&bytes).check_crc().unwrap();
        assert_eq!(log.append_copied(&record), Err(AppendError::NotYet));
        let Some(Ask::Segment(want)) = log.poll_ask(0) else { panic!("nothing is wanted") };
        log.refuse(want.kind);
        assert_eq!(log.append_copied(&record), Err(AppendError::NoSpace));
        assert!(log.poll_ask(0).is_none());
    }
}
