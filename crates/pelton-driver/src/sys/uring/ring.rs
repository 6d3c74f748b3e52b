//! The two queues that we share with the kernel.
//!
//! # Who writes what
//! The kernel allocates both queues and the array of submission entries (SQEs), and we map them.
//! Every word in there has one writer:
//!
//! | word                         | writer | read by us with | written by us with |
//! |------------------------------|--------|-----------------|--------------------|
//! | submission tail              | we     | a local copy    | Release            |
//! | submission entries           | we     | –               | plain stores       |
//! | index array (before 6.6)     | we     | –               | once, at creation  |
//! | submission head, flags       | kernel | Acquire, Relaxed| –                  |
//! | completion head              | we     | a local copy    | Release            |
//! | completion tail              | kernel | Acquire         | –                  |
//! | completion entries (CQEs)    | kernel | plain loads     | –                  |
//! | overflow counter             | kernel | Relaxed         | –                  |
//!
//! A submission entry belongs to us from the moment the kernel's head has passed it until we
//! publish a tail beyond it. Nothing polls the queue in the kernel (no SQPOLL), so it reads the
//! tail inside [`Ring::enter`] only: that is where it is published, and between two entries the
//! caller fills as many slots as are free. A completion entry belongs to us from the moment the
//! kernel's tail has passed it until we publish a head beyond it, with [`Ring::publish`] or
//! `enter`. Releasing the head *before* entering matters: `enter` waits for a number of unreleased
//! completions, and would return at once on those already taken.
//!
//! The indices run freely and wrap; an index is masked only to reach memory. How many entries the
//! kernel has yet to take is counted from *its* head and never from what a call returned, so an
//! entry that a short or failed `enter` left behind goes with the next one.
//!
//! # A full completion queue loses nothing
//! The kernel then keeps completions in a list of its own, raises a flag, and moves them over when
//! it is entered. It counts a completion as dropped ([`Ring::cq_dropped`]) only when it has no
//! memory for that list.
//!
//! # One thread
//! The kernel lets only the thread that created the ring enter it (`SINGLE_ISSUER`), and a
//! registered ring is an index into a table of that thread: a ring is neither `Send` nor `Sync`.
//! Every method takes `&self` and leaves no borrow behind, so a completion's handler may submit,
//! reap or enter.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fd::{BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::io_uring::{
    IORING_CQE_BUFFER_SHIFT, IoringAsyncCancelFlags, IoringCqeFlags, IoringEnterFlags,
    IoringRegisterOp, IoringSqFlags, Timespec, io_uring_cqe, io_uring_enter, io_uring_enter_arg,
    io_uring_getevents_arg, io_uring_params, io_uring_ptr, io_uring_rsrc_update, io_uring_sqe,
    io_uring_sync_cancel_reg,
};

use map::{Maps, Word};

use super::super::calls;
use super::super::descriptor::OwnedDescriptor;
use super::bufring::BufRing;
use super::setup::{self, Environment, Features, SetupError};

mod map;
#[cfg(all(test, not(miri)))] // They ask the kernel.
pub(super) mod tests;

/// The sizes of a ring's two queues: powers of two, validated by the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingConfig {
    /// Entries of the submission queue, at most 32768.
    pub(crate) sq_entries: u32,
    /// Entries of the completion queue, at most 65536 and not fewer than submissions.
    pub(crate) cq_entries: u32,
}

/// A completion, copied out of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cqe {
    /// What the submission said.
    pub(crate) user_data: u64,
    /// The result, or a negated errno.
    pub(crate) res: i32,
    /// `IORING_CQE_F_*`.
    pub(crate) flags: u32,
}

impl Cqe {
    /// Whether more completions of the same operation follow.
    #[inline]
    pub(crate) fn more(&self) -> bool {
        self.flags & IoringCqeFlags::MORE.bits() != 0
    }

    /// Whether this says only that the memory of a zero-copy send is free.
    pub(crate) fn is_notice(&self) -> bool {
        self.flags & IoringCqeFlags::NOTIF.bits() != 0
    }

