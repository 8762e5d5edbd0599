//! Promise: the simulator finds known mistakes of the protocol. Each is made on purpose, and must be found
//! within a bounded number of seeds; the scripts of `named.rs` show some of them again, and others, at the end. Run with
//! `--features canary`.

use std::time::Instant;

use firebrick_partition::log::canary::{self, Canary};
use firebrick_partition::maps::Durability;
use firebrick_tests::random::Random;
use firebrick_tests::sim::clock::MS;
use firebrick_tests::sim::machine::Crash;
use firebrick_tests::sim::named::{copies, durable, eight, epochs, leases, once};
use firebrick_tests::sim::{Fault, Mistake, Outcome, Plan, Story, run, run_whole};

/// Seeds that a mistake may need.
const SEEDS: u64 = 500;

/// Runs plans until one fails; how many it took. That plan without the mistake must not fail, or something else was found.
fn hunt(name: &str, canary: Option<Canary>, plan: impl Fn(u64) -> Plan) {
    hunt_in(run, name, canary, plan);
}

/// The same with whole bricks.
fn hunt_whole(name: &str, canary: Canary, plan: impl Fn(u64) -> Plan) {
    hunt_in(run_whole, &format!("{name}, whole bricks"), Some(canary), plan);
}

fn hunt_in(
    run: fn(&Plan, bool) -> Outcome,
    name: &str,
    canary: Option<Canary>,
    plan: impl Fn(u64) -> Plan,
) {
    let begun = Instant::now();
    std::panic::set_hook(Box::new(|_| {}));
    canary::set(canary);
    let found = (1..=SEEDS).find_map(|seed| run(&plan(seed), false).failure.map(|f| (seed, f)));
    canary::set(None);
    let took = begun.elapsed();
    let control = |seed| run(&Plan { mistake: Mistake::None, ..plan(seed) }, false).failure;
    let control = found.as_ref().and_then(|&(seed, _)| control(seed));
    let _ = std::panic::take_hook();
    let Some((seed, failure)) = found else { panic!("{name} is not found in {SEEDS} seeds") };
    if let Some(failure) = control {
        panic!("{name}: seed {seed} fails without the mistake too: {}", failure.what);
    }
    println!("{name}: seed {seed}, {took:?}: {}", failure.what.lines().next().unwrap_or_default());
}

/// What goes wrong, by the plan.
type Make = fn(&mut Random, &Plan) -> Fault;

/// A plan of the usual kind, with more of what a mistake needs.
fn with(seed: u64, faults: &[Make]) -> Plan {
    more(3, Plan::short(seed), faults)
}

/// The same for whole bricks.
fn whole(seed: u64, faults: &[Make]) -> Plan {
    more(3, Plan::whole(seed), faults)
}

/// So many more of each.
fn more(times: usize, mut plan: Plan, faults: &[Make]) -> Plan {
    let seed = plan.seed;
    let mut random = Random::new(seed ^ 0xca);
    for _ in 0..times {
        for fault in faults {
            let at = random.below(plan.load_ns);
            let fault = fault(&mut random, &plan);
            plan.faults.push((at, fault));
        }
    }
    plan.faults.sort_by_key(|f| f.0);
    plan
}

/// One partition on three bricks under a light load that lasts so many leases, and only these faults, so many of
/// each: for a mistake that takes several steps to show, in whose midst little else may happen.
fn calm(mut plan: Plan, leases: u64, times: usize, faults: &[Make]) -> Plan {
    (plan.machines, plan.partitions, plan.small) = (3, 1, None);
    (plan.clients, plan.open_max, plan.stumbles) = (2, 6, 0);
    plan.load_ns = leases * plan.lease_ms * MS;
    plan.faults.clear();
    more(times, plan, faults)
}

fn some(random: &mut Random, plan: &Plan) -> usize {
    random.below(plan.machines as u64) as usize
}

