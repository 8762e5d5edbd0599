//! Promise: a flipped bit in a segment is found by a checksum, reported with partition, segment and offset,
//! and never served; everything else is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::files::{find, flip};
use firebrick_tests::random::Random;
use firebrick_tests::resp::{Resp, Value};

const KEYS: u64 = 3000;
const DAMAGED: u64 = 5;

fn value(number: u64) -> Vec<u8> {
    let mut random = Random::new(number.wrapping_mul(0x1234_5678_9ABC_DEF1));
    let len = 40 + random.below(200) as usize;
    random.bytes(len)
}

fn fill(resp: &mut Resp) {
    for number in 0..KEYS {
        let answer = resp.call(&[b"SET", format!("key:{number}").as_bytes(), &value(number)]);
        assert!(answer.expect("an answer").is_ok());
    }
}

/// Flips a bit in the value of some keys, wherever their records lie below `folder`. The file names.
fn damage(folder: &std::path::Path, random: &mut Random) -> BTreeMap<u64, (String, u64)> {
    let mut damaged = BTreeMap::new();
    while (damaged.len() as u64) < DAMAGED {
        // Not the last records: those are a torn tail, which is no damage.
        let number = random.below(KEYS - 500);
        // A value that is damaged already cannot be found again.
        if damaged.contains_key(&number) {
            continue;
        }
        let value = value(number);
        let (path, at) = find(folder, &value).expect("the value lies in a segment");
        let at = at + random.below(value.len() as u64);
        flip(&path, at, random.below(8) as u8);
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        damaged.insert(number, (name, at));
    }
    damaged
}

/// Reads every key: the damaged must not be served, the others must. A brick that knew a key before the damage does
/// not say that there is none.
fn check(resp: &mut Resp, damaged: &BTreeMap<u64, (String, u64)>, known: bool) {
    for number in 0..KEYS {
        let answer = resp.call(&["GET", &format!("key:{number}")]).expect("an answer");
        match (damaged.contains_key(&number), answer) {
            (false, Value::Bulk(found)) if found == value(number) => {}
            (true, Value::Error(why)) if why.starts_with("ERR Corrupt") => {}
            (true, Value::Nil) if !known => {}
            (bad, answer) => panic!("key:{number}, damaged: {bad}, was answered {answer:?}"),
        }
    }
}

/// The report names partition, segment and an offset at or before the flipped byte.
fn reported(brick: &Brick, damaged: &BTreeMap<u64, (String, u64)>) {
    let begin = Instant::now();
    loop {
        let said = brick.said();
        let named = |(name, at): &(String, u64)| {
            let number: String = name.chars().filter(char::is_ascii_digit).collect();
            said.lines().any(|line| {
                let numbers =
                    line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
                line.contains("partition")
                    && (line.contains(name.as_str()) || line.contains(&format!("segment {number}")))
                    && numbers.into_iter().any(|n: u64| n <= *at && n + 1000 > *at)
            })
        };
        if damaged.values().all(named) {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{damaged:?} is not reported with partition, segment and offset; the brick said: {said}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The brick counts what it found where operators look.
fn counted(brick: &Brick) {
    let begin = Instant::now();
    loop {
        let metrics = brick.http_get("/metrics").expect("metrics");
        let count = metrics
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains("corrupt"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>();
        if count >= 1.0 {
            return;
        }
        // A core that falls idle publishes its figures a moment later.
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "no counter of corrupt records in /metrics:\n{metrics}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn flipped_while_the_brick_was_dead() {
    let mut random = Random::from_environment();
    let mut brick = Brick::start(&Options::default());
    fill(&mut brick.connect());
    brick.kill9();
    let damaged = damage(brick.memory_dir(), &mut random);
    brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
    check(&mut brick.connect(), &damaged, false);
    reported(&brick, &damaged);
    counted(&brick);
}

#[test]
fn flipped_under_a_running_brick() {
    let mut random = Random::from_environment();
    let brick = Brick::start(&Options::default());
    fill(&mut brick.connect());
    let damaged = damage(brick.memory_dir(), &mut random);
    check(&mut brick.connect(), &damaged, true);
    reported(&brick, &damaged);
    counted(&brick);
    // A new value heals the key.
    let mut resp = brick.connect();
    for number in damaged.keys() {
        let key = format!("key:{number}");
        assert!(resp.call(&[b"SET", key.as_bytes(), b"healed"]).unwrap().is_ok());
        assert_eq!(resp.call(&["GET", &key]).unwrap(), Value::Bulk(b"healed".to_vec()));
    }
}

#[test]
fn flipped_on_disk_and_memory_gone() {
    let mut random = Random::from_environment();
    let mut brick = Brick::start(&Options { durability: "sync", ..Options::default() });
    fill(&mut brick.connect());
    assert!(brick.stop(libc::SIGTERM).success());
    // What a power failure leaves: the disk alone.
    std::fs::remove_dir_all(brick.memory_dir()).unwrap();
    let damaged = damage(brick.data_dir(), &mut random);
    brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
    check(&mut brick.connect(), &damaged, false);
    reported(&brick, &damaged);
    counted(&brick);
}
