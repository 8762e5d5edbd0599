//! A brick's keeper: its Raft node, the state, and what it answers on the control port.
//!
//! Every brick has one; those that the keepers' state names are voters, the others wait to become one. Only the
//! leader decides anything; see `lead`.
//!
//! Times. Raft's heartbeat is looked at every 75 ms. A follower that has heard nothing for 150 ms (the time in
//! which it refuses to elect anybody else) and 100 to 150 ms more stands for election: 250 to 300 ms and two flushes
//! of the log after the last sign of the old leader there is a new one, well within a lease of 500 ms.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firebrick_partition::keeper::{Heartbeat, Leases};
use openraft::{BasicNode, Config, ServerState, Snapshot, SnapshotPolicy};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::disk::{DiskThread, LogStore};
use super::machine::{Machine, Shown};
use super::net::{Answer, Ask, Handler, Hello, Lane, Links, Refusal, Why};
use super::network::Network;
use super::types::{NodeId, Raft, Term};
use crate::error::BrickError;
use crate::notices::Notices;

const HEARTBEAT_MS: u64 = 50;
const ELECTION_MS: (u64, u64) = (100, 150);
/// For one part of a snapshot to be taken, and the last one to be installed.
const SNAPSHOT_MS: u64 = 10_000;
/// Entries after which a snapshot is made. A quarter of them stays in the log behind one, for followers.
pub(crate) const SNAPSHOT_ENTRIES: u64 = 2_000;
/// A snapshot that comes in is not larger.
const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// Heartbeats that wait for the next check of the leadership.
const BEATS_MAX: usize = 1024;
/// Entries that outsiders' requests have under way.
const PROPOSALS_MAX: usize = 64;
/// For a question that is passed on to the leader.
const RELAY_TIMEOUT: Duration = Duration::from_secs(5);

/// A heartbeat and who waits for its answer.
pub(super) type Beat = (Heartbeat, oneshot::Sender<Answer>);

/// What a keeper is made with.
pub(crate) struct NodeSetup<'a> {
    /// The folder `keeper` of data_dir.
    pub(crate) folder: &'a Path,
    /// This brick's id.
    pub(crate) brick: u32,
    /// This brick's process.
    pub(crate) incarnation: u64,
    /// The cluster's number.
    pub(crate) cluster: u64,
    /// This brick founded the cluster: if its log is empty, it is the first keeper.
    pub(crate) founder: bool,
    /// Where its control port is reached.
    pub(crate) control: String,
    /// Entries after which a snapshot is made.
    pub(crate) snapshot_entries: u64,
    /// For connections.
    pub(crate) links: Links,
    /// For sentences.
    pub(crate) notices: Notices,
}

/// See the module's text. The tasks of the control thread share it.
pub(crate) struct Node {
    pub(super) brick: u32,
    pub(super) incarnation: u64,
    pub(crate) cluster: u64,
    pub(super) raft: Raft,
    pub(super) shown: Shown,
    pub(super) links: Links,
    pub(super) notices: Notices,
    pub(super) leases: Mutex<Leases>,
    /// The leadership that the leases above are of, while this keeper leads; see `lead`.
    pub(super) leading: watch::Sender<Option<Term>>,
    pub(super) beats: mpsc::Sender<Beat>,
    pub(super) proposals: Arc<Semaphore>,
    /// Something may be worth a look of the planner.
    pub(super) look: Notify,
    snapshot: Mutex<Option<(String, Vec<u8>)>>,
}

/// What has to be ended when the brick stops.
pub(crate) struct Running {
    tasks: JoinSet<()>,
    disk: DiskThread,
}

fn raft_config(cluster: u64, snapshot_entries: u64) -> Result<Arc<Config>, BrickError> {
    let config = Config {
        cluster_name: format!("{cluster:016x}"),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        install_snapshot_timeout: SNAPSHOT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_entries),
        max_in_snapshot_log_to_keep: snapshot_entries / 4,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| thread_error(&error))
}

fn thread_error(error: &impl std::fmt::Display) -> BrickError {
    BrickError::Thread { name: "keeper".into(), what: error.to_string() }
}

