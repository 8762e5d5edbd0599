//! Executing received commands: GET and SET in batches, everything else one by one.

use firebrick_partition::{Answer, Condition, Expiry, Op};

use super::commands::{self, Ask, Plan};
use super::conn::{Conn, Progress};
use super::job::{Job, Port};
use super::limits::{BATCH, COMMANDS_PER_CALL, KEY_BYTES_MAX};
use super::parse::{Fast, Parse, ProtocolError, Step, fast};
use super::reply::Then;
use super::{Backend, ReplyToken, hash_key, next_partition, write};

impl Conn {
    /// Executes commands from `buf`, the first with what `parse` knows of it. Returns how many bytes
    /// were used, and the state of a partial command behind them.
    pub(super) fn execute(
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
            if end > 0 && self.blocked(room, out).is_some() {
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
            let asked = key.len() + (op.value.1 - op.value.0) as usize;
            match backend.submit(token, hash, key, request) {
                Some(Answer::Value { value, .. }) if self.is_answered() => write::bulk(out, value),
                Some(Answer::Done { .. }) if self.is_answered() => out.extend_from_slice(write::OK),
                Some(answer) => {
                    let protocol = self.client.protocol;
                    self.reply(out, |to| then.write(answer, protocol, 0, to));
                }
                None => self.owe(then, asked, backend.now()),
            }
        }
        self.client.last_ms = backend.now().unix_ms;
        self.client.last_command = if batch.ops[batch.len - 1].is_set() { "set" } else { "get" };
        end
    }

    /// Acts on what the parser found. Returns how many bytes of `buf` it was.
    pub(super) fn one(
        &mut self,
        step: Result<Step, ProtocolError>,
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
                let args = if spans.count() <= few.len() {
                    few.iter_mut().zip(spans.iter()).for_each(|(arg, span)| *arg = slice(span));
                    &few[..spans.count()]
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
        let direct = self.is_answered();
        let to = if direct { &mut *out } else { &mut behind };
        let serving = backend.is_serving();
        let plan = commands::plan(args, &mut self.client, now, serving, to);
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
            Ok(Plan::One { key, op, then }) => self.submit(key, op, then, backend, out),
            Ok(Plan::Each(each, args)) => {
                let mut keys = args.iter().step_by(each.stride());
                if let Some(key) = keys.find(|key| key.len() > KEY_BYTES_MAX) {
                    return self.error(out, &key_too_large(key));
                }
                let first = self.next;
                let mut port = Port { backend, conn: self.slot, next: &mut self.next };
                let job = Job::each(each, args, protocol, &mut port);
                self.begin(job, first, now, out);
            }
            Ok(Plan::Work(work)) => {
                let first = self.next;
                let mut port = Port { backend, conn: self.slot, next: &mut self.next };
                let mut job = Job::new(work, protocol);
                job.advance(&mut port);
                self.begin(job, first, now, out);
            }
            Ok(Plan::Ask(ask)) => self.ask(&ask, backend, out),
        }
    }

    /// One operation, answered now or later.
    fn submit<B: Backend>(
        &mut self,
        key: &[u8],
        op: Op<'_>,
        mut then: Then,
        backend: &mut B,
        out: &mut Vec<u8>,
    ) {
        let (protocol, unix_ms) = (self.client.protocol, backend.now().unix_ms);
        let token = ReplyToken::new(self.slot, self.next);
        let hash = match op {
            Op::Scan { cursor, .. } => {
                if let Then::Scan(filter) = &mut then {
                    filter.next_partition = next_partition(backend, cursor);
                }
                cursor.reverse_bits()
            }
            _ => hash_key(key),
        };
        let asked = key.len() + op.value().len();
        match backend.submit(token, hash, key, op) {
            Some(answer) => self.reply(out, |to| then.write(answer, protocol, unix_ms, to)),
            None => self.owe(then, asked, backend.now()),
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
