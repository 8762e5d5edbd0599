use std::process::{Command, Stdio};

use super::*;

struct Folders {
    _root: tempfile::TempDir,
    data: PathBuf,
    memory: PathBuf,
}

fn folders() -> Folders {
    let root = tempfile::tempdir().unwrap();
    let (data, memory) = (root.path().join("data"), root.path().join("memory"));
    Folders { _root: root, data, memory }
}

impl Folders {
    /// Of a brick that started.
    fn lock(&self) -> BrickLock {
        let mut lock = self.lock_anew();
        lock.keep();
        lock
    }

    /// Of one that may be refused still.
    fn lock_anew(&self) -> BrickLock {
        BrickLock::take("b", &self.data, &self.memory).unwrap()
    }

    /// One start that gets as far as `settle` and is then killed (the lock goes, the files stay).
    fn run(&self, boot: &str) -> Memory {
        let lock = self.lock();
        let identity = Identity::begin(&lock, "b", boot).unwrap();
        identity.settle().unwrap();
        identity.memory
    }

    /// One start that is killed before `settle`.
    fn start_and_die(&self, boot: &str) -> Memory {
        Identity::begin(&self.lock(), "b", boot).unwrap().memory
    }
}

#[test]
fn a_second_brick_is_told_who_holds_the_folder() {
    let folders = folders();
    let mut first = BrickLock::take("kiln", &folders.data, &folders.memory).unwrap();
    first.keep();
    let told = BrickLock::take("other", &folders.data, &folders.memory).unwrap_err().to_string();
    let me = std::process::id();
    assert!(told.contains("is locked by brick \"kiln\", process"), "{told}");
    assert!(told.contains(&me.to_string()) && told.contains("firebrick"), "{told}");
    // A shared memory_dir is refused too, and the lock on the other data_dir is let go.
    let other = folders.data.with_file_name("other-data");
    let told = BrickLock::take("other", &other, &folders.memory).unwrap_err().to_string();
    assert!(told.contains("memory") && told.contains("kiln"), "{told}");
    let inodes = first.lock_files().unwrap();
    drop(first);
    let again = BrickLock::take("other", &folders.data, &folders.memory).unwrap();
    assert_eq!(again.lock_files().unwrap(), inodes, "the lock file is never replaced");
}

