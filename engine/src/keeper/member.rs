//! Which brick of which cluster this is: `data_dir/keeper/member`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::FOLDER;
use crate::durable::{self, FileKind};
use crate::error::BrickError;

const FILE: &str = "member";
const KIND: FileKind = FileKind { word: "member", format: 1 };

/// The file's contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// The cluster's number, random, never 0.
    pub(crate) cluster: u64,
    /// The brick's id.
    pub(crate) brick: u32,
    /// It founded the cluster: when its log is empty it is the first keeper.
    pub(crate) founder: bool,
    /// Where keepers were; none before the brick's keeper has a log and the brick is registered.
    pub(crate) keepers: Vec<String>,
}

/// The folder `keeper` in data_dir, made if it is missing.
pub(crate) fn folder(data_dir: &Path) -> Result<PathBuf, BrickError> {
    let folder = data_dir.join(FOLDER);
    match std::fs::create_dir(&folder) {
        Ok(()) => std::fs::File::open(data_dir)
            .and_then(|data_dir| data_dir.sync_all())
            .map_err(BrickError::file("flush the folder", data_dir))?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(BrickError::file("create the folder", &folder)(error)),
    }
    Ok(folder)
}

/// Reads the file. Without one nothing else of a member may be there: it would be forgotten.
pub(crate) fn read(data_dir: &Path) -> Result<Option<Member>, BrickError> {
    let path = data_dir.join(FOLDER).join(FILE);
    let found: Option<Member> = durable::read(&path, KIND)?;
    if let Some(member) = &found {
        if member.cluster == 0 || member.brick == 0 {
            let what = "it names cluster 0 or brick 0".into();
            return Err(BrickError::Damaged { path, what });
        }
        refuse_forgetful(data_dir, member)?;
        return Ok(found);
    }
    refuse_orphans(&path, data_dir)?;
    Ok(None)
}

/// Replaces the file.
pub(crate) fn write(folder: &Path, member: &Member) -> Result<(), BrickError> {
    durable::write(&folder.join(FILE), KIND, member)
}

/// Without its log this brick's keeper has forgotten whom it voted for, and a founder would found its cluster once more.
fn refuse_forgetful(data_dir: &Path, member: &Member) -> Result<(), BrickError> {
    let path = data_dir.join(FOLDER).join("log");
    if member.keepers.is_empty() || path.exists() {
        return Ok(());
    }
    let what = "is missing, and with it what this brick's keeper voted for; nothing was changed: put the file back, or \
                start the brick with an empty data_dir, as a new one with another name, and remove the old one";
    Err(BrickError::Foreign { path, what: what.into() })
}

/// Partitions, or a keeper's log, without the file that says whose they are.
fn refuse_orphans(path: &Path, data_dir: &Path) -> Result<(), BrickError> {
    let refuse = |what: String| {
        Err(BrickError::Foreign {
            path: path.to_owned(),
            what: format!(
                "is missing, but {} holds {what}; nothing was changed: put the file back, or move the \
                 folder away to start empty",
                data_dir.display()
            ),
        })
    };
    for name in ["log", "snapshot"] {
        if data_dir.join(FOLDER).join(name).exists() {
            return refuse(format!("a keeper's {name}"));
        }
    }
    let listing = std::fs::read_dir(data_dir).map_err(BrickError::file("list", data_dir))?;
    for entry in listing {
        let name = entry.map_err(BrickError::file("list", data_dir))?.file_name();
        let name = name.to_string_lossy();
        if name.strip_prefix('p').is_some_and(|id| id.parse::<u32>().is_ok()) {
            return refuse(format!("partitions (\"{name}\")"));
        }
    }
    Ok(())
}
