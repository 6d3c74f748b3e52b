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
    /// Buffers that leases hold.
    leased: Cell<u32>,
    /// Buffers that no kernel took: the room's own free list, last in first out, so that memory which is
    /// warm in the cache is used again first.
    free: UnsafeCell<Vec<u16>>,
    /// The kernel's ring of buffers, where the room has one.
    ring: UnsafeCell<Option<BufferRing>>,
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
            leased: Cell::new(0),
            free: UnsafeCell::new((0..buffers).rev().collect()),
            ring: UnsafeCell::new(None),
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
    }

    /// Takes the kernel's ring away again: leases that are dropped later keep their buffers out of it.
    pub(crate) fn detach(&self) -> Option<BufferRing> {
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
    pub(crate) fn pick(&self) -> Option<(u16, *mut u8, u32)> {
        // SAFETY: one thread; the reference ends with the statement.
        let id = *unsafe { &*self.free.get() }.last()?;
        let filled = self.buffers[usize::from(id)].filled.get();
        // SAFETY: `filled` never exceeds the buffer's length.
        Some((id, unsafe { self.address(id).add(filled as usize) }, self.buffer_len - filled))
    }

    /// For a room without a ring: `n` bytes have been written where `pick` said.
    pub(crate) fn commit(self: &Rc<Pool>, id: u16, n: u32) -> Lease {
        // A buffer that is nearly full is given up, so that the next receive is not cut into crumbs.
        let left = self.buffer_len - self.buffers[usize::from(id)].filled.get() - n;
        let more = left >= (self.buffer_len / 4).max(1);
        if !more {
            // SAFETY: as in `pick`; `id` is the last one, which `pick` returned.
            unsafe { &mut *self.free.get() }.pop();
        }
        self.received(id, n, more).expect("a commit has bytes")
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
            buffer.offered.set(false);
            self.offered.set(self.offered.get() - 1);
        }
        if n == 0 {
            self.offer_if_unused(id);
            return None;
        }
        buffer.filled.set(start + n);
        let leases = buffer.leases.get();
        buffer.leases.set(leases + 1);
        if leases == 0 {
            self.count_leased(1);
        }
        // SAFETY: `start + n` lies in the buffer.
        let ptr = unsafe { NonNull::new_unchecked(self.address(id).add(start as usize)) };
        let skipped = if mutant!("piece-forgotten") { start } else { 0 };
        // SAFETY: no more than was added.
        let ptr = unsafe { ptr.sub(skipped as usize) };
        Some(Lease { ptr, pool: Rc::clone(self), len: n, id })
    }

    #[cold]
    fn count_stale(&self) {
        self.shared.counters.stale.add(1);
    }

    #[inline(always)]
    fn give_back(&self, id: u16) {
        let buffer = &self.buffers[usize::from(id)];
        let leases = buffer.leases.get() - 1;
        buffer.leases.set(leases);
        if leases == 0 || mutant!("buffer-offered-while-leased") {
            self.give_back_last(id);
        }
    }

    #[inline(never)]
    fn give_back_last(&self, id: u16) {
        self.count_leased(-1);
        let buffer = &self.buffers[usize::from(id)];
        // SAFETY: one thread; the reference ends with the statement.
        if buffer.offered.get() && unsafe { &*self.ring.get() }.is_none() {
            // It is the room's, and nobody holds a part of it: it starts again where it is warm.
            buffer.filled.set(0);
        }
        self.offer_if_unused(id);
    }

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

    fn count_leased(&self, by: i32) {
        self.leased.set(self.leased.get().wrapping_add_signed(by));
        self.shared.counters.buffers_in_use.set(u64::from(self.leased.get()));
        self.shared.counters.buffers_high_water.raise_to(u64::from(self.leased.get()));
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
    pool: Rc<Pool>,
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
        self.pool.give_back(self.id);
    }
}
