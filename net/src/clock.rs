//! The one clock of deadlines and leases. What is polled takes its time as an argument; whoever polls reads it here.

/// `CLOCK_BOOTTIME` in nanoseconds: goes on while the machine is suspended.
#[inline]
pub fn boot_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert!(result == 0, "CLOCK_BOOTTIME cannot be read");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
