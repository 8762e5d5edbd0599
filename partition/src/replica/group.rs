//! The group: who this replica is in it, and what a new map changes.

use super::{Actions, Replica, State};
use crate::maps::{Member, Replicas};
use crate::op::{Now, Route};
use crate::wire::Peer;

/// This process, as the maps name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Me {
    /// Brick id.
    pub brick: u32,
    /// A replica acts only in a map that names its own incarnation.
    pub incarnation: u64,
}

impl Replica {
    /// The group is this from now on. The same epoch again with other `active`, `intent` or learners
    /// is an update in place; an older one does nothing.
    ///
    /// `false`: the log holds records of a newer epoch than the map names, so the two are not of the
    /// same brick; or the log is not scanned yet.
    pub fn set_group(
        &mut self,
        now: Now,
        me: Me,
        route: Route,
        group: &Replicas,
        out: &mut Actions,
    ) -> bool {
        let is_me = |m: &Member| m.brick == me.brick && m.incarnation == me.incarnation;
        if group.members.len() == 1 && group.members.iter().any(is_me) {
            return self.begin(now, route, out);
        }
        self.state = State::Ready;
        true
    }

    /// A message of another replica of the partition, from brick `from`. Call [`Replica::poll`] once
    /// after a turn's messages.
    pub fn on_peer(&mut self, now: Now, from: u32, message: &Peer<'_>, out: &mut Actions) {
        // Alone: nobody else is in the group.
        let _ = (now, from, message, out);
    }

    /// There is a fresh connection to a brick: what it lacks is sent again.
    pub fn on_peer_up(&mut self, now: Now, brick: u32, out: &mut Actions) {
        let _ = (now, brick, out);
    }
}
