use std::fs;
use std::net::TcpListener;

use super::host::{Place, Uring};
use super::*;

const GIB: u64 = 1 << 30;

fn place(path: &Path, kind: FsKind, available: u64) -> Place {
    let path = path.to_owned();
    Place { path, refused: None, kind, size: available, available, own_bytes: 0, has_brick: false }
}

/// A good host: 8 GiB, 4 CPUs, 4 GiB of /dev/shm, a disk at everything else.
fn host() -> Host {
    Host {
        kernel: "6.12.9-amd64".into(),
        uring: Uring::Works,
        nofile: 1 << 20,
        memlock: 8 << 20,
        max_map_count: 65_530,
        cpus_online: vec![0, 1, 2, 3],
        cpus_allowed: vec![1, 2, 3],
        uid: 1000,
        container: false,
        remove_ipc: false,
        memory_total: 8 * GIB,
        current_dir: "/home/kim".into(),
        places: Box::new(|path| {
            let kind = if path.starts_with(SHM) { FsKind::Tmpfs } else { FsKind::Disk };
            place(path, kind, if kind == FsKind::Tmpfs { 4 * GIB } else { 100 * GIB })
        }),
    }
}

fn with_shm(host: &mut Host, change: impl Fn(&mut Place) + 'static) {
    host.places = Box::new(move |path| {
        let kind = if path.starts_with(SHM) { FsKind::Tmpfs } else { FsKind::Disk };
        let mut place = place(path, kind, 100 * GIB);
        if kind == FsKind::Tmpfs {
            change(&mut place);
        }
        place
    });
}

fn settled(text: &str, host: &Host) -> Plan {
    settle(&BrickConfig::from_toml(text).unwrap(), host).unwrap()
}

fn refused(text: &str, host: &Host) -> String {
    settle(&BrickConfig::from_toml(text).unwrap(), host).unwrap_err().to_string()
}

#[test]
fn a_good_host_gets_a_plan_without_warnings() {
    let plan = settled("", &host());
    assert_eq!(plan.warnings, Vec::<String>::new());
    assert_eq!(plan.cores, [1], "the first CPU allowed");
    assert_eq!(plan.memory_bytes, 2 * GIB, "a quarter of the machine, at most half of /dev/shm");
    assert_eq!(plan.data_dir, Path::new("/home/kim/firebrick-data"));
    assert_eq!(plan.memory_dir, shm_folder(&plan.data_dir, 1000));
    let again = settled("data_dir = \"./firebrick-data\"", &host());
    assert_eq!(again.memory_dir, plan.memory_dir, "a restart finds its memory");
    let other = settled("data_dir = \"/data/b\"", &host());
    assert_ne!(other.memory_dir, plan.memory_dir);
}

#[test]
fn an_old_kernel_and_a_forbidden_ring_are_refused_with_the_way_out() {
    let mut old = host();
    old.kernel = "5.15.0-91-generic".into();
    assert!(refused("", &old).contains("Linux 5.15.0-91-generic, and a brick needs 6.1 or later"));
    old.kernel = "6.0.19".into();
    assert!(refused("", &old).contains("6.0.19"));
    old.kernel = "6.1.0-18-amd64".into();
    settled("", &old);

    let with = |errno, disabled, container| {
        let mut host = host();
        host.uring = Uring::Refused { errno, disabled };
        host.container = container;
        refused("", &host)
    };
    assert!(with(libc::EPERM, Some(2), false).contains("sysctl -w kernel.io_uring_disabled=0"));
    assert!(with(libc::EPERM, Some(1), false).contains("kernel.io_uring_group"));
    assert!(with(libc::EPERM, Some(0), true).contains("--security-opt seccomp=unconfined"));
    assert!(with(libc::ENOSYS, None, false).contains("CONFIG_IO_URING"));
    assert!(with(libc::EPERM, None, false).contains("seccomp filter"));
    assert!(with(libc::ENOMEM, None, false).contains("ulimit -l"));
}

