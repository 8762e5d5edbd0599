//! What the end-to-end, fault and tidiness tests share.

pub mod binary;
pub mod tidy;
