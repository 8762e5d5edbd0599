//! One RESP connection: what it has received and not executed, and which replies it still owes.

use std::collections::VecDeque;

use firebrick_partition::{Answer, Now};

use super::commands::Client;
use super::job::{Advance, Job, Port};
use super::limits::{AHEAD_BYTES_MAX, ANSWER_NS_MAX, EXPECTED_BYTES, REPLIES_WAITING_MAX};
use super::parse::{Parse, Step};
use super::reply::Then;
use super::write::{self, Protocol};
use super::{Backend, ReplyToken};

/// How far a call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything received has been executed, but for the beginning of a command.
    Ok,
    /// There is more to do: call [`Conn::resume`] in the next turn.
    Again,
    /// `out` is full: call [`Conn::resume`] when it has been sent. Receive nothing until then.
    Full,
    /// Answers are awaited: [`Conn::on_answer`] says how it goes on. Receive nothing until then.
    Waiting,
    /// Send what is in `out`, then close.
    Close,
}

/// A reply that is not in `out` yet.
#[derive(Debug)]
struct Slot {
    /// Number of the first operation that it awaits.
    first: u32,
    /// As it was when the command was given.
    protocol: Protocol,
    state: State,
    /// Bytes that are kept for it: of its request, then of its reply.
    bytes: usize,
}

#[derive(Debug)]
enum State {
    Ready(Vec<u8>),
    One(Then),
    Job(Box<Job>),
}

/// Received bytes that have not been executed.
#[derive(Debug, Default)]
struct Held {
    buf: Vec<u8>,
    /// Executed up to here.
    at: usize,
    /// How far the command that begins at `at` has been understood.
    parse: Option<Parse>,
}

/// Replies owed, kept apart so that an idle connection is small.
#[derive(Debug, Default)]
struct Owed {
    slots: VecDeque<Slot>,
    /// Bytes of them all.
    bytes: usize,
    /// Since when no answer has come.
    since_ns: u64,
}

/// One RESP connection.
///
/// Its slot number may be given to another connection only when [`Conn::outstanding`] is 0, or answers
/// would go astray.
#[derive(Debug)]
pub struct Conn {
    pub(super) slot: u32,
    /// Number of the next operation that is answered later.
    pub(super) next: u32,
    pub(super) client: Client,
    held: Option<Box<Held>>,
    owed: Option<Box<Owed>>,
    /// Operations without an answer.
    outstanding: u32,
    /// How large an answer may be that comes later, by those that came.
    expected: u32,
    /// No command is executed any more; close when nothing is owed.
    pub(super) closing: bool,
}

const _: () = assert!(size_of::<Conn>() <= 200);

/// To a connection whose answers are given up. (All that it awaits is in doubt; the first of them is told.)
const NO_ANSWER: &[u8] =
    b"TRYAGAIN no answer came for 30 s, and the connection is closed; what was written may or may \
    not have been applied; read the key before trying again";
const _: () = assert!(ANSWER_NS_MAX == 30_000_000_000);

impl Conn {
    /// A connection in a slot of its data core. `id` is unique in the brick and never reused.
    pub fn new(slot: u32, id: u64, now: Now) -> Self {
        Self {
            slot,
            next: 0,
            client: Client::new(id, now.unix_ms),
            held: None,
            owed: None,
            outstanding: 0,
            expected: EXPECTED_BYTES,
            closing: false,
        }
    }

    /// The slot given to [`Conn::new`].
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Operations submitted and not answered. Answers to a closed connection are to be passed to
    /// [`Conn::on_answer`] too, until this is 0.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// When the answers that it awaits are given up, if none comes.
    pub fn gives_up_ns(&self) -> Option<u64> {
        let owed = self.owed.as_ref().filter(|_| self.outstanding > 0)?;
        Some(owed.since_ns + ANSWER_NS_MAX)
    }

    /// Says that no answer comes, and closes.
    pub fn give_up(&mut self, out: &mut Vec<u8>) -> Progress {
        write::error(out, NO_ANSWER);
        (self.owed, self.held, self.outstanding, self.closing) = (None, None, 0, true);
        Progress::Close
    }

