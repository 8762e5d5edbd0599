//! Promise: the executions of docs/protocol.md's last section, which broke earlier protocols, do no harm to this one.
//!
//! The scripts are in `src/sim/named`; `canaries.rs` runs them again with the rule that each is about switched
//! off. What is tested closer to the code is not scripted here:
//!
//! (`replica/`, `keeper/` are in `partition/src`.)
//!
//! | number | where |
//! | --- | --- |
//! | 1 to 8 | here (`eight`); with real processes in `cluster_faults.rs` and what is beside it |
//! | 9 | here (`leases`); `keeper/tests/leases.rs`: `nobody_is_answered_between_proposing_its_removal_and_the_entry` |
//! | 10 | here (`copies`); `replica/tests/copies.rs`: `after_the_report_every_commit_waits_for_the_learner` |
//! | 11 | `replica/tests/copies.rs`: `a_source_that_is_behind_is_not_copied_from`, `a_copy_goes_on_when_the_group_changes_and_another_source_takes_over` |
//! | 12 | `replica/tests/copies.rs`: `a_half_copied_learner_is_never_taken_for_complete`; canary `tail_taken_for_complete` |
//! | 13 | `replica/tests/copies.rs`: `a_dropped_tombstone_does_not_bring_its_key_back`; `log/tests/points`: `point_10_tombstones_stay_until_nothing_older_can_be_anywhere`; canary `tombstone_rule_by_tail` |
//! | 14 | `replica/tests/groups.rs`: `a_backup_that_did_not_compare_does_not_vote`, `a_prepare_of_an_epoch_that_was_not_compared_is_not_stored`, `a_prepare_behind_another_record_is_not_stored` (two of the guards alone); canary `no_epoch_match_before_a_vote` (all three guards off) |
//! | 15 | here (`epochs`) |
//! | 16 | here (`epochs`); merge and split are not built |
//! | 17 | here (`once`); `replica/tests/exactly_once.rs`: `what_is_not_in_a_window_is_in_doubt_and_never_applied`, `an_ended_session_stays_ended_when_its_end_is_cleaned_away`; split is not built |
//! | 18 | here (`durable`); `replica/tests/disks.rs`: `a_learner_is_whole_when_what_was_copied_is_flushed`; `log/tests/points`: `point_10_the_originals_wait_for_their_copies_to_be_flushed` |
//! | 19 | here (`durable`); `replica/tests/small.rs`: `a_full_store_refuses_writes_and_can_be_emptied` |
//! | 20 | here (`copies`); `keeper/tests/entries.rs`: `a_learner_is_promoted_as_the_processes_that_the_report_meant`; `leases.rs` there: `a_new_process_waits_for_the_old_ones_lease_unless_it_has_its_lock`, `a_new_leader_counts_every_lease_from_its_own_start` |
//! | 21 | here (`durable`); `log/tests/points`: `point_14_truncation_reaches_the_disk_before_the_history_and_old_bytes_never_return` |
//! | 22 | `replica/tests/copies.rs`: `writes_go_on_while_a_learner_is_copied_to` (with cleaning); `log/tests/points`: `point_10_a_pinned_segment_stays_mapped`; one-sided reads are not built |
//! | 23 | here (`epochs`, `copies`); `keeper/tests/convergence.rs`: `a_cut_between_two_makes_the_backup_leave_and_the_pair_rests`, `a_stuck_data_core_is_taken_out_when_it_does_not_confirm`; `engine/src/keeper/tests/cluster.rs`: `a_leader_that_stood_still_answers_no_heartbeat_with_a_lease` |
//! | 24 | here (`leases`: the increment; `a_primary_that_slept_does_not_answer_by_an_old_map`: the ring) |
//! | 25 | here (`copies`); split is not built |
//! | 26 | `client/tests/session.rs`: `the_window_holds_writes_back_and_reads_pass`; `replica/tests/exactly_once.rs`: `sessions_are_written_down_a_slice_at_a_time`; merge is not built |
//! | 27 | `log/tests/faults.rs`: `power_failure_in_async_never_loses_a_key_to_cleaning` |
//! | 28 | `replica/tests/copies.rs`: `a_dropped_tombstone_does_not_bring_its_key_back`, `a_copy_goes_on_when_the_group_changes_and_another_source_takes_over` |
//! | 29 | `log/tests/points`: `point_14_...`, `point_11_killed_between_the_two_manifest_writes_memory_still_counts`; `kill9.rs`: `a_kill_in_the_middle_of_a_start_costs_nothing` |
//! | 30 | `log/tests/points`: `point_09_rolling_leaves_the_manifest_alone_and_freeing_lists_survivors`, `point_06_any_mix_of_old_and_new_sectors_keeps_what_was_acked` |
//! | 31 | here (`durable`); `replica/tests/groups.rs`: `a_backup_below_its_reserve_stops_writes_and_removes_go_on` |
//! | 32 | here (`epochs`); `keeper/tests/entries.rs`: `who_was_out_of_the_group_before_leads_only_until_the_new_epoch_began`, `a_damaged_replica_counts_no_more_and_the_last_one_is_not_dropped` |
//! | 33 | `replica/tests/groups.rs`: `a_comparison_happens_once_an_epoch`, `a_prepare_of_an_epoch_that_was_not_compared_is_not_stored`; `keeper/tests/leases.rs`: `who_leads_a_stopped_group_waits_for_the_leases_of_all_others_in_it` |

