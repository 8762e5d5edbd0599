//! The brick: data cores, the mesh between them, the RESP front, the control thread.

pub mod check;
pub mod config;
pub mod counters;
mod durable;
pub mod error;
pub mod lock;
pub mod mesh;
pub mod resp;
pub mod runtime;
pub mod storage;

pub use config::BrickConfig;
pub use error::BrickError;

/// TEMPORARY
pub struct Brick;
/// TEMPORARY
pub struct Addresses { /// a
    pub listen: std::net::SocketAddr, /// a
    pub resp: Option<std::net::SocketAddr>, /// a
    pub http: Option<std::net::SocketAddr> }
impl Brick {
    /// a
    pub fn start(_c: BrickConfig) -> Result<Self, BrickError> { Ok(Self) }
    /// a
    pub fn addresses(&self) -> Addresses { Addresses { listen: ([127,0,0,1],1).into(), resp: None, http: None } }
    /// a
    pub fn wait(self) -> Result<(), BrickError> { Ok(()) }
}
