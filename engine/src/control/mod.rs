//! The control thread: one ordinary thread with a tokio runtime of its own, for everything rare.
//!
//! HTTP, signals, tables. A fault or a flood here never touches a data core: nothing a data core does
//! waits for this thread, and all that it is asked goes through a bounded queue. File calls are made on
//! a blocking thread of the runtime, so that a slow disk does not stop the metrics.

mod http;
mod metrics;
mod requests;
mod signals;
mod status;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use firebrick_partition::maps::Routes;
use tokio::sync::{mpsc, watch};

use crate::catalog::Catalog;
use crate::counters::Board;
use crate::error::BrickError;
pub use requests::{Busy, ControlAnswer, ControlPort};

/// Requests to the control thread that may wait.
const REQUESTS_MAX: usize = 256;

/// The data cores as the control thread sees them. Called on the control thread alone; may not block
/// for longer than it takes a core to drain its ring.
pub trait Cores: Send + Sync + 'static {
    /// Gives every core these routes. What is pushed first arrives first, and before any answer that is
    /// given later. The control thread keeps an `Arc` until no core has one, so that none is freed on
    /// a core.
    fn push_routes(&self, routes: Arc<Routes>);

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
    /// Partitions of a new table on each core.
    pub partitions_per_core: u32,
    /// Durability of a new table.
    pub durability: crate::config::Durability,
    /// Catch SIGTERM and SIGINT.
    pub signals: bool,
    /// The figures.
    pub board: Arc<Board>,
    /// The tables; their routes have been given to the cores by whoever made them.
    pub catalog: Catalog,
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
}

impl Shared {
    fn newest_routes(&self) -> Arc<Routes> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.last().map(Arc::clone).unwrap_or_default()
    }

    /// Gives the cores new routes and frees those that none of them has any more.
    fn push_routes(&self, newest: Arc<Routes>) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|old| Arc::strong_count(old) > 1);
        routes.push(Arc::clone(&newest));
        drop(routes);
        self.cores.push_routes(newest);
    }

    fn begin_stop(&self) {
        self.board.begin_stop();
        self.cores.stop();
    }
}

/// The running thread.
pub struct ControlThread {
    handle: JoinHandle<()>,
    end: watch::Sender<bool>,
    http: Option<SocketAddr>,
    port: ControlPort,
}

/// The ends of the queue to a control thread that is started later: data cores are made before it.
pub struct Queue {
    port: ControlPort,
    requests: mpsc::Receiver<requests::ControlRequest>,
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

    /// The next request of a client, for a test that answers in the control thread's place: the core,
    /// its word, and the JSON.
    #[cfg(test)]
    pub fn take(&mut self) -> Option<(u16, u64, String)> {
        loop {
            match self.requests.try_recv().ok()? {
                requests::ControlRequest::Json { core, token, body } => {
                    return Some((core, token, String::from_utf8_lossy(&body).into_owned()));
                }
                requests::ControlRequest::Removed(_) | requests::ControlRequest::Report(_) => {}
            }
        }
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
            .max_blocking_threads(2)
            .thread_name("control-files")
            .build()
            .map_err(thread_error)?;
        let (end, ended) = watch::channel(false);
        let port = queue.port();
        let handle = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || runtime.block_on(run(setup, queue.requests, cores, listener, ended)))
            .map_err(thread_error)?;
        Ok(Self { handle, end, http, port })
    }

    /// Where HTTP listens (the port that was found, when 0 was asked for).
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// For data cores to ask through.
    pub fn port(&self) -> ControlPort {
        self.port.clone()
    }

    /// Ends the thread, once the cores have stopped.
    pub fn finish(self) -> Result<(), BrickError> {
        let _ = self.end.send(true);
        self.handle.join().map_err(|_| BrickError::Thread {
            name: "control".into(),
            what: "it panicked; its message is above".into(),
        })
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

async fn run(
    setup: Setup,
    requests: mpsc::Receiver<requests::ControlRequest>,
    cores: Arc<dyn Cores>,
    listener: Option<TcpListener>,
    mut ended: watch::Receiver<bool>,
) {
    let shared = Arc::new(Shared {
        name: setup.name,
        brick_id: setup.brick_id,
        listen: setup.listen,
        resp: setup.resp,
        board: setup.board,
        cores,
        routes: Mutex::new(vec![setup.catalog.routes()]),
    });
    if let Some(listener) = listener {
        tokio::spawn(http::serve(listener, setup.http_connections_max, Arc::clone(&shared)));
    }
    if setup.signals {
        tokio::spawn(signals::watch(Arc::clone(&shared)));
    }
    let office = requests::Office {
        shared: Arc::clone(&shared),
        partitions_per_core: setup.partitions_per_core,
        durability: setup.durability,
    };
    let requests = tokio::spawn(office.serve(setup.catalog, requests));
    // An error means that the handle is gone, and with it whoever could ask for the end.
    let _ = ended.wait_for(|ended| *ended).await;
    requests.abort();
}
