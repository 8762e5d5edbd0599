//! The fabric: how bytes travel between bricks, clients and disks.
//!
//! RDMA's model everywhere: an endpoint is a queue pair, memory is registered, work is posted,
//! completions are polled. This crate knows bytes, not messages; nothing of ours is below it.

pub mod fabric;
pub mod limits;

pub use fabric::{
    Body, CloseReason, DiskWrite, Ep, Event, Fabric, Full, Key, Port, Region, Remote, Rx, Token,
};
