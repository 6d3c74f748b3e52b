//! Wakes from other threads: a stack that any thread pushes headers onto and the owner empties.
//!
//! The `NOTIFIED` bit of a header's word is the ticket. The thread whose read-modify-write sets it
//! pushes the header, so a header is on the stack at most once and its link has one writer. The owner
//! takes the whole stack with one swap, turns it around so that the first wake comes first, and for each
//! header reads the link, *then* clears the bit, *then* queues the task. A waker that comes before the
//! clear finds the bit set and leaves: its writes are ordered before the clear, and so before the poll.
//! One that comes after sets the bit anew and pushes again. Nothing is lost and nothing allocates.
//!
//! The push comes before the notification, so whatever the notification does, the header is on the stack
//! and the next drain finds it. A notification that fails is owed: the next wake of any task, even of one
//! that is on the stack already, pays.

use std::io;
use std::ptr::{self, NonNull};

use pelton_driver::Notifier;

use super::header::{Header, HeaderRef, NOTIFIED};
use super::sync::{AtomicBool, AtomicPtr, Ordering};

/// Brings the owner's thread back from its wait, so that it drains.
pub(crate) trait Notify: Send + Sync + 'static {
    /// Called after a push, from any thread, often more than once between two drains.
    fn notify(&self) -> io::Result<()>;
}

impl Notify for Notifier {
    #[inline]
    fn notify(&self) -> io::Result<()> {
        Notifier::notify(self)
    }
}

/// See the file's documentation.
pub(super) struct Remote {
    head: AtomicPtr<Header>,
    owed: AtomicBool,
    notifier: Box<dyn Notify>,
}

impl Remote {
    pub(super) fn new(notifier: Box<dyn Notify>) -> Remote {
        Remote { head: AtomicPtr::new(ptr::null_mut()), owed: AtomicBool::new(false), notifier }
    }

    /// Any thread that set `NOTIFIED` on `header` and found it clear.
    pub(super) fn push(&self, header: HeaderRef) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the link is ours from the moment we set the bit until the exchange succeeds. What
            // the last user of the link did is ordered before, by its clearing of the bit.
            unsafe { header.remote_next.set(NonNull::new(head)) };
            // Release: the link, and all that the waking thread did, is there for whoever takes it.
            match self.head.compare_exchange_weak(
                head,
                header.as_ptr().as_ptr(),
                if mutant!("push-relaxed") { Ordering::Relaxed } else { Ordering::Release },
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Any thread, after its push.
    pub(super) fn notify(&self) {
        if self.notifier.notify().is_err() && !mutant!("debt-forgotten") {
            self.owed.store(true, Ordering::Release);
        }
    }

    /// Any thread that found its header on the stack: makes up for a notification that failed.
    pub(super) fn notify_owed(&self) {
        if self.owed.load(Ordering::Relaxed) && self.owed.swap(false, Ordering::AcqRel) {
            self.notify();
        }
    }

    /// Owner's thread: hands every header on the stack to `wake`, first pushed first.
    #[inline]
    pub(super) fn drain(&self, wake: impl FnMut(HeaderRef)) -> usize {
        // Missing a push here that has not been notified yet is no loss: its notification follows.
        if self.head.load(Ordering::Relaxed).is_null() {
            return 0;
        }
        self.drain_all(wake)
    }

    #[inline(never)]
    fn drain_all(&self, mut wake: impl FnMut(HeaderRef)) -> usize {
        // Acquire: the links, and what the waking threads did before. Later pushes found a stack whose
        // earlier ones they did not touch, so this swap synchronises with every one of them.
        let mut stack = NonNull::new(self.head.swap(ptr::null_mut(), Ordering::AcqRel));
        let mut first = None;
        while let Some(pointer) = stack {
            // SAFETY: what is on the stack has `NOTIFIED` set, and so is not used again or freed; the link
            // belongs to the thread that took the stack, which is this one.
            unsafe {
                let header = HeaderRef::new(pointer);
                stack = header.remote_next.get();
                header.remote_next.set(first);
            }
            first = Some(pointer);
        }
        let mut count = 0;
        while let Some(pointer) = first {
            // SAFETY: as above.
            let header = unsafe { HeaderRef::new(pointer) };
            // SAFETY: as above. The next instruction may give the link away, so it is read before.
            first = unsafe { header.remote_next.get() };
            // A plain store here would let a wake that comes at the same time be lost: see above.
            if mutant!("compio-948") {
                let word = header.word.load(Ordering::Acquire);
                header.word.store(word & !NOTIFIED, Ordering::Release);
            } else {
                header.word.fetch_and(!NOTIFIED, Ordering::AcqRel);
            }
            wake(header);
            count += 1;
        }
        count
    }
}
