mod ask;
mod cluster;
mod grants;
mod lone;
mod network;
mod removal;
pub(crate) mod rig;
mod waiting;
