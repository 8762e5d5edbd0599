//! The machine that a test runs on: limits, ports, mounts.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Blocks of ports below those from which the kernel takes ports for outgoing connections. A test process
/// has one for itself until it ends: a brick that was killed finds its port free when it starts again.
const BLOCKS: u32 = 80;
const BLOCK_PORTS: u32 = 200;

/// The first port of this process's block, and the lock that keeps others out.
fn block() -> &'static (u32, File) {
    static BLOCK: OnceLock<(u32, File)> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let take = |step: u32| {
            let block = (std::process::id() + step) % BLOCKS;
            let path = std::env::temp_dir().join(format!("firebrick-test-ports-{block}"));
            let file = File::create(path).ok()?;
            file.try_lock().ok()?;
            Some((16_000 + block * BLOCK_PORTS, file))
        };
        (0..BLOCKS).find_map(take).expect("a block of ports that no other test process has")
    })
}

/// A port that nothing listens on and no other test takes.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = block().0 + step % BLOCK_PORTS;
        if TcpListener::bind(("127.0.0.1", port as u16)).is_ok() {
            return port as u16;
        }
    }
}

/// This process and its children may hold `wanted` files; says why not when they may not.
pub fn raise_open_files(wanted: u64) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err("getrlimit failed".to_owned());
    }
    if limit.rlim_cur >= wanted {
        return Ok(());
    }
    let raised = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
    // SAFETY: `raised` is a valid rlimit that the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        return Ok(());
    }
    Err(format!("the limit of open files is {} and {wanted} are needed", limit.rlim_max))
}

/// The effective user is root.
pub fn is_root() -> bool {
    // SAFETY: no arguments, no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Sends a signal to a child that has not been waited for.
pub fn signal(pid: u32, number: i32) {
    // SAFETY: takes numbers only; the pid is a child's that was not reaped, so it is not reused.
    let sent = unsafe { libc::kill(pid as i32, number) };
    assert_eq!(sent, 0, "signal {number} to {pid}");
}

/// The program will run under a seccomp filter that answers one system call with an errno, as those of
/// containers and service managers do.
pub fn forbid(command: &mut Command, call: i64, errno: i32) {
    use std::os::unix::process::CommandExt;
    let statement =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: takes numbers only.
        let quiet = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: the program and its statements live until the call returns; the kernel copies them.
        if quiet != 0 || unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0
        {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(install) };
}

/// Runs a program to its end; its standard error when it failed.
pub fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A small file system, unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mount {
    /// A tmpfs of this size; `Err` says why this machine does not allow it.
    pub fn tmpfs(mib: u32) -> Result<Self, String> {
        Self::without_device("tmpfs", &format!("size={mib}m"))
    }

    /// A file system that needs no device, with its mount options.
    pub fn without_device(kind: &str, options: &str) -> Result<Self, String> {
        let (folder, path) = Self::folder()?;
        run("mount", &["-t", kind, "-o", options, kind, text(&path)])?;
        Ok(Self { path, _folder: folder })
    }

    /// An ext4 in a file, on a loop device.
    pub fn ext4(mib: u64) -> Result<Self, String> {
        Self::in_file("ext4", &["-q", "-F", "-m", "0"], mib, "loop")
    }

    /// A file system in a sparse file, on a loop device: `mkfs.KIND` with its arguments, and the mount
    /// options.
    pub fn in_file(kind: &str, mkfs: &[&str], mib: u64, options: &str) -> Result<Self, String> {
        let (folder, path) = Self::folder()?;
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mib << 20).map_err(|error| error.to_string())?;
        run(&format!("mkfs.{kind}"), &[mkfs, &[text(&image)]].concat())?;
        run("mount", &["-t", kind, "-o", options, text(&image), text(&path)])?;
        Ok(Self { path, _folder: folder })
    }

    fn folder() -> Result<(tempfile::TempDir, PathBuf), String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("mount");
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        Ok((folder, path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on whatever would reach the disk of an ext4 fails.
    pub fn fail(&self) -> std::io::Result<()> {
        /// `EXT4_IOC_SHUTDOWN`, and its "flush nothing".
        const SHUTDOWN: libc::c_ulong = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let how = NO_LOG_FLUSH;
        let folder = File::open(&self.path)?;
        // SAFETY: the descriptor is open, and the call reads a u32 that lives through it.
        match unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &raw const how) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a killed brick may still hold it for a moment.
        if let Err(error) = run("umount", &["-l", text(&self.path)]) {
            eprintln!("{error}");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A test that this machine cannot run says so where a person sees it: not by `eprintln!`, which is shown of tests that
/// fail only.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Anonymous memory of a process.
pub fn anonymous_bytes(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("Anonymous");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

/// The most anonymous memory that a process has while something is done, above what it had before.
pub fn growth_while<T>(pid: u32, work: impl FnOnce() -> T) -> (u64, T) {
    let (before, over) = (anonymous_bytes(pid), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = before;
            while !over.load(Ordering::Relaxed) {
                most = most.max(anonymous_bytes(pid));
                std::thread::sleep(Duration::from_millis(5));
            }
            most - before
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (watch.join().expect("a watch"), done)
    })
}
