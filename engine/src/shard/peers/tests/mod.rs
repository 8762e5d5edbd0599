//! Probes, and the ways between two bricks, on the fake fabric.

mod probes;
mod ways;
