//! A brick as a whole: what is started in which order, and how it ends.
//!
//! Order of a start: configuration, host checks, folder lock, identity; then the data cores'
//! threads, which make their rings and listen (only the owning thread may make a ring); then the control
//! thread, which registers the brick with its keepers (a lone brick is its own) and gets the maps; then the
//! storage thread; then the cores get their ends of the rings and open their partitions. When all serve, the identity is settled: from then on memory_dir
//! belongs to this incarnation.

mod cores;
mod info;
mod registration;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use firebrick_net::Waker;
use firebrick_net::poll::{Mode, Poller};
use firebrick_partition::log::manifest::Incarnation;
use firebrick_partition::log::storage::{Done, HugePages, Job, Storage};
use firebrick_partition::maps::Routes;
use rtrb::Producer;

use crate::check::{self, Host, Plan};
use crate::config::{BrickConfig, KEYS, Poll};
use crate::control::{ControlAnswer, ControlThread, Cores, Queue, Setup, Started};
use crate::counters::{Board, CoreState, Published};
use crate::error::BrickError;
use crate::keeper::KeeperSetup;
use crate::lock::{BrickLock, Identity, boot_id};
use crate::mesh::Mesh;
use crate::notices::Notices;
use crate::runtime::CoreThread;
use crate::shard::{FilesSetup, FromControl, control_rings, is_over};
use crate::storage::{Desk, StorageThread};
use cores::{Rest, Waiting, ports_are_free, start_cores};
pub use info::Info;
use registration::keeper_setup;

/// Between two looks at whether the cores have ended.
const ENDED_EVERY: Duration = Duration::from_millis(10);
/// Between two looks at whether the brick is told to stop before it has started.
const STARTED_EVERY: Duration = Duration::from_millis(50);

/// What a start found in memory_dir or data_dir.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records that passed their checks.
    pub records: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// From the first look at the folders until the slowest core served.
    pub took: Duration,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, bytes) = (self.records, crate::config::bytes_text(self.bytes));
        write!(
            f,
            "recovered {records} records ({bytes}) in {:.3} ms",
            self.took.as_secs_f64() * 1e3
        )
    }
}

/// Where a brick can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The native protocol.
    pub listen: SocketAddr,
    /// RESP.
    pub resp: Option<SocketAddr>,
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// The control port, for other bricks.
    pub control: SocketAddr,
}

/// A running brick.
pub struct Brick {
    addresses: Addresses,
    board: Arc<Board>,
    links: Arc<Links>,
    cores: Vec<CoreThread>,
    storage: StorageThread,
    control: ControlThread,
    identity: Identity,
    notices: Notices,
    /// Held until everything has ended.
    _lock: BrickLock,
    warnings: Vec<String>,
}

/// The control thread's ends of the rings to the data cores.
struct Links {
    ends: Vec<Mutex<Producer<FromControl>>>,
    wakers: Vec<Waker>,
}

impl Links {
    fn new(ends: Vec<Producer<FromControl>>, wakers: Vec<Waker>) -> Self {
        Self { ends: ends.into_iter().map(Mutex::new).collect(), wakers }
    }

    fn send(&self, core: usize, mut message: FromControl) {
        let mut ring = self.ends[core].lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match ring.push(message) {
                Ok(()) => break,
                // The core is alive as long as its end is: it drains the ring each turn.
                Err(rtrb::PushError::Full(back)) if !ring.is_abandoned() => {
                    message = back;
                    self.wakers[core].wake();
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return,
            }
        }
        self.wakers[core].wake();
    }
}

impl Cores for Links {
    fn give(&self, core: u16, routes: Option<Arc<Routes>>, lease_end_ns: u64) {
        let core = usize::from(core);
        if let Some(routes) = routes {
            self.send(core, FromControl::Routes(routes));
        }
        self.send(core, FromControl::Lease { end_ns: lease_end_ns });
    }

    fn answer(&self, core: u16, answer: ControlAnswer) {
        self.send(usize::from(core), FromControl::Answer(answer));
    }

    fn stop(&self) {
        for core in 0..self.ends.len() {
            self.send(core, FromControl::Stop);
        }
    }
}

fn files_setup(plan: &Plan, incarnation: Incarnation, info: &Info) -> FilesSetup {
    let bytes_max = plan.memory_bytes / u64::from(info.cores);
    FilesSetup {
        incarnation,
        bytes_max,
        cores: info.cores,
        copy_wait_ns: u64::from(plan.config.limits.copy_wait_us) * 1000,
        notices: info.notices.clone(),
    }
}

fn start_storage(
    plan: &Plan,
    started: &Started,
    wakers: &[Waker],
    huge_pages: Option<HugePages>,
) -> Result<(StorageThread, Vec<Desk<Job, Done>>), BrickError> {
    let mut storage = Storage::start(plan.memory_dir.clone(), plan.data_dir.clone())
        .map_err(BrickError::Storage)?;
    if let Some(huge_pages) = huge_pages {
        storage = storage.with_huge_pages(huge_pages);
    }
    remove_left(&mut storage, &started.dropped, &started.routes)?;
    let wake = |waker: &Waker| {
        let waker = waker.clone();
        Box::new(move || waker.wake()) as crate::storage::Waker
    };
    StorageThread::spawn(wakers.iter().map(wake).collect(), move |_, job| storage.perform(job))
}

