//! The brick: data cores, the mesh between them, the RESP front, the control thread.

mod brick;
mod check;
mod clock;
pub mod config;
mod control;
mod core;
mod counters;
mod durable;
mod error;
mod keeper;
mod lock;
mod mesh;
mod notices;
#[doc(hidden)]
pub mod parts;
mod resp;
mod runtime;
mod shard;
mod storage;

pub use brick::{Addresses, Brick, Recovered};
pub use config::BrickConfig;
pub use error::BrickError;