use firebrick_tests::sim::named::{copies, durable, eight, epochs, leases, once};
use firebrick_tests::sim::{Mistake, Story};

fn holds(story: Story) {
    if let Err(wrong) = story {
        panic!("{wrong}");
    }
}

macro_rules! named {
    ($module:ident: $($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { holds($module::$name()); })+
    };
    (with rules $module:ident: $($name:ident),+ $(,)?) => {
        $(#[test] fn $name() { holds($module::$name(Mistake::None)); })+
    };
}

named!(eight:
    a_write_is_read_at_every_replica,
    two_writes_at_once_have_one_order,
    a_prepared_value_is_never_read_and_then_missed,
    a_dead_backup_delays_a_write_by_a_lease,
    a_write_in_doubt_is_decided_once,
    what_one_replica_committed_all_commit,
    what_was_read_once_stays,
);
named!(with rules eight: a_dead_replica_costs_a_read_nothing_but_time);
named!(with rules leases:
    a_backup_that_slept_does_not_answer_by_an_old_map,
    a_primary_that_slept_does_not_answer_by_an_old_map,
    nobody_gets_a_lease_while_it_is_being_removed,
    an_executed_increment_is_never_called_undone,
    a_lease_is_checked_after_the_read,
    a_late_answer_gives_no_more_time,
);
named!(epochs: votes_count_from_zero_in_every_epoch);
named!(with rules epochs:
    a_group_that_died_is_led_by_whoever_kept_everything,
    the_keepers_leader_dies_between_confirmation_and_entry,
    two_that_do_not_hear_each_other_part,
    a_partition_moves_away_from_a_brick_that_does_not_know,
    an_empty_brick_does_not_lead,
);
named!(once:
    an_increment_that_waits_for_a_dead_replica_counts_once,
    a_refusal_waits_for_what_it_rests_on,
);
named!(with rules once: a_restarted_client_is_another_session);
named!(copies:
    a_learner_that_stops_reading_delays_no_write,
    a_learner_has_all_that_was_acked_when_it_becomes_a_member,
);
named!(with rules copies: a_required_learner_that_falls_silent_blocks_nothing_for_good);
named!(durable:
    what_the_primary_did_not_flush_is_not_acked,
    a_full_store_can_be_emptied_and_takes_writes_again,
);
named!(with rules durable:
    a_new_process_counts_nothing_as_flushed,
    a_replica_that_cannot_store_leaves_and_the_write_completes,
);

#[test]
fn what_was_truncated_does_not_come_back() {
    for len in durable::FILLS {
        holds(durable::what_was_truncated_does_not_come_back(len));
    }
}