    /// The provided buffer that was filled.
    #[inline]
    pub(crate) fn buffer(&self) -> Option<u16> {
        let used = self.flags & IoringCqeFlags::BUFFER.bits() != 0;
        used.then_some((self.flags >> IORING_CQE_BUFFER_SHIFT) as u16)
    }

    /// Whether the provided buffer has room left, and stays with the kernel.
    #[inline]
    pub(crate) fn buffer_more(&self) -> bool {
        const BUF_MORE: u32 = 1 << 4; // IORING_CQE_F_BUF_MORE, Linux 6.12; rustix has no name for it
        self.flags & BUF_MORE != 0
    }
}

/// Whether an error of [`Ring::enter`] means no more than "reap what there is and enter again".
pub(crate) fn is_transient(errno: Errno) -> bool {
    matches!(errno, Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN)
}

/// An io_uring instance with its queues mapped.
pub(crate) struct Ring {
    sq_head: Word,
    sq_tail: Word,
    sq_flags: Word,
    sqes: NonNull<io_uring_sqe>,
    sq_mask: u32,
    sq_entries: u32,
    /// Where the next entry goes: one place in memory, which costs less to find than its index does. The index is
    /// published as the tail by `enter`.
    sq_next: Cell<*mut io_uring_sqe>,
    /// Where to look again: the end of the entries' memory, or where the queue is full by the kernel's head when it was
    /// last looked at, which may be further, never behind.
    sq_stop: Cell<*mut io_uring_sqe>,
    /// The index of the first entry in memory, in the lap that `sq_next` is in.
    sq_lap: Cell<u32>,

    cq_head: Word,
    cq_tail: Word,
    #[allow(dead_code, reason = "read by `cq_dropped`")]
    cq_dropped: Word,
    cqes: NonNull<io_uring_cqe>,
    cq_mask: u32,
    /// The next completion to take, while there is no [`Batch`]; published as the head by `publish`.
    cq_local_head: Cell<u32>,
    cq_overflows: Cell<u64>,

    /// What `enter` passes as its descriptor: the ring's own, or an index with `REGISTERED_RING`.
    enter_fd: RawFd,
    enter_flags: IoringEnterFlags,
    features: Features,
    /// Held, not used. Fields drop in order: the queues are unmapped before the descriptor is let go.
    _maps: Maps,
    fd: Rc<RingFd>,
}

impl Ring {
    /// Creates a ring that only this thread can use, with every feature that the kernel grants.
    ///
    /// May block for a quarter of a second where memory is short.
    pub(crate) fn create(config: &RingConfig) -> Result<Ring, SetupError> {
        setup::check_kernel(setup::running_kernel())?;
        Ring::create_with(config, setup::kernel_setup)
    }

    /// [`Ring::create`] with the system call passed in, for tests that refuse a flag.
    fn create_with(
        config: &RingConfig,
        setup: impl FnMut(u32, &mut io_uring_params) -> Result<OwnedFd, Errno>,
    ) -> Result<Ring, SetupError> {
        let (fd, params) = setup::negotiate(config, setup, std::thread::sleep)
            .map_err(|errno| setup::explain(errno, config, &Environment::read()))?;
        let maps = Maps::new(&fd, &params)
            .map_err(|(errno, bytes)| setup::explain_mapping(errno, bytes))?;
        Ok(Ring::on(fd.into(), &params, maps))
    }

    /// [`Ring::create`] on this thread's simulated system.
    pub(crate) fn create_simulated(config: &RingConfig) -> Result<Ring, SetupError> {
        let refused = |errno| setup::explain_simulated(errno, config);
        let (fd, params) =
            setup::negotiate(config, calls::ring_setup_simulated, |_| {}).map_err(refused)?;
        let memory = calls::ring_memory_simulated(fd.as_raw()).map_err(refused)?;
        // SAFETY: the simulated kernel says where its memory is, and gives a share in it.
        let maps = unsafe { Maps::borrowed(memory, &params) };
        Ok(Ring::on(fd, &params, maps))
    }

