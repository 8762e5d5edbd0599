//! What openraft is told about the keepers.

use firebrick_partition::keeper::{Applied, Entry};
use serde::{Deserialize, Serialize};

/// Whose leadership: a number that grows, and the keeper. Two keepers may lead with the same number, one after the
/// other, so it takes both.
pub type Term = openraft::CommittedLeaderId<NodeId>;

/// An entry, and the leadership in which it was decided. What a leader knows of leases is of its own leadership: an
/// entry that reaches the log in another one does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// Of the leader; `None`: whichever.
    pub term: Option<Term>,
    /// The entry; `None`: a mark. When a leader's mark is applied, whatever earlier leaders proposed is too, or
    /// never will be.
    pub entry: Option<Entry>,
}

openraft::declare_raft_types!(
    /// The keepers' Raft: entries of `partition::keeper`, bricks as nodes.
    pub Keeping:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = openraft::BasicNode,
        SnapshotData = Vec<u8>,
);

/// A keeper: its brick's id.
pub type NodeId = u64;
/// An entry of the Raft log.
pub type LogEntry = openraft::Entry<Keeping>;
/// The node.
pub type Raft = openraft::Raft<Keeping>;
