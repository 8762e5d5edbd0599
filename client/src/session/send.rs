//! From submitted to sent.

use firebrick_partition::op::{Numbered, Op, Request, Route};
use firebrick_partition::wire::{self, Hello};

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
        if let Some(link) = self.greet(out) {
            return Some(link);
        }
        if self.links.is_empty() {
            return None;
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(index) = self.slots.find(id) else { continue };
            let Some(route) = self.route_of(now_ns, index, sink) else { continue };
            let Some(link) = self.pick_link(now_ns, route.partition) else {
                self.ready.push_front(id);
                return None;
            };
            self.encode(index, route, out);
            self.slots.get_mut(index).state = State::Sent(link);
            return Some(link);
        }
        None
    }

    /// The route of a ready slot. `None`: it went to wait for the map, or failed.
    fn route_of(&mut self, now_ns: u64, index: u32, sink: &mut dyn Sink) -> Option<Route> {
        let slot = self.slots.get(index);
        let route = match slot.target {
            slot::Target::Brick => return Some(Route::default()),
            slot::Target::Hash(hash) => self.routes.of_hash(slot.table, hash),
            slot::Target::Partition(id) => self.routes.of_partition(slot.table, id),
        };
        if route.is_none() {
            if self.routes.knows_all() {
                let name = self.routes.name(slot.table);
                self.finish(now_ns, index, Err(Error::NoTable(name)), sink);
            } else {
                self.wait_for_map(now_ns, index);
            }
        }
        route
    }

    /// All requests to one partition take one link, so that they arrive in the order they were sent.
    /// `None`: that link has as many unanswered as the brick allows.
    fn pick_link(&mut self, now_ns: u64, partition: u32) -> Option<Link> {
        let at = partition as usize % self.links.len();
        let l = &mut self.links[at];
        if l.unanswered >= l.limit {
            return None;
        }
        if l.unanswered == 0 {
            l.heard_ns = now_ns;
            self.wake_ns = self.wake_ns.min(now_ns.saturating_add(self.options.silence_ns));
        }
        l.unanswered += 1;
        Some(l.link)
    }

    /// A link's first message says who this is. Requests do not wait for the welcome.
    fn greet(&mut self, out: &mut Vec<u8>) -> Option<Link> {
        let l = self.links.iter_mut().find(|l| !l.greeted)?;
        l.greeted = true;
        let hello = Hello { client: &self.options.name, ..Hello::default() };
        wire::hello(out, HELLO_TAG, &hello);
        Some(l.link)
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
            None if matches!(slot.ask, Ask::FetchMap) => wire::fetch_map(out, id.tag(), ""),
            None => wire::control(out, id.tag(), slot.text()),
        }
    }

    /// Finds out what a request still needs before it can be sent.
    pub(super) fn admit(&mut self, now_ns: u64, index: u32) {
        let slot = self.slots.get(index);
        let partition = match slot.target {
            slot::Target::Brick => return self.push_ready(index),
            slot::Target::Partition(id) => Some(id),
            slot::Target::Hash(hash) => self.routes.of_hash(slot.table, hash).map(|r| r.partition),
        };
        let Some(partition) = partition else {
            // With the whole map known, `route_of` says that there is no such table.
            if self.routes.knows_all() {
                return self.push_ready(index);
            }
            return self.wait_for_map(now_ns, index);
        };
        if !self.options.numbered || !slot.wants_number() || slot.number.is_some() {
            return self.push_ready(index);
        }
        let table = slot.table;
        match self.writers.take(partition, self.slots.id(index)) {
            Take::Number(number) => {
                self.slots.get_mut(index).number = Some(number);
                self.push_ready(index);
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
            self.push_ready(index);
        }
        if self.writers.wants_open(partition) {
            let table = table.or_else(|| self.routes.table_of(partition)).unwrap_or(0);
            self.open_writer(now_ns, table, partition);
        }
    }

    fn open_writer(&mut self, now_ns: u64, table: u32, partition: u32) {
        let client = self.options.client;
        self.send_own(&New {
            purpose: Purpose::Open(partition),
            table,
            target: slot::Target::Partition(partition),
            ask: Ask::Op(Op::OpenSession { client }),
            key: &[],
            value: &[],
            now_ns,
            deadline_ns: u64::MAX,
        });
    }

    pub(super) fn wait_for_map(&mut self, now_ns: u64, index: u32) {
        self.slots.get_mut(index).state = State::Waiting;
        self.mapless.push_back(self.slots.id(index));
        self.want_map(now_ns);
    }

    /// Fetches the map, once at a time.
    pub(super) fn want_map(&mut self, now_ns: u64) {
        if std::mem::replace(&mut self.map_wanted, true) {
            return;
        }
        self.send_own(&New {
            purpose: Purpose::Map,
            table: 0,
            target: slot::Target::Brick,
            ask: Ask::FetchMap,
            key: &[],
            value: &[],
            now_ns,
            deadline_ns: u64::MAX,
        });
    }

    /// The session's own requests go first and count for no limit: there is one map fetch and one
    /// opening a partition at most.
    fn send_own(&mut self, new: &New<'_>) {
        let index = self.slots.insert(new);
        self.slots.get_mut(index).state = State::Ready;
        self.ready.push_front(self.slots.id(index));
    }
}
