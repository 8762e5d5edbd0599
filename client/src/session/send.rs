//! From submitted to sent.

use firebrick_partition::op::{Numbered, Op, Request, Route};
use firebrick_partition::wire::{self, Hello};

use super::place::Hint;
use super::slot::{self, Ask, New, Purpose, State};
use super::writers::Take;
use super::{Link, Session, Sink};
use crate::error::Error;

/// No slot has this index.
const HELLO_TAG: u32 = u32::MAX;

impl Session {
    /// The next frame to send, encoded onto the end of `out`, and the connection to send it on.
    /// Once it is returned, the session counts it as sent.
    pub fn poll_send(
        &mut self,
        now_ns: u64,
        out: &mut Vec<u8>,
        sink: &mut dyn Sink,
    ) -> Option<Link> {
        if !self.peers.greeting.is_empty()
            && let Some(link) = self.greet(out)
        {
            return Some(link);
        }
        if !self.homeless.is_empty() {
            self.judge_homeless(now_ns, sink);
        }
        while let Some(at) = self.peers.first_active() {
            if let Some(link) = self.send_to(now_ns, at, out) {
                return Some(link);
            }
            self.peers.unlist_first();
        }
        None
    }

    /// The next frame for one peer. `None`: nothing is ready for it, or it can take no more now.
    fn send_to(&mut self, now_ns: u64, at: u32, out: &mut Vec<u8>) -> Option<Link> {
        while let Some(&id) = self.peers.get(at).ready.front() {
            let Some(index) = self.slots.find(id) else {
                self.peers.get_mut(at).ready.pop_front();
                continue;
            };
            let Some(route) = self.route_of(index) else {
                self.peers.get_mut(at).ready.pop_front();
                self.homeless.push_back(id);
                continue;
            };
            let line = self.peers.pick_line(at, route.partition)?;
            if line.unanswered == 0 {
                line.heard_ns = now_ns;
                let half_ns = self.options.silence_ns / 2;
                self.wake_ns = self.wake_ns.min(now_ns.saturating_add(half_ns));
            }
            line.unanswered += 1;
            line.owed_bytes += self.slots.get(index).bytes();
            let link = line.link;
            self.peers.get_mut(at).ready.pop_front();
            self.encode(index, route, out);
            let slot = self.slots.get_mut(index);
            slot.state = State::Sent(link);
            slot.sent = (route.epoch, route.fingerprint);
            slot.sent_ns = now_ns;
            return Some(link);
        }
        None
    }

    /// The route of a ready slot; `None`: the map does not have its table or partition (any more).
    #[inline]
    pub(super) fn route_of(&self, index: u32) -> Option<Route> {
        let slot = self.slots.get(index);
        let home = match slot.target {
            slot::Target::Brick => return Some(Route::default()),
            slot::Target::Hash(hash) => self.routes.of_hash(slot.table, hash),
            slot::Target::Partition(id) => self.routes.of_partition(slot.table, id),
        };
        home.map(|(route, _)| route)
    }

    /// With the whole map known, what has no place in it has no table.
    fn judge_homeless(&mut self, now_ns: u64, sink: &mut dyn Sink) {
        while let Some(id) = self.homeless.pop_front() {
            let Some(index) = self.slots.find(id) else { continue };
            if self.route_of(index).is_some() {
                self.place(now_ns, index, false);
            } else if self.routes.knows_all() {
                let name = self.routes.name(self.slots.get(index).table);
                self.finish(now_ns, index, Err(Error::NoTable(name)), sink);
            } else {
                self.wait_for_map(now_ns, index);
            }
        }
    }

    /// A line's first message says who this is; requests do not wait for the welcome. Later it asks whether
    /// anybody is there.
    fn greet(&mut self, out: &mut Vec<u8>) -> Option<Link> {
        while let Some(link) = self.peers.greeting.pop_front() {
            let Some(line) = self.peers.line_mut(link) else { continue };
            if std::mem::take(&mut line.greets) && !line.blocked {
                let hello = Hello { client: &self.options.name, ..Hello::default() };
                wire::hello(out, HELLO_TAG, &hello);
                return Some(link);
            }
        }
        None
    }

