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
//! # Who owns the pool
//!
//! The driver, through [`Owner`]. Leases hold no shares in it, which would have to be counted for each of them:
//! where some outlive the driver, it counts the buffers that they hold when it goes, and the last of those frees
//! the pool. No buffer is offered any more then, so that a lease's drop comes to ask on its seldom way.
//!
//! An operation that finds no buffer is parked, not failed; a lease that is dropped makes the driver try
//! it again at its next tick.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::buf::IoBuf;
use crate::memory::Zeroed;
use crate::notify::Shared;
use crate::sys::BufferRing;

pub(crate) struct Buffer {
    start: Cell<NonNull<u8>>,
    /// Where the next bytes go.
    next: Cell<NonNull<u8>>,
    /// Whose it is, which lives as long as there are leases on it.
    pool: Cell<NonNull<Pool>>,
    /// Bytes that can still be given out; none where it is not offered.
    left: Cell<u32>,
    /// Leases on parts of it.
    leases: Cell<u32>,
    id: u16,
    /// With the kernel, or with the room in its place.
    offered: Cell<bool>,
}

pub(crate) struct Pool {
    memory: Zeroed,
    buffer_len: u32,
    /// A buffer of which less is left is given up, so that the next receive is not cut into crumbs.
    least_left: u32,
    buffers: Box<[Buffer]>,
    /// Buffers that are offered.
    offered: Cell<u32>,
    /// Buffers that no kernel took: the room's own free list, last in first out, so that memory which is
    /// warm in the cache is used again first.
    free: UnsafeCell<Vec<NonNull<Buffer>>>,
    /// The kernel's ring of buffers, where the room has one.
    ring: UnsafeCell<Option<BufferRing>>,
    has_ring: Cell<bool>,
    /// Without its owner: buffers on which there are leases still.
    outliving: Cell<u32>,
    shared: Arc<Shared>,
}

impl Buffer {
    /// Where the next bytes go, and how many there is room for.
    #[inline(always)]
    pub(crate) fn rest(&self) -> (*mut u8, u32) {
        (self.next.get().as_ptr(), self.left.get())
    }
}

/// The driver's pool.
pub(crate) struct Owner(NonNull<Pool>);

impl Deref for Owner {
    type Target = Pool;

