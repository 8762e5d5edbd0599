//! The asynchronous client: a handle, and a task that owns the session and the connections.

use std::sync::Arc;
use std::time::Duration;

use firebrick_partition::op::{Answer, Op};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::driver::{self, Command, Done, Job};
use crate::error::{Error, Result};
use crate::json;
use crate::key::Key;
use crate::options::{IN_FLIGHT_MAX, Options, Seeds, nanos};
use crate::session::{Reply, TableId};
use crate::table::{Table, unexpected};

/// A connection to a store. Cheap to clone; it ends when the last clone is dropped and what is in
/// flight is done.
///
/// ```no_run
/// # async fn run() -> Result<(), firebrick_client::Error> {
/// let client = firebrick_client::Client::connect("127.0.0.1:7400").await?;
/// let table = client.table("default").await?;
/// table.put("cart:7", "three bricks").await?;
/// let value = table.get("cart:7").await?.expect("just stored");
/// assert_eq!(value.bytes, b"three bricks");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: mpsc::UnboundedSender<Command>,
    requests: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    kibibytes_max: u32,
    deadline: Duration,
}

/// What a request is about.
#[derive(Debug)]
pub(crate) enum Where {
    Key(Key),
    Partition(u32),
}

/// A request under way. Dropping it does not take the request back.
#[derive(Debug)]
pub(crate) struct Pending<T>(oneshot::Receiver<Result<T>>);

impl<T> Pending<T> {
    pub(crate) async fn wait(self) -> Result<T> {
        self.0.await.unwrap_or(Err(Error::Closed))
    }
}

/// How a table is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreateTable {
    /// When a write counts as kept; `None` is the brick's default.
    pub durability: Option<Durability>,
    /// Partitions on each data core, 1 to 64; `None` is the brick's default.
    pub partitions: Option<u32>,
    /// Bricks that hold each partition; `None` is the brick's default, or as many as there are bricks.
    pub replicas: Option<u8>,
}

pub use firebrick_partition::maps::Durability;

impl Client {
    /// Connects with default options, to one address or several ([`Seeds`]): the first brick that answers
    /// tells of the others, and one that is down is passed over. Waits until a brick answers, or says why
    /// none does.
    pub async fn connect(seeds: impl Into<Seeds>) -> Result<Self> {
        Self::connect_with(seeds, Options::default()).await
    }

    /// Connects. To be called in a tokio runtime, which then drives the connections.
    pub async fn connect_with(seeds: impl Into<Seeds>, options: Options) -> Result<Self> {
        let (commands, queue) = mpsc::unbounded_channel();
        let (first, connected) = oneshot::channel();
        let kibibytes_max = kibibytes(options.in_flight_bytes).max(kibibytes(LARGEST));
        let inner = Inner {
            commands,
            requests: Arc::new(Semaphore::new(options.in_flight.clamp(1, IN_FLIGHT_MAX))),
            kibibytes: Arc::new(Semaphore::new(kibibytes_max as usize)),
            kibibytes_max,
            deadline: options.deadline,
        };
        tokio::spawn(driver::run(seeds.into(), &options, queue, first));
        connected.await.unwrap_or(Err(Error::Closed))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A table by name.
    pub async fn table(&self, name: &str) -> Result<Table> {
        let deadline = self.inner.deadline;
        let mut id = self.look_up(name).await?;
        if id.is_none() {
            self.fetch_map(deadline).await?;
            id = self.look_up(name).await?;
        }
        let id = id.ok_or_else(|| Error::NoTable(name.into()))?;
        Ok(Table::new(self.clone(), id, name.into(), deadline))
    }

    /// Creates a table and waits until it can be used.
    pub async fn create_table(&self, name: &str, options: CreateTable) -> Result<Table> {
        self.control(json::create_table(name, options), true).await?;
        self.fetch_map(self.inner.deadline).await?;
        self.table(name).await
    }

    /// Drops a table and everything in it.
    pub async fn drop_table(&self, name: &str) -> Result<()> {
        self.control(json::command("table-drop", Some(name)), true).await?;
        self.fetch_map(self.inner.deadline).await
    }

    /// The tables, as the brick's JSON.
    pub async fn tables(&self) -> Result<String> {
        self.control(json::command("table-list", None), false).await
    }

    /// The brick's state, as its JSON.
    pub async fn status(&self) -> Result<String> {
        self.control(json::command("status", None), false).await
    }

    /// Any control request: JSON in, JSON out (docs/client.md). What `changes` something is not
    /// retried once it was sent.
    pub async fn control(&self, json: String, changes: bool) -> Result<String> {
        let deadline = self.inner.deadline;
        let job = Job::Control { json, changes };
        let map = |reply: Reply<'_>| match reply {
            Reply::Control(answer) => json::check(answer),
            _ => Err(unexpected()),
        };
        self.send(job, 0, deadline, map).await?.wait().await
    }

