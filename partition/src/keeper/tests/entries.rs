use super::*;
use crate::maps::Intent;

fn replicas(keepers: &Keepers) -> &crate::maps::Replicas {
    &keepers.group(1).unwrap().replicas
}

fn learner(keepers: &mut Keepers, brick: u32) {
    let (epoch, _) = now(keepers);
    let incarnation = keepers.brick(brick).unwrap().incarnation;
    done(keepers, &Entry::NameLearner { partition: 1, epoch, brick, incarnation });
}

fn lead(keepers: &Keepers, brick: u32, accept_loss: bool) -> Entry {
    let incarnation = keepers.brick(brick).unwrap().incarnation;
    Entry::Lead { partition: 1, epoch: now(keepers).0, brick, incarnation, accept_loss }
}

#[test]
fn a_brick_gets_an_id_once_and_a_name_has_one_brick() {
    let mut keepers = Keepers::default();
    join(&mut keepers, 1);
    join(&mut keepers, 2);
    assert_eq!((keepers.brick_named("b2").unwrap().id, keepers.keepers()), (2, &[1][..]));
    // The same again is the same; another brick of that name is refused.
    let again = Entry::Register {
        registration: Box::new(process(2, 200)),
        replaces: None,
        proof: Proof::First,
    };
    let version = keepers.version();
    assert_eq!(done(&mut keepers, &again), Applied::Registered { brick: 2, stopped: vec![] });
    assert_eq!(keepers.version(), version);
    let twin = Registration { identity: 7, ..process(2, 900) };
    let entry = |r: Registration| Entry::Register {
        registration: Box::new(r),
        replaces: None,
        proof: Proof::First,
    };
    refused(&mut keepers, &entry(twin), "there is a brick \"b2\" already (number 2)");
    refused(&mut keepers, &entry(Registration { name: "a b".into(), ..process(3, 1) }), "\"a b\"");
    refused(&mut keepers, &entry(process(3, 0)), "process 0 with 2 data cores");
    // A removed brick's id is not given again.
    refused(&mut keepers, &Entry::RemoveBrick { brick: 2 }, "drain it first");
    done(&mut keepers, &Entry::Drain { brick: 2, on: true });
    refused(&mut keepers, &Entry::Drain { brick: 1, on: true }, "there is no other brick");
    done(&mut keepers, &Entry::RemoveBrick { brick: 2 });
    join(&mut keepers, 3);
    assert_eq!(keepers.brick_named("b3").unwrap().id, 3);
}

#[test]
fn a_second_brick_counts_only_when_the_first_gave_up_its_lease_without_end() {
    let mut keepers = Keepers::default();
    let entry = |n, inc| Entry::Register {
        registration: Box::new(process(n, inc)),
        replaces: None,
        proof: Proof::First,
    };
    done(&mut keepers, &entry(1, 100));
    refused(&mut keepers, &entry(2, 200), "still holds a lease without end");
    refused(&mut keepers, &Entry::Finite { brick: 1, incarnation: 99 }, "is process 64 now");
    done(&mut keepers, &Entry::Finite { brick: 1, incarnation: 100 });
    done(&mut keepers, &entry(2, 200));
    assert!(!keepers.is_endless());
}

#[test]
fn a_new_process_needs_a_proof_that_the_old_one_is_over() {
    let mut keepers = group_of(2);
    let entry = |keepers: &Keepers, proof, boot: &str, inode| {
        let old = keepers.brick(2).unwrap().incarnation;
        let lock = LockFile { device: 1, inode };
        let new = Registration { boot: boot.into(), lock, ..process(2, old + 1) };
        Entry::Register { registration: Box::new(new), replaces: Some(old), proof }
    };
    for (proof, boot, inode) in [
        (Proof::SameLock, "boot-2", 9),
        (Proof::SameLock, "other", 2),
        (Proof::First, "boot-2", 2),
        (Proof::OwnKeeper, "boot-2", 2),
    ] {
        let entry = entry(&keepers, proof, boot, inode);
        refused(&mut keepers, &entry, "nothing says that process c8");
    }
    let stale = entry(&keepers, Proof::SameLock, "boot-2", 2);
    done(&mut keepers, &stale);
    assert_eq!(now(&keepers), (2, vec![1, 2]), "it is in its groups, in a new epoch");
    assert_eq!(replicas(&keepers).members[1].incarnation, 201);
    // Decided when process 200 was there.
    let Entry::Register { registration, replaces, proof } = stale else { panic!() };
    let registration = Box::new(Registration { incarnation: 777, ..*registration });
    refused(&mut keepers, &Entry::Register { registration, replaces, proof }, "register again");
}

