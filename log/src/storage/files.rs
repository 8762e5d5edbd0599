//! File helpers: every one names the file in its error.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::{DiskFile, HugePages, StorageError, map};
use crate::memory::{MEMORY_ALIGN, Memory};

/// `STATX_DIOALIGN`.
const STATX_DIOALIGN: libc::c_uint = 0x2000;
/// No copy on write.
const FS_NOCOW_FL: libc::c_long = 0x0080_0000;

/// One write of zeros to a new data file: small, so that it holds no flush back for long.
const ZERO_WRITE_BYTES: usize = 256 << 10;

pub(super) fn io_error<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> StorageError + 'a {
    move |error| StorageError::Io { what, path: path.to_owned(), error }
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    let file = File::open(dir).map_err(io_error("open the folder", dir))?;
    file.sync_all().map_err(io_error("flush the folder", dir))
}

pub(super) fn make_dir(dir: &Path) -> Result<(), StorageError> {
    match fs::create_dir(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error("create the folder", dir)(error)),
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(io_error("rename a file to", to))
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The names in a folder; none when it is not there.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StorageError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("read the folder", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("read the folder", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Replaces a small file: written beside it, flushed, renamed, and the folder flushed.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let (tmp, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    let write = || -> io::Result<()> {
        use std::io::Write;
        let mut file = File::create(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error("write", &tmp))?;
    rename(&tmp, &path)?;
    sync_dir(dir)
}

/// Takes all the space a file will need, so that no later write meets a full disk.
pub(super) fn allocate(file: &File, from: usize, bytes: usize) -> io::Result<()> {
    let (offset, len) = (from as libc::off_t, bytes as libc::off_t);
    // SAFETY: a plain system call on an open descriptor.
    let failed = unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, len) } != 0;
    if !failed {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
        return Err(error);
    }
    // ext2 and the like. Not posix_fallocate, which writes single bytes: O_DIRECT refuses those.
    let zeros = Memory::heap(ZERO_WRITE_BYTES);
    let end = from + bytes;
    for at in (from..end).step_by(ZERO_WRITE_BYTES) {
        let len = ZERO_WRITE_BYTES.min(end - at);
        file.write_all_at(&zeros.bytes()[..len], at as u64)?;
    }
    Ok(())
}

/// Creates a file of `bytes` zeros, all of them allocated, and maps it with its pages there.
pub(super) fn create_memory(
    path: &Path,
    bytes: usize,
    huge_pages: Option<&mut HugePages>,
) -> Result<Memory, StorageError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(io_error("create", path))?;
    map::create(&file, path, bytes, huge_pages).map_err(io_error("allocate", path))
}

pub(super) fn open_memory(path: &Path) -> Result<Memory, StorageError> {
    let file =
        OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_err(io_error("look at", path))?.len();
    map::whole(&file, bytes as usize).map_err(io_error("map", path))
}

/// Asks for later writes to go where the file lies, before it has a byte. Else a file system that writes elsewhere
/// (btrfs) needs room for each of them, although all of the file is allocated, and a full disk fails them.
fn write_in_place(file: &File) {
    let mut flags: libc::c_long = 0;
    // SAFETY: an open descriptor, and a long to fill that lives through the call.
    let known =
        unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) } == 0;
    if known {
        flags |= FS_NOCOW_FL;
        // SAFETY: as above; the long is only read. A file system that knows no such flag refuses, and does not need it.
        unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    }
}

/// Creates a data file of `bytes`, all of them allocated.
pub(super) fn create_disk(path: &Path, bytes: usize) -> Result<DiskFile, StorageError> {
    let disk = open_disk_with(path, true)?;
    write_in_place(&disk.file);
    allocate(&disk.file, 0, bytes).map_err(io_error("allocate", path))?;
    disk.file.sync_all().map_err(io_error("flush", path))?;
    Ok(disk)
}

/// Writes zeros over a new data file, whose `memory` is all zeros still: a later durable write finds
/// written blocks. The file system has nothing to note then, and the write waits for no journal.
pub(super) fn write_zeros(
    disk: &DiskFile,
    memory: &Memory,
    path: &Path,
) -> Result<(), StorageError> {
    for (n, chunk) in memory.bytes().chunks(ZERO_WRITE_BYTES).enumerate() {
        match disk.file.write_all_at(chunk, (n * ZERO_WRITE_BYTES) as u64) {
            // Not to be written to around the page cache after all: the first flush deals with that.
            Err(error) if disk.direct && error.raw_os_error() == Some(libc::EINVAL) => break,
            written => written.map_err(io_error("write", path))?,
        }
    }
    disk.file.sync_all().map_err(io_error("flush", path))
}

pub(super) fn open_disk(path: &Path) -> Result<DiskFile, StorageError> {
    open_disk_with(path, false)
}

fn open_disk_with(path: &Path, create: bool) -> Result<DiskFile, StorageError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(create);
    // What an O_DIRECT open leaves behind when it fails is opened, not created again.
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
    let what = if create { "create" } else { "open" };
    match direct {
        Ok(file) => {
            let align = direct_align(path);
            let mut disk =
                DiskFile { file, direct: true, align: align.unwrap_or(MEMORY_ALIGN as u32) };
            if align.is_none() {
                disk.go_buffered();
            }
            Ok(disk)
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let file = options
                .create_new(false)
                .create(create)
                .open(path)
                .map_err(io_error(what, path))?;
            Ok(DiskFile { file, direct: false, align: MEMORY_ALIGN as u32 })
        }
        Err(error) => Err(io_error(what, path)(error)),
    }
}

/// What `O_DIRECT` needs here; 4096 when the kernel does not say, `None` when it says "never".
fn direct_align(path: &Path) -> Option<u32> {
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else { return None };
    // SAFETY: all-zero is a valid `statx`.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path and a `statx` to fill, both alive during the call.
    let failed = unsafe {
        libc::statx(libc::AT_FDCWD, c_path.as_ptr(), 0, STATX_DIOALIGN, &raw mut stat) != 0
    };
    if failed || stat.stx_mask & STATX_DIOALIGN == 0 {
        return Some(MEMORY_ALIGN as u32);
    }
    let align = stat.stx_dio_offset_align.max(stat.stx_dio_mem_align);
    (align > 0 && stat.stx_dio_offset_align > 0 && align as usize <= MEMORY_ALIGN)
        .then_some(align.max(512))
}
