//! What the end-to-end, fault and tidiness tests share.

pub mod binary;
pub mod brick;
pub mod check;
pub mod cluster;
pub mod files;
pub mod hand;
pub mod machine;
pub mod model;
pub mod network;
pub mod random;
pub mod recorder;
pub mod resp;
pub mod sim;
pub mod tidy;

/// For clients on the calling thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
