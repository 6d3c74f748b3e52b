//! Memory that is zero and costs nothing until it is touched.

use std::alloc::{self, Layout};
use std::ptr::NonNull;

/// What the system's allocator aligns to anyway.
const NATURAL: usize = 16;

/// One zeroed block.
///
/// The standard allocator fills a block with zeros by hand where more than its natural alignment is asked
/// for, and so touches every page of it. A block that is a little larger, and aligned by us, comes
/// untouched from the system.
pub(crate) struct Zeroed {
    block: NonNull<u8>,
    layout: Layout,
    start: NonNull<u8>,
}

impl Zeroed {
    /// A block of `len` bytes, not zero, aligned to `align`, a power of two. None without memory for it.
    pub(crate) fn new(len: usize, align: usize) -> Option<Zeroed> {
        assert!(len > 0 && align.is_power_of_two());
        let layout = Layout::from_size_align(len.checked_add(align)?, NATURAL).ok()?;
        // SAFETY: the layout's size is not zero.
        let block = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        let address = block.as_ptr().addr();
        // SAFETY: the offset is less than `align`, by which the block is longer than `len`.
        let start = unsafe { block.add(address.next_multiple_of(align) - address) };
        Some(Zeroed { block, layout, start })
    }

    /// Where the aligned part starts.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout. Whoever owns the block sees to it that no kernel
        // writes to it any more, or leaks it.
        unsafe { alloc::dealloc(self.block.as_ptr(), self.layout) };
    }
}