/// Files that are of no use here any more: of tables that were dropped just before the brick died, and of partitions that
/// have all their replicas elsewhere since.
fn remove_left(storage: &mut Storage, dropped: &[u32], routes: &Routes) -> Result<(), BrickError> {
    let over = |id: &u32| routes.partition(*id).is_some_and(|entry| is_over(routes, entry));
    let there = storage.partitions().map_err(BrickError::Storage)?;
    for partition in there.into_iter().filter(over).chain(dropped.iter().copied()) {
        if let Done::Removed { result: Err(error), .. } = storage.perform(Job::Remove { partition })
        {
            return Err(BrickError::Storage(error));
        }
    }
    Ok(())
}

/// Makes and locks the folders of a brick whose ports are free.
fn take_folders(plan: &Plan) -> Result<BrickLock, BrickError> {
    if !(plan.data_dir.exists() && plan.memory_dir.exists()) {
        // Before they are made: nothing is left of a start that is refused.
        ports_are_free(&plan.config)?;
    }
    let lock = BrickLock::take(&plan.config.name, &plan.data_dir, &plan.memory_dir)?;
    // Now that whoever was killed here is gone.
    ports_are_free(&plan.config)?;
    Ok(lock)
}

/// Waits for the keepers, who may take their time, until the brick is told to stop.
fn await_keepers(
    control: ControlThread,
    board: &Board,
) -> Result<(ControlThread, Started), BrickError> {
    loop {
        let error = match control.started(STARTED_EVERY) {
            Some(Ok(started)) => return Ok((control, started)),
            Some(Err(error)) => error,
            None if !board.is_stopping() => continue,
            None => BrickError::Stopped,
        };
        // What it was told first says more than how it ended.
        let _ = control.finish();
        return Err(error);
    }
}

impl Brick {
    /// Starts a brick and returns when it listens; [`Brick::wait_ready`] says when it serves.
    /// `signals`: stop on SIGTERM and SIGINT.
    pub fn start(config: &BrickConfig, signals: bool) -> Result<Self, BrickError> {
        let plan = check::settle(config, &Host::read())?;
        let mut lock = take_folders(&plan)?;
        let boot = boot_id()?;
        let identity = Identity::begin(&lock, &plan.config.name, &boot)?;
        let board = Arc::new(Board::new(plan.cores.len()));
        let huge_pages = HugePages::start();
        let notices = Notices::start();

        let waiting = start_cores(&plan)?;
        let wakers: Vec<Waker> = waiting.iter().map(|w| w.ready.waker.clone()).collect();
        let (listen, resp) = (waiting[0].ready.listen, waiting[0].ready.resp);
        let queue = Queue::default();
        let port = queue.port();
        let (ends, controls): (Vec<_>, Vec<_>) =
            plan.cores.iter().map(|_| control_rings(queue.port())).unzip();
        let links = Arc::new(Links::new(ends, wakers.clone()));
        let keeper = keeper_setup(&plan, (&lock, &identity), (listen, resp), notices.clone())?;
        let control_at = keeper.control;
        let setup = control_setup(&plan, &identity, (listen, resp), signals, &board, keeper);
        let control = ControlThread::spawn(setup, queue, Arc::clone(&links) as Arc<dyn Cores>)?;
        let (control, started) = await_keepers(control, &board)?;
        let (storage, desks) = start_storage(&plan, &started, &wakers, huge_pages)?;
        if !started.dropped.is_empty() {
            // Refused: the next start removes them anew.
            let _ = port.removed(started.dropped.clone());
        }
        let who = (started.cluster, started.brick);
        let info = Arc::new(Info::new(&plan, &identity, who, resp, &board, notices.clone()));
        let files = files_setup(&plan, incarnation(&identity, &boot), &info);
        let parts =
            waiting.into_iter().zip(Mesh::connect(plan.cores.len())).zip(desks).zip(controls);
        let begin = |(((core, mesh), desk), control): (((Waiting, _), _), _)| {
            core.begin(Rest {
                mesh,
                routes: Arc::clone(&started.routes),
                files: files.clone(),
                desk,
                control,
                info: Arc::clone(&info),
                wakers: wakers.clone(),
                poller: Poller::new(poll_mode(&plan.config)),
            })
        };
        let cores = parts.map(begin).collect();
        let addresses = Addresses { listen, resp, http: control.http(), control: control_at };
        lock.keep();
        Ok(Self {
            addresses,
            board,
            links,
            cores,
            storage,
            control,
            identity,
            notices,
            _lock: lock,
            warnings: plan.warnings,
        })
    }