    /// A ring that the kernel has made, with its memory.
    fn on(fd: OwnedDescriptor, params: &io_uring_params, maps: Maps) -> Ring {
        let mut features = Features::granted(params);
        features.ops = probe_ops(&fd);
        let fd = RingFd::new(fd);
        features.registered_ring = fd.registered.is_some();

        if !features.no_sqarray {
            // Entry i is submission i, for ever: the indirection is not used.
            for index in 0..params.sq_entries {
                maps.sq_word(params.sq_off.array + 4 * index).store(index, Ordering::Relaxed);
            }
        }
        let mut enter_flags = IoringEnterFlags::empty();
        enter_flags.set(IoringEnterFlags::REGISTERED_RING, features.registered_ring);
        if features.no_iowait {
            // IORING_ENTER_NO_IOWAIT, Linux 6.15; rustix has no name for it. A reactor that waits
            // for its peers is idle, and should not show up as a processor that waits for a disk.
            enter_flags |= IoringEnterFlags::from_bits_retain(1 << 7);
        }
        let mut ring = Ring {
            sq_head: maps.sq_word(params.sq_off.head),
            sq_tail: maps.sq_word(params.sq_off.tail),
            sq_flags: maps.sq_word(params.sq_off.flags),
            sqes: maps.sqes(),
            sq_mask: params.sq_entries - 1,
            sq_entries: params.sq_entries,
            sq_next: Cell::new(maps.sqes().as_ptr()),
            // So that the first one looks.
            sq_stop: Cell::new(maps.sqes().as_ptr()),
            sq_lap: Cell::new(0),
            cq_head: maps.cq_word(params.cq_off.head),
            cq_tail: maps.cq_word(params.cq_off.tail),
            cq_dropped: maps.cq_word(params.cq_off.overflow),
            cqes: maps.cqes(params),
            cq_mask: params.cq_entries - 1,
            cq_local_head: Cell::new(0),
            cq_overflows: Cell::new(0),
            enter_fd: fd.registered.map_or(fd.fd.as_raw(), |index| index as RawFd),
            enter_flags,
            features,
            _maps: maps,
            fd: Rc::new(fd),
        };
        // Asked for in earnest, with a group that nothing else uses: neither has a feature bit.
        const PROBED_GROUP: u16 = u16::MAX;
        ring.features.pbuf_inc = BufRing::register(&ring, PROBED_GROUP, 1, true).is_ok();
        ring.features.pbuf_ring =
            ring.features.pbuf_inc || BufRing::register(&ring, PROBED_GROUP, 1, false).is_ok();
        ring
    }

    /// True when the kernel is a simulated one.
    pub(crate) fn is_simulated(&self) -> bool {
        self.fd.fd.is_simulated()
    }

    /// What the kernel granted.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// The next free submission entry, staged from now on; `None` when the queue is full, until an
    /// `enter` has made room. What it contains is left over from an earlier submission.
    ///
    /// # Safety
    /// Before the next `enter`, the caller writes all 64 bytes, but for those that it knows. It runs nothing in between that can
    /// unwind or enter, or the kernel executes the leftover. What the entry points at stays valid
    /// until the operation's last completion.
    #[inline]
    pub(crate) unsafe fn sqe(&self) -> Option<*mut io_uring_sqe> {
        if self.sq_next.get() == self.sq_stop.get() {
            self.look_for_room();
        }
        // SAFETY: as the caller says.
        unsafe { self.sqe_seen() }
    }

    /// [`Ring::sqe`], without a look how far the kernel has come. `None` where that might help, too.
    ///
    /// # Safety
    /// As for [`Ring::sqe`].
    #[inline(always)]
    pub(crate) unsafe fn sqe_seen(&self) -> Option<*mut io_uring_sqe> {
        let place = self.sq_next.get();
        if place == self.sq_stop.get() {
            return None;
        }
        // SAFETY: before `sq_stop`, so there is an entry, which lies in the mapping that this ring holds.
        self.sq_next.set(unsafe { place.add(1) });
        Some(place)
    }

