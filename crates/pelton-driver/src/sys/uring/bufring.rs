//! The ring in which buffers are provided to the kernel.
//!
//! A receive that names a *group* instead of a buffer takes the buffer at the head of the group's
//! ring when there is something to receive, and its completion says which one it was. An idle
//! connection so holds no memory.
//!
//! The ring is an array of {address, length, id} in memory that is ours and that the kernel pins
//! when it is registered. We are the only writer: of the entries between the kernel's head, which
//! we do not see, and the tail; and of the tail itself, which lies in the unused last word of entry
//! zero (so an entry is written field by field, never whole). The kernel reads up to the tail, on
//! this thread inside `enter` or on a worker of its own, which is why the tail is stored with
//! Release.
//!
//! A buffer pushed into the ring belongs to the kernel until a completion hands it back. There are
//! never more of them than entries, or a buffer that waits would be overwritten and forgotten: the
//! caller has at most `entries` buffers in the group.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, io_uring_buf, io_uring_buf_reg, io_uring_ptr};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::ring::{Ring, RingFd};

/// A registered ring of provided buffers. Dropping it takes it back from the kernel.
pub(crate) struct BufRing {
    memory: NonNull<io_uring_buf>,
    entries: u16,
    group: u16,
    /// Where the next buffer goes; published by `publish`.
    tail: Cell<u16>,
    /// Keeps the number from being closed, and given to another file, before we unregister.
    fd: Rc<RingFd>,
}

impl BufRing {
    /// Registers an empty ring for `group` with a power of two of entries, at most 32768. In an
    /// *incremental* one (6.12) a receive takes no more of a buffer than it fills, and the rest
    /// stays at the head.
    ///
    /// # Errors
    /// `EINVAL`: a number of entries that is no power of two or too large, or a kernel without
    /// incremental rings. `EEXIST`: the group has a ring. `ENOMEM`: no memory, or none that may be
    /// locked.
    pub(crate) fn register(
        ring: &Ring,
        group: u16,
        entries: u16,
        incremental: bool,
    ) -> Result<BufRing, Errno> {
        const INCREMENTAL: u16 = 2; // IOU_PBUF_RING_INC, Linux 6.12; rustix has no name for it
        if !entries.is_power_of_two() {
            return Err(Errno::INVAL);
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: fresh memory, at an address that the kernel picks.
        let memory = unsafe {
            let len = BufRing::bytes(entries);
            mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE)?
        };
        let memory = NonNull::new(memory).ok_or(Errno::NOMEM)?;
        let mut registration = io_uring_buf_reg::default();
        registration.ring_addr = io_uring_ptr::new(memory.as_ptr());
        registration.ring_entries = entries.into();
        registration.bgid = group;
        registration.flags = if incremental { INCREMENTAL } else { 0 };
        let arg = ptr::from_mut(&mut registration).cast();
        // SAFETY: the argument is read during the call. The memory it names is page-aligned, large
        // enough for `entries`, zeroed (its tail is zero: no buffer), and unmapped only below, when
        // the registration failed, or by `drop`, after it has ended.
        let answer = unsafe { ring.register(IoringRegisterOp::RegisterPbufRing, arg, 1) };
        if let Err(errno) = answer {
            // SAFETY: mapped above; the kernel refused it and holds nothing of it.
            let _ = unsafe { munmap(memory.as_ptr(), BufRing::bytes(entries)) };
            return Err(errno);
        }
        let (memory, fd, tail) = (memory.cast(), ring.fd(), Cell::new(0));
        Ok(BufRing { memory, entries, group, tail, fd })
    }

    /// Puts a buffer behind those that wait. The kernel sees it after [`BufRing::publish`].
    ///
    /// # Safety
    /// `len` bytes at `addr` are writable, and nobody reads or writes them until a completion
    /// reports buffer `bid` (without "more to come"), or this ring and every operation that names
    /// its group are gone. Fewer than `entries` buffers wait in the ring.
    #[inline]
    pub(crate) unsafe fn push(&self, addr: *mut u8, len: u32, bid: u16) {
        let tail = self.tail.get();
        let index = tail & (self.entries - 1);
        // SAFETY: masked, the index is less than `entries`, for which there is memory until `drop`.
        // The kernel does not look at this entry: it lies behind the published tail, and by the
        // caller's word its last buffer was consumed. The last field is left alone, since in entry
        // zero it is the tail, which the kernel may be reading.
        unsafe {
            let entry = self.memory.as_ptr().add(index.into());
            (&raw mut (*entry).addr).write(io_uring_ptr::new(addr.cast::<c_void>()));
            (&raw mut (*entry).len).write(len);
            (&raw mut (*entry).bid).write(bid);
        }
        self.tail.set(tail.wrapping_add(1));
    }

    /// Shows the kernel the buffers pushed since the last time.
    #[inline]
    pub(crate) fn publish(&self) {
        // SAFETY: the tail is the last field of entry zero, aligned for a `u16`, in memory that
        // lives until `drop`. We and the kernel access it atomically only.
        let tail = unsafe { AtomicU16::from_ptr(&raw mut (*self.memory.as_ptr()).resv) };
        tail.store(self.tail.get(), Ordering::Release);
    }

