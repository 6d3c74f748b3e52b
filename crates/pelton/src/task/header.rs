//! The header: the part of a task that tokens, wakers, join handles and queues point to.
//!
//! A header never moves and, while its reactor lives, is never freed; see the module's essay for who
//! may touch which field, and `slab.rs` for when one is used again.

use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::task::Waker;

use super::body::Body;
use super::core::Core;
use super::sync::{AtomicUsize, Handed, Life, Ordering};

// Bits of `Header::state`, which only the owner's thread reads and writes.

/// In the run queue. Of a root: it was woken and wants to be polled.
pub(super) const QUEUED: u32 = 1;
/// The future is being polled or dropped, somewhere below on this stack.
pub(super) const RUNNING: u32 = 1 << 1;
/// A join handle exists.
pub(super) const HANDLE: u32 = 1 << 2;
/// To be cancelled as soon as the poll under way returns. The sign, so that whoever takes back `RUNNING` sees it
/// in what is left.
pub(super) const ABORT: u32 = 1 << 31;
/// The future is gone, the body holds the output for the join handle.
pub(super) const DONE: u32 = 1 << 4;
/// No body. Stays set while the header is a zombie or free, so that a stale token finds it.
pub(super) const DEAD: u32 = 1 << 5;
/// Stands for the future of a `block_on`, which the loop polls itself.
pub(super) const ROOT: u32 = 1 << 6;
/// The reactor ended before the join handle: the handle holds a counted reference now.
pub(super) const ORPHAN: u32 = 1 << 7;

/// Has been a task: set by the spawn, and never taken back, but with all the others at the end.
pub(super) const TASK: u32 = 1 << 8;

// Bits of `Header::word`, which any thread may change, by read-modify-write only.

/// On the remote stack, or about to be: whoever sets it pushes, only the drain clears it.
pub(super) const NOTIFIED: usize = 1;
/// The reactor has ended: whoever drops the last reference counts the header down.
pub(super) const ORPHANED: usize = 1 << 1;
/// One reference: a cloned `Waker`, or the join handle of an orphan.
pub(super) const ONE: usize = 1 << 2;

/// Who waits for a task's output.
pub(super) enum Joiner {
    /// A task of the same reactor, held without counting: its header outlives every handle's use of
    /// it, and a wake that finds the header dead or used again does no harm.
    Ours(Option<HeaderRef>),
    /// Anybody else's waker.
    Foreign(Waker),
}

impl Default for Joiner {
    fn default() -> Joiner {
        Joiner::Ours(None)
    }
}

/// One cache line.
#[repr(C, align(64))]
pub(super) struct Header {
    /// References and two bits, see above. Any thread.
    pub(super) word: AtomicUsize,
    /// The link of the remote stack: of the thread that set `NOTIFIED` until it has pushed, then of
    /// the thread that took the stack, until it clears `NOTIFIED`.
    pub(super) remote_next: Handed<Option<NonNull<Header>>>,
    /// Never changes.
    core: NonNull<Core>,
    /// The link of the run queue, of the free list or of the list of zombies: at most one at a time.
    pub(super) next: Cell<Option<HeaderRef>>,
    /// The box of the future or, with `DONE`, of the output. `None` exactly if `DEAD` or `ROOT`.
    pub(super) body: Cell<Option<Body>>,
    /// Empty unless `HANDLE` is set and `DONE` and `DEAD` are not.
    pub(super) joiner: Cell<Joiner>,
    pub(super) state: Cell<u32>,
    pub(super) life: Life,
}

impl Header {
    pub(super) fn new(core: NonNull<Core>) -> Header {
        Header {
            word: AtomicUsize::new(0),
            remote_next: Handed::new(None),
            core,
            next: Cell::new(None),
            body: Cell::new(None),
            joiner: Cell::new(Joiner::default()),
            state: Cell::new(DEAD),
            life: Life::new(),
        }
    }
}

