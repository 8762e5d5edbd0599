use std::path::Path;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    CommittedLeaderId, EntryPayload, LogId, LogState, RaftLogReader, RaftSnapshotBuilder,
    StorageError, Vote,
};
use tempfile::TempDir;

use super::file::HEADER;
use super::log::LogStore;
use super::thread::DiskThread;
use crate::error::BrickError;
use crate::keeper::machine::Machine;
use crate::keeper::types::{Keeping, LogEntry, NodeId, Proposal};
use crate::notices::Notices;

struct Builder;

impl StoreBuilder<Keeping, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<NodeId>> {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = LogStore::open(folder.path(), &Notices::heard().0).unwrap();
        let (machine, _) = Machine::open(folder.path(), Notices::heard().0).unwrap();
        Ok((folder, log, machine))
    }
}

#[test]
fn openrafts_own_tests_of_a_storage_pass() {
    Suite::test_all(Builder).unwrap();
}

/// What a log shows, in words.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    vote: Option<Vote<NodeId>>,
    state: LogState<Keeping>,
    entries: Vec<LogEntry>,
}

async fn shown(log: &mut LogStore) -> Shown {
    Shown {
        vote: log.read_vote().await.unwrap(),
        state: log.get_log_state().await.unwrap(),
        entries: log.try_get_log_entries(0..).await.unwrap(),
    }
}

fn id(term: u64, index: u64) -> LogId<NodeId> {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64, name: &str) -> LogEntry {
    let drop = firebrick_partition::keeper::Entry::DropTable { name: name.into() };
    let proposal = Proposal { term: None, entry: Some(drop) };
    LogEntry { log_id: id(term, index), payload: EntryPayload::Normal(proposal) }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Opens the log, looks, and waits until its thread has ended.
fn reopen(folder: &Path) -> Result<Shown, BrickError> {
    let (mut log, thread) = LogStore::open(folder, &Notices::heard().0)?;
    let shown = block_on(shown(&mut log));
    drop(log);
    thread.join()?;
    Ok(shown)
}

/// A life of a log: what it showed, and how long its file was, after each answer.
async fn live(folder: &Path) -> (Vec<(usize, Shown)>, DiskThread) {
    let (mut log, thread) = LogStore::open(folder, &Notices::heard().0).unwrap();
    let mut steps = Vec::new();
    macro_rules! step {
        ($done:expr) => {{
            $done.await.unwrap();
            let bytes = std::fs::metadata(folder.join("log")).unwrap().len() as usize;
            steps.push((bytes, shown(&mut log).await));
        }};
    }
    step!(async { Ok::<_, BrickError>(()) });
    step!(log.save_vote(&Vote::new(1, 1)));
    step!(log.blocking_append([entry(1, 1, "a")]));
    step!(log.blocking_append([entry(1, 2, "b"), entry(1, 3, "c"), entry(1, 4, "d")]));
    step!(log.truncate(id(1, 3)));
    step!(log.save_vote(&Vote::new_committed(2, 1)));
    step!(log.blocking_append([entry(2, 3, "another c")]));
    step!(log.purge(id(1, 1)));
    // Longer than a few sectors.
    step!(log.blocking_append([entry(2, 4, &"e".repeat(2000))]));
    (steps, thread)
}

/// In memory when there is room: thousands of them are made.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn with_log(bytes: &[u8]) -> TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("log"), bytes).unwrap();
    folder
}

fn a_life() -> (Vec<u8>, Vec<(usize, Shown)>) {
    let folder = tempfile::tempdir().unwrap();
    let (steps, thread) = block_on(live(folder.path()));
    thread.join().unwrap();
    (std::fs::read(folder.path().join("log")).unwrap(), steps)
}

