//! What the RESP connections of a core make it keep, and for how long: bounded in bytes and in time.
//!
//! A connection has at most [`AHEAD_BYTES_MAX`](crate::resp::limits::AHEAD_BYTES_MAX) and a reply, or an out buffer and a
//! reply. Many that do not read would still fill the memory: past [`CORE_BYTES_MAX`] of all of them only those are served
//! that have nothing waiting, and who takes nothing for [`STALLED_NS`] is closed, the largest first, until there is room.
//! While a client has taken all and waits for this brick, be it to be served, that time is not the client's.
//!
//! And a client is never left without a word: one that has had no answer for
//! [`ANSWER_NS_MAX`](crate::resp::limits::ANSWER_NS_MAX) is told so. (Whatever its request waits for: keepers without a
//! majority let a write that a dead backup has no vote for wait for as long as they have none.)

use std::mem;

use firebrick_net::{Ep, Fabric};
use firebrick_partition::Now;

use super::Shard;
use super::conns::Resp;
use crate::resp::limits::{CORE_BYTES_MAX, STALLED_NS};

/// Between two looks at all connections while there is too much.
const LOOK_NS: u64 = 10_000_000;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Burden {
    /// Of all connections, as of when each was last served: at least what it is now.
    pub bytes: usize,
    /// Connections that are not served because of it.
    pub barred: Vec<Ep>,
    /// The one of them that is served all the same.
    pub passes: Option<Ep>,
    /// When to look at all of them.
    pub look_ns: u64,
    looked_ns: u64,
}

impl Default for Burden {
    fn default() -> Self {
        Self { bytes: 0, barred: Vec::new(), passes: None, look_ns: u64::MAX, looked_ns: 0 }
    }
}

impl Burden {
    /// The connection is to execute nothing now.
    #[inline]
    pub fn bars(&self, resp: &Resp) -> bool {
        self.bytes >= CORE_BYTES_MAX && (resp.bytes > 0 || self.bytes >= 2 * CORE_BYTES_MAX)
    }

    /// Notes what a connection has waiting now.
    #[inline]
    pub fn note<F: Fabric>(&mut self, fabric: &F, ep: Ep, resp: &mut Resp, now: Now) {
        if resp.shed {
            return;
        }
        let held = resp.conn.held_bytes();
        let queued = fabric.queued(ep);
        let (bytes, left) = (fabric.kept(ep) + held, queued + held);
        let awaits = queued == 0 && (resp.queued || resp.conn.outstanding() > 0);
        if left < resp.left || resp.left == 0 || resp.awaits {
            resp.took_ns = now.boot_ns;
        }
        (resp.left, resp.awaits) = (left, awaits);
        self.bytes = self.bytes + bytes - resp.bytes;
        resp.bytes = bytes;
        if self.bytes >= CORE_BYTES_MAX {
            self.look_ns = self.look_ns.min(self.looked_ns + LOOK_NS);
        }
        if let Some(at_ns) = resp.conn.gives_up_ns() {
            self.look_ns = self.look_ns.min(at_ns);
        }
    }
}

impl<F: Fabric> Shard<F> {
    /// Looks at all RESP connections when one of them may have waited for too long, or all have too much.
    pub(super) fn look_after_resp(&mut self) {
        let now = self.store.now;
        if now.boot_ns < self.burden.look_ns {
            return;
        }
        (self.burden.look_ns, self.burden.looked_ns) = (u64::MAX, now.boot_ns);
        let (mut stalled, mut late, mut drains) = (Vec::new(), Vec::new(), false);
        for (ep, resp) in self.conns.resp() {
            self.burden.note(&self.fabric, ep, resp, now);
            drains |= !resp.shed && (self.fabric.queued(ep) > 0 || resp.conn.outstanding() > 0);
            if resp.left > 0 && now.boot_ns >= resp.took_ns + STALLED_NS {
                stalled.push((resp.bytes, ep));
            }
            if resp.conn.gives_up_ns().is_some_and(|at_ns| now.boot_ns >= at_ns) {
                late.push(ep);
            }
        }
        for ep in late {
            self.give_up_resp(ep);
        }
        if self.burden.bytes >= CORE_BYTES_MAX {
            stalled.sort_unstable_by_key(|(bytes, ep)| (std::cmp::Reverse(*bytes), ep.slot));
            for (_, ep) in stalled {
                if self.burden.bytes < CORE_BYTES_MAX {
                    break;
                }
                self.shed_resp(ep);
            }
        }
        // When all that there is are commands that are not served, nothing else makes room.
        self.burden.passes = self.burden.barred.first().copied().filter(|_| !drains);
        self.resume.append(&mut self.burden.barred);
    }

    /// Its replies go nowhere, and there is no room for more.
    fn shed_resp(&mut self, ep: Ep) {
        let Some(mut resp) = self.conns.take_resp(ep) else { return };
        self.store.counts.stalled_closed += 1;
        self.fabric.abort(ep);
        self.burden.bytes -= mem::take(&mut resp.bytes);
        (resp.left, resp.shed) = (0, true);
        self.conns.put_resp(ep, resp);
    }

    /// Whoever has its requests has not answered for too long.
    fn give_up_resp(&mut self, ep: Ep) {
        let Some(mut resp) = self.conns.take_resp(ep) else { return };
        if let Some(mut out) = self.fabric.out(ep).map(mem::take) {
            let progress = resp.conn.give_up(&mut out);
            self.go_on(ep, &mut resp, out, progress);
            self.burden.note(&self.fabric, ep, &mut resp, self.store.now);
        }
        self.conns.put_resp(ep, resp);
    }
}
