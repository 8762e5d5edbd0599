//! The task behind a [`crate::Client`]: one future that owns the session and all connections. It takes
//! what every handle has queued, turns it into as few writes as possible, and hands out the results.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use firebrick_partition::op::Op;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use crate::client::Where;
use crate::clock::boot_ns;
use crate::connection::{Connection, READ_BYTES};
use crate::error::{Error, Result};
use crate::options::{Options, Seeds};
use crate::session::{Dial, Reply, Session, Submit, TableId, Target, with_value};

/// Called with the result, on the driver's task.
pub(crate) type Done = Box<dyn FnOnce(Result<Reply<'_>>) + Send>;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Job {
    Op { table: TableId, at: Where, op: Op<'static>, value: Vec<u8> },
    Control { json: String, changes: bool },
    FetchMap,
}

/// From a handle to the driver. Bounded by the handles' semaphores.
pub(crate) enum Command {
    Submit { job: Job, deadline_ns: u64, done: Done },
    Table { name: String, answer: oneshot::Sender<Option<TableId>> },
    Partitions { table: TableId, answer: oneshot::Sender<Vec<u32>> },
}

/// Commands taken at a time, so that answers are read between them.
const COMMANDS_MAX: usize = 256;
/// Bytes queued on a connection beyond which requests for it wait in the session; those for others do not.
const OUT_BYTES_MAX: usize = 1 << 20;
/// Rounds before other tasks of the runtime get a turn.
const ROUNDS_MAX: usize = 8;

/// Results to hand out, by token. Slots are used again.
#[derive(Default)]
struct Waiting {
    slots: Vec<Option<Done>>,
    free: Vec<usize>,
}

impl Waiting {
    fn insert(&mut self, done: Done) -> u64 {
        if let Some(at) = self.free.pop() {
            self.slots[at] = Some(done);
            return at as u64;
        }
        self.slots.push(Some(done));
        (self.slots.len() - 1) as u64
    }

    fn finish(&mut self, token: u64, result: Result<Reply<'_>>) {
        let Some(done) = self.slots.get_mut(token as usize).and_then(Option::take) else {
            unreachable!("the session answers each token once")
        };
        self.free.push(token as usize);
        done(result);
    }
}

pub(crate) struct Driver {
    session: Session,
    commands: mpsc::UnboundedReceiver<Command>,
    /// All handles are gone.
    closing: bool,
    connections: Vec<Connection>,
    silence: Duration,
    waiting: Waiting,
    seeds: Arc<str>,
    first: Option<oneshot::Sender<Result<()>>>,
    timer: Pin<Box<Sleep>>,
    frame: Vec<u8>,
    input: Box<[u8]>,
}

/// Runs until every handle is dropped and everything in flight is done, or until no seed could be
/// reached at the start.
pub(crate) fn run(
    seeds: Seeds,
    options: &Options,
    commands: mpsc::UnboundedReceiver<Command>,
    first: oneshot::Sender<Result<()>>,
) -> Driver {
    Driver {
        seeds: seeds.to_string().into(),
        session: Session::new(options.session(seeds)),
        commands,
        closing: false,
        connections: Vec::new(),
        silence: options.silence,
        waiting: Waiting::default(),
        first: Some(first),
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        frame: Vec::new(),
        input: vec![0; READ_BYTES].into_boxed_slice(),
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let now_ns = boot_ns();
            let mut busy = this.take_commands(now_ns, cx);
            let mut at = 0;
            while at < this.connections.len() {
                let before = this.connections.len();
                busy |= this.poll_connection(now_ns, at, cx);
                // One that is lost leaves its place to the last.
                at += usize::from(this.connections.len() == before);
            }
            this.handle_time(now_ns);
            if this.tell_first() {
                return Poll::Ready(());
            }
            busy |= this.dial(now_ns);
            busy |= this.send(now_ns, cx);
            if this.closing && this.session.in_flight() == 0 {
                return Poll::Ready(());
            }
            if !busy {
                return if this.set_timer(cx) { self_wake(cx) } else { Poll::Pending };
            }
        }
        self_wake(cx)
    }
}

