//! What a fetched map changes: who is where, and what has to go elsewhere for it.

use super::place::Hint;
use super::routes::Fetched;
use super::slot::{State, Target};
use super::{Link, Session, Sink};
use crate::error::Error;

/// The rest between fetches that bring nothing new: it doubles up to the second.
const PAUSE_MIN_NS: u64 = 4_000_000;
const PAUSE_MAX_NS: u64 = 100_000_000;

impl Session {
    pub(super) fn handle_map(&mut self, now_ns: u64, fetched: Fetched, sink: &mut dyn Sink) {
        self.map_pause_ns = match fetched {
            Fetched::Newer => PAUSE_MIN_NS,
            _ => (self.map_pause_ns * 2).clamp(PAUSE_MIN_NS, PAUSE_MAX_NS),
        };
        self.map_at_ns = now_ns + self.map_pause_ns;
        if fetched == Fetched::Newer {
            self.take_bricks(now_ns, sink);
            let routes = &self.routes;
            self.writers.forget_gone(|partition| routes.table_of(partition).is_some());
            self.move_sent(now_ns);
            self.wake_paused(now_ns);
            for at in self.peers.indices() {
                self.scatter(now_ns, at);
            }
            self.sort_ready();
        }
        self.scatter_anywhere(now_ns);
        for _ in 0..self.mapless.len() {
            let Some(id) = self.mapless.pop_front() else { break };
            if let Some(index) = self.slots.find(id) {
                self.admit(now_ns, index);
            }
        }
        if self.routes.is_behind() {
            self.want_map(now_ns, Hint::Anyone);
        }
    }

    /// Addresses that the map does not have any more are given up; a dead one is not kept.
    fn take_bricks(&mut self, now_ns: u64, sink: &mut dyn Sink) {
        for (_, peer) in self.peers.update(self.routes.bricks()) {
            for link in self.peers.links() {
                let is_its = |l: &super::peers::Line| {
                    let index = l.link.index() as u32;
                    peer.up.contains(&index) || peer.dialling.contains(&index)
                };
                if self.peers.line(link).is_some_and(is_its) {
                    let why = "the map does not have it any more".into();
                    let error = Error::Connection { address: peer.address.clone(), why };
                    self.close_line(now_ns, link, error, sink);
                }
            }
            self.place_all(now_ns, peer.ready);
        }
    }

    /// Requests under way to a brick that the new map does not send them to: an answer may never come, so they are
    /// sent again where that cannot apply twice.
    fn move_sent(&mut self, now_ns: u64) {
        let mut position = 0;
        while let Some(index) = self.slots.in_use(position) {
            position += 1;
            let slot = self.slots.get(index);
            if !matches!(slot.state, State::Sent(_)) || !slot.may_repeat() {
                continue;
            }
            let home = match slot.target {
                Target::Hash(hash) => self.routes.of_hash(slot.table, hash),
                Target::Partition(id) => self.routes.of_partition(slot.table, id),
                Target::Brick => continue,
            };
            let Some((route, members)) = home else { continue };
            let brick = self.sent_to(index).and_then(|at| self.peers.get(at).brick);
            let serves = if slot.is_write() { &members[..1] } else { members };
            let is_served = brick.is_none_or(|b| serves.contains(&b));
            if route.epoch > slot.sent.0 && !is_served {
                self.lose_try(now_ns, index);
            }
        }
    }

    /// What rests because its brick refused it may be served now.
    fn wake_paused(&mut self, now_ns: u64) {
        let mut position = 0;
        while let Some(index) = self.slots.in_use(position) {
            position += 1;
            let slot = self.slots.get(index);
            let is_paused = matches!(slot.state, State::Paused(_));
            if is_paused && self.knows_newer(index) {
                self.admit(now_ns, index);
            }
        }
    }

    /// A request has been under way for long, though its brick lives: perhaps its group has changed.
    pub(super) fn doubt_map(&mut self, now_ns: u64, link: Link) {
        if self.peers.iter().count() < 2 {
            return;
        }
        let at = self.peers.line(link).map(|line| line.peer);
        self.want_map(now_ns, at.map_or(Hint::Anyone, Hint::NotFrom));
        self.wake_ns = self.wake_ns.min(now_ns + PAUSE_MAX_NS);
    }
}

#[cfg(test)]
mod tests {
    use firebrick_partition::maps::{Durability, MapDelta, Maps, TableMap, TableOptions};
    use firebrick_partition::op::SessionId;

    use super::*;
    use crate::{Options, Reply, Result, Seeds};

    /// Tables that come and go leave nothing behind in a client that lives on.
    #[test]
    fn writers_of_dropped_tables_are_forgotten() {
        let mut session = Session::new(Options::default().session(Seeds::from("a:7400")));
        let mut sink = |_: u64, _: Result<Reply<'_>>| {};
        let options = TableOptions { durability: Durability::Memory, partitions: 4, replicas: 1 };
        for n in 1..=50 {
            let table = TableMap::on_one_brick(n, "t", options, 4 * n, 1, 1, 1).unwrap();
            let maps = Maps { version: n.into(), tables: vec![table], bricks: Vec::new() };
            let fetched = session.routes.take(7, &MapDelta::whole(maps)).unwrap();
            session.handle_map(n.into(), fetched, &mut sink);
            for partition in 4 * n..4 * n + 4 {
                session.writers.opened(partition, SessionId { partition, opened: 1 });
            }
            assert_eq!(session.writers.len(), 4);
        }
    }
}
