//! The maps: which partition a hash belongs to (DP map), which bricks hold a partition (RG map), and
//! what a data core looks routes up in.

mod changes;
mod dp;
mod durability;
mod routes;
mod table;
#[cfg(test)]
mod tests;

pub use changes::{GroupDelta, MapDelta};
pub use dp::{DEPTH_MAX, DpMap, Leaf};
pub use durability::Durability;
pub use routes::{RouteCheck, RouteEntry, RouteTable, Routes, check};
pub use table::{
    BrickEntry, Intent, MapError, Maps, Member, NAME_BYTES_MAX, REPLICAS_MAX, Replicas, RgMap,
    TableMap, TableOptions, even_leaves, fingerprint,
};
