//! The facts about a host, read once at the start.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::lock::ID_FILE;

/// Whether io_uring can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uring {
    /// A ring was made and closed again.
    Works,
    /// The kernel's word (errno), and `kernel.io_uring_disabled` where there is one.
    Refused {
        /// errno.
        errno: i32,
        /// The sysctl.
        disabled: Option<u32>,
    },
}

/// What kind of file system a folder is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// Memory.
    Tmpfs,
    /// Memory, in huge pages.
    Hugetlbfs,
    /// Anything else.
    Disk,
}

/// A folder that exists, or the nearest existing folder above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its path, with symbolic links resolved as far as it exists.
    pub path: PathBuf,
    /// errno where this user may not write.
    pub refused: Option<i32>,
    /// Its file system.
    pub kind: FsKind,
    /// Size of the file system, bytes.
    pub size: u64,
    /// Bytes free for this user.
    pub available: u64,
    /// Bytes that files in the folder itself already take.
    pub own_bytes: u64,
    /// A brick has served from it.
    pub has_brick: bool,
}

impl Place {
    /// What a brick in this folder can have: what is free, and what it has already.
    pub fn room(&self) -> u64 {
        self.available + self.own_bytes
    }

    /// A brick has memory here already, and the file system is large enough, if not others have filled it.
    pub fn is_home_of(&self, wanted: u64) -> bool {
        self.has_brick && self.size >= wanted
    }
}

/// The facts.
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// io_uring.
    pub uring: Uring,
    /// Limit of open files, after raising it.
    pub nofile: u64,
    /// Limit of locked memory, bytes.
    pub memlock: u64,
    /// `vm.max_map_count`.
    pub max_map_count: u64,
    /// CPUs that are online.
    pub cpus_online: Vec<usize>,
    /// CPUs that this process may run on, in order.
    pub cpus_allowed: Vec<usize>,
    /// Effective user id.
    pub uid: u32,
    /// In a container, as far as can be told.
    pub container: bool,
    /// logind deletes this user's files in /dev/shm at logout.
    pub remove_ipc: bool,
    /// Memory of the machine, or of this process's cgroup where that is less.
    pub memory_total: u64,
    /// Where relative paths begin.
    pub current_dir: PathBuf,
    /// Looks at a folder.
    pub places: Box<dyn Fn(&Path) -> Place>,
}

impl Host {
    /// Reads the facts of this host, after raising the limit of open files as far as is allowed.
    pub fn read() -> Self {
        // SAFETY: geteuid has no preconditions.
        let uid = unsafe { libc::geteuid() };
        Self {
            kernel: read_trimmed("/proc/sys/kernel/osrelease").unwrap_or_default(),
            uring: probe_uring(),
            nofile: raise_nofile(),
            memlock: limit(libc::RLIMIT_MEMLOCK).0,
            max_map_count: read_number("/proc/sys/vm/max_map_count").unwrap_or(65_530),
            cpus_online: read_trimmed("/sys/devices/system/cpu/online")
                .map(|text| cpu_list(&text))
                .unwrap_or_default(),
            cpus_allowed: affinity(),
            uid,
            container: in_container(),
            remove_ipc: remove_ipc(uid),
            memory_total: memory_total(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            places: Box::new(read_place),
        }
    }

    /// Looks at a folder.
    pub fn place(&self, path: &Path) -> Place {
        (self.places)(path)
    }
}

fn read_trimmed(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn read_number(path: &str) -> Option<u64> {
    read_trimmed(path)?.parse().ok()
}

/// The kernel's list format: `0-3,8`.
pub(super) fn cpu_list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>())
        {
            cpus.extend(first..=last.min(first.saturating_add(4095)));
        }
    }
    cpus
}

fn affinity() -> Vec<usize> {
    // SAFETY: cpu_set_t is plain bits, for which all zeros is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and size are those of `set`, which is writable.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: every cpu is below CPU_SETSIZE, the number of bits in the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

fn limit(which: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a writable rlimit.
    if unsafe { libc::getrlimit(which, &raw mut limit) } != 0 {
        return (0, 0);
    }
    (limit.rlim_cur, limit.rlim_max)
}

/// Raises the soft limit of open files to the hard one; answers what then holds.
fn raise_nofile() -> u64 {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    if soft < hard {
        let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: the pointer is to a readable rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            return hard;
        }
    }
    soft
}

