//! The control thread: one ordinary thread with a tokio runtime of its own, for everything rare.
//!
//! HTTP, signals, the keepers. A fault or a flood here never touches a data core: nothing a data core does
//! waits for this thread, and all that it is asked goes through a bounded queue. The keeper's log has a
//! thread of its own, so that a slow disk does not stop the metrics, or the leases.

mod http;
mod metrics;
mod requests;
mod signals;
mod status;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use firebrick_partition::maps::{Durability, Routes, TableOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::config::partitions_per_core;
use crate::counters::Board;
use crate::error::BrickError;
use crate::keeper::{self, BeatSetup, Beats, Begun, Finder, KeeperSetup, News, Node};
pub use requests::{ControlAnswer, ControlPort, ControlRequest};

/// Requests to the control thread that may wait.
const REQUESTS_MAX: usize = 256;
/// For those who asked for changes to be told, when the brick has been removed: one of them may have asked for that.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The data cores as the control thread sees them. Called on the control thread alone; may not block
/// for longer than it takes a core to drain its ring.
pub trait Cores: Send + Sync + 'static {
    /// Gives a core newer routes, if there are any, and behind them in the same ring the end of its
    /// lease (`CLOCK_BOOTTIME`; `u64::MAX`: none). What is given first arrives first, and before any answer
    /// that is given later. The control thread keeps an `Arc` until no core has one, so that none is freed on
    /// a core. A core that has taken it says so on the board; until then it is given no more.
    fn give(&self, core: u16, routes: Option<Arc<Routes>>, lease_end_ns: u64);

    /// Gives a core the answer to its request and wakes it.
    fn answer(&self, core: u16, answer: ControlAnswer);

    /// Tells every core to stop taking requests, answer those in flight, flush and end. May be called
    /// more than once.
    fn stop(&self);
}

/// What the control thread is started with.
pub struct Setup {
    /// The brick's name.
    pub name: String,
    /// The brick's random id.
    pub brick_id: u64,
    /// Where it listens for its two protocols, for people.
    pub listen: SocketAddr,
    /// Likewise.
    pub resp: Option<SocketAddr>,
    /// HTTP, or none.
    pub http: Option<SocketAddr>,
    /// HTTP connections at a time.
    pub http_connections_max: usize,
    /// Partitions of a new table on each core; `None`: as its durability wants.
    pub partitions_per_core: Option<u32>,
    /// Durability of a new table.
    pub durability: Durability,
    /// Catch SIGTERM and SIGINT.
    pub signals: bool,
    /// The figures.
    pub board: Arc<Board>,
    /// How many bricks should hold each partition of a new table.
    pub replicas: u8,
    /// Memory for records.
    pub memory_bytes: u64,
    /// This brick's side of the keepers.
    pub keeper: KeeperSetup,
}

/// A brick that the keepers know.
pub struct Started {
    /// Its cluster's id.
    pub cluster: u64,
    /// Its id in the maps.
    pub brick: u32,
    /// The routes to begin with; what comes later comes through [`Cores`].
    pub routes: Arc<Routes>,
    /// Partitions of dropped tables whose files may still be there.
    pub dropped: Vec<u32>,
}

/// What the tasks of the control thread share.
struct Shared {
    name: String,
    brick_id: u64,
    listen: SocketAddr,
    resp: Option<SocketAddr>,
    board: Arc<Board>,
    cores: Arc<dyn Cores>,
    /// All routes that a core may still have, the newest last.
    routes: Mutex<Vec<Arc<Routes>>>,
    /// This brick's keeper, once it runs.
    node: OnceLock<Arc<Node>>,
    /// For whoever leads the keepers, likewise.
    finder: OnceLock<Finder>,
    /// To who makes statuses.
    statuses: mpsc::Sender<status::Waits>,
}

impl Shared {
    fn newest_routes(&self) -> Arc<Routes> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.last().map(Arc::clone).unwrap_or_default()
    }

    /// Keeps routes that cores are given, and frees those that none of them has any more.
    fn keep_routes(&self, newest: &Arc<Routes>) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if !routes.last().is_some_and(|last| Arc::ptr_eq(last, newest)) {
            routes.retain(|old| Arc::strong_count(old) > 1);
            routes.push(Arc::clone(newest));
        }
    }

    fn begin_stop(&self) {
        self.board.begin_stop();
        self.cores.stop();
    }
}

