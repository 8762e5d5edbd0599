//! Logs that share little memory: none of them stays full while it is nearly empty, whatever the others have.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use firebrick_log::storage::Spare;
use firebrick_log::*;

const SEGMENT: usize = 16 << 10;

/// Logs in heap memory, and how many segments they may have together.
struct Shared {
    logs: Vec<(Log, Index)>,
    segments: usize,
}

impl Shared {
    fn new(logs: usize, segments: usize) -> Self {
        let new = |_| {
            let mut log = Log::in_heap(config(Durability::Memory));
            log.ration(0);
            (log, Index::default())
        };
        Self { logs: (0..logs).map(new).collect(), segments }
    }

    fn ready(&self) -> usize {
        let used: u64 = self.logs.iter().map(|(log, _)| log.used_bytes()).sum();
        self.segments - used as usize / SEGMENT
    }

    /// Gives what is asked for, as `Spares` does, and cleans.
    fn pump(&mut self) {
        for at in 0..self.logs.len() {
            for _ in 0..20 {
                while let Some(Ask::Segment(want)) = self.logs[at].0.poll_ask(0) {
                    let kept = match want.room {
                        Room::Write => 2,
                        Room::Remove => 1,
                        Room::Clean => 0,
                    };
                    let ready = self.ready();
                    let log = &mut self.logs[at].0;
                    if ready > kept {
                        log.give(want.kind, Spare::in_heap(SEGMENT));
                    } else {
                        log.refuse(want.kind);
                    }
                }
                let (log, index) = &mut self.logs[at];
                log.renew_ends();
                log.clean(1 << 20, true, index);
            }
        }
        self.logs.iter_mut().for_each(|(log, _)| log.room_again());
    }

    fn write(&mut self, at: usize, body: &Body<'_>) -> Result<Loc, AppendError> {
        let mut result = Err(AppendError::NotYet);
        for _ in 0..5 {
            let (log, index) = &mut self.logs[at];
            result = write(log, index, body);
            if result.is_ok() {
                break;
            }
            self.pump();
        }
        result
    }
}

/// A few values stay in each, and one is written again and again.
#[test]
fn two_segments_each_and_two_spares_are_enough_for_logs_that_are_nearly_empty() {
    for logs in 1..5 {
        let mut shared = Shared::new(logs, 2 * logs + 2);
        for n in 0..4 * logs {
            shared.write(n % logs, &put(&key(n as u64), &[1; 300])).unwrap();
        }
        for n in 0..2000 {
            // All of them in turn, then each one for itself.
            let at = if n < 1000 { n % logs } else { (n - 1000) * logs / 1000 };
            let written = shared.write(at, &put(b"hot", &[1; 300]));
            written.unwrap_or_else(|e| panic!("write {n} to log {at} of {logs}: {e}"));
        }
    }
}

/// A copy asks for its next segment before it needs it. What it asked for in vain is not kept from the others: neither
/// what was there when it ended, nor what came later.
#[test]
fn what_a_copy_asked_for_ahead_is_given_back() {
    for late in [false, true] {
        let mut shared = Shared::new(2, 8);
        shared.write(0, &put(&key(0), &[1; 300])).unwrap();
        let (log, index) = &shared.logs[0];
        let bytes = log.record(index.at[&key(0)].0).unwrap().bytes().to_vec();
        let record = Unchecked::new(&bytes).check_crc().unwrap();
        let used = |shared: &Shared| shared.logs[1].0.used_bytes() as usize / SEGMENT;
        shared.logs[1].0.set_copying(true);
        let waits = shared.logs[1].0.append_copied(&record);
        assert_eq!(waits, Err(AppendError::NotYet));
        shared.pump();
        shared.logs[1].0.append_copied(&record).unwrap();
        assert_eq!(used(&shared), 1);
        if !late {
            shared.pump();
            assert_eq!(used(&shared), 2, "nothing is asked for ahead");
        }
        shared.logs[1].0.set_copying(false);
        shared.pump();
        assert_eq!(used(&shared), 1);
    }
}
