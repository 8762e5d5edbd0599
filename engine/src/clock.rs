//! The clock of a data core: read once a batch, passed down as an argument.

use firebrick_partition::Now;

/// Reads both clocks.
pub fn now() -> Now {
    Now {
        boot_ns: read(libc::CLOCK_BOOTTIME),
        unix_ms: read(libc::CLOCK_REALTIME_COARSE) / 1_000_000,
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the kernel to fill.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert!(result == 0, "clock {clock} cannot be read");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
