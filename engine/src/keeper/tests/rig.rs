//! Bricks without data cores, each a control thread with real sockets and a folder of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use firebrick_partition::keeper::{LockFile, Registration, Report};
use firebrick_partition::maps::{Durability, Intent, Routes};
use serde_json::Value;
use tempfile::TempDir;

use crate::clock::boot_ns;
use crate::control::{ControlAnswer, ControlPort, ControlThread, Cores, Queue, Setup, Started};
use crate::counters::{Board, Taken};
use crate::keeper::{KeeperSetup, listen};
use crate::lock::random;
use crate::notices::Notices;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Data cores that take what they are given at once, unless they are stuck.
pub(crate) struct FakeCores {
    board: Arc<Board>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Core, version of new routes, end of the lease.
    given: Vec<(u16, Option<u64>, u64)>,
    routes: Option<Arc<Routes>>,
    answers: HashMap<u64, String>,
    stopped: bool,
    /// The control thread stands still in its next call.
    frozen: bool,
    /// This core takes nothing.
    stuck: Option<u16>,
}

impl FakeCores {
    pub(crate) fn new(board: &Arc<Board>) -> Arc<Self> {
        let (inner, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { board: Arc::clone(board), inner, changed })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let done = act(&mut self.inner.lock().unwrap());
        self.changed.notify_all();
        done
    }

    /// Waits until `found` finds something.
    fn until<T>(&self, mut found: impl FnMut(&mut Inner) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        let mut inner = self.inner.lock().unwrap();
        loop {
            if let Some(found) = found(&mut inner) {
                return found;
            }
            assert!(Instant::now() < end, "it did not happen within {LONG:?}");
            inner = self.changed.wait_timeout(inner, Duration::from_millis(50)).unwrap().0;
        }
    }

    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.with(|inner| inner.frozen = frozen);
    }

    pub(crate) fn set_stuck(&self, core: Option<u16>) {
        self.with(|inner| inner.stuck = core);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.with(|inner| inner.stopped)
    }

    /// Ends of the leases that a core was given.
    pub(crate) fn leases(&self, core: u16) -> Vec<u64> {
        let of = |(of, _, end): &(u16, Option<u64>, u64)| (*of == core).then_some(*end);
        self.with(|inner| inner.given.iter().filter_map(of).collect())
    }

    pub(crate) fn last_lease(&self, core: u16) -> u64 {
        self.leases(core).last().copied().unwrap_or(0)
    }

    pub(crate) fn routes(&self) -> Option<Arc<Routes>> {
        self.with(|inner| inner.routes.clone())
    }

    pub(crate) fn answer_to(&self, token: u64) -> Value {
        let text = self.until(|inner| inner.answers.remove(&token));
        serde_json::from_str(&text).unwrap()
    }
}

impl FakeCores {
    /// A core takes what it is given.
    pub(crate) fn take(&self, core: u16, version: Option<u64>, lease_end_ns: u64) {
        self.with(|inner| {
            inner.given.push((core, version, lease_end_ns));
            if inner.stuck != Some(core) {
                let before = self.board.core(usize::from(core)).taken();
                let version = version.unwrap_or(before.version);
                let taken = Taken { version, end_ns: lease_end_ns };
                self.board.core(usize::from(core)).took(taken);
            }
        });
    }
}

impl Cores for FakeCores {
    fn give(&self, core: u16, routes: Option<Arc<Routes>>, lease_end_ns: u64) {
        self.until(|inner| (!inner.frozen).then_some(()));
        let version = routes.as_ref().map(|routes| routes.version());
        self.with(|inner| inner.routes = routes.or(inner.routes.take()));
        self.take(core, version, lease_end_ns);
    }

    fn answer(&self, _: u16, answer: ControlAnswer) {
        self.with(|inner| inner.answers.insert(answer.token, answer.json));
    }

    fn stop(&self) {
        self.with(|inner| inner.stopped = true);
    }
}

/// A brick; its folder outlives it.
pub(crate) struct TestBrick {
    pub(crate) control: ControlThread,
    pub(crate) port: ControlPort,
    pub(crate) cores: Arc<FakeCores>,
    pub(crate) board: Arc<Board>,
    pub(crate) started: Started,
    pub(crate) at: SocketAddr,
    pub(crate) registration: Registration,
}

