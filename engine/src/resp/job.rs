//! Commands of more than one operation: many keys, all partitions, or one step after another.
//!
//! A job runs in steps. A step submits a bounded number of operations; when all of them are answered
//! the next one may begin. While a job is not finished its connection executes nothing further, so
//! pipelined commands see its effects in order.

use firebrick_partition::op::{ExpireWhen, packed_keys};
use firebrick_partition::{Answer, Condition, Expiry, Failure, Op};

use super::limits::{BYTES_PER_STEP, KEYS_PER_STEP, REPLY_BYTES_MAX, SCAN_COUNT_MAX};
use super::reply::{ScanFilter, Then, failure_text};
use super::write::{self, Protocol};
use super::{Backend, ReplyToken, hash_key, next_partition};

/// Submits operations of one connection, and numbers those that are answered later.
pub struct Port<'b, B> {
    /// The data core.
    pub backend: &'b mut B,
    /// The connection's slot.
    pub conn: u32,
    /// The number for the next operation that is answered later.
    pub next: &'b mut u32,
}

impl<B: Backend> Port<'_, B> {
    /// One operation on a key.
    pub fn submit(&mut self, key: &[u8], op: Op<'_>) -> Option<Answer<'_>> {
        self.submit_at(hash_key(key), key, op)
    }

    /// One operation on the partition of a hash.
    pub fn submit_at(&mut self, hash: u64, key: &[u8], op: Op<'_>) -> Option<Answer<'_>> {
        let token = ReplyToken::new(self.conn, *self.next);
        let answer = self.backend.submit(token, hash, key, op);
        if answer.is_none() {
            *self.next = self.next.wrapping_add(1);
        }
        answer
    }
}

/// The command of many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// MGET.
    Get,
    /// MSET: keys and values in turn.
    Set,
    /// DEL, UNLINK.
    Remove,
    /// EXISTS, TOUCH.
    Exists,
}

impl Each {
    /// Arguments that belong together.
    pub fn stride(self) -> usize {
        if self == Each::Set { 2 } else { 1 }
    }

    fn op<'a>(self, args: &[&'a [u8]]) -> Op<'a> {
        match self {
            Each::Get => Op::Get,
            Each::Set => Op::Put {
                value: args[1],
                expiry: Expiry::Never,
                condition: Condition::Always,
                want_old: false,
            },
            Each::Remove => Op::Remove { condition: Condition::Always, want_old: false },
            Each::Exists => Op::Look,
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Work {
    /// The same operation on each of many keys.
    Each(Each),
    /// DBSIZE.
    Count,
    /// FLUSHALL.
    Clear,
    /// KEYS.
    Keys {
        /// Which to show.
        filter: ScanFilter,
        /// Where the next step begins.
        cursor: u64,
    },
    /// RANDOMKEY: ask the partitions in turn, beginning with any.
    RandomKey {
        /// Random bits.
        random: u64,
        /// Partitions not asked yet.
        left: Option<Vec<u64>>,
    },
    /// GETEX with a change: read, then set the expiry.
    GetEx {
        /// The key.
        key: Box<[u8]>,
        /// The new expiry; 0 is never.
        at_ms: u64,
        /// The value has been read.
        read: bool,
    },
}

/// The error of a reply over its limit.
const REPLY_TOO_LARGE: &str = "ERR TooLarge: a reply of more than 67108864 bytes (64 MiB): ask for \
                               less at a time, or use SCAN";

/// What a job wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Answers are awaited.
    Waiting,
    /// Call again.
    More,
    /// The reply is complete.
    Finished,
}

/// A command in steps.
#[derive(Debug)]
pub struct Job {
    work: Work,
    protocol: Protocol,
    /// The reply, or its elements so far.
    pub reply: Vec<u8>,
    /// Keys found, removed, seen.
    sum: u64,
    failure: Option<&'static str>,
    /// For each operation of this step that is answered later, which part of the step it is.
    pending: Vec<u32>,
    answered: usize,
    /// Replies of parts that have to wait for an earlier part.
    parts: Vec<Vec<u8>>,
    parts_bytes: usize,
    /// Arguments of the steps to come: `len u32 | bytes`, one after the other.
    rest: Vec<u8>,
    rest_at: usize,
    finished: bool,
}

impl Job {
    /// A job that has done nothing yet.
    pub fn new(work: Work, protocol: Protocol) -> Self {
        Self {
            work,
            protocol,
            reply: Vec::new(),
            sum: 0,
            failure: None,
            pending: Vec::new(),
            answered: 0,
            parts: Vec::new(),
            parts_bytes: 0,
            rest: Vec::new(),
            rest_at: 0,
            finished: false,
        }
    }

