//! Faults on real files: kills, power failures, flipped bits, foreign files, full file systems.
#![allow(clippy::unwrap_used)]
#![cfg(not(miri))]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::rig::*;
use common::*;
use firebrick_log::storage::StorageError;
use firebrick_log::*;

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

fn filled(durability: Durability) -> (Rig, Values) {
    let mut rig = Rig::quick(config(durability));
    for i in 0..900u64 {
        let n = if i % 3 == 0 { i % 30 } else { 100 + i % 400 };
        rig.put(n, &i.to_le_bytes().repeat(8));
    }
    rig.clean(false);
    rig.pump();
    let values = rig.index.values(&rig.log);
    (rig, values)
}

#[test]
fn a_killed_brick_finds_everything_in_memory_whatever_its_durability() {
    for durability in [Durability::Memory, Durability::Async { ms: 50 }, Durability::Sync] {
        let (mut rig, mut values) = filled(durability);
        for round in 0..10 {
            for i in 0..37 {
                rig.put(1000 + round * 100 + i, &[round as u8; 64]);
                values.insert(key(1000 + round * 100 + i), vec![round as u8; 64]);
            }
            if round % 3 == 0 {
                rig.clean(true);
            }
            rig.kill();
            assert!(rig.report.intact, "{:?}", rig.report);
            assert_eq!(rig.index.values(&rig.log), values, "{durability:?}, round {round}");
        }
    }
}

#[test]
fn power_failure_keeps_every_flushed_record_in_sync() {
    let (mut rig, mut values) = filled(Durability::Sync);
    for round in 0..5 {
        for i in 0..40 {
            rig.put(500 + i, &[round; 64]);
            values.insert(key(500 + i), vec![round; 64]);
        }
        rig.pump();
        assert_eq!(rig.log.flushed(), rig.log.tail().seq);
        rig.lose_power();
        assert!(rig.report.intact);
        assert_eq!(rig.index.values(&rig.log), values);
        rig.clean(true);
    }
}

/// Promise 27: the old record of a key is cleaned away only when its newer one is on disk.
#[test]
fn power_failure_in_async_never_loses_a_key_to_cleaning() {
    let (mut rig, before) = filled(Durability::Async { ms: 1000 });
    rig.now += 1_000_000_000;
    rig.pump();
    for round in 0..20 {
        for i in 0..50 {
            rig.put(100 + i * 2, &[round; 64]);
        }
        rig.clean(true);
        rig.now += 100_000_000;
    }
    rig.lose_power();
    let values = rig.index.values(&rig.log);
    assert!(values.keys().eq(before.keys()), "a key vanished");
}

#[test]
fn a_memory_table_has_no_file_in_data_dir_and_begins_empty_after_a_boot() {
    let (mut rig, _) = filled(Durability::Memory);
    assert!(std::fs::read_dir(&rig.data).unwrap().next().is_none());
    rig.boot += 1;
    rig.kill();
    assert!(rig.index.values(&rig.log).is_empty());
    assert!(!rig.report.intact && rig.notes.iter().any(|n| n.contains("begins empty")));
    rig.put(1, b"x");
    rig.kill();
    assert_eq!(rig.index.values(&rig.log).len(), 1);
}

