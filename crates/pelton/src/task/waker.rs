//! The waker: a header's address and its reactor's table of this file's functions.
//!
//! A poll lends its task a waker that counts nothing; only a clone counts. A wake on the owner's own
//! thread is a look at the state and a push to the run queue, without an atomic and without the kernel.
//! From any other thread it takes the way of `remote.rs`.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::header::{Header, HeaderRef, NOTIFIED, ORPHANED};
use super::sync::Ordering;

/// The table of one reactor's wakers: its address says whose waker it is, of which reactor, in one comparison.
///
/// A reactor has it for itself until its core is freed, and so for as long as there is a waker with it. Then the
/// next reactor gets it, so that no more tables are leaked than there were reactors at a time.
pub(super) struct Table(&'static RawWakerVTable);

/// Those that no reactor has. A plain lock, also where loom runs: nothing waits while it is held.
static FREE: Mutex<Vec<&'static RawWakerVTable>> = Mutex::new(Vec::new());

impl Table {
    pub(super) fn new() -> Table {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Table(free.unwrap_or_else(|| {
            Box::leak(Box::new(RawWakerVTable::new(clone, wake, wake_by_ref, drop)))
        }))
    }

    pub(super) fn get(&self) -> &'static RawWakerVTable {
        self.0
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

/// The waker that a poll lends to its task: it owns no reference.
///
/// # Safety
/// It, or a reference to it, is used only while something else keeps the header from being used again.
#[inline]
pub(super) unsafe fn lend(header: HeaderRef) -> ManuallyDrop<Waker> {
    let raw =
        RawWaker::new(header.as_ptr().as_ptr().cast_const().cast(), header.core().table.get());
    // SAFETY: the vtable's functions keep the contract: they are safe on any thread for as long as the
    // header exists, which the caller sees to for this one and a counted reference for its clones. It
    // is never dropped, so the reference that it does not own is never given back.
    ManuallyDrop::new(unsafe { Waker::from_raw(raw) })
}

/// The header behind a waker, if it is one of the reactor that has this table. Valid while the waker is.
#[inline(always)]
pub(super) fn header(waker: &Waker, table: &'static RawWakerVTable) -> Option<HeaderRef> {
    if !ptr::eq(waker.vtable(), table) {
        return None;
    }
    // SAFETY: the table is one reactor's, and `lend` and `clone` pair it with headers of that one only.
    Some(unsafe { from_data(waker.data()) })
}

/// # Safety
/// `data` is the pointer of a waker with our vtable.
#[inline]
unsafe fn from_data(data: *const ()) -> HeaderRef {
    // SAFETY: the pointer was made from a header in `lend`, so it is not null; the header exists while
    // the waker does.
    unsafe { HeaderRef::new(NonNull::new_unchecked(data.cast_mut().cast::<Header>())) }
}

impl HeaderRef {
    /// Any thread that may use the header: the task is polled again after this.
    #[inline]
    pub(super) fn wake(self) {
        let core = self.core();
        if core.is_owner() {
            core.wake_local(self);
        } else {
            self.wake_remote();
        }
    }

    fn wake_remote(self) {
        self.life.used();
        // Release: what this thread did before the wake is for the poll to see, whether it is this
        // wake or an earlier one that leads to it. Acquire: for the link, see `Remote::push`.
        let before = self.word.fetch_or(NOTIFIED, Ordering::AcqRel);
        if before & ORPHANED != 0 {
            return;
        }
        let remote = &self.core().remote;
        if before & NOTIFIED == 0 {
            remote.push(self);
            remote.notify();
        } else {
            remote.notify_owed();
        }
    }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: called through the vtable, on a waker that exists.
    let header = unsafe { from_data(data) };
    header.retain();
    RawWaker::new(data, header.core().table.get())
}

unsafe fn wake(data: *const ()) {
    // SAFETY: called through the vtable; the reference that the waker owns is given back once, last.
    unsafe {
        let header = from_data(data);
        header.wake();
        header.release();
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: called through the vtable, on a waker that exists.
    unsafe { from_data(data) }.wake();
}

unsafe fn drop(data: *const ()) {
    // SAFETY: called through the vtable; the reference that the waker owned is given back once.
    unsafe { from_data(data).release() };
}
