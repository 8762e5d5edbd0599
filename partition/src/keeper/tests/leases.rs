use super::*;

const LEASE: u64 = 550 * MS;

fn beat(leases: &mut Leases, at: u64, keepers: &Keepers, brick: u32) -> Option<LeaseAnswer> {
    let incarnation = keepers.brick(brick).unwrap().incarnation;
    let version = keepers.version();
    let heartbeat = Heartbeat { brick, incarnation, version, ..Heartbeat::default() };
    assert!(leases.heartbeat(at, keepers, &heartbeat));
    leases.answer(at, keepers, brick, incarnation, version)
}

fn leader(keepers: &Keepers) -> (Leases, Planner, u64) {
    let (mut leases, at) = (Leases::default(), 1_000 * MS);
    leases.lead(at, keepers);
    (leases, Planner::default(), at)
}

fn outs(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| matches!(entry, Entry::TakeOut { .. }));
    entries
}

#[test]
fn a_new_leader_counts_every_lease_from_its_own_start() {
    let keepers = group_of(2);
    let (mut leases, mut planner, at) = leader(&keepers);
    let entry = Entry::TakeOut { brick: 2, incarnation: 200 };
    // 1 is heard all the time; of 2 the leader before may have heard a moment ago.
    for after in (0..550).step_by(50) {
        beat(&mut leases, at + after * MS, &keepers, 1);
        let entries = plan(at + after * MS, &keepers, &mut leases, &mut planner);
        assert!(entries.is_empty(), "{after} ms: {entries:?}");
        assert_eq!(leases.proposed(at + after * MS, &keepers, &entry), None);
    }
    assert_eq!(plan(at + LEASE, &keepers, &mut leases, &mut planner), [entry]);
}

#[test]
fn a_longer_lease_of_earlier_settings_is_waited_for() {
    let mut keepers = group_of(2);
    for lease_ms in [2_000, 500] {
        let settings = Settings { lease_ms, ..Settings::default() };
        done(&mut keepers, &Entry::Settings(settings));
    }
    let (leases, _, at) = leader(&keepers);
    assert_eq!(leases.held_until(&keepers, 2), at + 2_200 * MS);
}

#[test]
fn a_lease_is_counted_from_the_answer_and_a_tenth_longer() {
    let keepers = group_of(2);
    let (mut leases, mut planner, at) = leader(&keepers);
    let at = at + 10 * LEASE;
    let heartbeat = Heartbeat { brick: 2, incarnation: 200, ..Heartbeat::default() };
    leases.heartbeat(at, &keepers, &heartbeat);
    // The quorum check took a while.
    let answered = at + 70 * MS;
    let answer = leases.answer(answered, &keepers, 2, 200, 0);
    let Some(LeaseAnswer::Granted { lease_ms: Some(500), delta }) = answer else { panic!() };
    assert_eq!(delta.version, keepers.version());
    beat(&mut leases, answered, &keepers, 1);
    assert_eq!(leases.held_until(&keepers, 2), answered + LEASE);
    let entries = plan(answered + LEASE - 1, &keepers, &mut leases, &mut planner);
    assert!(entries.iter().all(|e| !matches!(e, Entry::TakeOut { .. })), "{entries:?}");
}

#[test]
fn nobody_is_answered_between_proposing_its_removal_and_the_entry() {
    let mut keepers = group_of(2);
    let (mut leases, mut planner, at) = leader(&keepers);
    let at = at + LEASE;
    beat(&mut leases, at, &keepers, 1);
    let entries = plan(at, &keepers, &mut leases, &mut planner);
    let ticket = leases.proposed(at, &keepers, &entries[0]).unwrap();
    assert_eq!(beat(&mut leases, at + 1, &keepers, 2), None, "it would serve with the old map");
    assert!(beat(&mut leases, at + 1, &keepers, 1).is_some());
    // Nothing is proposed twice.
    assert!(plan(at + 1, &keepers, &mut leases, &mut planner).is_empty());
    done(&mut keepers, &entries[0]);
    leases.settled(ticket);
    let answer = beat(&mut leases, at + 2, &keepers, 2);
    let Some(LeaseAnswer::Granted { delta, .. }) = answer else { panic!() };
    assert_eq!(delta.version, keepers.version());
    // A heartbeat that came between plan and proposal: the proposal is refused.
    let entry = Entry::TakeOut { brick: 1, incarnation: 100 };
    assert_eq!(leases.proposed(at + 3, &keepers, &entry), None);
}

