//! One RESP connection: what it has received and not executed, and which replies it still owes.

use std::collections::VecDeque;

use firebrick_partition::{Answer, Condition, Expiry, Now, Op};

use super::commands::{self, Ask, Client, Plan};
use super::job::{Advance, Job, Port};
use super::limits::{BATCH, COMMANDS_PER_CALL, KEY_BYTES_MAX, REPLIES_WAITING_MAX};
use super::parse::{Fast, Parse, Step, fast};
use super::reply::Then;
use super::write::{self, Protocol};
use super::{Backend, ReplyToken, hash_key};

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
    /// Bytes of ready replies behind one that is awaited.
    bytes: usize,
}

/// One RESP connection.
///
/// Its slot number may be given to another connection only when [`Conn::outstanding`] is 0, or answers
/// would go astray.
#[derive(Debug)]
pub struct Conn {
    slot: u32,
    /// Number of the next operation that is answered later.
    next: u32,
    client: Client,
    held: Option<Box<Held>>,
    owed: Option<Box<Owed>>,
    /// Operations without an answer.
    outstanding: u32,
    /// No command is executed any more; close when nothing is owed.
    closing: bool,
}

const _: () = assert!(size_of::<Conn>() <= 200);

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
            closing: false,
        }
    }

    /// The slot given to [`Conn::new`].
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The id given to [`Conn::new`].
    pub fn id(&self) -> u64 {
        self.client.id
    }

    /// Operations submitted and not answered. Answers to a closed connection are to be passed to
    /// [`Conn::on_answer`] too, until this is 0.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Commands executed.
    pub fn commands(&self) -> u64 {
        self.client.commands
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
        let slots = &mut owed.slots;
        let Some(base) = slots.front().map(|s| s.first) else { return Progress::Ok };
        let number = token.number().wrapping_sub(base);
        let behind = slots.partition_point(|s| s.first.wrapping_sub(base) <= number);
        let Some(at) = behind.checked_sub(1) else { return Progress::Ok };
        let slot = &mut slots[at];
        let nth = number - slot.first.wrapping_sub(base);
        match &mut slot.state {
            State::Ready(_) => return Progress::Ok, // an answer that nobody awaits
            State::One(then) => {
                let mut reply = Vec::new();
                let target = if at == 0 { &mut *out } else { &mut reply };
                then.write(answer, slot.protocol, now.unix_ms, target);
                owed.bytes += reply.len();
                slot.state = State::Ready(reply);
            }
            State::Job(job) => job.on_answer(nth as usize, answer),
        }
        self.outstanding -= 1;
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
    fn direct(&self) -> bool {
        self.owed.as_ref().is_none_or(|owed| owed.slots.is_empty())
    }

    fn closed(&self) -> Progress {
        if self.direct() { Progress::Close } else { Progress::Waiting }
    }

    /// Why no command may be executed now.
    fn blocked(&self, room: usize, out: &[u8]) -> Option<Progress> {
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
            if owed.slots.len() >= REPLIES_WAITING_MAX || owed.bytes >= room {
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
        let more = held.parse.as_ref().map_or(0, Parse::reserve);
        held.buf.reserve_exact(rest.len() + more);
        held.buf.extend_from_slice(rest);
        if let Some(parse) = &mut held.parse {
            parse.forget(&mut held.buf);
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
                    held.buf.reserve_exact(parse.reserve());
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

    /// Executes commands from `buf`, the first with what `parse` knows of it. Returns how many bytes
    /// were used, and the state of a partial command behind them.
    fn execute(
        &mut self,
        buf: &[u8],
        mut parse: Option<Parse>,
        room: usize,
        backend: &mut impl Backend,
        out: &mut Vec<u8>,
    ) -> (usize, Option<Parse>, Progress) {
        let mut at = 0;
        let end = self.client.commands + COMMANDS_PER_CALL as u64;
        let mut batch = Batch::default();
        loop {
            if let Some(why) = self.blocked(room, out) {
                return (at, parse, why);
            }
            if at == buf.len() {
                return (at, parse, Progress::Ok);
            }
            if self.client.commands >= end {
                return (at, parse, Progress::Again);
            }
            if parse.is_none() && batch.gather(buf, at, backend) {
                at = self.batch(&batch, buf, room, backend, out);
                continue;
            }
            let mut state = parse.take().unwrap_or_default();
            let step = state.step(&buf[at..]);
            if let Ok(Step::Partial { .. }) = step {
                return (at, Some(state), Progress::Ok);
            }
            at += self.one(step, &buf[at..], &state, backend, out);
        }
    }

    /// Pass 3 over a batch of GETs and SETs: execute in order. Returns where the rest begins.
    fn batch<B: Backend>(
        &mut self,
        batch: &Batch,
        buf: &[u8],
        room: usize,
        backend: &mut B,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut end = 0;
        for (op, &hash) in batch.ops[..batch.len].iter().zip(&batch.hashes) {
            if end > 0 && (out.len() >= room || self.blocked(room, out).is_some()) {
                break;
            }
            end = op.end as usize;
            self.client.commands += 1;
            let key = &buf[op.key.0 as usize..op.key.1 as usize];
            if key.len() > KEY_BYTES_MAX {
                self.error(out, &key_too_large(key));
                continue;
            }
            let (then, request) = if op.is_set() {
                let value = &buf[op.value.0 as usize..op.value.1 as usize];
                (Then::Stored, put(value))
            } else {
                (Then::Bulk, Op::Get)
            };
            let token = ReplyToken::new(self.slot, self.next);
            match backend.submit(token, hash, key, request) {
                Some(Answer::Value { value, .. }) if self.direct() => write::bulk(out, value),
                Some(Answer::Done { .. }) if self.direct() => out.extend_from_slice(write::OK),
                Some(answer) => {
                    let protocol = self.client.protocol;
                    self.reply(out, |to| then.write(answer, protocol, 0, to));
                }
                None => self.owe(then),
            }
        }
        self.client.last_command = if batch.ops[batch.len - 1].is_set() { "set" } else { "get" };
        end
    }

    /// Acts on what the parser found. Returns how many bytes of `buf` it was.
    fn one(
        &mut self,
        step: Result<Step, super::parse::ProtocolError>,
        buf: &[u8],
        parse: &Parse,
        backend: &mut impl Backend,
        out: &mut Vec<u8>,
    ) -> usize {
        match step {
            Ok(Step::Command { used }) => {
                let spans = &parse.spans;
                let mut few: [&[u8]; 16] = [&[]; 16];
                let many: Vec<&[u8]>;
                let slice = |(from, to): (u32, u32)| &buf[from as usize..to as usize];
                let args = if spans.len() <= few.len() {
                    few.iter_mut().zip(spans.iter()).for_each(|(arg, span)| *arg = slice(span));
                    &few[..spans.len()]
                } else {
                    many = spans.iter().map(slice).collect();
                    &many[..]
                };
                self.command(args, backend, out);
                used
            }
            Ok(Step::Inline { used, words }) => {
                let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                self.command(&args, backend, out);
                used
            }
            Ok(Step::Nothing { used }) => used,
            Ok(Step::TooLarge { used, error }) => {
                self.client.commands += 1;
                self.error(out, error.as_bytes());
                used
            }
            Ok(Step::Partial { .. }) => unreachable!("the caller keeps partial commands"),
            Err(text) => {
                self.error(out, format!("ERR {text}").as_bytes());
                self.closing = true;
                buf.len()
            }
        }
    }

    /// Executes one command of any kind.
    fn command<B: Backend>(&mut self, args: &[&[u8]], backend: &mut B, out: &mut Vec<u8>) {
        self.client.commands += 1;
        let now = backend.now();
        self.client.last_ms = now.unix_ms;
        let protocol = self.client.protocol;
        let mut behind = Vec::new();
        let direct = self.direct();
        let to = if direct { &mut *out } else { &mut behind };
        let plan = commands::plan(args, &mut self.client, now, to);
        if !behind.is_empty() {
            self.reply(out, |to| to.extend_from_slice(&behind));
        }
        match plan {
            Err(text) => self.error(out, text.as_bytes()),
            Ok(Plan::Replied) => {}
            Ok(Plan::Quit) => self.closing = true,
            Ok(Plan::One { key, .. }) if key.len() > KEY_BYTES_MAX => {
                self.error(out, &key_too_large(key));
            }
            Ok(Plan::One { key, op, then }) => {
                let token = ReplyToken::new(self.slot, self.next);
                let hash = if let Op::Scan { cursor, .. } = op {
                    cursor.reverse_bits()
                } else {
                    hash_key(key)
                };
                match backend.submit(token, hash, key, op) {
                    Some(answer) => {
                        self.reply(out, |to| then.write(answer, protocol, now.unix_ms, to));
                    }
                    None => self.owe(then),
                }
            }
            Ok(Plan::Each(each, args)) => {
                let mut keys = args.iter().step_by(each.stride());
                if let Some(key) = keys.find(|key| key.len() > KEY_BYTES_MAX) {
                    return self.error(out, &key_too_large(key));
                }
                let first = self.next;
                let mut port = Port { backend, conn: self.slot, next: &mut self.next };
                let job = Job::each(each, args, protocol, &mut port);
                self.begin(job, first, out);
            }
            Ok(Plan::Work(work)) => {
                let first = self.next;
                let mut port = Port { backend, conn: self.slot, next: &mut self.next };
                let mut job = Job::new(work, protocol);
                job.advance(&mut port);
                self.begin(job, first, out);
            }
            Ok(Plan::Ask(ask)) => self.ask(&ask, backend, out),
        }
    }

    /// Questions about the brick, which the data core answers at once.
    fn ask<B: Backend>(&mut self, ask: &Ask<'_>, backend: &mut B, out: &mut Vec<u8>) {
        let protocol = self.client.protocol;
        let mut own = String::new();
        if let Ask::Clients { .. } = ask {
            let (peer, local) = backend.addresses(self.slot);
            self.describe(&peer, &local, backend.now(), &mut own);
        }
        let slot = self.slot;
        self.reply(out, |to| commands::answer(ask, own, slot, backend, protocol, to));
    }

    /// Writes a reply that is ready: to `out`, or behind what is owed.
    fn reply(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let owed = match &mut self.owed {
            Some(owed) if !owed.slots.is_empty() => owed,
            _ => return write(out),
        };
        if !matches!(owed.slots.back(), Some(Slot { state: State::Ready(_), .. })) {
            let (first, protocol) = (self.next, self.client.protocol);
            owed.slots.push_back(Slot { first, protocol, state: State::Ready(Vec::new()) });
        }
        if let Some(Slot { state: State::Ready(tail), .. }) = owed.slots.back_mut() {
            let before = tail.len();
            write(tail);
            owed.bytes += tail.len() - before;
        }
    }

    fn error(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        self.reply(out, |to| write::error(to, text));
    }

    /// The operation just submitted, number `next`, is answered later.
    fn owe(&mut self, then: Then) {
        let slot =
            Slot { first: self.next, protocol: self.client.protocol, state: State::One(then) };
        self.owed.get_or_insert_default().slots.push_back(slot);
        self.next = self.next.wrapping_add(1);
        self.outstanding += 1;
    }

    /// Takes in a job after its first step, whose operations are numbered from `first` on.
    fn begin(&mut self, job: Job, first: u32, out: &mut Vec<u8>) {
        self.outstanding += job.submitted() as u32;
        if job.state() == Advance::Finished {
            return self.reply(out, |to| to.extend_from_slice(&job.reply));
        }
        let (protocol, state) = (self.client.protocol, State::Job(Box::new(job)));
        self.owed.get_or_insert_default().slots.push_back(Slot { first, protocol, state });
    }

    /// Runs the next step of the last job, if it is ready for one.
    fn advance_job(&mut self, backend: &mut impl Backend, out: &mut Vec<u8>) {
        let Some(owed) = &mut self.owed else { return };
        if let Some(Slot { first, state: State::Job(job), .. }) = owed.slots.back_mut()
            && job.state() == Advance::More
        {
            *first = self.next;
            job.advance(&mut Port { backend, conn: self.slot, next: &mut self.next });
            self.outstanding += job.submitted() as u32;
            self.drain(out);
        }
    }

    /// Moves the replies that nothing earlier is awaited for to `out`.
    fn drain(&mut self, out: &mut Vec<u8>) {
        let Some(owed) = &mut self.owed else { return };
        while let Some(slot) = owed.slots.front() {
            match &slot.state {
                State::Ready(reply) => {
                    owed.bytes -= reply.len();
                    out.extend_from_slice(reply);
                }
                State::Job(job) if job.state() == Advance::Finished => {
                    out.extend_from_slice(&job.reply);
                }
                State::Job(_) | State::One(_) => return,
            }
            owed.slots.pop_front();
        }
        // A burst must not stay with a connection that falls idle.
        if owed.slots.capacity() > 64 {
            self.owed = None;
        }
    }
}

/// GETs and SETs gathered before they are executed, so that their cache misses overlap.
struct Batch {
    ops: [Fast; BATCH],
    hashes: [u64; BATCH],
    len: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { ops: [Fast::default(); BATCH], hashes: [0; BATCH], len: 0 }
    }
}

impl Batch {
    /// Gathers from `at` on (pass 1), then asks for the records (pass 2). False: something else is there.
    #[inline]
    fn gather<B: Backend>(&mut self, buf: &[u8], at: usize, backend: &B) -> bool {
        self.len = 0;
        let mut at = at;
        while self.len < BATCH
            && let Some(op) = fast(buf, at)
        {
            let hash = hash_key(&buf[op.key.0 as usize..op.key.1 as usize]);
            backend.prefetch_bucket(hash);
            at = op.end as usize;
            self.ops[self.len] = op;
            self.hashes[self.len] = hash;
            self.len += 1;
        }
        if self.len > 1 {
            self.hashes[..self.len].iter().for_each(|&hash| backend.prefetch_record(hash));
        }
        self.len > 0
    }
}

/// SET without options.
fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}

#[cold]
fn key_too_large(key: &[u8]) -> Vec<u8> {
    format!(
        "ERR TooLarge: a key of {} bytes; a key may have up to {KEY_BYTES_MAX} (32 KiB)",
        key.len()
    )
    .into_bytes()
}
