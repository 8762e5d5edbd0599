//! Promise: the eight cases of docs/protocol.md ("The eight cases"), each with real processes whose moments are hit
//! by pausing them and by cutting links. All calls are written down and must fit one order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use firebrick_tests::cluster::{Cluster, Shape};
use firebrick_tests::hand::Hand;
use firebrick_tests::recorder::Recorder;

/// Longer than a take-over takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(8);
/// A dead brick's lease, a tenth, the keepers' decision and the client's way to the new group, and room for a busy machine.
const BOUNDED: Duration = Duration::from_secs(4);
/// Well below a lease: whoever is paused so long stays in its groups.
const MOMENT: Duration = Duration::from_millis(60);

fn start(test: &str, bricks: usize) -> Option<Cluster> {
    Cluster::for_test(test, &Shape { bricks, ..Shape::default() })
}

fn hand<'a>(cluster: &Cluster, recorder: &'a Recorder, number: u32) -> Hand<'a> {
    Hand::new(recorder, number, &cluster.seeds(), DEADLINE)
}

/// A client makes `call` at the moment at which `meanwhile` calls its second argument; both results.
fn beside<T: Send, R>(
    cluster: &mut Cluster,
    recorder: &Recorder,
    number: u32,
    call: impl FnOnce(&Hand<'_>) -> T + Send,
    meanwhile: impl FnOnce(&mut Cluster, &dyn Fn()) -> R,
) -> (T, R) {
    let (host, seeds) = (cluster.network.name(cluster.client_host()), cluster.seeds());
    let (ready, is_ready) = mpsc::channel();
    let (go, goes) = mpsc::channel();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            firebrick_tests::network::enter(&host).expect("the clients' host");
            let hand = Hand::new(recorder, number, &seeds, DEADLINE);
            // (It has its maps and its connections before anything goes wrong.)
            for n in 0..24 {
                assert!(hand.increment(&format!("warm-{number}-{n}")).is_some());
            }
            ready.send(()).expect("the test");
            goes.recv().expect("the test");
            call(&hand)
        });
        is_ready.recv().expect("the client");
        let told = meanwhile(cluster, &|| go.send(()).expect("the client"));
        (thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), told)
    })
}

/// Reads by clients of their own until `until`, and what they saw.
fn readers<R>(
    cluster: &mut Cluster,
    recorder: &Recorder,
    key: &str,
    meanwhile: impl FnOnce(&mut Cluster) -> R,
) -> (Vec<String>, R) {
    let over = AtomicBool::new(false);
    let (host, seeds) = (cluster.network.name(cluster.client_host()), cluster.seeds());
    std::thread::scope(|scope| {
        let (began, begin) = mpsc::channel();
        let mut threads = Vec::new();
        for number in 10..13 {
            let (host, seeds, over, began) = (&host, &seeds, &over, began.clone());
            threads.push(scope.spawn(move || {
                firebrick_tests::network::enter(host).expect("the clients' host");
                let hand = Hand::new(recorder, number, seeds, DEADLINE);
                let mut seen = Vec::new();
                // (Its connections are there before anything happens.)
                for _ in 0..20 {
                    let _ = hand.get(key);
                }
                began.send(()).expect("the test");
                while !over.load(Ordering::Relaxed) {
                    if let Ok(Some(value)) = hand.get(key) {
                        seen.push(value);
                    }
                }
                seen
            }));
        }
        for _ in &threads {
            begin.recv().expect("a reader");
        }
        let told = meanwhile(cluster);
        over.store(true, Ordering::Relaxed);
        let seen = threads.into_iter().flat_map(|thread| thread.join().expect("a reader"));
        (seen.collect(), told)
    })
}

fn all_give(hand: &Hand<'_>, key: &str, value: &str) {
    // (Spread over the replicas.)
    for _ in 0..40 {
        assert_eq!(hand.get(key).as_ref().map(Option::as_deref), Ok(Some(value)));
    }
}

#[test]
fn case_1_a_write_is_on_both_replicas_and_every_later_read_gives_it() {
    let Some(mut cluster) = start("case_1", 2) else { return };
    let recorder = Recorder::default();
    let (writer, reader) = (hand(&cluster, &recorder, 1), hand(&cluster, &recorder, 2));
    let key = cluster.key_of(|group| group.len() == 2);
    for round in 0..20 {
        let value = format!("{round}");
        assert!(writer.put(&key, "0").is_some());
        all_give(&reader, &key, "0");
        assert!(writer.put(&key, &value).is_some());
        all_give(&reader, &key, &value);
    }
    // Each of the two has it: whichever is left gives it.
    let primary = cluster.group_of(&key)[0];
    cluster.kill(primary);
    cluster.spawn(primary);
    cluster.wait_ready(primary);
    all_give(&reader, &key, "19");
    recorder.judge();
}

