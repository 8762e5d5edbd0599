//! A real brick as a child process, with folders and ports of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::binary::firebrick;
use crate::machine::{anonymous_bytes, forbid, free_port, signal};
use crate::resp::Resp;

/// How long a brick may take to start or stop on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Rounds of the tests that kill bricks, for a long run in `$FIREBRICK_KILL_ROUNDS`.
pub fn kill_rounds() -> u32 {
    std::env::var("FIREBRICK_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(50)
}

/// How to start a brick.
#[derive(Debug, Clone)]
pub struct Options {
    /// `memory`, `async` or `sync`.
    pub durability: &'static str,
    /// Memory for records.
    pub memory: &'static str,
    /// CPUs of its data cores.
    pub cores: &'static str,
    /// A `memory_dir` other than a fresh one in /dev/shm.
    pub memory_dir: Option<PathBuf>,
    /// A `data_dir` other than a fresh one.
    pub data_dir: Option<PathBuf>,
    /// Text of a configuration file.
    pub config: &'static str,
    /// A system call that the kernel refuses it, and the errno.
    pub forbidden: Option<(i64, i32)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: "memory",
            memory: "256MiB",
            cores: "0",
            memory_dir: None,
            data_dir: None,
            config: "",
            forbidden: None,
        }
    }
}

/// A brick that did not start: what it said, and how it ended.
#[derive(Debug)]
pub struct Refused {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote on standard output and standard error.
    pub said: String,
}

/// A running brick; killed when dropped.
#[derive(Debug)]
pub struct Brick {
    options: Options,
    child: Child,
    /// Native protocol.
    pub native: SocketAddr,
    /// Keepers, heartbeats, joins.
    pub control: SocketAddr,
    /// RESP.
    pub resp: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    folder: TempDir,
    memory_folder: TempDir,
}

impl Brick {
    /// Starts one and waits until it answers.
    pub fn start(options: &Options) -> Self {
        Self::try_start(options).unwrap_or_else(|refused| panic!("{refused:#?}"))
    }

    /// As [`Brick::start`], when it may refuse.
    pub fn try_start(options: &Options) -> Result<Self, Refused> {
        let shm = Path::new("/dev/shm");
        let memory_parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let folder =
            tempfile::Builder::new().prefix("firebrick-test-").tempdir().expect("a folder");
        let memory_folder = tempfile::Builder::new()
            .prefix("firebrick-test-")
            .tempdir_in(memory_parent)
            .expect("a folder in memory");
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (native, control, resp, http) = (address(), address(), address(), address());
        let mut options = options.clone();
        options.memory_dir.get_or_insert_with(|| memory_folder.path().join("memory"));
        options.data_dir.get_or_insert_with(|| folder.path().join("data"));
        let child = spawn(&options, [native, control, resp, http], folder.path());
        let mut brick = Self { options, child, native, control, resp, http, folder, memory_folder };
        brick.wait_until_ready()?;
        Ok(brick)
    }

    fn addresses(&self) -> [SocketAddr; 4] {
        [self.native, self.control, self.resp, self.http]
    }

    /// Starts the same brick again, on the same folders and ports.
    pub fn restart(&mut self) -> Result<(), Refused> {
        self.restart_without_waiting();
        self.wait_until_ready()
    }

    /// Starts the same brick again, which may have to wait for something.
    pub fn restart_without_waiting(&mut self) {
        assert!(self.child.try_wait().expect("wait").is_some(), "the old process still runs");
        self.child = spawn(&self.options, self.addresses(), self.folder.path());
    }

    /// Starts the same brick again and kills it this much later, wherever its start is then.
    pub fn restart_and_kill(&mut self, later: Duration) {
        self.restart_without_waiting();
        std::thread::sleep(later);
        self.kill9();
    }

    /// What a power failure does to a brick that is not running: what was in memory only is gone.
    pub fn lose_memory(&mut self) {
        assert!(self.child.try_wait().expect("wait").is_some(), "the process still runs");
        std::fs::remove_dir_all(self.memory_dir()).expect("memory_dir");
    }

    /// Waits until it serves.
    pub fn wait_until_ready(&mut self) -> Result<(), Refused> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return Err(Refused { status, said: self.said() });
            }
            // Until every data core serves, some requests are answered with LOADING.
            if self.http_get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            assert!(begin.elapsed() < PATIENCE, "the brick does not answer: {}", self.said());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// A new RESP connection.
    pub fn connect(&self) -> Resp {
        Resp::connect(self.resp).unwrap_or_else(|error| panic!("{error}; {}", self.said()))
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, number: i32) -> ExitStatus {
        signal(self.pid(), number);
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "the brick does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// All it wrote on standard output and standard error, through restarts.
    pub fn said(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its segments are mapped from.
    pub fn memory_dir(&self) -> &Path {
        self.options.memory_dir.as_deref().unwrap_or(self.memory_folder.path())
    }

    /// Where they are written behind to.
    pub fn data_dir(&self) -> &Path {
        self.options.data_dir.as_deref().unwrap_or(self.folder.path())
    }

    /// How it was started.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Runs `firebrick` with these arguments against this brick; it must end with 0.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|said| panic!("{args:?}: {said}{}", self.said()))
    }

    /// The same; what it said when it did not end with 0.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(firebrick())
            .args(args)
            .args(["--connect", &self.native.to_string()])
            .stdin(Stdio::null())
            .output()
            .expect("the command line");
        let said = if output.status.success() { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(said).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// Anonymous memory of the process, in bytes.
    pub fn anonymous_bytes(&self) -> u64 {
        anonymous_bytes(self.pid())
    }

    /// The sum of a metric over all data cores.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.http_get("/metrics").expect("metrics");
        let of_name = |line: &&str| line.starts_with(name) && !line.starts_with('#');
        text.lines()
            .filter(of_name)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The body of an HTTP GET, with its status line before it.
    pub fn http_get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: brick\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Brick {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill9();
        }
        if std::thread::panicking() {
            let said = self.said();
            eprintln!("---- the brick said:\n{said}----");
        }
    }
}

fn spawn(
    options: &Options,
    [native, control, resp, http]: [SocketAddr; 4],
    folder: &Path,
) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(folder.join("log"));
    let log = log.expect("a log file");
    let again = File::try_clone(&log).expect("the log file again");
    let config = folder.join("firebrick.toml");
    std::fs::write(&config, options.config).expect("the configuration");
    let dir = |dir: &Option<PathBuf>| dir.clone().expect("set by the caller");
    let mut command = Command::new(firebrick());
    if let Some((call, errno)) = options.forbidden {
        forbid(&mut command, call, errno);
    }
    command
        .args(["brick", "--name", "test", "--poll", "park", "--cores", options.cores])
        .args(["--durability", options.durability, "--memory", options.memory])
        .args(["--listen", &native.to_string(), "--control", &control.to_string()])
        .args(["--resp", &resp.to_string()])
        .args(["--http", &http.to_string()])
        .arg("--config")
        .arg(config)
        .arg("--memory-dir")
        .arg(dir(&options.memory_dir))
        .arg("--data-dir")
        .arg(dir(&options.data_dir))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .spawn()
        .expect("the brick's process")
}
