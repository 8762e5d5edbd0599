//! Promise: whatever fails, what PROTOCOL.md promises holds. Thousands of short simulated runs, each with
//! other faults, each checked wholly: linearizable per key, one primary, epochs that only rise, committed
//! records that stay, and in the end every replica equal and every group whole.
//!
//! `FIREBRICK_SIM_SEED=n` runs one seed with every message in its trace, `FIREBRICK_SIM_COUNT=n` that many
//! from there on, `FIREBRICK_SIM_LONG=1` runs until it is stopped or something is wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use firebrick_tests::random::Random;
use firebrick_tests::sim::{Coverage, Outcome, Plan, run, shrink};

/// Seeds of a run in CI.
const SEEDS: u64 = 1_000;
/// Runs that may be spent on making a failure small.
const SHRINKS: usize = 80;

/// What must have happened in that many seeds, or they show nothing.
const INTERESTING: &[&str] = &[
    "a backup hands a read to the primary",
    "a brick is emptied",
    "a brick is taken out",
    "a hand-over is asked for",
    "a learner is promoted",
    "a live brick leaves",
    "a machine loses everything",
    "a machine loses its memory",
    "a prepared write is left to another primary",
    "a primary steps down",
    "a process is killed",
    "a process stops in the middle of a turn",
    "a read is dropped without a lease",
    "a restarted process registers",
    "a stale route is answered",
    "a stopped group is led",
    "a tail is truncated",
    "a withheld answer leaves",
    "a write is answered after a lost try",
    "a write is refused for want of room",
    "all power fails",
    "an epoch begins with records in doubt",
    "an operation ends in doubt",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn commit() -> String {
    let git = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    git.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}

fn fail(outcome: &Outcome) -> ! {
    println!("{outcome}");
    panic!("seed {} at commit {}", outcome.plan.seed, commit());
}

/// Runs seeds on two threads until `goes_on` says no; the first that fails.
fn search(first: u64, goes_on: impl Fn(u64) -> bool + Sync) -> (Coverage, Option<Outcome>) {
    let (next, found) = (AtomicU64::new(first), AtomicBool::new(false));
    let work = || {
        let mut cover = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if found.load(Ordering::Relaxed) || !goes_on(seed) {
                return (cover, None);
            }
            let outcome = run(&Plan::short(seed), false);
            cover.add(&outcome.cover);
            if outcome.failure.is_some() {
                found.store(true, Ordering::Relaxed);
                return (cover, Some(outcome));
            }
        }
    };
    let results = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|thread| thread.join().expect("a thread of the simulator"))
    });
    let mut cover = Coverage::default();
    let mut failed = None;
    for (covered, outcome) in results {
        cover.add(&covered);
        failed = failed.or(outcome);
    }
    (cover, failed)
}

#[test]
fn nothing_that_is_promised_breaks() {
    let begun = Instant::now();
    let (first, count) = (number("FIREBRICK_SIM_SEED"), number("FIREBRICK_SIM_COUNT"));
    if let (Some(seed), None) = (first, count) {
        let outcome = run(&Plan::short(seed), true);
        assert!(outcome.failure.is_none() || fail(&outcome));
        return;
    }
    let long = number("FIREBRICK_SIM_LONG").is_some();
    let first =
        first.unwrap_or_else(|| if long { Random::from_environment().next_u64() >> 16 } else { 1 });
    let end = first + count.unwrap_or(SEEDS);
    let (cover, failed) = search(first, |seed| long || seed < end);
    println!("{cover}seeds from {first} on in {:?}", begun.elapsed());
    if let Some(outcome) = failed {
        println!("seed {} fails, made smaller now", outcome.plan.seed);
        fail(&shrink(&outcome.plan, SHRINKS));
    }
    if count.is_none() {
        let missing: Vec<_> = INTERESTING.iter().filter(|what| cover.count(what) == 0).collect();
        assert!(missing.is_empty(), "these runs show nothing about: {missing:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 1..9 {
        let plan = Plan::short(seed);
        let (first, second) = (run(&plan, true), run(&plan, true));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.checked, second.checked, "seed {seed}");
    }
}
