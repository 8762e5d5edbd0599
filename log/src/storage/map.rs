//! Mapping a segment's file, with huge pages where the kernel gives them.
//!
//! Hardly two requests in a row touch the same small page of a log, so with small pages nearly every one of them
//! pays for a miss of the TLB, in a virtual machine twice. A tmpfs gives small pages unless it was mounted otherwise,
//! but a mapping may ask for its pages to be collapsed into huge ones (`huge.rs` says who asks). Asked for *before* the
//! file has its pages it is also the cheaper way to get them: 16 MiB are there after 2.8 ms and freed in 0.2 ms, against
//! 18 ms and 6 ms.
//! Where the kernel has no huge page, or the folder is no tmpfs, the pages are small ones as ever.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::files::allocate;
use super::huge::HugePages;
use crate::memory::Memory;

/// What a huge page holds, and the alignment that it needs.
const HUGE_BYTES: usize = 2 << 20;

/// Gives an empty file `bytes` zeros, all of them allocated, and maps it with its pages there.
pub(super) fn create(
    file: &File,
    path: &Path,
    bytes: usize,
    huge_pages: Option<&mut HugePages>,
) -> io::Result<Memory> {
    if bytes < HUGE_BYTES || !is_tmpfs(file) {
        allocate(file, 0, bytes)?;
        file.sync_all()?;
        return whole(file, bytes);
    }
    file.set_len(bytes as u64)?;
    if let Some(huge_pages) = huge_pages {
        huge_pages.fill(path);
    }
    // Whatever that did not bring, with the error that says why when there is no room.
    allocate(file, 0, bytes)?;
    let map = aligned(file, bytes, 0)?;
    map.range.advise_range(Advice::PopulateWrite, map.skip, bytes)?;
    Ok(map.into_memory())
}

/// Fills a file with huge pages, as far as there are any. Takes no memory from the heap.
pub(super) fn collapse(file: &File, bytes: usize) {
    let Ok(map) = aligned(file, bytes, 0) else { return };
    for first in (0..=bytes.saturating_sub(HUGE_BYTES)).step_by(HUGE_BYTES) {
        // A range without any page is not collapsed.
        if allocate(file, first, 1).is_err() {
            return;
        }
        warm_a_huge_page();
        let range = map.memory().wrapping_add(first).cast();
        // SAFETY: the range is part of a mapping that `map` owns; the call changes which pages hold the bytes, not the
        // bytes. What is not collapsed stays as it is.
        unsafe { libc::madvise(range, HUGE_BYTES, libc::MADV_COLLAPSE) };
    }
}

/// Has the host of a virtual machine give the memory of the huge page that the kernel will take next.
///
/// A host may have taken back what lay free, and then gives it again at the first touch, 4 KiB at a time: 5 ms a huge page.
/// A collapse fills its page without a pause in which others could run, so for all that time nothing else runs on that CPU: a
/// latency of 5 ms for whoever shares it. A page fault fills its huge page with pauses, and the page that was just
/// freed is the next to be given out. Where memory is warm this costs 0.1 ms.
fn warm_a_huge_page() {
    let Ok(range) = MmapOptions::new().len(2 * HUGE_BYTES).map_anon() else { return };
    let skip = range.as_ptr().align_offset(HUGE_BYTES);
    // What fails here fails where it matters, or does not matter.
    if range.advise_range(Advice::HugePage, skip, HUGE_BYTES).is_ok() {
        drop(range.advise_range(Advice::PopulateWrite, skip, HUGE_BYTES));
    }
}

/// Maps a file whole, with its pages there.
pub(super) fn whole(file: &File, bytes: usize) -> io::Result<Memory> {
    if bytes < HUGE_BYTES {
        return MmapOptions::new().populate().map_raw(file).map(Memory::mapped);
    }
    aligned(file, bytes, libc::MAP_POPULATE).map(Mapping::into_memory)
}

/// A file mapped into a range of addresses that is larger, so that it can begin where a huge page may.
struct Mapping {
    range: MmapRaw,
    skip: usize,
    bytes: usize,
}

impl Mapping {
    fn memory(&self) -> *mut u8 {
        self.range.as_mut_ptr().wrapping_add(self.skip)
    }

    fn into_memory(self) -> Memory {
        Memory::mapped_in(self.range, self.skip, self.bytes)
    }
}

fn aligned(file: &File, bytes: usize, flags: libc::c_int) -> io::Result<Mapping> {
    let range = MmapOptions::new().len(bytes + HUGE_BYTES).no_reserve_swap().map_anon()?;
    let skip = range.as_ptr().align_offset(HUGE_BYTES);
    let map = Mapping { range: range.into(), skip, bytes };
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_SHARED | libc::MAP_FIXED);
    // SAFETY: replaces pages of the range that this function has just made, which nobody has seen; unmapping
    // the range ends this mapping too.
    let at =
        unsafe { libc::mmap(map.memory().cast(), bytes, protection, flags, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(map) }
}

fn is_tmpfs(file: &File) -> bool {
    // SAFETY: all-zero is a valid `statfs`.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a `statfs` to fill, both alive during the call.
    let known = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut about) } == 0;
    known && about.f_type == libc::TMPFS_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of a mapping of this process that the kernel holds in huge pages.
    fn huge_kib(memory: &Memory) -> u64 {
        let start = format!("{:x}-", memory.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|l| !l.starts_with(&start));
        let line = lines.find(|l| l.starts_with("ShmemPmdMapped:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_segment_on_tmpfs_lies_in_huge_pages_and_does_so_again_when_it_is_mapped_again() {
        let bytes = 3 * HUGE_BYTES + 8192;
        let named = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let (file, path) = (named.as_file(), named.path());
        let mut huge_pages = HugePages::start().unwrap();
        let mut memory = create(file, path, bytes, Some(&mut huge_pages)).unwrap();
        assert_eq!(memory.size(), bytes);
        assert!(memory.bytes().iter().all(|b| *b == 0));
        assert_eq!(memory.as_ptr() as usize % HUGE_BYTES, 0);
        memory.slice_mut(bytes - 4, 4).copy_from_slice(b"last");
        let huge = huge_kib(&memory);
        drop(memory);
        let again = whole(file, bytes).unwrap();
        assert_eq!(&again.bytes()[bytes - 4..], b"last");
        // A kernel without huge pages, or one that has none left, is no failure.
        if huge > 0 {
            assert_eq!(huge, 3 * 2048);
            assert_eq!(huge_kib(&again), huge, "a restart would be slow");
        }
    }

    #[test]
    fn every_byte_is_taken_in_advance() {
        use std::os::unix::fs::MetadataExt;
        for folder in ["/dev/shm", env!("CARGO_MANIFEST_DIR")] {
            let file = tempfile::tempfile_in(folder).unwrap();
            let memory = create(&file, Path::new(folder), HUGE_BYTES + 4096, None).unwrap();
            assert_eq!(memory.size(), HUGE_BYTES + 4096);
            assert!(file.metadata().unwrap().blocks() * 512 >= (HUGE_BYTES + 4096) as u64);
        }
    }
}