#[test]
fn a_member_without_its_memory_leaves_and_the_last_one_stops_the_group() {
    let mut keepers = group_of(3);
    let entry = restart(&keepers, 1, false);
    done(&mut keepers, &entry);
    assert_eq!(now(&keepers), (2, vec![2, 3]));
    let entry = restart(&keepers, 2, false);
    done(&mut keepers, &entry);
    assert_eq!(now(&keepers), (3, vec![3]));
    // 3 was there all the time; with its memory it would go on alone.
    let entry = restart(&keepers, 3, false);
    let Applied::Registered { stopped, .. } = done(&mut keepers, &entry) else { panic!() };
    assert_eq!((stopped, now(&keepers)), (vec![1], (3, vec![3])));
    assert!(keepers.is_stopped(keepers.group(1).unwrap()));
    // No entry but the rule for whole groups puts anybody in it.
    refused(
        &mut keepers,
        &Entry::Active { brick: 3, incarnation: 301, groups: vec![(1, 3)] },
        "no epoch",
    );
    refused(&mut keepers, &Entry::TakeOut { brick: 3, incarnation: 301 }, "no group");
    let entry = lead(&keepers, 3, false);
    refused(&mut keepers, &entry, "does not have everything");
    // It starts once more, with all that the empty process had: that is still not what it had before.
    let entry = restart(&keepers, 3, true);
    let Applied::Registered { stopped, .. } = done(&mut keepers, &entry) else { panic!() };
    assert_eq!((stopped, now(&keepers)), (vec![1], (3, vec![3])));
    assert!(keepers.is_stopped(keepers.group(1).unwrap()));
    let entry = lead(&keepers, 2, true);
    let Applied::Led { loss: Some(loss), .. } = done(&mut keepers, &entry) else { panic!() };
    assert!(loss.contains("brick \"b2\" has") && loss.contains("no brick kept all"), "{loss}");
    assert_eq!((now(&keepers), replicas(&keepers).active), ((4, vec![2]), 0));
}

#[test]
fn a_sync_table_counts_the_disk() {
    let mut keepers = Keepers::default();
    join(&mut keepers, 1);
    join(&mut keepers, 2);
    let options = TableOptions { durability: Durability::Sync, ..options(1, 2) };
    let placement = vec![vec![(1, 100), (2, 200)]];
    done(&mut keepers, &Entry::CreateTable { name: "t".into(), options, placement });
    active(&mut keepers);
    let register = |keepers: &Keepers, n: u64, disk_intact| {
        let old = keepers.brick_of(1000 + n).unwrap().incarnation;
        let new = Registration { memory_intact: false, disk_intact, ..process(n, old + 1) };
        let registration = Box::new(new);
        Entry::Register { registration, replaces: Some(old), proof: Proof::LeaseEnded }
    };
    let entry = register(&keepers, 1, true);
    done(&mut keepers, &entry);
    assert_eq!(now(&keepers), (2, vec![1, 2]), "the power failed, the disk has it all");
    let entry = register(&keepers, 1, false);
    done(&mut keepers, &entry);
    assert_eq!(now(&keepers), (3, vec![2]), "the disk has it not");
}

#[test]
fn an_async_table_counts_the_disk_after_an_orderly_end() {
    let mut keepers = Keepers::default();
    join(&mut keepers, 1);
    join(&mut keepers, 2);
    let options = TableOptions { durability: Durability::Async { ms: 9 }, ..options(1, 2) };
    let placement = vec![vec![(1, 100), (2, 200)]];
    done(&mut keepers, &Entry::CreateTable { name: "t".into(), options, placement });
    active(&mut keepers);
    let mut register = |n: u64, flushed| {
        let old = keepers.brick_of(1000 + n).unwrap().incarnation;
        let flushed = if flushed { old } else { 7 };
        let new = Registration { memory_intact: false, flushed, ..process(n, old + 1) };
        let registration = Box::new(new);
        let proof = Proof::LeaseEnded;
        done(&mut keepers, &Entry::Register { registration, replaces: Some(old), proof });
        now(&keepers)
    };
    assert_eq!(register(2, true), (2, vec![1, 2]), "all that it had is on its disk");
    assert_eq!(register(2, false), (3, vec![1]), "the disk is of another process");
    assert_eq!(register(1, true), (4, vec![1]), "nor has the last one lost anything");
}

#[test]
fn who_was_out_of_the_group_before_leads_only_until_the_new_epoch_began() {
    // A, B, C; C is taken out; A and B die for good before the epoch is active: C has all.
    let mut keepers = group_of(3);
    done(&mut keepers, &Entry::TakeOut { brick: 3, incarnation: 300 });
    let early = lead(&keepers, 3, false);
    done(&mut keepers.clone(), &early);
    // The epoch begins: what A and B acknowledge from now on C never saw.
    active(&mut keepers);
    refused(&mut keepers, &early, "does not have everything");
    // A and B come back without their memory; C, intact, must not lead by itself.
    for n in [1, 2] {
        let entry = restart(&keepers, n, false);
        done(&mut keepers, &entry);
    }
    let entry = lead(&keepers, 3, false);
    refused(&mut keepers, &entry, "does not have everything");
}

