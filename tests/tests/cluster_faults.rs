//! Promise: several bricks are one linearizable table, whatever happens to them: killed, paused past their
//! lease, cut off in one direction or both, slowed down, started again with or without their memory.
//!
//! Real processes on test hosts; clients write down what they see, and the checker judges it afterwards.
//! `FIREBRICK_FAULTS` sets how many faults a run has.

use std::sync::atomic::Ordering;
use std::time::Duration;

use firebrick_tests::check;
use firebrick_tests::cluster::{Cluster, Shape};
use firebrick_tests::random::Random;
use firebrick_tests::recorder::Recorder;

const CLIENTS: u32 = 6;
const KEYS: u64 = 24;
/// Between two faults.
const CALM: Duration = Duration::from_millis(400);

fn faults(default: usize) -> usize {
    std::env::var("FIREBRICK_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Does one fault, and undoes it. What it was, for people.
fn fault(cluster: &mut Cluster, random: &mut Random) -> String {
    let bricks = cluster.len() as u64;
    let brick = random.below(bricks) as usize;
    let other = (brick + 1 + random.below(bricks - 1) as usize) % cluster.len();
    let wait = Duration::from_millis(50 + random.below(1500));
    let what = match random.below(8) {
        0 | 1 => {
            cluster.kill(brick);
            std::thread::sleep(wait);
            cluster.spawn(brick);
            cluster.wait_ready(brick);
            format!("brick {brick} killed for {wait:?}")
        }
        2 => {
            // The others must be whole before one loses all it has.
            cluster.mend();
            cluster.kill(brick);
            cluster.lose_memory(brick);
            std::thread::sleep(wait);
            cluster.spawn(brick);
            cluster.wait_ready(brick);
            cluster.await_health();
            format!("brick {brick} lost its memory for {wait:?}")
        }
        3 | 4 => {
            cluster.pause(brick);
            std::thread::sleep(wait);
            cluster.resume(brick);
            format!("brick {brick} paused for {wait:?}")
        }
        5 => {
            cluster.network.cut(brick, other);
            std::thread::sleep(wait);
            cluster.network.heal();
            format!("nothing from brick {brick} to {other} for {wait:?}")
        }
        6 => {
            for other in (0..cluster.len()).filter(|&other| other != brick) {
                cluster.network.part(brick, other);
            }
            std::thread::sleep(wait);
            cluster.network.heal();
            format!("brick {brick} cut off for {wait:?}")
        }
        _ => {
            cluster.network.slow(brick, 5);
            std::thread::sleep(wait);
            cluster.network.fast(brick);
            format!("brick {brick} slow for {wait:?}")
        }
    };
    std::thread::sleep(CALM);
    what
}

fn run(test: &str, shape: &Shape, count: usize) {
    let Some(mut cluster) = Cluster::for_test(test, shape) else { return };
    let mut random = Random::from_environment();
    cluster.cli(0, &["table", "list"]);
    let recorder = Recorder::default();
    let seeds = cluster.seeds();
    let (seed, host) = (random.below(u64::MAX), cluster.client_host());
    let name = cluster.network.name(host);
    let mut done = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (recorder, seeds, name) = (&recorder, &seeds, &name);
            scope.spawn(move || {
                firebrick_tests::network::enter(name).expect("the clients' host");
                recorder.client(number, seeds, KEYS, Duration::from_secs(3), seed);
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..count {
                done.push(fault(&mut cluster, &mut random));
            }
            cluster.mend();
            // What the clients see of a whole cluster belongs to the history.
            std::thread::sleep(Duration::from_secs(1));
        }));
        recorder.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            eprintln!("faults so far: {done:#?}");
            std::panic::resume_unwind(panic);
        }
    });
    let history = recorder.history();
    let answered = recorder.answered.load(Ordering::Relaxed);
    let failed = recorder.failed.load(Ordering::Relaxed);
    let unknown = recorder.unknown.load(Ordering::Relaxed);
    match check::check(&history) {
        Ok(checked) => eprintln!(
            "{} faults; {checked:?}; {answered} answered, {failed} failed, {unknown} in doubt",
            done.len()
        ),
        Err(violation) => panic!("{violation}\nfaults: {done:#?}"),
    }
    assert!(answered > 100 * count as u64, "only {answered} calls were answered");
}

#[test]
fn a_hundred_faults_and_every_answer_fits_one_order() {
    let shape = Shape::default();
    run("a_hundred_faults_and_every_answer_fits_one_order", &shape, faults(100));
}
