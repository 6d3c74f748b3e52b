//! The buffers that the kernel takes from for receives: a provided-buffer ring.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Number of buffers: a power of two, and many more than receives end in one turn. Only those that have been
/// used cost memory.
const BUFFERS: u16 = 1024;

/// The group that receives name.
pub(super) const GROUP: u16 = 0;

/// The ring and its buffers. Both are as good as static: a program has one, until it ends.
pub(super) struct Pool {
    ring: *mut BufRingEntry,
    buffers: *mut u8,
    buffer_len: usize,
    tail: u16,
    /// How many the kernel has.
    free: u16,
}

impl Pool {
    /// Makes the buffers and registers their ring.
    pub(super) fn new(submitter: &Submitter<'_>, buffer_len: usize) -> io::Result<Pool> {
        let ring = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let buffers = allocate(usize::from(BUFFERS) * buffer_len)?;
        // SAFETY: the ring's memory is zeroed, aligned to a page, has place for `BUFFERS` entries, and is
        // never freed.
        unsafe { submitter.register_buf_ring_with_flags(ring as u64, BUFFERS, GROUP, 0)? };
        let mut pool = Pool { ring: ring.cast(), buffers, buffer_len, tail: 0, free: 0 };
        for buffer in 0..BUFFERS {
            pool.give_back(buffer);
        }
        Ok(pool)
    }

    /// Where a buffer's bytes are.
    pub(super) fn address(&self, buffer: u16) -> *mut u8 {
        debug_assert!(buffer < BUFFERS);
        // SAFETY: the kernel names only buffers that were given to it, and all of those are in the block.
        unsafe { self.buffers.add(usize::from(buffer) * self.buffer_len) }
    }

    /// The kernel has filled a buffer.
    pub(super) fn took(&mut self, buffer: u16) {
        debug_assert!(buffer < BUFFERS);
        self.free -= 1;
    }

    /// Whether the kernel has taken all buffers.
    pub(super) fn is_empty(&self) -> bool {
        self.free == 0
    }

    /// The kernel may fill the buffer again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let address = self.address(buffer);
        let index = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the index is inside the ring. No more than `BUFFERS` buffers exist, so the kernel has
        // taken whatever this place held before, and reads it again only after the tail says so.
        let entry = unsafe { &mut *self.ring.add(index) };
        entry.set_addr(address as u64);
        entry.set_len(self.buffer_len as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
        // SAFETY: the ring begins with an entry whose last two bytes are the tail; they are aligned, and
        // only this thread writes them. `set_*` above write the other fields of an entry alone.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed memory that begins at a page, and of which only what is touched costs anything.
fn allocate(len: usize) -> io::Result<*mut u8> {
    // SAFETY: asks for memory of its own, at whatever address; nothing is given.
    let block = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if block == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(block.cast()) }
}
