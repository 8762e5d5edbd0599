//! The log of a replica: mapped segments of self-checking records.
//!
//! Sans-I/O on the data core: it asks for flushes and files, and does none itself. Blocking file
//! work is in [`storage`], called on the storage thread. No sockets, no async, no clock.

pub mod limits;
pub mod record;

pub use record::{Body, HEADER_BYTES, Header, Kind, Meta, Record, Unchecked, Version};
