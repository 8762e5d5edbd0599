//! The pure protocol of a partition: maps, index, replica state machine, messages.
//!
//! No I/O, no clock, no threads: messages and time are arguments, actions are return values, so the
//! same code runs in production and in tests.

pub mod hash;
pub mod index;
pub mod keeper;
pub mod maps;
pub mod op;
pub mod replica;
mod sessions;
pub mod wire;

/// The log, as far as whoever runs a replica must know it: file jobs, writes, spare segments.
pub use firebrick_log as log;

pub use hash::{hash_key, hash_u64};
pub use op::{Answer, Condition, Expiry, Failure, Now, Op, Request, Route, Version};

/// Asks the processor to fetch a cache line; never faults.
#[inline]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint and does not access memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}