impl Node {
    /// Opens the keeper's folder and starts its tasks. On the control thread's runtime.
    pub(crate) async fn start(setup: NodeSetup<'_>) -> Result<(Arc<Self>, Running), BrickError> {
        let NodeSetup { folder, brick, cluster, .. } = setup;
        let config = raft_config(cluster, setup.snapshot_entries)?;
        let (machine, shown) = Machine::open(folder, setup.notices.clone())?;
        let (log, disk) = LogStore::open(folder, &setup.notices)?;
        let pristine = log.is_pristine();
        let network = Network::new(setup.links.clone(), shown.clone());
        let id = NodeId::from(brick);
        let raft = Raft::new(id, config, network, log, machine).await;
        let raft = raft.map_err(|error| thread_error(&error))?;
        if setup.founder && pristine {
            let first = BTreeMap::from([(id, BasicNode { addr: setup.control.clone() })]);
            raft.initialize(first).await.map_err(|error| thread_error(&error))?;
        }
        // The only keeper waits for nobody.
        let waits = raft.with_raft_state(move |state| {
            let voters = state.membership_state.effective().voter_ids();
            voters.eq([id]) && state.server_state == ServerState::Follower
        });
        if waits.await.map_err(|error| thread_error(&error))? {
            raft.trigger().elect().await.map_err(|error| thread_error(&error))?;
        }
        let (beats, waiting) = mpsc::channel(BEATS_MAX);
        let node = Arc::new(Self {
            brick,
            incarnation: setup.incarnation,
            cluster,
            raft,
            shown,
            links: setup.links,
            notices: setup.notices,
            leases: Mutex::default(),
            leading: watch::Sender::default(),
            beats,
            proposals: Arc::new(Semaphore::new(PROPOSALS_MAX)),
            look: Notify::new(),
            snapshot: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(super::lead::lead(Arc::clone(&node)));
        tasks.spawn(super::lead::answer_beats(Arc::clone(&node), waiting));
        Ok((node, Running { tasks, disk }))
    }

    /// Ends everything; what was answered is on the disk.
    pub(crate) async fn stop(self: Arc<Self>, mut running: Running) -> Result<(), BrickError> {
        running.tasks.shutdown().await;
        // An error means that it had stopped by itself, and said so.
        let _ = self.raft.shutdown().await;
        drop(self);
        let join = tokio::task::spawn_blocking(move || running.disk.join());
        join.await.map_err(|error| thread_error(&error))?
    }

    /// This brick's id.
    pub(crate) fn brick(&self) -> u32 {
        self.brick
    }

    /// The leadership of this keeper, if it leads.
    pub(super) fn leading(&self) -> Option<Term> {
        *self.leading.borrow()
    }

    /// This keeper leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.leading().is_some()
    }

    /// Tells the version of the maps whenever this keeper has applied something.
    pub(crate) fn watch_maps(&self) -> watch::Receiver<u64> {
        self.shown.watch()
    }

    /// Waits until it leads.
    pub(crate) async fn until_leading(&self) {
        // The sender is in `self`: it cannot go.
        let _ = self.leading.subscribe().wait_for(Option::is_some).await;
    }

    /// Who leads, as far as this keeper knows: its id and address.
    pub(crate) fn leader(&self) -> Option<(u32, String)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let known = self.shown.lock().keepers.brick(leader as u32).map(|b| b.control.clone());
        let first =
            || metrics.membership_config.membership().get_node(&leader).map(|n| n.addr.clone());
        known.or_else(first).map(|at| (leader as u32, at))
    }

    /// Where keepers are, this one aside when it is none.
    pub(crate) fn keepers_at(&self) -> Vec<String> {
        let metrics = self.raft.metrics();
        let membership = Arc::clone(&metrics.borrow().membership_config);
        let state = self.shown.lock();
        let at = |(id, node): (&NodeId, &BasicNode)| {
            let brick = state.keepers.brick(*id as u32);
            brick.map_or_else(|| node.addr.clone(), |brick| brick.control.clone())
        };
        let voters: Vec<NodeId> = membership.membership().voter_ids().collect();
        membership.membership().nodes().filter(|(id, _)| voters.contains(id)).map(at).collect()
    }

