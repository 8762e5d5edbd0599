//! Level two: whole bricks. What runs is the production data core (`Shard`, with its files, its mesh and its way to other
//! bricks), what decides leases and maps on a brick (`Grants`, `Heard`), the keepers' state machine, and the production
//! client session, on the fake fabric, on real files, in virtual time.
//!
//! Made up are: the network (`firebrick_net::fake`), clocks, the moments at which the storage thread and the ring do
//! their work, the control thread's loop (`control`) and Raft (`super::keeper`).
//!
//! * `process`: a brick's process; `brick`: its machine, what outlives it; `disk`: writes and what a power failure leaves of them;
//! * `client`: a shell around a session; `redis`, `reply`, `commands`: one that speaks RESP to one brick at a time; `reader`: reads at one member, to look at it;
//! * `expiring`: keys whose values are there for a while;
//! * `fill`: keys that fill a brick which has little memory;
//! * `control`: heartbeats and registrations; `keepers`: the keepers' side;
//! * `ways`: what is blocked between hosts;
//! * `world`, `own`, `calls`, `run`: as in level one.

mod brick;
mod calls;
mod client;
mod commands;
mod control;
mod disk;
mod expiring;
mod fill;
mod keepers;
mod own;
mod process;
mod reader;
mod redis;
mod reply;
mod run;
mod seen;
mod ways;
mod world;

pub use run::run;
