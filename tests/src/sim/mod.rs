//! The simulator: bricks, keepers and clients in virtual time, on a network and on machines that fail.
//!
//! What runs is the production code of a replica and of the keepers' state machine; the network, clocks,
//! disks and the thin layers around (`process` stands for the data core's shard, `keeper` for Raft) are
//! made up. Everything is decided by a seed: the same seed gives the same run, event by event.

mod calls;
mod client;
pub mod clock;
mod cluster;
mod disk;
mod faults;
mod grip;
mod keeper;
pub mod machine;
mod message;
mod mistake;
pub mod named;
mod net;
pub mod plan;
mod process;
mod run;
mod script;
mod trace;
mod watch;
mod workload;
mod world;

pub use mistake::Mistake;
pub use plan::{Fault, Plan};
pub use run::{Failure, Outcome, run, shrink};
pub use script::Story;
pub use trace::Coverage;