impl Cores for Shared {
    fn give(&self, core: u16, routes: Option<Arc<Routes>>, lease_end_ns: u64) {
        if let Some(routes) = &routes {
            self.keep_routes(routes);
        }
        self.cores.give(core, routes, lease_end_ns);
    }

    fn answer(&self, core: u16, answer: ControlAnswer) {
        self.cores.answer(core, answer);
    }

    fn stop(&self) {
        self.cores.stop();
    }
}

/// The running thread.
pub struct ControlThread {
    handle: JoinHandle<Result<(), BrickError>>,
    end: watch::Sender<bool>,
    http: Option<SocketAddr>,
    started: Receiver<Result<Started, BrickError>>,
}

/// The ends of the queue to a control thread that is started later: data cores are made before it.
pub struct Queue {
    port: ControlPort,
    requests: mpsc::Receiver<ControlRequest>,
}

impl Default for Queue {
    fn default() -> Self {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        Self { port: ControlPort::new(sender), requests }
    }
}

impl Queue {
    /// The data cores' end.
    pub fn port(&self) -> ControlPort {
        self.port.clone()
    }

    /// The next request, for a test or the simulator in the control thread's place.
    pub fn take(&mut self) -> Option<ControlRequest> {
        self.requests.try_recv().ok()
    }
}

