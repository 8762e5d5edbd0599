//! What lies in a partition's folder: ours, an orphan, or a reason to refuse.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::StorageError;
use super::files::{io_error, names};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::manifest::{MANIFEST_BYTES_MAX, MANIFEST_FILE, MANIFEST_FORMAT, Manifest, ManifestFlaw};
use crate::segment::{HeadFlaw, SEGMENT_FORMAT, SegmentHead, SegmentName};

/// A segment file that is ours.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub head: SegmentHead,
    /// Its first page is damaged, and was rebuilt from the file's name and size.
    pub damaged: bool,
}

/// All segments in a folder, in order of name; refuses anything that is not ours.
pub(super) fn segments(dir: &Path, partition: u32) -> Result<Vec<Present>, StorageError> {
    let mut found = Vec::new();
    for file in names(dir)? {
        let path = dir.join(&file);
        if file == MANIFEST_FILE || is_temporary(&file) {
            continue;
        }
        let Some(name) = SegmentName::parse(&file) else {
            let why = "no file of a partition has such a name".to_owned();
            return Err(StorageError::Foreign { path, why });
        };
        found.push(check_segment(&path, partition, name)?);
    }
    found.sort_by_key(|p| p.head.name);
    Ok(found)
}

/// What a crash left of a file that was being made.
pub(super) fn is_temporary(file: &str) -> bool {
    let stem = file.strip_suffix(".tmp");
    stem.is_some_and(|s| s == MANIFEST_FILE || SegmentName::parse(s).is_some())
}

fn check_segment(path: &Path, partition: u32, name: SegmentName) -> Result<Present, StorageError> {
    let mut page = [0; 48];
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_err(io_error("look at", path))?.len();
    if bytes < page.len() as u64 {
        let expected = crate::limits::SEGMENT_BYTES_LEAST as u64;
        return Err(StorageError::CutShort { path: path.to_owned(), bytes, expected });
    }
    file.read_exact(&mut page).map_err(io_error("read", path))?;
    let foreign = |why: String| StorageError::Foreign { path: path.to_owned(), why };
    let head = match SegmentHead::decode(&page) {
        Ok(head) => head,
        // The checksum is good: it is what it says.
        Err(HeadFlaw::Format(format)) => {
            let path = path.to_owned();
            return Err(StorageError::NewerFormat { path, format, known: SEGMENT_FORMAT });
        }
        Err(_) => match rebuild(&page, partition, name, bytes) {
            Some(head) => return Ok(Present { head, damaged: true }),
            None => return Err(foreign("its first bytes are not a segment's".to_owned())),
        },
    };
    if head.partition != partition || head.name != name {
        return Err(foreign(format!(
            "it says that it is {} of partition {}",
            head.name, head.partition
        )));
    }
    if bytes != head.bytes {
        let expected = head.bytes;
        return Err(StorageError::CutShort { path: path.to_owned(), bytes, expected });
    }
    Ok(Present { head, damaged: false })
}

/// A first page with a few flipped bits is still ours: name, partition and size are known without it.
fn rebuild(page: &[u8; 48], partition: u32, name: SegmentName, bytes: u64) -> Option<SegmentHead> {
    if bytes > SEGMENT_BYTES_MAX as u64 {
        return None;
    }
    let stored: [u8; 8] = page[24..32].try_into().ok()?;
    let made_at_seq = u64::from_le_bytes(stored);
    let expected = SegmentHead { partition, name, made_at_seq, bytes }.encode();
    // `made_at_seq` cannot be told from a damaged one, so its bytes and the CRC's say nothing.
    let differ = (0..44).filter(|&i| expected[i] != page[i]).count();
    (differ <= 2).then_some(SegmentHead { partition, name, made_at_seq: 0, bytes })
}

/// The manifest of a folder; `None` when there is none.
pub(super) fn manifest(dir: &Path, partition: u32) -> Result<Option<Manifest>, StorageError> {
    let path = dir.join(MANIFEST_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", &path)(error)),
    };
    let mut bytes = Vec::new();
    let most = MANIFEST_BYTES_MAX as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(io_error("read", &path))?;
    match Manifest::decode(&bytes) {
        Ok(manifest) if manifest.partition == partition => Ok(Some(manifest)),
        Ok(manifest) => {
            let why = format!("it is the manifest of partition {}", manifest.partition);
            Err(StorageError::Foreign { path, why })
        }
        Err(ManifestFlaw::Format(format)) => {
            Err(StorageError::NewerFormat { path, format, known: MANIFEST_FORMAT })
        }
        Err(ManifestFlaw::Foreign) => {
            Err(StorageError::Foreign { path, why: "its first bytes are not a manifest's".into() })
        }
        Err(ManifestFlaw::Short) => {
            Err(StorageError::Damaged { path, why: "it was cut short".into() })
        }
        Err(ManifestFlaw::Crc | ManifestFlaw::Fields) => {
            Err(StorageError::Damaged { path, why: "its checksum does not match".into() })
        }
    }
}
