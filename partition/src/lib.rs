//! The pure protocol of a partition: maps, index, replica state machine, messages.
//!
//! No I/O, no clock, no threads: messages and time are arguments, actions are return values, so the
//! same code runs in production and in tests.

pub mod hash;
pub mod maps;
pub mod op;
pub mod wire;

pub use hash::{hash_key, hash_u64};
pub use op::{Answer, Condition, Expiry, Failure, Now, Op, Request, Route, Version};
