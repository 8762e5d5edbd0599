//! The keepers: who is in which group, who may serve, and what should happen next.
//!
//! Three parts, all pure. [`Keepers`] is the replicated state: entries in, a map out. [`Leases`] is what only
//! the leader of the keepers knows: who was heard, until when leases run, what was reported. [`plan`] says which
//! entries the leader should propose. Every entry names the epoch and the incarnations on which it was decided
//! and does nothing when they changed, so a plan made on old news is harmless.
//!
//! Time is nanoseconds of boot time of the keeper that leads.

mod apply;
mod check;
mod delta;
mod entry;
mod groups;
mod heartbeat;
mod leases;
mod members;
mod overview;
mod planner;
mod register;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod wishes;

pub use entry::{Applied, Entry, LockFile, Proof, Registration};
pub use heartbeat::{CopyFigure, Figure, Heartbeat, Lack, LeaseAnswer, Report, Room};
pub use leases::{Gate, Leases, Ticket};
pub use overview::{BrickView, CopyKind, CopyView, Overview, WishView};
pub use planner::{Planner, create_table, lead_anyway, plan};
pub use state::{Brick, Group, Keepers, Kept, Settings, Table};
pub use tables::{DEFAULT_TABLE, PARTITIONS_MAX, TABLES_MAX, partitions_for};
pub use wishes::{Note, NoteKind, Wish};

/// Bricks of one cluster.
pub const BRICKS_MAX: usize = 256;
/// Keepers of one cluster.
pub const KEEPERS_MAX: usize = 5;
