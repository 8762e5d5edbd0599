//! What travels in the simulated network.

use firebrick_partition::keeper::{Heartbeat, LeaseAnswer, Registration};
use firebrick_partition::maps::Maps;

/// Whoever sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A brick's machine, by number.
    Brick(usize),
    /// The keepers: one place, whose leader changes.
    Keeper,
    /// A client.
    Client(usize),
}

/// A message. Those of the data path are bytes, as on the wire.
#[derive(Clone, Debug)]
pub enum Message {
    /// Between replicas, from a brick id.
    Peer { from: u32, bytes: Vec<u8> },
    /// A client's request; `tag` names the try.
    Request { tag: u64, bytes: Vec<u8> },
    /// Its answer.
    Answer { tag: u64, bytes: Vec<u8> },
    /// The connection of a try is closed: nobody will answer it.
    Closed { tag: u64 },
    /// A process wants to act for its brick.
    Register(Box<Registration>),
    /// It does now.
    Registered { incarnation: u64, brick: u32 },
    /// A heartbeat, with the sender's clock.
    Beat { heartbeat: Box<Heartbeat>, sent: u64 },
    /// Its answer; `sent` is the heartbeat's.
    Lease { incarnation: u64, answer: Box<LeaseAnswer>, sent: u64 },
    /// A client wants the maps.
    FetchMaps,
    /// Here they are.
    Maps(Box<Maps>),
}

impl Message {
    /// In a word, for the trace.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Peer { bytes, .. } => match bytes.first() {
                Some(16) => "Prepare",
                Some(17) => "Voted",
                Some(18) => "Refused",
                Some(19) => "Commit",
                Some(20) => "AskCommit",
                Some(21) => "TakeOver",
                Some(22) => "TailIs",
                Some(24) => "CopyStart",
                Some(25) => "CopyRead",
                Some(26) => "CopyDone",
                Some(28) => "CopyListing",
                Some(29) => "CopyData",
                _ => "Peer",
            },
            Self::Request { .. } => "Request",
            Self::Answer { .. } => "Answer",
            Self::Closed { .. } => "Closed",
            Self::Register(_) => "Register",
            Self::Registered { .. } => "Registered",
            Self::Beat { .. } => "Beat",
            Self::Lease { .. } => "Lease",
            Self::FetchMaps => "FetchMaps",
            Self::Maps(_) => "Maps",
        }
    }
}