#[test]
fn a_lock_of_another_process_ends_with_it() {
    let folders = folders();
    drop(folders.lock());
    let path = folders.data.join(LOCK_FILE);
    let mut child = Command::new("flock")
        .arg(&path)
        .args(["-c", "echo held; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    let error = BrickLock::take("b", &folders.data, &folders.memory).unwrap_err();
    assert!(matches!(error, BrickError::Locked { .. }), "{error}");
    // flock(1) is the parent of the shell that inherited the descriptor: kill both.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()));
    for pid in children.unwrap().split_whitespace() {
        // SAFETY: kill has no memory effects; the process is a child of the child made here.
        unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while BrickLock::take("b", &folders.data, &folders.memory).is_err() {
        assert!(std::time::Instant::now() < deadline, "the lock outlived its process");
    }
}

/// `kill -9` returns before the kernel has taken the process apart: a start right after it waits for that.
#[test]
fn a_lock_of_a_process_that_was_killed_is_waited_for() {
    let folders = folders();
    // Dead and not waited for: it has no command line, as one that is being taken apart.
    let mut dead = Command::new("true").spawn().unwrap();
    let state = format!("/proc/{}/stat", dead.id());
    while !fs::read_to_string(&state).unwrap().contains(") Z") {
        std::thread::yield_now();
    }
    let held = folders.lock();
    fs::write(folders.data.join(LOCK_FILE), format!("{} kiln 0\n", dead.id())).unwrap();
    let freed = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
    });
    BrickLock::take("b", &folders.data, &folders.memory).unwrap();
    freed.join().unwrap();
    dead.wait().unwrap();
}

#[test]
fn memory_outlives_the_process_but_not_the_boot() {
    let folders = folders();
    assert_eq!(folders.run("boot-1"), Memory::New);
    assert_eq!(folders.run("boot-1"), Memory::Intact);
    assert_eq!(folders.run("boot-2"), Memory::Lost);
    assert_eq!(folders.run("boot-2"), Memory::Intact);
    fs::remove_dir_all(&folders.memory).unwrap();
    assert_eq!(folders.run("boot-2"), Memory::Lost);
}

#[test]
fn a_start_that_dies_half_way_loses_no_memory_and_trusts_no_half_loaded_one() {
    let folders = folders();
    assert_eq!(folders.run("boot-1"), Memory::New);
    // Twice dead between writing the disk's nonce and the memory's.
    assert_eq!(folders.start_and_die("boot-1"), Memory::Intact);
    assert_eq!(folders.start_and_die("boot-1"), Memory::Intact);
    assert_eq!(folders.run("boot-1"), Memory::Intact);
    // After a reboot that empties the tmpfs, twice dead while loading from the disk.
    fs::remove_dir_all(&folders.memory).unwrap();
    assert_eq!(folders.start_and_die("boot-2"), Memory::Lost);
    assert_eq!(folders.start_and_die("boot-2"), Memory::Lost);
    assert_eq!(folders.run("boot-2"), Memory::Lost);
    assert_eq!(folders.run("boot-2"), Memory::Intact);
}

#[test]
fn an_old_copy_of_the_memory_does_not_count() {
    let folders = folders();
    folders.run("boot-1");
    let old = fs::read(folders.memory.join("brick.id")).unwrap();
    folders.run("boot-1");
    fs::write(folders.memory.join("brick.id"), old).unwrap();
    assert_eq!(folders.run("boot-1"), Memory::Lost);
}

/// Only of the process that said so: a copy of the disk from before is another matter.
#[test]
fn a_disk_says_that_it_has_everything_of_the_process_that_ended_well() {
    let folders = folders();
    let ends_well = |lock: &BrickLock| {
        let identity = Identity::begin(lock, "b", "boot-1").unwrap();
        identity.settle().unwrap();
        identity.say_flushed().unwrap();
        identity.nonce
    };
    let nonce = ends_well(&folders.lock());
    fs::remove_dir_all(&folders.memory).unwrap();
    let next = Identity::begin(&folders.lock(), "b", "boot-2").unwrap();
    assert_eq!((next.memory, next.flushed), (Memory::Lost, nonce));
    // Whether that one got as far as to take writes the keepers know.
    let third = Identity::begin(&folders.lock(), "b", "boot-2").unwrap();
    assert_eq!((third.memory, third.flushed), (Memory::Lost, nonce));
    // One that was stopped before it had settled leaves what the memory is known by.
    third.settle().unwrap();
    let fourth = Identity::begin(&folders.lock(), "b", "boot-2").unwrap();
    assert_eq!(fourth.flushed, 0, "the third has served");
    fourth.say_flushed().unwrap();
    assert_eq!(Identity::begin(&folders.lock(), "b", "boot-2").unwrap().memory, Memory::Intact);
}

#[test]
fn whatever_process_the_keepers_saw_last_is_told_and_nothing_older() {
    let folders = folders();
    let begin = || Identity::begin(&folders.lock(), "b", "boot").unwrap();
    let first = begin();
    assert!(first.before.is_empty());
    first.settle().unwrap();
    let backup = fs::read(folders.data.join("brick.id")).unwrap();
    // Killed again and again before they served: each of them may have registered, or none.
    let (second, third) = (begin(), begin());
    assert_eq!(second.before, [first.nonce]);
    assert_eq!(third.before, [second.nonce, first.nonce]);
    let mut last = begin();
    for _ in 0..100 {
        last = begin();
    }
    assert!(last.before.len() <= 64 && last.before.contains(&first.nonce));
    last.settle().unwrap();
    assert_eq!(begin().before, [last.nonce]);
    fs::write(folders.data.join("brick.id"), backup).unwrap();
    assert_eq!(begin().before, [first.nonce], "not what the keepers know");
}

#[test]
fn a_copy_of_data_dir_is_told_from_it_until_it_counts_again() {
    let folders = folders();
    folders.run("boot");
    if folders.lock().born_ns().is_none() {
        return; // This file system does not tell.
    }
    let copied = |folders: &Folders| {
        let identity = Identity::begin(&folders.lock(), "b", "later").unwrap();
        (identity.copied, identity)
    };
    assert!(!copied(&folders).0);
    let put_back = super::tests::folders();
    fs::create_dir(&put_back.data).unwrap();
    fs::copy(folders.data.join("brick.id"), put_back.data.join("brick.id")).unwrap();
    assert!(copied(&put_back).0);
    let (again, identity) = copied(&put_back);
    assert!(again, "the process before may have died before it registered");
    identity.settle().unwrap();
    assert!(!copied(&put_back).0);
}

#[test]
fn folders_that_are_not_this_bricks_are_refused_and_left_alone() {
    let refused = |folders: &Folders, expected: &str| {
        let told = Identity::begin(&folders.lock(), "b", "boot").unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    };
    let photos = folders();
    fs::create_dir(&photos.data).unwrap();
    fs::write(photos.data.join("cat.jpg"), "meow").unwrap();
    refused(&photos, "holds \"cat.jpg\" but no brick.id");
    assert_eq!(fs::read_to_string(photos.data.join("cat.jpg")).unwrap(), "meow");

    // The disk is gone (or another one was mounted), the memory is there.
    let half = folders();
    half.run("boot");
    fs::remove_dir_all(&half.data).unwrap();
    refused(&half, "has no brick.id; nothing was changed: give the data_dir of that brick");
    assert!(half.memory.join("brick.id").exists());

    // Partitions without their brick.id.
    let missing = folders();
    missing.run("boot");
    fs::remove_file(missing.data.join("brick.id")).unwrap();
    fs::remove_dir_all(&missing.memory).unwrap();
    fs::create_dir(missing.data.join("p1")).unwrap();
    refused(&missing, "holds \"p1\" but no brick.id");

    let (a, b) = (folders(), folders());
    a.run("boot");
    b.run("boot");
    fs::copy(b.memory.join("brick.id"), a.memory.join("brick.id")).unwrap();
    refused(&a, "holds the memory of another brick");
}

#[test]
fn damaged_and_newer_identity_files_are_named_and_kept() {
    let folders = folders();
    folders.run("boot");
    let path = folders.data.join("brick.id");
    let good = fs::read(&path).unwrap();
    let begin = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let told = Identity::begin(&folders.lock(), "b", "boot").unwrap_err().to_string();
        assert_eq!(fs::read(&path).unwrap(), bytes, "refused files stay as they are");
        assert!(told.contains("data/brick.id"), "{told}");
        told
    };
    // Any single flipped bit and any cut is noticed.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        begin(&bad);
        begin(&good[..at]);
    }
    let text = String::from_utf8(good).unwrap();
    let told = begin(text.replacen("brick 2 ", "brick 3 ", 1).as_bytes());
    assert!(
        told.contains("has format 3, but this version of firebrick knows formats up to 2"),
        "{told}"
    );
}

