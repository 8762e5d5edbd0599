//! Promise: a full `memory_dir` or `data_dir` is a refused write with a clear error and nothing else: reads go on,
//! removes work, and writes resume when there is room again. Needs root, for small file systems.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebrick_client::{Client, Error, Table};
use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::machine::{Mount, is_root, skip};
use firebrick_tests::resp::{Resp, Value};
use firebrick_tests::runtime;

/// For room that comes by itself.
const PATIENCE: Duration = Duration::from_mins(1);

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![number as u8; 4000];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn put(resp: &mut Resp, number: u64) -> Value {
    resp.call(&[b"SET", format!("key:{number}").as_bytes(), &value(number)]).expect("an answer")
}

fn has(resp: &mut Resp, number: u64) {
    let found = resp.call(&["GET", &format!("key:{number}")]).expect("an answer");
    assert!(found == Value::Bulk(value(number)), "key:{number} after it was acked");
}

/// Writes until a write is refused; how many were acked.
fn fill(resp: &mut Resp, from: u64) -> u64 {
    for number in from..from + 200_000 {
        let answer = put(resp, number);
        if let Some(error) = answer.error() {
            assert!(error.starts_with("OOM"), "a full brick says {error:?}");
            return number;
        }
    }
    panic!("200,000 values of 4,000 bytes fitted into a small file system");
}

