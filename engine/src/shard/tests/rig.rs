//! Shards on the fake fabric, with real files: time, disks and the storage thread's work are the test's.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use firebrick_net::fake::{Disk, Fake, Peer, Settings, World};
use firebrick_net::ring::Bell;
use firebrick_net::{DiskWrite, Ep, Fabric, Port, Token};
use firebrick_partition::Now;
use firebrick_partition::log::manifest::Incarnation;
use firebrick_partition::log::storage::{Done, Job, Storage, StorageError};
use rtrb::Producer;
use tempfile::TempDir;

use super::Random;
use super::catalog::Catalog;
use crate::brick::Info;
use crate::control::{ControlRequest, Queue};
use crate::counters::{Board, CoreState};
use crate::mesh::Mesh;
use crate::notices::Notices;
use crate::shard::{Files, FilesSetup, FromControl, Parts, Shard, Turn, control_rings};
use crate::storage::Window;
use firebrick_partition::maps::Durability;

/// Requests in flight on one native connection.
pub const IN_FLIGHT_MAX: u32 = 64;

/// How long things take, in virtual nanoseconds, at most.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_field_names, reason = "units come last in names")]
pub struct Pace {
    pub turn_ns: u64,
    pub job_ns: u64,
    pub disk_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { turn_ns: 20_000, job_ns: 100_000, disk_ns: 300_000 }
    }
}

/// What a rig is made of.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub seed: u64,
    pub cores: u16,
    pub durability: Durability,
    pub bytes_max: u64,
}

impl Build {
    pub fn new(seed: u64, cores: u16, durability: Durability) -> Self {
        Self { seed, cores, durability, bytes_max: 64 << 20 }
    }
}

/// One data core and what surrounds it.
pub struct Core {
    pub shard: Shard<Fake>,
    pub turn: Turn,
    window: Window<Job, Done>,
    jobs: VecDeque<(u64, Job)>,
    /// When the disk writes in flight end.
    writes: BTreeMap<u64, u64>,
    control: Producer<FromControl>,
    pub stopped: bool,
    pub turns: u64,
}

/// See the module's text.
pub struct Rig {
    pub build: Build,
    pub now: u64,
    pub pace: Pace,
    pub random: Random,
    pub world: World,
    pub cores: Vec<Core>,
    pub catalog: Catalog,
    pub board: Arc<Board>,
    pub queue: Queue,
    pub heard: mpsc::Receiver<String>,
    /// Disk writes wait.
    pub disk_stalled: bool,
    /// Disk writes fail.
    pub disk_broken: bool,
    /// No spare can be made.
    pub disk_full: bool,
    /// No partition can be opened, for want of room.
    pub no_room_to_open: bool,
    storage: Storage,
    nonce: u64,
    pub dir: TempDir,
}

impl Rig {
    pub fn new(build: Build) -> Self {
        let dir = tempfile::Builder::new().prefix("shard").tempdir().unwrap();
        for side in ["memory", "data"] {
            std::fs::create_dir(dir.path().join(side)).unwrap();
        }
        Self::start(build, dir, 1, 1_000_000_000)
    }

    /// What the cores see when they look at the clock again within a turn.
    pub fn with_clock(build: Build, clock: &Arc<AtomicU64>) -> Self {
        let mut rig = Self::new(build);
        for core in &mut rig.cores {
            let clock = Arc::clone(clock);
            core.shard.clock = Box::new(move || clock.load(Ordering::Relaxed));
        }
        rig
    }