#[test]
fn who_leads_a_stopped_group_waits_for_the_leases_of_all_others_in_it() {
    let mut keepers = group_of(3);
    done(&mut keepers, &Entry::TakeOut { brick: 3, incarnation: 300 });
    let (mut leases, mut planner, at) = leader(&keepers);
    let at = at + LEASE;
    beat(&mut leases, at, &keepers, 2);
    beat(&mut leases, at, &keepers, 3);
    let lead = |brick: u32| Entry::Lead {
        partition: 1,
        epoch: 2,
        brick,
        incarnation: u64::from(brick) * 100,
        accept_loss: false,
    };
    assert_eq!(leases.proposed(at, &keepers, &lead(3)), None, "2 is in the present map");
    let told = lead_anyway(at, &keepers, &leases, 1, None).unwrap_err();
    assert!(told.contains("has not stopped: brick \"b2\" may hold a lease"), "{told}");
    // 2 falls silent; 3 stays.
    for after in (50..=600).step_by(50) {
        beat(&mut leases, at + after * MS, &keepers, 3);
        plan(at + after * MS, &keepers, &mut leases, &mut planner);
    }
    let at = at + 600 * MS;
    let entries = plan(at, &keepers, &mut leases, &mut planner);
    let entry = entries.iter().find(|e| matches!(e, Entry::Lead { .. })).unwrap();
    assert_eq!(*entry, lead(3), "the last active group was 1, 2, 3, and 3 kept what it had");
    let ticket = leases.proposed(at, &keepers, entry).unwrap();
    assert_eq!(beat(&mut leases, at, &keepers, 1), None, "it would serve in the old epoch");
    done(&mut keepers, entry);
    leases.settled(ticket);
    assert!(beat(&mut leases, at, &keepers, 1).is_some());
}

#[test]
fn a_new_process_waits_for_the_old_ones_lease_unless_it_has_its_lock() {
    let keepers = group_of(2);
    let (mut leases, _, at) = leader(&keepers);
    let elsewhere = Registration { boot: "other host".into(), ..process(2, 201) };
    let here = process(2, 201);
    assert_eq!(leases.register(at, &keepers, &elsewhere, false), Gate::NotBefore(at + LEASE));
    let Gate::Propose(entry) = leases.register(at, &keepers, &here, false) else { panic!() };
    assert!(matches!(entry, Entry::Register { proof: Proof::SameLock, .. }));
    // While the old one is heard, the other host waits; and it is not answered once the new one is proposed.
    beat(&mut leases, at + LEASE, &keepers, 2);
    let gate = leases.register(at + LEASE, &keepers, &elsewhere, false);
    assert_eq!(gate, Gate::NotBefore(at + 2 * LEASE));
    let gate = leases.register(at + 2 * LEASE, &keepers, &elsewhere, false);
    let Gate::Propose(entry) = gate else { panic!() };
    leases.proposed(at + 2 * LEASE, &keepers, &entry).unwrap();
    assert_eq!(beat(&mut leases, at + 2 * LEASE, &keepers, 2), None);
}

/// A brick asks again and again until it is registered, at one keeper and another: what one of them that stood still passes
/// on may come when the brick's next process acts, has a lease, and would not be asked. (Level one, seed 17267704774810.)
#[test]
fn what_an_earlier_process_asked_and_comes_late_replaces_nobody() {
    let mut keepers = group_of(2);
    let (mut leases, _, at) = leader(&keepers);
    let started = |started_ns, incarnation| Registration { started_ns, ..process(2, incarnation) };
    let (first, next) = (started(5, 201), started(7, 202));
    for registration in [&first, &next] {
        let gate = leases.register(at, &keepers, registration, false);
        let Gate::Propose(entry) = gate else { panic!("{gate:?}") };
        done(&mut keepers, &entry);
    }
    beat(&mut leases, at, &keepers, 2);
    let lost = Registration { memory_intact: false, ..first };
    assert_eq!(leases.register(at, &keepers, &lost, false), Gate::NotBefore(at + LEASE));
    let (registration, replaces) = (Box::new(lost), Some(202));
    let entry = Entry::Register { registration, replaces, proof: Proof::SameLock };
    refused(&mut keepers, &entry, "nothing says that process ca of brick");
}

#[test]
fn a_process_that_was_just_let_in_has_the_time_for_a_heartbeat() {
    let mut keepers = group_of(2);
    let (mut leases, mut planner, at) = leader(&keepers);
    let at = at + LEASE;
    beat(&mut leases, at, &keepers, 1);
    let Gate::Propose(entry) = leases.register(at, &keepers, &process(2, 201), false) else {
        panic!()
    };
    let ticket = leases.proposed(at, &keepers, &entry).unwrap();
    done(&mut keepers, &entry);
    leases.settled(ticket);
    for after in (0..550).step_by(50) {
        beat(&mut leases, at + after * MS, &keepers, 1);
        let entries = outs(plan(at + after * MS, &keepers, &mut leases, &mut planner));
        assert!(entries.is_empty(), "{after} ms: {entries:?}");
    }
    // It was never heard.
    let out = Entry::TakeOut { brick: 2, incarnation: 201 };
    assert_eq!(outs(plan(at + LEASE, &keepers, &mut leases, &mut planner)), [out]);
}

