//! What a second failure finds after the first.

use std::collections::BTreeMap;

use super::*;
use firebrick_log::record::SessionResult;

/// Writes and cleans, so that live records lie in settled segments that were listed.
fn settled() -> Rig {
    let mut rig = rig(Durability::Sync);
    for i in 0..600 {
        rig.put(if i % 3 == 0 { 1000 + i } else { i % 60 }, &[4; 64]);
    }
    rig.pump();
    rig.clean(true);
    assert!(!rig.log.manifest().settled.is_empty());
    rig
}

/// Puts that cleaning will move behind what is listed, key 2000 among them; the values that there are then.
fn write_over(rig: &mut Rig) -> BTreeMap<Vec<u8>, Vec<u8>> {
    for i in 0..300 {
        rig.put(if i % 15 == 0 { 2000 + i } else { i % 4 }, &[5; 64]);
    }
    rig.pump();
    rig.index.values(&rig.log)
}

/// The segment that key 2000 was moved to: one that is listed.
fn moved_to(rig: &Rig) -> SegmentName {
    let name = rig.log.segment_name(rig.index.at[&key(2000)].0).unwrap();
    let listed = &rig.log.manifest().settled;
    assert!(listed.iter().any(|l| l.name == name), "{name} is not in {listed:?}");
    name
}

/// So much later that an `async` table has all of it on the disk.
fn much_later(rig: &mut Rig) {
    for _ in 0..2 {
        rig.now += 1_000_000_000;
        rig.pump();
    }
}

#[test]
fn what_cleaning_moved_before_a_kill_is_on_the_disk_before_its_original_goes() {
    let mut rig = settled();
    let before = write_over(&mut rig);
    // Live records go behind what is listed, and the disk does not have them yet.
    rig.hold_writes = true;
    rig.clean_held();
    moved_to(&rig);
    rig.hold_writes = false;
    rig.kill();
    assert_eq!(rig.index.values(&rig.log), before);
    rig.clean(true);
    rig.lose_power();
    assert!(rig.report.intact, "{:?}", rig.report);
    assert_eq!(rig.index.values(&rig.log), before);
}

/// The pieces of a settled segment come to the disk in any order, and nothing rests on those that are not listed.
#[test]
fn a_hole_behind_what_is_listed_is_no_damage() {
    let mut rig = settled();
    let before = write_over(&mut rig);
    rig.hold_manifest = true;
    rig.clean_held();
    rig.pump();
    let (name, moved) = (moved_to(&rig), rig.index.at[&key(2000)].0);
    let before_it = rig.log.records_of(name).take_while(|(loc, _)| *loc != moved);
    let at = 4096 + before_it.map(|(_, r)| r.bytes().len().next_multiple_of(8)).sum::<usize>();
    rig.flip("data", &name.to_string(), at as u64 + 8, 1);
    rig.hold_manifest = false;
    rig.lose_power();
    assert!(rig.report.intact, "{:?}", rig.report);
    assert_eq!(rig.index.values(&rig.log), before);
    // Nor does the next process find it in memory.
    rig.kill();
    assert!(rig.report.intact, "{:?}", rig.report);
    assert_eq!(rig.index.values(&rig.log), before);
}

fn results(n: usize) -> Vec<SessionResult> {
    let one = |number| SessionResult {
        session_partition: PARTITION,
        session_opened: 1,
        number,
        epoch: 1,
        seq: 1,
        answered: 0,
        result: 0,
    };
    (1..=n as u32).map(one).collect()
}

/// A `Sessions` record that tells of all that is committed.
fn write_sessions(rig: &mut Rig) {
    let stamp = rig.log.commit();
    while rig.log.begin_sessions(&meta(stamp, stamp), 2).is_err() {
        rig.pump();
    }
    rig.log.add_sessions(&results(2));
    rig.log.end_sessions().unwrap();
    rig.pump();
}

/// A copy into an `async` table must not wait for the age of a tail that is nearly empty.
#[test]
fn what_a_sessions_record_rests_on_goes_to_the_disk_at_once() {
    let mut rig = rig(ASYNC);
    rig.put(1, &[7; 64]);
    write_sessions(&mut rig);
    assert!(rig.log.settled_is_flushed());
}

#[test]
fn an_empty_segment_that_cleaning_takes_is_not_appended_to_after_a_truncation() {
    let mut rig = rig(ASYNC);
    // The last segment is nearly full, and all of it is on the disk.
    for i in 0..2 * 96 + 90 {
        rig.put(if i % 5 == 0 { i } else { i % 4 }, &[1; 64]);
    }
    much_later(&mut rig);
    let (seq, commit) = (rig.log.tail().seq + 1, rig.log.commit());
    assert_eq!(rig.log.flushed(), commit);
    // What cleaning frees waits for copies that are not on the disk.
    rig.hold_writes = true;
    rig.clean_held();
    let waiting = rig.log.stats().emptied;
    assert!(waiting > 0);
    // Too large for the segment that is there: that one stays behind, empty, and cleaning takes it.
    let big = vec![2; 40 << 10];
    for _ in 0..3 {
        if rig.log.append(&meta(seq, commit), &put(b"prepared", &big), Room::Write).is_ok() {
            break;
        }
        rig.pump();
    }
    assert_eq!(rig.log.tail().seq, seq);
    rig.clean_held();
    assert!(rig.log.stats().emptied > waiting);
    rig.log.truncate(commit);
    rig.now += 1_000_000_000;
    rig.release_writes();
    for i in 300..420 {
        rig.put(i, &[3; 64]);
        rig.now += 10_000_000;
        rig.pump();
    }
    let values = rig.index.values(&rig.log);
    assert!((300..420).all(|i| values.contains_key(&key(i))));
    rig.kill();
    assert_eq!(rig.index.values(&rig.log), values);
}

