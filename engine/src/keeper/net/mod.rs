//! The control port: frames with a length and a checksum, JSON bodies, bounded in size, number and time.
//!
//! Between bricks of one cluster, and from a brick that wants to join. Not for clients, and not for networks where
//! somebody hostile listens: nothing here is encrypted, and a cluster's number is not a password.

mod frame;
mod link;
mod message;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use frame::Hello;
pub(crate) use link::{Lane, LinkError, Links};
pub(crate) use message::{Admin, Answer, Ask, JoinAnswer, Refusal, Why};
pub(crate) use server::{Handler, serve};
