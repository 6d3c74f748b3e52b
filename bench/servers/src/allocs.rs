//! Counting allocations: only with the feature `count-allocs`, so that no other build pays for it.

#[cfg(feature = "count-allocs")]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    pub(super) static ON: AtomicBool = AtomicBool::new(false);
    pub(super) static ALLOCS: AtomicU64 = AtomicU64::new(0);
    pub(super) static BYTES: AtomicU64 = AtomicU64::new(0);

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    fn count(bytes: usize) {
        if ON.load(Relaxed) {
            ALLOCS.fetch_add(1, Relaxed);
            BYTES.fetch_add(bytes as u64, Relaxed);
        }
    }

    // SAFETY: every call is handed to the system's allocator with the caller's own arguments; counting
    // neither allocates nor panics.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size());
            // SAFETY: what the caller promised us of `layout` is what `System` asks.
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            count(layout.size());
            // SAFETY: as for `alloc`.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            count(size);
            // SAFETY: `block` came from this allocator, that is from `System`, with this layout.
            unsafe { System.realloc(block, layout, size) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as for `realloc`.
            unsafe { System.dealloc(block, layout) }
        }
    }
}

/// Whether this build can count.
pub fn can_count() -> bool {
    cfg!(feature = "count-allocs")
}

/// Counts from here on, and from nothing.
pub fn start() {
    #[cfg(feature = "count-allocs")]
    {
        use std::sync::atomic::Ordering::Relaxed;
        counting::ALLOCS.store(0, Relaxed);
        counting::BYTES.store(0, Relaxed);
        counting::ON.store(true, Relaxed);
    }
}

/// Allocations and their bytes since the start, if there was one. Growing a block is an allocation.
pub fn counted() -> Option<(u64, u64)> {
    #[cfg(feature = "count-allocs")]
    {
        use std::sync::atomic::Ordering::Relaxed;
        if counting::ON.swap(false, Relaxed) {
            return Some((counting::ALLOCS.load(Relaxed), counting::BYTES.load(Relaxed)));
        }
    }
    None
}
