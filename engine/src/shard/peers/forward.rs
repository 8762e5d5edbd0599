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
//!
//! A brick that goes on answers its strays at once, if only with "not here". One that does not for longer than a lease
//! lasts has stopped, or is cut off from its keepers and waits for them: so a stray is
//! in doubt after [`STRAY_NS`]. The way is left alone: the same connection carries what replicas and
//! other requests send, in both directions, and that brick may only be slow with this one request. What
//! follows may go, since whoever serves by the new route does so after all that was done by the old one. The
//! stray's number stays taken until its answer comes after all or the way ends, so that the answer is nobody else's.
//! (A way on which nobody is there any more is closed: see `probes`.)
//!
//! A read that was sent and has no answer changes nothing: it is tried again, within its time.

use std::collections::{BTreeMap, HashMap, VecDeque};

use firebrick_net::Ep;
use firebrick_partition::op::Route;
use firebrick_partition::{Answer, Failure};

use super::lines::{Lines, Place};
use crate::shard::asker::{Asker, ConnId};

/// A request waits at most this long for somebody who serves it. (What waited behind others of its connection for
/// longer is tried once before it is refused.)
const PATIENCE_NS: u64 = 2_000_000_000;
/// Between two tries.
pub(super) const RETRY_NS: u64 = 1_000_000;
/// Requests that another brick has, or that wait.
pub(super) const FORWARDS_MAX: usize = 64 << 10;
/// A stray is waited for so long: see [`Forwards::overdue`].
pub(super) const STRAY_NS: u64 = 1_000_000_000;

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
    /// If it is a stray: when it is in doubt.
    doubt_ns: Option<u64>,
    /// It came back, and none of its connection was answered since.
    came_back: bool,
    was_tried: bool,
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
    /// Strays that other bricks have, by when they are in doubt: their numbers and ways. (Those that were answered
    /// are here too until then.)
    doubts: VecDeque<(u64, u32, Ep)>,
    /// Numbers of strays in doubt that may still be answered, and on which way. Not more of a way than
    /// [`FORWARDS_MAX`]: what goes by the new route does not go where nothing is answered.
    given_up: BTreeMap<u32, Ep>,
    /// How many each way has.
    ways: HashMap<Ep, u32>,
    fresh: VecDeque<Forward>,
    /// To be tried when it is time: one of a connection.
    waiting: VecDeque<Forward>,
    /// By connection; and those that wait for others of theirs.
    lines: Lines,
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
        let sent = self.sent.len() - self.free.len() - self.given_up.len();
        sent + self.fresh.len() + self.waiting.len() + self.lines.behind()
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
        self.lines.enter(conn, Place::Fresh);
        self.fresh.push_back(Forward {
            conn,
            part,
            holder: Holder::Nobody,
            hash,
            request,
            own,
            route: Route::default(),
            order: self.orders,
            doubt_ns: None,
            came_back: false,
            was_tried: false,
            deadline_ns: now_ns + PATIENCE_NS,
            retry_ns: now_ns,
        });
        Ok(())
    }

    /// Routes have changed: those that were sent by another one are strays.
    pub fn find_strays(&mut self, now_ns: u64, route: impl Fn(u64) -> Option<Route>) {
        let (doubt_ns, mut found) = (now_ns + STRAY_NS, Vec::new());
        for (slot, entry) in self.sent.iter_mut().enumerate() {
            let Some(forward) = entry else { continue };
            if forward.doubt_ns.is_some() || route(forward.hash) == Some(forward.route) {
                continue;
            }
            self.lines.enter(forward.conn, Place::Stray);
            forward.doubt_ns = Some(doubt_ns);
            // (A replica of this brick answers as long as this brick runs.)
            if let Holder::Way(way) = forward.holder {
                found.push((forward.order, slot as u32, way));
            }
        }
        // In their order: a read that is to be tried again must be back before a later write of its key is over.
        found.sort_unstable_by_key(|(order, ..)| *order);
        self.doubts.extend(found.into_iter().map(|(_, slot, way)| (doubt_ns, slot, way)));
    }

    /// The next stray that has been waited for long enough: it is in doubt. A late answer is nobody's.
    pub fn overdue(&mut self, now_ns: u64) -> Option<Forward> {
        while let Some((at_ns, slot, way)) = self.doubts.pop_front_if(|(at, ..)| *at <= now_ns) {
            let same = |f: &mut Forward| f.doubt_ns == Some(at_ns) && f.holder == Holder::Way(way);
            if let Some(stray) = self.sent[slot as usize].take_if(same) {
                self.given_up.insert(slot, way);
                return Some(self.has_left(stray));
            }
        }
        None
    }

    /// A request of this connection is a stray.
    #[inline]
    pub fn has_stray(&self, conn: ConnId) -> bool {
        self.lines.strays() > 0 && self.lines.has(conn, Place::Stray)
    }

    /// A request of this connection waits for its turn, or is a stray: those behind it wait too.
    #[inline]
    pub fn holds_up(&self, conn: ConnId) -> bool {
        self.has_stray(conn)
            || !self.fresh.is_empty() && self.lines.has(conn, Place::Fresh)
            || !self.waiting.is_empty() && self.lines.has(conn, Place::Waiting)
            || self.lines.behind() > 0 && self.lines.has_behind(conn)
    }

    /// The next request to be tried. `Err`: it has waited long enough.
    pub fn next(&mut self, now_ns: u64) -> Option<Result<Forward, Forward>> {
        while let Some(forward) = self.waiting.pop_front_if(|f| f.retry_ns <= now_ns) {
            let conn = forward.conn;
            self.lines.leave(conn, Place::Waiting);
            // (One that came before it may have come back meanwhile.)
            self.lines.put_behind(forward);
            let first = self.lines.take_first(conn, |f| f.order);
            let forward = first.expect("it was put there");
            if forward.was_tried && forward.deadline_ns <= now_ns {
                self.resume(conn);
                return Some(Err(forward));
            }
            if self.must_wait(&forward) {
                self.lines.put_behind(forward);
            } else {
                return Some(Ok(Forward { was_tried: true, ..forward }));
            }
        }
        while let Some(forward) = self.fresh.pop_front() {
            let conn = forward.conn;
            self.lines.leave(conn, Place::Fresh);
            let queues = self.lines.has_behind(conn) || self.lines.has(conn, Place::Waiting);
            if queues || self.must_wait(&forward) {
                self.lines.put_behind(forward);
            } else {
                return Some(Ok(Forward { was_tried: true, ..forward }));
            }
        }
        None
    }

    /// It must not be tried before those of its connection that somebody has are over.
    fn must_wait(&self, forward: &Forward) -> bool {
        let conn = forward.conn;
        self.has_stray(conn) || forward.came_back && self.lines.has(conn, Place::Sent)
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
        self.lines.enter(forward.conn, Place::Sent);
        if let Holder::Way(way) = forward.holder {
            *self.ways.entry(way).or_default() += 1;
        }
        let (conn, goes_on) = (forward.conn, !forward.came_back);
        self.sent[slot as usize] = Some(forward);
        if goes_on {
            self.step(conn);
        }
    }

    /// It did not go: the number is free again.
    pub fn give_slot(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// The request that its holder has answered.
    pub fn answered(&mut self, slot: u32, holder: Holder) -> Option<Forward> {
        let taken = self.sent.get_mut(slot as usize)?.take_if(|f| f.holder == holder);
        if taken.is_some() || self.is_given_up(slot, holder) {
            self.given_up.remove(&slot);
            self.free.push(slot);
        }
        Some(self.has_left(taken?))
    }

    fn is_given_up(&self, slot: u32, holder: Holder) -> bool {
        self.given_up.get(&slot).is_some_and(|way| Holder::Way(*way) == holder)
    }

    /// The connection is gone: the numbers of the requests that were on it, in the order of the requests. Each leaves
    /// by [`Self::answered`] when it is looked at, so that one that waits then is behind those that have not left.
    pub fn lost(&mut self, way: Ep) -> Vec<u32> {
        self.free.extend(self.given_up.extract_if(.., |_, of| *of == way).map(|(slot, _)| slot));
        let of_way = |(slot, entry): (usize, &Option<Forward>)| {
            let forward = entry.as_ref().filter(|f| f.holder == Holder::Way(way))?;
            Some((forward.order, slot as u32))
        };
        let mut lost: Vec<_> = self.sent.iter().enumerate().filter_map(of_way).collect();
        lost.sort_unstable();
        lost.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Its holder has it no more.
    fn has_left(&mut self, mut forward: Forward) -> Forward {
        self.lines.leave(forward.conn, Place::Sent);
        if let Holder::Way(way) = forward.holder
            && let Some(count) = self.ways.get_mut(&way)
        {
            *count -= 1;
            if *count == 0 {
                self.ways.remove(&way);
            }
        }
        if forward.doubt_ns.take().is_some() {
            self.lines.leave(forward.conn, Place::Stray);
        }
        forward
    }

    /// Requests that went this way have no answer yet.
    pub fn under_way(&self, way: Ep) -> bool {
        self.ways.contains_key(&way)
    }

    /// Somebody has a request of this connection.
    pub fn has_sent(&self, conn: ConnId) -> bool {
        self.lines.has(conn, Place::Sent)
    }

    /// Nothing was done, or it changes nothing: the request is tried again later.
    pub fn wait(&mut self, mut forward: Forward, now_ns: u64) {
        let conn = forward.conn;
        forward.holder = Holder::Nobody;
        forward.retry_ns = now_ns + RETRY_NS;
        forward.came_back = true;
        self.lines.put_behind(forward);
        self.resume(conn);
    }

    /// The request is answered, or in doubt. Those that came back before it and would change its key behind it are
    /// not tried again.
    pub fn over(&mut self, forward: &Forward, now_ns: u64) -> Vec<Forward> {
        let conn = forward.conn;
        let late = |f: &mut Forward| f.hash == forward.hash && f.order < forward.order;
        let late = self.lines.take_behind(conn, late);
        for f in self.lines.behind_of(conn) {
            // (Whoever has it may only be slow with what is asked of it.)
            (f.came_back, f.deadline_ns) = (false, f.deadline_ns.max(now_ns + PATIENCE_NS));
        }
        self.resume(conn);
        late
    }

    /// When nobody has a request of this connection any more, those that waited for that are tried in their order.
    fn resume(&mut self, conn: ConnId) {
        if !self.lines.has(conn, Place::Sent) {
            self.step(conn);
        }
    }

    /// One of a connection waits to be tried, the others behind it: so nobody waits for the time of another's.
    fn step(&mut self, conn: ConnId) {
        if self.lines.has(conn, Place::Waiting) {
            return;
        }
        if let Some(forward) = self.lines.take_first(conn, |f| f.order) {
            self.lines.enter(conn, Place::Waiting);
            self.waiting.push_back(forward);
        }
    }

    /// When [`Self::next`] or [`Self::overdue`] has something.
    pub fn wake_at(&self) -> Option<u64> {
        let fresh = self.fresh.front().map(|f| f.retry_ns);
        let next = fresh.or(self.waiting.front().map(|f| f.retry_ns));
        let doubt = self.doubts.front().map(|(at_ns, ..)| *at_ns);
        next.into_iter().chain(doubt).min()
    }

    /// What is counted by connection is what is there.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let fresh = self.fresh.iter().map(|f| (f.conn, Place::Fresh));
        let waiting = self.waiting.iter().map(|f| (f.conn, Place::Waiting));
        let sent = || self.sent.iter().flatten();
        let mut ways = HashMap::new();
        for forward in sent() {
            if let Holder::Way(way) = forward.holder {
                *ways.entry(way).or_default() += 1;
            }
        }
        assert_eq!(self.ways, ways);
        let strays = sent().filter(|f| f.doubt_ns.is_some()).map(|f| (f.conn, Place::Stray));
        let sent = sent().map(|f| (f.conn, Place::Sent));
        self.lines.check(fresh.chain(waiting).chain(sent).chain(strays));
    }
}