/// The story of both tests.
fn fills_up_and_recovers(mut brick: Brick) {
    let mut resp = brick.connect();
    let acked = fill(&mut resp, 0);
    assert!(acked > 1000, "only {acked} values fitted");
    for number in (0..acked).step_by(7) {
        has(&mut resp, number);
    }
    // Full again and again: refusals have no price.
    for _ in 0..100 {
        assert!(put(&mut resp, acked).error().is_some_and(|error| error.starts_with("OOM")));
    }
    // A full brick can be emptied.
    for number in 0..acked * 3 / 4 {
        assert_eq!(resp.ask(&format!("DEL key:{number}")), Value::Integer(1), "key:{number}");
    }
    let begin = Instant::now();
    while put(&mut resp, acked).error().is_some() {
        assert!(
            begin.elapsed() < Duration::from_mins(1),
            "no room after removes: {}",
            brick.said()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut again = acked + 1;
    let wanted = acked + acked / 4;
    while again < wanted {
        if put(&mut resp, again).is_ok() {
            again += 1;
            continue;
        }
        // Cleaning may be behind a fast writer for a moment.
        assert!(begin.elapsed() < Duration::from_mins(2), "{again} of {wanted}: {}", brick.said());
        std::thread::sleep(Duration::from_millis(5));
    }
    // Nothing was lost on the way, and a kill at the brim loses nothing either.
    brick.kill9();
    brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
    let mut resp = brick.connect();
    for number in (acked * 3 / 4..again).step_by(5) {
        has(&mut resp, number);
    }
    for number in (0..acked * 3 / 4).step_by(11) {
        assert_eq!(
            resp.ask(&format!("EXISTS key:{number}")),
            Value::Integer(0),
            "key:{number} came back"
        );
    }
}

fn small(test: &str, mount: Result<Mount, String>) -> Option<(Mount, PathBuf)> {
    if !is_root() {
        skip(test, "only root may mount a small file system");
        return None;
    }
    match mount {
        Ok(mount) => {
            let path = mount.path().join("brick");
            Some((mount, path))
        }
        Err(error) => {
            skip(test, &error);
            None
        }
    }
}

#[test]
fn memory_dir_full() {
    let Some((mount, path)) = small("memory_dir_full", Mount::tmpfs(80)) else { return };
    let options = Options { memory: "72MiB", memory_dir: Some(path), ..Options::default() };
    fills_up_and_recovers(Brick::start(&options));
    drop(mount);
}

#[test]
fn the_configured_memory_is_the_limit_on_a_big_machine() {
    fills_up_and_recovers(Brick::start(&Options { memory: "64MiB", ..Options::default() }));
}

#[test]
fn flushall_frees_a_full_store() {
    let brick = Brick::start(&Options { memory: "64MiB", ..Options::default() });
    let mut resp = brick.connect();
    let acked = fill(&mut resp, 0);
    assert!(resp.ask("FLUSHALL").is_ok());
    assert_eq!(resp.ask("DBSIZE"), Value::Integer(0));
    let begin = Instant::now();
    let mut again = 0;
    while again < acked / 2 {
        again += u64::from(put(&mut resp, again).is_ok());
        assert!(begin.elapsed() < Duration::from_mins(1), "{again} after FLUSHALL of {acked}");
    }
    for number in (0..again).step_by(5) {
        has(&mut resp, number);
    }
}

/// Through the native client: a key of another table.
fn other_table(brick: &Brick, ops: impl AsyncFnOnce(Table)) {
    runtime().block_on(async {
        let client = Client::connect(&brick.native.to_string()).await.expect("a connection");
        ops(client.table("other").await.expect("the table")).await;
    });
}

#[test]
fn two_tables_share_a_full_memory() {
    let brick = Brick::start(&Options { memory: "64MiB", ..Options::default() });
    brick.cli(&["table", "create", "other", "--durability", "memory"]);
    let mut resp = brick.connect();
    other_table(&brick, async |table| {
        for number in 0..500_u64 {
            table.put(number, value(number)).await.expect("an empty brick has room");
        }
    });
    let acked = fill(&mut resp, 0);
    other_table(&brick, async |table| {
        // The other table is not harmed, and refused in the same way.
        for number in 0..500_u64 {
            let found = table.get(number).await.unwrap().map(|found| found.bytes);
            assert!(found == Some(value(number)), "{number}");
        }
        let mut refused = 0;
        for number in 500..3000_u64 {
            refused +=
                u64::from(matches!(table.put(number, value(number)).await, Err(Error::NoSpace)));
        }
        assert!(refused > 0, "a full memory has no room for 2,500 values more");
    });
    for number in (0..acked).step_by(7) {
        has(&mut resp, number);
    }
    // Dropping one makes room for the other.
    brick.cli(&["table", "drop", "other", "--yes"]);
    let begin = Instant::now();
    while !put(&mut resp, acked).is_ok() {
        assert!(begin.elapsed() < Duration::from_mins(1), "no room after a drop: {}", brick.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn data_dir_full() {
    let Some((mount, path)) = small("data_dir_full", Mount::ext4(64)) else { return };
    let options = Options {
        // Not `sync`: 20,000 flushes one after the other take minutes on a slow disk.
        durability: "async",
        memory: "256MiB",
        data_dir: Some(path),
        ..Options::default()
    };
    fills_up_and_recovers(Brick::start(&options));
    drop(mount);
}

/// Another program takes the last block of a file system.
fn take_the_rest(path: &Path) -> PathBuf {
    let ballast = path.join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("a file of another program");
    while file.write_all(&[1; 4096]).is_ok() {}
    ballast
}

/// With little memory, and its data there.
fn brick_in(data_dir: PathBuf) -> Brick {
    let (durability, memory, data_dir) = ("async", "64MiB", Some(data_dir));
    Brick::start(&Options { durability, memory, data_dir, ..Options::default() })
}

fn ends_well(mut brick: Brick) {
    assert!(brick.stop(libc::SIGTERM).success(), "{}", brick.said());
}

#[test]
fn tables_come_and_go_and_a_brick_starts_without_a_free_block() {
    let test = "tables_come_and_go_and_a_brick_starts_without_a_free_block";
    let Some((mount, path)) = small(test, Mount::tmpfs(64)) else { return };
    let mut brick = brick_in(path);
    let mut resp = brick.connect();
    for number in 0..300 {
        assert!(put(&mut resp, number).is_ok());
    }
    let ballast = take_the_rest(mount.path());
    // More of them than what a brick holds back has room for. The keepers agree on each: their log holds its room.
    let names: Vec<String> = (0..7).map(|table| format!("other-{table}")).collect();
    let mut waiting = 0;
    for name in &names {
        if let Err(said) = brick.try_cli(&["table", "create", name]) {
            let why = "not served as";
            assert!(
                said.contains("is made, but at test, partition") && said.contains(why),
                "{said}"
            );
            assert!(said.contains("data_dir has no room for") && said.contains("remove"), "{said}");
            let begin = Instant::now();
            let put = brick.try_cli(&["put", "key", "value", "--table", name]);
            let at_once = begin.elapsed() < Duration::from_secs(2);
            assert!(put.is_ok() || at_once, "{put:?} after {:?}", begin.elapsed());
            waiting += 1;
        }
    }
    assert!(waiting > 0, "seven tables found room on a full disk");
    let status = brick.cli(&["status"]);
    assert!(status.contains("! test: partition") && status.contains("not served as"), "{status}");
    brick.cli(&["table", "drop", "other-0", "--yes"]);
    assert!(brick.is_running(), "a table that there is no room for: {}", brick.said());
    for number in 0..300 {
        has(&mut resp, number);
    }
    let said = brick.said();
    assert!(said.contains("data_dir has no room") && said.lines().count() < 10, "{said}");
    brick.kill9();
    let _ = take_the_rest(mount.path());
    // It starts as soon as it can, and says what it waits for.
    brick.restart_without_waiting();
    std::thread::sleep(Duration::from_secs(1));
    assert!(brick.is_running(), "a start without a free block: {}", brick.said());
    std::fs::remove_file(&ballast).unwrap();
    brick.wait_until_ready().unwrap_or_else(|refused| panic!("{refused:#?}"));
    let mut resp = brick.connect();
    for number in 0..300 {
        has(&mut resp, number);
    }
    let begin = Instant::now();
    for table in &names[1..] {
        while let Err(said) = brick.try_cli(&["put", "key", "value", "--table", table]) {
            assert!(begin.elapsed() < PATIENCE, "{said}{}", brick.cli(&["status"]));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    ends_well(brick);
}

#[test]
fn a_full_disk_that_writes_nothing_in_place_fails_no_write() {
    let test = "a_full_disk_that_writes_nothing_in_place_fails_no_write";
    let mkfs = ["-q", "-f", "-m", "single"];
    let Some((mount, path)) = small(test, Mount::in_file("btrfs", &mkfs, 160, "loop,commit=1"))
    else {
        return;
    };
    let brick = brick_in(path);
    let mut resp = brick.connect();
    for number in 0..300 {
        assert!(put(&mut resp, number).is_ok());
    }
    let ballast = take_the_rest(mount.path());
    let acked = fill(&mut resp, 300);
    // Past the bound of `async`: all of it was flushed.
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(brick.metric("firebrick_partitions_sick") == 0.0, "{}", brick.said());
    std::fs::remove_file(&ballast).unwrap();
    let begin = Instant::now();
    while !put(&mut resp, acked).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "no room again: {}", brick.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    ends_well(brick);
}

#[test]
fn a_disk_that_takes_no_more_files_can_be_emptied() {
    let test = "a_disk_that_takes_no_more_files_can_be_emptied";
    let mount = Mount::without_device("tmpfs", "size=64m,nr_inodes=64");
    let Some((mount, path)) = small(test, mount) else { return };
    let brick = brick_in(path);
    let mut resp = brick.connect();
    for number in 0..6_000 {
        assert!(put(&mut resp, number).is_ok());
    }
    for n in 0.. {
        if std::fs::File::create(mount.path().join(format!("other-{n}"))).is_err() {
            break;
        }
    }
    let acked = fill(&mut resp, 6_000);
    for number in 0..acked {
        assert_eq!(resp.ask(&format!("DEL key:{number}")), Value::Integer(1), "key:{number}");
    }
    let begin = Instant::now();
    for number in 0..acked / 2 {
        while !put(&mut resp, number).is_ok() {
            assert!(begin.elapsed() < PATIENCE, "{number} of {acked}: {}", brick.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    ends_well(brick);
}

#[test]
fn somebody_else_fills_the_file_system() {
    let Some((mount, path)) = small("somebody_else", Mount::tmpfs(80)) else { return };
    let options = Options { memory: "64MiB", memory_dir: Some(path), ..Options::default() };
    let brick = Brick::start(&options);
    let mut resp = brick.connect();
    for number in 0..500 {
        assert!(put(&mut resp, number).is_ok());
    }
    let ballast = mount.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1_u8; 80 << 20]);
    let mut acked = 500;
    while put(&mut resp, acked).is_ok() {
        acked += 1;
        assert!(acked < 20_000, "the file system is full and writes go on");
    }
    for number in (0..acked).step_by(3) {
        has(&mut resp, number);
    }
    // Long enough for a brick that nobody writes to any more to make itself small.
    std::thread::sleep(Duration::from_secs(1));
    std::fs::remove_file(&ballast).unwrap();
    let begin = Instant::now();
    while !put(&mut resp, acked).is_ok() {
        assert!(begin.elapsed() < Duration::from_mins(1), "no room again: {}", brick.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    has(&mut resp, acked);
}
