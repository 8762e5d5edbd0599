//! Segment and manifest files as a fault test sees them: bytes to damage.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// All files below a folder with their sizes, sorted.
pub fn listing(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path(), metadata.len()));
            }
        }
    }
    found.sort();
    found
}

/// The segments (`t<n>.seg`, `s<n>.seg`) of all partitions below a folder.
pub fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = listing(folder).into_iter().map(|(path, _)| path);
    let segment = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let number = name.strip_suffix(".seg").and_then(|stem| stem.strip_prefix(['t', 's']));
        number
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    files.filter(segment).collect()
}

/// The first place of these bytes in any segment below the folder.
pub fn find(folder: &Path, bytes: &[u8]) -> Option<(PathBuf, u64)> {
    segments(folder).into_iter().find_map(|path| {
        let content = std::fs::read(&path).ok()?;
        let at = content.windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at as u64))
    })
}

/// Flips one bit of a file. A mapping of the same file sees it.
pub fn flip(path: &Path, offset: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file to damage");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, offset).expect("the damaged byte");
}

/// A copy of a whole folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
