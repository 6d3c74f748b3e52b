//! The run queue: first in, first out, linked through the headers. Owner's thread only.

use std::cell::Cell;

use super::header::HeaderRef;

/// Whoever pushes has set `QUEUED`, whoever pops clears it: a header is in the queue at most once.
pub(super) struct RunQueue {
    head: Cell<Option<HeaderRef>>,
    tail: Cell<Option<HeaderRef>>,
    len: Cell<usize>,
}

impl RunQueue {
    pub(super) fn new() -> RunQueue {
        RunQueue { head: Cell::new(None), tail: Cell::new(None), len: Cell::new(0) }
    }

    #[inline]
    pub(super) fn push(&self, header: HeaderRef) {
        header.next.set(None);
        match self.tail.replace(Some(header)) {
            Some(tail) => tail.next.set(Some(header)),
            None => self.head.set(Some(header)),
        }
        self.len.set(self.len.get() + 1);
    }

    #[inline]
    pub(super) fn pop(&self) -> Option<HeaderRef> {
        let header = self.head.get()?;
        let next = header.next.get();
        self.head.set(next);
        if next.is_none() {
            self.tail.set(None);
        }
        self.len.set(self.len.get() - 1);
        Some(header)
    }

    /// Links in the queue; some may be of tasks that have ended since.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }
}