    /// Received bytes and replies kept here, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |h| h.buf.capacity())
            + self.owed.as_ref().map_or(0, |o| o.bytes)
    }

    /// A line of CLIENT LIST.
    pub fn describe(&self, peer: &str, local: &str, now: Now, out: &mut String) {
        self.client.describe(peer, local, now.unix_ms, self.held_bytes(), out);
    }

    /// Takes received bytes, all of them: what cannot be executed now is kept, so while the answer is
    /// not `Ok` the caller should receive no more. Stops executing when `out` holds `room` bytes.
    pub fn on_bytes(
        &mut self,
        chunk: &[u8],
        room: usize,
        backend: &mut impl Backend,
        out: &mut Vec<u8>,
    ) -> Progress {
        if self.closing {
            return self.closed();
        }
        let mut chunk = chunk;
        while let Some(mut held) = self.held.take() {
            if held.parse.is_none() || self.blocked(room, out).is_some() {
                held.buf.extend_from_slice(chunk);
                self.held = Some(held);
                return self.resume(room, backend, out);
            }
            if chunk.is_empty() {
                self.held = Some(held);
                return Progress::Ok;
            }
            chunk = self.complete(held, chunk, backend, out);
            if self.closing {
                return self.closed();
            }
        }
        let (used, parse, progress) = self.execute(chunk, None, room, backend, out);
        self.hold(&chunk[used..], parse);
        progress
    }

    /// Goes on with what was kept. Harmless at any time.
    pub fn resume(
        &mut self,
        room: usize,
        backend: &mut impl Backend,
        out: &mut Vec<u8>,
    ) -> Progress {
        self.advance_job(backend, out);
        if let Some(why) = self.blocked(room, out) {
            return why;
        }
        let Some(mut held) = self.held.take() else { return Progress::Ok };
        let parse = held.parse.take();
        let (used, parse, progress) = self.execute(&held.buf[held.at..], parse, room, backend, out);
        held.at += used;
        held.parse = parse;
        if held.at < held.buf.len() || held.parse.is_some() {
            if held.at > held.buf.len() / 2 || held.parse.is_some() {
                held.buf.drain(..held.at);
                held.at = 0;
            }
            if let Some(parse) = &mut held.parse {
                parse.forget(&mut held.buf);
            }
            self.held = Some(held);
        }
        progress
    }

    /// A later answer. Replies that it sets free go to `out`.
    pub fn on_answer(
        &mut self,
        token: ReplyToken,
        answer: Answer<'_>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Progress {
        debug_assert_eq!(token.conn(), self.slot);
        let Some(owed) = &mut self.owed else { return Progress::Ok };
        owed.since_ns = now.boot_ns;
        let slots = &mut owed.slots;
        let Some(base) = slots.front().map(|s| s.first) else { return Progress::Ok };
        let number = token.number().wrapping_sub(base);
        let behind = slots.partition_point(|s| s.first.wrapping_sub(base) <= number);
        let Some(at) = behind.checked_sub(1) else { return Progress::Ok };
        let slot = &mut slots[at];
        let nth = number - slot.first.wrapping_sub(base);
        let grown;
        match &mut slot.state {
            State::Ready(_) => return Progress::Ok, // an answer that nobody awaits
            State::One(then) => {
                let mut reply = Vec::new();
                let target = if at == 0 { &mut *out } else { &mut reply };
                let before = target.len();
                then.write(answer, slot.protocol, now.unix_ms, target);
                grown = target.len() - before;
                owed.bytes = owed.bytes + reply.len() - slot.bytes;
                slot.bytes = reply.len();
                slot.state = State::Ready(reply);
            }
            State::Job(job) => {
                job.on_answer(nth as usize, answer);
                grown = job.bytes().saturating_sub(slot.bytes);
                owed.bytes = owed.bytes + job.bytes() - slot.bytes;
                slot.bytes = job.bytes();
            }
        }
        self.outstanding -= 1;
        self.expected = (self.expected - self.expected / 8).max(grown as u32);
        self.drain(out);
        if self.closing {
            return self.closed();
        }
        match self.blocked(usize::MAX, out) {
            Some(why) => why,
            None if self.held.is_some() => Progress::Again,
            None => Progress::Ok,
        }
    }

    /// Nothing is owed: a reply can be written to `out` right away.
    #[inline]
    pub fn is_answered(&self) -> bool {
        self.owed.as_ref().is_none_or(|owed| owed.slots.is_empty())
    }

    fn closed(&self) -> Progress {
        if self.is_answered() { Progress::Close } else { Progress::Waiting }
    }

    /// Why no command may be executed now.
    pub(super) fn blocked(&self, room: usize, out: &[u8]) -> Option<Progress> {
        if self.closing {
            return Some(self.closed());
        }
        if let Some(owed) = &self.owed {
            match owed.slots.back().map(|slot| &slot.state) {
                Some(State::Job(job)) if job.state() == Advance::More => {
                    return Some(Progress::Again);
                }
                Some(State::Job(job)) if job.blocks() => return Some(Progress::Waiting),
                _ => {}
            }
            let coming = self.outstanding as usize * self.expected as usize;
            let full = !owed.slots.is_empty() && owed.bytes + coming >= AHEAD_BYTES_MAX;
            if owed.slots.len() >= REPLIES_WAITING_MAX || full {
                return Some(Progress::Waiting);
            }
        }
        (out.len() >= room).then_some(Progress::Full)
    }

    /// Keeps what could not be executed.
    fn hold(&mut self, rest: &[u8], parse: Option<Parse>) {
        if rest.is_empty() && parse.is_none() {
            return;
        }
        let mut held = Box::new(Held { buf: Vec::new(), at: 0, parse });
        held.buf.reserve_exact(rest.len());
        held.buf.extend_from_slice(rest);
        let Held { buf, parse, .. } = &mut *held;
        if let Some(parse) = parse {
            parse.forget(buf);
            parse.make_room(buf);
        }
        self.held = Some(held);
    }

    /// Completes the partial command in `held` with as much of `chunk` as it needs, and executes it.
    /// Returns the rest of the chunk; `held` is kept when the chunk did not suffice.
    fn complete<'c>(
        &mut self,
        mut held: Box<Held>,
        chunk: &'c [u8],
        backend: &mut impl Backend,
        out: &mut Vec<u8>,
    ) -> &'c [u8] {
        let mut parse = held.parse.take().expect("only a partial command is completed");
        let (mut taken, mut more) = (0, 1);
        loop {
            // A few bytes at least: lines come in unknown lengths.
            let upto = chunk.len().min(taken + more.max(64));
            held.buf.extend_from_slice(&chunk[taken..upto]);
            taken = upto;
            let step = parse.step(&held.buf);
            if let Ok(Step::Partial { more: needed }) = step {
                parse.forget(&mut held.buf);
                if taken == chunk.len() {
                    parse.make_room(&mut held.buf);
                    held.parse = Some(parse);
                    self.held = Some(held);
                    return &[];
                }
                more = needed;
                continue;
            }
            // What was taken and not needed belongs to the next command.
            let used = self.one(step, &held.buf, &parse, backend, out);
            return &chunk[taken - (held.buf.len() - used)..];
        }
    }

    /// Writes a reply that is ready: to `out`, or behind what is owed.
    pub(super) fn reply(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let owed = match &mut self.owed {
            Some(owed) if !owed.slots.is_empty() => owed,
            _ => return write(out),
        };
        if !matches!(owed.slots.back(), Some(Slot { state: State::Ready(_), .. })) {
            let (first, protocol) = (self.next, self.client.protocol);
            owed.slots.push_back(Slot {
                first,
                protocol,
                state: State::Ready(Vec::new()),
                bytes: 0,
            });
        }
        if let Some(Slot { state: State::Ready(tail), bytes, .. }) = owed.slots.back_mut() {
            write(tail);
            owed.bytes += tail.len() - *bytes;
            *bytes = tail.len();
        }
    }

    pub(super) fn error(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        self.reply(out, |to| write::error(to, text));
    }

    /// The operation just submitted, number `next`, is answered later. `bytes`: of its request.
    pub(super) fn owe(&mut self, then: Then, bytes: usize, now: Now) {
        let (first, protocol) = (self.next, self.client.protocol);
        self.push(Slot { first, protocol, state: State::One(then), bytes }, 1, now);
        self.next = self.next.wrapping_add(1);
    }

    /// Takes in a job after its first step, whose operations are numbered from `first` on.
    pub(super) fn begin(&mut self, job: Job, first: u32, now: Now, out: &mut Vec<u8>) {
        if job.state() == Advance::Finished {
            return self.reply(out, |to| to.extend_from_slice(&job.reply));
        }
        let (bytes, submitted) = (job.bytes(), job.submitted() as u32);
        let (protocol, state) = (self.client.protocol, State::Job(Box::new(job)));
        self.push(Slot { first, protocol, state, bytes }, submitted, now);
    }

    fn push(&mut self, slot: Slot, submitted: u32, now: Now) {
        let owed = self.owed.get_or_insert_default();
        if self.outstanding == 0 {
            owed.since_ns = now.boot_ns;
        }
        owed.bytes += slot.bytes;
        owed.slots.push_back(slot);
        self.outstanding += submitted;
    }

    /// Runs the next step of the last job, if it is ready for one.
    fn advance_job(&mut self, backend: &mut impl Backend, out: &mut Vec<u8>) {
        let Some(owed) = &mut self.owed else { return };
        if let Some(Slot { first, state: State::Job(job), bytes, .. }) = owed.slots.back_mut()
            && job.state() == Advance::More
        {
            *first = self.next;
            owed.since_ns = backend.now().boot_ns;
            job.advance(&mut Port { backend, conn: self.slot, next: &mut self.next });
            owed.bytes = owed.bytes + job.bytes() - *bytes;
            *bytes = job.bytes();
            self.outstanding += job.submitted() as u32;
            self.drain(out);
        }
    }

    /// Moves the replies that nothing earlier is awaited for to `out`.
    fn drain(&mut self, out: &mut Vec<u8>) {
        let Some(owed) = &mut self.owed else { return };
        while let Some(slot) = owed.slots.front() {
            match &slot.state {
                State::Ready(reply) => out.extend_from_slice(reply),
                State::Job(job) if job.state() == Advance::Finished => {
                    out.extend_from_slice(&job.reply);
                }
                State::Job(_) | State::One(_) => return,
            }
            owed.bytes -= slot.bytes;
            owed.slots.pop_front();
        }
        // A burst must not stay with a connection that falls idle.
        if owed.slots.capacity() > 64 {
            self.owed = None;
        }
    }
}
