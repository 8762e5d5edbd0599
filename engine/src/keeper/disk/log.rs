//! The Raft log and vote as openraft sees them: in memory to be read, on the disk before they are answered.
//!
//! The log is short (what a snapshot has is purged soon), so all of it is in memory too. The disk's
//! records say what happened, in order: an entry at the end, entries cut off, entries purged, a vote. When
//! much of the file is history, the file is replaced by one that says only what is.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    LogId, LogState, OptionalSend, RaftLogId as _, RaftLogReader, StorageError, StorageIOError,
    Vote,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::file::{Found, LogFile};
use super::thread::{DiskPort, DiskThread, Done, Job};
use crate::error::BrickError;
use crate::keeper::types::{Keeping, LogEntry, NodeId};
use crate::notices::Notices;

const FILE: &str = "log";
/// The file is written anew when it has grown by this much and entries are purged.
const HISTORY_BYTES_MAX: u64 = 1 << 20;
/// Entries read at a time for one message, unless one alone has more.
const READ_BYTES_MAX: usize = 1 << 20;

type Failed = StorageError<NodeId>;

/// One line of a frame.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Record {
    /// The next entry.
    Entry(LogEntry),
    /// Entries from this index on are cut off.
    Truncate(u64),
    /// Entries up to this one are gone: a snapshot has them.
    Purge(LogId<NodeId>),
    /// The vote.
    Vote(Vote<NodeId>),
    /// The first record of each file: it says what is, not what happened.
    Begin,
}

/// The log in memory.
#[derive(Default)]
struct Contents {
    vote: Option<Vote<NodeId>>,
    purged: Option<LogId<NodeId>>,
    /// With the length of the entry as JSON.
    entries: BTreeMap<u64, (LogEntry, usize)>,
    /// Bytes appended since the file was written anew.
    history_bytes: u64,
}

/// Reads entries for replication; cheap to clone.
#[derive(Clone)]
pub(crate) struct LogReader(Arc<Mutex<Contents>>);

/// The log, for openraft to write.
pub(crate) struct LogStore {
    reader: LogReader,
    disk: DiskPort,
}

impl LogStore {
    /// Opens or makes the log in `folder`, and starts the thread that writes it.
    pub(crate) fn open(folder: &Path, notices: &Notices) -> Result<(Self, DiskThread), BrickError> {
        let path = folder.join(FILE);
        let (file, contents) = if let Some((file, found)) = LogFile::open(&path)? {
            if found.torn_bytes > 0 {
                notices.say(format!(
                    "{}: its last {} bytes are of a write that was interrupted and never \
                         answered; they were cut off",
                    path.display(),
                    found.torn_bytes
                ));
            }
            let contents = Contents::from_found(&found)
                .map_err(|what| BrickError::Damaged { path: path.clone(), what })?;
            (file, contents)
        } else {
            let empty = Contents::default();
            let file = LogFile::replace(&path, &empty.body())
                .map_err(BrickError::file("create", &path))?;
            (file, empty)
        };
        let (thread, disk) = DiskThread::spawn(file, notices.clone())?;
        Ok((Self { reader: LogReader(Arc::new(Mutex::new(contents))), disk }, thread))
    }

    /// Whether anything was ever written: a vote, an entry.
    pub(crate) fn is_pristine(&self) -> bool {
        let contents = self.reader.lock();
        contents.vote.is_none() && contents.purged.is_none() && contents.entries.is_empty()
    }

    async fn flushed(&self, job: impl FnOnce(Done) -> Job) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        // The receiver is gone only when openraft has given up: nobody waits.
        let done: Done = Box::new(move |result| drop(done.send(result)));
        self.disk.submit(job(done)).await?;
        flushed.await.map_err(|_| io::Error::other("the thread keeper-disk has ended"))?
    }

    fn append_bytes(&self, record: &Record) -> Vec<u8> {
        let line = line(record);
        self.reader.lock().history_bytes += line.len() as u64;
        line
    }
}

impl LogReader {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record as a line. Serializing these types cannot fail: no maps with odd keys, no foreign code.
fn line(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    assert!(!line.is_empty(), "a record of the keeper's log becomes JSON");
    line.push(b'\n');
    line
}

impl Contents {
    fn from_found(found: &Found) -> Result<Self, String> {
        let mut contents = Self::default();
        for (n, body) in found.bodies.iter().enumerate() {
            for line in body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let record = serde_json::from_slice(line)
                    .map_err(|error| format!("frame {n} holds what is no record: {error}"))?;
                contents.replay(record, line.len()).map_err(|what| format!("frame {n}: {what}"))?;
            }
            if n > 0 {
                contents.history_bytes += body.len() as u64;
            }
        }
        Ok(contents)
    }

