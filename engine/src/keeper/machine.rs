//! The keepers' state machine as openraft sees it: `partition::keeper::Keepers` behind a lock that only the
//! control thread takes, and its snapshots.
//!
//! The state in memory begins at the snapshot; what the log has beyond it is applied again once Raft knows that it
//! is committed. So a restarted keeper may show an older state for a moment: nobody decides anything on it without
//! [`ensure_linearizable`](openraft::Raft::ensure_linearizable).

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firebrick_partition::keeper::{Applied, Keepers};
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership,
};
use tokio::sync::watch;

use super::disk::{FULL_EVERY, SnapshotFile, Stored};
use super::types::{Keeping, LogEntry, NodeId, Proposal};
use crate::error::BrickError;
use crate::notices::Notices;

type Failed = StorageError<NodeId>;
type Meta = SnapshotMeta<NodeId, BasicNode>;

/// What has been applied.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) keepers: Keepers,
    applied: Option<LogId<NodeId>>,
    membership: StoredMembership<NodeId, BasicNode>,
    /// The newest snapshot, as JSON of [`Keepers`].
    snapshot: Option<(Meta, Arc<Vec<u8>>)>,
}

/// The state, shared by the tasks of the control thread; cheap to clone.
#[derive(Clone)]
pub(crate) struct Shown {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Shown {
    /// What has been applied here. Not for long, and not across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the version of the maps whenever something was applied.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        let version = self.lock().keepers.version();
        self.changed.send_replace(version);
    }
}

/// The state machine, for openraft to drive.
#[derive(Clone)]
pub(crate) struct Machine {
    shown: Shown,
    file: Arc<SnapshotFile>,
    notices: Notices,
}

impl Machine {
    /// Begins at the snapshot of `folder`.
    pub(crate) fn open(folder: &Path, notices: Notices) -> Result<(Self, Shown), BrickError> {
        let (file, stored) = SnapshotFile::open(folder)?;
        let mut state = State::default();
        if let Some(Stored { meta, state: keepers }) = stored {
            let bytes = to_json(&keepers).map_err(|error| BrickError::Damaged {
                path: folder.to_owned(),
                what: error.to_string(),
            })?;
            state.applied = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.keepers = keepers;
            state.snapshot = Some((meta, Arc::new(bytes)));
        }
        let changed = watch::Sender::new(state.keepers.version());
        let shown = Shown { state: Arc::new(Mutex::new(state)), changed };
        Ok((Self { shown: shown.clone(), file: Arc::new(file), notices }, shown))
    }

    /// On a blocking thread: a state may be large, and a disk slow. A full one is waited for, because an error would be
    /// the end of this keeper.
    async fn write(&self, stored: Stored) -> Result<Arc<Vec<u8>>, Failed> {
        let failed = |error| Failed::from(StorageIOError::write_snapshot(None, &error));
        let stored = Arc::new(stored);
        let mut told = false;
        loop {
            let (file, stored) = (Arc::clone(&self.file), Arc::clone(&stored));
            let write = move || {
                let bytes = to_json(&stored.state).map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(file.write(&stored).map(|()| Arc::new(bytes)))
            };
            let done = tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other);
            match done.flatten().map_err(failed)? {
                Err(error) if error.is_lack() => {
                    if !std::mem::replace(&mut told, true) {
                        self.notices.say(error.to_string());
                    }
                    tokio::time::sleep(FULL_EVERY).await;
                }
                done => return done.map_err(|error| failed(std::io::Error::other(error))),
            }
        }
    }
}

fn to_json(keepers: &Keepers) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(keepers)
}

impl RaftSnapshotBuilder<Keeping> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Keeping>, Failed> {
        let (meta, state) = {
            let state = self.shown.lock();
            let meta = SnapshotMeta {
                last_log_id: state.applied,
                last_membership: state.membership.clone(),
                snapshot_id: state.applied.map_or_else(String::new, |id| id.to_string()),
            };
            (meta, state.keepers.clone())
        };
        let bytes = self.write(Stored { meta: meta.clone(), state }).await?;
        let mut state = self.shown.lock();
        // One that was installed meanwhile may be newer.
        if state.snapshot.as_ref().is_none_or(|(there, _)| there.last_log_id <= meta.last_log_id) {
            state.snapshot = Some((meta.clone(), Arc::clone(&bytes)));
        }
        Ok(Snapshot { meta, snapshot: Box::new(bytes.to_vec()) })
    }
}

impl RaftStateMachine<Keeping> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, BasicNode>), Failed> {
        let state = self.shown.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, Failed>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        {
            let mut state = self.shown.lock();
            let mut last = None;
            for entry in entries {
                last = Some(entry.log_id);
                answers.push(match entry.payload {
                    EntryPayload::Blank => Applied::Done,
                    EntryPayload::Normal(Proposal { term, entry: proposed }) => match proposed {
                        Some(_) if term.is_some_and(|term| term != entry.log_id.leader_id) => {
                            Applied::Nothing("the leader that decided it leads no more".into())
                        }
                        Some(proposed) => state.keepers.apply(&proposed),
                        None => Applied::Done,
                    },
                    EntryPayload::Membership(membership) => {
                        state.membership = StoredMembership::new(last, membership);
                        Applied::Done
                    }
                });
            }
            state.applied = last.or(state.applied);
            if let (Err(what), Some(last)) = (state.keepers.check(), last) {
                let what = std::io::Error::other(format!("the keepers' state is wrong: {what}"));
                return Err(StorageIOError::apply(last, &what).into());
            }
        }
        self.shown.tell();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, Failed> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), Failed> {
        let parse = move || {
            let keepers: Keepers = serde_json::from_slice(&snapshot)?;
            keepers.check().map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(keepers)
        };
        let parsed = tokio::task::spawn_blocking(parse).await.map_err(std::io::Error::other);
        let keepers = parsed.flatten().map_err(|error| {
            Failed::from(StorageIOError::read_snapshot(Some(meta.signature()), &error))
        })?;
        let bytes = self.write(Stored { meta: meta.clone(), state: keepers.clone() }).await?;
        {
            let mut state = self.shown.lock();
            state.keepers = keepers;
            state.applied = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.snapshot = Some((meta.clone(), bytes));
        }
        self.shown.tell();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Keeping>>, Failed> {
        let current = self.shown.lock().snapshot.clone();
        Ok(current.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(bytes.to_vec()) }))
    }
}