    /// Looks how far the kernel has come, and where the next entry is: behind the last one in memory comes the first.
    #[cold]
    #[inline(never)]
    fn look_for_room(&self) {
        let tail = self.sq_tail_here();
        let head = self.sq_head.load(Ordering::Acquire);
        let free = self.sq_entries - tail.wrapping_sub(head);
        if free == 0 {
            return;
        }
        let index = tail & self.sq_mask;
        self.sq_lap.set(tail.wrapping_sub(index));
        // SAFETY: masked, the index is less than the number of entries, and no more than the rest of them is added.
        unsafe {
            let place = self.sqes.as_ptr().add(index as usize);
            self.sq_next.set(place);
            self.sq_stop.set(place.add(free.min(self.sq_entries - index) as usize));
        }
    }

    /// The index of the next entry.
    #[inline]
    fn sq_tail_here(&self) -> u32 {
        // SAFETY: both lie in the entries' memory, or at its end.
        let index = unsafe { self.sq_next.get().offset_from_unsigned(self.sqes.as_ptr()) };
        self.sq_lap.get().wrapping_add(index as u32)
    }

    /// The place of an entry that was staged last, for [`Ring::reclaim`].
    #[inline]
    pub(crate) fn last_staged(&self) -> u32 {
        self.sq_tail_here().wrapping_sub(1)
    }

    /// The entry that was staged at `place`, if the kernel has taken it and it has not been staged again since.
    pub(crate) fn reclaim(&self, place: u32) -> Option<*mut io_uring_sqe> {
        let taken = self.sq_head.load(Ordering::Acquire).wrapping_sub(place) as i32 > 0;
        // SAFETY: as in `sqe`.
        taken.then(|| unsafe { self.sqes.as_ptr().add((place & self.sq_mask) as usize) })
    }

    /// Entries that the kernel has not taken yet.
    #[inline]
    pub(crate) fn staged(&self) -> u32 {
        self.sq_tail_here().wrapping_sub(self.sq_head.load(Ordering::Acquire))
    }

    /// Enters the kernel once: publishes the head and the tail, submits all that is staged, and
    /// waits until `wait` completions are there that were not taken yet, or `timeout` is over
    /// (`None`: no limit). With `getevents`, or a wait, the kernel also processes the completions
    /// that it deferred and moves over those that did not fit.
    ///
    /// Returns how many entries the kernel took; an entry that fails completes with its error. When
    /// it took any, the wait's own end (`ETIME`, `EINTR`) is not reported. When it could not take
    /// all, it does not wait.
    ///
    /// # Errors
    /// See [`is_transient`] for those that are none. `EBADR`: the kernel dropped completions,
    /// counted in [`Ring::cq_dropped`]. In every case what was not taken is still staged.
    #[inline]
    pub(crate) fn enter(
        &self,
        wait: u32,
        timeout: Option<Duration>,
        getevents: bool,
    ) -> Result<u32, Errno> {
        self.enter_waiting(wait, timeout, 0, getevents)
    }

    /// [`Ring::enter`], which waits `min_wait` microseconds for `wait` completions and then for one.
    /// Needs [`Features::min_timeout`]: an older kernel waits for all of them.
    pub(crate) fn enter_min_wait(
        &self,
        wait: u32,
        timeout: Option<Duration>,
        min_wait: u32,
    ) -> Result<u32, Errno> {
        self.enter_waiting(wait, timeout, min_wait, true)
    }

