//! The keepers' snapshot: one file, replaced whole. Reading and writing it blocks, so callers do it on a
//! blocking thread; it is not on the log's thread, because a large snapshot would make entries wait.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use firebrick_partition::keeper::Keepers;
use openraft::{BasicNode, SnapshotMeta};
use serde::{Deserialize, Serialize};

use crate::durable::{self, FileKind};
use crate::error::BrickError;
use crate::keeper::types::NodeId;

const FILE: &str = "snapshot";
const KIND: FileKind = FileKind { word: "keeper-snapshot", format: 1 };

/// What the file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    /// Up to where, and with which keepers.
    pub(crate) meta: SnapshotMeta<NodeId, BasicNode>,
    /// The state.
    pub(crate) state: Keepers,
}

/// The file.
pub(crate) struct SnapshotFile {
    path: PathBuf,
    /// One writer at a time: a snapshot that was built must not replace a newer one that came.
    newest: Mutex<Option<u64>>,
}

impl SnapshotFile {
    /// Reads the file, if there is one.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Option<Stored>), BrickError> {
        let path = folder.join(FILE);
        let stored: Option<Stored> = durable::read(&path, KIND)?;
        if let Some(stored) = &stored {
            stored
                .state
                .check()
                .map_err(|what| BrickError::Damaged { path: path.clone(), what })?;
        }
        let newest = Mutex::new(stored.as_ref().and_then(Stored::index));
        Ok((Self { path, newest }, stored))
    }

    /// Puts a snapshot there, unless a newer one is.
    pub(crate) fn write(&self, stored: &Stored) -> Result<(), BrickError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if *newest > stored.index() {
            return Ok(());
        }
        durable::write(&self.path, KIND, stored)?;
        *newest = stored.index();
        Ok(())
    }
}

impl Stored {
    fn index(&self) -> Option<u64> {
        self.meta.last_log_id.map(|id| id.index)
    }
}