    /// The first step of a command of many keys, from the arguments where they lie; what does not
    /// fit a step is copied.
    pub fn each<B: Backend>(
        each: Each,
        args: &[&[u8]],
        protocol: Protocol,
        port: &mut Port<'_, B>,
    ) -> Self {
        let mut job = Self::new(Work::Each(each), protocol);
        if each == Each::Get {
            write::array(&mut job.reply, args.len());
        }
        let used = job.each_step(each, args, port);
        for arg in &args[used..] {
            job.rest.extend_from_slice(&(arg.len() as u32).to_le_bytes());
            job.rest.extend_from_slice(arg);
        }
        job.finished |= used == args.len();
        job.end_step();
        job
    }

    /// What it keeps: what is left of its arguments, and its reply so far.
    pub fn bytes(&self) -> usize {
        self.reply.len() + self.parts_bytes + self.rest.len()
    }

    /// Answers of this step that have not come.
    pub fn waiting(&self) -> usize {
        self.pending.len() - self.answered
    }

    /// Operations of this step that were not answered at once.
    pub fn submitted(&self) -> usize {
        self.pending.len()
    }

    /// Whether the step is over, and what comes next.
    pub fn state(&self) -> Advance {
        match (self.waiting(), self.finished) {
            (0, true) => Advance::Finished,
            (0, false) => Advance::More,
            _ => Advance::Waiting,
        }
    }

    /// Whether later commands have to wait: steps are still to come.
    pub fn blocks(&self) -> bool {
        !self.finished
    }

    /// Runs the next step. Call when [`Job::state`] says `More`.
    pub fn advance<B: Backend>(&mut self, port: &mut Port<'_, B>) {
        assert!(self.waiting() == 0 && !self.finished, "a step begins when the one before is over");
        self.pending.clear();
        self.answered = 0;
        match &mut self.work {
            Work::Each(each) => {
                let each = *each;
                let rest = std::mem::take(&mut self.rest);
                let args = packed_keys(&rest[self.rest_at..]);
                let step: Vec<&[u8]> = args.take(KEYS_PER_STEP * each.stride()).collect();
                let used = self.each_step(each, &step, port);
                self.rest_at += step[..used].iter().map(|arg| arg.len() + 4).sum::<usize>();
                self.finished |= self.rest_at == rest.len();
                self.rest = rest;
                self.end_step();
            }
            Work::Count => self.everywhere(port, Op::Count),
            Work::Clear => self.everywhere(port, Op::Clear),
            Work::Keys { cursor, filter } => {
                let cursor = *cursor;
                filter.next_partition = next_partition(port.backend, cursor);
                let op = Op::Scan { cursor, count: SCAN_COUNT_MAX };
                match port.submit_at(cursor.reverse_bits(), b"", op) {
                    Some(answer) => self.take(0, answer),
                    None => self.pending.push(0),
                }
                self.end_step();
            }
            Work::RandomKey { .. } => self.random_key(port),
            Work::GetEx { .. } => self.get_ex(port),
        }
    }

    /// Submits keys until the step is large enough. Returns how many arguments that took.
    fn each_step<B: Backend>(
        &mut self,
        each: Each,
        args: &[&[u8]],
        port: &mut Port<'_, B>,
    ) -> usize {
        let (mut used, mut sent) = (0, 0);
        let before = self.reply.len();
        for (part, args) in args.chunks_exact(each.stride()).enumerate() {
            let bytes = sent + self.reply.len().saturating_sub(before);
            if part == KEYS_PER_STEP || bytes > BYTES_PER_STEP || self.failure.is_some() {
                break;
            }
            sent += args.iter().map(|arg| arg.len()).sum::<usize>();
            used += args.len();
            match port.submit(args[0], each.op(args)) {
                Some(answer) => self.take(part, answer),
                None => self.pending.push(part as u32),
            }
        }
        used
    }

    fn everywhere<B: Backend>(&mut self, port: &mut Port<'_, B>, op: Op<'_>) {
        let mut hashes = Vec::new();
        port.backend.partition_hashes(&mut hashes);
        for hash in hashes {
            match port.submit_at(hash, b"", op) {
                Some(answer) => self.take(0, answer),
                None => self.pending.push(0),
            }
        }
        self.finished = true;
        self.end_step();
    }

    fn random_key<B: Backend>(&mut self, port: &mut Port<'_, B>) {
        let Work::RandomKey { random, left } = &mut self.work else { unreachable!() };
        let hashes = left.get_or_insert_with(|| {
            let mut hashes = Vec::new();
            port.backend.partition_hashes(&mut hashes);
            let start = *random as usize % hashes.len().max(1);
            hashes.rotate_left(start);
            hashes
        });
        let Some(hash) = hashes.pop() else {
            write::null(&mut self.reply, self.protocol);
            self.finished = true;
            return;
        };
        match port.submit_at(hash, b"", Op::RandomKey { cursor: *random }) {
            Some(answer) => self.take(0, answer),
            None => self.pending.push(0),
        }
        self.end_step();
    }