    fn bytes(entries: u16) -> usize {
        usize::from(entries) * size_of::<io_uring_buf>()
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        let mut registration = io_uring_buf_reg::default();
        registration.bgid = self.group;
        let arg = ptr::from_mut(&mut registration).cast();
        // SAFETY: the argument is read during the call. `self.fd` is this ring's descriptor, still
        // open. The answer does not matter: see below.
        let _ = unsafe { self.fd.register(IoringRegisterOp::UnregisterPbufRing, arg, 1) };
        // SAFETY: mapped by `register` with this length, and no pointer into it leaves this module.
        // The kernel reads the entries through its own pins on the pages, never through this
        // address, and drops them with the registration (or, had that call failed, with the ring):
        // it never finds the address empty or used for something else.
        let _ = unsafe { munmap(self.memory.cast().as_ptr(), BufRing::bytes(self.entries)) };
    }
}

#[cfg(all(test, not(miri)))] // They ask the kernel.
mod tests {
    use std::time::Duration;

    use rustix::fd::{AsRawFd, OwnedFd};
    use rustix::io_uring::{IoringOp, IoringSqeFlags};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::super::ring::Cqe;
    use super::super::ring::tests::{entry, ring_or_skip, stage};
    use super::*;

    const GROUP: u16 = 0;

    fn sockets() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn receive(ring: &Ring, from: &OwnedFd) -> Cqe {
        let mut recv = entry(IoringOp::Recv, 1);
        recv.fd = from.as_raw_fd();
        recv.flags = IoringSqeFlags::BUFFER_SELECT;
        recv.buf.buf_group = GROUP;
        stage(ring, recv);
        ring.enter(1, Some(Duration::from_secs(10)), true).unwrap();
        ring.next_cqe().expect("a completion")
    }

    /// Room for four buffers of eight bytes each.
    struct Pool {
        bytes: Box<[[Cell<u8>; 8]; 4]>,
    }

    impl Pool {
        fn new() -> Pool {
            Pool { bytes: Box::default() }
        }

        fn push(&self, to: &BufRing, id: u16) {
            let buffer = &self.bytes[usize::from(id)];
            // SAFETY: cells may be written through a shared reference. A test declares its pool
            // before its ring, so that it outlives every operation, and reads a buffer after the
            // completion only.
            unsafe { to.push(buffer.as_ptr().cast_mut().cast(), 8, id) };
        }

        fn text(&self, id: u16) -> Vec<u8> {
            self.bytes[usize::from(id)].iter().map(Cell::get).collect()
        }
    }

    #[test]
    fn a_receive_takes_the_oldest_buffer_and_says_which() {
        let pool = Pool::new();
        let Some(ring) = ring_or_skip(4, 8) else { return };
        let buffers = BufRing::register(&ring, GROUP, 4, false).unwrap();
        let (a, b) = sockets();
        for id in [2, 0, 3] {
            pool.push(&buffers, id);
        }
        buffers.publish();
        for (id, text) in [(2, b"second.."), (0, b"zeroth.."), (3, b"third...")] {
            rustix::io::write(&a, text).unwrap();
            let cqe = receive(&ring, &b);
            assert_eq!((cqe.res, cqe.buffer(), cqe.buffer_more()), (8, Some(id), false));
            assert_eq!(pool.text(id), text);
        }
        rustix::io::write(&a, b"x").unwrap();
        assert_eq!(receive(&ring, &b).res, -Errno::NOBUFS.raw_os_error(), "the ring is empty");
    }

    #[test]
    fn a_buffer_is_not_seen_before_it_is_published() {
        let pool = Pool::new();
        let Some(ring) = ring_or_skip(4, 8) else { return };
        let buffers = BufRing::register(&ring, GROUP, 4, false).unwrap();
        let (a, b) = sockets();
        rustix::io::write(&a, b"x").unwrap();
        pool.push(&buffers, 1);
        assert_eq!(receive(&ring, &b).res, -Errno::NOBUFS.raw_os_error());
        buffers.publish();
        assert_eq!(receive(&ring, &b).buffer(), Some(1));
    }

    #[test]
    fn a_ring_of_one_entry_serves_more_buffers_than_a_tail_can_count() {
        let pool = Pool::new();
        let Some(ring) = ring_or_skip(4, 8) else { return };
        let buffers = BufRing::register(&ring, GROUP, 1, false).unwrap();
        let (a, b) = sockets();
        for round in 0..u32::from(u16::MAX) + 10 {
            pool.push(&buffers, (round % 4) as u16);
            buffers.publish();
            rustix::io::write(&a, &round.to_ne_bytes()).unwrap();
            let cqe = receive(&ring, &b);
            assert_eq!((cqe.res, cqe.buffer()), (4, Some((round % 4) as u16)));
            assert_eq!(pool.text((round % 4) as u16)[..4], round.to_ne_bytes());
        }
    }

