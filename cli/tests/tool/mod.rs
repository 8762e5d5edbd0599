//! The command as a process, and a brick started by `firebrick up` with ports and folders of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// The command.
pub fn firebrick() -> Command {
    Command::new(env!("CARGO_BIN_EXE_firebrick"))
}

/// The one JSON object that a command printed; its exit code is `code`.
pub fn json(output: &Output, code: i32) -> serde_json::Value {
    let said = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}{said}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(value.is_object(), "{value}");
    value
}

/// A running `firebrick up`.
pub struct Up {
    child: Child,
    brick: u32,
    ports: [u16; 4],
    dir: TempDir,
    _memory: TempDir,
}

impl Up {
    /// Starts one and waits until it says that the brick is ready.
    pub fn start() -> Self {
        Self::start_with(1, &[])
    }

    /// The same with so many bricks, and more flags.
    pub fn start_with(bricks: u16, flags: &[&str]) -> Self {
        let mut up = Self::begin_with(bricks, flags);
        let mut line = String::new();
        let stdout = up.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let said: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {}", up.said()));
        up.brick = said["bricks"][0]["pid"].as_u64().unwrap() as u32;
        up
    }

    /// Starts one.
    pub fn begin() -> Self {
        Self::begin_with(1, &[])
    }

    fn begin_with(bricks: u16, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shm = Path::new("/dev/shm");
        let memory = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let memory = memory.unwrap();
        let ports = free_ports(bricks);
        let child = firebrick()
            .args(["up", "--json", "--memory", "64MiB", "--poll", "park"])
            .args(["--bricks", &bricks.to_string()])
            .args(flags)
            .arg("--dir")
            .arg(dir.path().join("data"))
            .arg("--memory-dir")
            .arg(memory.path())
            .args(["--port", &ports[0].to_string(), "--resp-port", &ports[1].to_string()])
            .args(["--http-port", &ports[2].to_string(), "--control-port", &ports[3].to_string()])
            .stdout(Stdio::piped())
            .stderr(File::create(dir.path().join("said")).unwrap())
            .spawn()
            .unwrap();
        Self { child, brick: 0, ports, dir, _memory: memory }
    }

    /// The flags that lead to it.
    pub fn connect(&self) -> [String; 2] {
        ["--connect".to_owned(), format!("127.0.0.1:{}", self.ports[0])]
    }

    /// A folder for the test's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("said")).unwrap()
    }

    /// `kill -9` of the brick, not of its keeper.
    pub fn kill_brick(&self) {
        // SAFETY: kill takes no pointers; `up` waits for this child only after it has died.
        assert_eq!(unsafe { libc::kill(self.brick as i32, libc::SIGKILL) }, 0);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.ports[0])).is_ok() {
            assert!(start.elapsed() < PATIENCE, "the brick does not die");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the brick serves again.
    pub fn wait_ready(&self) {
        let start = Instant::now();
        loop {
            let mut get = firebrick();
            get.args(["get", "k", "--timeout", "1s"]).args(self.connect());
            match get.output().unwrap().status.code() {
                Some(4) => assert!(start.elapsed() < PATIENCE, "the brick does not come back"),
                _ => return,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        // SAFETY: kill takes no pointers; the child has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // The brick before its folders.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// Below the ports of outgoing connections, one of which could else take a port while its brick is
/// started again.
fn free_ports(bricks: u16) -> [u16; 4] {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 100) as u16 * 80;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        // The ports of each further brick are 10 higher.
        let first = base + NEXT.fetch_add(bricks * 10, Ordering::Relaxed);
        let ports = [first, first + 1, first + 2, first + 3];
        if (0..bricks).all(|brick| ports.iter().all(|port| is_free(port + brick * 10))) {
            return ports;
        }
    }
}