    fn replay(&mut self, record: Record, bytes: usize) -> Result<(), String> {
        match record {
            Record::Begin => {}
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entry(entry) => {
                let index = entry.log_id.index;
                if let Some(last) = self.last().filter(|last| last.index + 1 != index) {
                    return Err(format!("entry {index} follows entry {}", last.index));
                }
                self.entries.insert(index, (entry, bytes));
            }
            Record::Truncate(from) => drop(self.entries.split_off(&from)),
            Record::Purge(upto) => self.purge(upto),
        }
        Ok(())
    }

    fn purge(&mut self, upto: LogId<NodeId>) {
        self.purged = self.purged.max(Some(upto));
        self.entries = self.entries.split_off(&(upto.index + 1));
    }

    fn last(&self) -> Option<LogId<NodeId>> {
        self.entries.last_key_value().map(|(_, (entry, _))| entry.log_id).or(self.purged)
    }

    /// What the first frame of a new file says.
    fn body(&self) -> Vec<u8> {
        let mut body = line(&Record::Begin);
        body.extend(self.vote.iter().flat_map(|vote| line(&Record::Vote(*vote))));
        body.extend(self.purged.iter().flat_map(|purged| line(&Record::Purge(*purged))));
        for (entry, _) in self.entries.values() {
            body.extend(line(&Record::Entry(entry.clone())));
        }
        body
    }
}

impl RaftLogReader<Keeping> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, Failed> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(range) {
            return Ok(Vec::new());
        }
        Ok(self.lock().entries.range(range).map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, Failed> {
        let contents = self.lock();
        let mut bytes = 0;
        let within = |(_, (_, len)): &(&u64, &(LogEntry, usize))| {
            let fits = bytes == 0 || bytes + len <= READ_BYTES_MAX;
            bytes += len;
            fits
        };
        let entries = contents.entries.range(start..end.max(start)).take_while(within);
        Ok(entries.map(|(_, (entry, _))| entry.clone()).collect())
    }
}

/// Ranges that a map would panic at, or that hold nothing anyway.
fn is_empty(range: (Bound<u64>, Bound<u64>)) -> bool {
    let first = match range.0 {
        Bound::Included(first) => first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.1 {
        Bound::Included(last) => last < first,
        Bound::Excluded(end) => end <= first,
        Bound::Unbounded => false,
    }
}

impl RaftLogReader<Keeping> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, Failed> {
        self.reader.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, Failed> {
        self.reader.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Keeping> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Keeping>, Failed> {
        let contents = self.reader.lock();
        Ok(LogState { last_purged_log_id: contents.purged, last_log_id: contents.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), Failed> {
        let bytes = self.append_bytes(&Record::Vote(*vote));
        self.flushed(|done| Job::Append(bytes, done))
            .await
            .map_err(|error| StorageError::from(StorageIOError::write_vote(&error)))?;
        self.reader.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, Failed> {
        Ok(self.reader.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Keeping>) -> Result<(), Failed>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut bytes = Vec::new();
        {
            let mut contents = self.reader.lock();
            for entry in entries {
                let index = entry.get_log_id().index;
                let line = line(&Record::Entry(entry.clone()));
                contents.entries.insert(index, (entry, line.len()));
                bytes.extend(line);
            }
            contents.history_bytes += bytes.len() as u64;
        }
        let done: Done = Box::new(move |result| callback.log_io_completed(result));
        let submitted = self.disk.submit(Job::Append(bytes, done)).await;
        submitted.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn truncate(&mut self, log_id: LogId<NodeId>) -> Result<(), Failed> {
        drop(self.reader.lock().entries.split_off(&log_id.index));
        let bytes = self.append_bytes(&Record::Truncate(log_id.index));
        let flushed = self.flushed(|done| Job::Append(bytes, done)).await;
        flushed.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId<NodeId>) -> Result<(), Failed> {
        let anew = {
            let mut contents = self.reader.lock();
            contents.purge(log_id);
            let anew = contents.history_bytes > HISTORY_BYTES_MAX;
            if anew {
                contents.history_bytes = 0;
            }
            anew.then(|| contents.body())
        };
        let purge = self.append_bytes(&Record::Purge(log_id));
        let flushed = self.flushed(|done| match anew {
            Some(body) => Job::Replace { body, instead: purge, done },
            None => Job::Append(purge, done),
        });
        let flushed = flushed.await;
        flushed.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
