//! The thread `keeper-disk`: appends to the keeper's log and flushes, one frame for all that waited.
//!
//! It shares no queue with write-behind or the storage thread, so that a busy data disk queue does not
//! make a keeper miss its elections. A full disk is waited for; any other error is final, because after a
//! failed flush nobody knows what the disk has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::file::LogFile;
use crate::error::{BrickError, is_lack};
use crate::notices::Notices;

/// Jobs that may wait; whoever has more waits too.
const JOBS_MAX: usize = 256;
/// What one frame gathers at most, unless one job has more.
const GATHER_BYTES_MAX: usize = 1 << 20;
/// Between two tries while the disk is full.
pub(crate) const FULL_EVERY: Duration = Duration::from_millis(100);

/// Called on the thread once the job is on the disk, or cannot be.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the thread does, in order.
pub(crate) enum Job {
    /// Records (lines of JSON) for the end of the log.
    Append(Vec<u8>, Done),
    /// The log is this from now on.
    Replace {
        /// What the new file says.
        body: Vec<u8>,
        /// Records that say the same at the end of the old one: for a disk without room for two.
        instead: Vec<u8>,
        /// Likewise.
        done: Done,
    },
}

/// The way to the thread; cheap to clone. The thread ends when all are gone.
#[derive(Clone)]
pub(crate) struct DiskPort(mpsc::Sender<Job>);

impl DiskPort {
    /// Gives the thread a job; waits while too many wait already.
    pub(crate) async fn submit(&self, job: Job) -> io::Result<()> {
        self.0.send(job).await.map_err(|_| io::Error::other("the thread keeper-disk has ended"))
    }
}

/// The running thread.
pub(crate) struct DiskThread {
    handle: JoinHandle<()>,
    ending: Arc<AtomicBool>,
}

impl DiskThread {
    /// Starts it on an open log.
    pub(crate) fn spawn(log: LogFile, notices: Notices) -> Result<(Self, DiskPort), BrickError> {
        let (port, jobs) = mpsc::channel(JOBS_MAX);
        let ending = Arc::new(AtomicBool::new(false));
        let desk = Desk { log, jobs, notices, ending: Arc::clone(&ending), failed: None };
        let handle = std::thread::Builder::new()
            .name("keeper-disk".into())
            .spawn(move || desk.serve())
            .map_err(|error| BrickError::Thread {
                name: "keeper-disk".into(),
                what: error.to_string(),
            })?;
        Ok((Self { handle, ending }, DiskPort(port)))
    }

    /// Waits for the end, which comes when all ports are gone; a full disk is no longer waited for.
    pub(crate) fn join(self) -> Result<(), BrickError> {
        self.ending.store(true, Ordering::Relaxed);
        self.handle.join().map_err(|_| BrickError::Thread {
            name: "keeper-disk".into(),
            what: "it panicked; its message is above".into(),
        })
    }
}

struct Desk {
    log: LogFile,
    jobs: mpsc::Receiver<Job>,
    notices: Notices,
    ending: Arc<AtomicBool>,
    /// The first error: nothing is written after it.
    failed: Option<(io::ErrorKind, String)>,
}

impl Desk {
    fn serve(mut self) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.jobs.blocking_recv()) {
            match job {
                Job::Append(mut records, done) => {
                    let mut all = vec![done];
                    while records.len() < GATHER_BYTES_MAX {
                        match self.jobs.try_recv() {
                            Ok(Job::Append(more, done)) => {
                                records.extend_from_slice(&more);
                                all.push(done);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    let result = self.perform(|log| log.append(&records));
                    for done in all {
                        done(again(&result));
                    }
                }
                Job::Replace { body, instead, done } => {
                    let result = self.perform(|log| match LogFile::replace(log.path(), &body) {
                        // Elections, and what operators ask for, must not wait for that.
                        Err(error) if is_lack(&error) => log.append(&instead),
                        Err(error) => Err(error),
                        Ok(new) => {
                            *log = new;
                            Ok(())
                        }
                    });
                    done(result);
                }
            }
            self.log.hold();
        }
    }

    fn perform(&mut self, mut act: impl FnMut(&mut LogFile) -> io::Result<()>) -> io::Result<()> {
        if let Some((kind, what)) = &self.failed {
            return Err(io::Error::new(*kind, what.clone()));
        }
        let mut told = false;
        loop {
            let Err(error) = act(&mut self.log) else { return Ok(()) };
            let waits = is_lack(&error) && !self.ending.load(Ordering::Relaxed);
            // The write found no room, so its flush was not tried: what it left can be taken back.
            if waits && self.log.take_back().is_ok() {
                if !told {
                    told = true;
                    self.notices.say(BrickError::file("write", self.log.path())(error).to_string());
                }
                std::thread::sleep(FULL_EVERY);
                continue;
            }
            let sentence = BrickError::file("write", self.log.path())(again_error(&error));
            self.notices.say(format!(
                "{sentence}; this brick's keeper stops here, because nobody knows what of its log is \
                 on the disk; start the brick again"
            ));
            self.failed = Some((error.kind(), error.to_string()));
            return Err(error);
        }
    }
}

fn again_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn again(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(again_error(error)),
    }
}
