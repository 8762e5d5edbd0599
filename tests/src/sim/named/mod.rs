//! The named executions of PROTOCOL.md's last section, as scripts. Each is a promise; `tests/tests/named.rs`
//! runs them and says where the ones that are not here are tested, `tests/tests/canaries.rs` runs them with
//! the rule that each is about switched off.

pub mod copies;
pub mod durable;
pub mod eight;
pub mod epochs;
pub mod leases;
pub mod once;

/// Longest that a write waits when a brick dies: a lease, a tenth, and the keepers' decision.
const BLOCKED_MS: u64 = 500;
/// And when the bricks do not hear each other, which a primary reports after half a second.
const SILENT_MS: u64 = 1_500;
