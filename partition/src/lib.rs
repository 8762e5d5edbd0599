//! The pure protocol of a partition: maps, index, replica state machine, messages.
//!
//! No I/O, no clock, no threads: messages and time are arguments, actions are return values, so the
//! same code runs in production and in tests.

pub mod op;

pub use op::{Answer, Condition, Expiry, Failure, Now, Op, Request, Route, Version};
