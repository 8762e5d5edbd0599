//! Promise: a request that is retried applies once, also when the brick was killed between its write and its
//! answer. One client increments counters through kill after kill (`$FIREBRICK_KILL_ROUNDS`, 50); every answer
//! it was given, and the sum in the end, must be what increments that each happened exactly once give.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use firebrick_client::{Client, Error, Options as ClientOptions, Table};
use firebrick_tests::brick::{Brick, Options, kill_rounds};
use firebrick_tests::random::Random;
use firebrick_tests::runtime;

const COUNTERS: usize = 4;
/// Increments of each counter that are a load.
const LOAD: u64 = 50;

/// What one counter's user saw.
#[derive(Debug, Default)]
struct Seen {
    answers: BTreeSet<i64>,
    in_doubt: i64,
}

/// Increments one after the other until told to stop. The values answered must grow.
async fn increment_until(table: Table, key: String, stop: &AtomicBool, count: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::SeqCst) {
        match table.increment(key.as_str(), 1).await {
            Ok(value) => {
                let last = seen.answers.last().copied().unwrap_or(0);
                assert!(value > last, "{key} went from {last} to {value}");
                seen.answers.insert(value);
                count.fetch_add(1, Ordering::SeqCst);
            }
            // Both are honest: it may have happened.
            Err(Error::InDoubt) => seen.in_doubt += 1,
            Err(error) => panic!("{key}: {error}"),
        }
    }
    seen
}

fn check(key: &str, seen: &Seen, stored: i64) {
    let answered = seen.answers.len() as i64;
    assert!(answered > LOAD as i64, "{key}: {answered} increments are no load");
    assert!(
        (answered..=answered + seen.in_doubt).contains(&stored),
        "{key} is {stored} after {answered} answered increments and {} in doubt",
        seen.in_doubt
    );
    let last = seen.answers.last().copied().unwrap_or(0);
    assert!(last <= stored, "{key}: {last} was answered and {stored} is stored");
}

#[test]
fn increments_through_kills_apply_once() {
    through_kills(&Options::default());
}

#[test]
fn increments_through_kills_apply_once_in_async_tables_of_two_data_cores() {
    through_kills(&Options { durability: "async", cores: "0-1", ..Options::default() });
}

fn through_kills(options: &Options) {
    let mut random = Random::from_environment();
    let mut brick = Brick::start(options);
    let address = brick.native.to_string();
    let stop = AtomicBool::new(false);
    let counts: [AtomicU64; COUNTERS] = Default::default();
    let seen = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            runtime().block_on(async {
                let options =
                    ClientOptions { deadline: Duration::from_mins(1), ..ClientOptions::default() };
                let client = Client::connect_with(&address, options).await.expect("a connection");
                let table = client.table("default").await.expect("the table");
                let one = |n: usize| {
                    increment_until(table.clone(), format!("counter:{n}"), &stop, &counts[n])
                };
                let (a, b, c, d) = tokio::join!(one(0), one(1), one(2), one(3));
                [a, b, c, d]
            })
        });
        for _ in 0..kill_rounds() {
            std::thread::sleep(Duration::from_micros(random.below(60_000)));
            brick.kill9();
            brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
        }
        let begin = Instant::now();
        while counts.iter().any(|count| count.load(Ordering::SeqCst) <= LOAD)
            && begin.elapsed() < Duration::from_secs(30)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::SeqCst);
        load.join().expect("the load")
    });
    assert_eq!(seen.len(), COUNTERS);
    let in_doubt: i64 = seen.iter().map(|seen| seen.in_doubt).sum();
    assert_eq!(in_doubt, 0, "the log keeps the sessions: after a restart no retry is in doubt");
    let mut resp = brick.connect();
    for (n, seen) in seen.iter().enumerate() {
        let key = format!("counter:{n}");
        match resp.ask(&format!("GET {key}")) {
            firebrick_tests::resp::Value::Bulk(digits) => {
                let stored = String::from_utf8_lossy(&digits).parse().expect("a number");
                check(&key, seen, stored);
            }
            other => panic!("{key}: {other:?}"),
        }
    }
}
