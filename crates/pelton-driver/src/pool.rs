//! The pool of buffers for receives that bring no buffer of their own, and the leases on them.
//!
//! # Who owns a buffer
//!
//! The pool is one block of memory cut into buffers of one size. A buffer belongs to the kernel, or to
//! the room in its place, from [`Pool::offer`] until a completion says that the kernel is done with it.
//! A completion gives a [`Lease`] on the bytes that it received. In an incremental pool the kernel fills
//! a buffer piece by piece: several leases may hold different parts of one buffer while the kernel fills
//! its rest. A buffer goes back when the kernel is done with it *and* no lease holds a part of it.
//! No two leases overlap and the kernel never writes into a part that it has given out, so a lease may
//! hand out its bytes mutably.
//!
//! An operation that finds no buffer is parked, not failed; a lease that is dropped makes the driver try
//! it again at its next tick.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use crate::buf::IoBuf;
use crate::memory::Zeroed;
use crate::notify::Shared;
use crate::sys::BufferRing;

struct Buffer {
    /// Leases on parts of it.
    leases: Cell<u32>,
    /// Bytes given out since it was offered.
    filled: Cell<u32>,
    /// With the kernel, or with the room in its place.
    offered: Cell<bool>,
}

pub(crate) struct Pool {
    memory: Zeroed,
    buffer_len: u32,
    buffers: Box<[Buffer]>,
    /// Buffers that are offered.
    offered: Cell<u32>,
    /// Buffers that no kernel took: the room's own free list, last in first out, so that memory which is
    /// warm in the cache is used again first.
    free: UnsafeCell<Vec<u16>>,
    /// The kernel's ring of buffers, where the room has one.
    ring: UnsafeCell<Option<BufferRing>>,
    has_ring: Cell<bool>,
    shared: Arc<Shared>,
}

impl Pool {
    /// Makes a pool. None when there is no memory for it.
    pub(crate) fn new(buffers: u16, buffer_len: u32, shared: Arc<Shared>) -> Option<Pool> {
        let memory = Zeroed::new(usize::from(buffers) * buffer_len as usize, 4096)?;
        shared.counters.buffers_total.set(u64::from(buffers));
        Some(Pool {
            memory,
            buffer_len,
            buffers: (0..buffers)
                .map(|_| Buffer {
                    leases: Cell::new(0),
                    filled: Cell::new(0),
                    offered: Cell::new(true),
                })
                .collect(),
            offered: Cell::new(u32::from(buffers)),
            free: UnsafeCell::new((0..buffers).rev().collect()),
            ring: UnsafeCell::new(None),
            has_ring: Cell::new(false),
            shared,
        })
    }

    /// How many buffers there are.
    pub(crate) fn len(&self) -> u16 {
        self.buffers.len() as u16
    }

    /// Hands all the buffers to the kernel's ring.
    pub(crate) fn attach(&self, ring: BufferRing) {
        for id in 0..self.buffers.len() as u16 {
            // SAFETY: no lease exists yet, so all buffers are the kernel's to fill.
            unsafe { ring.push(self.address(id), self.buffer_len, id) };
        }
        ring.publish();
        // SAFETY: one thread, and nobody holds a reference to the ring across a call.
        unsafe { *self.ring.get() = Some(ring) };
        self.has_ring.set(true);
    }

    /// Takes the kernel's ring away again: leases that are dropped later keep their buffers out of it.
    pub(crate) fn detach(&self) -> Option<BufferRing> {
        self.has_ring.set(false);
        // SAFETY: as in `attach`.
        unsafe { (*self.ring.get()).take() }
    }

    /// Buffers in which something can be received.
    #[inline(always)]
    pub(crate) fn available(&self) -> u32 {
        self.offered.get()
    }

    #[inline(always)]
    fn address(&self, id: u16) -> *mut u8 {
        // SAFETY: `id` is below the number of buffers, so the buffer lies in the block.
        unsafe { self.memory.start().as_ptr().add(usize::from(id) * self.buffer_len as usize) }
    }

    /// For a room without a ring: the buffer to fill next, where to write, and how much fits.
    #[inline(always)]
    pub(crate) fn pick(&self) -> Option<(u16, *mut u8, u32)> {
        // SAFETY: one thread; the reference ends with the statement.
        let id = *unsafe { &*self.free.get() }.last()?;
        // SAFETY: the list has the numbers of this pool's buffers.
        let filled = unsafe { self.buffers.get_unchecked(usize::from(id)) }.filled.get();
        // SAFETY: `filled` never exceeds the buffer's length.
        Some((id, unsafe { self.address(id).add(filled as usize) }, self.buffer_len - filled))
    }

    /// For a room without a ring: `n` bytes, not none, have been written where `pick` said.
    #[inline(always)]
    pub(crate) fn commit(self: &Rc<Pool>, id: u16, n: u32) -> Lease {
        let buffer = &self.buffers[usize::from(id)];
        let start = buffer.filled.get();
        let left = self.buffer_len - start - n;
        if left < self.buffer_len / 4 || left == 0 {
            // A buffer that is nearly full is given up, so that the next receive is not cut into crumbs.
            self.give_up(buffer);
        }
        self.lend(buffer, id, start, n)
    }

    /// `id` is the one that `pick` returned: the last one of the list.
    #[cold]
    fn give_up(&self, buffer: &Buffer) {
        // SAFETY: as in `pick`.
        unsafe { &mut *self.free.get() }.pop();
        self.let_go(buffer);
    }

    /// The kernel, or the room in its place, is done with a buffer.
    #[inline(always)]
    fn let_go(&self, buffer: &Buffer) {
        buffer.offered.set(false);
        self.offered.set(self.offered.get() - 1);
    }

