//! The demo's bricks: their folders, ports and processes.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::args::{Connect, Target};
use crate::child::{BrickProcess, Orphan, free_ports};
use crate::commands::brick::{BrickArgs, Tuning};
use crate::commands::cluster::items;
use crate::error::CliError;
use crate::http;
use crate::store::Store;
use crate::units::size;

/// Bricks, and replicas of each partition.
pub const BRICKS: usize = 3;

const READY_TIMEOUT: Duration = Duration::from_mins(1);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Until every partition has all its replicas.
const WHOLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two looks at that.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Long enough for a request to outlast whatever happens to one brick.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Left free for others.
const SPARE: u64 = 64 << 20;

/// Where one brick listens.
#[derive(Clone, Copy)]
struct Ports {
    listen: SocketAddr,
    control: SocketAddr,
    resp: SocketAddr,
    http: SocketAddr,
}

/// The fields are dropped in this order: the processes before the folders that they use.
pub struct Stage {
    bricks: [Option<BrickProcess>; BRICKS],
    /// In tmpfs, when there is room.
    memory_dir: Option<TempDir>,
    dir: TempDir,
    memory: u64,
    ports: [Ports; BRICKS],
}

impl Stage {
    /// Folders with room for `bytes` of files and the write load, on each brick.
    pub fn new(bytes: u64) -> Result<Self, CliError> {
        // (What is asked for may be more than there is anywhere.)
        let memory = bytes.saturating_add(bytes / 2).saturating_add(192 << 20);
        let all = memory.saturating_mul(BRICKS as u64);
        let temp = std::env::temp_dir();
        let shm = Path::new("/dev/shm");
        let memory_dir =
            if free_bytes(shm) >= all.saturating_add(SPARE) { folder_in(shm).ok() } else { None };
        // Without tmpfs, both the mapped segments and what is written behind are on the disk.
        let sides = if memory_dir.is_some() { 1 } else { 2 };
        let needed = all.saturating_mul(sides).saturating_add(SPARE);
        // First: of a folder that is not there nobody can say how much is free.
        let dir = folder_in(&temp)?;
        if free_bytes(&temp) < needed {
            return Err(CliError::NoSpace(format!(
                "the demo needs {} in {} and there are {}: make room, set TMPDIR to another folder, \
                 or give a smaller --max-total",
                size(needed),
                temp.display(),
                size(free_bytes(&temp))
            )));
        }
        let ports: [SocketAddr; 4 * BRICKS] = free_ports()?;
        let ports = std::array::from_fn(|at| {
            let [listen, control, resp, http] = std::array::from_fn(|n| ports[4 * at + n]);
            Ports { listen, control, resp, http }
        });
        Ok(Self { bricks: [const { None }; BRICKS], memory_dir, dir, memory, ports })
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let memory_dir = self.memory_dir.as_ref().unwrap_or(&self.dir).path().display();
        let dir = self.dir.path().display();
        format!("each with {} in {memory_dir}, data in {dir}", size(self.memory))
    }

    /// A brick's name.
    pub fn name(brick: usize) -> String {
        format!("brick-{}", brick + 1)
    }

    /// Where a brick's RESP is.
    pub fn resp(&self, brick: usize) -> SocketAddr {
        self.ports[brick].resp
    }

    /// Starts all bricks and waits until every partition has all its replicas.
    pub async fn start_all(&mut self) -> Result<(), CliError> {
        for brick in 0..BRICKS {
            self.spawn(brick)?;
        }
        for brick in 0..BRICKS {
            self.ready(brick).await?;
        }
        self.whole().await.map(|_| ())
    }

    /// Starts a brick again and waits until it serves.
    pub async fn start(&mut self, brick: usize) -> Result<(), CliError> {
        self.spawn(brick)?;
        self.ready(brick).await
    }

    async fn ready(&mut self, brick: usize) -> Result<(), CliError> {
        match &mut self.bricks[brick] {
            Some(process) => process.ready(READY_TIMEOUT).await,
            None => Ok(()),
        }
    }

    fn spawn(&mut self, brick: usize) -> Result<(), CliError> {
        let path = self.dir.path();
        let name = Self::name(brick);
        let Ports { listen, control, resp, http } = self.ports[brick];
        // The first one makes the cluster; the others ask whoever is there already.
        let others = self.ports.iter().enumerate().filter(|(at, _)| brick > 0 && *at != brick);
        let join: Vec<String> = others.map(|(_, ports)| ports.control.to_string()).collect();
        let args = BrickArgs {
            name: Some(name.clone()),
            listen: Some(listen.to_string()),
            control: Some(control.to_string()),
            resp: Some(resp.to_string()),
            http: Some(http.to_string()),
            join: (!join.is_empty()).then(|| join.join(",")),
            host: Some(name.clone()),
            replicas: Some(BRICKS.to_string()),
            memory_dir: Some(match &self.memory_dir {
                Some(dir) => dir.path().join(&name),
                None => path.join(format!("{name}-memory")),
            }),
            data_dir: Some(path.join(&name)),
            tuning: Tuning { memory: Some(self.memory.to_string()), ..Tuning::default() },
            ..BrickArgs::default()
        };
        let log = File::options().create(true).append(true).open(path.join("bricks.log"));
        let log = log.map_err(|e| CliError::io("cannot make the bricks' log", &e))?;
        let process = BrickProcess::start(&args.to_args(), http, Stdio::from(log), Orphan::Kill)?;
        self.bricks[brick] = Some(process);
        Ok(())
    }

