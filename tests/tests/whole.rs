//! Promise: as in `sim.rs`, with whole bricks: the production data cores with their files, the production client session
//! and clients that speak RESP to any brick, on a network of connections that are delayed, blocked in one or both directions, and lost.
//!
//! `FIREBRICK_SIM_SEED=n` runs one seed with every turn in its trace, `FIREBRICK_SIM_COUNT=n` that many from there on,
//! `FIREBRICK_SIM_LONG=1` runs until it is stopped or something is wrong.

use firebrick_tests::sim::{Plan, Search, run_whole};

/// What must have happened in that many seeds, or they show nothing.
const INTERESTING: &[&str] = &[
    "a RESP client leaves its brick",
    "a RESP command comes to a brick that is not its primary",
    "a RESP command ends in doubt",
    "a RESP command is refused",
    "a brick is emptied",
    "a brick is taken out",
    "a client's process ends",
    "a clock changes its rate",
    "a copy is slowed down",
    "a full store is emptied and takes writes again",
    "a hand-over is asked for",
    "a learner is promoted",
    "a lease runs out between a read and its answer",
    "a live brick leaves",
    "a machine loses its memory",
    "a move is wished",
    "a primary is heard by one backup only",
    "a primary steps down",
    "a process is killed",
    "a process stops before it takes what came",
    "a process stops in the middle of a turn",
    "a request is passed on to another core",
    "a request is refused without a lease",
    "a restarted process registers",
    "a stale route is answered",
    "a stopped group is led",
    "a write finds no room",
    "all power fails",
    "connections are lost",
    "one core stands still",
    "what is copied arrives",
];

const SEARCH: Search =
    Search { run: run_whole, plan: Plan::whole, seeds: 200, interesting: INTERESTING };

#[test]
fn nothing_that_is_promised_breaks_with_whole_bricks() {
    SEARCH.look_for_trouble();
}

#[test]
fn a_seed_gives_the_same_run_of_whole_bricks_again() {
    SEARCH.look_twice(1..5);
}
