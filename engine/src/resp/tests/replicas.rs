//! A data core of real replicas in heap memory, four partitions of a table: what the front will meet in a brick. It can be
//! told to answer later, and to fail.

use std::collections::VecDeque;

use firebrick_partition::log::{Durability, Log, LogConfig};
use firebrick_partition::maps::{Leaf, Replicas as Group};
use firebrick_partition::replica::{Action, Actions, Me, Outcome, OwnedAnswer, Replica};
use firebrick_partition::{Answer, Failure, Now, Op, Request, Route};

use crate::resp::{Backend, ReplyToken, glob_matches, hash_key};

const DEPTH: u8 = 2;
const PARTITIONS: usize = 1 << DEPTH;

/// A partition, and its answers that come later.
struct Part {
    replica: Replica,
    actions: Actions,
    waiting: VecDeque<(ReplyToken, OwnedAnswer)>,
}

pub struct Replicas {
    parts: Vec<Part>,
    now: Now,
    /// Partitions whose answers come later: a bit each.
    pub remote: u64,
    /// What everything is answered with.
    pub fail: Option<Failure>,
    pub submitted: u64,
    turn: usize,
}

impl Part {
    fn new(now: Now, partition: u32) -> Self {
        let log = Log::in_heap(LogConfig {
            table: 1,
            partition,
            durability: Durability::Memory,
            bytes_max: 256 << 20,
            segment_bytes_max: 16 << 20,
        });
        let leaf = Leaf { depth: DEPTH, suffix: partition, partition };
        let (mut replica, mut actions) = (Replica::new(log, leaf), Actions::default());
        let me = Me { brick: 1, incarnation: 1 };
        let route = Route { table: 1, partition, epoch: 1, fingerprint: 9 };
        assert!(replica.set_group(now, me, route, &Group::alone(1, 1, 0, 1), &mut actions));
        Self { replica, actions, waiting: VecDeque::new() }
    }
}

impl Replicas {
    pub fn new(now: Now) -> Self {
        let parts = (0..PARTITIONS as u32).map(|partition| Part::new(now, partition)).collect();
        Self { parts, now, remote: 0, fail: None, submitted: 0, turn: 0 }
    }

    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// The next later answer: of each partition in order, of the partitions in any.
    pub fn deliver(&mut self) -> Option<(ReplyToken, OwnedAnswer)> {
        for Part { replica, actions, waiting } in &mut self.parts {
            replica.poll(self.now, actions);
            for action in actions.list.drain(..) {
                if let Action::Reply { token, answer } = action {
                    waiting.push_back((ReplyToken(token), answer));
                }
            }
        }
        (0..PARTITIONS).find_map(|_| {
            self.turn = (self.turn + 3) % PARTITIONS;
            self.parts[self.turn].waiting.pop_front()
        })
    }
}

fn index(hash: u64) -> usize {
    hash as usize % PARTITIONS
}

/// The partition of a key.
pub fn partition_of(key: &[u8]) -> usize {
    index(hash_key(key))
}

impl Backend for Replicas {
    fn now(&self) -> Now {
        self.now
    }

    fn is_serving(&self) -> bool {
        self.fail != Some(Failure::Unavailable)
    }

    fn prefetch_bucket(&self, hash: u64) {
        self.parts[index(hash)].replica.prefetch_bucket(hash);
    }

    fn prefetch_record(&self, hash: u64) {
        self.parts[index(hash)].replica.prefetch_record(hash);
    }

    fn submit(
        &mut self,
        token: ReplyToken,
        hash: u64,
        key: &[u8],
        op: Op<'_>,
    ) -> Option<Answer<'_>> {
        self.submitted += 1;
        let Part { replica, actions, waiting } = &mut self.parts[index(hash)];
        let request = Request { route: replica.route(), numbered: None, key, op };
        let outcome = match self.fail {
            Some(failure) => Outcome::Now(Answer::Failed(failure)),
            None => replica.execute(self.now, token.0, hash, &request, actions),
        };
        match outcome {
            Outcome::Later => None,
            Outcome::Now(answer) if self.remote >> index(hash) & 1 == 1 => {
                waiting.push_back((token, OwnedAnswer::new(&answer)));
                None
            }
            Outcome::Now(answer) => Some(answer),
        }
    }

    fn partition_hashes(&self, out: &mut Vec<u64>) {
        out.extend(0..PARTITIONS as u64);
    }

    fn info(&mut self, section: &str, out: &mut String) {
        if matches!(section, "default" | "server") {
            out.push_str("# Server\r\nredis_mode:standalone\r\n");
        }
    }

    fn config_get(&self, pattern: &[u8], out: &mut Vec<(String, String)>) {
        for (name, value) in [("appendonly", "yes"), ("save", "")] {
            if glob_matches(pattern, name.as_bytes()) {
                out.push((name.into(), value.into()));
            }
        }
    }

    fn clients(&mut self, _: u32, out: &mut String) {
        out.push_str("id=43 addr=b:2 laddr=a:1 name=\n");
    }

    fn addresses(&self, _: u32) -> (String, String) {
        ("b:1".into(), "a:1".into())
    }
}
