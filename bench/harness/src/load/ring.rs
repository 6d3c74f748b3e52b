//! The client's io_uring: submission, spinning or sleeping waits, and a ring of provided buffers.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{IoUring, squeue};

use crate::error::{During, Result};

/// One completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

pub(crate) struct Ring {
    uring: IoUring,
}

impl Ring {
    pub(crate) fn new(entries: u32, completions: u32) -> Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // Tells in shared memory that completions wait to be run, so that spinning makes no
            // system calls.
            .setup_taskrun_flag()
            .setup_cqsize(completions)
            .setup_clamp()
            .build(entries)
            .during("the load generator needs io_uring (Linux 6.1 or later)")?;
        Ok(Self { uring })
    }

    pub(crate) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Queues an entry, submitting the earlier ones when there is no room.
    ///
    /// # Safety
    ///
    /// What the entry points to stays where it is until the entry's last completion.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> Result<()> {
        // SAFETY: the caller's promise is the one that `push` asks for.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.enter()?;
        }
        Ok(())
    }

    /// Submits what is queued and runs what has completed; no system call when there is neither.
    pub(crate) fn poll(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let submission = self.uring.submission();
        let work = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if work {
            self.enter()?;
        }
        self.take(events);
        Ok(())
    }

    /// The same, but sleeps until `want` completions are there or `limit` has passed.
    pub(crate) fn wait(
        &mut self,
        want: usize,
        limit: Duration,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let limit = Timespec::new().sec(limit.as_secs()).nsec(limit.subsec_nanos());
        let result =
            self.uring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&limit));
        match result {
            Ok(_) => {}
            Err(error) if timed_out(&error) => {}
            Err(error) => return Err(error).during("waiting for answers"),
        }
        self.take(events);
        Ok(())
    }

    fn enter(&mut self) -> Result<()> {
        const GETEVENTS: u32 = 1;
        let queued = self.uring.submission().len() as u32;
        loop {
            // SAFETY: no argument is passed, and all queued entries were vouched for in `push`.
            let result = unsafe {
                self.uring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None)
            };
            match result {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The completion queue is full: what is in it is taken before the next try.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
                Err(error) => return Err(error).during("submitting the load"),
            }
        }
    }

    fn take(&mut self, events: &mut Vec<Event>) {
        events.extend(self.uring.completion().map(|entry| Event {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY))
}

/// A ring of provided buffers. With `keep` every buffer has its own memory; without, all share one,
/// because what lands there is not looked at and one small piece of memory stays in the cache.
pub(crate) struct Pool {
    entries: NonNull<BufRingEntry>,
    count: u16,
    tail: u16,
    size: usize,
    memory: Vec<u8>,
    keep: bool,
}

/// The only group of buffers of a ring.
pub(crate) const GROUP: u16 = 0;

impl Pool {
    /// Registers `count` buffers, a power of two, of `size` bytes.
    pub(crate) fn register(ring: &Ring, count: u16, size: usize, keep: bool) -> Result<Self> {
        let length = usize::from(count) * size_of::<BufRingEntry>();
        // SAFETY: a new anonymous mapping; nothing else is there.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).during("mapping a ring of buffers");
        }
        let entries = NonNull::new(mapping.cast()).expect("a mapping is not at null");
        let memory = vec![0; if keep { usize::from(count) * size } else { size }];
        let mut pool = Self { entries, count, tail: 0, size, memory, keep };
        // SAFETY: the mapping is `count` entries long and is not unmapped before the ring is gone:
        // `Exchange` drops its ring first.
        unsafe {
            ring.uring()
                .submitter()
                .register_buf_ring_with_flags(mapping as u64, count, GROUP, 0)
                .during("registering a ring of buffers")?;
        }
        for id in 0..count {
            pool.give(id);
        }
        pool.publish();
        Ok(pool)
    }

    /// The first `length` bytes of a buffer that the kernel has filled.
    pub(crate) fn bytes(&self, id: u16, length: usize) -> &[u8] {
        let start = if self.keep { usize::from(id) * self.size } else { 0 };
        &self.memory[start..start + length]
    }

    /// Returns a buffer; the kernel sees it after [`Pool::publish`].
    pub(crate) fn give(&mut self, id: u16) {
        let start = if self.keep { usize::from(id) * self.size } else { 0 };
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`. The kernel does not read entries at or after the tail that
        // was published last, and this one is: no more buffers are out than there are entries.
        let entry = unsafe { self.entries.add(at).as_mut() };
        entry.set_addr(self.memory.as_mut_ptr() as u64 + start as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    pub(crate) fn publish(&self) {
        // SAFETY: the tail lies inside the first entry, is aligned, and is written by atomic
        // stores only once the ring is registered.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let length = usize::from(self.count) * size_of::<BufRingEntry>();
        // SAFETY: the mapping is this pool's, of this length, and the ring that used it is gone.
        unsafe { libc::munmap(self.entries.as_ptr().cast(), length) };
    }
}