/// A flipped bit in every region of every segment: found, reported, never served; the rest is.
#[test]
fn a_flipped_bit_is_found_and_everything_else_is_served() {
    for side in ["memory", "data"] {
        let (mut rig, values) = filled(Durability::Sync);
        let files: Vec<String> =
            rig.files(side).into_iter().filter(|f| f.contains(".seg")).collect();
        let bytes: Vec<Vec<u8>> =
            files.iter().map(|f| std::fs::read(rig.dir(side).join(f)).unwrap()).collect();
        assert!(files.len() > 2, "{files:?}");
        let records = |b: &[u8]| b.iter().rposition(|&b| b != 0).unwrap() > 4096;
        for (file, _) in files.iter().zip(&bytes).filter(|(_, b)| records(b)).step_by(3) {
            // Magic, format, partition, number, made_at, size, kind, checksum; then a record's length,
            // checksum, seq, epoch, partition, lag, kind, version, body.
            let head = [0, 9, 12, 16, 24, 33, 40, 45];
            let record =
                [4096, 4101, 4104, 4112, 4117, 4121, 4122, 4123, 4140, 4096 + 128 * 3 + 90];
            for at in head.into_iter().chain(record) {
                rig.flip(side, file, at, 2);
                rig.nonce += 1;
                if side == "data" {
                    rig.boot += 1;
                }
                rig.restart().unwrap_or_else(|e| panic!("{file} at {at}: {e}"));
                assert!(rig.report.corruptions_total >= 1, "{file} at {at}: {:?}", rig.report);
                let found = rig.index.values(&rig.log);
                let lost = values.iter().filter(|&(k, v)| found.get(k) != Some(v)).count();
                let most = usize::from(at >= 4096);
                assert!(lost <= most, "{file} at {at}: {lost} lost, {:?}", rig.report);
                let told = &rig.report.corruptions[0];
                let name = told.segment.unwrap().to_string();
                assert_eq!((told.partition, &name), (PARTITION, file), "at {at}: {told:?}");
                // The page, or the record's first byte.
                let begin = if at < 4096 { 0 } else { at - (at - 4096) % 128 };
                assert_eq!(told.offset, begin, "{file} at {at}: {told:?}");
                rig.flip(side, file, at, 2);
                rig.nonce += 1;
                // Not intact is remembered: begin again from the good copy.
                for (f, b) in files.iter().zip(&bytes) {
                    for s in ["memory", "data"] {
                        std::fs::write(rig.dir(s).join(f), b).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn a_record_damaged_while_running_is_reported_and_never_served_or_cleaned_away() {
    let (mut rig, _) = filled(Durability::Memory);
    let loc = rig.index.at[&key(3)].0;
    let name = rig.log.segment_name(loc).unwrap();
    let offset = (loc.to_bits() & ((1 << 23) - 1)) * 8;
    rig.flip("memory", &name.to_string(), offset + 70, 1);
    let corrupt = rig.log.record(loc).unwrap_err();
    assert_eq!((corrupt.partition, corrupt.segment), (PARTITION, Some(name)));
    assert_eq!(corrupt.offset, offset);
    for i in 0..1000 {
        rig.put(200 + i % 5, &[1; 64]);
    }
    rig.clean(true);
    assert!(rig.files("memory").contains(&name.to_string()));
    assert!(rig.log.record(loc).is_err());
}

#[test]
fn a_start_that_cannot_be_trusted_is_refused_names_the_file_and_deletes_nothing() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 6] = [
        ("manifest", |dir| std::fs::remove_file(dir.join("manifest")).unwrap()),
        ("manifest", |dir| {
            let mut bytes = std::fs::read(dir.join("manifest")).unwrap();
            bytes[8] = 2;
            std::fs::write(dir.join("manifest"), bytes).unwrap();
        }),
        ("manifest", |dir| {
            let mut bytes = std::fs::read(dir.join("manifest")).unwrap();
            bytes[90] ^= 1;
            std::fs::write(dir.join("manifest"), bytes).unwrap();
        }),
        ("t5.seg", |dir| {
            let file = std::fs::OpenOptions::new().write(true).open(dir.join("t5.seg")).unwrap();
            file.set_len(9000).unwrap();
        }),
        ("core.1234", |dir| std::fs::write(dir.join("core.1234"), "x").unwrap()),
        ("t5.seg", |dir| {
            let mut bytes = std::fs::read(dir.join("t5.seg")).unwrap();
            bytes[8] = 9;
            let crc = crc32fast::hash(&bytes[..44]);
            bytes[44..48].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(dir.join("t5.seg"), bytes).unwrap();
        }),
    ];
    for (n, (file, damage)) in cases.into_iter().enumerate() {
        let mut rig = Rig::new(config(Durability::Sync));
        for i in 0..600 {
            rig.put(i, &[1; 64]);
        }
        rig.pump();
        damage(&rig.dir("data"));
        rig.boot += 1;
        rig.nonce += 1;
        let before = (rig.files("memory"), rig.files("data"));
        let error = rig.restart().expect_err("must be refused");
        let path = rig.dir("data").join(file);
        assert!(error.to_string().contains(path.to_str().unwrap()), "case {n}: {error}");
        assert_eq!((rig.files("memory"), rig.files("data")), before, "case {n}: {error}");
        let as_expected = match n {
            0 => matches!(error, StorageError::MissingManifest { .. }),
            1 | 5 => matches!(error, StorageError::NewerFormat { .. }),
            2 => matches!(error, StorageError::Damaged { .. }),
            3 => matches!(error, StorageError::CutShort { bytes: 9000, .. }),
            _ => matches!(error, StorageError::Foreign { .. }),
        };
        assert!(as_expected, "case {n}: {error}");
    }
}

/// Fills until refused, lets others have what is left, removes, cleans, and writes again.
fn fill_empty_fill(mut rig: Rig, side: &str, others: impl FnOnce()) {
    let mut n = 0;
    let refused = loop {
        match rig.try_write(&put(&key(n), &[1; 1000])) {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
        rig.now += 1_000_000;
        if rig.now.is_multiple_of(16_000_000) {
            rig.pump();
        }
        assert!(n < 100_000, "never full");
    };
    assert_eq!(refused, AppendError::NoSpace);
    if !side.is_empty() {
        let sentence = rig.spares.refusal().expect("the pool says why");
        assert!(sentence.contains(side), "{sentence}");
    }
    others();
    for i in 0..n {
        assert!(rig.index.value(&rig.log, &key(i)).is_some(), "reads go on");
    }
    for i in 0..n {
        let key = key(i);
        for _ in 0..50 {
            match rig.try_write(&Body::Remove { key: &key, id: None }) {
                Ok(_) => break,
                Err(error) => {
                    assert!(i > 0, "no remove in a full store: {error}");
                    rig.clean(true);
                    rig.now += 300_000_000;
                    rig.spares.room_again();
                    rig.log.room_again();
                    rig.pump();
                }
            }
        }
        assert!(rig.index.value(&rig.log, &key).is_none(), "removed {i} of {n}");
    }
    for _ in 0..3 {
        rig.now += 1_000_000_000;
        rig.clean(true);
    }
    rig.spares.room_again();
    rig.log.room_again();
    rig.pump();
    for i in 0..n / 2 {
        rig.try_write(&put(&key(i), &[2; 1000])).unwrap_or_else(|e| panic!("{i} of {n}: {e}"));
        rig.now += 1_000_000;
        if rig.now.is_multiple_of(16_000_000) {
            rig.pump();
        }
    }
    assert!(!rig.log.stats().sick, "{:?}", rig.outcomes);
}

#[test]
fn a_full_replica_refuses_writes_takes_removes_and_writes_again() {
    let cfg = LogConfig { bytes_max: 1 << 20, ..config(Durability::Memory) };
    fill_empty_fill(Rig::new(cfg), "", || ());
}

/// Not by `eprintln!`: of a test that passes nobody would see it.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(kind: &str, args: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", kind]).args(args).arg(dir.path());
        match command.output() {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                skip(&format!("cannot mount {kind} (needs root): {other:?}"));
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

/// Takes a file system's last block.
fn take_the_rest(dir: &Path) {
    let mut file = std::fs::File::create(dir.join("another's")).unwrap();
    for bytes in [4096, 1024] {
        while file.write_all(&vec![1; bytes]).and_then(|()| file.sync_all()).is_ok() {}
    }
}

/// Then a folder that lists one name more needs a block.
fn list_as_much_as_fits(dir: &Path) {
    for n in 0.. {
        if std::fs::File::create(dir.join(format!("o{n:03}.seg"))).is_err() {
            return;
        }
    }
}

#[test]
fn a_full_memory_dir_is_no_space_and_nothing_worse() {
    let Some(memory) = Mounted::new("tmpfs", &["-o", "size=1m", "none"]) else { return };
    let data = tempfile::tempdir().unwrap();
    let cfg = LogConfig { bytes_max: 64 << 20, ..config(Durability::Sync) };
    let rig = Rig::at(cfg, memory.0.path(), data.path());
    fill_empty_fill(rig, "memory_dir", || take_the_rest(memory.0.path()));
}

#[test]
fn a_full_data_dir_is_no_space_and_nothing_worse() {
    // A folder with an index is full for some names before it is for others.
    let features = "^has_journal,^dir_index";
    for full_folder in [false, true] {
        let images = tempfile::tempdir().unwrap();
        let image = images.path().join("disk");
        std::fs::File::create(&image).unwrap().set_len(3 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-O", features]).arg(&image).output();
        if !made.is_ok_and(|o| o.status.success()) {
            skip("no mkfs.ext4");
            return;
        }
        let source = image.to_str().unwrap();
        let Some(data) = Mounted::new("ext4", &["-o", "loop", source]) else { return };
        std::fs::remove_dir(data.0.path().join("lost+found")).ok();
        let (memory, _) = tempdirs();
        let cfg = LogConfig { bytes_max: 64 << 20, ..config(Durability::Sync) };
        let rig = Rig::at(cfg, memory.path(), data.0.path());
        let folder = rig.dir("data");
        fill_empty_fill(rig, "data_dir", || {
            take_the_rest(data.0.path());
            if full_folder {
                list_as_much_as_fits(&folder);
            }
        });
    }
}
