//! Probes, and the ways between two bricks, on the fake fabric.

mod forwards;
mod probes;
mod ways;
