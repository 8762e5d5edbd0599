//! One brick per folder, and which brick's folders these are.
//!
//! `brick.lock` in data_dir and memory_dir is held with flock(2) for the life of the process: the
//! kernel drops it however the process ends, so there is no stale lock to clean up. The file is
//! removed by whoever made it and was refused then, while it is locked; who locks it after that sees that it is gone.

mod identity;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::BrickError;
pub(crate) use identity::ID_FILE;
pub use identity::{Identity, Memory, boot_id, random};

/// Name of the lock file.
pub const LOCK_FILE: &str = "brick.lock";

/// How long a killed process may take to give back its memory; it holds its locks until then.
const DYING_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const DYING_LOOK: Duration = Duration::from_millis(5);

/// The two folders of a brick, locked until this is dropped.
#[derive(Debug)]
pub struct BrickLock {
    data: Folder,
    memory: Folder,
}

impl BrickLock {
    /// Makes the folders if they are missing and locks both, or says who holds one.
    pub fn take(name: &str, data_dir: &Path, memory_dir: &Path) -> Result<Self, BrickError> {
        let data = Folder::lock(name, data_dir)?;
        let memory = Folder::lock(name, memory_dir)?;
        Ok(Self { data, memory })
    }

    /// The brick has started: its folders stay, whatever is in them.
    pub fn keep(&mut self) {
        (self.data.is_new, self.memory.is_new) = (false, false);
    }

    /// The folder of the disk.
    pub fn data_dir(&self) -> &Path {
        &self.data.path
    }

    /// The folder of the mapped segments.
    pub fn memory_dir(&self) -> &Path {
        &self.memory.path
    }

    /// When data_dir's lock file was made, where the file system tells: Unix nanoseconds. That of a copy is another.
    pub fn born_ns(&self) -> Option<u64> {
        let born = self.data.file.metadata().and_then(|meta| meta.created()).ok()?;
        born.duration_since(UNIX_EPOCH).ok()?.as_nanos().try_into().ok()
    }

    /// Device and inode of the two lock files: a later process that holds the same is our successor.
    pub fn lock_files(&self) -> io::Result<[(u64, u64); 2]> {
        Ok([inode(&self.data.file.metadata()?), inode(&self.memory.file.metadata()?)])
    }
}

fn inode(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// One of them. A start that is refused leaves no folder that it made and put nothing in.
#[derive(Debug)]
struct Folder {
    file: File,
    path: PathBuf,
    is_new: bool,
}

impl Folder {
    fn lock(name: &str, path: &Path) -> Result<Self, BrickError> {
        loop {
            let is_new = !path.exists();
            make_folder(path)?;
            let file = lock_folder(name, path)?;
            let lock = path.join(LOCK_FILE);
            let held = file.metadata().map_err(BrickError::file("look at", &lock))?;
            match fs::metadata(&lock) {
                Ok(there) if inode(&there) == inode(&held) => {
                    return Ok(Self { file, path: path.to_owned(), is_new });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(BrickError::file("look at", &lock)(error));
                }
                // Whoever had it was refused, and has taken it away meanwhile.
                _ => {}
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let is_lock =
            |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|e| e.file_name() == LOCK_FILE);
        if self.is_new && fs::read_dir(&self.path).is_ok_and(|mut names| names.all(is_lock)) {
            // While it is still locked. What cannot be removed is left to the next start.
            let _ = fs::remove_file(self.path.join(LOCK_FILE));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Makes a folder of ours, or checks that an existing one is: in /dev/shm anybody may have made it
/// first.
fn make_folder(path: &Path) -> Result<(), BrickError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(BrickError::file("create the folder", path))?;
    let meta = fs::metadata(path).map_err(BrickError::file("look at", path))?;
    // SAFETY: geteuid has no preconditions.
    let uid = unsafe { libc::geteuid() };
    if uid != 0 && meta.uid() != uid {
        return Err(BrickError::Foreign {
            path: path.to_owned(),
            what: format!(
                "belongs to user id {}, this brick runs as {uid}; run it as that user, or choose \
                 another folder",
                meta.uid()
            ),
        });
    }
    Ok(())
}

fn lock_folder(name: &str, folder: &Path) -> Result<File, BrickError> {
    let path = folder.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(BrickError::file("open", &path))?;
    let begin = Instant::now();
    while !try_lock(&file).map_err(BrickError::file("lock", &path))? {
        let holder = Holder::read(&mut file);
        if !holder.is_dying() || begin.elapsed() > DYING_PATIENCE {
            return Err(BrickError::Locked { holder: holder.to_string(), path });
        }
        std::thread::sleep(DYING_LOOK);
    }
    let started_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let line = format!("{} {name} {started_ms}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(line.as_bytes()))
        .map_err(BrickError::file("write", &path))?;
    Ok(file)
}

/// Takes the lock of an open file; `false`: somebody else has it.
fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open for as long as `file` lives.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EWOULDBLOCK) { Ok(false) } else { Err(error) }
}

/// Who holds a lock, from what the holder wrote.
struct Holder(Option<(u32, String)>);

impl Holder {
    fn read(file: &mut File) -> Self {
        let mut text = String::new();
        let _ = file.rewind().and_then(|()| file.take(4096).read_to_string(&mut text));
        let mut words = text.split_whitespace();
        let pid = words.next().and_then(|pid| pid.parse().ok());
        Self(pid.zip(words.next().map(str::to_owned)))
    }

    /// It was killed, and the kernel is taking its memory apart: a process that runs has a command line.
    fn is_dying(&self) -> bool {
        let line = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline"));
        self.0.as_ref().is_some_and(|(pid, _)| line(pid).is_ok_and(|line| line.is_empty()))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((pid, name)) => write!(f, "brick \"{name}\", {}", process_text(*pid)),
            None => f.write_str("another process"),
        }
    }
}

/// A process in words: its id and, where /proc tells, its command line.
pub(crate) fn process_text(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = raw
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let mut line = words.join(" ");
    if line.is_empty() {
        return format!("process {pid}");
    }
    if let Some((cut, _)) = line.char_indices().nth(200) {
        line.truncate(cut);
        line.push_str("...");
    }
    format!("process {pid} ({line})")
}