impl ControlThread {
    /// Opens the HTTP port and starts the thread.
    pub fn spawn(setup: Setup, queue: Queue, cores: Arc<dyn Cores>) -> Result<Self, BrickError> {
        let listener = setup.http.map(listen_http).transpose()?;
        let http = match &listener {
            Some(listener) => Some(listener.local_addr().map_err(thread_error)?),
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(3)
            .thread_name("control-files")
            .build()
            .map_err(thread_error)?;
        let (end, ended) = watch::channel(false);
        let (say_started, started) = sync_channel(1);
        let handle = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                let ends = Ends { requests: queue.requests, ended, started: say_started };
                runtime.block_on(run(setup, cores, listener, ends))
            })
            .map_err(thread_error)?;
        Ok(Self { handle, end, http, started })
    }

    /// Waits until the keepers know this brick; `None` after so long. To be asked until it is there.
    pub fn started(&self, at_most: Duration) -> Option<Result<Started, BrickError>> {
        match self.started.recv_timeout(at_most) {
            Ok(started) => Some(started),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(BrickError::Thread {
                name: "control".into(),
                what: "it panicked; its message is above".into(),
            })),
        }
    }

    /// Where HTTP listens (the port that was found, when 0 was asked for).
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Ends the thread, once the cores have stopped.
    pub fn finish(self) -> Result<(), BrickError> {
        let _ = self.end.send(true);
        self.handle.join().map_err(|_| BrickError::Thread {
            name: "control".into(),
            what: "it panicked; its message is above".into(),
        })?
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn thread_error(error: std::io::Error) -> BrickError {
    BrickError::Thread { name: "control".into(), what: error.to_string() }
}

fn listen_http(address: SocketAddr) -> Result<TcpListener, BrickError> {
    // std sets SO_REUSEADDR, so a restart does not wait for old connections to fade.
    let listener =
        TcpListener::bind(address).map_err(|error| BrickError::listen("http", address, error))?;
    listener.set_nonblocking(true).map_err(thread_error)?;
    Ok(listener)
}

/// Where others reach into the thread.
struct Ends {
    requests: mpsc::Receiver<ControlRequest>,
    ended: watch::Receiver<bool>,
    started: SyncSender<Result<Started, BrickError>>,
}

async fn run(
    setup: Setup,
    cores: Arc<dyn Cores>,
    listener: Option<TcpListener>,
    ends: Ends,
) -> Result<(), BrickError> {
    let Ends { requests, mut ended, started } = ends;
    let (statuses, asked) = mpsc::channel(status::ASKED_MAX);
    let shared = Arc::new(Shared {
        name: setup.name.clone(),
        brick_id: setup.brick_id,
        listen: setup.listen,
        resp: setup.resp,
        board: Arc::clone(&setup.board),
        cores,
        routes: Mutex::default(),
        node: OnceLock::new(),
        finder: OnceLock::new(),
        statuses,
    });
    tokio::spawn(status::serve(Arc::clone(&shared), asked));
    if let Some(listener) = listener {
        tokio::spawn(http::serve(listener, setup.http_connections_max, Arc::clone(&shared)));
    }
    if setup.signals {
        tokio::spawn(signals::watch(Arc::clone(&shared)));
    }
    let news = Arc::new(News::default());
    // An error of `ended` means that the handle is gone, and with it whoever could ask for the end.
    let begun = tokio::select! {
        begun = begin(setup, &shared, &news) => begun,
        _ = ended.wait_for(|ended| *ended) => return Ok(()),
    };
    let (begun, beats, office) = match begun {
        Ok((begun, beats, office, first)) => {
            let _ = started.send(Ok(first));
            (begun, beats, office)
        }
        Err(error) => {
            let _ = started.send(Err(error));
            let _ = ended.wait_for(|ended| *ended).await;
            return Ok(());
        }
    };
    let mut tasks = JoinSet::new();
    let changes = Arc::clone(&office.changes);
    tasks.spawn(office.serve(requests));
    let (say_removed, removed) = watch::channel(false);
    tasks.spawn(beat(beats, Arc::clone(&shared), changes, say_removed));
    let _ = ended.wait_for(|ended| *ended).await;
    tasks.shutdown().await;
    begun.serving.abort();
    begun.node.stop(begun.running).await?;
    if *removed.borrow() { Err(keeper::removed()) } else { Ok(()) }
}

/// Beats until this process is not its brick's any more, and stops the brick then.
async fn beat(
    beats: Beats,
    shared: Arc<Shared>,
    changes: Arc<Semaphore>,
    say_removed: watch::Sender<bool>,
) {
    match beats.run().await {
        keeper::Ended::Superseded => shared.board.fail(keeper::superseded().to_string()),
        keeper::Ended::Removed => {
            let all = changes.acquire_many(requests::CHANGES_MAX as u32);
            let _ = tokio::time::timeout(LAST_ANSWERS, all).await;
            let _ = say_removed.send(true);
        }
    }
    shared.begin_stop();
}

/// What is there once the keepers know this brick.
type Beginning = (Begun, Beats, requests::Office, Started);

async fn begin(
    setup: Setup,
    shared: &Arc<Shared>,
    news: &Arc<News>,
) -> Result<Beginning, BrickError> {
    let begun = keeper::begin(setup.keeper).await?;
    let _ = shared.node.set(Arc::clone(&begun.node));
    let _ = shared.finder.set(begun.finder.clone());
    let options = |durability| TableOptions { durability, partitions: 0, replicas: setup.replicas };
    let mut beats = Beats::new(BeatSetup {
        node: Arc::clone(&begun.node),
        finder: begun.finder.clone(),
        founder: begun.founder,
        cores: Arc::clone(shared) as Arc<dyn Cores>,
        board: Arc::clone(&shared.board),
        news: Arc::clone(news),
        memory_bytes: setup.memory_bytes,
        default_table: (
            options(setup.durability),
            partitions_per_core(setup.partitions_per_core, setup.durability),
        ),
    });
    let routes = beats.first().await?;
    shared.keep_routes(&routes);
    let office = requests::Office {
        shared: Arc::clone(shared),
        partitions_per_core: setup.partitions_per_core,
        durability: setup.durability,
        replicas: setup.replicas,
        news: Arc::clone(news),
        finder: begun.finder.clone(),
        shown: beats.shown(),
        changes: Arc::new(Semaphore::new(requests::CHANGES_MAX)),
        brick: begun.node.brick(),
    };
    let first = Started {
        cluster: begun.node.cluster,
        brick: begun.node.brick(),
        routes,
        dropped: begun.dropped.clone(),
    };
    Ok((begun, beats, office, first))
}
