//! Background work, a bounded slice at a time.

use firebrick_log::Loc;

use super::{Actions, Replica, State};
use crate::op::Now;

/// How much a slice may do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes of records that cleaning looks at.
    pub clean_bytes: usize,
    /// Entries that the search for expired keys looks at.
    pub expire_entries: usize,
    /// Nothing else is to be done: clean more thoroughly.
    pub idle: bool,
}

impl Default for Budget {
    /// About 20 us.
    fn default() -> Self {
        Self { clean_bytes: 16 << 10, expire_entries: 64, idle: false }
    }
}

/// The search for expired keys: a walk over the whole index, again and again.
#[derive(Debug, Default)]
pub(super) struct ExpiryWalk {
    cursor: u64,
    /// This walk met a value with an expiry time.
    met: bool,
    /// Values of this slice whose time is over.
    found: Vec<Loc>,
    /// The tail when this walk began, if all of it was committed: 0 if not. (What commits during a walk may come to lie
    /// behind it.)
    began_at: u64,
}

impl Replica {
    /// A slice of background work: expiry, idle sessions, cleaning. Whether there is more to do at
    /// once.
    pub fn tick(&mut self, now: Now, budget: Budget, out: &mut Actions) -> bool {
        if !self.is_serving() {
            let more = self.tick_aside(budget);
            self.poll(now, out);
            return more;
        }
        if let Some(session) = self.sessions.next_idle(now.boot_ns, 16) {
            // When there is no segment just now, its turn comes again.
            let _ = self.end_session(now, None, session);
        }
        let expired = self.expire_some(now, budget.expire_entries);
        let discarding = self.discard_some();
        let cleaned = self.clean(budget.clean_bytes, budget.idle);
        self.poll(now, out);
        expired || discarding || cleaned == firebrick_log::CleanProgress::More
    }

    /// Whoever does not serve expires nothing and ends no session, but cleans.
    fn tick_aside(&mut self, budget: Budget) -> bool {
        // (Who begins to lead has a record to append, and may have no room for it.)
        let cleans = matches!(self.state, State::Following | State::Stopped | State::Beginning);
        // (Half a copy's index has tombstones in it, also while the copy rests before it starts over.)
        if !cleans || !self.is_whole() {
            return cleans && self.discard_some();
        }
        let discarding = self.discard_some();
        let cleaned = self.clean(budget.clean_bytes, budget.idle);
        discarding || cleaned == firebrick_log::CleanProgress::More
    }

    /// A cleared index goes a sub-table at a time, and its records count as dead.
    pub(super) fn discard_some(&mut self) -> bool {
        let (log, quietly) = (&self.log, self.discard_quietly);
        let more = self.index.discard_some(|bits| {
            if !quietly {
                log.mark_dead(Loc::from_bits(bits));
            }
        });
        self.discard_quietly &= more;
        more
    }

    /// Whether something was expired: there may be more.
    fn expire_some(&mut self, now: Now, entries: usize) -> bool {
        if !self.may_expire || entries == 0 {
            return false;
        }
        let mut walk = std::mem::take(&mut self.expiry_walk);
        if walk.cursor == 0 {
            walk.met = false;
            walk.began_at = if self.pending.is_empty() { self.log.tail().seq } else { 0 };
        }
        let log = &self.log;
        let walked = self.index.walk(self.prefix, walk.cursor, entries, entries, |bits| {
            let loc = Loc::from_bits(bits);
            let Ok(record) = log.record(loc) else { return };
            let expires_ms = record.fields().expires_ms;
            walk.met |= expires_ms != 0;
            if expires_ms != 0 && expires_ms <= now.unix_ms {
                walk.found.push(loc);
            }
        });
        let some = !walk.found.is_empty();
        let mut key = Vec::new();
        for loc in walk.found.drain(..) {
            key.clear();
            key.extend_from_slice(self.log.key_at(loc));
            let hash = crate::hash_key(&key);
            // A prepared record decides about this key (or another with its hash) soon, and without room its turn comes
            // again.
            if !self.newest.contains_key(&hash) && self.clearing == 0 {
                let _ = self.expire(now, hash, &key, loc);
            }
        }
        walk.cursor = walked.cursor;
        // A whole walk over an unchanged log met none: no value expires any more.
        if walk.cursor == 0 && !walk.met && walk.began_at == self.log.tail().seq {
            self.may_expire = false;
        }
        self.expiry_walk = walk;
        some
    }
}