    fn encode(&mut self, index: u32, route: Route, out: &mut Vec<u8>) {
        let id = self.slots.next_try(index);
        let slot = self.slots.get(index);
        let numbered: Option<Numbered> = slot.number.map(|n| self.writers.numbered(n));
        match slot.op() {
            Some(op) => {
                let request = Request { route, numbered, key: slot.key(), op };
                wire::request(out, id.tag(), &request);
            }
            None if matches!(slot.ask, Ask::FetchMap) => {
                wire::fetch_map(out, id.tag(), self.routes.known());
            }
            None => wire::control(out, id.tag(), slot.text()),
        }
    }

    /// Finds out what a request still needs before it can be sent.
    pub(super) fn admit(&mut self, now_ns: u64, index: u32) {
        let slot = self.slots.get(index);
        let partition = match slot.target {
            slot::Target::Brick => return self.push_ready(now_ns, index),
            slot::Target::Partition(id) => Some(id),
            slot::Target::Hash(hash) => {
                self.routes.of_hash(slot.table, hash).map(|(route, _)| route.partition)
            }
        };
        let Some(partition) = partition else {
            // With the whole map known, `judge_homeless` says that there is no such table.
            if self.routes.knows_all() {
                return self.push_ready(now_ns, index);
            }
            return self.wait_for_map(now_ns, index);
        };
        if !self.options.numbered || !slot.wants_number() || slot.number.is_some() {
            return self.push_ready(now_ns, index);
        }
        let table = slot.table;
        match self.writers.take(partition, self.slots.id(index)) {
            Take::Number(number) => {
                self.slots.get_mut(index).number = Some(number);
                self.push_ready(now_ns, index);
            }
            Take::Waits => self.slots.get_mut(index).state = State::Waiting,
            Take::WaitsAndOpens => {
                self.slots.get_mut(index).state = State::Waiting;
                self.open_writer(now_ns, table, partition);
            }
        }
    }

    /// Gives numbers to writes in line, as far as the window allows.
    pub(super) fn release(&mut self, now_ns: u64, partition: u32) {
        let mut table = None;
        loop {
            let slots = &self.slots;
            let next = self.writers.next(partition, |id| slots.find(id).is_some());
            let Some((id, number)) = next else { break };
            let Some(index) = self.slots.find(id) else { continue };
            self.slots.get_mut(index).number = Some(number);
            table = Some(self.slots.get(index).table);
            self.push_ready(now_ns, index);
        }
        if self.writers.wants_open(partition) {
            let table = table.or_else(|| self.routes.table_of(partition)).unwrap_or(0);
            self.open_writer(now_ns, table, partition);
        }
    }

    /// The session's own requests go first and count for no limit: there is one map fetch and one
    /// opening a partition at most.
    fn open_writer(&mut self, now_ns: u64, table: u32, partition: u32) {
        let client = self.options.client;
        let index = self.slots.insert(&New {
            purpose: Purpose::Open(partition),
            table,
            target: slot::Target::Partition(partition),
            ask: Ask::Op(Op::OpenSession { client }),
            key: &[],
            value: &[],
            now_ns,
            deadline_ns: u64::MAX,
        });
        self.place(now_ns, index, true);
    }

    pub(super) fn wait_for_map(&mut self, now_ns: u64, index: u32) {
        self.slots.get_mut(index).state = State::Waiting;
        self.mapless.push_back(self.slots.id(index));
        self.want_map(now_ns, Hint::Anyone);
    }

    /// Fetches the map, once at a time; at once from a peer that has a newer one, else at a bounded rate.
    pub(super) fn want_map(&mut self, now_ns: u64, hint: Hint) {
        self.map_hint = hint;
        let at_once = matches!(hint, Hint::From(_)) || now_ns >= self.map_at_ns;
        if let Some(index) = self.map_slot {
            if at_once && matches!(self.slots.get(index).state, State::Paused(_)) {
                self.place(now_ns, index, true);
            }
            return;
        }
        let index = self.slots.insert(&New {
            purpose: Purpose::Map,
            table: 0,
            target: slot::Target::Brick,
            ask: Ask::FetchMap,
            key: &[],
            value: &[],
            now_ns,
            deadline_ns: u64::MAX,
        });
        self.map_slot = Some(index);
        if at_once {
            self.place(now_ns, index, true);
        } else {
            self.slots.get_mut(index).state = State::Paused(self.map_at_ns);
            self.wake_ns = self.wake_ns.min(self.map_at_ns);
        }
    }
}
