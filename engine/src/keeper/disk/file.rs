//! The keeper's log on disk: one append-only file of frames, each flushed before the next is written.
//!
//! ```text
//!   file    "FBKEEPLG"  format u32  crc u32 | frame | frame | ...
//!   frame   len u32  crc u32  n u32  header crc u32 | body of len bytes | zeros to a multiple of 16
//! ```
//!
//! A frame is one write and one flush. So at a start only the last frame can be one whose flush was
//! never answered; damage in any other is refused. The last one is taken for torn only when it looks
//! like a tear: the file ends within it, or a whole sector of it reads as zeros (a body is JSON, which has
//! none). Headers lie at multiples of 16, so that no header straddles two sectors.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::BrickError;

const MAGIC: &[u8; 8] = b"FBKEEPLG";
const FORMAT: u32 = 1;
/// Bytes of the file's and of a frame's header; frames begin at multiples of it.
pub(crate) const HEADER: usize = 16;
/// A sector is written whole or not at all.
const SECTOR: usize = 512;
/// No log is larger: it is written anew long before.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Blocks that the file has behind its end: what is agreed on while the disk is full, elections and what
/// operators ask for, goes there. Some thousand entries.
const HELD_BYTES: u64 = 1 << 20;

/// An open log.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    path: PathBuf,
    /// Where the next frame goes.
    end: u64,
    /// The next frame's number.
    next: u32,
    /// Up to here the file has its blocks.
    held: u64,
}

/// What a log held.
pub(crate) struct Found {
    /// The bodies of its frames, in order.
    pub(crate) bodies: Vec<Vec<u8>>,
    /// Bytes that were cut off its end: the rest of a write that was never answered.
    pub(crate) torn_bytes: u64,
}

impl LogFile {
    /// Opens a log, cuts a torn end off, and gives what it held; `None` when there is no file.
    pub(crate) fn open(path: &Path) -> Result<Option<(Self, Found)>, BrickError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BrickError::file("open", path)(error)),
        };
        let mut bytes = Vec::new();
        (&file)
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(BrickError::file("read", path))?;
        let damaged = |what: String| BrickError::Damaged { path: path.to_owned(), what };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(damaged("it is larger than any such file".into()));
        }
        check_head(path, &bytes)?;
        let (bodies, end) = scan(&bytes).map_err(damaged)?;
        let torn_bytes = bytes.len() as u64 - end;
        if torn_bytes > 0 {
            file.set_len(end)
                .and_then(|()| file.sync_all())
                .map_err(BrickError::file("cut the torn end of", path))?;
        }
        let next = bodies.len() as u32;
        let mut log = Self { file, path: path.to_owned(), end, next, held: end };
        log.hold();
        Ok(Some((log, Found { bodies, torn_bytes })))
    }

    /// Puts a new log with one frame in the place of the old one, if any: all of it or nothing.
    pub(crate) fn replace(path: &Path, body: &[u8]) -> io::Result<Self> {
        let tmp = path.with_extension("tmp");
        let mut bytes = head();
        frame(&mut bytes, 0, body);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&tmp)?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        // A file that did not fit must not keep the last blocks of the disk.
        written.inspect_err(|_| drop(file.set_len(0)))?;
        // Opened before: whoever is told that there is a lack goes on with the old file.
        let folder = File::open(path.parent().unwrap_or(Path::new(".")))?;
        fs::rename(&tmp, path)?;
        folder.sync_all().map_err(failed_flush)?;
        let end = bytes.len() as u64;
        let mut log = Self { file, path: path.to_owned(), end, next: 1, held: end };
        log.hold();
        Ok(log)
    }

    /// Takes blocks behind the end, as many as there are: once half of what is held is used. They are no part of the
    /// file until they are written.
    pub(crate) fn hold(&mut self) {
        if self.held >= self.end + HELD_BYTES / 2 {
            return;
        }
        let (at, len) = (self.end as libc::off_t, HELD_BYTES as libc::off_t);
        // SAFETY: takes numbers only; the file is open.
        let taken =
            unsafe { libc::fallocate(self.file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, at, len) };
        // Refused: the disk is full, or knows no such thing. It is tried again behind the next frame.
        if taken == 0 {
            self.held = self.end + HELD_BYTES;
        }
    }

    /// Writes a frame and flushes it. After an error nothing is known about the end of the file, except
    /// when [`LogFile::take_back`] succeeds.
    pub(crate) fn append(&mut self, body: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(2 * HEADER + body.len());
        frame(&mut bytes, self.next, body);
        self.file.write_all_at(&bytes, self.end)?;
        self.file.sync_data().map_err(failed_flush)?;
        self.end += bytes.len() as u64;
        self.next += 1;
        Ok(())
    }

    /// Takes back what a write that found no room has left.
    pub(crate) fn take_back(&mut self) -> io::Result<()> {
        self.held = self.end;
        self.file.set_len(self.end)
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A full disk can be waited for when it is told by a write; not when a flush tells it, because then
/// nobody knows what the disk has. So the error loses the number by which the two look alike.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed_flush(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the flush failed: {error}"))
}

