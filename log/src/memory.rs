//! The bytes of a segment: a mapped file, or heap memory for tests, the simulator and Miri.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::MmapRaw;

/// Alignment of the first byte: what `O_DIRECT` needs at most.
pub const MEMORY_ALIGN: usize = 4096;

/// Owned bytes at a fixed address. The kernel may read them (a flush, a send) while they are owned
/// here; only the owner writes.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
    /// Keeps the mapping; `None` is heap memory.
    map: Option<MmapRaw>,
}

// SAFETY: the bytes belong to this value alone, like a Box's; nothing in it is tied to a thread.
unsafe impl Send for Memory {}

impl Memory {
    /// Zeroed heap memory of `len` bytes.
    pub fn heap(len: usize) -> Self {
        assert!(len > 0, "memory of zero bytes");
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero (asserted above).
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(raw) else { handle_alloc_error(layout) };
        Self { base, len, map: None }
    }

    pub(crate) fn mapped(map: MmapRaw) -> Self {
        let len = map.len();
        Self::mapped_in(map, 0, len)
    }

    /// The `len` bytes behind the first `skip` of a mapping.
    pub(crate) fn mapped_in(map: MmapRaw, skip: usize, len: usize) -> Self {
        assert!(skip + len <= map.len(), "outside the mapping");
        let Some(base) = NonNull::new(map.as_mut_ptr().wrapping_add(skip)) else {
            unreachable!("a mapping is never at address zero")
        };
        Self { base, len, map: Some(map) }
    }

    fn layout(len: usize) -> Layout {
        let Ok(layout) = Layout::from_size_align(len, MEMORY_ALIGN) else {
            panic!("memory of {len} bytes")
        };
        layout
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        self.len
    }

    /// First byte.
    pub fn as_ptr(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// All bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `base` points to `len` initialised bytes (zeroed heap, or a file's pages) that live
        // as long as `self`.
        // SAFETY: writes need `&mut self`, so none happens while this borrow lives.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The bytes of a range, to be written.
    #[inline]
    pub fn slice_mut(&mut self, from: usize, len: usize) -> &mut [u8] {
        assert!(from <= self.len && len <= self.len - from, "outside the segment");
        // SAFETY: the range is inside the memory (asserted) and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(from), len) }
    }

    /// Stores a record's length *after* all its other bytes: the record exists from here on, also for
    /// whoever maps the file after this process was killed.
    #[inline]
    pub fn publish(&mut self, at: usize, len: u32) {
        // SAFETY: in bounds and aligned to 8 (`place`).
        // SAFETY: `&mut self` makes the access exclusive; the atomic is for the order of the stores.
        let word = unsafe { AtomicU32::from_ptr(self.place(at)) };
        word.store(len.to_le(), Ordering::Release);
    }

    /// Stores a word after all that was written before it, for whoever maps the file later.
    pub fn publish_mark(&mut self, at: usize, word: u64) {
        // SAFETY: as in `publish`.
        let place = unsafe { AtomicU64::from_ptr(self.place(at)) };
        place.store(word.to_le(), Ordering::Release);
    }

    /// Where a word lies: in bounds, and aligned to 8 as the base is aligned to 4096.
    #[inline]
    fn place<T>(&mut self, at: usize) -> *mut T {
        assert!(at.is_multiple_of(8) && at + size_of::<T>() <= self.len, "outside the segment");
        // SAFETY: in bounds (asserted).
        unsafe { self.base.as_ptr().add(at).cast() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.map.is_none() {
            // SAFETY: made by `heap` with this very layout and not freed before.
            unsafe { dealloc(self.base.as_ptr(), Self::layout(self.len)) }
        }
    }
}

/// Asks the processor to fetch the cache lines at `ptr`; never faults.
#[inline]
pub fn prefetch(ptr: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint and does not access memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(ptr.cast());
        _mm_prefetch::<_MM_HINT_T0>(ptr.wrapping_add(64).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = ptr;
}