    #[test]
    fn an_incremental_buffer_stays_at_the_head_until_it_is_full() {
        let pool = Pool::new();
        let Some(ring) = ring_or_skip(4, 8) else { return };
        if !ring.features().pbuf_inc {
            assert_eq!(BufRing::register(&ring, GROUP, 4, true).err(), Some(Errno::INVAL));
            return;
        }
        let buffers = BufRing::register(&ring, GROUP, 4, true).unwrap();
        let (a, b) = sockets();
        pool.push(&buffers, 1);
        buffers.publish();
        for (text, more) in [("abc", true), ("def", true), ("gh", false)] {
            rustix::io::write(&a, text.as_bytes()).unwrap();
            let cqe = receive(&ring, &b);
            assert_eq!((cqe.res as usize, cqe.buffer()), (text.len(), Some(1)));
            assert_eq!(cqe.buffer_more(), more, "after {text:?}");
        }
        assert_eq!(pool.text(1), b"abcdefgh");
    }

    #[test]
    fn a_receive_that_a_full_queue_ends_leaves_its_half_full_buffer_at_the_head() {
        use super::super::entry::{Sqe, recv_pooled};
        const RECEIVES: usize = 24;
        let space: Box<[Cell<u8>; 2048]> = Box::new([const { Cell::new(0) }; 2048]);
        // Room for eight completions: those that come next end their receives.
        let Some(ring) = ring_or_skip(4, 8) else { return };
        if !ring.features().pbuf_inc {
            return;
        }
        let buffers = BufRing::register(&ring, GROUP, 1, true).unwrap();
        // SAFETY: cells may be written through a shared reference, and the space outlives the ring.
        unsafe { buffers.push(space.as_ptr().cast_mut().cast(), 2048, 7) };
        buffers.publish();
        let pairs: Vec<_> = (0..RECEIVES).map(|_| sockets()).collect();
        for (n, (_, to)) in pairs.iter().enumerate() {
            let sqe: Sqe = recv_pooled(to.as_raw_fd(), true, n as u64).into();
            // SAFETY: written whole at once, and it points at nothing.
            unsafe { ring.sqe().expect("room in the queue").cast::<Sqe>().write(sqe) };
            ring.enter(0, None, false).unwrap();
        }
        for (from, _) in &pairs {
            rustix::io::write(from, b"abc").unwrap();
        }
        let (mut received, mut half_full) = (0, 0);
        while received < RECEIVES {
            ring.enter(1, Some(Duration::from_secs(10)), true).unwrap();
            while let Some(cqe) = ring.next_cqe() {
                assert_eq!((cqe.res, cqe.buffer(), cqe.buffer_more()), (3, Some(7), true));
                half_full += usize::from(!cqe.more());
                received += 1;
            }
        }
        assert!(half_full > 0, "the queue was never too full to go on");
        // Not one byte was skipped, and the next receive goes on behind the last.
        let (from, to) = sockets();
        rustix::io::write(&from, b"xyz").unwrap();
        let cqe = receive(&ring, &to);
        assert_eq!((cqe.res, cqe.buffer(), cqe.buffer_more()), (3, Some(7), true));
        let bytes: Vec<u8> = space.iter().map(Cell::get).collect();
        assert!(bytes.starts_with(&[&b"abc".repeat(RECEIVES)[..], b"xyz"].concat()));
        assert_eq!(bytes[3 * RECEIVES + 3..], [0; 2048 - 3 * RECEIVES - 3]);
    }

    #[test]
    fn a_dropped_ring_frees_its_group() {
        let Some(ring) = ring_or_skip(4, 8) else { return };
        for _ in 0..3 {
            let first = BufRing::register(&ring, GROUP, 8, false).unwrap();
            assert_eq!(BufRing::register(&ring, GROUP, 8, false).err(), Some(Errno::EXIST));
            drop(first);
        }
    }

    #[test]
    fn sizes_that_no_kernel_takes_are_refused() {
        let Some(ring) = ring_or_skip(4, 8) else { return };
        for entries in [0, 3, u16::MAX] {
            assert_eq!(BufRing::register(&ring, GROUP, entries, false).err(), Some(Errno::INVAL));
        }
        assert!(BufRing::register(&ring, GROUP, 32768, false).is_ok());
    }

    #[test]
    fn a_buffer_ring_that_outlives_its_ring_unregisters_from_the_right_descriptor() {
        let Some(ring) = ring_or_skip(4, 8) else { return };
        let buffers = BufRing::register(&ring, GROUP, 4, false).unwrap();
        drop(ring);
        // If the descriptor were closed, this ring had its number, and lost its group below.
        let other = ring_or_skip(4, 8).unwrap();
        let others = BufRing::register(&other, GROUP, 4, false).unwrap();
        drop(buffers);
        assert_eq!(BufRing::register(&other, GROUP, 4, false).err(), Some(Errno::EXIST));
        drop(others);
    }
}
