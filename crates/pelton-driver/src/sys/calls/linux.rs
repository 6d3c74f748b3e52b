//! The calls of Linux: those on a selector and on a ring.

use std::any::Any;
use std::ffi::c_void;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, io_uring_params, io_uring_register};

#[cfg(feature = "sim")]
use super::made;
#[cfg(feature = "sim")]
use crate::sim::calls as sim;
use crate::sys::descriptor::OwnedDescriptor;
use crate::sys::unix::{RawDescriptor, borrow, check};

/// `epoll_ctl`.
pub(in crate::sys) fn epoll_ctl(
    epoll: RawDescriptor,
    what: i32,
    raw: RawDescriptor,
    events: u32,
    data: u64,
) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(epoll) {
        return sim::epoll_ctl(epoll, what, raw, events, data);
    }
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: plain arguments; the kernel copies the event.
    check(unsafe { libc::epoll_ctl(epoll, what, raw, &mut event) as isize })
}

/// A selector of this thread's simulated system.
pub(in crate::sys) fn epoll_create_simulated() -> io::Result<OwnedDescriptor> {
    #[cfg(feature = "sim")]
    return made(sim::epoll_create());
    #[cfg(not(feature = "sim"))]
    Err(io::ErrorKind::Unsupported.into())
}

/// `epoll_wait` on a simulated system; none on the real one.
#[inline(always)]
pub(in crate::sys) fn epoll_wait_simulated(
    epoll: RawDescriptor,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> Option<i32> {
    #[cfg(feature = "sim")]
    if sim::owns(epoll) {
        return Some(sim::epoll_wait(epoll, events, timeout));
    }
    let _ = (epoll, events, timeout);
    None
}

/// `io_uring_setup` on this thread's simulated system.
pub(in crate::sys) fn ring_setup_simulated(
    entries: u32,
    params: &mut io_uring_params,
) -> Result<OwnedDescriptor, Errno> {
    #[cfg(feature = "sim")]
    // SAFETY: it has just been made, and nobody else knows of it.
    return sim::ring_setup(entries, params).map(|raw| unsafe { crate::sys::descriptor::own(raw) });
    #[cfg(not(feature = "sim"))]
    {
        let _ = (entries, params);
        Err(Errno::NOSYS)
    }
}

/// The memory of a simulated ring: that of both queues, and that of the submission entries, with a share in both,
/// which keeps them.
pub(in crate::sys) fn ring_memory_simulated(
    ring: RawDescriptor,
) -> Result<(*mut u8, *mut u8, Rc<dyn Any>), Errno> {
    #[cfg(feature = "sim")]
    return sim::ring_memory(ring).ok_or(Errno::BADF);
    #[cfg(not(feature = "sim"))]
    {
        let _ = ring;
        Err(Errno::NOSYS)
    }
}

/// `io_uring_enter` on a simulated system; none on the real one.
///
/// # Safety
/// As for that: every staged entry is whole, and what it names is valid until its last completion.
#[inline(always)]
pub(in crate::sys) unsafe fn ring_enter_simulated(
    ring: RawDescriptor,
    submit: u32,
    wait: u32,
    getevents: bool,
    timeout: Option<Duration>,
    min_wait: u32,
) -> Option<Result<u32, Errno>> {
    #[cfg(feature = "sim")]
    if sim::owns(ring) {
        // SAFETY: by the caller.
        return Some(unsafe { sim::ring_enter(ring, submit, wait, getevents, timeout, min_wait) });
    }
    let _ = (ring, submit, wait, getevents, timeout, min_wait);
    None
}

/// `io_uring_register`.
///
/// # Safety
/// `ring` is open; `arg` is what `op` demands, and valid as long as `op` makes the kernel use it.
pub(in crate::sys) unsafe fn ring_register(
    ring: RawDescriptor,
    op: IoringRegisterOp,
    arg: *mut c_void,
    count: u32,
) -> Result<u32, Errno> {
    #[cfg(feature = "sim")]
    if sim::owns(ring) {
        // SAFETY: by the caller.
        return unsafe { sim::ring_register(ring, op, arg, count) };
    }
    // SAFETY: by the caller.
    unsafe { io_uring_register(borrow(ring), op, arg, count) }
}
