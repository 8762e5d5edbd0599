//! Promise: a partition whose files cannot be right is refused, by the file's name, and nothing is deleted; the others are
//! served.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::files::{listing, segments};
use firebrick_tests::resp::Value;

/// A stopped `sync` brick with data.
fn stopped() -> Brick {
    let mut brick = filled();
    assert!(brick.stop(libc::SIGTERM).success(), "{}", brick.said());
    brick
}

fn filled() -> Brick {
    let config = "partitions = 4\n";
    let brick = Brick::start(&Options { durability: "sync", config, ..Options::default() });
    let mut resp = brick.connect();
    for number in 0..2000 {
        let (key, value) = (format!("key:{number}"), "v".repeat(200));
        assert!(resp.call(&["SET", &key, &value]).expect("an answer").is_ok());
    }
    brick
}

/// As after a power failure: the disk counts.
fn forget_memory(brick: &Brick) {
    std::fs::remove_dir_all(brick.memory_dir()).expect("memory_dir");
}

/// Files that hold what somebody stored: not spares, nor room held back, nor the brick's own identity, which each start writes.
fn kept(folder: &Path) -> Vec<(PathBuf, u64)> {
    let holds = |path: &Path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let unfinished = path.extension().is_some_and(|end| end == "tmp");
        let room = name.starts_with("spare-") || name == "reserve";
        !room && !name.starts_with("brick.") && !unfinished
    };
    listing(folder).into_iter().filter(|(path, _)| holds(path)).collect()
}

