//! The `firebrick` binary under test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// `$FIREBRICK_BIN` (what `scripts/test` sets: the release build), else a debug build made now.
pub fn firebrick() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(path) = std::env::var_os("FIREBRICK_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "FIREBRICK_BIN names {}, which is no file", path.display());
        return path;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "-p", "firebrick-cli"])
        .current_dir(crate::tidy::root())
        .status()
        .expect("cargo starts");
    assert!(built.success(), "cargo could not build the firebrick binary");
    // This test runs as <target>/debug/deps/<test>.
    let test = std::env::current_exe().expect("the path of this test");
    let target = test.ancestors().nth(3).expect("a target folder").to_owned();
    target.join("debug/firebrick")
}
