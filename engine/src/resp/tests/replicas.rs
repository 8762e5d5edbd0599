//! A data core of real replicas in heap memory: what the front will meet in a brick.

use std::collections::VecDeque;

use firebrick_partition::log::{Durability, Log, LogConfig};
use firebrick_partition::maps::{Leaf, Replicas as Group};
use firebrick_partition::replica::{Action, Actions, Me, Outcome, OwnedAnswer, Replica};
use firebrick_partition::{Answer, Now, Op, Request, Route};

use super::Core;
use crate::resp::{Backend, ReplyToken};

const DEPTH: u8 = 2;

pub struct Replicas {
    all: Vec<Replica>,
    now: Now,
    /// Partitions whose answers come later: a bit each.
    pub remote: u64,
    waiting: VecDeque<(ReplyToken, OwnedAnswer)>,
    actions: Actions,
}

impl Replicas {
    pub fn new(now: Now) -> Self {
        let mut actions = Actions::default();
        let mut begun = |partition: u32| {
            let log = Log::in_heap(LogConfig {
                table: 1,
                partition,
                durability: Durability::Memory,
                bytes_max: 256 << 20,
                segment_bytes_max: 16 << 20,
            });
            let leaf = Leaf { depth: DEPTH, suffix: partition, partition };
            let mut replica = Replica::new(log, leaf);
            let me = Me { brick: 1, incarnation: 1 };
            let route = Route { table: 1, partition, epoch: 1, fingerprint: 9 };
            assert!(replica.set_group(now, me, route, &Group::alone(1, 1, 0, 1), &mut actions));
            replica
        };
        let all = (0..1 << DEPTH).map(&mut begun).collect();
        Self { all, now, remote: 0, waiting: VecDeque::new(), actions }
    }

    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    fn index(hash: u64) -> usize {
        (hash & ((1 << DEPTH) - 1)) as usize
    }
}

impl Core for Replicas {
    fn deliver(&mut self) -> Option<(ReplyToken, OwnedAnswer)> {
        for replica in &mut self.all {
            replica.poll(self.now, &mut self.actions);
        }
        for action in self.actions.list.drain(..) {
            if let Action::Reply { token, answer } = action {
                self.waiting.push_back((ReplyToken(token), answer));
            }
        }
        self.waiting.pop_front()
    }
}

impl Backend for Replicas {
    fn now(&self) -> Now {
        self.now
    }

    fn is_serving(&self) -> bool {
        self.all.iter().all(Replica::is_serving)
    }

    fn prefetch_bucket(&self, hash: u64) {
        self.all[Self::index(hash)].prefetch_bucket(hash);
    }

    fn prefetch_record(&self, hash: u64) {
        self.all[Self::index(hash)].prefetch_record(hash);
    }

    fn submit(
        &mut self,
        token: ReplyToken,
        hash: u64,
        key: &[u8],
        op: Op<'_>,
    ) -> Option<Answer<'_>> {
        let replica = &mut self.all[Self::index(hash)];
        let request = Request { route: replica.route(), numbered: None, key, op };
        match replica.execute(self.now, token.0, hash, &request, &mut self.actions) {
            Outcome::Later => None,
            Outcome::Now(answer) if self.remote >> Self::index(hash) & 1 == 1 => {
                self.waiting.push_back((token, OwnedAnswer::new(&answer)));
                None
            }
            Outcome::Now(answer) => Some(answer),
        }
    }

    fn partition_hashes(&self, out: &mut Vec<u64>) {
        out.extend(0..self.all.len() as u64);
    }

    fn info(&mut self, _: &str, _: &mut String) {}

    fn config_get(&self, _: &[u8], _: &mut Vec<(String, String)>) {}

    fn clients(&mut self, _: u32, _: &mut String) {}

    fn addresses(&self, _: u32) -> (String, String) {
        ("b:1".into(), "a:1".into())
    }
}
