//! Looking for a seed that fails: what the tests of both levels do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::plan::Plan;
use super::run::{Outcome, Run, shrink};
use super::trace::Coverage;
use crate::random::Random;

/// Runs that may be spent on making a failure small.
const SHRINKS: usize = 80;

/// A search through the runs of a level, and what it is in CI.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// A run of the level.
    pub run: Run,
    /// What a seed stands for.
    pub plan: fn(u64) -> Plan,
    /// Seeds of a run in CI.
    pub seeds: u64,
    /// What must have happened in that many seeds, or they show nothing.
    pub interesting: &'static [&'static str],
}

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

impl Search {
    /// Runs seeds on two threads until `goes_on` says no; the first that fails.
    fn search(
        &self,
        first: u64,
        goes_on: impl Fn(u64) -> bool + Sync,
    ) -> (Coverage, Option<Outcome>) {
        let (next, found) = (AtomicU64::new(first), AtomicBool::new(false));
        let work = || {
            let mut cover = Coverage::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if found.load(Ordering::Relaxed) || !goes_on(seed) {
                    return (cover, None);
                }
                let outcome = (self.run)(&(self.plan)(seed), false);
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

    /// The test: one seed with `$FIREBRICK_SIM_SEED`, `$FIREBRICK_SIM_COUNT` seeds from there on, with
    /// `$FIREBRICK_SIM_LONG` until something is wrong, else those of CI. Panics with what is wrong.
    pub fn look_for_trouble(&self) {
        let begun = Instant::now();
        let (first, count) = (number("FIREBRICK_SIM_SEED"), number("FIREBRICK_SIM_COUNT"));
        if let (Some(seed), None) = (first, count) {
            let outcome = (self.run)(&(self.plan)(seed), true);
            assert!(outcome.failure.is_none() || fail(&outcome));
            return;
        }
        let long = number("FIREBRICK_SIM_LONG").is_some();
        let random = || Random::from_environment().next_u64() >> 16;
        let first = first.unwrap_or_else(|| if long { random() } else { 1 });
        let end = first + count.unwrap_or(self.seeds);
        let (cover, failed) = self.search(first, |seed| long || seed < end);
        println!("{cover}seeds from {first} on in {:?}", begun.elapsed());
        if let Some(outcome) = failed {
            println!("seed {} fails, made smaller now", outcome.plan.seed);
            fail(&shrink(self.run, &outcome.plan, SHRINKS));
        }
        if count.is_none() {
            let missing: Vec<_> =
                self.interesting.iter().filter(|what| cover.count(what) == 0).collect();
            assert!(missing.is_empty(), "these runs show nothing about: {missing:?}");
        }
    }

    /// The other test: a seed gives the same run again.
    pub fn look_twice(&self, seeds: std::ops::Range<u64>) {
        for seed in seeds {
            let plan = (self.plan)(seed);
            let (first, second) = ((self.run)(&plan, true), (self.run)(&plan, true));
            assert_eq!(first.hash, second.hash, "seed {seed}");
            assert_eq!(first.checked, second.checked, "seed {seed}");
        }
    }
}