    #[inline(always)]
    fn enter_waiting(
        &self,
        wait: u32,
        timeout: Option<Duration>,
        min_wait: u32,
        getevents: bool,
    ) -> Result<u32, Errno> {
        self.publish();
        let fresh = mutant!("staged-from-our-tail")
            .then(|| self.sq_tail_here().wrapping_sub(self.sq_tail.load(Ordering::Relaxed)));
        self.sq_tail.store(self.sq_tail_here(), Ordering::Release);
        let staged = fresh.unwrap_or_else(|| self.staged());
        let mut flags = self.enter_flags;
        let getevents = getevents || wait > 0;
        flags.set(IoringEnterFlags::GETEVENTS, getevents);
        // SAFETY: with REGISTERED_RING the number is an index into this thread's table of rings,
        // which nothing here treats as a descriptor; without, it is the ring's own, open as long as
        // `self.fd`. It is not -1 in either case.
        let fd = unsafe { BorrowedFd::borrow_raw(self.enter_fd) };

        let raw = self.enter_fd;
        // SAFETY: every staged entry was written by the contract of `sqe`.
        let simulated =
            unsafe { calls::ring_enter_simulated(raw, staged, wait, getevents, timeout, min_wait) };
        let result = if let Some(result) = simulated {
            result
        } else if timeout.is_none() && min_wait == 0 {
            // SAFETY: every staged entry was written by the contract of `sqe`.
            unsafe { io_uring_enter(fd, staged, wait, flags) }
        } else {
            // SAFETY: every staged entry was written by the contract of `sqe`.
            unsafe { enter_bounded(fd, staged, wait, flags, timeout, min_wait) }
        };
        if self.sq_flags.load(Ordering::Relaxed) & IoringSqFlags::CQ_OVERFLOW.bits() != 0 {
            self.cq_overflows.set(self.cq_overflows.get() + 1);
        }
        result
    }

    /// The completions that are there now, to be taken one by one. Nobody enters to wait, and there is no other batch,
    /// until this one is [left](Batch::leave).
    #[inline(always)]
    pub(crate) fn batch(&self) -> Batch<'_> {
        let (head, tail) = (self.cq_local_head.get(), self.cq_tail.load(Ordering::Acquire));
        let mut batch = Batch {
            ring: self,
            next: self.cqes.as_ptr(),
            stop: self.cqes.as_ptr(),
            at: head,
            tail,
        };
        batch.go_on();
        batch
    }

    /// Takes the next completion.
    #[cfg(test)]
    pub(crate) fn next_cqe(&self) -> Option<Cqe> {
        let mut batch = self.batch();
        let cqe = batch.next();
        batch.leave();
        cqe
    }

    /// Gives the entries of the completions taken so far back to the kernel.
    #[inline]
    pub(crate) fn publish(&self) {
        self.cq_head.store(self.cq_local_head.get(), Ordering::Release);
    }

    /// Completions that are in the queue and not taken yet.
    #[inline]
    pub(crate) fn cq_ready(&self) -> u32 {
        self.cq_tail.load(Ordering::Acquire).wrapping_sub(self.cq_local_head.get())
    }

    /// How many times an `enter` returned with more completions than fit into the queue. Nothing
    /// is lost by it, but the kernel allocates for each: the queue is too small.
    pub(crate) fn cq_overflows(&self) -> u64 {
        self.cq_overflows.get()
    }

    /// The kernel's count of completions that are lost, because it had no memory to keep them.
    #[allow(dead_code, reason = "tells a loss from an overflow")]
    pub(crate) fn cq_dropped(&self) -> u32 {
        self.cq_dropped.load(Ordering::Relaxed)
    }

    /// Whether the kernel has completions that only an `enter` with `getevents` brings: deferred
    /// ones (where `TASKRUN_FLAG` was granted), or those that did not fit.
    #[inline]
    pub(crate) fn needs_enter(&self) -> bool {
        const PENDING: u32 = IoringSqFlags::TASKRUN.bits() | IoringSqFlags::CQ_OVERFLOW.bits();
        self.sq_flags.load(Ordering::Relaxed) & PENDING != 0
    }

    /// Asks the kernel to cancel all that it has taken, and returns how many operations it found.
    /// Their completions come through the queue as ever, and only they give the memory back.
    ///
    /// It does not wait: the kernel counts an operation that it can no longer stop, and goes on.
    /// (The call takes a timeout, which the kernel looks at when asked for *one* operation only.)
    ///
    /// # Errors
    /// Those of a kernel that refuses the call.
    #[allow(dead_code, reason = "for a shutdown that has no room to stage a cancel")]
    pub(crate) fn sync_cancel_all(&self) -> Result<u32, Errno> {
        let mut cancel = io_uring_sync_cancel_reg::default();
        cancel.fd = -1;
        cancel.flags = IoringAsyncCancelFlags::ANY | IoringAsyncCancelFlags::ALL;
        cancel.timeout = Timespec { tv_sec: -1, tv_nsec: -1 }; // none
        let arg = ptr::from_mut(&mut cancel).cast();
        // SAFETY: the kernel reads the argument during the call; cancelling frees nothing.
        match unsafe { self.register(IoringRegisterOp::RegisterSyncCancel, arg, 1) } {
            Err(Errno::NOENT) => Ok(0),
            answer => answer,
        }
    }

    /// Calls `io_uring_register` on this ring.
    ///
    /// # Safety
    /// `arg` is what `op` demands, and stays valid for as long as `op` makes the kernel use it.
    pub(crate) unsafe fn register(
        &self,
        op: IoringRegisterOp,
        arg: *mut c_void,
        count: u32,
    ) -> Result<u32, Errno> {
        // SAFETY: the caller vouches for the argument.
        unsafe { self.fd.register(op, arg, count) }
    }

    /// A share in the descriptor, for those who must unregister before it is closed.
    pub(super) fn fd(&self) -> Rc<RingFd> {
        Rc::clone(&self.fd)
    }
}

