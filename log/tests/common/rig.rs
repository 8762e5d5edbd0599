//! A log on real files, with the engine's part played in a loop: kill it, take its power, damage it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use firebrick_log::manifest::Incarnation;
use firebrick_log::storage::{Done, Job, Opened, Spares, Storage, StorageError};
use firebrick_log::*;
use tempfile::TempDir;

use super::*;

/// What a write of the log should come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    Works,
    Fails,
    RefusesDirect,
}

pub struct Rig {
    pub cfg: LogConfig,
    pub memory: PathBuf,
    pub data: PathBuf,
    pub boot: u8,
    pub nonce: u64,
    pub now: u64,
    pub disk: Disk,
    /// Jobs and writes in the order in which they were performed.
    pub trace: Vec<String>,
    pub written: Vec<Written>,
    pub outcomes: Vec<String>,
    /// Writes wait here instead of being performed.
    pub hold_writes: bool,
    pub hold_manifest: bool,
    pub held: VecDeque<FlushOp>,
    pub held_jobs: VecDeque<Job>,
    pub notes: Vec<String>,
    pub log: Log,
    pub index: Index,
    pub report: ScanReport,
    pub storage: Storage,
    pub spares: Spares,
    wants: VecDeque<Want>,
    dirs: Vec<TempDir>,
}

pub fn tempdirs() -> (TempDir, TempDir) {
    let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    (memory, tempfile::tempdir().unwrap())
}

pub fn incarnation(boot: u8, nonce: u64) -> Incarnation {
    Incarnation { boot_id: [boot; 16], nonce, nonce_before: 0, brick: 99 }
}

pub fn open_files(
    storage: &mut Storage,
    cfg: &LogConfig,
    boot: u8,
    nonce: u64,
) -> Result<Box<Opened>, StorageError> {
    let done = storage.perform(Job::Open {
        table: cfg.table,
        partition: cfg.partition,
        incarnation: incarnation(boot, nonce),
        disk: cfg.durability != Durability::Memory,
        create: true,
    });
    let Done::Opened { result, .. } = done else { panic!("{done:?}") };
    result
}

impl Rig {
    pub fn new(cfg: LogConfig) -> Self {
        let (memory, data) = tempdirs();
        let mut rig = Self::at(cfg, memory.path(), data.path());
        rig.dirs = vec![memory, data];
        rig
    }

    /// Both directories in memory: what is tested is not the disk's speed.
    pub fn quick(cfg: LogConfig) -> Self {
        let (memory, data) = (tempdirs().0, tempdirs().0);
        let mut rig = Self::at(cfg, memory.path(), data.path());
        rig.dirs = vec![memory, data];
        rig
    }

    pub fn at(cfg: LogConfig, memory: &Path, data: &Path) -> Self {
        let (memory, data) = (memory.to_owned(), data.to_owned());
        let mut storage = Storage::start(memory.clone(), data.clone()).unwrap();
        let opened = open_files(&mut storage, &cfg, 1, 1).unwrap();
        let (mut log, mut scan) = Log::open(cfg, *opened);
        let index = rescan(&mut log, &mut scan);
        let disk = cfg.durability != Durability::Memory;
        Self {
            cfg,
            memory,
            data,
            boot: 1,
            nonce: 1,
            now: 0,
            disk: Disk::Works,
            trace: Vec::new(),
            written: Vec::new(),
            outcomes: Vec::new(),
            hold_writes: false,
            hold_manifest: false,
            held: VecDeque::new(),
            held_jobs: VecDeque::new(),
            notes: Vec::new(),
            log,
            index,
            report: scan.report().clone(),
            storage,
            spares: Spares::new(0, 1, cfg.segment_bytes_max, disk),
            wants: VecDeque::new(),
            dirs: Vec::new(),
        }
    }

