//! The judgements, one function per subject. Pure.

use super::host::{FsKind, Host, Place, Uring};
use super::{Finding, SHM};
use crate::config::{BrickConfig, bytes_text, partitions_per_core};
use firebrick_partition::log::storage::shared_bytes_least;

/// Files that a brick has open besides its connections: segments (two sides), rings, logs.
const FILES_BESIDES: u64 = 2048;
/// Mappings that a brick has besides its segments.
const MAPS_BESIDES: u64 = 2048;
/// Smallest memory that "auto" chooses.
const MEMORY_AUTO_MIN: u64 = 64 << 20;

fn refuse(sentence: String) -> Finding {
    Finding::Refuse(sentence)
}

fn warn(sentence: String) -> Finding {
    Finding::Warn(sentence)
}

/// The kernel and its io_uring.
pub(super) fn kernel(host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    match version(&host.kernel) {
        Some(version) if version >= (6, 1) => {}
        Some(_) => found.push(refuse(format!(
            "this kernel is Linux {}, and a brick needs 6.1 or later: boot a newer kernel (Debian \
             12, Ubuntu 24.04 and RHEL 10 have one)",
            host.kernel
        ))),
        None => found.push(warn(format!(
            "the kernel calls itself \"{}\", which is not a version; a brick needs Linux 6.1 or later",
            host.kernel
        ))),
    }
    if let Uring::Refused { errno, disabled } = host.uring {
        found.push(refuse(uring(errno, disabled, host)));
    }
    found
}

