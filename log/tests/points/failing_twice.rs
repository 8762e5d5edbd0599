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
