//! The slab: where headers live, and when one may be used again.
//!
//! Chunks of raw memory that are neither moved nor freed before the reactor has ended and nobody refers
//! to any header any more. A header is used again only when its task is dead, no local claim is left
//! (see `HeaderRef::settle`), no `Waker` is counted and it is not on the remote stack. The last two are
//! one load: the header's word is zero. A dead header whose word is not is a *zombie*. Nobody reports
//! the fall of its word, which may happen on any thread; the slab looks for it before it grows.

use std::alloc::{self, Layout};
use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

use super::core::Core;
use super::header::{Header, HeaderRef};
use super::sync::Ordering;

/// Headers in the first chunk: 4 KiB. Every further chunk is twice as large, up to the last.
const FIRST_CHUNK: usize = 64;
const LARGEST_CHUNK: usize = 1024;

/// Owner's thread only, but for its drop.
pub(super) struct Slab {
    free: Cell<Option<HeaderRef>>,
    zombies: Cell<Option<HeaderRef>>,
    /// Zombies that outlived the last scan, and new zombies and fresh headers since. The next scan waits
    /// until the second number has reached the first: so each look at a zombie is paid for by a death or
    /// by a fresh header, and what could be taken back is never much more than what could not.
    survivors: Cell<usize>,
    credit: Cell<usize>,
    /// The part of the last chunk that was never handed out.
    unused: Cell<*mut Header>,
    end: Cell<*mut Header>,
    used: Cell<usize>,
    chunks: RefCell<Vec<Chunk>>,
}

#[derive(Clone, Copy)]
struct Chunk {
    base: NonNull<Header>,
    len: usize,
}

impl Slab {
    pub(super) fn new() -> Slab {
        Slab {
            free: Cell::new(None),
            zombies: Cell::new(None),
            survivors: Cell::new(0),
            credit: Cell::new(0),
            unused: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
            used: Cell::new(0),
            chunks: RefCell::new(Vec::new()),
        }
    }

    /// A dead header that nobody refers to, but perhaps a stale token.
    #[inline]
    pub(super) fn take(&self, core: NonNull<Core>) -> HeaderRef {
        match self.take_free() {
            Some(header) => header,
            None => self.take_slow(core),
        }
    }

    #[inline]
    fn take_free(&self) -> Option<HeaderRef> {
        let header = self.free.get()?;
        self.free.set(header.next.get());
        header.life.ends();
        Some(header)
    }

    #[cold]
    fn take_slow(&self, core: NonNull<Core>) -> HeaderRef {
        if self.zombies.get().is_some() && self.credit.get() >= self.survivors.get() {
            self.scan();
            if let Some(header) = self.take_free() {
                return header;
            }
        }
        if self.unused.get() == self.end.get() {
            self.grow();
        }
        self.credit.set(self.credit.get() + 1);
        self.used.set(self.used.get() + 1);
        let place = self.unused.get();
        // SAFETY: between `unused` and `end` is memory of the last chunk that was never initialised.
        unsafe {
            place.write(Header::new(core));
            self.unused.set(place.add(1));
            HeaderRef::new(NonNull::new_unchecked(place))
        }
    }

    /// Takes a dead header without local claims back. `next` is in no list.
    #[inline]
    pub(super) fn bury(&self, header: HeaderRef) {
        // Acquire: all that was done through the references that are gone comes before the next use.
        // With the task dead, nobody can make a reference out of nothing, so zero stays zero.
        if header.word.load(Ordering::Acquire) == 0 {
            header.next.set(self.free.replace(Some(header)));
        } else {
            self.credit.set(self.credit.get() + 1);
            header.next.set(self.zombies.replace(Some(header)));
        }
    }

    fn scan(&self) {
        let mut list = self.zombies.take();
        let mut survivors = 0;
        while let Some(header) = list {
            list = header.next.get();
            self.bury(header);
            survivors += usize::from(self.zombies.get() == Some(header));
        }
        self.survivors.set(survivors);
        self.credit.set(0);
    }

    fn grow(&self) {
        let mut chunks = self.chunks.borrow_mut();
        let len = chunks.last().map_or(FIRST_CHUNK, |last| (last.len * 2).min(LARGEST_CHUNK));
        let layout = layout(len);
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc::alloc(layout) }.cast::<Header>();
        let Some(base) = NonNull::new(base) else { alloc::handle_alloc_error(layout) };
        chunks.push(Chunk { base, len });
        self.unused.set(base.as_ptr());
        // SAFETY: one past the end of the memory just allocated.
        self.end.set(unsafe { base.as_ptr().add(len) });
    }

    /// Headers that were ever handed out.
    #[inline]
    pub(super) fn used(&self) -> usize {
        self.used.get()
    }

    /// Visits every header that was ever handed out. `visit` may run user code; headers that are taken
    /// from fresh memory meanwhile may be passed over.
    pub(super) fn for_each(&self, mut visit: impl FnMut(HeaderRef)) {
        let mut index = 0;
        while let Some(chunk) = self.chunk(index) {
            for header in 0..chunk.len {
                // SAFETY: within the chunk, initialised (see `chunk`), and used while the slab exists.
                visit(unsafe { HeaderRef::new(chunk.base.add(header)) });
            }
            index += 1;
        }
    }

    /// A chunk, cut down to its initialised headers.
    fn chunk(&self, index: usize) -> Option<Chunk> {
        let chunks = self.chunks.borrow();
        let mut chunk = *chunks.get(index)?;
        if index + 1 == chunks.len() {
            // SAFETY: `unused` points into the last chunk, or one past its end.
            chunk.len = unsafe { self.unused.get().offset_from_unsigned(chunk.base.as_ptr()) };
        }
        Some(chunk)
    }

    /// Zombies, counted by walking.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn zombies(&self) -> usize {
        std::iter::successors(self.zombies.get(), |header| header.next.get()).count()
    }
}

impl Drop for Slab {
    /// The reactor has ended and the last reference is gone; this may be any thread.
    fn drop(&mut self) {
        self.for_each(|header| header.life.ends());
        for chunk in self.chunks.get_mut().drain(..) {
            // SAFETY: allocated in `grow` with this layout. Headers own nothing any more: a dead one has
            // no body and no joiner, and nobody points to any (see `Core::end`).
            unsafe { alloc::dealloc(chunk.base.as_ptr().cast(), layout(chunk.len)) };
        }
    }
}

fn layout(len: usize) -> Layout {
    // At most `LARGEST_CHUNK` headers: this cannot overflow.
    Layout::array::<Header>(len).expect("a chunk fits the address space")
}