fn head() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn check_head(path: &Path, bytes: &[u8]) -> Result<(), BrickError> {
    let damaged = |what: &str| BrickError::Damaged { path: path.to_owned(), what: what.into() };
    let Some(found) = bytes.get(..HEADER).filter(|found| found.starts_with(MAGIC)) else {
        return Err(damaged("it is not a keeper's log"));
    };
    if word(found, 12) != crc32fast::hash(&found[..12]) {
        return Err(damaged("the checksum of its header does not match"));
    }
    match word(found, 8) {
        FORMAT => Ok(()),
        0 => Err(damaged("its format is 0")),
        found => Err(BrickError::NewerFormat { path: path.to_owned(), found, known: FORMAT }),
    }
}

fn frame(out: &mut Vec<u8>, n: u32, body: &[u8]) {
    let begin = out.len();
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    out.extend_from_slice(&n.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&out[begin..]).to_le_bytes());
    out.extend_from_slice(body);
    out.resize(begin + (HEADER + body.len()).next_multiple_of(HEADER), 0);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// A frame's header, when its own checksum holds.
struct Head {
    len: usize,
    crc: u32,
    n: u32,
}

fn read_head(bytes: &[u8], at: usize) -> Option<Head> {
    let head = bytes.get(at..at + HEADER)?;
    let (len, crc, n) = (word(head, 0) as usize, word(head, 4), word(head, 8));
    (word(head, 12) == crc32fast::hash(&head[..12])).then_some(Head { len, crc, n })
}

/// The bodies, and where the sound part of the file ends.
fn scan(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, u64), String> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    let mut at = HEADER;
    while at < bytes.len() {
        let n = bodies.len() as u32;
        match read_frame(bytes, at, n) {
            Ok(body) => {
                at += (HEADER + body.len()).next_multiple_of(HEADER);
                bodies.push(body.to_vec());
            }
            Err(Bad::Torn) if n > 0 && !is_followed(bytes, at, n) => break,
            Err(Bad::Torn) => {
                return Err(format!("frame {n}, at byte {at}, is torn, but was answered"));
            }
            Err(Bad::Damaged(what)) => return Err(format!("frame {n}, at byte {at}, {what}")),
        }
    }
    if bodies.is_empty() {
        return Err("it has no frame".into());
    }
    Ok((bodies, at.min(bytes.len()) as u64))
}

enum Bad {
    /// As a write that was interrupted leaves it.
    Torn,
    Damaged(&'static str),
}

fn read_frame(bytes: &[u8], at: usize, n: u32) -> Result<&[u8], Bad> {
    let Some(head) = bytes.get(at..at + HEADER) else { return Err(Bad::Torn) };
    if head.iter().all(|&byte| byte == 0) {
        return Err(Bad::Torn);
    }
    let Some(head) = read_head(bytes, at) else {
        return Err(Bad::Damaged("has a damaged header"));
    };
    if head.n != n {
        return Err(Bad::Damaged("has the number of another one"));
    }
    let (begin, end) = (at + HEADER, at + HEADER + head.len);
    let padded = (HEADER + head.len).next_multiple_of(HEADER);
    let Some(body) = bytes.get(begin..end).filter(|_| bytes.len() >= at + padded) else {
        return Err(Bad::Torn);
    };
    if crc32fast::hash(body) == head.crc {
        return Ok(body);
    }
    if has_zero_sector(bytes, begin, end) {
        Err(Bad::Torn)
    } else {
        Err(Bad::Damaged("has a wrong checksum"))
    }
}

/// Whether all that `begin..end` has of some sector is zeros: it was never written.
fn has_zero_sector(bytes: &[u8], begin: usize, end: usize) -> bool {
    let mut from = begin;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if bytes[from..to].iter().all(|&byte| byte == 0) {
            return true;
        }
        from = to;
    }
    false
}

/// Whether a later frame lies behind `at`: then frame `n` was flushed before that one was written.
fn is_followed(bytes: &[u8], at: usize, n: u32) -> bool {
    let mut places = (at + HEADER..bytes.len()).step_by(HEADER);
    places.any(|at| read_head(bytes, at).is_some_and(|head| head.n > n))
}