/// Makes the smallest ring, uses all three system calls on it and closes it: seccomp filters answer by
/// errno, not by a sysctl, and may forbid one call and not another.
fn probe_uring() -> Uring {
    /// `struct io_uring_params` is 120 bytes; the kernel wants it zeroed.
    #[repr(C, align(8))]
    struct Params([u8; 120]);
    /// `struct io_uring_probe` without room for operations.
    #[repr(C, align(8))]
    struct Probe([u8; 16]);
    const IORING_REGISTER_PROBE: u32 = 8;
    let (mut params, mut probe) = (Params([0; 120]), Probe([0; 16]));
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: the kernel writes at most the 120 bytes of io_uring_params to the pointer.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2u32, &raw mut params) };
    let errno = if fd < 0 {
        errno()
    } else {
        let probe = &raw mut probe;
        // SAFETY: with no room for operations the kernel writes the 16 bytes of the probe and no more.
        let registered = unsafe {
            libc::syscall(libc::SYS_io_uring_register, fd, IORING_REGISTER_PROBE, probe, 0u32)
        };
        let nothing = std::ptr::null::<u8>();
        // SAFETY: nothing is submitted and nothing is waited for; the pointer is not read.
        let entered = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, 0u32, 0u32, 0u32, nothing, 0usize)
        };
        let refused = if registered < 0 || entered < 0 { errno() } else { 0 };
        // SAFETY: the descriptor was just made here and nothing else has it.
        unsafe { libc::close(fd as i32) };
        if refused == 0 {
            return Uring::Works;
        }
        refused
    };
    let disabled = read_number("/proc/sys/kernel/io_uring_disabled").map(|n| n as u32);
    Uring::Refused { errno, disabled }
}

fn in_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || read_trimmed("/run/systemd/container").is_some()
}

/// logind's `RemoveIPC` (default yes) deletes what an ordinary user has in /dev/shm when the last
/// session of that user ends, unless the user lingers.
fn remove_ipc(uid: u32) -> bool {
    // System users are below 1000 and are spared.
    if uid < 1000 || !Path::new("/run/systemd/seats").exists() {
        return false;
    }
    let name = fs::read_to_string("/etc/passwd").unwrap_or_default().lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    if name.is_some_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists()) {
        return false;
    }
    let mut files = vec![PathBuf::from("/etc/systemd/logind.conf")];
    if let Ok(drop_ins) = fs::read_dir("/etc/systemd/logind.conf.d") {
        let mut drop_ins: Vec<_> = drop_ins.flatten().map(|entry| entry.path()).collect();
        drop_ins.sort();
        files.extend(drop_ins);
    }
    let texts = files.iter().filter_map(|path| fs::read_to_string(path).ok());
    remove_ipc_setting(&texts.collect::<Vec<_>>().join("\n"))
}

/// The last `RemoveIPC=` of logind's configuration; the default is yes.
pub(super) fn remove_ipc_setting(text: &str) -> bool {
    let mut values = text.lines().filter_map(|line| line.trim().strip_prefix("RemoveIPC="));
    let no = |value: &str| {
        let value = value.trim().to_ascii_lowercase();
        ["no", "false", "off", "0", "n", "f"].contains(&value.as_str())
    };
    !values.next_back().is_some_and(no)
}

fn memory_total() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
            kib.trim().parse::<u64>().ok()
        })
        .map_or(0, |kib| kib << 10);
    // In a container the root of the cgroup tree is the container's own.
    match read_number("/sys/fs/cgroup/memory.max") {
        Some(limit) if limit < machine => limit,
        _ => machine,
    }
}

fn read_place(path: &Path) -> Place {
    let mut existing = path;
    let mut missing = Vec::new();
    while !existing.exists() {
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else { break };
        missing.push(name.to_owned());
        existing = parent;
    }
    let mut real = existing.canonicalize().unwrap_or_else(|_| existing.to_owned());
    let mut place = Place {
        path: PathBuf::new(),
        refused: None,
        kind: FsKind::Disk,
        size: 0,
        available: 0,
        own_bytes: if missing.is_empty() { bytes_in(existing, 0) } else { 0 },
        has_brick: path.join(ID_FILE).is_file(),
    };
    if let Ok(name) = CString::new(real.as_os_str().as_bytes()) {
        read_fs(&name, &mut place);
        if !real.is_dir() {
            place.refused = Some(libc::ENOTDIR);
        }
    }
    real.extend(missing.iter().rev());
    place.path = real;
    place
}

fn read_fs(name: &CString, place: &mut Place) {
    // SAFETY: `name` is a NUL-terminated string.
    if unsafe {
        libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS)
    } != 0
    {
        place.refused = std::io::Error::last_os_error().raw_os_error();
    }
    // SAFETY: statfs is plain integers, for which all zeros is valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is NUL-terminated and `stat` is writable.
    if unsafe { libc::statfs(name.as_ptr(), &raw mut stat) } != 0 {
        place.refused = std::io::Error::last_os_error().raw_os_error();
        return;
    }
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between C libraries")]
    let (kind, block) = (stat.f_type as i64, stat.f_bsize as u64);
    place.kind = match kind {
        0x0102_1994 => FsKind::Tmpfs,
        0x9584_58f6 => FsKind::Hugetlbfs,
        _ => FsKind::Disk,
    };
    place.size = stat.f_blocks * block;
    place.available = stat.f_bavail * block;
}

/// Bytes that the files below a folder take; a brick's folder is two levels deep.
fn bytes_in(folder: &Path, depth: u32) -> u64 {
    let Ok(listing) = fs::read_dir(folder) else { return 0 };
    let mut sum = 0;
    for entry in listing.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() {
            sum += meta.blocks() * 512;
        } else if meta.is_dir() && depth < 2 {
            sum += bytes_in(&entry.path(), depth + 1);
        }
    }
    sum
}
