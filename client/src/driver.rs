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
use crate::options::Options;
use crate::session::{Link, Reply, Session, Submit, TableId, Target, with_value};

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
/// Bytes queued on all connections beyond which requests wait in the session.
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
    next_link: u32,
    waiting: Waiting,
    address: Arc<str>,
    first: Option<oneshot::Sender<Result<()>>>,
    timer: Pin<Box<Sleep>>,
    frame: Vec<u8>,
    input: Box<[u8]>,
}

/// Runs until every handle is dropped and everything in flight is done, or until the first attempt to
/// connect fails.
pub(crate) fn run(
    address: Arc<str>,
    options: &Options,
    commands: mpsc::UnboundedReceiver<Command>,
    first: oneshot::Sender<Result<()>>,
) -> Driver {
    let count = options.connections.clamp(1, 64);
    let dial_ms = options.silence.max(Duration::from_millis(10));
    let connections = (0..count).map(|_| Connection::new(address.clone(), dial_ms)).collect();
    Driver {
        session: Session::new(options.session()),
        commands,
        closing: false,
        connections,
        next_link: 0,
        waiting: Waiting::default(),
        address,
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
            for at in 0..this.connections.len() {
                busy |= this.poll_connection(now_ns, at, cx);
            }
            if this.first.is_none() && this.connections.iter().all(Connection::gave_up) {
                return Poll::Ready(());
            }
            this.handle_time(now_ns);
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
        if connection.link().is_none() {
            return match connection.poll_dial(now_ns, Link(self.next_link), cx) {
                Poll::Pending => false,
                Poll::Ready(Ok(link)) => {
                    self.next_link += 1;
                    session.handle_connected(now_ns, link);
                    self.tell_first(Ok(()));
                    true
                }
                Poll::Ready(Err(error)) => {
                    session.handle_unreachable(error.clone());
                    self.tell_first(Err(error));
                    true
                }
            };
        }
        let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
        let Some(link) = connection.link() else { return false };
        let read = connection
            .poll_read(cx, input, |payload| session.handle_frame(now_ns, link, payload, sink));
        match read {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => {
                self.disconnect(now_ns, at);
                self.session.handle_unreachable(error);
                true
            }
        }
    }

    fn disconnect(&mut self, now_ns: u64, at: usize) {
        let Self { connections, session, waiting, .. } = self;
        let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
        if let Some(link) = connections[at].link() {
            connections[at].drop_link(now_ns);
            session.handle_disconnected(now_ns, link, sink);
        }
    }

    /// The first connection decides what `connect` says; if it failed, nobody has a handle.
    fn tell_first(&mut self, result: Result<()>) {
        let Some(first) = self.first.take() else { return };
        let failed = result.is_err();
        if first.send(result).is_err() || failed {
            for connection in &mut self.connections {
                connection.give_up();
            }
        }
    }

    fn handle_time(&mut self, now_ns: u64) {
        let waiting = &mut self.waiting;
        let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
        self.session.handle_timeout(now_ns, sink);
        while let Some(link) = self.session.poll_close() {
            if let Some(at) = self.connections.iter().position(|c| c.link() == Some(link)) {
                self.disconnect(now_ns, at);
            }
        }
    }

    /// Encodes what is ready, then writes each connection once. `true`: something happened.
    fn send(&mut self, now_ns: u64, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        let mut queued: usize = self.connections.iter().map(Connection::queued).sum();
        let waiting = &mut self.waiting;
        let sink = &mut |token: u64, result: Result<Reply<'_>>| waiting.finish(token, result);
        while queued < OUT_BYTES_MAX {
            self.frame.clear();
            let Some(link) = self.session.poll_send(now_ns, &mut self.frame, sink) else { break };
            let connection = self.connections.iter_mut().find(|c| c.link() == Some(link));
            let Some(connection) = connection else { unreachable!("a link is a connection's") };
            queued += connection.queue(&self.frame);
            busy = true;
        }
        if self.frame.capacity() > READ_BYTES {
            self.frame = Vec::new();
        }
        for at in 0..self.connections.len() {
            if self.connections[at].poll_write(cx).is_err() {
                self.disconnect(now_ns, at);
                busy = true;
            }
        }
        busy
    }

    /// `true`: it is time already.
    fn set_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let dials = self.connections.iter().filter_map(Connection::retry_at_ns);
        let due_ns = dials.chain([self.session.poll_timeout()]).min().unwrap_or(u64::MAX);
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
            let address = self.address.clone();
            let why = "the runtime was shut down".into();
            drop(first.send(Err(Error::Connection { address, why })));
        }
    }
}
