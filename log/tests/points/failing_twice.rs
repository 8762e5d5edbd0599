//! What a second failure finds after the first.

use super::*;

/// Writes and cleans, so that live records lie in settled segments that were listed.
fn settled(durability: Durability) -> Rig {
    let mut rig = rig(durability);
    for i in 0..600 {
        rig.put(if i % 3 == 0 { 1000 + i } else { i % 60 }, &[4; 64]);
    }
    rig.now += 1_000_000_000;
    rig.pump();
    rig.clean(true);
    assert!(!rig.log.manifest().settled.is_empty());
    rig
}

#[test]
fn what_cleaning_moved_before_a_kill_is_on_the_disk_before_its_original_goes() {
    let mut rig = settled(Durability::Sync);
    for i in 0..300 {
        rig.put(if i % 15 == 0 { 2000 + i } else { i % 4 }, &[5; 64]);
    }
    rig.pump();
    let before = rig.index.values(&rig.log);
    // Live records go behind what is listed, and the disk does not have them yet.
    rig.hold_writes = true;
    rig.clean_held();
    let moved = rig.index.at[&key(2000)].0;
    let listed = &rig.log.manifest().settled;
    assert!(listed.iter().any(|l| Some(l.name) == rig.log.segment_name(moved)), "{listed:?}");
    rig.hold_writes = false;
    rig.kill();
    assert_eq!(rig.index.values(&rig.log), before);
    rig.clean(true);
    rig.lose_power();
    assert!(rig.report.intact, "{:?}", rig.report);
    assert_eq!(rig.index.values(&rig.log), before);
}

#[test]
fn an_empty_segment_that_cleaning_takes_is_not_appended_to_after_a_truncation() {
    let mut rig = rig(ASYNC);
    // The last segment is nearly full, and all of it is on the disk.
    for i in 0..2 * 96 + 90 {
        rig.put(if i % 5 == 0 { i } else { i % 4 }, &[1; 64]);
    }
    for _ in 0..2 {
        rig.now += 1_000_000_000;
        rig.pump();
    }
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
