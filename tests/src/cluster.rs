//! A cluster of real bricks on test hosts: processes in network namespaces, killed, paused and cut off.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use firebrick_partition::hash_key;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::firebrick;
use crate::machine::{Mount, signal, skip};
use crate::network::{Network, missing};

/// How long a cluster may take to be as a test wants it, on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The ports of every brick: each has a host of its own.
const NATIVE: u16 = 7400;
const CONTROL: u16 = 7401;
const RESP: u16 = 7379;
const HTTP: u16 = 7480;

/// How the bricks are started.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Bricks, each on a host of its own.
    pub bricks: usize,
    /// So many of them, the last ones, are not started with the others.
    pub late: usize,
    /// Durability of the table `default`.
    pub durability: &'static str,
    /// Memory of a brick for records.
    pub memory: &'static str,
    /// Further flags of `firebrick brick`.
    pub flags: Vec<String>,
    /// Where a brick has a small file system instead of a folder.
    pub small: Vec<Small>,
}

/// A small file system.
#[derive(Debug, Clone)]
pub struct Small {
    /// Whose.
    pub brick: usize,
    /// For its memory_dir, else for its data_dir.
    pub memory: bool,
    /// Its size.
    pub mib: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            bricks: 3,
            late: 0,
            durability: "memory",
            memory: "256MiB",
            flags: Vec::new(),
            small: Vec::new(),
        }
    }
}

/// Bricks on hosts `0..bricks`; the host after them is the clients'.
#[derive(Debug)]
pub struct Cluster {
    /// The hosts.
    pub network: Network,
    shape: Shape,
    children: Vec<Option<Child>>,
    paused: Vec<bool>,
    mounts: Vec<Mount>,
    /// The cluster should know it: it was started, and not removed.
    known: Vec<bool>,
    disks: TempDir,
    memories: TempDir,
}

impl Cluster {
    /// For a test, whose thread is on the clients' host from then on. `None`: this machine has not what it takes, which
    /// was said.
    pub fn for_test(test: &str, shape: &Shape) -> Option<Self> {
        if let Some(why) = missing() {
            skip(test, &why);
            return None;
        }
        let cluster = Self::start(shape).expect("a cluster");
        cluster.network.enter(cluster.client_host()).expect("the clients' host");
        Some(cluster)
    }

    /// Starts the bricks and waits until all have joined and serve.
    fn start(shape: &Shape) -> Result<Self, String> {
        let network = Network::new(shape.bricks + 1)?;
        let folder = |dir: &Path| {
            let made = tempfile::Builder::new().prefix("firebrick-test-").tempdir_in(dir);
            made.map_err(|error| error.to_string())
        };
        let (disks, memories) = (folder(&std::env::temp_dir())?, folder(Path::new("/dev/shm"))?);
        let mounts = shape.small.iter().map(|small| Mount::tmpfs(small.mib));
        let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
        let mut cluster = Self {
            network,
            shape: shape.clone(),
            children: (0..shape.bricks).map(|_| None).collect(),
            paused: vec![false; shape.bricks],
            mounts,
            known: vec![false; shape.bricks],
            disks,
            memories,
        };
        for brick in 0..shape.bricks - shape.late {
            cluster.spawn(brick);
            cluster.wait_ready(brick);
        }
        cluster.await_health();
        Ok(cluster)
    }

    /// Bricks.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// The host that clients are on.
    pub fn client_host(&self) -> usize {
        self.len()
    }

    /// Where a brick's native protocol is.
    pub fn native(&self, brick: usize) -> SocketAddr {
        self.network.at(brick, NATIVE)
    }

    /// Where a brick's Redis protocol is.
    pub fn resp(&self, brick: usize) -> SocketAddr {
        self.network.at(brick, RESP)
    }

    /// All native addresses, as a client takes them.
    pub fn seeds(&self) -> String {
        let all: Vec<_> = (0..self.len()).map(|b| self.native(b).to_string()).collect();
        all.join(",")
    }

    /// Runs `work` on a thread of its own on the clients' host.
    pub fn on_client_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.network.enter(self.client_host()).expect("the clients' host");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn log(&self, brick: usize) -> PathBuf {
        self.disks.path().join(format!("log-{brick}"))
    }

    /// Where a brick maps its segments.
    pub fn memory_dir(&self, brick: usize) -> PathBuf {
        if let Some(mount) = self.mount(brick, true) {
            return mount.path().join("brick");
        }
        self.memories.path().join(format!("brick-{brick}"))
    }

    /// Where it writes them behind to.
    pub fn data_dir(&self, brick: usize) -> PathBuf {
        if let Some(mount) = self.mount(brick, false) {
            return mount.path().join("brick");
        }
        self.disks.path().join(format!("brick-{brick}"))
    }

    fn mount(&self, brick: usize, memory: bool) -> Option<&Mount> {
        let is_it = |small: &Small| (small.brick, small.memory) == (brick, memory);
        self.mounts.get(self.shape.small.iter().position(is_it)?)
    }

