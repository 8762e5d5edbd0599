//! A machine's disk: real files, written at the moments of the simulator's choice, and what a power failure leaves of them.
//!
//! A write is done when it is answered. One that was answered as durable survives everything; the others are remembered
//! with what was there before, until a durable write of the same file: a power failure may undo them. Of writes that are
//! under way when a process ends any part may have been done.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use firebrick_net::DiskWrite;

use crate::random::Random;

/// Bytes of a disk that are written whole.
const SECTOR_BYTES: u64 = 4096;

/// A write that a power failure may undo.
#[derive(Debug)]
struct Undo {
    file: OwnedFd,
    inode: u64,
    offset: u64,
    before: Vec<u8>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Disk {
    loose: Vec<Undo>,
}

fn inode(fd: RawFd) -> u64 {
    // SAFETY: all zeros is a valid stat for the kernel to fill.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid to be written, and a bad descriptor is an error.
    let result = unsafe { libc::fstat(fd, &raw mut stat) };
    if result == 0 { stat.st_ino } else { 0 }
}

fn read_at(fd: RawFd, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // SAFETY: the buffer has `len` bytes; what lies behind the end of the file stays 0.
    unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), len, offset as libc::off_t) };
    bytes
}

fn write_at(fd: RawFd, offset: u64, bytes: &[u8]) -> i32 {
    // SAFETY: the bytes are valid for reads of their length.
    let n = unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset as libc::off_t) };
    if n < 0 {
        -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
    } else {
        n as i32
    }
}

fn bytes_of(write: &DiskWrite) -> &[u8] {
    // SAFETY: the log keeps the bytes mapped until the write is answered or its process ends; both come later.
    unsafe { std::slice::from_raw_parts(write.ptr, write.len as usize) }
}

impl Disk {
    /// Does a write whose time has come. What the ring answers.
    pub fn write(&mut self, write: &DiskWrite) -> i32 {
        let inode = inode(write.fd);
        if write.durable {
            self.loose.retain(|undo| undo.inode != inode);
        } else {
            self.remember(write, inode);
        }
        write_at(write.fd, write.offset, bytes_of(write))
    }

    fn remember(&mut self, write: &DiskWrite, inode: u64) {
        // SAFETY: duplicates a descriptor; an error is a negative number.
        let fd = unsafe { libc::dup(write.fd) };
        if fd >= 0 {
            // SAFETY: just made, owned by nobody else.
            let file = unsafe { OwnedFd::from_raw_fd(fd) };
            let before = read_at(fd, write.offset, write.len as usize);
            self.loose.push(Undo { file, inode, offset: write.offset, before });
        }
    }

    /// The process ends while these are under way: each is done wholly, in part, or not.
    pub fn abandon(&mut self, random: &mut Random, flying: &BTreeMap<u64, DiskWrite>) {
        for write in flying.values() {
            let sectors = u64::from(write.len) / SECTOR_BYTES;
            let len = match random.below(3) {
                0 => 0,
                1 => random.below(sectors + 1) * SECTOR_BYTES,
                _ => u64::from(write.len),
            };
            let part = DiskWrite { len: len as u32, durable: false, ..*write };
            if len > 0 {
                self.write(&part);
            }
        }
    }

    /// The power fails: what was not made durable may be gone.
    pub fn power_fails(&mut self, random: &mut Random) {
        for undo in std::mem::take(&mut self.loose).into_iter().rev() {
            if random.below(2) == 0 {
                write_at(undo.file.as_raw_fd(), undo.offset, &undo.before);
            }
        }
    }
}
