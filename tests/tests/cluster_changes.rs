//! Promise: a brick that joins, a partition that moves, a primary that is handed over and a brick that is emptied and
//! removed fail no request, and every answer fits one order.
//!
//! Real processes on test hosts. Clients with a deadline of 2 s write down what they see all the time; every request
//! must be answered, and the checker judges the history. A Redis client sends pipelines of increments, which must all be
//! done, in their order. Files that were loaded before are compared afterwards.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use firebrick_tests::cluster::{Cluster, PATIENCE, Shape};
use firebrick_tests::random::Random;
use firebrick_tests::recorder::Recorder;
use firebrick_tests::resp::{self, Resp, command};
use serde_json::Value;

const CLIENTS: u32 = 4;
const KEYS: u64 = 24;
const DEADLINE: Duration = Duration::from_secs(2);
/// The load goes on for so long after a change, so that what it broke is seen.
const AFTER: Duration = Duration::from_millis(300);

/// 1,000 files of 8 KiB: a copy takes a moment.
fn files(folder: &Path) {
    for n in 0..1_000_u32 {
        let text = format!("{n} ").repeat(8 << 10);
        let written = std::fs::write(folder.join(format!("file-{n}")), &text.as_bytes()[..8 << 10]);
        written.expect("a file");
    }
}

fn status(cluster: &Cluster) -> Value {
    let text = cluster.cli(0, &["status", "--json"]);
    serde_json::from_str(&text).expect("one object")
}