    /// Where it can be reached (ports asked for as 0 have become some).
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Sentences about the host that its operator may want to read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The figures of all cores.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Waits until every partition that can be served is. From then on `memory_dir` is this incarnation's. `false`: it was told to
    /// stop before.
    pub fn wait_ready(&self) -> Result<bool, BrickError> {
        while let Err(why) = self.board.serving() {
            if let Some(what) = self.board.failure() {
                return Err(BrickError::Core(what));
            }
            if self.board.is_stopping() {
                return Ok(false);
            }
            if self.board.cores().iter().any(|core| core.state() > CoreState::Serving) {
                return Err(BrickError::Core(why));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        self.settle()
    }

    /// The disk may be full now, and not a moment later; until then the next start takes the memory for what it is too.
    fn settle(&self) -> Result<bool, BrickError> {
        let mut told = false;
        while let Err(error) = self.identity.settle() {
            if !error.is_lack() {
                return Err(error);
            }
            if self.board.is_stopping() {
                return Ok(false);
            }
            if !std::mem::replace(&mut told, true) {
                self.notices.say(error.to_string());
            }
            std::thread::sleep(STARTED_EVERY);
        }
        Ok(true)
    }

    /// What was found at the start: to be asked after [`Brick::wait_ready`].
    pub fn recovered(&self) -> Recovered {
        let counts = self.board.cores().iter().map(Published::read);
        counts.fold(Recovered::default(), |sum, core| Recovered {
            records: sum.records + core.recovered_records,
            bytes: sum.bytes + core.recovered_bytes,
            took: sum.took.max(Duration::from_nanos(core.recovery_ns)),
        })
    }

    /// Tells the brick to stop; [`Brick::wait`] returns when it has.
    pub fn stop(&self) {
        self.board.begin_stop();
        self.links.stop();
    }

    /// Waits until the brick has stopped: everything answered and flushed.
    pub fn wait(self) -> Result<(), BrickError> {
        self.await_cores();
        let mut result = Ok(());
        for (number, core) in self.cores.into_iter().enumerate() {
            if let Err(what) = core.join() {
                self.board.core(number).set_state(CoreState::Failed);
                self.board.begin_stop();
                self.links.stop();
                result = Err(BrickError::Thread { name: format!("data core {number}"), what });
            }
        }
        self.control.finish()?;
        self.storage.join()?;
        if let Some(what) = self.board.failure() {
            return Err(BrickError::Core(what));
        }
        if result.is_ok() && self.board.cores().iter().all(Published::is_flushed) {
            // If it cannot be written, the next start says less of what it finds on the disk than it could.
            let _ = self.identity.say_flushed();
        }
        result
    }
}

impl Brick {
    /// Returns when every core has ended. One that failed takes the others with it: a brick that
    /// serves some of its keys only would look healthy.
    fn await_cores(&self) {
        let mut told = false;
        loop {
            let states = || self.board.cores().iter().map(Published::state);
            if states().all(|state| state > CoreState::Stopping) {
                return;
            }
            if !told && states().any(|state| state == CoreState::Failed) {
                told = true;
                self.stop();
            }
            std::thread::sleep(ENDED_EVERY);
        }
    }
}

fn poll_mode(config: &BrickConfig) -> Mode {
    match config.poll {
        Poll::Busy => Mode::Busy,
        Poll::Adaptive => Mode::Adaptive { spin_us: config.spin_us },
        Poll::Park => Mode::Park,
    }
}

fn incarnation(identity: &Identity, boot: &str) -> Incarnation {
    let hex: Vec<u8> = boot.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut boot_id = [0; 16];
    for (byte, digits) in boot_id.iter_mut().zip(hex.chunks(2)) {
        let text = std::str::from_utf8(digits).unwrap_or("0");
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
    Incarnation { boot_id, nonce: identity.nonce, nonce_before: 0, brick: identity.brick_id }
}

/// The configuration as CONFIG GET shows it: with what "auto" came to.
fn settings(plan: &Plan) -> Vec<(String, String)> {
    let config = BrickConfig {
        cores: crate::config::Cores::List(plan.cores.clone()),
        memory_dir: Some(plan.memory_dir.clone()),
        data_dir: plan.data_dir.clone(),
        memory: Some(plan.memory_bytes),
        ..plan.config.clone()
    };
    let mut settings: Vec<(String, String)> =
        KEYS.iter().map(|key| (key.name.to_owned(), key.value(&config))).collect();
    // What Redis's tools ask for.
    let redis = [
        ("save", String::new()),
        ("appendonly", "yes".into()),
        ("maxmemory", plan.memory_bytes.to_string()),
        ("maxmemory-policy", "noeviction".into()),
        ("databases", "1".into()),
    ];
    settings.extend(redis.map(|(name, value)| (name.to_owned(), value)));
    settings
}

fn control_setup(
    plan: &Plan,
    identity: &Identity,
    (listen, resp): (SocketAddr, Option<SocketAddr>),
    signals: bool,
    board: &Arc<Board>,
    keeper: KeeperSetup,
) -> Setup {
    Setup {
        name: plan.config.name.clone(),
        brick_id: identity.brick_id,
        listen,
        resp,
        http: plan.config.http,
        http_connections_max: plan.config.limits.http_connections_max as usize,
        partitions_per_core: plan.config.partitions,
        durability: plan.config.durability,
        replicas: plan.config.replicas,
        memory_bytes: plan.memory_bytes,
        signals,
        board: Arc::clone(board),
        keeper,
    }
}
