//! The session: everything a client of the data structure knows and decides, without I/O and without
//! a clock. A shell owns the sockets and calls in; frames to send and results come out.
//!
//! The idea: a request is a slot. A slot is *admitted* when its partition is known and, for a write,
//! when it has its number; it is then *ready*, and `poll_send` turns ready slots into frames. An
//! answer finishes the slot or sends it round again.
//!
//! Invariants:
//! * A write leaves again only under the same number, or when its last try is known to have changed
//!   nothing. So nothing is applied twice.
//! * A slot is `uncertain` from the moment a try of it was lost. From then on only an answer that
//!   settles every earlier try finishes it as anything but `InDoubt`.
//! * Everything in flight has a deadline; slots, queues and buffers are bounded by `Options::in_flight`.

mod answer;
mod numbers;
mod routes;
mod send;
mod slot;
mod writers;

use std::collections::VecDeque;

use firebrick_partition::op::{Answer, Op};

use crate::error::{Error, Result};
use crate::options::SessionOptions;
use routes::Routes;
pub use routes::TableId;
pub(crate) use slot::with_value;
use slot::{Ask, Id, New, Purpose, Slots, State};
use writers::Writers;

/// A connection, named by the shell; a new connection has a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link(pub u32);

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// One key.
    Key(&'a [u8]),
    /// A whole partition: `Scan`, `Count`, `RandomKey`, `Clear`.
    Partition(u32),
}

