//! The demo's brick: its folders, ports and process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::args::{Connect, Target};
use crate::child::{BrickProcess, Orphan, free_ports};
use crate::commands::brick::{BrickArgs, Tuning};
use crate::error::CliError;
use crate::store::Store;
use crate::units::size;

const READY_TIMEOUT: Duration = Duration::from_mins(1);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for a request to outlast the restart.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Left free for others.
const SPARE: u64 = 64 << 20;

/// The fields are dropped in this order: the process before the folders that it uses.
pub struct Stage {
    brick: Option<BrickProcess>,
    /// In tmpfs, when there is room.
    memory_dir: Option<TempDir>,
    dir: TempDir,
    memory: u64,
    listen: SocketAddr,
    control: SocketAddr,
    resp: SocketAddr,
    http: SocketAddr,
}

impl Stage {
    /// Folders with room for `bytes` of files and the write load.
    pub fn new(bytes: u64) -> Result<Self, CliError> {
        let memory = bytes * 3 + (256 << 20);
        let temp = std::env::temp_dir();
        let shm = Path::new("/dev/shm");
        let memory_dir = if free_bytes(shm) >= memory + SPARE { folder_in(shm).ok() } else { None };
        // Without tmpfs, both the mapped segments and what is written behind are on the disk.
        let needed = memory * if memory_dir.is_some() { 1 } else { 2 } + SPARE;
        if free_bytes(&temp) < needed {
            return Err(CliError::NoSpace(format!(
                "the demo needs {} in {} and there are {}: make room, set TMPDIR to another folder, \
                 or give a smaller --max-total",
                size(needed),
                temp.display(),
                size(free_bytes(&temp))
            )));
        }
        let dir = folder_in(&temp)?;
        let [listen, control, resp, http] = free_ports()?;
        Ok(Self { brick: None, memory_dir, dir, memory, listen, control, resp, http })
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let memory_dir = self.memory_dir.as_ref().unwrap_or(&self.dir).path().display();
        format!("{} in {memory_dir}, data in {}", size(self.memory), self.dir.path().display())
    }

    /// Where RESP is.
    pub fn resp(&self) -> SocketAddr {
        self.resp
    }

    /// Starts the brick and waits until it serves. Returns once it does.
    pub async fn start(&mut self) -> Result<(), CliError> {
        let path = self.dir.path();
        let args = BrickArgs {
            name: Some("demo".to_owned()),
            listen: Some(self.listen.to_string()),
            control: Some(self.control.to_string()),
            resp: Some(self.resp.to_string()),
            http: Some(self.http.to_string()),
            memory_dir: Some(match &self.memory_dir {
                Some(dir) => dir.path().join("memory"),
                None => path.join("memory"),
            }),
            data_dir: Some(path.join("data")),
            tuning: Tuning { memory: Some(self.memory.to_string()), ..Tuning::default() },
            ..BrickArgs::default()
        };
        let log = path.join("brick.log");
        let log = File::options().create(true).append(true).open(&log);
        let log = log.map_err(|e| CliError::io("cannot make the brick's log", &e))?;
        let brick =
            BrickProcess::start(&args.to_args(), self.http, Stdio::from(log), Orphan::Kill)?;
        self.brick.insert(brick).ready(READY_TIMEOUT).await
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<(), CliError> {
        match self.brick.take() {
            Some(mut brick) => brick.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM; whether it ended by itself and with 0.
    pub async fn stop(&mut self) -> Result<bool, CliError> {
        match self.brick.take() {
            Some(mut brick) => brick.stop(STOP_PATIENCE).await,
            None => Ok(true),
        }
    }

    /// A client of its own.
    pub async fn connect(&self) -> Result<Store, CliError> {
        let connect = Connect { connect: self.listen.to_string(), timeout: REQUEST_TIMEOUT };
        Store::open(&Target { connect, table: "default".to_owned() }).await
    }

    /// The end of the brick's log.
    pub fn last_words(&self) -> Option<String> {
        let log = std::fs::read(self.dir.path().join("brick.log")).ok()?;
        let log = String::from_utf8_lossy(&log);
        log.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }
}

fn folder_in(parent: &Path) -> Result<TempDir, CliError> {
    tempfile::Builder::new().prefix("firebrick-demo-").tempdir_in(parent).map_err(|e| {
        CliError::io(&format!("cannot make a temporary folder in {}", parent.display()), &e)
    })
}

/// Bytes that this user may still write there; 0 when nobody can say.
fn free_bytes(path: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return 0 };
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero and lives until the call returns; the kernel fills the whole
    // struct when it answers 0, and only then is it read.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return 0;
        }
        stat.assume_init()
    };
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_asked_of_the_file_system() {
        assert!(free_bytes(&std::env::temp_dir()) > 0);
        assert_eq!(free_bytes(Path::new("/nowhere/at/all")), 0);
        let Err(error) = Stage::new(1 << 50) else { panic!("nobody has 3 PiB") };
        assert_eq!(error.exit_code(), 6);
        assert!(error.to_string().contains("--max-total"), "{error}");
    }
}
