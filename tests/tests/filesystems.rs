//! Promise: `data_dir` may lie on any file system of Linux. Where it refuses `O_DIRECT` the brick goes on through the
//! page cache and says so; everywhere an acked write of a `sync` table survives a power failure. Needs root, to mount.

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::machine::{Mount, is_root, skip};
use firebrick_tests::resp::Value;

fn value(number: u64, round: u8) -> Vec<u8> {
    // Small ones, and one larger than a segment of an empty store.
    let len = if number == 7 { 1_500_000 } else { 100 + number as usize * 37 };
    let mut value = vec![round; len];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

const KEYS: u64 = 60;

fn put_all(brick: &Brick, round: u8) {
    let mut resp = brick.connect();
    for number in 0..KEYS {
        let key = format!("key:{number}");
        let answer = resp.call(&[b"SET", key.as_bytes(), &value(number, round)]).expect("acked");
        assert!(answer.is_ok(), "{key}: {answer:?}; {}", brick.said());
    }
}

fn find_all(brick: &Brick, round: u8, when: &str) {
    let mut resp = brick.connect();
    for number in 0..KEYS {
        let found = resp.call(&["GET", &format!("key:{number}")]).expect("an answer");
        assert!(found == Value::Bulk(value(number, round)), "key:{number} {when}");
    }
}

/// Writes, `kill -9`, power failure, and again. `buffered`: this file system refuses direct writes.
fn keeps_acked_writes(test: &str, mount: Result<Mount, String>, buffered: bool) {
    let mount = match mount {
        Ok(mount) if is_root() => mount,
        Ok(_) => return skip(test, "only root may mount a file system"),
        Err(error) => return skip(test, &error),
    };
    let options = Options {
        durability: "sync",
        memory: "64MiB",
        data_dir: Some(mount.path().join("brick")),
        ..Options::default()
    };
    let mut brick = Brick::start(&options);
    for round in 0..4 {
        put_all(&brick, round);
        find_all(&brick, round, "before the kill");
        brick.kill9();
        if round % 2 == 1 {
            brick.lose_memory();
        }
        brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
        find_all(&brick, round, if round % 2 == 1 { "from disk" } else { "from memory" });
    }
    put_all(&brick, 9);
    let said = brick.said();
    let told = said.matches("takes no direct writes").count();
    assert_eq!(told > 0, buffered, "{said}");
    assert!(told <= 5, "told once a start, not {told} times: {said}");
    assert!(!said.contains("its disk failed"), "{said}");
    brick.stop(libc::SIGTERM);
}

#[test]
fn ext4() {
    keeps_acked_writes("ext4", Mount::ext4(256), false);
}

#[test]
fn ext4_with_data_in_its_journal() {
    // The kernel says of each file that it takes no direct writes.
    let mkfs = ["-q", "-F", "-m", "0"];
    let mount = Mount::in_file("ext4", &mkfs, 256, "loop,data=journal");
    keeps_acked_writes("ext4_with_data_in_its_journal", mount, true);
}

#[test]
fn ext2() {
    // No fallocate and no journal.
    keeps_acked_writes(
        "ext2",
        Mount::in_file("ext2", &["-q", "-F", "-m", "0"], 256, "loop"),
        false,
    );
}

#[test]
fn xfs() {
    keeps_acked_writes("xfs", Mount::in_file("xfs", &["-q", "-f"], 512, "loop"), false);
}

#[test]
fn btrfs() {
    keeps_acked_writes("btrfs", Mount::in_file("btrfs", &["-q", "-f"], 512, "loop"), false);
}

#[test]
fn tmpfs() {
    keeps_acked_writes("tmpfs", Mount::tmpfs(256), false);
}

#[test]
fn ramfs_refuses_direct_writes() {
    let mount = Mount::without_device("ramfs", "mode=0700");
    keeps_acked_writes("ramfs_refuses_direct_writes", mount, true);
}

/// As in a container: files are opened through it, and what takes direct writes is below.
#[test]
fn overlay() {
    let below = tempfile::tempdir().expect("a folder");
    let folder = |name: &str| {
        let folder = below.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        folder.display().to_string()
    };
    let (lower, upper, work) = (folder("lower"), folder("upper"), folder("work"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    keeps_acked_writes("overlay", Mount::without_device("overlay", &options), false);
}
