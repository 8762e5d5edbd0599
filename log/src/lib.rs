//! The log of a replica: mapped segments of self-checking records.
//!
//! Sans-I/O on the data core: it asks for flushes and files, and does none itself. Blocking file
//! work is in [`storage`], called on the storage thread. No sockets, no async, no clock.

mod blank;
pub mod canary;
mod codes;
mod corrupt;
#[cfg(test)]
mod fuzz;
pub mod limits;
mod loc;
mod log;
pub mod manifest;
mod memory;
pub mod record;
pub mod segment;
pub mod storage;

pub use corrupt::Corrupt;
pub use loc::Loc;
pub use log::{
    AppendError, Ask, CleanProgress, Cleaner, Cursor, Durability, FlushId, FlushOp, Found, Log,
    LogConfig, LogStats, Outcome, Part, Room, Scan, ScanProgress, ScanReport, SegmentCount, Slice,
    Verdict, Want, Written,
};
pub use record::{Body, HEADER_BYTES, Header, Kind, Meta, Record, Unchecked, Version};
