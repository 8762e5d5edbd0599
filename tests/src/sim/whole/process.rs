//! A brick's process: its data cores, and what its control thread and its storage thread know.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use firebrick_engine::parts::{
    Board, ControlRequest, CoreState, Desk, Files, FilesSetup, FromControl, Grants, Heard, Info,
    Mesh, Notices, Parts, Published, Queue, Sender, Shard, Turn, Window, control_rings,
};
use firebrick_log::manifest::Incarnation;
use firebrick_log::storage::{Done, Job, Storage};
use firebrick_net::fake::Fake;
use firebrick_net::ring::Bell;
use firebrick_net::{DiskWrite, Token};
use firebrick_partition::keeper::{Heartbeat, Registration};
use firebrick_partition::op::Now;
use firebrick_partition::replica::Replica;
use rtrb::Producer;

use super::disk::Disk;
use crate::random::Random;
use crate::sim::clock::Ns;

const LEASE_LOST: &str = "a lease runs out between a read and its answer";
/// Memory of one data core that has enough.
pub const CORE_BYTES: u64 = 64 << 20;
/// Requests in flight on one native connection.
const IN_FLIGHT_MAX: u32 = 64;

/// How long the storage thread and the disk take at most.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub job_ns: Ns,
    pub disk_ns: Ns,
}

/// One data core and what surrounds it.
pub struct Core {
    pub shard: Shard<Fake>,
    pub turn: Turn,
    /// It is busy with its last turn until then.
    pub free: Ns,
    /// When its next turn must be, by its own timers.
    pub timer: Ns,
    /// It stands still alone until then.
    pub stuck_until: Ns,
    /// The clock as its turn saw it, when that was stopped there.
    pub began: Option<Now>,
    /// Its last turn ended and nothing has left yet.
    pub unflushed: bool,
    /// The control thread or another core has something for it.
    pub rung: bool,
    bell: Bell,
    window: Window<Job, Done>,
    jobs: VecDeque<(Ns, Job)>,
    /// When the disk writes in flight end.
    writes: BTreeMap<u64, Ns>,
    control: Producer<FromControl>,
}

impl Core {
    /// When it turns next.
    pub fn due(&mut self) -> Ns {
        if self.unflushed {
            return Ns::MAX;
        }
        let arrival = self.shard.fabric().next_ns().unwrap_or(Ns::MAX);
        let job = self.jobs.front().map_or(Ns::MAX, |(due, _)| *due);
        let write = self.writes.values().min().copied().unwrap_or(Ns::MAX);
        let rung = if self.rung { 0 } else { Ns::MAX };
        let wanted = self.timer.min(arrival).min(job).min(write).min(rung);
        wanted.max(self.free).max(self.stuck_until)
    }
}

/// A heartbeat without an answer yet.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub number: u64,
    /// By the brick's clock.
    pub since_ns: u64,
}

/// See the module's text.
pub struct Process {
    pub incarnation: u64,
    pub registration: Registration,
    /// Its brick's id, once the keepers said so.
    pub brick: Option<u32>,
    pub board: Arc<Board>,
    pub cores: Vec<Core>,
    pub grants: Grants,
    pub heard: Heard,
    queue: Queue,
    said: mpsc::Receiver<String>,
    notices: Notices,
    folder: String,
    /// Memory of each core.
    core_bytes: u64,
    /// Of the cores, until they are made.
    fabrics: Vec<Fake>,
    pub storage: Storage,
    identity: Incarnation,
    clock: Rc<Cell<u64>>,
    pub asked: Option<Asked>,
    /// Numbers heartbeats.
    pub asks: u64,
    /// When the last heartbeat left.
    pub beat_at: Ns,
    /// Numbers the moments at which the next one is due; an older one is over.
    pub beats: u64,
    /// Something is worth a heartbeat before its time.
    pub urgent: bool,
}

