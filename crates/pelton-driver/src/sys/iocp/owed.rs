//! Accepts that have ended and of which no packet tells: the driver finds them at its next tick, whatever that is for.
//!
//! - One that has succeeded at once on a listener whose successes post no packet: it was associated for an operation
//!   that a listener cannot do, and an association is for good.
//! - One of a shared listener whose packet the system has refused to post, as if there were no memory for it. Nothing
//!   is lost, but it may come late: the thread that notes it cannot wake anybody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::System::IO::OVERLAPPED;

#[derive(Default)]
pub(super) struct Owed {
    any: AtomicBool,
    /// Where their `OVERLAPPED`s are.
    ended: Mutex<Vec<usize>>,
}

impl Owed {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Takes one, as its packet would carry it.
    #[cold]
    pub(super) fn take(&self) -> Option<*mut OVERLAPPED> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let first = if ended.is_empty() { None } else { Some(ended.remove(0)) };
        self.any.store(!ended.is_empty(), Ordering::Release);
        first.map(std::ptr::without_provenance_mut)
    }

    /// Any thread.
    pub(super) fn put(&self, overlapped: *const OVERLAPPED) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push(overlapped.addr());
        self.any.store(true, Ordering::Release);
    }
}