#[test]
fn cpus_that_are_not_there_or_not_allowed_are_named() {
    assert!(
        refused("cores = \"9\"", &host())
            .contains("CPU 9, which this host does not have (online: 0,1,2,3)")
    );
    assert!(
        refused("cores = \"0-1\"", &host())
            .contains("CPU 0, which this process may not use (allowed: 1,2,3)")
    );
    assert_eq!(settled("cores = \"2,1\"", &host()).cores, [2, 1]);
    assert!(settled("cores = \"1-3\"", &host()).warnings[0].contains("leave one free"));
}

#[test]
fn memory_that_does_not_fit_dev_shm_goes_beside_the_disk_with_a_warning() {
    let plan = settled("memory = \"6GiB\"\ndata_dir = \"/srv/b\"", &host());
    assert_eq!(plan.memory_dir, Path::new("/srv/b-memory"));
    let told = plan.warnings.join("\n");
    assert!(told.contains("/dev/shm has room for 4 GiB and memory = 6 GiB"), "{told}");
    assert!(told.contains("page faults"), "{told}");

    // Asked for by name it is refused, because the brick would run out of room later.
    let told = refused("memory = \"6GiB\"\nmemory_dir = \"/dev/shm/x\"", &host());
    assert!(
        told.contains("memory_dir /dev/shm/x has room for 4 GiB, and memory = 6 GiB"),
        "{told}"
    );

    // What the last incarnation left there is the brick's own room.
    let mut full = host();
    with_shm(&mut full, |shm| {
        (shm.available, shm.own_bytes, shm.size) = (GIB, 3 * GIB, 4 * GIB);
    });
    let plan = settled("memory = \"4GiB\"", &full);
    assert!(plan.memory_dir.starts_with(SHM));
}

/// It was killed, and what it acknowledged last is nowhere else.
#[test]
fn a_brick_stays_with_its_memory_when_others_have_taken_the_room() {
    let mut full = host();
    with_shm(&mut full, |shm| {
        (shm.available, shm.own_bytes, shm.size) = (GIB, 2 * GIB, 6 * GIB);
        shm.has_brick = true;
    });
    for text in ["memory = \"4GiB\"", "memory = \"4GiB\"\nmemory_dir = \"/dev/shm/x\""] {
        let plan = settled(text, &full);
        assert!(plan.memory_dir.starts_with(SHM), "{text}: {}", plan.memory_dir.display());
        let told = plan.warnings.join("\n");
        assert!(
            told.contains("has room for 3 GiB now") && told.contains("memory = 4 GiB"),
            "{told}"
        );
    }
    // What the whole file system has no room for is a mistake of whoever asks for it.
    let told = refused("memory = \"7GiB\"\nmemory_dir = \"/dev/shm/x\"", &full);
    assert!(told.contains("has room for 3 GiB, and memory = 7 GiB"), "{told}");
    let plan = settled("memory = \"7GiB\"\ndata_dir = \"/srv/b\"", &full);
    assert_eq!(plan.memory_dir, Path::new("/srv/b-memory"));
}

#[test]
fn the_small_dev_shm_of_a_container_is_explained() {
    let mut docker = host();
    docker.container = true;
    with_shm(&mut docker, |shm| (shm.available, shm.size) = (64 << 20, 64 << 20));
    let told = refused("memory = \"1GiB\"\nmemory_dir = \"/dev/shm/x\"", &docker);
    assert!(told.contains("docker run --shm-size=2g"), "{told}");
    let told = settled("memory = \"1GiB\"", &docker).warnings.join("\n");
    assert!(told.contains("--shm-size"), "{told}");
}

#[test]
fn memory_that_is_too_little_for_the_partitions_of_a_core_is_warned_about() {
    let settings = |mib: u32| format!("memory = \"{mib}MiB\"\ncores = \"1-2\"\npartitions = 8");
    let told = settled(&settings(64), &host()).warnings.join("\n");
    assert!(told.contains("memory = 64 MiB is 32 MiB for each of 2 data cores"), "{told}");
    assert!(told.contains("16 replicas on a core (8 partitions, 2 of each) need 36 MiB"), "{told}");
    assert!(told.contains("set memory to 72 MiB or more"), "{told}");
    for (mib, more) in [(72, ""), (64, "\nreplicas = 1")] {
        let plan = settled(&format!("{}{more}", settings(mib)), &host());
        assert_eq!(plan.warnings, Vec::<String>::new(), "{mib}{more}");
    }
    // What a core has by itself is enough for what it is given by itself.
    let plan = settled("memory = \"64MiB\"\ncores = \"1-2\"", &host());
    assert_eq!(plan.warnings, Vec::<String>::new());
}