/// One request, to be answered under `token`.
#[derive(Clone, Copy, Debug)]
pub struct Submit<'a> {
    /// The table.
    pub table: TableId,
    /// The key or partition.
    pub target: Target<'a>,
    /// What to do.
    pub op: Op<'a>,
    /// Nanoseconds, on the clock of `now_ns`.
    pub deadline_ns: u64,
    /// The caller's own word, returned with the result.
    pub token: u64,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reply<'a> {
    /// To an operation. Never `StaleRoute` and never `Failed`: those are retried or errors.
    Answer(Answer<'a>),
    /// To a control request.
    Control(&'a str),
    /// The map was fetched.
    Map,
}

/// Takes the results. Closures will do.
pub trait Sink {
    /// `token`'s request is done; exactly one call for each.
    fn done(&mut self, token: u64, result: Result<Reply<'_>>);
}

impl<F: FnMut(u64, Result<Reply<'_>>)> Sink for F {
    fn done(&mut self, token: u64, result: Result<Reply<'_>>) {
        self(token, result);
    }
}

#[derive(Debug)]
struct LinkState {
    link: Link,
    /// Tries sent on it and not answered.
    unanswered: u32,
    /// When something last arrived, or the first try after a quiet time was sent.
    heard_ns: u64,
    /// `Hello` was sent.
    greeted: bool,
    /// How many unanswered the brick allows.
    limit: u32,
}

/// See the module's text. All times are nanoseconds of one clock that never goes back; `Now::boot_ns`
/// in production.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    slots: Slots,
    routes: Routes,
    writers: Writers,
    links: Vec<LinkState>,
    /// Links to close, because they have been silent for too long.
    silent: VecDeque<Link>,
    /// Admitted; may name tries that are over, which are skipped.
    ready: VecDeque<Id>,
    /// Wait for the map.
    mapless: VecDeque<Id>,
    map_wanted: bool,
    /// Requests of the application.
    users: usize,
    /// No slot's deadline or pause ends before this.
    wake_ns: u64,
    /// Why the last attempt to connect failed; `None` while connected.
    unreachable: Option<Error>,
}

impl Session {
    /// A session that knows nothing yet.
    pub fn new(options: SessionOptions) -> Self {
        Self {
            options,
            slots: Slots::new(),
            routes: Routes::default(),
            writers: Writers::default(),
            links: Vec::new(),
            silent: VecDeque::new(),
            ready: VecDeque::new(),
            mapless: VecDeque::new(),
            map_wanted: false,
            users: 0,
            wake_ns: u64::MAX,
            unreachable: None,
        }
    }

    /// Requests submitted and not done.
    pub fn in_flight(&self) -> usize {
        self.users
    }

    /// How many more may be submitted.
    pub fn room(&self) -> usize {
        self.options.in_flight.saturating_sub(self.users)
    }

    /// The table of a name, as far as the map is known; ask again after [`Session::fetch_map`].
    pub fn table(&self, name: &str) -> Option<TableId> {
        self.routes.table(name)
    }

    /// The ids of a table's partitions, as far as the map is known.
    pub fn partitions(&self, table: TableId) -> impl Iterator<Item = u32> + '_ {
        self.routes.partitions(table)
    }

    /// Takes one request. `Busy` when `room` is 0, `TooLarge` when it could never be served; the
    /// sink is not called for those.
    pub fn submit(&mut self, now_ns: u64, submit: &Submit<'_>) -> Result<()> {
        let (op, value) = slot::split(submit.op);
        let (target, key) = match submit.target {
            Target::Key(key) => (slot::Target::Hash(routes::hash(key)), key),
            Target::Partition(id) => (slot::Target::Partition(id), &[][..]),
        };
        check_size("key", key.len(), crate::KEY_BYTES_MAX)?;
        check_size("value", value.len(), crate::VALUE_BYTES_MAX)?;
        let index = self.take_slot(&New {
            purpose: Purpose::User(submit.token),
            table: submit.table.0,
            target,
            ask: Ask::Op(op),
            key,
            value,
            now_ns,
            deadline_ns: submit.deadline_ns,
        })?;
        self.admit(now_ns, index);
        Ok(())
    }

    /// Asks a brick about tables or itself; `json` as docs/client.md has it. What `changes`
    /// something is not sent again once it was sent: creating twice is not the same as once.
    pub fn control(
        &mut self,
        now_ns: u64,
        json: &str,
        changes: bool,
        deadline_ns: u64,
        token: u64,
    ) -> Result<()> {
        self.submit_to_brick(now_ns, Ask::Control { changes }, json, deadline_ns, token)
    }

    /// Fetches the map again; answered with [`Reply::Map`].
    pub fn fetch_map(&mut self, now_ns: u64, deadline_ns: u64, token: u64) -> Result<()> {
        self.submit_to_brick(now_ns, Ask::FetchMap, "", deadline_ns, token)
    }

    fn submit_to_brick(
        &mut self,
        now_ns: u64,
        ask: Ask,
        text: &str,
        deadline_ns: u64,
        token: u64,
    ) -> Result<()> {
        check_size("request", text.len(), crate::VALUE_BYTES_MAX)?;
        let index = self.take_slot(&New {
            purpose: Purpose::User(token),
            table: 0,
            target: slot::Target::Brick,
            ask,
            key: &[],
            value: text.as_bytes(),
            now_ns,
            deadline_ns,
        })?;
        self.admit(now_ns, index);
        Ok(())
    }

    fn take_slot(&mut self, new: &New<'_>) -> Result<u32> {
        if self.room() == 0 {
            return Err(Error::Busy);
        }
        self.users += 1;
        self.wake_ns = self.wake_ns.min(new.deadline_ns);
        Ok(self.slots.insert(new))
    }

    /// A connection is open and shaken hands.
    pub fn handle_connected(&mut self, now_ns: u64, link: Link) {
        self.unreachable = None;
        self.links.push(LinkState {
            link,
            unanswered: 0,
            heard_ns: now_ns,
            greeted: false,
            limit: u32::MAX,
        });
    }

    /// No connection could be opened; the shell goes on trying. Requests that were never sent say so
    /// when their deadline comes.
    pub fn handle_unreachable(&mut self, error: Error) {
        self.unreachable = Some(error);
    }

    /// Why there is no connection; `None` when there is one, or none was tried.
    pub fn unreachable(&self) -> Option<&Error> {
        self.unreachable.as_ref()
    }

    /// A connection is gone: what was sent on it is sent again where that cannot apply twice, and is
    /// `InDoubt` where it could.
    pub fn handle_disconnected(&mut self, now_ns: u64, link: Link, sink: &mut dyn Sink) {
        let Some(at) = self.links.iter().position(|l| l.link == link) else { return };
        self.links.remove(at);
        let mut position = 0;
        while let Some(index) = self.slots.in_use(position) {
            position += 1;
            let slot = self.slots.get_mut(index);
            if slot.state != State::Sent(link) {
                continue;
            }
            if !slot.may_repeat() {
                self.finish(now_ns, index, Err(Error::InDoubt), sink);
                position -= 1;
                continue;
            }
            slot.uncertain |= slot.is_write();
            self.slots.next_try(index);
            self.push_ready(index);
        }
        let slots = &self.slots;
        self.ready.retain(|&id| slots.find(id).is_some());
        // Retries go first, in the order of their submission.
        self.ready.make_contiguous().sort_unstable_by_key(|&id| {
            slots.find(id).map_or(u64::MAX, |index| slots.get(index).order)
        });
    }

    /// When [`Session::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> u64 {
        self.wake_ns
    }

    /// A connection that the shell is to close, and to report as disconnected.
    pub fn poll_close(&mut self) -> Option<Link> {
        self.silent.pop_front()
    }

    /// Ends what is past its deadline, and sends round again what was paused.
    pub fn handle_timeout(&mut self, now_ns: u64, sink: &mut dyn Sink) {
        if now_ns < self.wake_ns {
            return;
        }
        let mut wake_ns = u64::MAX;
        let mut position = 0;
        while let Some(index) = self.slots.in_use(position) {
            let slot = self.slots.get_mut(index);
            if slot.deadline_ns <= now_ns {
                let error = self.overdue(index);
                self.finish(now_ns, index, Err(error), sink);
                continue;
            }
            position += 1;
            wake_ns = wake_ns.min(slot.deadline_ns);
            match slot.state {
                State::Paused(until) if until <= now_ns => self.admit(now_ns, index),
                State::Paused(until) => wake_ns = wake_ns.min(until),
                _ => {}
            }
        }
        self.wake_ns = wake_ns.min(self.find_silent(now_ns));
        let slots = &self.slots;
        self.ready.retain(|&id| slots.find(id).is_some());
        self.mapless.retain(|&id| slots.find(id).is_some());
        self.writers.forget_waiting(|id| slots.find(id).is_some());
    }

    /// Links on which answers are due and nothing has come for long. A dead address is not kept.
    fn find_silent(&mut self, now_ns: u64) -> u64 {
        let mut wake_ns = u64::MAX;
        for l in &self.links {
            let until = l.heard_ns.saturating_add(self.options.silence_ns);
            if l.unanswered == 0 || self.silent.contains(&l.link) {
                continue;
            }
            if until <= now_ns {
                self.silent.push_back(l.link);
            } else {
                wake_ns = wake_ns.min(until);
            }
        }
        wake_ns
    }

    /// What a request past its deadline is told.
    fn overdue(&self, index: u32) -> Error {
        use firebrick_partition::Failure;
        let slot = self.slots.get(index);
        let out = matches!(slot.state, State::Sent(_));
        if slot.uncertain || (out && slot.is_write()) {
            return Error::InDoubt;
        }
        match slot.last_failure {
            Some(Failure::Busy) if !out => return Error::Busy,
            Some(_) if !out => return Error::Unavailable,
            _ => {}
        }
        match &self.unreachable {
            Some(error) if !out && self.links.is_empty() => error.clone(),
            _ => {
                Error::Deadline { ms: (slot.deadline_ns - slot.submitted_ns + 500_000) / 1_000_000 }
            }
        }
    }

    /// The only way a slot ends.
    fn finish(&mut self, now_ns: u64, index: u32, result: Result<Reply<'_>>, sink: &mut dyn Sink) {
        let slot = self.slots.get(index);
        let (purpose, number) = (slot.purpose, slot.number);
        if let State::Sent(link) = slot.state {
            self.one_less(link);
        }
        self.slots.remove(index);
        match (purpose, result) {
            (Purpose::User(token), result) => {
                self.users -= 1;
                sink.done(token, result);
            }
            (Purpose::Map, _) => self.map_wanted = false,
            (Purpose::Open(partition), result) => {
                self.writers.open_ended(partition);
                let Err(error) = result else { return };
                // The writes that wait for the session share its fate; none of them was sent.
                while let Some(id) = self.writers.pop_waiting(partition) {
                    if let Some(waiting) = self.slots.find(id) {
                        self.finish(now_ns, waiting, Err(error.clone()), sink);
                    }
                }
            }
        }
        if let Some(id) = number
            && let Some(partition) = self.writers.finish(id)
        {
            self.release(now_ns, partition);
        }
    }

    fn one_less(&mut self, link: Link) {
        if let Some(l) = self.links.iter_mut().find(|l| l.link == link) {
            l.unanswered -= 1;
        }
    }

    fn push_ready(&mut self, index: u32) {
        self.slots.get_mut(index).state = State::Ready;
        self.ready.push_back(self.slots.id(index));
    }
}

fn check_size(what: &'static str, bytes: usize, limit: usize) -> Result<()> {
    if bytes > limit { Err(Error::TooLarge { what, bytes, limit }) } else { Ok(()) }
}