/// Waits until the started brick says what it does not serve.
fn not_ready(brick: &mut Brick) -> String {
    let begin = Instant::now();
    loop {
        assert!(brick.is_running(), "it ended: {}", brick.said());
        let answer = brick.http_get("/readyz").unwrap_or_default();
        if answer.starts_with("HTTP/1.1 503") && answer.contains("\r\n\r\npartition ") {
            return answer;
        }
        assert!(!answer.starts_with("HTTP/1.1 200"), "it calls itself whole");
        assert!(begin.elapsed() < Duration::from_mins(1), "{answer}{}", brick.said());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The brick must refuse the file's partition alone, naming the file, and leave all files as they are.
fn refuses_naming(mut brick: Brick, file: &Path) -> String {
    let both = |brick: &Brick| {
        let folders = [brick.data_dir(), brick.memory_dir()];
        folders.into_iter().flat_map(kept).collect::<Vec<_>>()
    };
    let before = both(&brick);
    let said_before = brick.said().len();
    brick.restart_without_waiting();
    let told = not_ready(&mut brick);
    let said = brick.said().split_off(said_before);
    let name = file.file_name().expect("a name").to_string_lossy();
    for said in [&said, &told, &brick.cli(&["status"])] {
        assert!(said.contains(&*name), "it does not name {name}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let mut resp = brick.connect();
    assert_eq!(resp.ask("PING"), Value::Simple("PONG".to_owned()));
    let (mut served, mut refused) = (0, 0);
    for number in 0..2000 {
        match resp.ask(&format!("GET key:{number}")) {
            Value::Error(why) if why.starts_with("MISCONF ") => refused += 1,
            found => {
                assert_eq!(found, Value::Bulk("v".repeat(200).into_bytes()), "key:{number}");
                served += 1;
            }
        }
    }
    assert!(served > 1200 && refused > 200, "{served} are served, {refused} refused");
    assert!(brick.stop(libc::SIGTERM).success(), "{}", brick.said());
    // Locks and the like may appear, and whole partitions may note their new epoch in their manifests;
    // nothing may go or shrink.
    let after = both(&brick);
    for (path, bytes) in before {
        let is_there = after.iter().any(|(p, b)| *p == path && *b >= bytes);
        assert!(is_there, "{} of {bytes} bytes was deleted or cut", path.display());
    }
    said
}

/// The partition's manifest, whatever its exact name.
fn manifest(folder: &Path) -> PathBuf {
    let files = listing(folder).into_iter().map(|(path, _)| path);
    let named = |path: &PathBuf| {
        let in_partition = segments(folder).iter().any(|segment| segment.parent() == path.parent());
        let name = path.file_name().expect("a name").to_string_lossy().to_lowercase();
        in_partition && name.contains("manifest")
    };
    files.into_iter().find(named).expect("a partition has a manifest")
}

/// Writes a format number of the future (bytes 8..12, docs/formats.md).
fn make_newer(manifest: &Path) {
    let mut bytes = std::fs::read(manifest).expect("a manifest");
    bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
    std::fs::write(manifest, bytes).expect("the changed manifest");
}

/// The biggest segment holds records that were acked.
fn a_segment(folder: &Path) -> PathBuf {
    let sizes = |path: &PathBuf| {
        std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&b| b != 0).count())
    };
    segments(folder).into_iter().max_by_key(sizes).expect("a segment")
}

#[test]
fn a_segment_cut_short_is_refused() {
    let brick = stopped();
    forget_memory(&brick);
    let segment = a_segment(brick.data_dir());
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(10_000).unwrap();
    refuses_naming(brick, &segment);
}

/// A mapping of it would end the process at the first look behind its end.
#[test]
fn a_segment_cut_short_in_memory_is_refused() {
    let mut brick = filled();
    brick.kill9();
    let segment = a_segment(brick.memory_dir());
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(10_000).unwrap();
    refuses_naming(brick, &segment);
}

#[test]
fn a_missing_manifest_is_refused() {
    let brick = stopped();
    forget_memory(&brick);
    let manifest = manifest(brick.data_dir());
    std::fs::remove_file(&manifest).unwrap();
    refuses_naming(brick, &manifest);
}

#[test]
fn a_damaged_manifest_is_refused() {
    let brick = stopped();
    forget_memory(&brick);
    let manifest = manifest(brick.data_dir());
    let middle = std::fs::metadata(&manifest).unwrap().len() / 2;
    firebrick_tests::files::flip(&manifest, middle, 3);
    refuses_naming(brick, &manifest);
}

#[test]
fn a_manifest_of_a_newer_format_is_refused_and_says_so() {
    let brick = stopped();
    forget_memory(&brick);
    let manifest = manifest(brick.data_dir());
    make_newer(&manifest);
    let said = refuses_naming(brick, &manifest);
    assert!(said.contains("newer"), "{said}");
}

#[test]
fn a_foreign_file_is_refused() {
    let brick = stopped();
    let foreign = a_segment(brick.data_dir()).with_file_name("holiday.jpg");
    std::fs::write(&foreign, b"not ours").unwrap();
    refuses_naming(brick, &foreign);
}

#[test]
fn a_file_with_a_segments_name_that_is_none_is_refused() {
    let brick = stopped();
    forget_memory(&brick);
    let foreign = a_segment(brick.data_dir()).with_file_name("t900000.seg");
    std::fs::write(&foreign, vec![0x55; 1 << 20]).unwrap();
    refuses_naming(brick, &foreign);
}

#[test]
fn after_the_damage_is_undone_everything_is_there() {
    let mut brick = stopped();
    forget_memory(&brick);
    let manifest = manifest(brick.data_dir());
    let aside = manifest.parent().unwrap().parent().unwrap().parent().unwrap().join("aside");
    std::fs::rename(&manifest, &aside).unwrap();
    brick.restart_without_waiting();
    not_ready(&mut brick);
    assert!(brick.stop(libc::SIGTERM).success(), "{}", brick.said());
    std::fs::rename(&aside, &manifest).unwrap();
    brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
    let mut resp = brick.connect();
    for number in 0..2000 {
        let found = resp.ask(&format!("GET key:{number}"));
        assert_eq!(found, Value::Bulk("v".repeat(200).into_bytes()), "key:{number}");
    }
}