fn cut_off(random: &mut Random, plan: &Plan) -> Fault {
    Fault::CutOff { a: some(random, plan), for_ns: (1 + random.below(3)) * plan.lease_ms * MS }
}

fn kill(random: &mut Random, plan: &Plan) -> Fault {
    Fault::Crash { a: some(random, plan), how: Crash::Kill, for_ns: random.below(50) * MS }
}

fn lose(random: &mut Random, plan: &Plan) -> Fault {
    Fault::Crash { a: some(random, plan), how: Crash::Lost, for_ns: random.below(50) * MS }
}

fn storm(random: &mut Random, plan: &Plan) -> Fault {
    Fault::Storm { for_ns: random.below(2 * plan.lease_ms) * MS }
}

fn pause(random: &mut Random, plan: &Plan) -> Fault {
    Fault::Pause { a: some(random, plan), for_ns: random.below(3 * plan.lease_ms) * MS }
}

fn power_off(random: &mut Random, _: &Plan) -> Fault {
    Fault::PowerOff { for_ns: random.below(100) * MS }
}

fn slow_disk(random: &mut Random, plan: &Plan) -> Fault {
    Fault::SlowDisk { a: some(random, plan), for_ns: random.below(500) * MS }
}

fn sever(random: &mut Random, plan: &Plan) -> Fault {
    let a = some(random, plan);
    Fault::Sever { a, b: (a + 1) % plan.machines }
}

fn half_heard(random: &mut Random, plan: &Plan) -> Fault {
    let lease = plan.lease_ms * MS;
    Fault::HalfHeard { partition: 0, for_ns: lease + random.below(lease) }
}

fn client_ends(random: &mut Random, plan: &Plan) -> Fault {
    let client = random.below(plan.clients as u64) as usize;
    let calls = 20 + random.below(40) as usize;
    Fault::ClientEnds { client, calls, after_ns: random.below(plan.lease_ms * MS) }
}

/// A brick hears no more of the keepers, who hear it.
fn deaf(random: &mut Random, plan: &Plan) -> Fault {
    let for_ns = (1 + random.below(2)) * plan.lease_ms * MS;
    Fault::CutKeeper { a: some(random, plan), to: false, from: true, for_ns }
}

/// With as many replicas as bricks another is to lead, else a replica is to go to another brick.
fn wish(_: &mut Random, _: &Plan) -> Fault {
    Fault::Move { partition: 0 }
}

fn busy(plan: Plan) -> Plan {
    Plan { open_max: 12, think_ns: 3 * MS, keys: 1, clients: 4, ..plan }
}

fn mistaken(mistake: Mistake, plan: Plan) -> Plan {
    Plan { mistake, ..plan }
}

#[test]
fn reads_by_a_backup_without_the_pending_rule() {
    hunt("backup reads", Some(Canary::BackupReadsPending), |seed| with(seed, &[storm]));
}

#[test]
fn serving_before_take_over() {
    hunt("early serving", Some(Canary::ServeBeforeTakeOver), |seed| {
        busy(with(seed, &[kill, pause]))
    });
}

#[test]
fn learner_promoted_before_its_vote_is_required() {
    let faults: &[Make] = &[lose, storm, pause];
    hunt("early promotion", Some(Canary::PromoteBeforeRequire), |seed| busy(with(seed, faults)));
}

#[test]
fn tail_taken_for_complete() {
    let mistake = Mistake::CompleteFromTail;
    hunt("complete", None, |seed| mistaken(mistake, with(seed, &[lose, kill, kill])));
}

#[test]
fn tombstone_rule_by_tail() {
    let plan = |seed| Plan { keys: 4, think_ns: 2 * MS, open_max: 6, ..with(seed, &[kill, lose]) };
    hunt("tombstones", Some(Canary::TombstonesByTail), plan);
}

