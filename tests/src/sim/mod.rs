//! The simulator: bricks, keepers and clients in virtual time, on a network and on machines that fail.
//!
//! Two levels share plan, faults, clocks, keepers, what is watched and what is checked; what each does in its own way is
//! its `Level` (`own`). In the first, what runs is the production code of a replica and of the keepers' state machine;
//! the network, clocks, disks and the thin layers around (`process` stands for the data core's shard, `keeper` for Raft,
//! `client` for a session) are made up. It is fast, and scripts can hold every message of it. In the second (`whole`)
//! the production shard and session run on the fake fabric and on real files. Everything is decided by a seed: the same
//! seed gives the same run, event by event.

mod calls;
mod client;
pub mod clock;
mod cluster;
mod disk;
mod entries;
mod faults;
mod grip;
mod keeper;
mod level;
pub mod machine;
mod message;
mod mistake;
pub mod named;
mod net;
mod own;
pub mod plan;
mod process;
mod queue;
mod run;
mod script;
mod search;
mod trace;
mod watch;
mod whole;
mod workload;
mod world;

pub use mistake::Mistake;
pub use plan::{Fault, Plan};
pub use run::{Failure, Outcome, run, shrink};
pub use script::Story;
pub use search::Search;
pub use trace::Coverage;
pub use whole::run as run_whole;
