//! A brick's machine: its clock, its folders, its disk, and its process.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use firebrick_log::manifest::Incarnation;
use firebrick_net::fake;
use firebrick_partition::keeper::Registration;
use firebrick_partition::op::Now;
use tempfile::TempDir;

use super::disk::Disk;
use super::process::{CORE_BYTES, Process};
use crate::random::Random;
use crate::sim::clock::{Clock, MS, Ns};
use crate::sim::machine::{Crash, registration};

/// The Unix time at the beginning of a run.
pub const UNIX_MS: u64 = 1_700_000_000_000;

/// See the module's text.
pub struct Brick {
    pub at: usize,
    pub clock: Clock,
    /// The clock on its wall goes by so much before the world's, or after it.
    wall_ms: i64,
    /// What the clock shows, for the process.
    shown: Rc<Cell<u64>>,
    pub address: SocketAddr,
    cores: u16,
    /// Memory of a data core.
    pub core_bytes: u64,
    dir: TempDir,
    pub disk: Disk,
    pub process: Option<Process>,
    /// The process stands still until then.
    pub paused_until: Ns,
    /// Counts starts of the machine.
    boots: u8,
    /// Its folders were used before (the engine's `Identity`).
    known: bool,
    /// Its processes so far.
    before: Vec<u64>,
    /// What is in memory is what the process before had: it had opened everything.
    settled: bool,
    /// It lost memory and has not registered since.
    pub lost: bool,
}

/// In memory, where there is such a place: files are made and flushed a lot.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let made = if memory.is_dir() {
        builder.prefix("firebrick-sim").tempdir_in(memory)
    } else {
        builder.prefix("firebrick-sim").tempdir()
    };
    made.expect("a folder for a simulated brick")
}

impl Brick {
    /// A new machine without a process.
    pub fn new(at: usize, cores: u16, random: &mut Random) -> Self {
        let dir = folder();
        for side in ["memory", "data"] {
            std::fs::create_dir(dir.path().join(side)).expect("a folder");
        }
        Self {
            at,
            clock: Clock::new(random),
            wall_ms: 0,
            shown: Rc::default(),
            address: SocketAddr::from(([10, 0, 0, at as u8 + 1], 7400)),
            cores,
            core_bytes: CORE_BYTES,
            dir,
            disk: Disk::default(),
            process: None,
            paused_until: 0,
            boots: 1,
            known: false,
            before: Vec::new(),
            settled: false,
            lost: false,
        }
    }

    /// Its clock, which its process sees from now on.
    pub fn now(&self, now: Ns) -> Now {
        let boot_ns = self.clock.at(now);
        self.shown.set(boot_ns);
        Now { boot_ns, unix_ms: (UNIX_MS + now / MS).saturating_add_signed(self.wall_ms) }
    }

    /// Somebody sets the clock on its wall, wrong by so much at most.
    pub fn set_wall(&mut self, skew_ms: u64, random: &mut Random) {
        self.wall_ms = random.below(2 * skew_ms + 1) as i64 - skew_ms as i64;
    }

    /// Ends the process.
    pub fn crash(&mut self, how: Crash, random: &mut Random) {
        let Some(process) = self.process.take() else { return };
        self.settled |= process.is_ready();
        self.paused_until = 0;
        process.end(&mut self.disk, random);
        if how != Crash::Kill {
            self.boots += 1;
            self.settled = false;
            self.lost = true;
            self.disk.power_fails(random);
            let memory = self.dir.path().join("memory");
            std::fs::remove_dir_all(&memory).expect("memory is lost");
            std::fs::create_dir(&memory).expect("a folder");
        }
    }

    /// Starts a process.
    pub fn start(&mut self, world: &fake::World, incarnation: u64) {
        let registration = self.registration(incarnation);
        self.known = true;
        self.before.push(incarnation);
        let identity = Incarnation {
            boot_id: [self.boots; 16],
            nonce: incarnation,
            nonce_before: 0,
            brick: registration.identity,
        };
        let fabrics = (0..self.cores).map(|_| {
            let mut fabric = world.fake_on(self.at);
            fabric.listen(self.address);
            fabric
        });
        let (fabrics, clock) = (fabrics.collect(), Rc::clone(&self.shown));
        let process =
            Process::new(self.dir.path(), registration, identity, fabrics, clock, self.core_bytes);
        self.process = Some(process);
    }

    /// Everything is open: what is in memory is what there is.
    pub fn look_whether_settled(&mut self) {
        if !self.settled && self.process.as_ref().is_some_and(Process::is_ready) {
            self.settled = true;
        }
    }

    /// As the engine makes it of the folders and their identity.
    fn registration(&self, incarnation: u64) -> Registration {
        Registration {
            memory_intact: self.settled,
            disk_intact: self.known,
            before: self.before.clone(),
            cores: self.cores,
            listen: self.address.to_string(),
            ..registration(self.at, self.boots.into(), incarnation)
        }
    }
}