fn uring(errno: i32, disabled: Option<u32>, host: &Host) -> String {
    match disabled {
        Some(2) => {
            return "io_uring is turned off on this host (kernel.io_uring_disabled = 2): turn \
                           it on with `sysctl -w kernel.io_uring_disabled=0`"
                .into();
        }
        Some(1) if host.uid != 0 => {
            return "io_uring is for privileged users only on this host \
                    (kernel.io_uring_disabled = 1): turn it on with `sysctl -w \
                    kernel.io_uring_disabled=0`, or put this user in the group of \
                    kernel.io_uring_group"
                .into();
        }
        _ => {}
    }
    match errno {
        libc::EPERM | libc::ENOSYS if host.container => {
            "the container's seccomp profile forbids io_uring: run it with a profile that allows \
             io_uring_setup, io_uring_enter and io_uring_register (Docker: `--security-opt \
             seccomp=unconfined`, or your own profile)"
                .into()
        }
        libc::EPERM => {
            "io_uring is not permitted here (EPERM), most likely by a seccomp filter of \
                        the service manager or sandbox: allow io_uring_setup, io_uring_enter and \
                        io_uring_register"
                .into()
        }
        libc::ENOSYS => {
            "this kernel has no io_uring (ENOSYS), or a seccomp filter hides it: use a \
                         kernel built with CONFIG_IO_URING=y, and allow io_uring_setup, \
                         io_uring_enter and io_uring_register"
                .into()
        }
        libc::ENOMEM => format!(
            "io_uring could not get memory (ENOMEM; the limit of locked memory is {}): raise it \
             (ulimit -l, or LimitMEMLOCK= in the service)",
            bytes_text(host.memlock)
        ),
        _ => format!(
            "io_uring does not work here ({}): a brick cannot run without it",
            std::io::Error::from_raw_os_error(errno)
        ),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Limits of the process.
pub(super) fn limits(config: &BrickConfig, host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    let wanted = u64::from(config.limits.connections_max) + FILES_BESIDES;
    if host.nofile < wanted {
        let least = u64::from(config.limits.connections_max.min(64)) + 192;
        let sentence = format!(
            "the limit of open files is {}, and limits.connections_max = {} needs {wanted}: raise it \
             (ulimit -n {wanted}, or LimitNOFILE={wanted} in the service), or lower \
             limits.connections_max",
            host.nofile, config.limits.connections_max
        );
        found.push(if host.nofile < least { refuse(sentence) } else { warn(sentence) });
    }
    found
}

/// The CPUs of the data cores.
pub(super) fn cores(cores: &[usize], host: &Host) -> Vec<Finding> {
    let list = |cpus: &[usize]| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut found = Vec::new();
    if cores.is_empty() {
        found.push(refuse(
            "the CPUs of this process are not known (sched_getaffinity failed): name them with cores"
                .into(),
        ));
    }
    for &cpu in cores {
        if !host.cpus_online.is_empty() && !host.cpus_online.contains(&cpu) {
            found.push(refuse(format!(
                "cores names CPU {cpu}, which this host does not have (online: {}): choose among those",
                list(&host.cpus_online)
            )));
        } else if !host.cpus_allowed.is_empty() && !host.cpus_allowed.contains(&cpu) {
            found.push(refuse(format!(
                "cores names CPU {cpu}, which this process may not use (allowed: {}): choose among \
                 those, or widen the affinity (taskset, cpuset, AllowedCPUs=)",
                list(&host.cpus_allowed)
            )));
        }
    }
    if host.cpus_allowed.len() > 1 && cores.len() >= host.cpus_allowed.len() {
        found.push(warn(format!(
            "cores takes all {} CPUs that this process may use: the control and storage threads share \
             them, which shows as latency; leave one free for them",
            cores.len()
        )));
    }
    found
}

/// What `memory = "auto"` comes to: a quarter of the machine, at most half of /dev/shm. Only totals
/// count, so that a restart gets the same.
pub(super) fn memory_auto(host: &Host) -> u64 {
    let shm = host.place(std::path::Path::new(SHM));
    let mut share = host.memory_total / 4;
    if shm.kind == FsKind::Tmpfs && shm.size > 0 && shm.size / 2 >= MEMORY_AUTO_MIN {
        share = share.min(shm.size / 2);
    }
    (share >> 20 << 20).max(MEMORY_AUTO_MIN)
}

/// What each core has of the memory. Its replicas share it: with less than this some may hold all of it, and another one
/// is refused writes.
pub(super) fn share(config: &BrickConfig, cores: usize, wanted: u64) -> Option<Finding> {
    let cores = cores.max(1) as u64;
    let each = wanted / cores;
    let partitions = u64::from(partitions_per_core(config.partitions, config.durability));
    let replicas = partitions * u64::from(config.replicas);
    let least = shared_bytes_least(replicas);
    (each < least).then(|| {
        warn(format!(
            "memory = {} is {} for each of {cores} data cores, and {replicas} replicas on a core \
             ({partitions} partitions, {} of each) need {}: with less, writes may be refused though \
             little is stored; set memory to {} or more, or use fewer cores or partitions",
            bytes_text(wanted),
            bytes_text(each),
            config.replicas,
            bytes_text(least),
            bytes_text(least * cores)
        ))
    })
}

/// The folder on disk.
pub(super) fn data_dir(place: &Place) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(errno) = place.refused {
        found.push(refuse(cannot_write("data_dir", place, errno)));
    } else if matches!(place.kind, FsKind::Tmpfs | FsKind::Hugetlbfs) {
        found.push(warn(format!(
            "data_dir {} is in memory (tmpfs): a reboot loses everything; put data_dir on a disk",
            place.path.display()
        )));
    }
    found
}

fn cannot_write(key: &str, place: &Place, errno: i32) -> String {
    let reason = match errno {
        libc::ENOTDIR => "part of the path is a file".to_owned(),
        libc::EROFS => "the file system is mounted read-only".to_owned(),
        libc::EACCES | libc::EPERM => "this user may not write there".to_owned(),
        errno => std::io::Error::from_raw_os_error(errno).to_string(),
    };
    let flag = key.replace('_', "-");
    format!(
        "{key} {} cannot be used: {reason}; choose another folder with {key} (--{flag}), or make it \
         writable",
        place.path.display()
    )
}

/// The folder of the mapped segments.
pub(super) fn memory_dir(
    config: &BrickConfig,
    place: &Place,
    wanted: u64,
    host: &Host,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let shown = place.path.display();
    if let Some(errno) = place.refused {
        found.push(refuse(cannot_write("memory_dir", place, errno)));
        return found;
    }
    if place.room() < wanted && place.is_home_of(wanted) {
        found.push(warn(less_room(place, wanted)));
    } else if place.room() < wanted {
        found.push(refuse(no_room(place, wanted, host)));
    }
    match place.kind {
        FsKind::Disk => found.push(warn(disk_memory(config, place, wanted, host))),
        FsKind::Hugetlbfs | FsKind::Tmpfs => {
            if wanted > host.memory_total / 10 * 9 {
                found.push(warn(format!(
                    "memory = {} is more than nine tenths of this machine's (or cgroup's) {}: the \
                     kernel may kill the brick; lower memory",
                    bytes_text(wanted),
                    bytes_text(host.memory_total)
                )));
            }
        }
    }
    if host.remove_ipc && place.path.starts_with(SHM) {
        found.push(warn(format!(
            "logind deletes {shown} when user id {} logs out (RemoveIPC=yes), and the brick would \
             have to load its disk at the next start: run `loginctl enable-linger`, run the brick as \
             a system user, or set RemoveIPC=no in /etc/systemd/logind.conf",
            host.uid
        )));
    }
    // A segment's mapping lies in a range of its own: what is before and behind it counts too.
    let maps = wanted / (2 << 20) * 3 + MAPS_BESIDES;
    if host.max_map_count < maps {
        found.push(warn(format!(
            "vm.max_map_count is {}, and {} of records in 2 MiB segments may need {maps} mappings: \
             raise it with `sysctl -w vm.max_map_count={maps}`",
            host.max_map_count,
            bytes_text(wanted)
        )));
    }
    found
}

fn no_room(place: &Place, wanted: u64, host: &Host) -> String {
    let docker = if host.container && place.path.starts_with(SHM) && place.size <= 64 << 20 {
        " (a container's /dev/shm is 64 MiB unless asked: `docker run --shm-size=2g`)"
    } else {
        ""
    };
    format!(
        "memory_dir {} has room for {}, and memory = {}{docker}: lower memory (--memory), make room, \
         or choose another memory_dir",
        place.path.display(),
        bytes_text(place.room()),
        bytes_text(wanted)
    )
}

fn less_room(place: &Place, wanted: u64) -> String {
    format!(
        "memory_dir {} has room for {} now, because others have filled its file system, and memory = {}: writes will be \
         refused when that is used up; make room there",
        place.path.display(),
        bytes_text(place.room()),
        bytes_text(wanted)
    )
}

fn disk_memory(config: &BrickConfig, place: &Place, wanted: u64, host: &Host) -> String {
    let shown = place.path.display();
    if config.memory_dir.is_some() {
        return format!(
            "memory_dir {shown} is on a disk file system: page faults and writeback will stall \
             requests for milliseconds; use a tmpfs such as {SHM}"
        );
    }
    let shm = host.place(std::path::Path::new(SHM));
    let docker = if host.container { " (in Docker: --shm-size)" } else { "" };
    format!(
        "{SHM} has room for {} and memory = {}, so memory_dir is {shown}, on a disk file system: \
         page faults and writeback will stall requests for milliseconds; enlarge {SHM}{docker}, or \
         lower memory",
        bytes_text(shm.room()),
        bytes_text(wanted)
    )
}