/// Who a brick is, over its restarts.
pub(crate) struct Host {
    pub(crate) folder: TempDir,
    pub(crate) name: String,
    identity: u64,
    at: Option<SocketAddr>,
    /// It tells an address at which nobody is.
    pub(crate) unreachable: bool,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            name: name.into(),
            identity: random().unwrap(),
            at: None,
            unreachable: false,
        }
    }

    /// A host with this folder.
    pub(crate) fn of(folder: TempDir, name: &str, identity: u64) -> Self {
        Self { folder, name: name.into(), identity, at: None, unreachable: false }
    }

    /// A host with a copy of the folder, and an address of its own.
    pub(crate) fn copy_of(other: &Self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("keeper")).unwrap();
        for name in ["member", "log"] {
            let from = other.folder.path().join("keeper").join(name);
            std::fs::copy(from, folder.path().join("keeper").join(name)).unwrap();
        }
        Self {
            folder,
            name: other.name.clone(),
            identity: other.identity,
            at: None,
            unreachable: false,
        }
    }

    /// Starts the brick and waits until its keepers know it.
    pub(crate) fn start(&mut self, join: &[SocketAddr]) -> TestBrick {
        let starting = self.begin(join, 1);
        let brick = starting.wait();
        self.at = Some(brick.at);
        brick
    }

    /// Starts the brick; `inode` names its lock file.
    pub(crate) fn begin(&self, join: &[SocketAddr], inode: u64) -> Starting {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let end = Instant::now() + LONG;
        let listener = loop {
            match listen(self.at.unwrap_or(any)) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let at = listener.local_addr().unwrap();
        let mut registration = registration(&self.name, self.identity, inode, at);
        if self.unreachable {
            registration.control = "127.0.0.1:1".into();
        }
        let keeper = keeper_setup(self.folder.path(), listener, join, registration.clone());
        let board = Arc::new(Board::new(2));
        let cores = FakeCores::new(&board);
        let setup = setup(&board, keeper);
        let queue = Queue::default();
        let port = queue.port();
        let control = ControlThread::spawn(setup, queue, Arc::clone(&cores) as Arc<dyn Cores>);
        Starting { control: control.unwrap(), port, cores, board, at, registration }
    }
}

pub(crate) struct Starting {
    pub(crate) control: ControlThread,
    pub(crate) port: ControlPort,
    pub(crate) cores: Arc<FakeCores>,
    pub(crate) board: Arc<Board>,
    at: SocketAddr,
    registration: Registration,
}

impl Starting {
    pub(crate) fn wait(self) -> TestBrick {
        let started = self.control.started(LONG).expect("the keepers answer").unwrap();
        let Self { control, port, cores, board, at, registration } = self;
        TestBrick { control, port, cores, board, started, at, registration }
    }
}

pub(crate) fn registration(name: &str, identity: u64, inode: u64, at: SocketAddr) -> Registration {
    Registration {
        identity,
        name: name.into(),
        incarnation: random().unwrap(),
        boot: "a boot".into(),
        lock: LockFile { device: identity, inode },
        cores: 2,
        memory_bytes: 1 << 30,
        listen: "127.0.0.1:1".into(),
        control: at.to_string(),
        ..Registration::default()
    }
}

pub(crate) fn keeper_setup(
    data_dir: &Path,
    listener: std::net::TcpListener,
    join: &[SocketAddr],
    registration: Registration,
) -> KeeperSetup {
    KeeperSetup {
        data_dir: data_dir.into(),
        control: listener.local_addr().unwrap(),
        listener,
        join: join.iter().map(ToString::to_string).collect(),
        registration,
        snapshot_entries: 40,
        notices: Notices::heard().0,
    }
}

pub(crate) fn setup(board: &Arc<Board>, keeper: KeeperSetup) -> Setup {
    Setup {
        name: "kiln".into(),
        brick_id: 0xabc,
        listen: ([127, 0, 0, 1], 7400).into(),
        resp: None,
        http: None,
        http_connections_max: 8,
        partitions_per_core: Some(4),
        durability: Durability::Sync,
        replicas: 2,
        memory_bytes: 1 << 30,
        signals: false,
        board: Arc::clone(board),
        keeper,
    }
}

impl TestBrick {
    /// A client's rare request.
    pub(crate) fn ask(&self, request: &str) -> Value {
        let token = random().unwrap();
        self.port.ask(0, token, request.as_bytes()).unwrap();
        self.cores.answer_to(token)
    }

    pub(crate) fn status(&self) -> Value {
        self.ask("{\"do\":\"status\"}")["status"].clone()
    }

    /// The id of the brick whose keeper leads, as this one sees it.
    pub(crate) fn leader(&self) -> Option<u64> {
        let status = self.status();
        let leads = |brick: &&Value| brick["leads"] == true;
        status["bricks"].as_array()?.iter().find(leads)?["id"].as_u64()
    }

    /// Reports what replicas would that copy in no time and stop at once.
    pub(crate) fn play(&self) {
        let routes = self.cores.routes().unwrap_or_else(|| Arc::clone(&self.started.routes));
        let (me, incarnation) = (self.started.brick, self.registration.incarnation);
        for entry in routes.here() {
            let (partition, group) = (entry.route.partition, &entry.replicas);
            let epoch = group.epoch;
            let leads = group.primary().is_some_and(|m| m.is(me, incarnation));
            let report = match (group.intent, group.learners.first()) {
                (Intent::Leave { brick } | Intent::StepDown { brick }, _) if brick == me => {
                    Report::Stopped { partition, epoch }
                }
                _ if leads && !group.is_active() => Report::Active { partition, epoch },
                (_, Some(learner)) if leads => {
                    Report::Copied { partition, epoch, learner: learner.brick }
                }
                _ => continue,
            };
            let _ = self.port.report(report);
        }
    }

    /// It holds a lease now.
    pub(crate) fn is_leased(&self) -> bool {
        self.cores.last_lease(0) > boot_ns()
    }

    /// Ends it as a process ends.
    pub(crate) fn end(self) {
        self.control.finish().unwrap();
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
