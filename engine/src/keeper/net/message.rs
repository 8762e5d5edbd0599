//! Messages of the control port.

use firebrick_partition::keeper::{
    Applied, Heartbeat, LeaseAnswer, Overview, Registration, Settings,
};
use firebrick_partition::maps::{MapDelta, TableOptions};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, SnapshotMeta, Vote};
use serde::{Deserialize, Serialize};

use crate::keeper::types::{Keeping, NodeId};

/// A question with its number; the answer repeats it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    pub(crate) number: u64,
    /// Another brick passes it on for somebody: it goes no further.
    pub(crate) relayed: bool,
    pub(crate) ask: Ask,
}

/// An answer with the number of its question.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reply {
    pub(crate) number: u64,
    pub(crate) answer: Answer,
}

/// What one brick asks another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Raft: entries, or a heartbeat of the leader.
    Append(AppendEntriesRequest<Keeping>),
    /// Raft: a vote.
    Vote(VoteRequest<NodeId>),
    /// Raft: a part of a snapshot, which lies behind the JSON.
    Snapshot {
        /// The leader's vote.
        vote: Vote<NodeId>,
        /// Which snapshot.
        meta: SnapshotMeta<NodeId, BasicNode>,
        /// Where the part begins.
        offset: u64,
        /// It is the last.
        last: bool,
    },
    /// For a lease.
    Heartbeat(Heartbeat),
    /// A process wants to act for a brick. `has_log`: it has its keeper's folder.
    Join {
        /// Who.
        registration: Box<Registration>,
        /// It has its keeper's log, so what it voted for is not forgotten.
        has_log: bool,
    },
    /// For an operator, or a client's rare request.
    Admin(Admin),
    /// The maps, or what changed since a version.
    Maps {
        /// The version that is there; 0: none.
        since: u64,
    },
    /// The cluster as its leader sees it, for people.
    Overview,
}

/// What can be changed from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Admin {
    /// Makes a table. `options.partitions` 0: `per_core` on each data core of the cluster.
    CreateTable {
        /// Its name.
        name: String,
        /// Its options.
        options: TableOptions,
        /// Partitions on each data core.
        per_core: u32,
        /// Somebody named the number of replicas: it is refused while there are fewer bricks.
        exact: bool,
    },
    /// Drops one.
    DropTable {
        /// Its name.
        name: String,
        /// Its number, as far as whoever asks knows: an ask that comes late drops no other one of the name.
        id: Option<u32>,
    },
    /// The files of dropped partitions are gone from a brick.
    Forgotten {
        /// The brick.
        brick: u32,
        /// The partitions.
        partitions: Vec<u32>,
    },
    /// Empties a brick, or ends that.
    Drain {
        /// Its name.
        brick: String,
        /// Begin.
        on: bool,
        /// Although tables want more replicas than there will be bricks.
        fewer_replicas: bool,
    },
    /// Forgets an empty brick.
    RemoveBrick {
        /// Its name.
        brick: String,
    },
    /// A replica goes from one brick to another.
    Move {
        /// The partition.
        partition: u32,
        /// Name of the brick that has it.
        from: String,
        /// Name of the brick that gets it.
        to: String,
    },
    /// A backup becomes the primary.
    HandOver {
        /// The partition.
        partition: u32,
        /// Its name.
        to: String,
    },
    /// What was wished of a partition is wished no more.
    CancelMove {
        /// The partition.
        partition: u32,
    },
    /// Whatever may be lost: somebody leads a partition that has stopped.
    LeadAnyway {
        /// The partition.
        partition: u32,
        /// The brick's name; `None`: the one that has the most.
        brick: Option<String>,
    },
    /// Changes the settings.
    Settings(Settings),
}

/// Why something was not changed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Why {
    /// It is not allowed, or makes no sense.
    Refused,
    /// What it names is not there.
    NotFound,
    /// What it would make is there.
    Exists,
    /// Nothing was changed, and the same may be done soon.
    NotNow,
    /// It may have been done.
    InDoubt,
}

/// Why something was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) why: Why,
    /// A sentence for people.
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// To Append.
    Append(AppendEntriesResponse<NodeId>),
    /// To Vote.
    Vote(VoteResponse<NodeId>),
    /// To a part of a snapshot; with the last one the vote of who installed it.
    Snapshot(Option<SnapshotResponse<NodeId>>),
    /// To Heartbeat.
    Lease(LeaseAnswer),
    /// To Join.
    Join(JoinAnswer),
    /// To Admin: what became of it, and the version of the maps that shows it.
    Applied {
        /// What became of the entry.
        applied: Applied,
        /// Of the maps.
        version: u64,
    },
    /// To Admin: it was not done, or nobody knows.
    Declined(Refusal),
    /// To Maps.
    Maps(MapDelta),
    /// To Overview.
    Overview {
        /// What the leader sees.
        overview: Box<Overview>,
        /// Its brick.
        leader: u32,
        /// Its term.
        term: u64,
    },
    /// This keeper does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<String>,
    },
    /// It cannot be done; the sentence says why.
    Refused(String),
}

/// To Join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JoinAnswer {
    /// The process acts for the brick from now on.
    Joined {
        /// The cluster's number.
        cluster: u64,
        /// The brick's id.
        brick: u32,
        /// Where keepers are.
        keepers: Vec<String>,
        /// Dropped partitions of which the brick may still have files.
        dropped: Vec<u32>,
    },
    /// The brick was removed, and its folders are still there.
    Removed,
    /// An older process may hold a lease: ask again after this time.
    Wait {
        /// Milliseconds.
        ms: u64,
    },
}
