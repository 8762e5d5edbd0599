//! The client library of Firebrick's distributed data structure.

mod backoff;
mod client;
mod clock;
mod connection;
mod direct;
mod driver;
mod error;
mod json;
mod key;
mod options;
mod scan;
pub mod session;
mod table;

pub use client::{Client, CreateTable, Durability};
pub use direct::{Direct, DirectOptions};
pub use error::{Declined, Error, Result};
pub use firebrick_partition::log::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use firebrick_partition::op::{Answer, Condition, ExpireWhen, Expiry, Op, Version};
pub use key::Key;
pub use options::{IN_FLIGHT_MAX, Options, ReadFrom, Seeds, SessionOptions};
pub use scan::Scan;
pub use session::{Reply, Session, Sink, Submit, TableId, Target};
pub use table::{PutOptions, Table, Value};
