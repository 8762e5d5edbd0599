//! Promise: one folder belongs to one brick. The second refuses, says who holds it, and harms nothing.

use std::path::{Path, PathBuf};

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::files::listing;

/// The brick's files, but for those that it makes and gives back by itself at any moment.
fn kept(brick: &Brick) -> Vec<(PathBuf, u64)> {
    let passing = |path: &Path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.starts_with("spare-") || path.extension().is_some_and(|e| e == "tmp")
    };
    listing(brick.data_dir()).into_iter().filter(|(path, _)| !passing(path)).collect()
}

fn second_is_refused(memory_dir: bool, data_dir: bool) {
    let first = Brick::start(&Options { durability: "sync", ..Options::default() });
    assert!(first.connect().ask("SET key value").is_ok());
    let before = kept(&first);
    let shared = |wanted: bool, path: &std::path::Path| wanted.then(|| PathBuf::from(path));
    let options = Options {
        durability: "sync",
        memory_dir: shared(memory_dir, first.memory_dir()),
        data_dir: shared(data_dir, first.data_dir()),
        ..Options::default()
    };
    let refused = Brick::try_start(&options).expect_err("two bricks share a folder");
    assert!(!refused.status.success());
    let holder = first.pid().to_string();
    assert!(
        refused.said.contains(&holder),
        "it does not say that {holder} holds it: {}",
        refused.said
    );
    assert_eq!(kept(&first), before, "the second changed the first one's files");
    assert_eq!(
        first.connect().ask("GET key"),
        firebrick_tests::resp::Value::Bulk(b"value".to_vec())
    );
}

#[test]
fn a_second_brick_on_both_folders_is_refused() {
    second_is_refused(true, true);
}

#[test]
fn a_second_brick_on_the_same_data_dir_is_refused() {
    second_is_refused(false, true);
}

#[test]
fn a_second_brick_on_the_same_memory_dir_is_refused() {
    second_is_refused(true, false);
}

#[test]
fn the_folder_of_a_killed_brick_is_free() {
    let mut brick = Brick::start(&Options::default());
    brick.kill9();
    brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
}
