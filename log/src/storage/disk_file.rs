//! An open data file: `O_DIRECT` where the file system can.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// The `data_dir` side of a segment.
#[derive(Debug)]
pub struct DiskFile {
    pub(crate) file: File,
    pub(crate) direct: bool,
    pub(crate) align: u32,
}

impl DiskFile {
    /// The descriptor that flushes name.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Writes go around the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// What memory, offset and length of a write must be multiples of.
    pub fn align(&self) -> usize {
        self.align as usize
    }

    /// From now on through the page cache: the file system refused `O_DIRECT` after all (EINVAL).
    pub(crate) fn go_buffered(&mut self) {
        self.direct = false;
        // SAFETY: plain fcntl calls on a descriptor that `self.file` keeps open.
        unsafe {
            let flags = libc::fcntl(self.fd(), libc::F_GETFL);
            if flags >= 0 {
                libc::fcntl(self.fd(), libc::F_SETFL, flags & !libc::O_DIRECT);
            }
        }
    }
}