fn self_wake(cx: &Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl Driver {
    fn take_commands(&mut self, now_ns: u64, cx: &mut Context<'_>) -> bool {
        for n in 0..COMMANDS_MAX {
            // What the session has no room for waits in the channel.
            if self.closing || self.session.room() == 0 {
                return n > 0;
            }
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => self.handle_command(now_ns, command),
                Poll::Ready(None) => self.closing = true,
                Poll::Pending => return n > 0,
            }
        }
        true
    }

    fn handle_command(&mut self, now_ns: u64, command: Command) {
        match command {
            Command::Submit { job, deadline_ns, done } => {
                let token = self.waiting.insert(done);
                if let Err(error) = self.submit(now_ns, &job, deadline_ns, token) {
                    self.waiting.finish(token, Err(error));
                }
            }
            // The asker may have gone.
            Command::Table { name, answer } => drop(answer.send(self.session.table(&name))),
            Command::Partitions { table, answer } => {
                drop(answer.send(self.session.partitions(table).collect()));
            }
        }
    }

    fn submit(&mut self, now_ns: u64, job: &Job, deadline_ns: u64, token: u64) -> Result<()> {
        match job {
            Job::Op { table, at, op, value } => {
                let target = match at {
                    Where::Key(key) => Target::Key(key.as_bytes()),
                    Where::Partition(id) => Target::Partition(*id),
                };
                let op = with_value(*op, value);
                let submit = Submit { table: *table, target, op, deadline_ns, token };
                self.session.submit(now_ns, &submit)
            }
            Job::Control { json, changes } => {
                self.session.control(now_ns, json, *changes, deadline_ns, token)
            }
            Job::FetchMap => self.session.fetch_map(now_ns, deadline_ns, token),
        }
    }

    /// Moves one connection on: dials, reads, takes frames. `true`: something happened.
    fn poll_connection(&mut self, now_ns: u64, at: usize, cx: &mut Context<'_>) -> bool {
        let Self { connections, session, waiting, input, .. } = self;
        let connection = &mut connections[at];
        let link = connection.link;
        let result = if connection.is_up() {
            let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
            connection
                .poll_read(cx, input, |payload| session.handle_frame(now_ns, link, payload, sink))
        } else {
            connection.poll_dial(cx).map_ok(|()| session.handle_connected(now_ns, link))
        };
        match result {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => {
                self.session.handle_progress(now_ns, link);
                true
            }
            Poll::Ready(Err(error)) => {
                self.disconnect(now_ns, at, error);
                true
            }
        }
    }

    fn disconnect(&mut self, now_ns: u64, at: usize, why: Error) {
        let link = self.connections.swap_remove(at).link;
        let waiting = &mut self.waiting;
        let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
        self.session.handle_disconnected(now_ns, link, why, sink);
    }

    /// Opens what the session asks for. `true`: something was.
    fn dial(&mut self, now_ns: u64) -> bool {
        let before = self.connections.len();
        while let Some(Dial { link, address }) = self.session.poll_dial(now_ns) {
            self.connections.push(Connection::dial(link, address, self.silence));
        }
        self.connections.len() > before
    }

    /// The first connection, or the failure of every seed, decides what `connect` says. `true`: nobody
    /// has a handle, or ever will.
    fn tell_first(&mut self) -> bool {
        if self.first.is_none() {
            return false;
        }
        let result = match self.session.unreachable() {
            Some(error) => Err(error),
            None if self.session.is_connected() => Ok(()),
            None => return false,
        };
        let failed = result.is_err();
        self.first.take().is_none_or(|first| first.send(result).is_err()) || failed
    }

    fn handle_time(&mut self, now_ns: u64) {
        let waiting = &mut self.waiting;
        let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
        self.session.handle_timeout(now_ns, sink);
        while let Some(link) = self.session.poll_close() {
            self.connections.retain(|c| c.link != link);
        }
    }

    /// Encodes what is ready, then writes each connection once. `true`: something happened.
    fn send(&mut self, now_ns: u64, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        let waiting = &mut self.waiting;
        let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
        let mut bytes = 0;
        while bytes < OUT_BYTES_MAX {
            self.frame.clear();
            let Some(link) = self.session.poll_send(now_ns, &mut self.frame, sink) else { break };
            let connection = self.connections.iter_mut().find(|c| c.link == link);
            let Some(connection) = connection else { unreachable!("a link is a connection's") };
            bytes += connection.queue(&self.frame);
            if connection.queued() >= OUT_BYTES_MAX {
                connection.blocked = true;
                self.session.handle_blocked(link);
            }
            busy = true;
        }
        if self.frame.capacity() > READ_BYTES {
            self.frame = Vec::new();
        }
        let mut at = 0;
        while at < self.connections.len() {
            busy |= self.write(now_ns, &mut at, cx);
        }
        busy
    }

    /// Writes one connection and goes on to the next. `true`: something happened that others may wait for.
    fn write(&mut self, now_ns: u64, at: &mut usize, cx: &mut Context<'_>) -> bool {
        let connection = &mut self.connections[*at];
        let queued = connection.queued();
        if let Err(error) = connection.poll_write(cx) {
            let error = connection.lost(&error.to_string());
            self.disconnect(now_ns, *at, error);
            return true;
        }
        *at += 1;
        let left = connection.queued();
        // What fitted at once says nothing of the peer: only a socket that was full and takes more does.
        if left < queued && (left > 0 || connection.was_full) {
            self.session.handle_sent(now_ns, connection.link);
        }
        connection.was_full = left > 0;
        if connection.blocked && connection.queued() < OUT_BYTES_MAX / 2 {
            connection.blocked = false;
            self.session.handle_drained(connection.link);
            return true;
        }
        false
    }

    /// `true`: it is time already.
    fn set_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let due_ns = self.session.poll_timeout();
        if due_ns == u64::MAX {
            return false;
        }
        let wait = Duration::from_nanos(due_ns.saturating_sub(boot_ns()));
        // Tokio's timer has milliseconds; a deadline of centuries need not fit its clock.
        let due = Instant::now() + wait.min(Duration::from_hours(1));
        self.timer.as_mut().reset(due);
        self.timer.as_mut().poll(cx).is_ready()
    }
}

impl Drop for Driver {
    /// The runtime ends: nobody will hear from the brick any more.
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            let address = self.seeds.clone();
            let why = "the runtime was shut down".into();
            drop(first.send(Err(Error::Connection { address, why })));
        }
    }
}