    /// Starts a brick that does not run.
    pub fn spawn(&mut self, brick: usize) {
        assert!(self.children[brick].is_none(), "brick {brick} runs");
        self.known[brick] = true;
        let log = OpenOptions::new().create(true).append(true).open(self.log(brick));
        let log = log.expect("a log file");
        let again = File::try_clone(&log).expect("the log file again");
        let at = |port| self.network.at(brick, port).to_string();
        let mut command = self.network.command(brick, &firebrick());
        // A brick does not begin on a memory_dir that is smaller than what it is told to use.
        let small = self.shape.small.iter().find(|small| small.brick == brick && small.memory);
        let small = small.map(|small| format!("{}MiB", small.mib - 8));
        let memory = small.as_deref().unwrap_or(self.shape.memory);
        command
            .args(["brick", "--name", &format!("brick-{brick}"), "--poll", "park"])
            .args(["--durability", self.shape.durability, "--memory", memory])
            .args(["--listen", &at(NATIVE), "--control", &at(CONTROL)])
            .args(["--resp", &at(RESP), "--http", &at(HTTP)])
            .arg("--memory-dir")
            .arg(self.memory_dir(brick))
            .arg("--data-dir")
            .arg(self.data_dir(brick))
            .args(["--host", &format!("host-{brick}"), "--replicas", "3"])
            .args(&self.shape.flags);
        if brick > 0 {
            let others = (0..self.len()).filter(|&other| other != brick);
            let join: Vec<_> =
                others.map(|other| self.network.at(other, CONTROL).to_string()).collect();
            command.args(["--join", &join.join(",")]);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(again);
        self.children[brick] = Some(command.spawn().expect("a brick's process"));
    }

    /// Waits until a brick says that it is ready.
    pub fn wait_ready(&mut self, brick: usize) {
        let begin = Instant::now();
        loop {
            let child = self.children[brick].as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("wait") {
                panic!("brick {brick} ended ({status}): {}", self.said(brick));
            }
            if self.http_get(brick, "/readyz").is_some_and(|text| text.starts_with("HTTP/1.1 200"))
            {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "brick {brick}: {}", self.said(brick));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `GET`, from the clients' host; `None`: no answer.
    pub fn http_get(&self, brick: usize, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        self.on_client_host(|| {
            let address = self.network.at(brick, HTTP);
            let wait = Duration::from_secs(2);
            let mut stream = std::net::TcpStream::connect_timeout(&address, wait).ok()?;
            stream.set_read_timeout(Some(wait)).ok()?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: brick\r\nConnection: close\r\n\r\n")
                .ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    /// A brick's `/status`.
    pub fn status(&self, brick: usize) -> Option<Value> {
        let text = self.http_get(brick, "/status")?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }

    /// The cluster as a brick that runs sees it.
    fn seen(&self) -> Option<Value> {
        (0..self.len()).filter(|&brick| self.runs(brick)).find_map(|brick| self.status(brick))
    }

    /// Waits until every partition has all its replicas, in an active epoch, as some brick sees it.
    pub fn await_health(&self) {
        let begin = Instant::now();
        loop {
            if self.seen().as_ref().is_some_and(|status| self.is_healthy(status)) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "not healthy:\n{}", self.views());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What every brick says of the cluster, for people.
    fn views(&self) -> String {
        let view = |brick| {
            let status = self.status(brick).unwrap_or_default();
            let figures =
                ["cluster", "bricks", "copies", "notes", "partitions", "not_ready_because"];
            let lines = figures.map(|name| format!("{name}: {}\n", status[name]));
            format!(
                "---- brick {brick} as it sees the cluster:\n{}{}",
                lines.concat(),
                self.said(brick)
            )
        };
        (0..self.len()).map(view).collect()
    }

    fn is_healthy(&self, status: &Value) -> bool {
        let partitions = status["partitions"].as_array().map_or(&[][..], Vec::as_slice);
        let up = (0..self.len()).filter(|&b| self.runs(b)).count();
        let whole = |partition: &Value| {
            let wanted = partition["replicas"].as_u64().unwrap_or(u64::MAX).min(up as u64);
            let members = partition["members"].as_array().map_or(0, Vec::len) as u64;
            members >= wanted && partition["active"] == partition["epoch"]
        };
        let bricks = status["bricks"].as_array().map_or(0, Vec::len);
        // (The first brick votes alone until the others have the log: it must not be killed before that.)
        let voters = status["cluster"]["voters"].as_array().map_or(0, Vec::len);
        let known = self.known.iter().filter(|known| **known).count();
        let vote = voters >= [1, 1, 1, 3, 3][known.min(4)];
        bricks == known && vote && !partitions.is_empty() && partitions.iter().all(whole)
    }

    /// The bricks of the group of a key of `default`, the primary first, as a brick that runs knows it.
    pub fn group_of(&self, key: &str) -> Vec<usize> {
        group_in(&self.seen().expect("a brick's status"), key).expect("a partition for every hash")
    }

    /// The epoch of the group of a key of `default`, as a brick that runs knows it.
    pub fn epoch_of(&self, key: &str) -> u64 {
        let status = self.seen().expect("a brick's status");
        let partition = partition_in(&status, key).expect("a partition for every hash");
        partition["epoch"].as_u64().expect("an epoch")
    }

    /// A key whose group is as a test wants it; bricks that are new get their share first.
    pub fn key_of(&self, fits: impl Fn(&[usize]) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let status = self.seen().unwrap_or_default();
            let mut keys = (0..1_000).map(|n| format!("key-{n}"));
            let fits = |key: &String| group_in(&status, key).is_some_and(|group| fits(&group));
            if let Some(key) = keys.find(fits) {
                return key;
            }
            assert!(begin.elapsed() < PATIENCE, "no such group: {}", status["partitions"]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The brick that leads the keepers, as one that runs knows it.
    pub fn keepers_leader(&self) -> Option<usize> {
        number(&self.seen()?["cluster"]["leader"])
    }

    /// A brick's process runs (and is not paused).
    pub fn runs(&self, brick: usize) -> bool {
        self.children[brick].is_some() && !self.paused[brick]
    }

    /// The process of a brick that runs.
    pub fn pid(&self, brick: usize) -> u32 {
        self.children[brick].as_ref().expect("it was started").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self, brick: usize) {
        self.resume(brick);
        if let Some(mut child) = self.children[brick].take() {
            // The child is `ip`, which has become the brick by exec.
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }

    /// Waits until the process of a brick that was removed has ended; its exit code.
    pub fn wait_removed(&mut self, brick: usize) -> Option<i32> {
        self.known[brick] = false;
        let child = self.children[brick].take();
        let mut child = child.expect("it was started");
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("wait") {
                return status.code();
            }
            if begin.elapsed() > PATIENCE {
                let views = self.views();
                let _ = child.kill();
                panic!("brick {brick} goes on:\n{views}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a power failure leaves of a brick that does not run: its disk.
    pub fn lose_memory(&self, brick: usize) {
        assert!(self.children[brick].is_none(), "brick {brick} runs");
        let _ = std::fs::remove_dir_all(self.memory_dir(brick));
    }

    /// SIGSTOP; every thread stands still when this returns.
    pub fn pause(&mut self, brick: usize) {
        if let Some(child) = &self.children[brick] {
            signal(child.id(), libc::SIGSTOP);
            while !stands_still(child.id()) {
                std::thread::sleep(Duration::from_micros(100));
            }
            self.paused[brick] = true;
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self, brick: usize) {
        if let Some(child) = &self.children[brick]
            && std::mem::take(&mut self.paused[brick])
        {
            signal(child.id(), libc::SIGCONT);
        }
    }

    /// Undoes all faults, and waits until the cluster is whole.
    pub fn mend(&mut self) {
        self.network.heal();
        for brick in 0..self.len() {
            self.network.fast(brick);
            self.resume(brick);
            if self.children[brick].is_none() && self.known[brick] {
                self.spawn(brick);
            }
        }
        for brick in (0..self.len()).filter(|&brick| self.known[brick]).collect::<Vec<_>>() {
            self.wait_ready(brick);
        }
        self.await_health();
    }

    /// All that a brick wrote, through restarts.
    pub fn said(&self, brick: usize) -> String {
        let bytes = std::fs::read(self.log(brick)).unwrap_or_default();
        format!("---- brick {brick} said:\n{}", String::from_utf8_lossy(&bytes))
    }

    /// Runs the command line on the clients' host against a brick; it must end with 0.
    pub fn cli(&self, brick: usize, args: &[&str]) -> String {
        let mut command = self.network.command(self.client_host(), &firebrick());
        let at = self.native(brick).to_string();
        let output = command.args(args).args(["--connect", &at]).stdin(Stdio::null()).output();
        let output = output.expect("the command line");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for brick in 0..self.len() {
            self.kill(brick);
            if std::thread::panicking() {
                eprintln!("{}----", self.said(brick));
            }
        }
    }
}

/// One thread takes the signal and the others stop behind it, which a busy machine may delay.
fn stands_still(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        !state.starts_with(['R', 'S', 'D'])
    })
}

fn number(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix("brick-")?.parse().ok()
}

fn partition_in<'a>(status: &'a Value, key: &str) -> Option<&'a Value> {
    let hash = hash_key(key.as_bytes());
    let holds = |partition: &&Value| {
        let leaf = |name: &str| partition["leaf"][name].as_u64().expect("a leaf");
        partition["table"] == "default" && hash & ((1 << leaf("depth")) - 1) == leaf("suffix")
    };
    status["partitions"].as_array()?.iter().find(holds)
}

fn group_in(status: &Value, key: &str) -> Option<Vec<usize>> {
    partition_in(status, key)?["members"].as_array()?.iter().map(number).collect()
}
