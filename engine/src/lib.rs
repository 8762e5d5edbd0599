//! The brick: data cores, the mesh between them, the RESP front, the control thread.

pub mod mesh;
pub mod runtime;