/// A pointer to a header whose memory exists. It counts nothing.
///
/// That the memory exists is the duty of whoever keeps one, and there are five such places: a list of
/// the slab or a queue (part of the slab), a [`Waker`] (counted, or lent for the length of a poll), a
/// join handle (`HANDLE`, which the end of the reactor turns into a counted reference), a joiner, and
/// a token; the last two are only followed while the reactor lives. Nothing keeps one anywhere else.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct HeaderRef(NonNull<Header>);

impl Deref for HeaderRef {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: the memory exists, as the type's documentation demands of all its keepers, and was
        // initialised when its chunk handed it out for the first time. Every field that ever changes is
        // an atomic or a cell. The reference lives for one expression, and no function that could end
        // the header's memory takes a `&Header`.
        unsafe { self.0.as_ref() }
    }
}

impl HeaderRef {
    /// # Safety
    /// `pointer` is an initialised header, and the caller is one of the five keepers above.
    #[inline]
    pub(super) unsafe fn new(pointer: NonNull<Header>) -> HeaderRef {
        HeaderRef(pointer)
    }

    #[inline]
    pub(super) fn as_ptr(self) -> NonNull<Header> {
        self.0
    }

    #[inline]
    pub(super) fn core_ptr(self) -> NonNull<Core> {
        self.core
    }

    /// The reactor's core, which exists as long as any of its headers does. Not to be kept across
    /// user code, unless something says that the reactor or this header's claim lasts.
    #[inline]
    pub(super) fn core<'a>(self) -> &'a Core {
        // SAFETY: core and slab are freed together, and this header's memory exists. All that changes
        // in a core is in atomics and cells; the cells are touched on the owner's thread only.
        unsafe { self.core.as_ref() }
    }

    #[inline]
    pub(super) fn has(self, bits: u32) -> bool {
        self.state.get() & bits != 0
    }

    #[inline]
    pub(super) fn set(self, bits: u32) {
        self.state.set(self.state.get() | bits);
    }

    #[inline]
    pub(super) fn clear(self, bits: u32) {
        self.state.set(self.state.get() & !bits);
    }

    /// Owner's thread: gives a dead header back, if nothing on this thread claims it any more. Whoever
    /// takes back a claim (the queue a link, the handle itself, a poll its return) calls this last.
    ///
    /// For an orphan this may free the slab and the core: nothing of either may be used afterwards.
    #[inline]
    pub(super) fn settle(self) {
        let state = self.state.get();
        if state & (DEAD | QUEUED | RUNNING | HANDLE) != DEAD {
            return;
        }
        if state & ORPHAN == 0 {
            self.core().local.slab.bury(self);
        } else {
            // SAFETY: the end of the reactor counted this reference for the handle, which is gone.
            unsafe { self.release() };
        }
    }

    /// Any thread: counts one more reference, for which the caller must answer to [`Self::release`].
    #[inline]
    pub(super) fn retain(self) {
        self.life.used();
        // The new reference is made out of one that exists, so nothing needs ordering.
        let before = self.word.fetch_add(ONE, Ordering::Relaxed);
        if before > usize::MAX / 2 {
            // Only forgetting wakers without end leads here; to go on would free the header under them.
            std::process::abort();
        }
    }

    /// Any thread: gives a reference back. The decrement is the last touch of the header, unless the
    /// reactor has ended and this was the last reference: then the header is ours to count down.
    ///
    /// # Safety
    /// The caller owns a reference and does not use it, or anything it kept alive, afterwards.
    #[inline]
    pub(super) unsafe fn release(self) {
        self.life.used();
        let core = self.core;
        // Release: what this thread did with the header comes before its next use, or its end.
        // Acquire: if it is for us to end it, what the others did comes before.
        let order = if mutant!("release-relaxed") { Ordering::Relaxed } else { Ordering::AcqRel };
        let before = self.word.fetch_sub(ONE, order);
        if before & !NOTIFIED == ONE | ORPHANED {
            // SAFETY: the end of the reactor counted this header among those that keep the core, and
            // only the one decrement that leaves no reference behind gets here.
            unsafe { Core::count_down(core, 1) };
        }
    }
}
