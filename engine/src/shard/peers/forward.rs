//! Requests of this brick's Redis front that cannot be answered on the spot: another brick is the primary, or
//! nobody serves the partition just now.
//!
//! A request that was sent and got no answer is an error to its client, because it may have been applied; one
//! that was answered "not here" or never left is tried again until its time is over, because nothing was
//! appended. So a move or a failover costs a Redis client time, and no error while it is short.
//!
//! The requests of one connection keep their order. One that waits holds up those behind it. One that comes back while
//! others of its connection are on their way waits until they are back or answered, and is tried alone
//! before those behind it are; only if a later one of the same key was executed meanwhile it is an error, and was not
//! done. One that another brick still has when the route of its key changes is a *stray*: the next one would go
//! elsewhere and be through before the stray comes back to be tried again, so it waits too.

use std::collections::VecDeque;

use firebrick_net::Ep;
use firebrick_partition::op::Route;
use firebrick_partition::{Answer, Failure};

use crate::shard::asker::{Asker, ConnId};

/// A request waits at most this long for somebody who serves it.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Between two tries.
pub(super) const RETRY_NS: u64 = 1_000_000;
/// Requests that another brick has, or that wait.
const FORWARDS_MAX: usize = 64 << 10;

/// Who has a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody yet.
    Nobody,
    /// A replica of this brick.
    Here,
    /// The brick at the other end.
    Way(Ep),
}

/// A request on its way.
#[derive(Debug)]
pub struct Forward {
    /// The connection that gets the answer.
    pub conn: ConnId,
    /// The front's number of the reply.
    pub part: u32,
    /// Who has it.
    pub holder: Holder,
    /// Hash of its key.
    pub hash: u64,
    /// Encoded; its route and number are those of its last try.
    pub request: Vec<u8>,
    /// Its connection has writes in flight.
    pub own: bool,
    /// Of its last try.
    pub route: Route,
    order: u64,
    /// It came back, and none of its connection was answered since.
    came_back: bool,
    deadline_ns: u64,
    retry_ns: u64,
}

