//! The walk on folders as they really are: odd names, links, files that nobody may store.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;

use super::*;

const ALL: Limits = Limits { file_bytes_max: u64::MAX, total_bytes_max: u64::MAX };

fn write(root: &Path, name: &[u8], bytes: &[u8]) {
    let path = root.join(OsStr::from_bytes(name));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn keys(root: &Path, limits: Limits) -> (Vec<Vec<u8>>, Skipped) {
    let mut walk = Walk::new(root, limits).unwrap();
    let keys = walk.by_ref().map(|found| found.key).collect();
    (keys, walk.skipped())
}

#[test]
fn keys_are_the_paths_in_the_folder_whatever_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let names: [&[u8]; 7] =
        [b"a", b"b/c/d.txt", b"b\nc", b"empty", b"not utf-8 \xff\xfe", b" ", b"b/-x"];
    for name in names {
        write(dir.path(), name, name);
    }
    write(dir.path(), b"empty", b"");
    fs::create_dir(dir.path().join("empty folder")).unwrap();
    let (mut found, skipped) = keys(dir.path(), ALL);
    let (again, _) = keys(dir.path(), ALL);
    assert_eq!(found, again, "the same order every time");
    found.sort();
    let mut wanted: Vec<Vec<u8>> = names.iter().map(|n| n.to_vec()).collect();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(skipped, Skipped::default());
}

#[test]
fn bytes_come_back_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), b"empty", b"");
    write(dir.path(), b"odd \xff", b"\x00\xff\r\n");
    let mut walk = Walk::new(dir.path(), ALL).unwrap();
    let mut seen = Vec::new();
    while let Some(found) = walk.next() {
        let bytes = walk.read(&found).unwrap();
        assert_eq!(bytes.len() as u64, found.size);
        seen.push(bytes);
    }
    assert_eq!(seen, [b"".to_vec(), b"\x00\xff\r\n".to_vec()]);
}

#[test]
fn a_file_of_8_mib_is_taken_and_one_byte_more_is_not() {
    let dir = tempfile::tempdir().unwrap();
    for (name, size) in [("full", VALUE_BYTES_MAX), ("over", VALUE_BYTES_MAX + 1)] {
        File::create(dir.path().join(name)).unwrap().set_len(size as u64).unwrap();
    }
    let (found, skipped) = keys(dir.path(), ALL);
    assert_eq!(found, [b"full"]);
    assert_eq!(skipped, Skipped { too_large: 1, ..Skipped::default() });
    assert_eq!(skipped.describe(), "1 too large");
}

#[test]
fn links_and_devices_are_counted_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), b"sub/file", b"x");
    symlink("..", dir.path().join("sub/up")).unwrap();
    symlink("sub/file", dir.path().join("link")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let (found, skipped) = keys(dir.path(), ALL);
    assert_eq!(found, [b"sub/file"]);
    assert_eq!(skipped, Skipped { not_regular: 4, ..Skipped::default() });

    let root = dir.path().join("root");
    symlink(dir.path().join("sub"), &root).unwrap();
    assert_eq!(keys(&root, ALL).0, [b"file"], "the folder itself may be named through a link");
}

#[test]
fn the_walk_ends_before_the_cap_on_the_total() {
    let dir = tempfile::tempdir().unwrap();
    for name in [b"a", b"b", b"c"] {
        write(dir.path(), name, &[0; 100]);
    }
    let limits = |total| Limits { total_bytes_max: total, ..ALL };
    assert_eq!(keys(dir.path(), limits(299)).0, [b"a", b"b"]);
    assert_eq!(keys(dir.path(), limits(300)).0.len(), 3);
    assert_eq!(keys(dir.path(), limits(0)).0.len(), 0);
}

#[test]
fn a_file_that_vanishes_or_grows_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), b"gone", b"x");
    write(dir.path(), b"grown", b"x");
    let limits = Limits { file_bytes_max: 10, ..ALL };
    let mut walk = Walk::new(dir.path(), limits).unwrap();
    let found: Vec<Found> = walk.by_ref().collect();
    fs::remove_file(&found[0].path).unwrap();
    fs::write(&found[1].path, [0; 11]).unwrap();
    assert_eq!(walk.read(&found[0]), None);
    assert_eq!(walk.read(&found[1]), None);
    assert_eq!(walk.skipped(), Skipped { too_large: 1, unreadable: 1, ..Skipped::default() });
}

#[test]
fn a_folder_that_is_none_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), b"file", b"x");
    for name in ["nowhere", "file"] {
        let path = dir.path().join(name);
        let Err(error) = Walk::new(&path, ALL) else { panic!("{name} was walked") };
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
