//! What the keepers agree on, one entry at a time, and what came of it.

use serde::{Deserialize, Serialize};

use super::state::Settings;
use super::wishes::Wish;
use crate::maps::{Intent, TableOptions};

/// A file on one host: the same numbers, the same boot and a held lock mean that no older process has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// A process says who it is and what it found of its earlier life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Made when the brick's folders were new.
    pub identity: u64,
    /// Its name.
    pub name: String,
    /// Random, new at each start, not 0.
    pub incarnation: u64,
    /// The kernel's boot id.
    pub boot: String,
    /// The lock file that it holds.
    pub lock: LockFile,
    /// When it started, by the clock of that boot: what an earlier process asked may come late.
    pub started_ns: u64,
    /// Everything that the process before had in memory is there.
    pub memory_intact: bool,
    /// Everything that the process before had flushed is there.
    pub disk_intact: bool,
    /// Processes whose files these may be: the one before, and those before it that did not get far. In an entry none:
    /// [`Leases::register`](super::Leases::register) has compared them.
    #[serde(default)]
    pub before: Vec<u64>,
    /// The process of which everything is on the disk, because it ended as it should; 0: not known.
    #[serde(default)]
    pub flushed: u64,
    /// Data cores.
    pub cores: u16,
    /// Memory for replicas.
    pub memory_bytes: u64,
    /// Failure domain.
    pub host: String,
    /// Wider failure domain.
    pub rack: String,
    /// Native protocol, `HOST:PORT`.
    pub listen: String,
    /// Control port.
    pub control: String,
    /// Redis protocol.
    pub resp: String,
    /// HTTP.
    pub http: String,
}

/// Why nothing that an older process of the brick may still do counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// There is no older process.
    First,
    /// The leader saw its lease end.
    LeaseEnded,
    /// The new process holds the lock that it held, on the same boot of the same host, and started after it.
    SameLock,
    /// It was its own only keeper, and the new process has the keepers' log.
    OwnKeeper,
}

/// One decision. `epoch`, `incarnation`: on which it rests; when they changed it does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A process starts to act for a brick. [`super::Leases::register`] makes it.
    Register {
        /// Who.
        registration: Box<Registration>,
        /// The process that it follows.
        replaces: Option<u64>,
        /// Why that one is over.
        proof: Proof,
    },
    /// The only brick gave up its lease without end.
    Finite {
        /// The brick.
        brick: u32,
        /// Its process.
        incarnation: u64,
    },
    /// A brick's lease has ended: it leaves all its groups, as they then are.
    TakeOut {
        /// The brick.
        brick: u32,
        /// Its process.
        incarnation: u64,
    },
    /// Makes a table. [`super::create_table`] makes it.
    CreateTable {
        /// Its name.
        name: String,
        /// Its options.
        options: TableOptions,
        /// For each partition its members (brick, incarnation), primary first.
        placement: Vec<Vec<(u32, u64)>>,
    },
    /// Drops a table.
    DropTable {
        /// Its name.
        name: String,
    },
    /// The files of dropped partitions are gone from a brick.
    Forgotten {
        /// The brick.
        brick: u32,
        /// The partitions.
        partitions: Vec<u32>,
    },
    /// A primary begins its epochs.
    Active {
        /// The primary.
        brick: u32,
        /// Its process.
        incarnation: u64,
        /// (partition, epoch).
        groups: Vec<(u32, u32)>,
    },
    /// A brick is copied to.
    NameLearner {
        /// Partition.
        partition: u32,
        /// Of the group.
        epoch: u32,
        /// The brick.
        brick: u32,
        /// Its process.
        incarnation: u64,
    },
    /// A copy is given up.
    DropLearner {
        /// Partition.
        partition: u32,
        /// Of the group.
        epoch: u32,
        /// The brick.
        brick: u32,
    },
    /// The copy is whole: the learner becomes the last member.
    Promote {
        /// Partition.
        partition: u32,
        /// Of the group.
        epoch: u32,
        /// The brick.
        learner: u32,
        /// (brick, incarnation) of every member and of the learner.
        incarnations: Vec<(u32, u64)>,
    },
    /// A member is asked to stop serving. Does not raise the epoch.
    SetIntent {
        /// Partition.
        partition: u32,
        /// Of the group.
        epoch: u32,
        /// What is asked.
        intent: Intent,
    },
    /// What was asked is asked no more; the epoch ends what was confirmed.
    Withdraw {
        /// Partition.
        partition: u32,
        /// Of the group.
        epoch: u32,
    },
    /// A member that confirmed that it stopped leaves.
    Leave {
        /// Partition.
        partition: u32,
        /// Of the group, and of the confirmation.
        epoch: u32,
        /// The brick.
        brick: u32,
        /// Its process.
        incarnation: u64,
    },
    /// A primary that confirmed that it stopped becomes the last backup.
    StepDown {
        /// Partition.
        partition: u32,
        /// Of the group, and of the confirmation.
        epoch: u32,
        /// The primary.
        brick: u32,
        /// Its process.
        incarnation: u64,
        /// The member that is primary from now on.
        to: u32,
    },
    /// A member says that its replica is not whole: it is asked to leave, unless it is the last.
    Damaged {
        /// Partition.
        partition: u32,
        /// Of the group.
        epoch: u32,
        /// The brick.
        brick: u32,
        /// Its process.
        incarnation: u64,
    },
    /// The rule for whole groups: one that kept everything leads alone.
    Lead {
        /// Partition.
        partition: u32,
        /// Of the group.
        epoch: u32,
        /// The brick.
        brick: u32,
        /// Its process.
        incarnation: u64,
        /// Nobody kept everything, or an operator says so: what this one has counts.
        accept_loss: bool,
    },
    /// An operator wishes something of a partition; `None`: not any more.
    Wish {
        /// Partition.
        partition: u32,
        /// What.
        wish: Option<Wish>,
    },
    /// What was wished cannot be.
    EndWish {
        /// Partition.
        partition: u32,
        /// What was wished.
        wish: Wish,
        /// Why not.
        why: String,
    },
    /// Empties a brick, or ends that.
    Drain {
        /// The brick.
        brick: u32,
        /// Begin.
        on: bool,
    },
    /// Forgets an empty brick.
    RemoveBrick {
        /// The brick.
        brick: u32,
    },
    /// Who should be keeper.
    SetKeepers {
        /// As it was when this was decided.
        before: Vec<u32>,
        /// As it should be: 1, 3 or 5.
        keepers: Vec<u32>,
    },
    /// Changes the settings.
    Settings(Settings),
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It holds.
    Done,
    /// The process acts for this brick from now on.
    Registered {
        /// The brick's id.
        brick: u32,
        /// Partitions whose last member came back without what it had.
        stopped: Vec<u32>,
    },
    /// The table is there.
    Created {
        /// Its id.
        table: u32,
    },
    /// The table is gone; its partitions, whose files may now go.
    Dropped {
        /// Partition ids.
        partitions: Vec<u32>,
    },
    /// A brick leads a group that had stopped.
    Led {
        /// The partition.
        partition: u32,
        /// What may be lost; `None`: nothing.
        loss: Option<String>,
    },
    /// It did nothing, and why.
    Nothing(String),
}

impl Applied {
    /// Why nothing happened.
    pub fn refusal(&self) -> Option<&str> {
        if let Self::Nothing(why) = self { Some(why) } else { None }
    }
}
