mod ask;
mod cluster;
mod grants;
mod lone;
mod removal;
pub(crate) mod rig;