/// An entry whose wait has a bound, or a least time.
///
/// # Safety
/// Every staged entry was written by the contract of [`Ring::sqe`].
#[inline(never)]
unsafe fn enter_bounded(
    fd: BorrowedFd<'_>,
    staged: u32,
    wait: u32,
    flags: IoringEnterFlags,
    timeout: Option<Duration>,
    min_wait: u32,
) -> Result<u32, Errno> {
    // The kernel adds the clock to the timeout without a look at overflow, and would then return at once. A hundred
    // years are enough.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    // Also where no timeout was asked for: without one the kernel does not wait on for a completion once the minimum
    // is over, and an idle thread would wake each time.
    let timeout = timeout.map_or(LONGEST, |timeout| timeout.min(LONGEST));
    let timeout =
        Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    let arg = io_uring_getevents_arg {
        min_wait_usec: min_wait,
        ts: io_uring_ptr::new(ptr::from_ref(&timeout).cast_mut().cast()),
        ..Default::default()
    };
    // SAFETY: by the caller; the kernel reads the argument and the timeout during the call, both outlive it, and there
    // is no signal mask.
    unsafe { io_uring_enter_arg(fd, staged, wait, flags | IoringEnterFlags::EXT_ARG, Some(&arg)) }
}

/// Completions that are there, which are taken one by one, from a place in memory to the next. Where it was taken to is
/// known to the ring when it is left: whoever makes one sees to that, also where a completion's handler panics.
pub(crate) struct Batch<'a> {
    ring: &'a Ring,
    next: *const io_uring_cqe,
    /// The end of those that lie behind one another.
    stop: *const io_uring_cqe,
    /// The index of what is at `stop`.
    at: u32,
    tail: u32,
}

impl Batch<'_> {
    /// Takes the next completion. Its entry goes back to the kernel when the batch has been left and the ring publishes
    /// its head.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Cqe> {
        if self.next == self.stop && (self.at == self.tail || !self.go_on()) {
            return None;
        }
        // SAFETY: before `stop`, so there is an entry, which lies in the mapping that the ring holds. The kernel wrote it
        // before it moved its tail beyond it, which was read with Acquire, and leaves it alone until our head is
        // published.
        let cqe = unsafe { &*self.next };
        // SAFETY: as above.
        self.next = unsafe { self.next.add(1) };
        Some(Cqe { user_data: cqe.user_data.u64_(), res: cqe.res, flags: cqe.flags.bits() })
    }

    /// Goes to the completions behind `stop`, which begin where the memory does or have not been looked at. False where
    /// there are none.
    #[inline(always)]
    fn go_on(&mut self) -> bool {
        let (index, left) = (self.at & self.ring.cq_mask, self.tail.wrapping_sub(self.at));
        let together = left.min(self.ring.cq_mask + 1 - index);
        self.at = self.at.wrapping_add(together);
        // SAFETY: masked, the index is less than the number of entries, and no more than the rest of them is added.
        unsafe {
            self.next = self.ring.cqes.as_ptr().add(index as usize);
            self.stop = self.next.add(together as usize);
        }
        together > 0
    }

    /// Tells the ring how far its completions were taken, and says how many they were.
    #[inline(always)]
    pub(crate) fn leave(&self) -> u32 {
        // SAFETY: both are in the entries' memory, or at its end, and `next` is not behind `stop`.
        let left = unsafe { self.stop.offset_from_unsigned(self.next) };
        let head = self.at.wrapping_sub(left as u32);
        head.wrapping_sub(self.ring.cq_local_head.replace(head))
    }
}