    fn start(build: Build, dir: TempDir, nonce: u64, now: u64) -> Self {
        let settings = Settings { disk: Disk::ByHand, ..Settings::default() };
        let world = World::new(build.seed ^ nonce, settings);
        let (memory, data) = (dir.path().join("memory"), dir.path().join("data"));
        let catalog = Catalog::open(&data, build.cores, 2, build.durability).unwrap();
        let storage = Storage::start(memory, data).unwrap();
        let board = Arc::new(Board::new(usize::from(build.cores)));
        let (notices, heard) = Notices::heard();
        let info = info(build, nonce, &board, &notices);
        let incarnation = Incarnation { boot_id: [7; 16], nonce, nonce_before: 0, brick: 5 };
        let setup = FilesSetup {
            incarnation,
            bytes_max: build.bytes_max,
            cores: build.cores,
            copy_wait_ns: 1_000_000,
            notices,
        };
        let queue = Queue::default();
        // Nobody sleeps here.
        let waker = Bell::new().unwrap().waker();
        let meshes = Mesh::connect(usize::from(build.cores));
        let cores = meshes.into_iter().map(|mesh| {
            let (desk, window) = Window::by_hand();
            let (mut control, end) = control_rings(queue.port());
            control.push(FromControl::Lease { end_ns: u64::MAX }).unwrap();
            let shard = Shard::new(Parts {
                fabric: world.fake(),
                files: Files::new(mesh.core(), setup.clone(), desk),
                mesh,
                routes: catalog.routes(),
                control: end,
                info: Arc::clone(&info),
                wakers: vec![waker.clone(); usize::from(build.cores)],
                eager: false,
                clock: Box::new(|| 0),
            });
            let (jobs, writes, turn) = (VecDeque::new(), BTreeMap::new(), Turn::default());
            Core { shard, turn, window, jobs, writes, control, stopped: false, turns: 0 }
        });
        Self {
            build,
            now,
            pace: Pace::default(),
            random: Random(build.seed.wrapping_mul(31) ^ nonce),
            cores: cores.collect(),
            world,
            catalog,
            board,
            queue,
            heard,
            disk_stalled: false,
            disk_broken: false,
            disk_full: false,
            no_room_to_open: false,
            storage,
            nonce,
            dir,
        }
    }

    /// `kill -9` and a new start: what the disk was doing may or may not have been done.
    pub fn kill(self) -> Self {
        let Self { build, dir, nonce, now, cores, .. } = self;
        drop(cores);
        Self::start(build, dir, nonce + 1, now + 1_000_000)
    }

    /// As after a power failure: memory is gone.
    pub fn power_fails(self) -> Self {
        let Self { build, dir, nonce, now, cores, .. } = self;
        drop(cores);
        std::fs::remove_dir_all(dir.path().join("memory")).unwrap();
        std::fs::create_dir(dir.path().join("memory")).unwrap();
        Self::start(build, dir, nonce + 1, now + 1_000_000)
    }

    pub fn time(&self) -> Now {
        Now { boot_ns: self.now, unix_ms: 1_700_000_000_000 + self.now / 1_000_000 }
    }

    /// A turn of every core, after some time.
    pub fn step(&mut self) {
        self.now += 1 + self.random.below(self.pace.turn_ns);
        for core in 0..self.cores.len() {
            self.turn(core);
        }
    }

    pub fn turn(&mut self, at: usize) {
        if self.cores[at].stopped {
            return;
        }
        self.do_jobs(at);
        self.do_writes(at);
        let now = self.time();
        let core = &mut self.cores[at];
        core.turn = core.shard.turn(now);
        core.turns += 1;
        core.shard.fabric().flush().unwrap();
        if core.turn.stopped {
            core.shard.ended();
            core.stopped = true;
        } else if core.turn.background {
            core.shard.background(now);
        }
    }

