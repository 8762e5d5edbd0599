//! ENGINE.md's fifteen points on segments and write-behind, each on real files.
#![allow(clippy::unwrap_used)]
#![cfg(not(miri))]

#[path = "../common/mod.rs"]
mod common;

mod cleaning;
mod failing_twice;
mod segments;
mod starting;
mod writing;

use common::rig::*;
use common::*;
use firebrick_log::segment::{SegmentHead, SegmentKind, SegmentName};
use firebrick_log::storage::{Done, Job, Storage, StorageError};
use firebrick_log::*;

const ASYNC: Durability = Durability::Async { ms: 100 };

fn rig(durability: Durability) -> Rig {
    Rig::new(config(durability))
}
