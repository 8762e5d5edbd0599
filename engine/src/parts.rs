//! What a brick is made of, for the simulator (`tests/src/sim/whole`), which puts the parts together without threads
//! and without a clock: data cores on the fake fabric, the storage thread's and the control thread's work in virtual
//! time. No interface: it changes with them.

pub use crate::brick::Info;
pub use crate::control::{ControlRequest, Queue};
pub use crate::counters::{Board, CoreState, Published};
pub use crate::keeper::{Grants, Heard, Sender};
pub use crate::mesh::Mesh;
pub use crate::notices::Notices;
pub use crate::shard::{Files, FilesSetup, FromControl, Parts, Shard, Turn, control_rings};
pub use crate::storage::{Desk, Window};