impl Process {
    /// A process that listens and has opened nothing.
    pub fn new(
        dir: &Path,
        registration: Registration,
        identity: Incarnation,
        fabrics: Vec<Fake>,
        clock: Rc<Cell<u64>>,
        core_bytes: u64,
    ) -> Self {
        let storage = Storage::start(dir.join("memory"), dir.join("data"));
        let (notices, said) = Notices::heard();
        Self {
            incarnation: registration.incarnation,
            registration,
            brick: None,
            board: Arc::new(Board::new(fabrics.len())),
            cores: Vec::new(),
            grants: Grants::new(fabrics.len()),
            heard: Heard::default(),
            queue: Queue::default(),
            said,
            notices,
            folder: dir.display().to_string(),
            core_bytes,
            fabrics,
            storage: storage.expect("the folders of a simulated brick"),
            identity,
            clock,
            asked: None,
            asks: 0,
            beat_at: 0,
            beats: 0,
            urgent: false,
        }
    }

    /// The first maps are here: the data cores begin.
    pub fn open(&mut self) {
        let fabrics = std::mem::take(&mut self.fabrics);
        let bells: Vec<Bell> = fabrics.iter().map(|_| Bell::new().expect("a bell")).collect();
        let wakers: Vec<_> = bells.iter().map(Bell::waker).collect();
        let info = Arc::new(Info {
            name: self.registration.name.clone(),
            cluster: 1,
            brick: self.brick.unwrap_or_default(),
            incarnation: self.incarnation,
            cores: fabrics.len() as u16,
            resp_port: 0,
            in_flight_max: IN_FLIGHT_MAX,
            settings: Vec::new(),
            board: Arc::clone(&self.board),
            notices: self.notices.clone(),
        });
        let setup = FilesSetup {
            incarnation: self.identity,
            bytes_max: self.core_bytes,
            cores: fabrics.len() as u16,
            copy_wait_ns: 1_000_000,
            notices: self.notices.clone(),
        };
        let meshes = Mesh::connect(fabrics.len());
        for ((fabric, bell), mesh) in fabrics.into_iter().zip(bells).zip(meshes) {
            let (desk, window): (Desk<Job, Done>, _) = Window::by_hand();
            let (control, end) = control_rings(self.queue.port());
            let clock = Rc::clone(&self.clock);
            let shard = Shard::new(Parts {
                fabric,
                files: Files::new(mesh.core(), setup.clone(), desk),
                mesh,
                routes: Arc::clone(self.grants.routes()),
                control: end,
                info: Arc::clone(&info),
                wakers: wakers.clone(),
                eager: false,
                clock: Box::new(move || clock.get()),
            });
            self.cores.push(Core {
                shard,
                turn: Turn::default(),
                free: 0,
                timer: 0,
                stuck_until: 0,
                began: None,
                unflushed: false,
                rung: true,
                bell,
                window,
                jobs: VecDeque::new(),
                writes: BTreeMap::new(),
                control,
            });
        }
    }