    /// Does everything the log asks for, until it asks for nothing.
    pub fn pump(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            while let Some(job) = self.spares.poll_job(self.now) {
                let done = self.storage.perform(job);
                if let Err(error) = self.spares.on_job(done, self.now) {
                    self.outcomes.push(error.to_string());
                }
                busy = true;
            }
            for _ in 0..self.wants.len() {
                let want = self.wants.pop_front().unwrap();
                if let Some(spare) = self.spares.take(&want, true) {
                    self.log.give(want.kind, spare);
                    busy = true;
                } else if self.spares.refusal().is_some() {
                    self.log.refuse(want.kind);
                } else {
                    self.wants.push_back(want);
                    busy = true;
                }
            }
            while let Some(ask) = self.log.poll_ask(self.now) {
                busy = true;
                match ask {
                    Ask::Segment(want) => self.wants.push_back(want),
                    Ask::Job(job) if self.hold_manifest && matches!(job, Job::Manifest { .. }) => {
                        self.held_jobs.push_back(job);
                    }
                    Ask::Job(job) => self.job(job),
                    Ask::Write(op) if self.hold_writes => self.held.push_back(op),
                    Ask::Write(op) => self.perform(op),
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the log never stops asking: {:?}", &self.trace[self.trace.len() - 20..]);
    }

    pub fn job(&mut self, job: Job) {
        self.trace.push(match &job {
            Job::Bind { head, .. } => format!("bind {}", head.name),
            Job::Manifest { .. } => "manifest".into(),
            Job::Unlink { name, .. } => format!("unlink {name}"),
            other => format!("{other:?}"),
        });
        let (spare, done) = self.storage.perform(self.spares.recycle(job)).apart();
        if let Some(spare) = spare {
            self.spares.on_job(spare, self.now).unwrap();
        }
        match self.log.on_job(done) {
            Outcome::Fine => {}
            Outcome::NoSpace(e) | Outcome::Sick(e) => self.outcomes.push(e.to_string()),
        }
    }

    pub fn perform(&mut self, op: FlushOp) {
        // What O_DIRECT asks for: a file system that refuses the write would only have it go through the page cache.
        for n in [op.offset, u64::from(op.len), op.ptr as u64] {
            assert!(n.is_multiple_of(512), "{op:?}");
        }
        self.trace.push(format!("write {}", op.segment));
        let result = match self.disk {
            Disk::Works => pwrite(&op),
            Disk::Fails => Err(io::Error::from_raw_os_error(libc::EIO)),
            Disk::RefusesDirect => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let written = self.log.on_written(op.id, result);
        self.written.push(written);
    }

    pub fn release_writes(&mut self) {
        self.hold_writes = false;
        while let Some(op) = self.held.pop_front() {
            self.perform(op);
        }
        self.pump();
    }

    pub fn try_write(&mut self, body: &Body<'_>) -> Result<Loc, AppendError> {
        for _ in 0..3 {
            match write(&mut self.log, &mut self.index, body) {
                Err(AppendError::NotYet) => self.pump(),
                other => return other,
            }
        }
        Err(AppendError::NotYet)
    }

    pub fn put(&mut self, i: u64, value: &[u8]) {
        self.try_write(&put(&key(i), value)).unwrap();
    }

    pub fn clean(&mut self, idle: bool) {
        for _ in 0..1000 {
            let progress = self.log.clean(1 << 20, idle, &mut self.index);
            if progress == CleanProgress::NotYet {
                // A pool that was refused asks again after a while.
                self.now += 10_000_000;
            }
            self.pump();
            if progress == CleanProgress::Nothing || progress == CleanProgress::NoSpace {
                return;
            }
        }
        panic!("cleaning never ends: {:?}", self.log.stats());
    }

    /// Cleans as far as it goes while the disk stands still.
    pub fn clean_held(&mut self) {
        assert!(self.hold_writes || self.hold_manifest);
        while self.log.clean(1 << 20, true, &mut self.index) != CleanProgress::Nothing {
            self.pump();
        }
    }

    /// `kill -9`: nothing is flushed, unmapped or written; then a start in the same boot.
    pub fn kill(&mut self) {
        self.nonce += 1;
        self.restart().unwrap();
    }

    /// Power fails: memory is gone, the disk has what was written. Another boot.
    pub fn lose_power(&mut self) {
        for entry in std::fs::read_dir(&self.memory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
        self.boot += 1;
        self.nonce += 1;
        self.restart().unwrap();
    }

    pub fn restart(&mut self) -> Result<(), StorageError> {
        let mut storage = Storage::start(self.memory.clone(), self.data.clone())?;
        let opened = open_files(&mut storage, &self.cfg, self.boot, self.nonce)?;
        self.notes.extend(opened.notes.iter().cloned());
        let (mut log, mut scan) = Log::open(self.cfg, *opened);
        let mut index = rescan(&mut log, &mut scan);
        for &loc in &scan.report().in_doubt {
            let record = log.record(loc).unwrap();
            index.take(&log, loc, &record);
        }
        log.set_commit(log.tail().seq);
        self.report = scan.report().clone();
        let disk = self.cfg.durability != Durability::Memory;
        self.spares = Spares::new(0, 1, self.cfg.segment_bytes_max, disk);
        self.wants.clear();
        self.held.clear();
        self.held_jobs.clear();
        (self.log, self.index, self.storage) = (log, index, storage);
        Ok(())
    }

    pub fn dir(&self, side: &str) -> PathBuf {
        let root = if side == "memory" { &self.memory } else { &self.data };
        root.join(format!("p{PARTITION}"))
    }

    pub fn files(&self, side: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir(side)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn flip(&self, side: &str, file: &str, at: u64, mask: u8) {
        use std::os::unix::fs::FileExt;
        let path = self.dir(side).join(file);
        let open = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        open.read_exact_at(&mut byte, at).unwrap();
        open.write_all_at(&[byte[0] ^ mask], at).unwrap();
    }
}

pub fn pwrite(op: &FlushOp) -> io::Result<usize> {
    // SAFETY: the log keeps the memory and the file until the write is answered.
    let n = unsafe { libc::pwrite(op.fd, op.ptr.cast(), op.len as usize, op.offset as i64) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if op.durable && unsafe { libc::fdatasync(op.fd) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(n as usize)
}
