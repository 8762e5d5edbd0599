//! Random puts, removes, prepares, truncations, cleaning, kills and power failures against a `BTreeMap`.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::*;
use firebrick_log::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        len: u16,
    },
    Remove {
        key: u8,
    },
    /// Prepares this many puts and then drops them, or commits them.
    Prepare {
        key: u8,
        n: u8,
        commit: bool,
    },
    Clean {
        budget: u16,
        idle: bool,
    },
    Kill,
    PowerOff,
    Pass {
        ms: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<u8>(), 0u16..600).prop_map(|(key, len)| Step::Put { key: key % 40, len }),
        3 => any::<u8>().prop_map(|key| Step::Remove { key: key % 40 }),
        2 => (any::<u8>(), 1u8..20, any::<bool>())
            .prop_map(|(key, n, commit)| Step::Prepare { key: key % 40, n, commit }),
        3 => (any::<u16>(), any::<bool>()).prop_map(|(budget, idle)| Step::Clean { budget, idle }),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerOff),
        2 => any::<u8>().prop_map(|ms| Step::Pass { ms }),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn value(n: u64, len: u16) -> Vec<u8> {
    n.to_le_bytes().iter().copied().cycle().take(usize::from(len)).collect()
}

fn recover(log: &mut Log, scan: &mut Scan) -> Index {
    let mut index = rescan(log, scan);
    for &loc in &scan.report().in_doubt {
        let record = log.record(loc).unwrap();
        index.take(log, loc, &record);
    }
    log.set_commit(log.tail().seq);
    assert!(scan.report().intact, "{:?}", scan.report());
    index
}

fn run_in_heap(steps: &[Step]) {
    let cfg = config(Durability::Memory);
    let (mut log, mut index, mut model) = (Log::in_heap(cfg), Index::default(), Model::new());
    for (n, step) in steps.iter().enumerate() {
        match *step {
            Step::Put { key, len } => {
                let value = value(n as u64, len);
                write(&mut log, &mut index, &put(&[key], &value)).unwrap();
                model.insert(vec![key], value);
            }
            Step::Remove { key } => {
                write(&mut log, &mut index, &Body::Remove { key: &[key], id: None }).unwrap();
                model.remove(&vec![key]);
            }
            Step::Prepare { key, n, commit } => {
                let above = log.tail().seq;
                let mut prepared = Vec::new();
                for i in 0..n {
                    let meta = meta(above + 1 + u64::from(i), above);
                    let loc = log.append(&meta, &put(&[key], &[i; 300]), Room::Write);
                    prepared.push(loc.unwrap());
                }
                if commit {
                    log.set_commit(log.tail().seq);
                    for loc in prepared {
                        let record = log.record(loc).unwrap();
                        index.take(&log, loc, &record);
                    }
                    model.insert(vec![key], vec![n - 1; 300]);
                } else {
                    log.truncate(above);
                    assert_eq!(log.tail().seq, above);
                }
            }
            Step::Clean { budget, idle } => {
                log.clean(usize::from(budget), idle, &mut index);
            }
            Step::Kill | Step::PowerOff => {
                let (new, mut scan) = Log::open_in_heap(cfg, log.crash());
                log = new;
                index = recover(&mut log, &mut scan);
            }
            Step::Pass { .. } => {}
        }
        assert_eq!(index.values(&log), model, "after step {n}, {step:?}");
        recount(&log, &index);
    }
}

fn config_of(cases: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 1 } else { cases };
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config_of(100))]

    #[test]
    fn a_log_in_heap_is_a_map(steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 60 } else { 400 })) {
        run_in_heap(&steps);
    }
}

#[cfg(not(miri))]
mod on_files {
    use super::*;
    use common::rig::Rig;

    /// Returns where the log ends now.
    fn lose_power(rig: &mut Rig, durability: Durability) -> u64 {
        if durability == Durability::Sync {
            rig.pump();
            assert_eq!(rig.log.flushed(), rig.log.tail().seq);
        }
        let flushed = rig.log.flushed();
        rig.lose_power();
        assert!(rig.report.intact, "{:?}", rig.report);
        let tail = rig.log.tail().seq;
        assert!(tail >= flushed, "lost {tail} of {flushed}");
        tail
    }

    /// What the model says after each sequence number: a power failure of an `async` table goes back
    /// to one of them, at or above what was flushed.
    fn run(durability: Durability, steps: &[Step]) {
        let mut rig = Rig::quick(config(durability));
        let mut history: Vec<(u64, Model)> = vec![(0, Model::new())];
        for (n, step) in steps.iter().enumerate() {
            let mut model = history.last().unwrap().1.clone();
            match *step {
                Step::Put { key, len } => {
                    let value = value(n as u64, len);
                    rig.try_write(&put(&[key], &value)).unwrap();
                    model.insert(vec![key], value);
                }
                Step::Remove { key } => {
                    rig.try_write(&Body::Remove { key: &[key], id: None }).unwrap();
                    model.remove(&vec![key]);
                }
                Step::Prepare { key, n, .. } => {
                    let above = rig.log.tail().seq;
                    for i in 0..n {
                        let meta = meta(above + 1 + u64::from(i), above);
                        while let Err(error) =
                            rig.log.append(&meta, &put(&[key], &[i; 300]), Room::Write)
                        {
                            assert_eq!(error, AppendError::NotYet);
                            rig.now += 100_000_000;
                            rig.pump();
                        }
                    }
                    rig.log.truncate(above);
                    rig.pump();
                }
                Step::Clean { budget, idle } => {
                    rig.log.clean(usize::from(budget), idle, &mut rig.index);
                    rig.pump();
                }
                Step::Kill => {
                    rig.kill();
                    assert!(rig.report.intact, "{:?}", rig.report);
                }
                Step::PowerOff if durability == Durability::Memory => {}
                Step::PowerOff => {
                    let tail = lose_power(&mut rig, durability);
                    while history.last().unwrap().0 > tail {
                        history.pop();
                    }
                    model = history.last().unwrap().1.clone();
                }
                Step::Pass { ms } => {
                    rig.now += u64::from(ms) * 1_000_000;
                    rig.pump();
                }
            }
            assert_eq!(rig.index.values(&rig.log), model, "after step {n}, {step:?}");
            recount(&rig.log, &rig.index);
            history.push((rig.log.tail().seq, model));
        }
    }

    proptest! {
        #![proptest_config(config_of(12))]

        #[test]
        fn a_sync_log_is_a_map(steps in proptest::collection::vec(step(), 1..120)) {
            run(Durability::Sync, &steps);
        }

        #[test]
        fn an_async_log_is_an_earlier_map_after_a_power_failure(steps in proptest::collection::vec(step(), 1..120)) {
            run(Durability::Async { ms: 200 }, &steps);
        }

        #[test]
        fn a_memory_log_is_a_map_whatever_is_killed(steps in proptest::collection::vec(step(), 1..120)) {
            run(Durability::Memory, &steps);
        }
    }
}
