//! Which of several simulated reactors runs on this thread.
//!
//! In a simulation many reactors share one thread. A wake from one of them for a task of another, or from a
//! job of the blocking pool, must take the way that it takes in production, over the remote stack and the
//! latch: so whether a wake is one of the owner's is then a question of who is turning, not of the thread.

use std::cell::Cell;
use std::ptr;

thread_local! {
    /// None outside of a simulation. Else the tasks whose reactor is turning; null for none.
    static TURNING: Cell<Option<*const ()>> = const { Cell::new(None) };
}

/// True unless another reactor of a simulation, or none, is turning on this thread.
#[inline]
pub(super) fn may_be(core: *const ()) -> bool {
    TURNING.try_with(Cell::get).ok().flatten().is_none_or(|turning| ptr::eq(turning, core))
}

pub(super) fn begin(core: *const ()) -> Turning {
    Turning { before: TURNING.replace(Some(core)) }
}

/// Says that no reactor turns on this thread, though it is a simulation's, until the guard is dropped.
pub(crate) fn nobody() -> Turning {
    begin(ptr::null())
}

/// Until it is dropped.
pub(crate) struct Turning {
    before: Option<*const ()>,
}

impl Drop for Turning {
    fn drop(&mut self) {
        let _ = TURNING.try_with(|turning| turning.set(self.before));
    }
}
