//! Measuring: a load generator, and a brick without a store to compare with.
//!
//! [`kv`] loads a brick through the client's busy-polled handle and reports throughput and latency; [`redis`] does it over
//! the Redis protocol, to whatever speaks it.
//! [`null`] is the floor: the same ring driver, frames and poll modes as a brick, with fixed answers.

mod error;
mod keys;
pub mod kv;
mod load;
pub mod null;
mod pin;
pub mod redis;
mod report;

pub use error::BenchError;
pub use firebrick_net::poll::Mode;
pub use keys::Distribution;
pub use load::LoadOptions;
pub use report::{Latency, Report};