    /// The storage thread and the disk do what is due for a core.
    pub fn do_work(&mut self, now: Ns, at: usize, disk: &mut Disk) {
        let core = &mut self.cores[at];
        while core.jobs.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, job)) = core.jobs.pop_front() else { break };
            core.window.answer(self.storage.perform(job));
        }
        let fabric = core.shard.fabric();
        let flying: Vec<(Token, DiskWrite)> =
            fabric.writes().map(|(token, write)| (token, *write)).collect();
        for (token, write) in flying {
            let due = core.writes.get(&token.0).copied();
            if due.is_some_and(|due| due <= now) {
                core.writes.remove(&token.0);
                core.shard.fabric().complete(token, disk.write(&write));
            }
        }
    }

    /// What a core's turn asked for is under way from now on.
    pub fn take_work(&mut self, now: Ns, at: usize, pace: Pace, random: &mut Random) {
        let core = &mut self.cores[at];
        while let Some(job) = core.window.take() {
            // Jobs of one core are done in their order.
            let before = core.jobs.back().map_or(now, |(due, _)| *due);
            core.jobs.push_back((before + 1 + random.below(pace.job_ns), job));
        }
        let tokens: Vec<u64> = core.shard.fabric().writes().map(|(token, _)| token.0).collect();
        for token in tokens {
            core.writes.entry(token).or_insert_with(|| now + 1_000 + random.below(pace.disk_ns));
        }
        for core in &mut self.cores {
            core.rung |= core.bell.answer();
        }
    }

    /// The control thread hears what the cores have to say. Partitions whose files are gone, and whether the keepers
    /// should hear soon.
    pub fn hear(&mut self, now_ns: u64) -> (Vec<u32>, bool) {
        let (mut gone, mut urgent) = (Vec::new(), false);
        while let Some(request) = self.queue.take() {
            match request {
                ControlRequest::Report(report) => urgent |= self.heard.report(now_ns, report),
                ControlRequest::Figures(figures) => self.heard.figures(figures),
                ControlRequest::Copies { core, copies } => self.heard.copies(core, copies),
                ControlRequest::Unreachable { core, bricks } => {
                    self.heard.unreachable(core, bricks);
                }
                ControlRequest::Removed(partitions) => gone.extend(partitions),
                ControlRequest::Lack { core, lack } => self.board.set_lack(core, lack),
                ControlRequest::Json { .. } => {}
            }
        }
        (gone, urgent)
    }

    /// What it says to its operator, without the folder, whose name is another one in each run.
    pub fn sentences(&mut self) -> Vec<String> {
        self.said.try_iter().map(|sentence| sentence.replace(&self.folder, "")).collect()
    }

    /// Gives the cores what they may be given now.
    pub fn push(&mut self, now_ns: u64) {
        if self.cores.is_empty() {
            return;
        }
        let cores = &mut self.cores;
        self.grants.push(now_ns, &self.board, |core, routes, end_ns| {
            let core = &mut cores[usize::from(core)];
            let routes = routes.map(FromControl::Routes);
            for message in routes.into_iter().chain([FromControl::Lease { end_ns }]) {
                assert!(core.control.push(message).is_ok(), "a core takes what it is given");
            }
            core.rung = true;
        });
    }

    /// A heartbeat, if it has a name.
    pub fn heartbeat(&mut self, now_ns: u64) -> Option<Heartbeat> {
        let memory_bytes = self.core_bytes * self.board.cores().len() as u64;
        let (brick, incarnation) = (self.brick?, self.incarnation);
        let sender = Sender { brick, incarnation, pid: 1, memory_bytes };
        let news = self.heard.take(now_ns);
        Some(self.grants.heartbeat(sender, &self.board, news))
    }

    /// It may answer clients as the primary of a partition.
    pub fn leads(&self, now: Now, partition: u32) -> bool {
        self.cores.iter().any(|core| {
            now.boot_ns < core.shard.lease_end_ns()
                && core
                    .shard
                    .replicas()
                    .iter()
                    .any(|r| r.partition() == partition && r.is_serving())
        })
    }

    /// Its replica of a partition, once it is open.
    pub fn replica(&self, partition: u32) -> Option<&Replica> {
        let all = self.cores.iter().flat_map(|core| core.shard.replicas());
        all.into_iter().find(|replica| replica.partition() == partition)
    }

    /// Everything that it can serve is served.
    pub fn is_ready(&self) -> bool {
        !self.cores.is_empty() && self.board.serving().is_ok()
    }

    /// What its cores have counted that a run should have seen.
    pub fn seen(&self) -> Vec<&'static str> {
        let mut seen = Vec::new();
        for counts in self.board.cores().iter().map(Published::read) {
            seen.extend((counts.leases_lost > 0).then_some(LEASE_LOST));
            seen.extend((counts.stale_routes > 0).then_some("a stale route is answered"));
            seen.extend((counts.unavailable > 0).then_some("a request is refused without a lease"));
            seen.extend((counts.hops_out > 0).then_some("a request is passed on to another core"));
            seen.extend((counts.no_space > 0).then_some("a write finds no room"));
            seen.extend((counts.copy_bytes > 0).then_some("what is copied arrives"));
        }
        seen
    }

    /// Records that its cores found damaged.
    pub fn damaged(&self) -> u64 {
        self.board.cores().iter().map(|core| core.read().corrupt_records).sum()
    }

    /// Why a core cannot go on.
    pub fn failure(&self) -> Option<String> {
        let failed = self.board.cores().iter().any(|core| core.state() == CoreState::Failed);
        self.board.failure().or_else(|| failed.then(|| "a core failed".to_owned()))
    }

    /// Ends it, at any moment: what its storage thread and its disk were about to do may be done or not.
    pub fn end(mut self, disk: &mut Disk, random: &mut Random) {
        for core in &mut self.cores {
            let writes = core.shard.fabric().writes();
            disk.abandon(random, &writes.map(|(token, write)| (token.0, *write)).collect());
            if random.below(2) == 0
                && let Some((_, job)) = core.jobs.pop_front()
            {
                drop(self.storage.perform(job));
            }
        }
    }
}
