//! The keepers on the control thread: Raft, the control port, leases; and every brick's side of it.
mod disk;
mod lead;
mod machine;
mod net;
mod network;
mod node;
mod requests;
mod types;
