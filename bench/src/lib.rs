//! Measuring: a load generator, and a brick without a store to compare with.
//!
//! [`kv`] loads a brick through the client's busy-polled handle and reports throughput and latency; [`redis`] does it over
//! the Redis protocol, to whatever speaks it.
//! [`null`] is the floor: the same ring driver, frames and poll modes as a brick, with fixed answers.

pub mod kv;
pub mod load;
pub mod null;
pub mod pin;
pub mod redis;