    fn get_ex<B: Backend>(&mut self, port: &mut Port<'_, B>) {
        let Work::GetEx { key, at_ms, read } = &mut self.work else { unreachable!() };
        let op =
            if *read { Op::Expire { at_ms: *at_ms, when: ExpireWhen::default() } } else { Op::Get };
        match port.submit(key, op) {
            Some(answer) => self.take(0, answer),
            None => self.pending.push(0),
        }
        self.end_step();
    }

    /// The answer of the `nth` operation of this step that was answered later.
    pub fn on_answer(&mut self, nth: usize, answer: Answer<'_>) {
        let part = self.pending[nth] as usize;
        self.answered += 1;
        self.take(part, answer);
        self.end_step();
    }

    fn take(&mut self, part: usize, answer: Answer<'_>) {
        if self.failure.is_some() {
            return;
        }
        if let Answer::Failed(failure) = answer {
            return self.fail(failure_text(failure));
        }
        match &mut self.work {
            Work::Each(Each::Get) if self.pending.is_empty() => {
                Then::Bulk.write(answer, self.protocol, 0, &mut self.reply);
            }
            Work::Each(Each::Get) => {
                if self.parts.len() <= part {
                    self.parts.resize_with(part + 1, Vec::new);
                }
                Then::Bulk.write(answer, self.protocol, 0, &mut self.parts[part]);
                self.parts_bytes += self.parts[part].len();
            }
            Work::Each(_) => match answer {
                Answer::Done { .. } | Answer::Seen { .. } => self.sum += 1,
                Answer::Absent | Answer::Refused { .. } => {}
                _ => self.fail(failure_text(Failure::Malformed)),
            },
            Work::Count => match answer {
                Answer::Count { count } => self.sum += count,
                _ => self.fail(failure_text(Failure::Malformed)),
            },
            Work::Clear => {}
            Work::Keys { filter, cursor } => match answer {
                Answer::Keys { cursor: next, packed } => {
                    for key in packed_keys(packed).filter(|key| filter.shows(key)) {
                        write::bulk(&mut self.reply, key);
                        self.sum += 1;
                    }
                    *cursor = filter.after(next);
                    self.finished |= *cursor == 0;
                }
                _ => self.fail(failure_text(Failure::Malformed)),
            },
            Work::RandomKey { .. } => {
                if let Answer::Key { key } = answer {
                    write::bulk(&mut self.reply, key);
                    self.finished = true;
                }
            }
            Work::GetEx { read, .. } => {
                if *read {
                    self.finished = true; // gone in between: the value was still there when read
                } else {
                    *read = true;
                    self.finished = !matches!(answer, Answer::Value { .. });
                    Then::Bulk.write(answer, self.protocol, 0, &mut self.reply);
                }
            }
        }
        if self.reply.len() + self.parts_bytes > REPLY_BYTES_MAX {
            self.fail(REPLY_TOO_LARGE);
        }
    }

    /// The first failure is the reply; what was done before stays done.
    fn fail(&mut self, text: &'static str) {
        self.failure.get_or_insert(text);
        self.finished = true;
        // What it had gathered may be much, and the rest of the step may take a while.
        self.parts = Vec::new();
        self.parts_bytes = 0;
        self.reply = Vec::new();
    }

    /// All parts of the step are there: put them in order; after the last step make the reply.
    fn end_step(&mut self) {
        if self.waiting() > 0 {
            return;
        }
        for part in self.parts.drain(..) {
            self.reply.extend_from_slice(&part);
        }
        self.parts_bytes = 0;
        if !self.finished {
            return;
        }
        if let Some(text) = self.failure {
            self.reply.clear();
            return write::error(&mut self.reply, text.as_bytes());
        }
        match &self.work {
            Work::Each(Each::Remove | Each::Exists) | Work::Count => {
                write::integer(&mut self.reply, self.sum as i64);
            }
            Work::Each(Each::Set) | Work::Clear => self.reply.extend_from_slice(write::OK),
            Work::Keys { .. } => {
                let elements = std::mem::take(&mut self.reply);
                self.reply.reserve(elements.len() + 16);
                write::array(&mut self.reply, self.sum as usize);
                self.reply.extend_from_slice(&elements);
            }
            Work::Each(Each::Get) | Work::RandomKey { .. } | Work::GetEx { .. } => {}
        }
    }
}
