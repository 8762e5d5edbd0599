//! Waking a core from another thread, without a system call when it is awake, and without a lost wake-up.
//!
//! Two flags, Dekker's pattern. A ringer first writes its work (in some ring in shared memory), then sets `rung`,
//! then looks at `parked`. The core first sets `parked`, then looks at `rung`, then blocks. All four accesses are
//! `SeqCst`, so they have one total order, and in it at least one side's store comes before the other's load:
//! either the ringer sees `parked` and writes the eventfd, or the core sees `rung` and does not block. It cannot
//! be that both look too early. An eventfd written before the core blocks is not lost either: its counter stays.
//!
//! A ringer that finds `rung` already set does nothing: whoever set it looks at `parked` after it, and the core
//! clears `rung` (with a read-modify-write, which sees all that was written before the last set) before it looks
//! at the shared rings.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
struct Shared {
    rung: AtomicBool,
    parked: AtomicBool,
    eventfd: OwnedFd,
}

/// Any thread's handle to wake a core. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Makes the core report [`crate::Event::Woken`] soon. Call it after the work is visible.
    pub fn wake(&self) {
        if self.0.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.0.parked.load(Ordering::SeqCst) {
            let one = 1u64;
            // SAFETY: the fd is open as long as `Shared` lives; 8 bytes are read from `one`.
            // The only failure, a counter at its maximum, means that the core is being woken anyway.
            unsafe { libc::write(self.0.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }
}

/// The core's side.
#[derive(Debug)]
pub struct Bell(Arc<Shared>);

impl Bell {
    /// A bell that nobody rings yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Shared {
            rung: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            eventfd,
        })))
    }

    /// A handle for other threads.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }

    /// What the ring reads to be woken.
    pub fn fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }

    /// Says that the core is about to block. `false`: it was rung, do not block.
    pub fn park(&self) -> bool {
        self.0.parked.store(true, Ordering::SeqCst);
        if self.0.rung.load(Ordering::SeqCst) {
            self.unpark();
            return false;
        }
        true
    }

    /// The core runs again.
    pub fn unpark(&self) {
        self.0.parked.store(false, Ordering::SeqCst);
    }

    /// Whether somebody rang since the last call.
    pub fn answer(&self) -> bool {
        // The plain load first, because a read-modify-write each turn would own the cache line for nothing.
        self.0.rung.load(Ordering::Relaxed) && self.0.rung.swap(false, Ordering::SeqCst)
    }
}