fn wait_for(cluster: &Cluster, what: &str, is: impl Fn(&Value) -> bool) {
    let begin = Instant::now();
    loop {
        let status = status(cluster);
        if is(&status) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: {status:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn holds(partition: &Value, brick: &str) -> bool {
    list(&partition["members"]).iter().any(|member| member == brick)
}

fn leads(partition: &Value, brick: &str) -> bool {
    list(&partition["members"]).first().is_some_and(|member| member == brick)
}

/// Nothing is under way any more.
fn is_calm(status: &Value) -> bool {
    let whole = |p: &Value| list(&p["members"]).len() == 3 && p["epoch"] == p["active"];
    list(&status["copies"]).is_empty()
        && list(&status["moves"]).is_empty()
        && list(&status["partitions"]).iter().all(whole)
}

fn join(cluster: &mut Cluster) {
    cluster.spawn(3);
    cluster.wait_ready(3);
    wait_for(cluster, "the new brick gets its share", |status| {
        let share = |p: &&Value| holds(p, "brick-3");
        let partitions = list(&status["partitions"]);
        is_calm(status) && partitions.iter().filter(share).count() * 4 >= partitions.len()
    });
}

fn moves(cluster: &mut Cluster) {
    let before = status(cluster);
    let gone = list(&before["partitions"]).iter().find(|p| !holds(p, "brick-3")).expect("one of 4");
    let from = gone["members"][0].as_str().expect("a primary").to_owned();
    let partition = gone["partition"].to_string();
    let args = ["move", "--partition", &partition, "--from", &from, "--to", "brick-3"];
    cluster.cli(1, &args);
    let is_there = |status: &Value| {
        let found =
            list(&status["partitions"]).iter().find(|p| p["partition"] == gone["partition"]);
        found.is_some_and(|p| holds(p, "brick-3") && !holds(p, &from))
    };
    wait_for(cluster, "the move is seen on every brick", is_there);
    // What makes bricks even again is another partition.
    std::thread::sleep(AFTER);
    wait_for(cluster, "all is calm", is_calm);
    assert!(is_there(&status(cluster)), "the move was undone");
}

fn hand_overs(cluster: &mut Cluster) {
    for round in 0..6 {
        let to = format!("brick-{}", round % 3);
        let before = status(cluster);
        let backups = |p: &&Value| holds(p, &to) && !leads(p, &to);
        let partitions: Vec<&Value> =
            list(&before["partitions"]).iter().filter(backups).map(|p| &p["partition"]).collect();
        if partitions.is_empty() {
            continue;
        }
        cluster.cli(2, &["hand-over", "--table", "default", "--to", &to]);
        wait_for(cluster, "the hand-over is seen on every brick", |after| {
            let done = |p: &&Value| partitions.contains(&&p["partition"]) && leads(p, &to);
            list(&after["partitions"]).iter().filter(done).count() == partitions.len()
        });
    }
}

fn remove(cluster: &mut Cluster) {
    // (It is asked itself: it must say that it is done before it ends.)
    let said = cluster.cli(3, &["brick-remove", "brick-3"]);
    assert_eq!(said, "brick-3 is removed\n");
    assert_eq!(cluster.wait_removed(3), Some(7), "{}", cluster.said(3));
    let after = status(cluster);
    assert_eq!(list(&after["bricks"]).len(), 3);
    assert!(list(&after["partitions"]).iter().all(|p| !holds(p, "brick-3")), "{after:#}");
    wait_for(cluster, "all is calm", is_calm);
}

/// Increments of a few keys, 32 in a pipeline: each must count one more than the one before it. A connection between bricks
/// that ends, as on a machine with too much to do, may leave one in doubt: it counts once or not at all.
fn count_in_pipelines(brick: SocketAddr, recorder: &Recorder) {
    let mut redis = Resp::connect(brick).expect("a Redis connection");
    // The least and the most that a key may count.
    let mut counts = [(0_i64, 0_i64); 8];
    let key = |n: usize| format!("pipelined-{}", n % counts.len());
    let batch: Vec<u8> = (0..32).flat_map(|n| command(&["INCR", &key(n)])).collect();
    while !recorder.stop.load(Ordering::Relaxed) {
        redis.send(&batch).expect("the brick reads");
        for n in 0..32 {
            let (least, most) = &mut counts[n % 8];
            (*least, *most) = (*least + 1, *most + 1);
            match redis.receive().expect("an answer") {
                resp::Value::Integer(count) if (*least..=*most).contains(&count) => {
                    (*least, *most) = (count, count);
                    recorder.answered.fetch_add(1, Ordering::Relaxed);
                }
                resp::Value::Error(text) if text.contains("may or may not") => {
                    eprintln!("an INCR in a pipeline is in doubt");
                    *least -= 1;
                }
                told => {
                    eprintln!("INCR number {least} to {most} of {}: {told:?}", n % 8);
                    recorder.failed.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

type Change = (&'static str, fn(&mut Cluster));
const CHANGES: [Change; 4] = [
    ("a brick joins", join),
    ("a partition moves", moves),
    ("primaries are handed over", hand_overs),
    ("a brick is emptied and removed", remove),
];

#[test]
fn joins_moves_hand_overs_and_removals_fail_no_request() {
    let name = "joins_moves_hand_overs_and_removals_fail_no_request";
    let shape = Shape { bricks: 4, late: 1, ..Shape::default() };
    let Some(mut cluster) = Cluster::for_test(name, &shape) else { return };
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().expect("a folder");
    files(folder.path());
    let tree = folder.path().to_str().expect("a path");
    cluster.cli(0, &["load", "--tree", tree]);

    let recorder = Recorder::default();
    let (seeds, seed) = (cluster.seeds(), random.below(u64::MAX));
    let host = cluster.network.name(cluster.client_host());
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (recorder, seeds, host) = (&recorder, &seeds, &host);
            scope.spawn(move || {
                firebrick_tests::network::enter(host).expect("the clients' host");
                recorder.client(number, seeds, KEYS, DEADLINE, seed);
            });
        }
        let (recorder, host, brick) = (&recorder, &host, cluster.resp(0));
        scope.spawn(move || {
            firebrick_tests::network::enter(host).expect("the clients' host");
            count_in_pipelines(brick, recorder);
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (what, change) in CHANGES {
                let before = recorder.answered.load(Ordering::Relaxed);
                change(&mut cluster);
                std::thread::sleep(AFTER);
                let answered = recorder.answered.load(Ordering::Relaxed) - before;
                let failed = recorder.failed.load(Ordering::Relaxed);
                let unknown = recorder.unknown.load(Ordering::Relaxed);
                eprintln!(
                    "{what}: {answered} requests answered, {failed} failed, {unknown} in doubt"
                );
                assert_eq!((failed, unknown), (0, 0), "{what}: requests failed");
                assert!(answered > 0, "{what}: there was no load");
            }
        }));
        recorder.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    recorder.judge();
    cluster.cli(0, &["verify", "--tree", tree]);
}