    #[inline(always)]
    fn deref(&self) -> &Pool {
        // SAFETY: nobody frees a pool that has its owner.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let leased = self.buffers.iter().inspect(|buffer| buffer.offered.set(false));
        let leased = leased.filter(|buffer| buffer.leases.get() > 0).count() as u32;
        self.outliving.set(leased);
        if leased == 0 {
            // SAFETY: from a box, in `Pool::make`; no lease is left, and the owner goes.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl Pool {
    /// Makes a pool. None when there is no memory for it.
    pub(crate) fn make(buffers: u16, buffer_len: u32, shared: Arc<Shared>) -> Option<Owner> {
        let memory = Zeroed::new(usize::from(buffers) * buffer_len as usize, 4096)?;
        shared.counters.buffers_total.set(u64::from(buffers));
        let buffer = |id| Buffer {
            start: Cell::new(NonNull::dangling()),
            next: Cell::new(NonNull::dangling()),
            pool: Cell::new(NonNull::dangling()),
            left: Cell::new(buffer_len),
            leases: Cell::new(0),
            id,
            offered: Cell::new(true),
        };
        let pool = Box::new(Pool {
            memory,
            buffer_len,
            least_left: (buffer_len / 4).max(1),
            buffers: (0..buffers).map(buffer).collect(),
            offered: Cell::new(u32::from(buffers)),
            free: UnsafeCell::new(Vec::with_capacity(buffers.into())),
            ring: UnsafeCell::new(None),
            has_ring: Cell::new(false),
            outliving: Cell::new(0),
            shared,
        });
        let pool = Owner(NonNull::from(Box::leak(pool)));
        for buffer in pool.buffers.iter().rev() {
            buffer.pool.set(pool.0);
            buffer.start.set(pool.address(buffer.id));
            pool.empty(buffer);
            // SAFETY: nobody else knows the pool yet.
            unsafe { &mut *pool.free.get() }.push(NonNull::from(buffer));
        }
        Some(pool)
    }

    /// How many buffers there are.
    pub(crate) fn len(&self) -> u16 {
        self.buffers.len() as u16
    }

    /// Hands all the buffers to the kernel's ring.
    pub(crate) fn attach(&self, ring: BufferRing) {
        for id in 0..self.buffers.len() as u16 {
            // SAFETY: no lease exists yet, so all buffers are the kernel's to fill.
            unsafe { ring.push(self.address(id).as_ptr(), self.buffer_len, id) };
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

    fn address(&self, id: u16) -> NonNull<u8> {
        // SAFETY: `id` is below the number of buffers, so the buffer lies in the block.
        unsafe { self.memory.start().add(usize::from(id) * self.buffer_len as usize) }
    }

    /// For a room without a ring: the buffer to fill next.
    #[inline(always)]
    pub(crate) fn pick(&self) -> Option<&Buffer> {
        // SAFETY: one thread; the reference ends with the statement.
        let buffer = *unsafe { &*self.free.get() }.last()?;
        // SAFETY: the list has buffers of this pool, which live as long as it does and change by cells only.
        Some(unsafe { buffer.as_ref() })
    }

    /// For a room without a ring: `n` bytes, not none, have been written to the buffer that `pick` has
    /// returned, which nobody has been given since.
    #[inline(always)]
    pub(crate) fn commit(&self, buffer: &Buffer, n: u32) -> Lease {
        let lease = self.lend(buffer, n);
        if buffer.left.get() < self.least_left {
            self.give_up(buffer);
        }
        lease
    }

    /// It is the one that `pick` returned: the last one of the list.
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
        buffer.left.set(0);
        self.offered.set(self.offered.get() - 1);
    }

    /// A completion has filled `n` bytes of buffer `id`; with `more` the kernel keeps the rest. None for
    /// a number that is no buffer of this pool, and where there are no bytes.
    #[inline(always)]
    pub(crate) fn received(&self, id: u16, n: u32, more: bool) -> Option<Lease> {
        let buffer = self.buffers.get(usize::from(id))?;
        // Not none, and not more than there is room for.
        if n.wrapping_sub(1) >= buffer.left.get() {
            self.received_nothing(buffer, n, more);
            return None;
        }
        let lease = self.lend(buffer, n);
        if !more {
            self.let_go(buffer);
        }
        Some(lease)
    }

    #[cold]
    #[inline(never)]
    fn received_nothing(&self, buffer: &Buffer, n: u32, more: bool) {
        if n > 0 || !buffer.offered.get() {
            return self.shared.counters.stale.add(1);
        }
        if !more {
            self.let_go(buffer);
        }
        self.offer_if_unused(buffer.id);
    }

    /// Gives out the next `n` bytes of a buffer, which have been written.
    #[inline(always)]
    fn lend(&self, buffer: &Buffer, n: u32) -> Lease {
        let start = buffer.next.get();
        // SAFETY: no more than was left of the buffer.
        buffer.next.set(unsafe { start.add(n as usize) });
        buffer.left.set(buffer.left.get() - n);
        let leases = buffer.leases.get();
        buffer.leases.set(leases + 1);
        if leases == 0 {
            let counters = &self.shared.counters;
            let in_use = counters.buffers_in_use.get() + 1;
            counters.buffers_in_use.set(in_use);
            counters.buffers_high_water.raise_to(in_use);
        }
        let start = if mutant!("piece-forgotten") { self.address(buffer.id) } else { start };
        Lease { start, len: n as usize, buffer: NonNull::from(buffer) }
    }

    /// No lease holds a part of a buffer any more, which is offered.
    #[inline(always)]
    fn unleased(&self, buffer: &Buffer) {
        if self.has_ring.get() {
            // The kernel has it still, and goes on where it is.
        } else {
            // It is the room's: it starts again where it is warm.
            self.empty(buffer);
        }
    }

    /// No lease holds a part of a buffer any more, which is not offered.
    ///
    /// # Safety
    /// The last lease on this buffer has just gone, and neither pool nor buffer is used after this.
    #[cold]
    #[inline(never)]
    unsafe fn came_back(this: NonNull<Pool>, id: u16) {
        // SAFETY: it has an owner, or this buffer's leases as one of those that outlive it.
        let pool = unsafe { this.as_ref() };
        let outliving = pool.outliving.get();
        match outliving {
            0 => pool.offer_if_unused(id),
            // SAFETY: from a box, in `Pool::make`. It has no owner any more, and this was the last buffer that was
            // counted when that went. Nobody makes leases on a pool without an owner.
            1 => drop(unsafe { Box::from_raw(this.as_ptr()) }),
            _ => pool.outliving.set(outliving - 1),
        }
    }

    #[inline(always)]
    fn empty(&self, buffer: &Buffer) {
        buffer.next.set(buffer.start.get());
        buffer.left.set(self.buffer_len);
    }

    #[cold]
    #[inline(never)]
    fn offer_if_unused(&self, id: u16) {
        let buffer = &self.buffers[usize::from(id)];
        let held = buffer.leases.get() > 0 && !mutant!("buffer-offered-while-leased");
        if held || buffer.offered.get() {
            return;
        }
        self.empty(buffer);
        buffer.offered.set(true);
        self.offered.set(self.offered.get() + 1);
        // SAFETY: one thread; neither reference is held across user code.
        match unsafe { &*self.ring.get() } {
            Some(ring) => {
                // SAFETY: no lease holds a part of the buffer and the kernel has let go of it, so the
                // whole of it is the kernel's again.
                unsafe { ring.push(self.address(id).as_ptr(), self.buffer_len, id) };
                if mutant!("buffer-given-back-twice") {
                    // SAFETY: a mutant, which is to be found.
                    unsafe { ring.push(self.address(id).as_ptr(), self.buffer_len, id) };
                }
                ring.publish();
            }
            None => {
                // SAFETY: as above. The list has had room for every buffer from the start.
                let free = unsafe { &mut *self.free.get() };
                free.push(NonNull::from(buffer));
                if mutant!("buffer-given-back-twice") {
                    free.push(NonNull::from(buffer));
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
    start: NonNull<u8>,
    len: usize,
    /// Which counts it, and with it the pool.
    buffer: NonNull<Buffer>,
}

impl Lease {
    /// Gives up the first `n` bytes; all of them where there are fewer.
    pub fn advance(&mut self, n: usize) {
        let n = n.min(self.len);
        // SAFETY: `n <= len`, so the new start lies in the lease or at its end.
        self.start = unsafe { self.start.add(n) };
        self.len -= n;
    }

    /// Keeps the first `n` bytes and gives up the rest.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel wrote these bytes and writes to them no more; the pool lives as long as the
        // lease.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and no other lease holds these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
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
        // SAFETY: the buffer is its pool's, which lives as long as there is a lease on it.
        let id = unsafe { self.buffer.as_ref() }.id;
        f.debug_struct("Lease").field("buffer", &id).field("len", &self.len).finish()
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the buffer is its pool's, which lives as long as there is a lease on it.
        let buffer = unsafe { self.buffer.as_ref() };
        let leases = buffer.leases.get() - 1;
        buffer.leases.set(leases);
        if leases > 0 {
            if mutant!("buffer-offered-while-leased") {
                // SAFETY: as above, and so is its pool.
                unsafe { buffer.pool.get().as_ref() }.offer_if_unused(buffer.id);
            }
            return;
        }
        let whole = buffer.pool.get();
        // SAFETY: a pool lives as long as there is a lease on one of its buffers, and this one goes only now.
        let pool = unsafe { whole.as_ref() };
        pool.shared.counters.buffers_in_use.sub(1);
        if buffer.offered.get() {
            return pool.unleased(buffer);
        }
        // SAFETY: it was the last one on this buffer, and this is the end of it.
        unsafe { Pool::came_back(whole, buffer.id) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::counters::Counters;
    use crate::latch::WakeLatch;
    use crate::sys::WakeSource;
    use std::sync::atomic::AtomicBool;

    fn shared() -> Arc<Shared> {
        Arc::new(Shared {
            latch: WakeLatch::new(),
            wake: WakeSource::new(false).expect("a wake source"),
            counters: Counters::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// As a room without a ring receives one byte, in a pool of buffers that one byte fills.
    fn receive(pool: &Pool, byte: u8) -> Lease {
        let buffer = pool.pick().expect("a buffer is free");
        // SAFETY: it is free, and has room for one byte.
        unsafe { buffer.rest().0.write(byte) };
        pool.commit(buffer, 1)
    }

    #[test]
    fn the_last_buffer_on_lease_frees_a_pool_whose_owner_has_gone() {
        let shared = shared();
        let pool = Pool::make(4, 1, shared.clone()).expect("memory for four bytes");
        let leases = [receive(&pool, 1), receive(&pool, 2), receive(&pool, 3)];
        drop(pool);
        for (lease, left) in leases.into_iter().zip([2, 1, 0]) {
            assert_eq!(*lease, [3 - left as u8]);
            // The pool has a share in this, and gives it back when it is freed.
            assert_eq!(Arc::strong_count(&shared), 2);
            drop(lease);
            assert_eq!(shared.counters.buffers_in_use.get(), left);
        }
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn without_leases_a_pool_goes_with_its_owner() {
        let shared = shared();
        let pool = Pool::make(1, 64, shared.clone()).expect("memory for a buffer");
        let lease = receive(&pool, 1);
        drop(lease);
        assert_eq!(Arc::strong_count(&shared), 2);
        drop(pool);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