    /// SIGKILL.
    pub async fn kill(&mut self, brick: usize) -> Result<(), CliError> {
        match self.bricks[brick].take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM to all; whether all ended by themselves and with 0.
    pub async fn stop(&mut self) -> Result<bool, CliError> {
        let mut clean = true;
        let stops = self
            .bricks
            .iter_mut()
            .filter_map(Option::take)
            .map(|mut process| async move { process.stop(STOP_PATIENCE).await });
        let mut stops: tokio::task::JoinSet<_> = stops.collect();
        while let Some(stopped) = stops.join_next().await {
            let stopped = stopped.map_err(|e| CliError::Failed(format!("a stop ended: {e}")))?;
            clean &= stopped?;
        }
        Ok(clean)
    }

    /// The status that one brick tells.
    pub async fn status(&self, brick: usize) -> Option<Value> {
        let answer = http::get(self.ports[brick].http, "/status").await.ok()?;
        serde_json::from_str(&answer.1).ok()
    }

    /// Waits until every partition has all its replicas, as every brick sees it; the time when that was seen.
    pub async fn whole(&self) -> Result<Instant, CliError> {
        let began = Instant::now();
        loop {
            let mut whole = true;
            for brick in 0..BRICKS {
                let status = self.status(brick).await;
                whole = whole && status.as_ref().is_some_and(is_whole);
            }
            if whole {
                return Ok(Instant::now());
            }
            if began.elapsed() > WHOLE_TIMEOUT {
                return Err(CliError::Failed(format!(
                    "after {} s there are still partitions without all their replicas",
                    WHOLE_TIMEOUT.as_secs()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The brick to be killed: it leads partitions, and the others lead the keepers if that can be.
    pub async fn victim(&self) -> Result<usize, CliError> {
        let status = self.status(0).await;
        let bricks = status.as_ref().map_or(&[][..], |status| items(&status["bricks"]));
        let number = |name: &Value| (0..BRICKS).find(|at| *name == Self::name(*at).as_str());
        let primaries = bricks.iter().filter(|b| b["primaries"].as_u64().is_some_and(|n| n > 0));
        let best = primaries.min_by_key(|b| b["leads"] == true);
        best.and_then(|brick| number(&brick["name"]))
            .ok_or_else(|| CliError::Failed("no brick says that it leads a partition".to_owned()))
    }

    /// Bytes that came to a brick since it started: by copies, and by the log of the primaries.
    pub async fn received(&self, brick: usize) -> u64 {
        let status = self.status(brick).await.unwrap_or_default();
        let cores = items(&status["cores"]).iter();
        cores.filter_map(|core| core["figures"]["bytes_in"].as_u64()).sum()
    }

    /// A client of its own.
    pub async fn connect(&self) -> Result<Store, CliError> {
        let seeds: Vec<String> = self.ports.iter().map(|p| p.listen.to_string()).collect();
        let connect = Connect { connect: seeds.join(","), timeout: REQUEST_TIMEOUT };
        Store::open(&Target { connect, table: "default".to_owned() }).await
    }

    /// The end of the bricks' log.
    pub fn last_words(&self) -> Option<String> {
        let log = std::fs::read(self.dir.path().join("bricks.log")).ok()?;
        let log = String::from_utf8_lossy(&log);
        log.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }
}

fn is_whole(status: &Value) -> bool {
    let partitions = items(&status["partitions"]);
    let whole = |p: &Value| {
        items(&p["members"]).len() == BRICKS
            && items(&p["learners"]).is_empty()
            && p["epoch"] == p["active"]
    };
    !partitions.is_empty() && partitions.iter().all(whole)
}

fn folder_in(parent: &Path) -> Result<TempDir, CliError> {
    tempfile::Builder::new().prefix("firebrick-demo-").tempdir_in(parent).map_err(|e| {
        CliError::Failed(format!(
            "cannot make a temporary folder in {}: {}; set TMPDIR to another folder",
            parent.display(),
            io::Error::from(e.kind())
        ))
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
        for bytes in [1 << 50, u64::MAX] {
            let Err(error) = Stage::new(bytes) else { panic!("nobody has 5 PiB") };
            assert_eq!(error.exit_code(), 6);
            assert!(error.to_string().contains("--max-total"), "{error}");
        }
        let told = folder_in(Path::new("/nowhere/At/all")).unwrap_err().to_string();
        assert!(told.contains("in /nowhere/At/all: ") && told.contains("TMPDIR"), "{told}");
    }
}