#[test]
fn a_log_that_is_cut_anywhere_holds_what_was_answered_before() {
    let (bytes, steps) = a_life();
    assert_eq!(bytes.len(), steps.last().unwrap().0);
    for cut in 0..=bytes.len() {
        let folder = with_log(&bytes[..cut]);
        let answered = steps.iter().rev().find(|(len, _)| *len <= cut);
        match answered {
            Some((len, expected)) => {
                assert_eq!(&reopen(folder.path()).unwrap(), expected, "cut at {cut}");
                let left = std::fs::metadata(folder.path().join("log")).unwrap().len();
                assert_eq!(left as usize, *len, "the rest of the torn frame is gone");
            }
            // The first frame came with the file's name: it cannot be torn.
            None => assert!(reopen(folder.path()).is_err(), "cut at {cut}"),
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    let (bytes, steps) = a_life();
    let whole = &steps.last().unwrap().1;
    for at in 0..bytes.len() {
        for bit in [0x01, 0x40] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            let folder = with_log(&damaged);
            match reopen(folder.path()) {
                Ok(shown) => assert_eq!(&shown, whole, "byte {at} changed what the log says"),
                Err(error) => {
                    let told = error.to_string();
                    let names = told.contains("is damaged") || told.contains("has format");
                    assert!(names && told.contains("nothing was changed"), "{told}");
                    let there = std::fs::read(folder.path().join("log")).unwrap();
                    assert!(there == damaged, "byte {at}: a refused log is left alone");
                }
            }
        }
    }
}

#[test]
fn a_sector_that_was_never_written_is_a_torn_end_and_nothing_else() {
    let (bytes, steps) = a_life();
    let before_last = steps[steps.len() - 2].0;
    let sector = (before_last + HEADER).next_multiple_of(512);
    assert!(sector + 512 < bytes.len(), "the last frame has a whole sector");
    for zeros in [sector..sector + 512, before_last..bytes.len(), before_last..sector] {
        let mut torn = bytes.clone();
        torn[zeros].fill(0);
        assert_eq!(reopen(with_log(&torn).path()).unwrap(), steps[steps.len() - 2].1);
    }
    // The same in front of a frame that was flushed later is damage.
    let (first, second) = (steps[2].0, steps[3].0);
    let mut damaged = bytes.clone();
    damaged[first..second].fill(0);
    let told = reopen(with_log(&damaged).path()).unwrap_err().to_string();
    assert!(told.contains("is torn, but was answered"), "{told}");
}

#[test]
fn a_log_that_is_mostly_history_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, thread) = LogStore::open(folder.path(), &Notices::heard().0).unwrap();
    let expected = block_on(async {
        log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
        for index in 0..300 {
            log.blocking_append([entry(1, index, &"x".repeat(8000))]).await.unwrap();
        }
        log.purge(id(1, 297)).await.unwrap();
        shown(&mut log).await
    });
    drop(log);
    thread.join().unwrap();
    let bytes = std::fs::metadata(folder.path().join("log")).unwrap().len();
    assert!(bytes < 20_000, "{bytes} bytes for two entries");
    assert_eq!(reopen(folder.path()).unwrap(), expected);
    assert_eq!(expected.entries.len(), 2);
}

/// Elections would wait behind it.
#[test]
fn a_log_that_finds_no_room_to_be_written_anew_goes_on_in_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, thread) = LogStore::open(folder.path(), &Notices::heard().0).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("log.tmp")).unwrap();
    let expected = block_on(async {
        for index in 0..300 {
            log.blocking_append([entry(1, index, &"x".repeat(8000))]).await.unwrap();
        }
        let purge = log.purge(id(1, 297));
        tokio::time::timeout(std::time::Duration::from_secs(5), purge).await.unwrap().unwrap();
        log.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
        shown(&mut log).await
    });
    drop(log);
    thread.join().unwrap();
    assert_eq!((expected.entries.len(), expected.vote), (2, Some(Vote::new_committed(2, 1))));
    assert_eq!(reopen(folder.path()).unwrap(), expected);
}

/// The blocks behind its end.
#[test]
fn a_log_holds_room_ahead() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let held = || {
        let file = std::fs::metadata(folder.path().join("log")).unwrap();
        file.blocks() * 512 - file.len()
    };
    let (mut log, thread) = LogStore::open(folder.path(), &Notices::heard().0).unwrap();
    assert!(held() > 1 << 19, "{} bytes", held());
    block_on(async {
        for index in 0..300 {
            log.blocking_append([entry(1, index, &"x".repeat(8000))]).await.unwrap();
        }
    });
    drop(log);
    thread.join().unwrap();
    assert!(held() > 1 << 18, "{} bytes after some appends", held());
}

#[test]
fn a_snapshot_is_there_after_a_restart_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    block_on(async {
        let (mut machine, _) = Machine::open(folder.path(), Notices::heard().0).unwrap();
        machine.apply([entry(1, 1, "a"), entry(1, 2, "b")]).await.unwrap();
        let snapshot = machine.build_snapshot().await.unwrap();
        assert_eq!(snapshot.meta.last_log_id, Some(id(1, 2)));
        drop(machine);
        let (mut again, _) = Machine::open(folder.path(), Notices::heard().0).unwrap();
        assert_eq!(again.applied_state().await.unwrap().0, Some(id(1, 2)));
        let there = again.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!((there.meta, there.snapshot), (snapshot.meta, snapshot.snapshot));
    });
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let told = Machine::open(folder.path(), Notices::heard().0).err().unwrap().to_string();
    assert!(told.contains("snapshot is damaged"), "{told}");
}

/// The error would be the end of the keeper.
#[test]
fn a_snapshot_that_finds_no_room_waits_until_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    let (notices, heard) = Notices::heard();
    let (mut machine, _) = Machine::open(folder.path(), notices).unwrap();
    let tmp = folder.path().join("snapshot.tmp");
    std::os::unix::fs::symlink("/dev/full", &tmp).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let room = async {
            tokio::time::sleep(super::FULL_EVERY * 3).await;
            std::fs::remove_file(&tmp).unwrap();
        };
        let (built, ()) = tokio::join!(machine.build_snapshot(), room);
        built.unwrap();
    });
    let told: Vec<String> = heard.try_iter().collect();
    assert!(told.len() == 1 && told[0].contains("make room there"), "{told:?}");
    assert!(folder.path().join("snapshot").exists());
}