/// /dev/shm would fill with the folders of starts that came to nothing.
#[test]
fn a_refused_start_leaves_no_folder_that_it_made() {
    let photos = folders();
    fs::create_dir(&photos.data).unwrap();
    fs::write(photos.data.join("cat.jpg"), "meow").unwrap();
    let lock = photos.lock_anew();
    assert!(Identity::begin(&lock, "b", "boot").is_err());
    drop(lock);
    assert!(!photos.memory.exists(), "it was made for nothing");
    assert!(photos.data.join(LOCK_FILE).exists(), "this one was there");

    // The second folder is another brick's: the first one goes, the other's lock stays.
    let (first, second) = (folders(), folders());
    let holds = first.lock_anew();
    assert!(BrickLock::take("b", &second.data, &first.memory).is_err());
    assert!(!second.data.exists() && first.memory.join(LOCK_FILE).exists());
    drop(holds);

    let used = folders();
    let mut lock = used.lock_anew();
    Identity::begin(&lock, "b", "boot").unwrap();
    drop(lock);
    assert!(used.data.join("brick.id").exists() && !used.memory.exists());
    lock = used.lock_anew();
    lock.keep();
    drop(lock);
    assert!(used.memory.exists());
}

/// A lock file that was taken away while somebody waited for it keeps nobody out.
#[test]
fn a_lock_is_of_the_file_that_is_there() {
    let folders = folders();
    let mut dead = Command::new("true").spawn().unwrap();
    let state = format!("/proc/{}/stat", dead.id());
    while !fs::read_to_string(&state).unwrap().contains(") Z") {
        std::thread::yield_now();
    }
    let held = folders.lock_anew();
    let path = folders.data.join(LOCK_FILE);
    fs::write(&path, format!("{} kiln 0\n", dead.id())).unwrap();
    let waits = {
        let (data, memory) = (folders.data.clone(), folders.memory.clone());
        std::thread::spawn(move || BrickLock::take("b", &data, &memory).unwrap())
    };
    std::thread::sleep(Duration::from_millis(100));
    drop(held);
    let lock = waits.join().unwrap();
    let there = fs::metadata(&path).unwrap();
    assert_eq!(lock.lock_files().unwrap()[0], (there.dev(), there.ino()));
    dead.wait().unwrap();
}
