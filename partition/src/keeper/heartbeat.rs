//! What a brick and the keepers tell each other ten times a second.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::maps::MapDelta;

/// What a replica has to say to the keepers; said again until the map shows that it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Report {
    /// The primary is ready to begin its epoch.
    Active {
        /// Partition.
        partition: u32,
        /// Its epoch.
        epoch: u32,
    },
    /// The learner has everything, and the primary requires its vote from now on.
    Copied {
        /// Partition.
        partition: u32,
        /// Its epoch.
        epoch: u32,
        /// The learner.
        learner: u32,
    },
    /// The member that the intent names has stopped serving.
    Stopped {
        /// Partition.
        partition: u32,
        /// Its epoch.
        epoch: u32,
    },
    /// A vote has been outstanding for a lease.
    Silent {
        /// Partition.
        partition: u32,
        /// Its epoch.
        epoch: u32,
        /// Whose vote.
        brick: u32,
    },
    /// The replica is not whole.
    Damaged {
        /// Partition.
        partition: u32,
        /// Its epoch.
        epoch: u32,
    },
}

impl Report {
    /// The partition.
    pub fn partition(&self) -> u32 {
        self.at().0
    }

    /// (partition, epoch).
    pub fn at(&self) -> (u32, u32) {
        match *self {
            Self::Active { partition, epoch }
            | Self::Copied { partition, epoch, .. }
            | Self::Stopped { partition, epoch }
            | Self::Silent { partition, epoch, .. }
            | Self::Damaged { partition, epoch } => (partition, epoch),
        }
    }
}

/// Memory for replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// In all.
    pub total_bytes: u64,
    /// Not used.
    pub free_bytes: u64,
}

/// What a brick has no room for, or too few open files; or whose files failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// Why, in a sentence that says what to do.
    pub why: String,
    /// There is no room, or a disk failed: the brick is given nothing new. Else it is the files of these partitions.
    pub full: bool,
    /// Partitions that the brick does not serve for it: it leads them and cannot begin, or cannot open them, or their disk failed.
    pub partitions: Vec<u32>,
}

/// Partitions that a sentence names.
const NAMED_MAX: usize = 16;

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> =
            self.partitions.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if self.partitions.len() > NAMED_MAX { ", ..." } else { "" };
        match self.partitions.len() {
            0 => write!(f, "{}", self.why),
            1 => write!(f, "partition {} is not served as it should be: {}", named[0], self.why),
            n => {
                let named = named.join(", ");
                write!(
                    f,
                    "{n} partitions ({named}{more}) are not served as they should be: {}",
                    self.why
                )
            }
        }
    }
}

/// One replica in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// Partition.
    pub partition: u32,
    /// Live bytes.
    pub bytes: u64,
    /// Epoch of the last record.
    pub tail_epoch: u32,
    /// Its seq.
    pub tail_seq: u64,
}

/// How far a copy to a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFigure {
    /// Partition.
    pub partition: u32,
    /// Records that came, since the copy began.
    pub copied_bytes: u64,
    /// What of the source's segments has been gone through.
    pub passed_bytes: u64,
    /// What there is to go through; 0: the source has not said so yet.
    pub total_bytes: u64,
}

/// A brick's heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The brick.
    pub brick: u32,
    /// Its process.
    pub incarnation: u64,
    /// Version of the maps that all its cores have applied; what is answered are the changes since.
    pub version: u64,
    /// Some core of it may still hold a lease without end.
    pub endless: bool,
    /// What its replicas have to say.
    pub reports: Vec<Report>,
    /// All bricks that it cannot reach now, whatever it tried.
    pub unreachable: Vec<u32>,
    /// Memory.
    pub room: Room,
    /// Figures of replicas; those that are not here stay as they were.
    pub figures: Vec<Figure>,
    /// All copies to this brick that are under way.
    pub copies: Vec<CopyFigure>,
    /// Bytes a second that copies to and from its slowest data core may move, because foreground requests wait for them; 0: there is
    /// no bound.
    pub copy_pace: u64,
    /// Its process, for people.
    pub pid: u32,
    /// What it has no room for.
    pub lack: Option<Lack>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseAnswer {
    /// A lease, to be counted from before the heartbeat was sent, behind the changes on the way to the cores.
    Granted {
        /// How long; `None`: without end, for the only brick.
        lease_ms: Option<u64>,
        /// What to apply first.
        delta: MapDelta,
    },
    /// Another process acts for the brick: register.
    Register,
    /// The brick was removed.
    Removed,
}
