//! The session: everything a client of the data structure knows and decides, without I/O and without
//! a clock. A shell owns the sockets and calls in; frames to send and results come out.
//!
//! The idea: a request is a slot. A slot is *admitted* when its partition is known and, for a write,
//! when it has its number; it is then *ready* and waits in the queue of the brick that it should go to
//! (`place`), and `poll_send` turns ready slots into frames. An answer finishes the slot or sends it
//! round again.
//!
//! The shell opens what `poll_dial` asks for, closes what `poll_close` names, and says what became of it
//! (`handle_connected`, `handle_disconnected`). When to dial, whom, and whom to give up is decided here.
//!
//! Invariants:
//! * A write leaves again only under the same number, or when its last try is known to have changed
//!   nothing. So nothing is applied twice.
//! * A slot is `uncertain` from the moment a try of it was lost. From then on only an answer that
//!   settles every earlier try finishes it as anything but `InDoubt`.
//! * Everything in flight has a deadline; slots, queues and buffers are bounded by `Options::in_flight`.

mod answer;
mod links;
mod map;
mod numbers;
mod overdue;
mod peers;
mod place;
mod routes;
mod send;
mod slot;
mod writers;

use std::collections::VecDeque;
use std::sync::Arc;

use firebrick_partition::op::{Answer, Op};

use crate::error::{Error, Result};
use crate::options::SessionOptions;
use peers::Peers;
use place::Hint;
use routes::Routes;
pub use routes::TableId;
pub(crate) use slot::with_value;
use slot::{Ask, Id, New, Purpose, Slots, State};
use writers::Writers;

/// A connection, from the dial on; a new one has a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub u32);

impl Link {
    fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// A connection to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Its name from now on.
    pub link: Link,
    /// `HOST:PORT`, as the map or the caller has it.
    pub address: Arc<str>,
}

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

/// See the module's text. All times are nanoseconds of one clock that never goes back; `Now::boot_ns`
/// in production.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    slots: Slots,
    routes: Routes,
    writers: Writers,
    peers: Peers,
    /// Lines to be closed by the shell, because they were silent or lead nowhere any more.
    closing: VecDeque<Link>,
    /// Ready, and wait for any peer to be up. May name tries that are over, which are skipped.
    anywhere: VecDeque<Id>,
    /// Ready, and not in the map.
    homeless: VecDeque<Id>,
    /// Wait for the map.
    mapless: VecDeque<Id>,
    /// The fetch of the map under way, whom to ask, and when the next one may begin.
    map_slot: Option<u32>,
    map_hint: Hint,
    map_at_ns: u64,
    map_pause_ns: u64,
    /// Requests of the application.
    users: usize,
    /// No slot's deadline or pause ends before this.
    wake_ns: u64,
    /// A dial may be due.
    dial_due: bool,
    /// Nobody was ever reached.
    starting: bool,
    random: u64,
}

impl Session {
    /// A session that knows nothing yet.
    pub fn new(options: SessionOptions) -> Self {
        Self {
            slots: Slots::new(),
            routes: Routes::default(),
            writers: Writers::default(),
            peers: Peers::new(&options.seeds),
            closing: VecDeque::new(),
            anywhere: VecDeque::new(),
            homeless: VecDeque::new(),
            mapless: VecDeque::new(),
            map_slot: None,
            map_hint: Hint::Anyone,
            map_at_ns: 0,
            map_pause_ns: 0,
            users: 0,
            wake_ns: u64::MAX,
            dial_due: true,
            starting: true,
            // Clients that start together do not go to the same replicas together.
            random: (options.client as u64 ^ (options.client >> 64) as u64) | 1,
            options,
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

    /// When [`Session::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> u64 {
        self.wake_ns
    }

    /// Ends what is past its deadline, sends round again what was paused, and looks after the connections.
    pub fn handle_timeout(&mut self, now_ns: u64, sink: &mut dyn Sink) {
        if now_ns < self.wake_ns {
            return;
        }
        let mut wake_ns = u64::MAX;
        let mut position = 0;
        let mut slow = None;
        while let Some(index) = self.slots.in_use(position) {
            let slot = self.slots.get(index);
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
                // (A line that is silent is looked after with the others.)
                State::Sent(link) if slot.target != slot::Target::Brick => {
                    let patient_ns = slot.sent_ns.saturating_add(self.options.silence_ns);
                    if patient_ns <= now_ns {
                        slow = Some(link);
                    } else {
                        wake_ns = wake_ns.min(patient_ns);
                    }
                }
                _ => {}
            }
        }
        self.wake_ns = wake_ns;
        let wake_ns = self.tend_lines(now_ns, sink);
        self.wake_ns = self.wake_ns.min(wake_ns);
        if let Some(link) = slow {
            self.doubt_map(now_ns, link);
        }
        self.dial_due = true;
        self.sort_ready();
        let slots = &self.slots;
        self.homeless.retain(|&id| slots.find(id).is_some());
        self.mapless.retain(|&id| slots.find(id).is_some());
        self.writers.forget_waiting(|id| slots.find(id).is_some());
    }

    /// The only way a slot ends.
    fn finish(&mut self, now_ns: u64, index: u32, result: Result<Reply<'_>>, sink: &mut dyn Sink) {
        let slot = self.slots.get(index);
        let (purpose, number) = (slot.purpose, slot.number);
        if let State::Sent(link) = slot.state {
            self.peers.one_less(link, slot.bytes());
        }
        self.slots.remove(index);
        match (purpose, result) {
            (Purpose::User(token), result) => {
                self.users -= 1;
                sink.done(token, result);
            }
            (Purpose::Map, _) => self.map_slot = None,
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
}

fn check_size(what: &'static str, bytes: usize, limit: usize) -> Result<()> {
    if bytes > limit { Err(Error::TooLarge { what, bytes, limit }) } else { Ok(()) }
}