#[test]
fn case_2_two_writes_at_once_end_the_same_everywhere() {
    let Some(mut cluster) = start("case_2", 3) else { return };
    let recorder = Recorder::default();
    let reader = hand(&cluster, &recorder, 1);
    let key = cluster.key_of(|group| group.len() == 3);
    for round in 0..12 {
        let (two, three) = (format!("2.{round}"), format!("3.{round}"));
        let ((), (seen, ())) = beside(
            &mut cluster,
            &recorder,
            100 + round,
            |other| assert!(other.put(&key, &three).is_some()),
            |cluster, go| {
                readers(cluster, &recorder, &key, |_| {
                    go();
                    assert!(reader.put(&key, &two).is_some());
                    std::thread::sleep(MOMENT);
                })
            },
        );
        let last = reader.get(&key).expect("an answer").expect("a value");
        assert!(last == two || last == three, "{last} after {seen:?}");
        all_give(&reader, &key, &last);
    }
    recorder.judge();
}

/// One backup does not vote for a while: the write is prepared and not committed.
#[test]
fn case_3_a_read_between_prepare_and_commit_gives_the_old_value_or_waits() {
    let Some(mut cluster) = start("case_3", 3) else { return };
    let recorder = Recorder::default();
    let first = hand(&cluster, &recorder, 1);
    let key = cluster.key_of(|group| group.len() == 3);
    assert!(first.put(&key, "old").is_some());
    // (On a very busy machine the pause may cost a lease: then the write completes on the rest, and the round shows nothing.)
    let (mut waited, mut round) = (0, 0);
    while waited < 4 {
        round += 1;
        assert!(round <= 24, "the replica left the group in {} of 24 rounds", 24 - waited);
        let epoch = cluster.epoch_of(&key);
        let old = first.get(&key).expect("an answer").expect("a value");
        let new = format!("new-{round}");
        let last = cluster.group_of(&key)[2];
        let (done, (seen, reads)) = beside(
            &mut cluster,
            &recorder,
            100 + round,
            |writer| writer.put(&key, &new).map(|_| Instant::now()),
            |cluster, go| {
                readers(cluster, &recorder, &key, |cluster| {
                    cluster.pause(last);
                    go();
                    std::thread::sleep(4 * MOMENT);
                    let resumed = Instant::now();
                    cluster.resume(last);
                    std::thread::sleep(4 * MOMENT);
                    resumed
                })
            },
        );
        let done = done.expect("it was acked");
        if cluster.epoch_of(&key) == epoch {
            waited += 1;
            assert!(done >= reads, "acked without the vote of a replica");
            assert!(seen.contains(&old) && seen.contains(&new), "{old}, {new}");
        }
        cluster.mend();
    }
    recorder.judge();
}

#[test]
fn case_4_a_replica_that_dies_in_the_middle_of_a_write_delays_it_for_a_bounded_time() {
    let Some(mut cluster) = start("case_4", 3) else { return };
    let recorder = Recorder::default();
    let first = hand(&cluster, &recorder, 1);
    // (As in case 3: a replica that left its group before it stood still delays nothing.)
    let (mut delayed, mut round) = (0, 0);
    while delayed < 3 {
        round += 1;
        assert!(round <= 12, "the replica left the group in {} of 12 rounds", 12 - delayed);
        let key = cluster.key_of(|group| group.len() == 3);
        let epoch = cluster.epoch_of(&key);
        let last = cluster.group_of(&key)[2];
        let value = format!("{round}");
        let (took, stayed) = beside(
            &mut cluster,
            &recorder,
            100 + round,
            |writer| {
                let began = Instant::now();
                assert!(writer.put(&key, &value).is_some());
                began.elapsed()
            },
            |cluster, go| {
                cluster.pause(last);
                go();
                std::thread::sleep(MOMENT);
                let stayed = cluster.epoch_of(&key) == epoch;
                cluster.kill(last);
                stayed
            },
        );
        assert!(took < BOUNDED, "{took:?}");
        if stayed {
            delayed += 1;
            assert!(took >= MOMENT, "acked without the vote of a replica: {took:?}");
        }
        all_give(&first, &key, &value);
        cluster.mend();
        all_give(&first, &key, &value);
    }
    recorder.judge();
}

