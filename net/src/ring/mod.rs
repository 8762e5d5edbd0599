//! The ring driver: one `io_uring` a data core, made and used on that core's thread only.
//!
//! `SINGLE_ISSUER | DEFER_TASKRUN` makes completions appear only when this thread enters the kernel, so
//! nothing interrupts the hot loop; `TASKRUN_FLAG` tells without a system call when there is a reason to.

mod buffers;
mod waker;

pub use buffers::{Buffers, GROUP};
pub use waker::{Bell, Waker};

use std::io;

use io_uring::{IoUring, cqueue, squeue, types};

use crate::limits::{CQ_ENTRIES, SQ_ENTRIES};

/// Why there is no ring. The engine adds which brick and core it was for.
#[derive(Debug)]
pub enum RingError {
    /// The kernel has no `io_uring`, or none with what we need (6.1 and later have).
    Unsupported {
        /// The kernel's word.
        errno: i32,
        /// What was asked of it.
        what: &'static str,
    },
    /// A rule forbids it: `kernel.io_uring_disabled` or a container's seccomp profile.
    Forbidden {
        /// The value of `/proc/sys/kernel/io_uring_disabled`, where it could be read.
        sysctl: Option<u8>,
    },
    /// Anything else: memory, file descriptors.
    Io {
        /// The kernel's word.
        error: io::Error,
        /// What was asked of it.
        what: &'static str,
    },
}

impl RingError {
    pub(crate) fn from_io(error: io::Error, what: &'static str) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden {
                sysctl: std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
                    .ok()
                    .and_then(|text| text.trim().parse().ok()),
            },
            Some(errno @ (libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP)) => {
                Self::Unsupported { errno, what }
            }
            _ => Self::Io { error, what },
        }
    }
}

impl std::fmt::Display for RingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsupported { errno, what } => write!(
                f,
                "this kernel does not offer {what} (errno {errno}): Firebrick needs Linux 6.1 or later with io_uring"
            ),
            Self::Forbidden { sysctl: Some(value @ 1..) } => write!(
                f,
                "io_uring is turned off by kernel.io_uring_disabled = {value}: set it to 0 with `sysctl kernel.io_uring_disabled=0`"
            ),
            Self::Forbidden { .. } => write!(
                f,
                "io_uring is forbidden to this process, most likely by a container's seccomp profile: allow io_uring_setup, io_uring_enter and io_uring_register in it"
            ),
            Self::Io { error, what } => write!(f, "{what} failed: {error}"),
        }
    }
}

impl std::error::Error for RingError {}

/// The ring with its counters. Not `Send`: the kernel checks that one thread submits.
pub struct Ring {
    uring: IoUring,
    enters: u64,
    _core: std::marker::PhantomData<*mut ()>,
}

impl Ring {
    /// Makes the ring of the calling thread.
    pub fn new() -> Result<Self, RingError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(CQ_ENTRIES)
            .build(SQ_ENTRIES)
            .map_err(|error| RingError::from_io(error, "an io_uring with DEFER_TASKRUN"))?;
        if !uring.params().is_feature_ext_arg() || !uring.params().is_feature_nodrop() {
            return Err(RingError::Unsupported {
                errno: 0,
                what: "io_uring waits with a time limit",
            });
        }
        Ok(Self { uring, enters: 0, _core: std::marker::PhantomData })
    }

    /// The underlying ring, to register buffers.
    pub fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// System calls made.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Queues one operation; a full queue is submitted first.
    ///
    /// # Safety
    ///
    /// What the entry points to must stay valid, and unwritten where the kernel reads it, until its completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller vouches for the memory behind the entry.
        unsafe { self.push_all(std::slice::from_ref(entry)) }
    }

    /// Queues operations that are submitted together, as a chain must be.
    ///
    /// # Safety
    ///
    /// As for [`Ring::push`].
    pub unsafe fn push_all(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        for _ in 0..8 {
            // SAFETY: the caller vouches for the memory behind the entries.
            if unsafe { self.uring.submission().push_multiple(entries) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
        // The kernel takes nothing: out of memory for requests, or the completion queue must be emptied first.
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Submits what is queued; runs deferred work when there is some. No system call otherwise.
    pub fn submit(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enter(0, None)
    }

    /// Submits and waits for `want` completions or `timeout_ns`.
    pub fn wait(&mut self, want: u32, timeout_ns: u64) -> io::Result<()> {
        self.enter(want, Some(timeout_ns))
    }

    fn enter(&mut self, want: u32, timeout_ns: Option<u64>) -> io::Result<()> {
        self.enters += 1;
        let submitter = self.uring.submitter();
        let result = match timeout_ns {
            None => submitter.submit_and_wait(0),
            Some(ns) => {
                let limit = types::Timespec::new()
                    .sec(ns / 1_000_000_000)
                    .nsec((ns % 1_000_000_000) as u32);
                let args = types::SubmitArgs::new().timespec(&limit);
                submitter.submit_with_args(want as usize, &args)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; completions must be taken first. What is queued stays queued.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Moves up to `max` completions into `out`.
    pub fn take(&mut self, max: usize, out: &mut Vec<cqueue::Entry>) {
        out.extend(self.uring.completion().take(max));
    }

    /// Makes completions appear, if the queue is empty and the kernel says that it has some.
    pub fn peek(&mut self) -> io::Result<()> {
        if !self.uring.completion().is_empty() {
            return Ok(());
        }
        let queue = self.uring.submission();
        let asked = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if asked { self.enter(0, None) } else { Ok(()) }
    }

    /// Completions that wait in the queue.
    pub fn pending(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }
}

#[cfg(test)]
mod tests;
