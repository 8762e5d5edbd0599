//! The client library of Firebrick's distributed data structure.

mod error;
mod key;
mod options;
pub mod session;

pub use error::{Error, Result};
pub use firebrick_partition::op::{Answer, Condition, ExpireWhen, Expiry, Op, Version};
pub use key::Key;
pub use options::{IN_FLIGHT_MAX, Options, SessionOptions};
pub use session::{Session, TableId};

/// The longest key.
pub const KEY_BYTES_MAX: usize = 32 << 10;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 8 << 20;