#[test]
fn a_lease_without_end_ends_by_the_word_of_the_brick_that_has_it() {
    let mut keepers = Keepers::default();
    let (mut leases, mut planner, at) = leader(&keepers);
    let first = process(1, 100);
    let Gate::Propose(entry) = leases.register(at, &keepers, &first, true) else { panic!() };
    done(&mut keepers, &entry);
    let mut say = |at, leases: &mut Leases, keepers: &Keepers, endless| {
        let heartbeat = Heartbeat { brick: 1, incarnation: 100, endless, ..Heartbeat::default() };
        leases.heartbeat(at, keepers, &heartbeat);
        let entries = plan(at, keepers, leases, &mut planner);
        match leases.answer(at, keepers, 1, 100, 0) {
            Some(LeaseAnswer::Granted { lease_ms, .. }) => (lease_ms, entries),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(say(at, &mut leases, &keepers, true), (None, vec![]));
    assert_eq!(leases.held_until(&keepers, 1), u64::MAX);
    // Restarted after a power failure: the keepers' log is its own, so the process before is over.
    let again = Registration { boot: "later".into(), ..process(1, 101) };
    let gate = leases.register(at, &keepers, &again, true);
    assert!(matches!(gate, Gate::Propose(Entry::Register { proof: Proof::OwnKeeper, .. })));
    // Somebody wants to join: finite answers from now on, and the brick says when its cores have them.
    assert_eq!(leases.register(at, &keepers, &process(2, 200), false), Gate::Finite);
    assert_eq!(say(at, &mut leases, &keepers, true), (Some(500), vec![]));
    assert_eq!(leases.held_until(&keepers, 1), u64::MAX, "its word is missing");
    let (_, entries) = say(at + 100 * MS, &mut leases, &keepers, false);
    assert_eq!(entries, [Entry::Finite { brick: 1, incarnation: 100 }]);
    done(&mut keepers, &entries[0]);
    assert_eq!(leases.held_until(&keepers, 1), at + 100 * MS + LEASE);
    assert!(matches!(leases.register(at, &keepers, &process(2, 200), false), Gate::Propose(_)));
}

#[test]
fn a_process_that_does_not_act_for_the_brick_gets_no_lease() {
    let keepers = group_of(1);
    let (mut leases, _, at) = leader(&keepers);
    let heartbeat = Heartbeat { brick: 1, incarnation: 99, ..Heartbeat::default() };
    assert!(!leases.heartbeat(at, &keepers, &heartbeat));
    assert_eq!(leases.answer(at, &keepers, 1, 99, 0), Some(LeaseAnswer::Register));
    assert_eq!(leases.answer(at, &keepers, 7, 1, 0), Some(LeaseAnswer::Removed));
}

#[test]
fn a_leader_that_stood_still_takes_nobody_out_for_it() {
    let keepers = group_of(3);
    let (mut leases, mut planner, at) = leader(&keepers);
    let mut at = at + LEASE;
    for _ in 0..10 {
        at += 50 * MS;
        for brick in 1..=3 {
            beat(&mut leases, at, &keepers, brick);
        }
        assert!(outs(plan(at, &keepers, &mut leases, &mut planner)).is_empty());
    }
    // Ten seconds without a turn: all leases have ended, and all heartbeats wait in the queue.
    at += 10_000 * MS;
    assert!(outs(plan(at, &keepers, &mut leases, &mut planner)).is_empty());
    // Who stays silent is taken out a lease later.
    for _ in 0..12 {
        at += 50 * MS;
        beat(&mut leases, at, &keepers, 1);
        beat(&mut leases, at, &keepers, 2);
        let out = outs(plan(at, &keepers, &mut leases, &mut planner));
        if !out.is_empty() {
            assert_eq!(out, [Entry::TakeOut { brick: 3, incarnation: 300 }]);
            return;
        }
    }
    panic!("brick 3 stays");
}

/// A process whose files are not those of the brick's last process (a backup of data_dir that was put back, or a copy
/// beside it) has not what the brick acknowledged, whatever the files say of themselves.
#[test]
fn files_of_an_earlier_process_do_not_count_as_intact() {
    let keepers = group_of(2);
    let (mut leases, _, at) = leader(&keepers);
    let mut judged = |before: &[u64]| {
        let new = Registration { before: before.to_vec(), ..process(2, 201) };
        let Gate::Propose(entry) = leases.register(at + LEASE, &keepers, &new, false) else {
            panic!()
        };
        let Entry::Register { registration, .. } = &entry else { panic!() };
        assert!(registration.before.is_empty(), "it need not be in the log");
        let intact = (registration.memory_intact, registration.disk_intact);
        let mut keepers = keepers.clone();
        done(&mut keepers, &entry);
        (intact, now(&keepers).1)
    };
    assert_eq!(judged(&[200]), ((true, true), vec![1, 2]));
    assert_eq!(judged(&[199, 200]), ((true, true), vec![1, 2]), "one of them never registered");
    assert_eq!(judged(&[150]), ((false, false), vec![1]));
    assert_eq!(judged(&[]), ((false, false), vec![1]));
}
