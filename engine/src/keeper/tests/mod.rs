mod cluster;
mod lone;
pub(crate) mod rig;
