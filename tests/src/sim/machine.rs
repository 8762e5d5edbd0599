//! A brick's machine: its clock, what outlives its process, and the process.

use std::collections::BTreeMap;

use firebrick_log::storage::{Opened, Source};
use firebrick_log::{Durability, Log, LogConfig};
use firebrick_partition::keeper::{LockFile, Registration};
use firebrick_partition::maps::Leaf;
use firebrick_partition::op::Now;
use firebrick_partition::replica::Recovering;
use firebrick_partition::replica::Replica;

use super::clock::{Clock, Ns};
use super::disk::Disk;
use super::mistake::Mistake;
use super::process::{Limits, Process};
use crate::random::Random;

/// What ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// `kill -9`: what is mapped stays.
    Kill,
    /// The machine lost its memory. Disks keep what was flushed.
    Power,
    /// And its disk.
    Lost,
}

/// What came while a process stood still is handled within so long.
const SAME_TURN_NS: Ns = 10_000;

/// What a replica left behind.
#[derive(Debug)]
pub struct Left {
    leaf: Leaf,
    cfg: LogConfig,
    opened: Option<Opened>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Machine {
    /// Its number.
    pub at: usize,
    /// Its clock.
    pub clock: Clock,
    /// The process, if one runs.
    pub process: Option<Process>,
    /// The process stands still until then.
    pub paused_until: Ns,
    /// It stopped in the middle of a turn that began then, and which goes on when it wakes.
    turn_began: Option<Ns>,
    /// By partition: what outlives a process.
    left: BTreeMap<u32, Left>,
    /// What was flushed, by partition.
    pub disks: BTreeMap<u32, Disk>,
    /// Counts starts of the machine.
    boots: u64,
    memory_intact: bool,
    disk_intact: bool,
    /// Its processes so far.
    before: Vec<u64>,
    /// It lost memory and has not registered since.
    pub lost: bool,
    /// Room of its replicas.
    pub limits: Limits,
}

impl Machine {
    /// A new machine without a process.
    pub fn new(at: usize, random: &mut Random) -> Self {
        Self {
            at,
            clock: Clock::new(random),
            process: None,
            paused_until: 0,
            turn_began: None,
            left: BTreeMap::new(),
            disks: BTreeMap::new(),
            boots: 1,
            memory_intact: true,
            disk_intact: true,
            before: Vec::new(),
            lost: false,
            limits: Limits::default(),
        }
    }

    /// Its clock.
    pub fn now(&self, now: Ns) -> Now {
        Now { boot_ns: self.clock.at(now), unix_ms: 1_700_000_000_000 + now / 1_000_000 }
    }

    /// Its process answers as the primary of a partition.
    pub fn leads(&self, now: Ns, partition: u32) -> bool {
        self.process.as_ref().is_some_and(|process| process.leads(self.now(now), partition))
    }

    /// The process stands still for a while, in the middle of a turn.
    pub fn pause(&mut self, now: Ns, until: Ns) {
        if self.paused_until <= now {
            self.turn_began = Some(now);
        }
        self.paused_until = self.paused_until.max(until);
    }

    /// The clock as a turn has it: it was read once, before the turn's requests. What waited while the process
    /// stood still belongs to the turn in which it stopped.
    pub fn turn_now(&mut self, now: Ns) -> Now {
        if now > self.paused_until + SAME_TURN_NS {
            self.turn_began = None;
        }
        self.now(self.turn_began.unwrap_or(now))
    }

    /// Writes to the disk that are under way, by partition.
    pub fn flying(&self) -> Vec<(u32, usize)> {
        self.disks.iter().map(|(partition, disk)| (*partition, disk.flying())).collect()
    }

    /// Ends the process.
    pub fn crash(&mut self, how: Crash) {
        let Some(process) = self.process.take() else { return };
        (self.paused_until, self.turn_began) = (0, None);
        for (partition, replica) in process.replicas {
            let leaf = replica.leaf();
            let log = replica.into_log();
            let cfg = *log.config();
            let mut opened = log.crash();
            opened.segments.sort_by_key(|s| s.head().name);
            self.left.insert(partition, Left { leaf, cfg, opened: Some(opened) });
        }
        for disk in self.disks.values_mut() {
            disk.drop_flying();
        }
        if how != Crash::Kill {
            self.boots += 1;
            self.memory_intact = false;
            self.lost = true;
            for (partition, left) in &mut self.left {
                let manifest = left.opened.take().map(|opened| opened.manifest);
                let disk = self.disks.get(partition).filter(|_| how == Crash::Power);
                let has_disk = left.cfg.durability != Durability::Memory;
                left.opened =
                    manifest.filter(|_| has_disk).zip(disk).map(|(manifest, disk)| Opened {
                        segments: disk.segments(&manifest),
                        manifest,
                        source: Source::Disk,
                        notes: Vec::new(),
                        damaged: Vec::new(),
                    });
            }
        }
        if how == Crash::Lost {
            self.disk_intact = false;
            self.disks.clear();
        }
    }

    /// Starts a process: what was left is opened, and it asks to be registered.
    pub fn start(&mut self, now: Ns, incarnation: u64, mistake: Mistake) {
        let time = self.now(now);
        let mut replicas = BTreeMap::new();
        for (partition, left) in std::mem::take(&mut self.left) {
            let replica = match left.opened {
                None => Replica::new(Log::in_heap(left.cfg), left.leaf),
                Some(mut opened) => {
                    if mistake == Mistake::CompleteFromTail && !opened.segments.is_empty() {
                        opened.manifest.complete = true;
                    }
                    let has_disk = left.cfg.durability != Durability::Memory;
                    let again = has_disk && mistake != Mistake::NotFlushedAgain;
                    if again && opened.source == Source::Memory {
                        self.disks.entry(partition).or_default().write_again(&opened);
                    }
                    let (log, scan) = Log::open_in_heap(left.cfg, opened);
                    let mut replica = Replica::open(log, scan, left.leaf);
                    while replica.recover_step(time, 64) == Recovering::More {}
                    replica
                }
            };
            replicas.insert(partition, replica);
        }
        let mut registration = self.registration(incarnation);
        self.before.push(incarnation);
        registration.memory_intact |= mistake == Mistake::ClaimsMemory;
        self.process =
            Some(Process::new(incarnation, registration, replicas, mistake, self.limits));
    }

    /// The keepers know what this machine kept.
    pub fn registered(&mut self) {
        (self.memory_intact, self.disk_intact, self.lost) = (true, true, false);
    }

    fn registration(&self, incarnation: u64) -> Registration {
        Registration {
            memory_intact: self.memory_intact,
            disk_intact: self.disk_intact,
            before: self.before.clone(),
            cores: 1,
            listen: format!("brick{}:7400", self.at + 1),
            ..registration(self.at, self.boots, incarnation)
        }
    }
}

/// What a process says of its machine when it registers, on either level.
pub fn registration(at: usize, boots: u64, incarnation: u64) -> Registration {
    let n = at as u64 + 1;
    Registration {
        identity: 1000 + n,
        name: format!("brick{n}"),
        incarnation,
        boot: format!("boot-{n}-{boots}"),
        lock: LockFile { device: n, inode: n },
        started_ns: incarnation,
        memory_bytes: 1 << 30,
        host: format!("host{n}"),
        ..Registration::default()
    }
}
