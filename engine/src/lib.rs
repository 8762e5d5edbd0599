//! The brick: data cores, the mesh between them, the RESP front, the control thread.

pub mod catalog;
pub mod check;
pub mod config;
pub mod control;
pub mod counters;
mod durable;
pub mod error;
pub mod lock;
pub mod mesh;
pub mod resp;
pub mod runtime;
pub mod storage;

pub use config::BrickConfig;
pub use error::BrickError;
