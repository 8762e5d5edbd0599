//! The brick: data cores, RESP front, control thread.

pub mod check;
pub mod config;
mod durable;
pub mod error;
pub mod lock;

pub use config::BrickConfig;
pub use error::BrickError;