    /// Who votes among the keepers, as this keeper knows it.
    pub(super) fn voters(&self) -> Vec<u32> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().voter_ids().map(|id| id as u32).collect()
    }

    /// This keeper's process is the only keeper there is.
    pub(super) fn is_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().voter_ids().eq([NodeId::from(self.brick)])
    }

    /// Answers what only the leader can, or passes it on to it, once.
    pub(crate) async fn ask_leader(self: &Arc<Self>, relayed: bool, ask: Ask) -> Answer {
        if self.leading().is_some() {
            return self.answer_as_leader(ask).await;
        }
        let leader = self.leader().filter(|(id, _)| *id != self.brick);
        let Some((to, at)) = leader.filter(|_| !relayed) else {
            return Answer::NotLeader { leader: self.leader().map(|(_, at)| at) };
        };
        pass_on(&self.links, (to, at), ask).await
    }

    async fn take_snapshot_part(
        &self,
        ask: (openraft::Vote<NodeId>, openraft::SnapshotMeta<NodeId, BasicNode>, u64, bool),
        part: Vec<u8>,
    ) -> Answer {
        let (vote, meta, offset, last) = ask;
        let bytes = {
            let mut coming = lock(&self.snapshot);
            if offset == 0 {
                *coming = Some((meta.snapshot_id.clone(), Vec::new()));
            }
            let Some((_, bytes)) = coming.as_mut().filter(|(id, bytes)| {
                *id == meta.snapshot_id
                    && bytes.len() as u64 == offset
                    && bytes.len() + part.len() <= SNAPSHOT_BYTES_MAX
            }) else {
                *coming = None;
                return Answer::Refused(
                    "the parts of the snapshot do not follow each other".into(),
                );
            };
            bytes.extend_from_slice(&part);
            if !last {
                return Answer::Snapshot(None);
            }
            coming.take().map(|(_, bytes)| bytes).unwrap_or_default()
        };
        let snapshot = Snapshot { meta, snapshot: Box::new(bytes) };
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(response) => Answer::Snapshot(Some(response)),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
}

/// Passes a question on to who leads.
pub(super) async fn pass_on(links: &Links, (to, at): (u32, String), ask: Ask) -> Answer {
    let changes = matches!(ask, Ask::Admin(_));
    match links.ask(&at, to, Lane::Asks, (true, ask), &[], RELAY_TIMEOUT).await {
        Ok(answer) => answer,
        // It may be done all the same.
        Err(error) if changes && error.sent => {
            Answer::Declined(Refusal::new(Why::InDoubt, error.text))
        }
        Err(_) => Answer::NotLeader { leader: Some(at) },
    }
}

/// The control port's answers.
pub(crate) struct Port(pub(crate) Arc<Node>);

impl Handler for Port {
    fn me(&self) -> (u64, u32) {
        (self.0.cluster, self.0.brick)
    }

    async fn answer(&self, _from: Hello, relayed: bool, ask: Ask, tail: Vec<u8>) -> Answer {
        let refused = |error: &dyn std::fmt::Display| Answer::Refused(error.to_string());
        match ask {
            Ask::Append(rpc) => match self.0.raft.append_entries(rpc).await {
                Ok(response) => Answer::Append(response),
                Err(error) => refused(&error),
            },
            Ask::Vote(rpc) => match self.0.raft.vote(rpc).await {
                Ok(response) => Answer::Vote(response),
                Err(error) => refused(&error),
            },
            Ask::Snapshot { vote, meta, offset, last } => {
                self.0.take_snapshot_part((vote, meta, offset, last), tail).await
            }
            ask => self.0.ask_leader(relayed, ask).await,
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the control port.
pub(crate) fn listen(address: SocketAddr) -> Result<std::net::TcpListener, BrickError> {
    let listener = std::net::TcpListener::bind(address)
        .map_err(|error| BrickError::listen("control", address, error))?;
    listener.set_nonblocking(true).map_err(|error| thread_error(&error))?;
    Ok(listener)
}