#[test]
fn no_epoch_match_before_a_vote() {
    let faults: &[Make] = &[cut_off, storm, kill];
    hunt("no match", Some(Canary::NoEpochMatch), |seed| busy(with(seed, faults)));
}

#[test]
fn the_primarys_own_vote_before_its_flush() {
    let faults: &[Make] = &[power_off, slow_disk];
    hunt("early vote", Some(Canary::VoteBeforeFlush), |seed| Plan {
        durability: Durability::Sync,
        ..with(seed, faults)
    });
}

#[test]
fn lease_counted_from_the_answer() {
    let mistake = Mistake::LeaseFromAnswer;
    let faults: &[Make] = &[storm, cut_off, storm, pause];
    let plan = |seed| calm(Plan::short(seed), 60, 20, faults);
    hunt("lease from answer", None, |seed| mistaken(mistake, plan(seed)));
}

#[test]
fn lease_before_map() {
    let mistake = Mistake::LeaseBeforeMap;
    hunt("lease before map", None, |seed| mistaken(mistake, with(seed, &[cut_off, pause])));
}

/// A primary is heard by one backup only, while a client writes a lot and ends: that backup votes for what the next
/// primary drops. The first leads again before the log is as long as that vote, and the backup misses what it prepares.
/// (Found in 5 of 300 seeds.)
#[test]
fn votes_not_reset_on_an_epoch_change() {
    let faults: &[Make] = &[half_heard, half_heard, client_ends, wish, wish];
    hunt("votes kept", Some(Canary::VotesKept), |seed| {
        let plan = Plan { replicas: 3, keys: 1, reads: 94, ..Plan::short(seed) };
        calm(Plan { lease_ms: 400, think_ns: 60 * MS, ..plan }, 40, 6, faults)
    });
}

/// A brick does not hear for a while that it is to leave, or that it left. (Found in 16 of 300 seeds.)
#[test]
fn leaving_a_group_without_confirmation() {
    let mistake = Mistake::LeaveUnconfirmed;
    hunt("leave", None, |seed| {
        let plan = mistaken(mistake, Plan { replicas: 2, ..Plan::short(seed) });
        calm(plan, 20, 8, &[wish, wish, deaf])
    });
}

/// What only one backup heard of is dropped, of keys that are not written again soon, and its bytes are still there when
/// the process is killed. (Found in 5 of 300 seeds.)
#[test]
fn old_bytes_after_truncation() {
    let faults: &[Make] = &[half_heard, half_heard, client_ends, client_ends, kill, kill];
    hunt("old bytes", Some(Canary::OldBytes), |seed| {
        let plan = Plan { replicas: 3, keys: 60, lease_ms: 200, ..Plan::short(seed) };
        calm(Plan { think_ns: 100 * MS, ..plan }, 10, 4, faults)
    });
}

#[test]
fn whole_bricks_reads_by_a_backup_without_the_pending_rule() {
    hunt_whole("backup reads", Canary::BackupReadsPending, |seed| whole(seed, &[storm]));
}

#[test]
fn whole_bricks_serving_before_take_over() {
    hunt_whole("early serving", Canary::ServeBeforeTakeOver, |seed| {
        busy(whole(seed, &[kill, storm]))
    });
}

#[test]
fn whole_bricks_learner_promoted_before_its_vote_is_required() {
    let faults: &[Make] = &[lose, storm, pause];
    hunt_whole("early promotion", Canary::PromoteBeforeRequire, |seed| busy(whole(seed, faults)));
}

#[test]
fn whole_bricks_answers_forgotten() {
    let faults: &[Make] = &[storm, sever, pause];
    hunt_whole("forgotten answers", Canary::ForgetAnswers, |seed| busy(whole(seed, faults)));
}

#[test]
fn whole_bricks_the_primarys_own_vote_before_its_flush() {
    let faults: &[Make] = &[power_off, slow_disk];
    hunt_whole("early vote", Canary::VoteBeforeFlush, |seed| Plan {
        durability: Durability::Sync,
        ..whole(seed, faults)
    });
}

