//! Small files that are replaced whole or not at all: identity of a brick, its place in a cluster, the keepers' snapshot.
//!
//! A file is one line of header (`firebrick KIND FORMAT CRC32 BYTES`) and a JSON body. The checksum is
//! there because a flipped digit in JSON is still JSON.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BrickError;

/// No file of this kind is larger.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What a file is, and the newest format that this code knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileKind {
    /// One word.
    pub(crate) word: &'static str,
    /// Newest format.
    pub(crate) format: u32,
}

/// Reads a file and checks it; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(
    path: &Path,
    kind: FileKind,
) -> Result<Option<T>, BrickError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BrickError::file("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(BrickError::file("read", path))?;
    let damaged = |what: &str| BrickError::Damaged { path: path.to_owned(), what: what.to_owned() };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged("it is larger than any such file"));
    }
    let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(|| damaged("it has no header"))?;
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let header = std::str::from_utf8(header).map_err(|_| damaged("its header is not text"))?;
    let words: Vec<&str> = header.split(' ').collect();
    let [magic, word, format, crc, len] = words[..] else {
        return Err(damaged("its header has not five words"));
    };
    if magic != "firebrick" || word != kind.word {
        return Err(damaged(&format!("it is not a firebrick {} file", kind.word)));
    }
    let found: u32 = format.parse().map_err(|_| damaged("its format is not a number"))?;
    if found > kind.format {
        let path = path.to_owned();
        return Err(BrickError::NewerFormat { path, found, known: kind.format });
    }
    if found == 0 {
        return Err(damaged("its format is 0"));
    }
    if len != body.len().to_string() {
        return Err(damaged(&format!("it has {} bytes, its header says {len}", body.len())));
    }
    // As text: a flipped bit can turn `a` into `A`, which is the same number.
    if crc != format!("{:08x}", crc32fast::hash(body)) {
        return Err(damaged("its checksum does not match"));
    }
    serde_json::from_slice(body).map(Some).map_err(|error| damaged(&error.to_string()))
}

/// Replaces a file: tmp, fsync, rename, fsync of the folder. After an error the old file stands, or
/// (an error of the last step) the new one.
pub(crate) fn write<T: Serialize>(
    path: &Path,
    kind: FileKind,
    value: &T,
) -> Result<(), BrickError> {
    let body = serde_json::to_vec_pretty(value).map_err(|error| BrickError::Damaged {
        path: path.to_owned(),
        what: format!("its new contents do not become JSON ({error})"),
    })?;
    let tmp = path.with_extension("tmp");
    let mut bytes = format!(
        "firebrick {} {} {:08x} {}\n",
        kind.word,
        kind.format,
        crc32fast::hash(&body),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    let mut file = File::create(&tmp).map_err(BrickError::file("create", &tmp))?;
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    // A file that did not fit must not keep the last blocks of the disk.
    let written = written.inspect_err(|_| drop(file.set_len(0)));
    written.map_err(BrickError::file("write", &tmp))?;
    fs::rename(&tmp, path).map_err(BrickError::file("rename", &tmp))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(BrickError::file("flush the folder", folder))
}