#[test]
fn what_will_hurt_later_is_warned_about() {
    let mut host = host();
    host.remove_ipc = true;
    host.nofile = 1024;
    let told = settled("memory = \"1GiB\"", &host).warnings.join("\n");
    assert!(told.contains("loginctl enable-linger"), "{told}");
    assert!(
        told.contains("open files is 1024, and limits.connections_max = 12000 needs 14048"),
        "{told}"
    );
    host.nofile = 100;
    assert!(refused("", &host).contains("open files is 100"));
    host.nofile = 1 << 20;
    host.memory_total = 1 << 50;
    with_shm(&mut host, |shm| shm.available = 1 << 50);
    let told = settled("memory = \"1TiB\"", &host).warnings.join("\n");
    assert!(told.contains("vm.max_map_count is 65530"), "{told}");
}

#[test]
fn folders_that_cannot_be_written_are_all_named_at_once() {
    let mut host = host();
    host.kernel = "4.4".into();
    host.places = Box::new(|path| {
        let mut place = place(path, FsKind::Disk, 100 * GIB);
        place.refused = Some(if path.starts_with("/ro") { libc::EROFS } else { libc::EACCES });
        place
    });
    let told = refused("data_dir = \"/ro/x\"\nmemory_dir = \"/root/y\"", &host);
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains("data_dir /ro/x cannot be used: the file system is mounted read-only"));
    assert!(told.contains("memory_dir /root/y cannot be used: this user may not write there"));
}

#[test]
fn this_host_can_be_read() {
    let host = Host::read();
    assert!(!host.kernel.is_empty() && !host.cpus_allowed.is_empty() && host.nofile > 0);
    assert!(host.memory_total > 64 << 20);
    assert_eq!(host.place(Path::new("/dev/shm")).kind, FsKind::Tmpfs);

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![1; 100_000]).unwrap();
    let place = host.place(folder.path());
    assert!(place.own_bytes >= 100_000 && place.refused.is_none() && place.available > 0);
    let below = host.place(&folder.path().join("not/yet"));
    assert!(below.path.ends_with("not/yet") && below.refused.is_none() && below.own_bytes == 0);
    assert_eq!(host.place(&folder.path().join("file")).refused, Some(libc::ENOTDIR));
    assert_eq!(host.place(&folder.path().join("file/x")).refused, Some(libc::ENOTDIR));
    // Two names of one folder are one folder.
    std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
    let linked = host.place(&folder.path().join("link/data"));
    assert_eq!(linked.path, folder.path().canonicalize().unwrap().join("data"));
}

#[test]
fn the_holder_of_a_taken_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let source = TcpListener::bind(address).unwrap_err();
    let told = BrickError::listen("resp", address, source).to_string();
    assert!(told.contains(&format!("port {} is taken by process", address.port())), "{told}");
    assert!(told.contains(&std::process::id().to_string()), "{told}");
    assert!(told.contains("choose another port with resp (--resp)"), "{told}");
    drop(listener);
    assert_eq!(port_holder(address.port()), None);
}

#[test]
fn texts_of_the_kernel_and_of_logind_are_understood() {
    assert_eq!(host::cpu_list("0-3,8"), [0, 1, 2, 3, 8]);
    assert_eq!(host::cpu_list(""), [0usize; 0]);
    assert!(host::remove_ipc_setting(""));
    assert!(host::remove_ipc_setting("[Login]\n#RemoveIPC=no\n"));
    assert!(!host::remove_ipc_setting("RemoveIPC=yes\nRemoveIPC=no\n"));
    let text = "  sl  local_address rem_address   st tx rx tr tm retr uid timeout inode\n\
        0: 0100007F:1CE8 00000000:0000 0A 0:0 00:0 0 0 0 4242 1\n\
        1: 0100007F:1CE8 0100007F:0001 01 0:0 00:0 0 0 0 4243 1\n\
        2: 0000000000000000:1CE8 0:0 0A 0:0 00:0 0\n";
    assert_eq!(port::listening_inodes(text, 7400), ["4242"]);
}
