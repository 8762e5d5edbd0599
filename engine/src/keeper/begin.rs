//! A brick starts: it finds out which brick of which cluster it is, starts its keeper, and registers.
//!
//! | `keeper/member` | `join` | |
//! | --- | --- | --- |
//! | there | | the brick goes on as what it is |
//! | missing | none | it founds a cluster and is its first keeper |
//! | missing | addresses | it asks a keeper there for an id |

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebrick_partition::keeper::Registration;
use tokio::task::AbortHandle;

use super::ask::Finder;
use super::beat::removed;
use super::member::{self, Member};
use super::net::{Answer, Ask, JoinAnswer, Links, serve};
use super::node::{Node, NodeSetup, Port, Running};
use crate::error::BrickError;
use crate::lock::random;
use crate::notices::Notices;

/// The first brick of a cluster.
const FIRST_BRICK: u32 = 1;
/// For one try to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);
/// After which a brick says what it waits for, and then each time as long again.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a brick brings along.
pub struct KeeperSetup {
    /// The brick's folder on the disk.
    pub data_dir: PathBuf,
    /// The open control port.
    pub listener: TcpListener,
    /// Its address.
    pub control: SocketAddr,
    /// Where to ask for a cluster, when the brick is new.
    pub join: Vec<String>,
    /// Who it is.
    pub registration: Registration,
    /// Entries of the keepers' log after which a snapshot is made.
    pub snapshot_entries: u64,
    /// Sentences for the operator.
    pub(crate) notices: Notices,
}

/// A brick that is registered.
pub(crate) struct Begun {
    pub(crate) node: Arc<Node>,
    pub(crate) running: Running,
    pub(crate) serving: AbortHandle,
    pub(crate) finder: Finder,
    pub(crate) founder: bool,
    /// Dropped partitions of which files may be there.
    pub(crate) dropped: Vec<u32>,
}

/// See the module's text. Waits for the keepers as long as it takes.
pub(crate) async fn begin(setup: KeeperSetup) -> Result<Begun, BrickError> {
    let KeeperSetup { data_dir, listener, join, registration, snapshot_entries, notices, .. } =
        setup;
    let links = Links::default();
    let found = member::read(&data_dir)?;
    let has_log = found.is_some();
    let mut joined = None;
    let mut finder = Finder::new(links.clone(), join.clone());
    let member = match found {
        Some(member) => {
            note_ignored(&join, &member, &notices);
            member
        }
        None if join.is_empty() => {
            Member { cluster: random()?, brick: FIRST_BRICK, founder: true, keepers: Vec::new() }
        }
        None => {
            let there = register(&finder, &registration, false, &notices).await?;
            let (cluster, brick) = (there.cluster, there.brick);
            joined = Some(there);
            Member { cluster, brick, founder: false, keepers: Vec::new() }
        }
    };
    let folder = member::folder(&data_dir)?;
    if !has_log {
        member::write(&folder, &member)?;
    }
    links.set_me(member.cluster, member.brick);
    finder.add(member.keepers.iter().cloned());
    let node_setup = NodeSetup {
        folder: &folder,
        brick: member.brick,
        incarnation: registration.incarnation,
        cluster: member.cluster,
        founder: member.founder,
        control: registration.control.clone(),
        snapshot_entries,
        links,
        notices: notices.clone(),
    };
    let (node, running) = Node::start(node_setup).await?;
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(|error| BrickError::Thread { name: "control".into(), what: error.to_string() })?;
    let serving = tokio::spawn(serve(listener, Arc::new(Port(Arc::clone(&node))))).abort_handle();
    finder.set_own(Arc::clone(&node), &registration.control);
    let there = match joined {
        Some(there) => there,
        None => register(&finder, &registration, true, &notices).await?,
    };
    check_same(&folder, &member, &there)?;
    if !there.keepers.is_empty() && there.keepers != member.keepers {
        finder.add(there.keepers.iter().cloned());
        let keepers = there.keepers.clone();
        member::write(&folder, &Member { keepers, ..member.clone() })?;
    }
    let Registered { dropped, .. } = there;
    Ok(Begun { node, running, serving, finder, founder: member.founder, dropped })
}

fn note_ignored(join: &[String], member: &Member, notices: &Notices) {
    if !join.is_empty() && member.founder && member.keepers.is_empty() {
        notices.say("join is ignored: this brick is in a cluster already, that of its data_dir");
    }
}

/// The keepers must mean the brick that the folder means.
fn check_same(folder: &Path, member: &Member, there: &Registered) -> Result<(), BrickError> {
    if there.brick == member.brick && there.cluster == member.cluster {
        return Ok(());
    }
    Err(BrickError::Foreign {
        path: folder.to_owned(),
        what: format!(
            "says that this is brick {} of cluster {:016x}, the keepers say brick {} of cluster \
             {:016x}; nothing was changed: give each brick its own data_dir",
            member.brick, member.cluster, there.brick, there.cluster
        ),
    })
}

struct Registered {
    cluster: u64,
    brick: u32,
    keepers: Vec<String>,
    dropped: Vec<u32>,
}

/// Asks until this process acts for the brick.
async fn register(
    finder: &Finder,
    registration: &Registration,
    has_log: bool,
    notices: &Notices,
) -> Result<Registered, BrickError> {
    let ask = Ask::Join { registration: Box::new(registration.clone()), has_log };
    let mut told = Instant::now();
    loop {
        let mut say = |why: &str| {
            if told.elapsed() > PATIENCE {
                told = Instant::now();
                notices.say(format!("the brick waits for its keepers: {why}"));
            }
        };
        let wait = match finder.ask(&ask, REGISTER_TIMEOUT).await {
            Ok(Answer::Join(JoinAnswer::Joined { cluster, brick, keepers, dropped })) => {
                return Ok(Registered { cluster, brick, keepers, dropped });
            }
            Ok(Answer::Join(JoinAnswer::Removed)) => return Err(removed()),
            Ok(Answer::Join(JoinAnswer::Wait { ms })) => {
                say("an older process of this brick, or a lone brick's lease, is not over yet");
                Duration::from_millis(ms)
            }
            Ok(Answer::Refused(why)) => return Err(BrickError::Cluster(why)),
            Ok(_) => {
                say("a keeper answered something else than was asked");
                AGAIN
            }
            Err(refusal) => {
                say(&refusal.text);
                AGAIN
            }
        };
        // A keeper that is about to lead needs less than a wait.
        finder.await_own(wait).await;
    }
}
