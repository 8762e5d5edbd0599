//! The fabric: how bytes travel between bricks, clients and disks.
//!
//! RDMA's model everywhere: an endpoint is a queue pair, memory is registered, work is posted,
//! completions are polled. This crate knows bytes, not messages; nothing of ours is below it.

mod clock;
pub mod fabric;
pub mod fake;
pub mod frame;
pub mod limits;
pub mod poll;
pub mod ring;
pub mod tcp;

pub use clock::boot_ns;
pub use fabric::{
    Body, CloseReason, Counters, DiskWrite, Ep, Event, Fabric, Full, Key, Load, Port, Region,
    Remote, Rx, Token,
};
pub use ring::{RingError, Waker};
pub use tcp::{Config, Tcp};
