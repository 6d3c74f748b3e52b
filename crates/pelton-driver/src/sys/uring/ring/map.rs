//! The memory that a ring shares with the kernel: three mappings, or two, and the words in them.

use std::any::Any;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::io_uring::{
    IORING_OFF_CQ_RING, IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringFeatureFlags, io_uring_cqe,
    io_uring_params, io_uring_sqe,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The mappings of a ring. Whatever points into them is dropped before they are, or with them.
pub(super) struct Maps {
    /// The submission queue; with `SINGLE_MMAP` (5.4) the completion queue as well.
    sq: Map,
    cq: Option<Map>,
    sqes: Map,
    /// What keeps memory that was not mapped.
    _lent: Option<Rc<dyn Any>>,
}

impl Maps {
    /// On failure also says how many bytes were wanted.
    pub(super) fn new(fd: &OwnedFd, params: &io_uring_params) -> Result<Maps, (Errno, usize)> {
        let (sq_len, cq_len, sqes_len) = lengths(params);
        let map = |offset, len| Map::new(fd, offset, len).map_err(|errno| (errno, len));

        let single = params.features.contains(IoringFeatureFlags::SINGLE_MMAP);
        let sq = map(IORING_OFF_SQ_RING, if single { sq_len.max(cq_len) } else { sq_len })?;
        let cq = if single { None } else { Some(map(IORING_OFF_CQ_RING, cq_len)?) };
        let sqes = map(IORING_OFF_SQES, sqes_len)?;
        Ok(Maps { sq, cq, sqes, _lent: None })
    }

    /// The memory of a simulated ring, which has a single mapping: that of both queues, and that of the
    /// entries.
    ///
    /// # Safety
    /// Both are as large as the parameters say, and valid as long as there is that share in them.
    pub(super) unsafe fn borrowed(
        (queues, sqes, share): (*mut u8, *mut u8, Rc<dyn Any>),
        params: &io_uring_params,
    ) -> Maps {
        let (sq_len, cq_len, sqes_len) = lengths(params);
        let borrowed = |start: *mut u8, len| Map {
            start: NonNull::new(start.cast()).expect("the memory of a ring is somewhere"),
            len,
            owned: false,
        };
        let (sq, sqes) = (borrowed(queues, sq_len.max(cq_len)), borrowed(sqes, sqes_len));
        Maps { sq, cq: None, sqes, _lent: Some(share) }
    }

    /// A word of the submission queue, at an offset that the kernel gave.
    pub(super) fn sq_word(&self, offset: u32) -> Word {
        Word(self.sq.at(offset as usize, size_of::<u32>()).cast())
    }

    /// A word of the completion queue, at an offset that the kernel gave.
    pub(super) fn cq_word(&self, offset: u32) -> Word {
        Word(self.cq().at(offset as usize, size_of::<u32>()).cast())
    }

    /// The submission entries.
    pub(super) fn sqes(&self) -> NonNull<io_uring_sqe> {
        self.sqes.at(0, self.sqes.len).cast()
    }

    /// The completion entries.
    pub(super) fn cqes(&self, params: &io_uring_params) -> NonNull<io_uring_cqe> {
        let len = params.cq_entries as usize * size_of::<io_uring_cqe>();
        self.cq().at(params.cq_off.cqes as usize, len).cast()
    }

    fn cq(&self) -> &Map {
        self.cq.as_ref().unwrap_or(&self.sq)
    }
}

/// The bytes of the submission queue, of the completion queue, and of the submission entries.
fn lengths(params: &io_uring_params) -> (usize, usize, usize) {
    // The index array is last. Where there is none (NO_SQARRAY) the figure means nothing, and
    // does not matter: that kernel has a single mapping, which the completions end.
    let sq_len = params.sq_off.array as usize + 4 * params.sq_entries as usize;
    let cq_len =
        params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<io_uring_cqe>();
    (sq_len, cq_len, params.sq_entries as usize * size_of::<io_uring_sqe>())
}

/// A piece of a ring's memory, unmapped on drop where it was mapped.
struct Map {
    start: NonNull<c_void>,
    len: usize,
    owned: bool,
}

impl Map {
    fn new(fd: &OwnedFd, offset: u64, len: usize) -> Result<Map, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel picks an address that nothing else uses. The memory is shared with the
        // kernel alone: nobody else has this descriptor.
        let start = unsafe {
            let flags = MapFlags::SHARED | MapFlags::POPULATE;
            mmap(ptr::null_mut(), len, access, flags, fd, offset)?
        };
        Ok(Map { start: NonNull::new(start).ok_or(Errno::NOMEM)?, len, owned: true })
    }

    /// The address of `len` bytes at `offset`, of which the first is aligned for a word.
    fn at(&self, offset: usize, len: usize) -> NonNull<c_void> {
        assert!(offset.is_multiple_of(4) && offset + len <= self.len, "outside of the ring");
        // SAFETY: inside the mapping, as asserted.
        unsafe { self.start.byte_add(offset) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        // SAFETY: mapped by `Map::new` with this length. The pointers into it are fields of the
        // `Ring` that is being dropped. It cannot fail with arguments that `mmap` returned.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

/// A word of the shared memory.
#[derive(Clone, Copy)]
pub(super) struct Word(NonNull<AtomicU32>);

impl Word {
    #[inline]
    pub(super) fn load(self, ordering: Ordering) -> u32 {
        // SAFETY: made by `Maps` inside a mapping, which the owner of this word, a `Ring`, holds for
        // as long as it lives. The kernel accesses the word atomically, as we do.
        unsafe { self.0.as_ref() }.load(ordering)
    }

    #[inline]
    pub(super) fn store(self, value: u32, ordering: Ordering) {
        // SAFETY: as in `load`.
        unsafe { self.0.as_ref() }.store(value, ordering);
    }
}
