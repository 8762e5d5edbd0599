//! Promise: where the kernel refuses io_uring (a container's seccomp profile, a service's sandbox, a kernel
//! without it) a brick says in one sentence what is missing and how to get it, and leaves nothing behind.
//!
//! The refusals are real: the brick runs under a seccomp filter. (The sysctl kernel.io_uring_disabled
//! would be the whole machine's; engine/src/check/tests.rs describes such hosts.)

use firebrick_tests::brick::{Brick, Options};

fn refused(call: i64, errno: i32, word: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        forbidden: Some((call, errno)),
        memory_dir: Some(folder.path().join("memory")),
        data_dir: Some(folder.path().join("data")),
        ..Options::default()
    };
    let refused = Brick::try_start(&options).expect_err("a brick without io_uring");
    let said = refused.said.trim_end();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    // What is missing, why it may be, and what to do.
    assert!(said.contains("io_uring") && said.contains(word), "{said}");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(said.contains(call), "it does not say that {call} must be allowed: {said}");
    }
    assert_eq!(said.lines().count(), 1, "more than a sentence: {said}");
    let left = std::fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(left, 0, "it left something behind");
    // The same folders serve once the kernel allows it.
    let mut brick = Brick::start(&Options { forbidden: None, ..options });
    assert!(brick.connect().ask("SET key value").is_ok());
    assert!(brick.stop(libc::SIGTERM).success());
}

#[test]
fn a_filter_that_permits_no_io_uring_is_named() {
    refused(libc::SYS_io_uring_setup, libc::EPERM, "seccomp");
}

#[test]
fn a_kernel_that_seems_to_have_no_io_uring_is_named() {
    refused(libc::SYS_io_uring_setup, libc::ENOSYS, "seccomp");
}

/// A profile that was written for one of the three calls only.
#[test]
fn a_filter_that_lets_rings_be_made_and_not_used_is_named() {
    refused(libc::SYS_io_uring_enter, libc::EPERM, "seccomp");
    refused(libc::SYS_io_uring_register, libc::EPERM, "seccomp");
}
