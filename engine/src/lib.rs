//! The brick: data cores, the mesh between them, the RESP front, the control thread.

pub mod brick;
pub mod check;
mod clock;
pub mod config;
pub mod control;
mod core;
pub mod counters;
mod durable;
pub mod error;
mod keeper;
pub mod lock;
pub mod mesh;
mod notices;
#[doc(hidden)]
pub mod parts;
pub mod resp;
pub mod runtime;
mod shard;
pub mod storage;

pub use brick::{Addresses, Brick};
pub use config::BrickConfig;
pub use error::BrickError;
