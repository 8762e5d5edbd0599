//! Promise: whatever fails, what PROTOCOL.md promises holds. Thousands of short simulated runs, each with
//! other faults, each checked wholly: linearizable per key, one primary, epochs that only rise, committed
//! records that stay, and in the end every replica equal and every group whole.
//!
//! `FIREBRICK_SIM_SEED=n` runs one seed with every message in its trace, `FIREBRICK_SIM_COUNT=n` that many
//! from there on, `FIREBRICK_SIM_LONG=1` runs until it is stopped or something is wrong.

use firebrick_tests::sim::{Plan, Search, run};

/// What must have happened in that many seeds, or they show nothing.
const INTERESTING: &[&str] = &[
    "a backup hands a read to the primary",
    "a brick is emptied",
    "a brick is taken out",
    "a client's process ends",
    "a clock changes its rate",
    "a hand-over is asked for",
    "a learner is promoted",
    "a live brick leaves",
    "a machine loses everything",
    "a machine loses its memory",
    "a move is wished",
    "a prepared write is left to another primary",
    "a primary is heard by one backup only",
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

const SEARCH: Search = Search { run, plan: Plan::short, seeds: 2_000, interesting: INTERESTING };

#[test]
fn nothing_that_is_promised_breaks() {
    SEARCH.look_for_trouble();
}

#[test]
fn a_seed_gives_the_same_run_again() {
    SEARCH.look_twice(1..9);
}