/// A put of key 7 in `t2.seg`, which was made when more records were committed than there are, and its tombstone in `t3.seg`.
fn put_and_tombstone_after_a_loss(rig: &mut Rig) {
    rig.put(600, &[1; 1000]);
    rig.put(7, &[1; 64]);
    for i in 1..11 {
        rig.put(600 + i, &[1; 1000]);
    }
    assert_eq!(rig.log.segment_name(rig.index.at[&key(7)].0).unwrap().n, 2);
    rig.put(700, &[1; 1000]);
    rig.try_write(&Body::Remove { key: &key(7), id: None }).unwrap();
    assert_eq!(rig.log.segment_name(rig.index.at[&key(7)].0).unwrap().n, 3);
    for i in 1..11 {
        rig.put(700 + i, &[1; 1000]);
    }
}

/// The put's segment is there and the tombstone's is not, and a new process finds no value.
fn key_7_stays_away(rig: &mut Rig) {
    let files = rig.files("memory");
    assert!(files.contains(&"t2.seg".into()) && !files.contains(&"t3.seg".into()), "{files:?}");
    rig.kill();
    assert_eq!(rig.index.value(&rig.log, &key(7)), None, "it came back");
}

#[test]
fn a_tombstone_outlives_its_put_in_a_segment_that_was_made_before_records_were_lost() {
    let mut rig = rig(ASYNC);
    rig.put(0, &[1; 64]);
    much_later(&mut rig);
    rig.hold_writes = true;
    for i in 0..90 {
        rig.put(i, &[1; 64]);
    }
    // What follows was made when more than seventy records were committed, and only one is left of them.
    rig.pump();
    rig.lose_power();
    rig.hold_writes = false;
    assert_eq!(rig.log.tail().seq, 1);
    for i in 0..11 {
        rig.put(500 + i, &[1; 1000]);
    }
    put_and_tombstone_after_a_loss(&mut rig);
    // The first segment goes, then the third, and the second stays.
    for first in [500, 700] {
        for i in 0..11 {
            rig.put(first + i, &[2; 1000]);
        }
        rig.put(0, &[2; 64]);
        much_later(&mut rig);
        rig.clean(true);
    }
    key_7_stays_away(&mut rig);
}

#[test]
fn a_tombstone_outlives_its_put_in_a_segment_that_was_made_before_a_log_began_again_lower() {
    let mut rig = rig(ASYNC);
    for i in 0..90 {
        rig.put(i, &[1; 64]);
    }
    rig.pump();
    // The others lead without what this one has.
    rig.log.rebase(Version { epoch: 1, seq: 10 }, false, |_| ());
    rig.index = Index::default();
    put_and_tombstone_after_a_loss(&mut rig);
    for i in 0..11 {
        rig.put(700 + i, &[2; 1000]);
    }
    much_later(&mut rig);
    rig.clean(true);
    key_7_stays_away(&mut rig);
    assert_eq!(rig.index.values(&rig.log).len(), 22);
}

#[test]
fn what_a_sessions_record_rests_on_is_on_the_disk_before_it_is() {
    let mut rig = rig(ASYNC);
    rig.put(100, &[7; 64]);
    much_later(&mut rig);
    // Answered, and not on the disk yet.
    for i in 0..10 {
        rig.put(i, &[7; 64]);
    }
    write_sessions(&mut rig);
    rig.log.complete();
    rig.pump();
    rig.lose_power();
    let names: Vec<SegmentName> = rig.log.segment_counts().map(|count| count.name).collect();
    let newest =
        names.iter().flat_map(|&name| rig.log.records_of(name)).map(|(_, r)| r.version().seq);
    assert_eq!(newest.max(), Some(rig.log.tail().seq), "it tells of writes that are lost");
}

/// A damaged `made_at_seq` cannot be told from a good one: it counts as none, and tombstones stay.
#[test]
fn point_02_a_rebuilt_first_page_knows_of_no_tombstone() {
    let mut rig = rig(Durability::Memory);
    for i in 0..11 {
        rig.put(500 + i, &[1; 1000]);
    }
    put_and_tombstone_after_a_loss(&mut rig);
    for i in 0..11 {
        rig.put(500 + i, &[2; 1000]);
    }
    rig.clean(true);
    assert!(
        !rig.files("memory").contains(&"t1.seg".to_owned()),
        "it was made before anything else"
    );
    rig.flip("memory", "t2.seg", 30, 1);
    rig.kill();
    assert_eq!(rig.report.corruptions_total, 1, "{:?}", rig.report);
    for i in 0..11 {
        rig.put(700 + i, &[2; 1000]);
    }
    rig.clean(true);
    key_7_stays_away(&mut rig);
}
