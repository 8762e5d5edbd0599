//! Points 1 to 4: what lies where, and how a segment comes to be.

use super::*;

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

/// Nothing but the manifest knows the number then. Below `lowest` a new segment would be an orphan.
#[test]
fn point_01_numbers_go_on_when_no_segment_is_left() {
    let mut rig = rig(Durability::Memory);
    for i in 0..5 {
        rig.put(i, &[1; 64]);
    }
    rig.log.rebase(Version { epoch: 1, seq: 5 }, false, |_| ());
    rig.index = Index::default();
    rig.pump();
    assert!(!rig.files("memory").iter().any(|file| file.contains(".seg")));
    rig.kill();
    rig.put(7, b"x");
    assert!(rig.files("memory").contains(&"t2.seg".to_owned()), "{:?}", rig.files("memory"));
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).len(), 1);
}
