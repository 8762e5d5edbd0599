//! A segment that was used before holds old records, whole and valid: none of them ever comes back.
#![allow(clippy::unwrap_used)]
#![cfg(not(miri))]

mod common;

use common::rig::*;
use common::*;
use firebrick_log::*;

fn rig() -> Rig {
    let config = config(Durability::Memory);
    Rig::new(LogConfig { bytes_max: 16 << 20, segment_bytes_max: 256 << 10, ..config })
}

/// Ends somewhere in the middle of segments that were used before, with `round` in each value.
fn fill(rig: &mut Rig, round: u8) {
    for _ in 0..3 {
        for i in 0..2000 + 137 * u64::from(round) {
            rig.put(i % 10, &[round; 200]);
        }
        // What is freed here is used from here on.
        rig.clean(true);
    }
}

fn old_bytes(rig: &Rig) -> usize {
    let files = rig.files("memory").into_iter().filter(|file| file.contains(".seg"));
    let segments = files.map(|file| std::fs::read(rig.dir("memory").join(file)).unwrap());
    segments
        .map(|bytes| {
            let mark = u32::from_le_bytes(bytes[48..52].try_into().unwrap()) as usize * 4096;
            let behind = if mark == 0 { &[] } else { &bytes[mark..] };
            behind.iter().filter(|&&b| b != 0).count()
        })
        .sum()
}

#[test]
fn point_04_a_freed_segment_without_a_disk_is_a_spare_again() {
    let mut rig = rig();
    let spares = |rig: &Rig| {
        let names = std::fs::read_dir(rig.memory.clone()).unwrap();
        let names = names.map(|n| n.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.starts_with("spare-")).count()
    };
    for round in 0..10 {
        fill(&mut rig, round);
    }
    let recycled = rig.trace.iter().filter(|t| t.starts_with("unlink")).count();
    assert!(recycled > 10, "{recycled}");
    assert!((4..=6).contains(&spares(&rig)), "{}", spares(&rig));
    rig.kill();
    assert_eq!(spares(&rig), 0, "what a killed process left");
    assert!(rig.report.intact && rig.report.corruptions.is_empty(), "{:?}", rig.report);
}

#[test]
fn nothing_old_comes_back_wherever_the_process_is_killed() {
    let mut rig = rig();
    let mut old = 0;
    for round in 0..30 {
        fill(&mut rig, round);
        old += old_bytes(&rig);
        rig.kill();
        assert!(rig.report.intact && rig.report.corruptions.is_empty(), "{:?}", rig.report);
        assert!(!rig.report.torn, "old bytes were taken for the rest of a record");
        assert_eq!(old_bytes(&rig), 0, "the zeros that were missing are there");
        let values = rig.index.values(&rig.log);
        assert_eq!(values.len(), 10);
        assert!(values.values().all(|v| v == &[round; 200]));
    }
    assert!(old > 256 << 10, "the test met {old} old bytes");
}

#[test]
fn behind_each_record_lies_a_zero_where_the_next_length_will_be() {
    let mut rig = rig();
    for round in 0..5 {
        fill(&mut rig, round);
    }
    for i in 0..2000 {
        rig.put(i % 10, &vec![9; 100 + (i as usize * 37) % 3000]);
        if i % 50 == 0 {
            rig.kill();
            assert!(rig.report.intact && !rig.report.torn, "{:?}", rig.report);
        }
    }
}
