//! Provided receive buffers: the kernel picks one when bytes arrive, so an idle connection holds none.
//!
//! A buffer is either the kernel's (published in the ring) or ours (a completion named it, and `uses` counts
//! the tokens that share it). It changes hands only in `publish` and `taken`.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::RingError;
use crate::limits::RX_BUFFER_BYTES;

/// Buffer group of the one buffer ring.
pub const GROUP: u16 = 0;
const PAGE: usize = 4096;
/// From one buffer to the next. Not a power of two: most messages fill only a buffer's first lines, and those would
/// all fall into the same few sets of the caches.
const STRIDE: usize = RX_BUFFER_BYTES + 2 * 64;

/// Page-aligned memory that stays where it is.
struct Pages {
    ptr: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, PAGE).expect("a small multiple of a page");
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        Self { ptr, layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) };
    }
}

/// The buffers and their ring. Must be dropped after the `io_uring` it is registered with.
pub struct Buffers {
    ring: Pages,
    memory: Pages,
    count: u16,
    tail: u16,
    /// Tokens that share each buffer; 0: the kernel has it.
    uses: Vec<u16>,
    ours: u16,
}

impl Buffers {
    /// Makes `count` (a power of two) buffers and gives all of them to the kernel.
    pub fn new(uring: &IoUring, count: u16) -> Result<Self, RingError> {
        assert!(count.is_power_of_two(), "buffer rings hold a power of two");
        let mut buffers = Self {
            ring: Pages::new(usize::from(count) * size_of::<BufRingEntry>()),
            memory: Pages::new(usize::from(count) * STRIDE),
            count,
            tail: 0,
            uses: vec![0; usize::from(count)],
            ours: 0,
        };
        // SAFETY: the ring's memory is page-aligned, holds `count` entries and outlives the io_uring.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                buffers.ring.ptr.as_ptr() as u64,
                count,
                GROUP,
                0,
            )
        }
        .map_err(|error| RingError::from_io(error, "a ring of provided buffers"))?;
        for id in 0..count {
            buffers.publish(id);
        }
        Ok(buffers)
    }

    #[allow(clippy::cast_ptr_alignment)] // the ring's memory is page-aligned
    fn publish(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        let base = self.ring.ptr.as_ptr().cast::<BufRingEntry>();
        let address = self.address(id) as u64;
        // SAFETY: `at` is below `count`. The kernel reads an entry only once the tail covers it. The setters do
        // not touch the tail, which overlays the reserved field of entry 0.
        unsafe {
            let entry = &mut *base.add(at);
            entry.set_addr(address);
            entry.set_len(RX_BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the ring's memory and is aligned; the kernel only loads it.
        let tail = unsafe { &*BufRingEntry::tail(base).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, id: u16) -> *mut u8 {
        assert!(id < self.count);
        // SAFETY: inside the allocation of `count` buffers.
        unsafe { self.memory.ptr.as_ptr().add(usize::from(id) * STRIDE) }
    }

    /// A completion named this buffer: it is ours, held once.
    pub fn taken(&mut self, id: u16) {
        let uses = &mut self.uses[usize::from(id)];
        assert_eq!(*uses, 0, "the kernel gave a buffer that it did not have");
        *uses = 1;
        self.ours += 1;
    }

    /// That many more tokens share the buffer.
    pub fn share(&mut self, id: u16, more: u16) {
        let uses = &mut self.uses[usize::from(id)];
        assert!(*uses > 0, "only a buffer of ours is shared");
        *uses += more;
    }

    /// One token is gone; the last gives the buffer back to the kernel.
    pub fn release(&mut self, id: u16) {
        let uses = &mut self.uses[usize::from(id)];
        assert!(*uses > 0, "a receive buffer was released twice");
        *uses -= 1;
        if *uses == 0 {
            self.ours -= 1;
            self.publish(id);
        }
    }

    /// Buffers that the kernel may fill.
    pub fn free(&self) -> u16 {
        self.count - self.ours
    }

    /// Bytes of a buffer of ours.
    pub fn bytes(&self, id: u16, start: usize, len: usize) -> &[u8] {
        assert!(self.uses[usize::from(id)] > 0, "a buffer of the kernel's is not read");
        assert!(start + len <= RX_BUFFER_BYTES);
        // SAFETY: in bounds and initialised (allocated zeroed); the kernel does not write a buffer it was not given.
        unsafe { std::slice::from_raw_parts(self.address(id).add(start), len) }
    }
}