    fn do_jobs(&mut self, at: usize) {
        let (now, random, pace) = (self.now, &mut self.random, self.pace);
        let core = &mut self.cores[at];
        while let Some(job) = core.window.take() {
            core.jobs.push_back((now + random.below(pace.job_ns + 1), job));
        }
        while core.jobs.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, job)) = core.jobs.pop_front() else { break };
            let done = match job {
                Job::CreateSpare { id, bytes, .. } if self.disk_full => {
                    let (path, bytes) = ("spare".into(), bytes as u64);
                    let error = StorageError::NoSpace { side: "data_dir", path, bytes };
                    Done::Spare { id, result: Err(error) }
                }
                Job::Open { partition, .. } if self.no_room_to_open => {
                    let path = format!("p{partition}").into();
                    let error = StorageError::NoSpace { side: "data_dir", path, bytes: 4096 };
                    Done::Opened { partition, result: Err(error) }
                }
                job => self.storage.perform(job),
            };
            core.window.answer(done);
        }
    }

    fn do_writes(&mut self, at: usize) {
        let (now, random, pace) = (self.now, &mut self.random, self.pace);
        let core = &mut self.cores[at];
        let flying: Vec<(Token, DiskWrite)> =
            core.shard.fabric().writes().map(|(token, write)| (token, *write)).collect();
        for (token, write) in flying {
            let due = now + random.below(pace.disk_ns + 1);
            let due = *core.writes.entry(token.0).or_insert(due);
            if due > now || self.disk_stalled {
                continue;
            }
            core.writes.remove(&token.0);
            let result = if self.disk_broken { -libc::EIO } else { write_out(&write) };
            core.shard.fabric().complete(token, result);
        }
    }

    /// Steps until `done`, for at most that much virtual time.
    pub fn run_until(&mut self, limit_ns: u64, mut done: impl FnMut(&mut Self) -> bool) {
        let until = self.now + limit_ns;
        while !done(self) {
            assert!(self.now < until, "seed {}: not after {limit_ns} ns", self.build.seed);
            self.step();
        }
    }

    pub fn run_for(&mut self, ns: u64) {
        let until = self.now + ns;
        while self.now < until {
            self.step();
        }
    }

    pub fn state(&self, core: usize) -> CoreState {
        self.board.core(core).state()
    }

    pub fn serve(mut self) -> Self {
        let cores = self.cores.len();
        self.run_until(10_000_000_000, |rig| {
            (0..cores).all(|core| rig.state(core) == CoreState::Serving)
        });
        self
    }

    /// As the poller would let the core: the next turn is when something arrives or a timer is due.
    pub fn idle_for(&mut self, ns: u64) {
        let until = self.now + ns;
        while self.now < until {
            let timers = self.cores.iter().map(|c| c.turn.next_ns);
            let jobs = self.cores.iter().filter_map(|c| c.jobs.front().map(|(due, _)| *due));
            let writes = self.cores.iter().flat_map(|c| c.writes.values().copied());
            let next = timers.chain(jobs).chain(writes).chain(self.world.next_ns()).min();
            self.now = next.unwrap_or(until).clamp(self.now + 1_000, until.max(self.now + 1_000));
            for core in 0..self.cores.len() {
                self.turn(core);
            }
        }
    }

    pub fn tell(&mut self, core: usize, message: FromControl) {
        self.cores[core].control.push(message).unwrap();
    }

    /// The next request of a client to the control thread: the core, its word, and the JSON.
    pub fn asked(&mut self) -> Option<(u16, u64, String)> {
        loop {
            if let ControlRequest::Json { core, token, body } = self.queue.take()? {
                return Some((core, token, String::from_utf8_lossy(&body).into_owned()));
            }
        }
    }

    pub fn push_routes(&mut self) {
        for core in 0..self.cores.len() {
            self.tell(core, FromControl::Routes(self.catalog.routes()));
        }
    }

    pub fn stop(&mut self) {
        self.board.begin_stop();
        for core in 0..self.cores.len() {
            self.tell(core, FromControl::Stop);
        }
    }

    pub fn stream(&mut self, core: usize) -> (Ep, Peer) {
        self.world.stream(self.cores[core].shard.fabric())
    }

    /// A native client's end.
    pub fn frames(&mut self, core: usize) -> (Fake, Ep) {
        let mut client = self.world.fake();
        let (_, ep) =
            self.world.connect(self.cores[core].shard.fabric(), &mut client, Port::Frames);
        (client, ep)
    }

    /// Nothing is in flight in any core.
    pub fn is_quiet(&mut self) -> bool {
        self.cores.iter_mut().all(|core| {
            let store = &mut core.shard.store;
            let idle = store.hops.len() == 0 && store.mesh().is_idle();
            idle && store.replicas().iter().all(|r| {
                let stats = r.stats();
                stats.in_flight == 0 && stats.held == 0
            })
        })
    }
}

fn info(build: Build, nonce: u64, board: &Arc<Board>, notices: &Notices) -> Arc<Info> {
    Arc::new(Info {
        name: "test".into(),
        cluster: 1,
        brick: 1,
        incarnation: nonce,
        cores: build.cores,
        resp_port: 0,
        in_flight_max: IN_FLIGHT_MAX,
        settings: Vec::new(),
        board: Arc::clone(board),
        notices: notices.clone(),
    })
}

/// Does a disk write.
fn write_out(write: &DiskWrite) -> i32 {
    let fd: RawFd = write.fd;
    // SAFETY: the log keeps the bytes mapped until the write is answered, which is after this call.
    // SAFETY: its segment keeps the file open for as long.
    let n = unsafe {
        libc::pwrite(fd, write.ptr.cast(), write.len as usize, write.offset as libc::off_t)
    };
    if n < 0 {
        -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
    } else {
        n as i32
    }
}