    /// A completion has filled `n` bytes of buffer `id`; with `more` the kernel keeps the rest. None for
    /// a number that is no buffer of this pool, and where there are no bytes.
    #[inline(always)]
    pub(crate) fn received(self: &Rc<Pool>, id: u16, n: u32, more: bool) -> Option<Lease> {
        let buffer = self.buffers.get(usize::from(id))?;
        let start = buffer.filled.get();
        if !buffer.offered.get() || n > self.buffer_len - start {
            self.count_stale();
            return None;
        }
        if !more {
            self.let_go(buffer);
        }
        if n == 0 {
            self.offer_if_unused(id);
            return None;
        }
        Some(self.lend(buffer, id, start, n))
    }

    /// Gives out `n` bytes of a buffer that have been written, from `start` on.
    #[inline(always)]
    fn lend(self: &Rc<Pool>, buffer: &Buffer, id: u16, start: u32, n: u32) -> Lease {
        buffer.filled.set(start + n);
        let leases = buffer.leases.get();
        buffer.leases.set(leases + 1);
        if leases == 0 {
            let counters = &self.shared.counters;
            let in_use = counters.buffers_in_use.get() + 1;
            counters.buffers_in_use.set(in_use);
            counters.buffers_high_water.raise_to(in_use);
        }
        // SAFETY: `start + n` lies in the buffer.
        let ptr = unsafe { NonNull::new_unchecked(self.address(id).add(start as usize)) };
        let skipped = if mutant!("piece-forgotten") { start } else { 0 };
        // SAFETY: no more than was added, and what an `Rc` points to is not null.
        let (ptr, pool) = unsafe {
            let pool = NonNull::new_unchecked(Rc::into_raw(Rc::clone(self)).cast_mut());
            (ptr.sub(skipped as usize), pool)
        };
        Lease { ptr, pool, len: n, id }
    }

    #[cold]
    fn count_stale(&self) {
        self.shared.counters.stale.add(1);
    }

    /// A lease is dropped.
    ///
    /// # Safety
    /// It was a lease of this pool, on this buffer.
    #[inline(always)]
    unsafe fn give_back(&self, id: u16) {
        // SAFETY: the pool makes leases on its own buffers only, and their number never changes.
        let buffer = unsafe { self.buffers.get_unchecked(usize::from(id)) };
        let leases = buffer.leases.get() - 1;
        buffer.leases.set(leases);
        if leases > 0 && mutant!("buffer-offered-while-leased") {
            self.offer_if_unused(id);
        }
        if leases == 0 {
            self.shared.counters.buffers_in_use.sub(1);
            if !buffer.offered.get() {
                self.offer_if_unused(id);
            } else if self.has_ring.get() {
                // The kernel has it still, and goes on where it is.
            } else {
                // It is the room's, and nobody holds a part of it: it starts again where it is warm.
                buffer.filled.set(0);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn offer_if_unused(&self, id: u16) {
        let buffer = &self.buffers[usize::from(id)];
        let held = buffer.leases.get() > 0 && !mutant!("buffer-offered-while-leased");
        if held || buffer.offered.get() {
            return;
        }
        buffer.filled.set(0);
        buffer.offered.set(true);
        self.offered.set(self.offered.get() + 1);
        // SAFETY: one thread; neither reference is held across user code.
        match unsafe { &*self.ring.get() } {
            Some(ring) => {
                // SAFETY: no lease holds a part of the buffer and the kernel has let go of it, so the
                // whole of it is the kernel's again.
                unsafe { ring.push(self.address(id), self.buffer_len, id) };
                if mutant!("buffer-given-back-twice") {
                    // SAFETY: a mutant, which is to be found.
                    unsafe { ring.push(self.address(id), self.buffer_len, id) };
                }
                ring.publish();
            }
            None => {
                // SAFETY: as above. The list has had room for every buffer from the start.
                let free = unsafe { &mut *self.free.get() };
                free.push(id);
                if mutant!("buffer-given-back-twice") {
                    free.push(id);
                }
            }
        }
    }
}

/// Received bytes, in a buffer of the driver's pool. Dropping the lease gives the buffer back.
///
/// A lease is a buffer like any other: it can be sent without a copy. Leases that are held for long keep
/// buffers from others: copy what is to be kept.
///
/// ```
/// # fn parse(_: &[u8]) {}
/// # fn received(lease: pelton_driver::Lease) {
/// parse(&lease); // a lease is a slice of bytes
/// # }
/// ```
pub struct Lease {
    ptr: NonNull<u8>,
    /// A share in it, from `Rc::into_raw`: as a pointer, which can be given back without a place in memory.
    pool: NonNull<Pool>,
    len: u32,
    id: u16,
}

impl Lease {
    /// Gives up the first `n` bytes; all of them where there are fewer.
    pub fn advance(&mut self, n: usize) {
        let n = n.min(self.len as usize);
        // SAFETY: `n <= len`, so the new start lies in the lease or at its end.
        self.ptr = unsafe { self.ptr.add(n) };
        self.len -= n as u32;
    }

    /// Keeps the first `n` bytes and gives up the rest.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(u32::try_from(n).unwrap_or(u32::MAX));
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel wrote these bytes and writes to them no more; the pool lives as long as the
        // lease.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and no other lease holds these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len as usize) }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl IoBuf for Lease {
    #[inline]
    fn as_init(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("buffer", &self.id).field("len", &self.len).finish()
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the lease has a share in the pool, which it gives up here, last.
        unsafe {
            self.pool.as_ref().give_back(self.id);
            Rc::decrement_strong_count(self.pool.as_ptr());
        }
    }
}