/// A script of `named.rs` with the rule that it is about switched off: it must end badly.
fn finds(canary: Option<Canary>, story: impl FnOnce() -> Story) {
    std::panic::set_hook(Box::new(|_| {}));
    canary::set(canary);
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
    canary::set(None);
    let _ = std::panic::take_hook();
    if let Ok(Ok(())) = told {
        panic!("the script ends well although a rule is broken: {canary:?}");
    }
}

macro_rules! named {
    ($module:ident: $($name:ident, $canary:ident;)+) => {
        $(#[test] fn $name() { finds(Some(Canary::$canary), $module::$name); })+
    };
    (with $module:ident: $($name:ident, $mistake:ident;)+) => {
        $(#[test] fn $name() { finds(None, || $module::$name(Mistake::$mistake)); })+
    };
}

named!(eight:
    a_write_is_read_at_every_replica, CommitAlone;
    two_writes_at_once_have_one_order, CommitAlone;
    a_prepared_value_is_never_read_and_then_missed, BackupReadsPending;
    a_dead_backup_delays_a_write_by_a_lease, CommitAlone;
    a_write_in_doubt_is_decided_once, ForgetAnswers;
    what_one_replica_committed_all_commit, ForgetAnswers;
    what_was_read_once_stays, ServeBeforeTakeOver;
);
named!(with eight: a_dead_replica_costs_a_read_nothing_but_time, AsksOneOnly;);
named!(with leases:
    a_backup_that_slept_does_not_answer_by_an_old_map, LeaseBeforeMap;
    a_primary_that_slept_does_not_answer_by_an_old_map, LeaseBeforeMap;
    nobody_gets_a_lease_while_it_is_being_removed, AnswerWhileRemoving;
    an_executed_increment_is_never_called_undone, SaysNothingHappened;
    a_lease_is_checked_after_the_read, LeaseCheckedBefore;
    a_late_answer_gives_no_more_time, LeaseFromAnswer;
);
named!(epochs: votes_count_from_zero_in_every_epoch, VotesKept;);
named!(with epochs:
    a_group_that_died_is_led_by_whoever_kept_everything, LeadWaitsForAll;
    the_keepers_leader_dies_between_confirmation_and_entry, ReportsOnce;
    two_that_do_not_hear_each_other_part, SilenceUnreported;
    a_partition_moves_away_from_a_brick_that_does_not_know, LeaveUnconfirmed;
    an_empty_brick_does_not_lead, ClaimsMemory;
);
named!(once:
    an_increment_that_waits_for_a_dead_replica_counts_once, ForgetAnswers;
    a_refusal_waits_for_what_it_rests_on, RefuseAtOnce;
);
named!(with once: a_restarted_client_is_another_session, SessionKept;);
named!(copies:
    a_learner_that_stops_reading_delays_no_write, LearnersCount;
    a_learner_has_all_that_was_acked_when_it_becomes_a_member, PromoteBeforeRequire;
);
named!(with copies:
    a_required_learner_that_falls_silent_blocks_nothing_for_good, SilenceUnreported;
);
named!(durable:
    what_the_primary_did_not_flush_is_not_acked, VoteBeforeFlush;
    a_full_store_can_be_emptied_and_takes_writes_again, RemovesNeedRoom;
);
named!(with durable:
    a_new_process_counts_nothing_as_flushed, NotFlushedAgain;
    a_replica_that_cannot_store_leaves_and_the_write_completes, SilenceUnreported;
);

/// "Old bytes after truncation": guarded twice (the bytes are destroyed, and a scan ends where an epoch falls or
/// differs from the history), so both guards are off.
#[test]
fn what_was_truncated_does_not_come_back() {
    let story = durable::what_was_truncated_does_not_come_back;
    finds(Some(Canary::OldBytes), || durable::FILLS.into_iter().try_for_each(story));
}