    async fn fetch_map(&self, deadline: Duration) -> Result<()> {
        let map = |reply: Reply<'_>| match reply {
            Reply::Map => Ok(()),
            _ => Err(unexpected()),
        };
        self.send(Job::FetchMap, 0, deadline, map).await?.wait().await
    }

    async fn look_up(&self, name: &str) -> Result<Option<TableId>> {
        let (answer, wait) = oneshot::channel();
        self.tell(Command::Table { name: name.into(), answer })?;
        wait.await.map_err(|_| Error::Closed)
    }

    /// A table's partitions, from a fresh map: a scan that missed a new one would miss keys.
    pub(crate) async fn partitions(&self, table: TableId, deadline: Duration) -> Result<Vec<u32>> {
        self.fetch_map(deadline).await?;
        let (answer, wait) = oneshot::channel();
        self.tell(Command::Partitions { table, answer })?;
        let partitions = wait.await.map_err(|_| Error::Closed)?;
        if partitions.is_empty() {
            return Err(Error::NoTable(format!("with id {}", table.0).into()));
        }
        Ok(partitions)
    }

    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        table: TableId,
        at: Where,
        op: Op<'static>,
        value: Vec<u8>,
        deadline: Duration,
        map: impl FnOnce(Answer<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>> {
        let key_len = if let Where::Key(key) = &at { key.as_bytes().len() } else { 0 };
        let bytes = key_len + value.len();
        let map = move |reply: Reply<'_>| match reply {
            Reply::Answer(answer) => map(answer),
            _ => Err(unexpected()),
        };
        self.send(Job::Op { table, at, op, value }, bytes, deadline, map).await
    }

    /// Waits for its turn and hands the request to the driver.
    async fn send<T: Send + 'static>(
        &self,
        job: Job,
        bytes: usize,
        deadline: Duration,
        map: impl FnOnce(Reply<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>> {
        let began = crate::clock::boot_ns();
        let until = Instant::now().checked_add(deadline);
        let permits = match until {
            Some(until) => timeout_at(until, self.permits(bytes))
                .await
                .unwrap_or_else(|_| Err(overdue(deadline)))?,
            None => self.permits(bytes).await?,
        };
        let (result, wait) = oneshot::channel();
        let done: Done = Box::new(move |reply| {
            // The application may have stopped waiting.
            let _ = result.send(reply.and_then(map));
            drop(permits);
        });
        let deadline_ns = began.saturating_add(nanos(deadline));
        self.tell(Command::Submit { job, deadline_ns, done })?;
        Ok(Pending(wait))
    }

    async fn permits(&self, bytes: usize) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let inner = &self.inner;
        // More than the limit is refused by the session; here it only must not wait for ever.
        let kib = kibibytes(bytes).min(inner.kibibytes_max);
        let one = inner.requests.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let room = inner.kibibytes.clone().acquire_many_owned(kib).await;
        Ok((one, room.map_err(|_| Error::Closed)?))
    }

    fn tell(&self, command: Command) -> Result<()> {
        self.inner.commands.send(command).map_err(|_| Error::Closed)
    }
}

/// It had no turn: too much else was in flight.
fn overdue(deadline: Duration) -> Error {
    Error::Deadline { ms: deadline.as_millis() as u64, from: None }
}

/// The largest request.
const LARGEST: usize = crate::KEY_BYTES_MAX + crate::VALUE_BYTES_MAX;

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4)
}