impl Forward {
    /// Who gets the answer.
    pub fn asker(&self) -> Asker {
        Asker::Resp { conn: self.conn, part: self.part }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Forwards {
    /// By the number that the request carries.
    sent: Vec<Option<Forward>>,
    free: Vec<u32>,
    /// Numbers of strays, and their connections.
    strays: Vec<(u32, ConnId)>,
    fresh: VecDeque<Forward>,
    waiting: VecDeque<Forward>,
    /// They wait for others of their connections that are with somebody.
    behind: Vec<Forward>,
    orders: u64,
}

/// Whether an answer says that nothing was done and another try may go better.
pub fn is_temporary(answer: &Answer<'_>) -> bool {
    matches!(
        answer,
        Answer::StaleRoute { .. }
            | Answer::Failed(
                Failure::Unavailable
                    | Failure::RouteTooNew
                    | Failure::WrongPartition
                    | Failure::AskPrimary
            )
    )
}

impl Forwards {
    /// How many.
    pub fn len(&self) -> usize {
        self.sent.len() - self.free.len()
            + self.fresh.len()
            + self.waiting.len()
            + self.behind.len()
    }

    /// Takes a request in. `Err`: there are too many.
    pub fn begin(
        &mut self,
        (conn, part): (ConnId, u32),
        hash: u64,
        request: Vec<u8>,
        own: bool,
        now_ns: u64,
    ) -> Result<(), Failure> {
        if self.len() >= FORWARDS_MAX {
            return Err(Failure::Busy);
        }
        self.orders += 1;
        self.fresh.push_back(Forward {
            conn,
            part,
            holder: Holder::Nobody,
            hash,
            request,
            own,
            route: Route::default(),
            order: self.orders,
            came_back: false,
            deadline_ns: now_ns + PATIENCE_NS,
            retry_ns: now_ns,
        });
        Ok(())
    }

    /// Routes have changed: those that were sent by another one are strays.
    pub fn find_strays(&mut self, route: impl Fn(u64) -> Option<Route>) {
        self.strays.clear();
        for (slot, entry) in self.sent.iter().enumerate() {
            if let Some(f) = entry.as_ref().filter(|f| route(f.hash) != Some(f.route)) {
                self.strays.push((slot as u32, f.conn));
            }
        }
    }

    /// A request of this connection is a stray.
    #[inline]
    pub fn has_stray(&self, conn: ConnId) -> bool {
        self.strays.iter().any(|(_, of)| *of == conn)
    }

    /// A request of this connection waits for its turn, or is a stray: those behind it wait too.
    #[inline]
    pub fn holds_up(&self, conn: ConnId) -> bool {
        if self.has_stray(conn) {
            return true;
        }
        (!self.fresh.is_empty() || !self.waiting.is_empty() || !self.behind.is_empty())
            && self.fresh.iter().chain(&self.waiting).chain(&self.behind).any(|f| f.conn == conn)
    }

    /// The next request to be tried. `Err`: it has waited long enough.
    pub fn next(&mut self, now_ns: u64) -> Option<Result<Forward, Forward>> {
        while self.waiting.front().is_some_and(|f| f.retry_ns <= now_ns) {
            let forward = self.waiting.pop_front()?;
            if forward.deadline_ns <= now_ns {
                return Some(Err(forward));
            }
            if !forward.came_back || !self.is_with_somebody(forward.conn) {
                return Some(Ok(forward));
            }
            self.behind.push(forward);
        }
        while let Some(forward) = self.fresh.pop_front() {
            let same = |f: &Forward| f.conn == forward.conn;
            if self.behind.iter().any(same) {
                self.behind.push(forward);
            } else if self.waiting.iter().any(same) {
                self.waiting.push_back(forward);
            } else {
                return Some(Ok(forward));
            }
        }
        None
    }

    /// Somebody has a request of this connection.
    fn is_with_somebody(&self, conn: ConnId) -> bool {
        self.sent.iter().flatten().any(|f| f.conn == conn)
    }

    /// A number for a request that is about to be sent or executed.
    pub fn take_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.sent.push(None);
            self.sent.len() as u32 - 1
        })
    }

    /// The request has gone to its holder under this number.
    pub fn sent(&mut self, slot: u32, forward: Forward) {
        self.sent[slot as usize] = Some(forward);
    }

    /// It did not go: the number is free again.
    pub fn give_slot(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// The request that its holder has answered.
    pub fn answered(&mut self, slot: u32, holder: Holder) -> Option<Forward> {
        let forward = self.sent.get_mut(slot as usize)?.take_if(|f| f.holder == holder)?;
        self.strays.retain(|(stray, _)| *stray != slot);
        self.free.push(slot);
        Some(forward)
    }

    /// The requests whose answers will not come: the connection that they went on is gone.
    pub fn lost(&mut self, way: Ep) -> Vec<Forward> {
        let mut lost = Vec::new();
        for (slot, entry) in self.sent.iter_mut().enumerate() {
            if let Some(forward) = entry.take_if(|f| f.holder == Holder::Way(way)) {
                self.free.push(slot as u32);
                self.strays.retain(|(stray, _)| *stray != slot as u32);
                lost.push(forward);
            }
        }
        lost
    }

    /// Requests that went this way have no answer yet: any, and any of this connection.
    pub fn under_way(&self, way: Ep, conn: ConnId) -> (bool, bool) {
        let mut there =
            self.sent.iter().flatten().filter(|f| f.holder == Holder::Way(way)).peekable();
        (there.peek().is_some(), there.any(|f| f.conn == conn))
    }

    /// Nothing was done: the request is tried again later.
    pub fn wait(&mut self, mut forward: Forward, now_ns: u64) {
        let conn = forward.conn;
        forward.holder = Holder::Nobody;
        forward.retry_ns = now_ns + RETRY_NS;
        forward.came_back = true;
        self.behind.push(forward);
        self.resume(conn);
    }

    /// The request is answered, or in doubt. Those that came back before it and would change its key behind it are
    /// not tried again.
    pub fn over(&mut self, forward: &Forward) -> Vec<Forward> {
        if self.behind.is_empty() {
            return Vec::new();
        }
        let conn = forward.conn;
        let late =
            |f: &mut Forward| f.conn == conn && f.hash == forward.hash && f.order < forward.order;
        let late = self.behind.extract_if(.., late).collect();
        for f in self.behind.iter_mut().filter(|f| f.conn == conn) {
            f.came_back = false;
        }
        self.resume(conn);
        late
    }

    /// When nobody has a request of this connection any more, those that waited for that are tried in their order.
    fn resume(&mut self, conn: ConnId) {
        if self.is_with_somebody(conn) {
            return;
        }
        let mut ready: Vec<_> = self.behind.extract_if(.., |f| f.conn == conn).collect();
        ready.sort_by_key(|f| f.order);
        for forward in ready {
            // Behind those of its connection that came before it, in front of those that came after.
            let later = |f: &Forward| f.conn == conn && f.order > forward.order;
            match self.waiting.iter().position(later) {
                Some(at) => self.waiting.insert(at, forward),
                None => self.waiting.push_back(forward),
            }
        }
    }

    /// When [`Self::next`] has something.
    pub fn wake_at(&self) -> Option<u64> {
        let fresh = self.fresh.front().map(|f| f.retry_ns);
        fresh.or(self.waiting.front().map(|f| f.retry_ns))
    }
}