#[test]
fn a_brick_is_taken_out_of_all_its_groups_and_only_as_the_process_that_was_meant() {
    let mut keepers = group_of(3);
    let placement = vec![vec![(1, 100)], vec![(2, 200), (1, 100)]];
    let entry = Entry::CreateTable { name: "u".into(), options: options(2, 2), placement };
    done(&mut keepers, &entry);
    let stale = Entry::TakeOut { brick: 1, incarnation: 99 };
    refused(&mut keepers, &stale, "is process 64 now");
    done(&mut keepers, &Entry::TakeOut { brick: 1, incarnation: 100 });
    assert_eq!(now(&keepers), (2, vec![2, 3]));
    let of = |p| keepers.group(p).unwrap().replicas.clone();
    assert_eq!((of(2).epoch, of(2).members.len()), (1, 1), "the last member stays");
    assert_eq!((of(3).epoch, of(3).members[0].brick), (2, 2));
    assert_eq!(keepers.group(1).unwrap().former, [1]);
}

#[test]
fn a_learner_is_promoted_as_the_processes_that_the_report_meant() {
    let mut keepers = group_of(2);
    join(&mut keepers, 3);
    learner(&mut keepers, 3);
    let promote = |keepers: &Keepers, incarnations: &[(u32, u64)]| Entry::Promote {
        partition: 1,
        epoch: now(keepers).0,
        learner: 3,
        incarnations: incarnations.to_vec(),
    };
    let all = [(1, 100), (2, 200), (3, 300)];
    let entry = promote(&keepers, &all);
    refused(&mut keepers, &entry, "is not active in epoch 2");
    active(&mut keepers);
    let early = promote(&keepers, &all);
    let entry = promote(&keepers, &all[..2]);
    refused(&mut keepers, &entry, "brick 3 restarted");
    // The learner restarts empty after its report: it stays a learner, in a new epoch.
    let entry = restart(&keepers, 3, false);
    done(&mut keepers, &entry);
    refused(&mut keepers, &early, "is in epoch 3 now, this was decided in 2");
    active(&mut keepers);
    let entry = promote(&keepers, &all);
    refused(&mut keepers, &entry, "brick 3 restarted");
    let entry = promote(&keepers, &[(1, 100), (2, 200), (3, 301)]);
    done(&mut keepers, &entry);
    assert_eq!((now(&keepers), replicas(&keepers).active), ((4, vec![1, 2, 3]), 3));
    assert_eq!(
        keepers.group(1).unwrap().kept.len(),
        2,
        "the new member counts when the epoch begins"
    );
}

#[test]
fn one_learner_at_a_time_and_it_can_be_dropped() {
    let mut keepers = group_of(2);
    join(&mut keepers, 3);
    join(&mut keepers, 4);
    learner(&mut keepers, 3);
    let second = Entry::NameLearner { partition: 1, epoch: 2, brick: 4, incarnation: 400 };
    refused(&mut keepers, &second, "another learner already");
    refused(
        &mut keepers,
        &Entry::DropLearner { partition: 1, epoch: 2, brick: 4 },
        "is no learner",
    );
    done(&mut keepers, &Entry::DropLearner { partition: 1, epoch: 2, brick: 3 });
    let member = Entry::NameLearner { partition: 1, epoch: 3, brick: 2, incarnation: 200 };
    refused(&mut keepers, &member, "has brick 2");
    learner(&mut keepers, 4);
    done(&mut keepers, &Entry::TakeOut { brick: 4, incarnation: 400 });
    assert!(replicas(&keepers).learners.is_empty());
}

#[test]
fn a_live_member_leaves_when_it_was_asked_and_its_word_counts_for_that_epoch() {
    let mut keepers = group_of(3);
    let leave = |epoch| Entry::Leave { partition: 1, epoch, brick: 2, incarnation: 200 };
    refused(&mut keepers, &leave(1), "asks for None");
    let ask = |epoch, intent| Entry::SetIntent { partition: 1, epoch, intent };
    refused(&mut keepers, &ask(1, Intent::Leave { brick: 9 }), "does not fit");
    refused(&mut keepers, &ask(1, Intent::StepDown { brick: 2 }), "does not fit");
    done(&mut keepers, &ask(1, Intent::Leave { brick: 2 }));
    assert_eq!(now(&keepers).0, 1, "asking is no new epoch");
    refused(&mut keepers, &ask(1, Intent::Leave { brick: 3 }), "has an intent already");
    // Withdrawn, and asked again: what was confirmed before counts no more.
    done(&mut keepers, &Entry::Withdraw { partition: 1, epoch: 1 });
    refused(&mut keepers, &Entry::Withdraw { partition: 1, epoch: 2 }, "no intent");
    done(&mut keepers, &ask(2, Intent::Leave { brick: 2 }));
    refused(&mut keepers, &leave(1), "this was decided in 1");
    done(&mut keepers, &leave(2));
    assert_eq!((now(&keepers), replicas(&keepers).intent), ((3, vec![1, 3]), Intent::None));
}

