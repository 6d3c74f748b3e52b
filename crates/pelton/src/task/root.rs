//! The root: the future of a `block_on`, which the loop owns and polls itself.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::task::Waker;

use super::Tasks;
use super::header::{DEAD, HeaderRef, QUEUED};

/// Stands for a future that the loop polls itself. It has a header of its own, so that its waker and
/// its tokens are those of any task; a wake sets a flag instead of queueing.
pub(crate) struct RootTask<'t> {
    header: HeaderRef,
    waker: ManuallyDrop<Waker>,
    /// The reactor cannot end while the root exists.
    _tasks: PhantomData<&'t Tasks>,
}

impl<'t> RootTask<'t> {
    /// `header` is a fresh one of these tasks, in the state of a root.
    pub(super) fn new(header: HeaderRef, _tasks: &'t Tasks) -> RootTask<'t> {
        // SAFETY: the waker lives in the root, and `ROOT` keeps the header until the root is dropped.
        let waker = unsafe { super::waker::lend(header) };
        RootTask { header, waker, _tasks: PhantomData }
    }

    /// The waker to poll the root's future with.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// True if the root was woken since the last call, or this is the first: poll it.
    #[inline]
    pub(crate) fn take_notified(&self) -> bool {
        let notified = self.header.has(QUEUED);
        self.header.clear(QUEUED);
        notified
    }

    /// Looks without taking: true if the loop must not sleep.
    #[inline]
    pub(crate) fn is_notified(&self) -> bool {
        self.header.has(QUEUED)
    }
}

impl Drop for RootTask<'_> {
    fn drop(&mut self) {
        // `QUEUED` was the flag and no link, so nothing claims the header but wakers.
        self.header.state.set(DEAD);
        self.header.settle();
    }
}
