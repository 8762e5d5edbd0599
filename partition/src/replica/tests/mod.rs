//! One replica against a model: what it answers, what it keeps through a crash, and what it never
//! shows.

mod anew;
mod bounds;
mod copies;
mod counts;
mod damaged;
mod disks;
mod exactly_once;
mod expiry;
mod groups;
mod linear;
mod model;
mod net;
mod pieces;
mod room;
mod small;
mod sync;
mod times;

use firebrick_log::{Durability, Log, LogConfig};

use super::{Action, Actions, Budget, Me, Outcome, OwnedAnswer, Recovering, Replica};
use crate::hash::hash_key;
use crate::maps::{Leaf, Replicas};
use crate::op::{Now, Numbered, Op, Request, Route};

pub(super) const PARTITION: u32 = 3;

pub(super) fn leaf() -> Leaf {
    Leaf { depth: 0, suffix: 0, partition: PARTITION }
}

pub(super) fn route(epoch: u32) -> Route {
    Route { table: 1, partition: PARTITION, epoch, fingerprint: epoch ^ 0xabcd }
}

pub(super) fn config(durability: Durability) -> LogConfig {
    LogConfig {
        table: 1,
        partition: PARTITION,
        durability,
        bytes_max: 64 << 20,
        segment_bytes_max: 16 << 10,
    }
}

/// The group is this replica alone.
pub(super) fn set_alone(replica: &mut Replica, now: Now, route: Route, out: &mut Actions) -> bool {
    let me = Me { brick: 1, incarnation: 1 };
    replica.set_group(now, me, route, &Replicas::alone(route.epoch, 1, 0, 1), out)
}

/// A replica with its clock and what it said.
pub(super) struct World {
    pub replica: Replica,
    pub now: Now,
    pub epoch: u32,
    pub out: Actions,
    pub token: u64,
}

impl World {
    pub fn new(durability: Durability) -> Self {
        let replica = Replica::new(Log::in_heap(config(durability)), leaf());
        let now = Now { boot_ns: 1_000_000, unix_ms: 1_000_000 };
        let mut world = Self { replica, now, epoch: 1, out: Actions::default(), token: 0 };
        assert!(set_alone(&mut world.replica, now, route(1), &mut world.out));
        world
    }

    pub fn ask(
        &mut self,
        key: &[u8],
        op: Op<'_>,
        numbered: Option<Numbered>,
    ) -> Option<OwnedAnswer> {
        self.token += 1;
        let request = Request { route: route(self.epoch), numbered, key, op };
        let (now, token, hash) = (self.now, self.token, hash_key(key));
        match self.replica.execute(now, token, hash, &request, &mut self.out) {
            Outcome::Now(answer) => Some(OwnedAnswer::new(&answer)),
            Outcome::Later => None,
        }
    }

    /// The answer, now.
    pub fn get(&mut self, key: &[u8], op: Op<'_>) -> OwnedAnswer {
        self.ask(key, op, None).expect("answered at once")
    }

    /// Replies so far, with their tokens.
    pub fn replies(&mut self) -> Vec<(u64, OwnedAnswer)> {
        let replies = self.out.list.extract_if(.., |a| matches!(a, Action::Reply { .. }));
        replies
            .map(|a| match a {
                Action::Reply { token, answer } => (token, answer),
                other => unreachable!("{other:?}"),
            })
            .collect()
    }

    /// `kill -9`: what is mapped stays.
    pub fn crash(&mut self) {
        let durability = self.replica.log().config().durability;
        let fresh = Replica::new(Log::in_heap(config(durability)), leaf());
        let opened = std::mem::replace(&mut self.replica, fresh).into_log().crash();
        self.restart(opened, durability);
    }

    pub fn restart(&mut self, opened: firebrick_log::storage::Opened, durability: Durability) {
        self.out.list.clear();
        let (log, scan) = Log::open_in_heap(config(durability), opened);
        self.replica = Replica::open(log, scan, leaf());
        while self.replica.recover_step(self.now, 7) == Recovering::More {}
        self.epoch = self.epoch.max(self.replica.tail_epoch()) + 1;
        assert!(set_alone(&mut self.replica, self.now, route(self.epoch), &mut self.out));
    }

    pub fn clean(&mut self) {
        let budget = Budget { clean_bytes: 4 << 10, expire_entries: 16, idle: true };
        for _ in 0..40 {
            if !self.replica.tick(self.now, budget, &mut self.out) {
                break;
            }
        }
    }
}