#[test]
fn case_5_a_read_after_a_replica_died_is_answered_by_another_one() {
    let Some(mut cluster) = start("case_5", 3) else { return };
    let recorder = Recorder::default();
    let first = hand(&cluster, &recorder, 1);
    let key = cluster.key_of(|group| group.len() == 3);
    for round in 0..6 {
        let value = format!("{round}");
        assert!(first.put(&key, &value).is_some());
        all_give(&first, &key, &value);
        let group = cluster.group_of(&key);
        let dies = group[round % group.len()];
        cluster.kill(dies);
        let began = Instant::now();
        all_give(&first, &key, &value);
        assert!(began.elapsed() < BOUNDED, "{:?}", began.elapsed());
        cluster.mend();
    }
    recorder.judge();
}

/// With the record on one backup, and with the record on no other replica at all.
#[test]
fn case_6_the_coordinator_dies_before_any_commit_left_and_a_retry_applies_once() {
    let Some(mut cluster) = start("case_6", 3) else { return };
    let recorder = Recorder::default();
    let first = hand(&cluster, &recorder, 1);
    let key = cluster.key_of(|group| group.len() == 3);
    let mut sum = 0;
    for round in 0..6 {
        let group = cluster.group_of(&key);
        let (primary, backups) = (group[0], group[1..].to_vec());
        let (got, ()) = beside(
            &mut cluster,
            &recorder,
            100 + round,
            |writer| writer.increment(&key),
            |cluster, go| {
                if round % 2 == 0 {
                    cluster.pause(backups[1]);
                } else {
                    for backup in &backups {
                        cluster.network.cut(primary, *backup);
                    }
                }
                go();
                std::thread::sleep(MOMENT);
                cluster.kill(primary);
                cluster.resume(backups[1]);
                cluster.network.heal();
            },
        );
        sum += 1;
        assert_eq!(got, Some(sum), "round {round}: the retry was answered once, with its sum");
        let now = sum.to_string();
        all_give(&first, &key, &now);
        cluster.mend();
        all_give(&first, &key, &now);
    }
    recorder.judge();
}

/// What the last two cases begin with: the write is acked, the first backup knows that it is committed, the second one
/// has only prepared it, and the primary is dead.
fn one_replica_knows_the_commit(
    cluster: &mut Cluster,
    recorder: &Recorder,
    (key, value): (&str, &str),
    number: u32,
) -> Vec<usize> {
    let group = cluster.group_of(key);
    let (primary, knows, lacks) = (group[0], group[1], group[2]);
    let (acked, ()) = beside(
        cluster,
        recorder,
        number,
        |writer| writer.put(key, value),
        |cluster, go| {
            // Prepared everywhere; the vote of the first backup is missing.
            cluster.pause(knows);
            go();
            std::thread::sleep(MOMENT);
            // The second one hears no more, and the first one votes: committed, acked, and told to the first.
            cluster.network.cut(primary, lacks);
            cluster.resume(knows);
            std::thread::sleep(MOMENT);
            cluster.kill(primary);
            cluster.network.heal();
        },
    );
    assert!(acked.is_some(), "the write was acked");
    group
}

#[test]
fn case_7_the_coordinator_dies_after_one_replica_committed_and_every_replica_commits() {
    let Some(mut cluster) = start("case_7", 3) else { return };
    let recorder = Recorder::default();
    let first = hand(&cluster, &recorder, 1);
    for round in 0..4 {
        let key = cluster.key_of(|group| group.len() == 3);
        let value = format!("{round}");
        one_replica_knows_the_commit(&mut cluster, &recorder, (&key, &value), 100 + round);
        all_give(&first, &key, &value);
        cluster.mend();
        all_give(&first, &key, &value);
    }
    recorder.judge();
}

#[test]
fn case_8_as_7_and_the_replica_that_knew_dies_after_a_read_of_it() {
    // Four bricks, so that the keepers have a majority without two of them: the fourth is no keeper.
    let Some(mut cluster) = start("case_8", 4) else { return };
    let recorder = Recorder::default();
    let first = hand(&cluster, &recorder, 1);
    for round in 0..3 {
        let key = cluster.key_of(|group| group.len() == 3 && group[..2].contains(&3));
        let value = format!("{round}");
        let group =
            one_replica_knows_the_commit(&mut cluster, &recorder, (&key, &value), 100 + round);
        assert_eq!(first.get(&key), Ok(Some(value.clone())));
        cluster.kill(group[1]);
        all_give(&first, &key, &value);
        cluster.mend();
        all_give(&first, &key, &value);
    }
    recorder.judge();
}
