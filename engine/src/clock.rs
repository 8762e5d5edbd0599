//! The clock of a data core: read once a batch, passed down as an argument.

pub use firebrick_net::boot_ns;
use firebrick_partition::Now;

/// How old the wall clock may be: it is for expiry times in milliseconds.
const WALL_NS: u64 = 1_000_000;

/// Both clocks; the wall clock is read once a millisecond.
#[derive(Debug, Default)]
pub struct Clock {
    last: Now,
    wall_read_ns: u64,
}

impl Clock {
    /// The time.
    pub fn now(&mut self) -> Now {
        let boot_ns = boot_ns();
        if boot_ns >= self.wall_read_ns + WALL_NS || self.last.unix_ms == 0 {
            self.wall_read_ns = boot_ns;
            self.last.unix_ms = unix_ms();
        }
        self.last.boot_ns = boot_ns;
        self.last
    }
}

/// The clock on the wall, as of the kernel's last tick.
fn unix_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the kernel to fill.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    assert!(result == 0, "CLOCK_REALTIME_COARSE cannot be read");
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}
