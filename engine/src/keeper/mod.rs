//! The keepers on the control thread: Raft (openraft), the control port, leases; and every brick's side of it.
//!
//! * `disk`, `machine`, `network`, `types`: what openraft runs on: log, snapshots, messages;
//! * `net`: the control port;
//! * `node`: a brick's keeper; `lead`, `requests`: what the leader does;
//! * `begin`, `member`: a brick starts; `beat`, `grants`, `news`, `ask`: its heartbeats; `status`: the cluster for people.
//!
//! What is decided, and why it is safe, is `partition::keeper`; docs/keepers.md is the text.

mod ask;
mod beat;
mod begin;
mod disk;
mod grants;
mod lead;
mod machine;
mod member;
mod net;
mod network;
mod news;
mod node;
mod requests;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod types;

pub(crate) use ask::Finder;
pub(crate) use beat::{BeatSetup, Beats, Ended, removed, superseded};
pub use begin::KeeperSetup;
pub(crate) use begin::{Begun, begin};
pub use grants::{Grants, Sender};
pub(crate) use net::{Admin, Answer, Ask, Refusal, Why};
#[cfg(test)]
pub(crate) use net::{Handler, Hello, Links, serve};
pub use news::Heard;
pub(crate) use news::News;
pub(crate) use node::{Node, SNAPSHOT_ENTRIES, listen};