/// The descriptor of a ring and its place in this thread's table of registered rings.
///
/// It is shared with what is registered at the ring ([`BufRing`]), because a number that was closed
/// may by then belong to somebody else's file.
pub(super) struct RingFd {
    fd: OwnedDescriptor,
    registered: Option<u32>,
}

impl RingFd {
    /// Registers the ring, which saves a look-up and a reference count per `enter`. The kernel may
    /// refuse (the table of a thread has 16 places): then the descriptor is used, and nobody minds.
    fn new(fd: OwnedDescriptor) -> RingFd {
        let mut ring = RingFd { fd, registered: None };
        if ring.fd.is_simulated() {
            // There an enter knows a ring by its own number alone.
            return ring;
        }
        let mut update = io_uring_rsrc_update::default();
        update.offset = u32::MAX; // any free place; the kernel writes back which one
        update.data = io_uring_ptr::new(ptr::without_provenance_mut(ring.fd.as_raw() as usize));
        let arg = ptr::from_mut(&mut update).cast();
        // SAFETY: `arg` points to one update, mutable and alive during the call.
        if unsafe { ring.register(IoringRegisterOp::RegisterRingFds, arg, 1) } == Ok(1) {
            ring.registered = Some(update.offset);
        }
        ring
    }

    /// # Safety
    /// That of [`Ring::register`].
    pub(super) unsafe fn register(
        &self,
        op: IoringRegisterOp,
        arg: *mut c_void,
        count: u32,
    ) -> Result<u32, Errno> {
        // SAFETY: the caller vouches for the argument.
        unsafe { calls::ring_register(self.fd.as_raw(), op, arg, count) }
    }
}

impl Drop for RingFd {
    fn drop(&mut self) {
        // A registered ring is a reference that closing does not give up: the ring would live on
        // until the thread ends. This is that thread, since a ring is not `Send`.
        if let Some(index) = self.registered {
            let mut update = io_uring_rsrc_update::default();
            update.offset = index;
            let arg = ptr::from_mut(&mut update).cast();
            // SAFETY: `arg` points to one update, alive during the call. The answer does not
            // matter: a place that is already empty is what we want.
            let _ = unsafe { self.register(IoringRegisterOp::UnregisterRingFds, arg, 1) };
        }
    }
}

/// Asks which operations the kernel knows, one bit for each code; none where it does not tell.
fn probe_ops(fd: &OwnedDescriptor) -> [u64; 4] {
    // `struct io_uring_probe` by hand, since the kernel may report operations that are not in the
    // enum: 16 bytes of head, of which the second is the length, then 8 bytes for each code, with
    // the flags in the third and fourth.
    const CODES: usize = 256;
    const SUPPORTED: u64 = 1;
    let mut probe = [0_u64; 2 + CODES];
    let arg = probe.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most the 256 entries for which there is room, during the call.
    let answer = unsafe {
        calls::ring_register(fd.as_raw(), IoringRegisterOp::RegisterProbe, arg, CODES as u32)
    };
    let mut ops = [0; 4];
    if answer.is_ok() {
        let known = usize::from(probe[0].to_ne_bytes()[1]);
        for (code, entry) in probe[2..].iter().take(known).enumerate() {
            let bytes = entry.to_ne_bytes();
            let flags = u64::from(u16::from_ne_bytes([bytes[2], bytes[3]]));
            ops[code / 64] |= (flags & SUPPORTED) << (code % 64);
        }
    }
    ops
}
