//! Promise: what was acked is there after `kill -9`, whole, and only what was sent.
//!
//! Writers put, remove and increment through pipelined connections while the brick is killed at a random
//! moment and started again, round after round on the same folders. `$FIREBRICK_KILL_ROUNDS` sets the rounds
//! (50: 103 of them in all tests together).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use firebrick_tests::brick::{Brick, Options, kill_rounds};
use firebrick_tests::model::{Model, number_of, value_of};
use firebrick_tests::random::Random;
use firebrick_tests::resp::{Resp, Value, command};

const WRITERS: u64 = 3;
const KEYS: u64 = 200;

/// One connection's worth of writes, remembered across rounds.
struct Writer {
    id: u64,
    random: Random,
    model: Model,
    number: u64,
    /// INCR: how many were acked and how many sent.
    counter_acked: i64,
    counter_sent: i64,
}

enum Sent {
    Key(Vec<u8>),
    Counter,
}

impl Writer {
    fn new(id: u64, random: &mut Random) -> Self {
        let random = Random::new(random.next_u64());
        Self { id, random, model: Model::default(), number: 0, counter_acked: 0, counter_sent: 0 }
    }

    fn counter(&self) -> String {
        format!("counter:{}", self.id)
    }

    /// Writes batch after batch until the connection breaks.
    fn write_until_killed(&mut self, mut resp: Resp) {
        loop {
            let depth = 1 + self.random.below(24);
            let mut bytes = Vec::new();
            let mut sent = Vec::new();
            for _ in 0..depth {
                let (command, what) = self.next_write();
                bytes.extend(command);
                sent.push(what);
            }
            if resp.send(&bytes).is_err() {
                return;
            }
            for what in sent {
                let Ok(answer) = resp.receive() else { return };
                assert!(answer.error().is_none(), "{answer:?}");
                match what {
                    Sent::Key(key) => self.model.acked(&key),
                    Sent::Counter => {
                        self.counter_acked += 1;
                        assert_eq!(answer, Value::Integer(self.counter_acked));
                    }
                }
            }
        }
    }

    fn next_write(&mut self) -> (Vec<u8>, Sent) {
        let key = format!("w{}:{}", self.id, self.random.below(KEYS)).into_bytes();
        match self.random.below(10) {
            0 => {
                self.model.sent(&key, None);
                (command(&[b"DEL", &key[..]]), Sent::Key(key))
            }
            1 => {
                self.counter_sent += 1;
                (command(&["INCR", &self.counter()]), Sent::Counter)
            }
            _ => {
                self.number += 1;
                self.model.sent(&key, Some(self.number));
                let value = value_of(self.id, self.number);
                (command(&[b"SET", &key[..], &value[..]]), Sent::Key(key))
            }
        }
    }

    /// Reads everything back and holds it against what may be there.
    fn check(&mut self, resp: &mut Resp) {
        for key in self.model.keys() {
            let found = match resp.call(&[b"GET", &key[..]]).expect("an answer") {
                Value::Nil => None,
                Value::Bulk(value) => {
                    let (writer, number) = number_of(&value).unwrap_or_else(|| {
                        panic!("a torn value at {}", String::from_utf8_lossy(&key))
                    });
                    assert_eq!(writer, self.id, "another writer's value");
                    Some(number)
                }
                other => panic!("{other:?}"),
            };
            self.model.check(&key, found).unwrap_or_else(|problem| panic!("{problem}"));
        }
        let counted = match resp.call(&["GET", &self.counter()]).expect("an answer") {
            Value::Nil => 0,
            Value::Bulk(digits) => String::from_utf8_lossy(&digits).parse().expect("a number"),
            other => panic!("{other:?}"),
        };
        assert!(
            (self.counter_acked..=self.counter_sent).contains(&counted),
            "the counter is {counted}: {} increments were acked, {} sent",
            self.counter_acked,
            self.counter_sent
        );
        (self.counter_acked, self.counter_sent) = (counted, counted);
    }
}

/// What happens between a kill and the next start.
#[derive(Clone, Copy, PartialEq)]
enum Between {
    Nothing,
    /// Power fails too: memory_dir is gone.
    PowerFailure,
    /// Starts that are killed as well.
    KilledStarts,
}

fn survive(durability: &'static str, cores: &'static str, rounds: u32, between: Between) {
    let mut random = Random::from_environment();
    let mut brick = Brick::start(&Options { durability, cores, ..Options::default() });
    let mut writers: Vec<_> = (0..WRITERS).map(|id| Writer::new(id, &mut random)).collect();
    for _ in 0..rounds {
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let resp = brick.connect();
                let killed = &killed;
                scope.spawn(move || {
                    writer.write_until_killed(resp);
                    assert!(killed.load(Ordering::SeqCst), "a connection broke before the kill");
                });
            }
            std::thread::sleep(Duration::from_micros(1000 + random.below(120_000)));
            killed.store(true, Ordering::SeqCst);
            brick.kill9();
        });
        match between {
            Between::Nothing => {}
            Between::PowerFailure => brick.lose_memory(),
            Between::KilledStarts => {
                for _ in 0..=random.below(3) {
                    brick.restart_and_kill(Duration::from_micros(random.below(60_000)));
                }
            }
        }
        brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
        let mut resp = brick.connect();
        for writer in &mut writers {
            writer.check(&mut resp);
        }
    }
    let written: u64 = writers.iter().map(|writer| writer.number).sum();
    assert!(written > u64::from(rounds) * 10, "only {written} puts: the load was no load");
}

#[test]
fn acked_writes_survive_a_kill_in_memory_tables() {
    survive("memory", "0", kill_rounds().div_ceil(2), Between::Nothing);
}

#[test]
fn acked_writes_survive_a_kill_in_sync_tables() {
    survive("sync", "0", kill_rounds().div_ceil(4), Between::Nothing);
}

#[test]
fn acked_writes_survive_a_kill_with_two_data_cores_in_async_tables() {
    survive("async", "0-1", kill_rounds().div_ceil(4), Between::Nothing);
}

#[test]
fn acked_writes_survive_a_power_failure_in_sync_tables() {
    survive("sync", "0", kill_rounds().div_ceil(4), Between::PowerFailure);
}

#[test]
fn acked_writes_survive_a_power_failure_in_sync_tables_of_two_data_cores() {
    survive("sync", "0-1", kill_rounds().div_ceil(4), Between::PowerFailure);
}

#[test]
fn a_kill_in_the_middle_of_a_start_costs_nothing() {
    survive("memory", "0", kill_rounds().div_ceil(4), Between::KilledStarts);
}

#[test]
fn a_kill_in_the_middle_of_a_start_costs_nothing_in_async_tables_of_two_data_cores() {
    survive("async", "0-1", kill_rounds().div_ceil(4), Between::KilledStarts);
}