#[test]
fn a_primary_steps_down_for_the_member_that_is_named() {
    let mut keepers = group_of(3);
    let down = |to| Entry::StepDown { partition: 1, epoch: 1, brick: 1, incarnation: 100, to };
    refused(&mut keepers, &down(3), "asks for None");
    let intent = Intent::StepDown { brick: 1 };
    done(&mut keepers, &Entry::SetIntent { partition: 1, epoch: 1, intent });
    refused(&mut keepers, &down(4), "is no backup");
    refused(&mut keepers, &down(1), "is no backup");
    done(&mut keepers, &down(3));
    assert_eq!(now(&keepers), (2, vec![3, 2, 1]));
}

#[test]
fn a_damaged_replica_counts_no_more_and_the_last_one_is_not_dropped() {
    let mut keepers = group_of(2);
    let damaged = |epoch, brick: u32| {
        let incarnation = u64::from(brick) * 100;
        Entry::Damaged { partition: 1, epoch, brick, incarnation }
    };
    done(&mut keepers, &damaged(1, 2));
    assert_eq!(replicas(&keepers).intent, Intent::Leave { brick: 2 });
    let leave = Entry::Leave { partition: 1, epoch: 1, brick: 2, incarnation: 200 };
    done(&mut keepers, &leave);
    assert_eq!((now(&keepers), &keepers.group(1).unwrap().former), ((2, vec![1]), &vec![2]));
    // Before the epoch of 1 alone begins, 2 is in the last active group, but lacks something.
    let entry = lead(&keepers, 2, false);
    refused(&mut keepers, &entry, "does not have everything");
    let mut began = keepers.clone();
    active(&mut began);
    refused(&mut began, &damaged(2, 1), "the damaged one on brick 1 is not dropped");
    // Damaged before it began: it cannot begin, the group has stopped.
    done(&mut keepers, &damaged(2, 1));
    assert!(keepers.is_stopped(keepers.group(1).unwrap()));
    let entry = lead(&keepers, 1, true);
    done(&mut keepers, &entry);
    active(&mut keepers);
    assert_eq!(keepers.group(1).unwrap().kept, [Kept { brick: 1, intact: true }]);
}

#[test]
fn who_leads_alone_needs_no_permission_and_nobody_leads_twice() {
    let mut keepers = group_of(2);
    let entry = lead(&keepers, 2, false);
    done(&mut keepers, &entry);
    assert_eq!(now(&keepers), (2, vec![2]));
    let entry = lead(&keepers, 2, false);
    refused(&mut keepers, &entry, "leads partition 1 already");
    // The old primary is in the last active group still: its report of the old epoch comes too late.
    refused(
        &mut keepers,
        &Entry::Active { brick: 1, incarnation: 100, groups: vec![(1, 1)] },
        "no epoch",
    );
}

#[test]
fn keepers_and_settings_are_checked() {
    let mut keepers = group_of(3);
    let set = |before: &[u32], after: &[u32]| Entry::SetKeepers {
        before: before.to_vec(),
        keepers: after.to_vec(),
    };
    refused(&mut keepers, &set(&[2], &[1]), "this was decided at [2]");
    for bad in [&[][..], &[1, 2], &[1, 1, 2], &[1, 2, 9]] {
        refused(&mut keepers, &set(&[1], bad), "cannot be the keepers");
    }
    done(&mut keepers, &set(&[1], &[1, 2, 3]));
    done(&mut keepers, &Entry::Drain { brick: 3, on: true });
    done(&mut keepers, &Entry::TakeOut { brick: 3, incarnation: 300 });
    refused(&mut keepers, &Entry::RemoveBrick { brick: 3 }, "still counts in 1 partitions");
    active(&mut keepers);
    refused(&mut keepers, &Entry::RemoveBrick { brick: 3 }, "is still a keeper");
    let bad = Settings { lease_ms: 5, ..Settings::default() };
    refused(&mut keepers, &Entry::Settings(bad), "lease_ms of 5 cannot be used");
    let bad = Settings { keepers: 2, ..Settings::default() };
    refused(&mut keepers, &Entry::Settings(bad), "2 keepers cannot be");
}
