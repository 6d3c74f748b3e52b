//! `kqueue()` and `kevent()`: the two calls, the structure and the constants, as the system at hand has them.
//!
//! This is all that the room knows of the system's calls, so that another file can stand in its place: a build
//! with `--cfg pelton_kqueue_elsewhere` has `elsewhere.rs` there, and runs the room on Linux.

#![allow(clippy::unnecessary_cast, reason = "each system has its own types for these")]

use std::io;
use std::time::Duration;

use rustix::io::FdFlags;

use super::event::{Event, Filter};
use crate::sys::descriptor::OwnedDescriptor;
use crate::sys::unix::{RawDescriptor, borrow, check, last_errno};

/// As `<sys/event.h>` has them, in a type that is wide enough on every system.
pub(super) mod flags {
    pub(crate) const ADD: u32 = libc::EV_ADD as u32;
    pub(crate) const DELETE: u32 = libc::EV_DELETE as u32;
    pub(crate) const CLEAR: u32 = libc::EV_CLEAR as u32;
    pub(crate) const RECEIPT: u32 = libc::EV_RECEIPT as u32;
    pub(crate) const ERROR: u32 = libc::EV_ERROR as u32;
    pub(crate) const EOF: u32 = libc::EV_EOF as u32;
    pub(crate) const ONESHOT: u32 = libc::EV_ONESHOT as u32;
    pub(crate) const TRIGGER: u32 = libc::NOTE_TRIGGER as u32;
}

/// What a filter of something that is no descriptor is asked to tell of.
pub(super) mod notes {
    /// A process has ended.
    pub(crate) const EXIT: u32 = libc::NOTE_EXIT as u32;
    /// Entries of a directory have come, gone or got other names.
    pub(crate) const CHANGED: u32 =
        libc::NOTE_WRITE as u32 | libc::NOTE_EXTEND as u32 | libc::NOTE_LINK as u32;
    /// It has gone itself.
    pub(crate) const GONE: u32 = libc::NOTE_DELETE as u32 | libc::NOTE_REVOKE as u32;
}

/// The structure that the kernel reads and writes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Kevent(libc::kevent);

// An event names its descriptor by the number and the generation of its entry, in the one word that it carries.
const _: () = assert!(size_of::<*mut libc::c_void>() == 8, "this backend needs a 64-bit system");

impl Kevent {
    /// A change to ask for.
    pub(super) fn asking(event: Event) -> Kevent {
        let filter = match event.filter {
            Filter::Write => libc::EVFILT_WRITE,
            Filter::User => libc::EVFILT_USER,
            Filter::Process => libc::EVFILT_PROC,
            Filter::Vnode => libc::EVFILT_VNODE,
            Filter::Read | Filter::Other => libc::EVFILT_READ,
        };
        // SAFETY: plain data, for which all zeros says "nothing"; some systems have more fields than others.
        let mut kevent: libc::kevent = unsafe { std::mem::zeroed() };
        kevent.ident = event.ident as _;
        kevent.filter = filter as _;
        kevent.flags = event.flags as _;
        kevent.fflags = event.fflags as _;
        kevent.udata = event.udata as _;
        Kevent(kevent)
    }

    /// What the kernel told.
    pub(super) fn told(&self) -> Event {
        let kevent = &self.0;
        let filter = if kevent.filter == libc::EVFILT_READ as _ {
            Filter::Read
        } else if kevent.filter == libc::EVFILT_WRITE as _ {
            Filter::Write
        } else if kevent.filter == libc::EVFILT_USER as _ {
            Filter::User
        } else {
            Filter::Other
        };
        Event {
            ident: kevent.ident as usize,
            filter,
            flags: kevent.flags as u32,
            fflags: kevent.fflags as u32,
            data: kevent.data as i64,
            udata: kevent.udata as u64,
        }
    }
}

/// One kernel queue. Any thread may ask it.
#[derive(Debug)]
pub(crate) struct Queue {
    raw: OwnedDescriptor,
}

impl Queue {
    /// Makes one, which does not survive an `exec`.
    pub(super) fn new(simulated: bool) -> io::Result<Queue> {
        if simulated {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: no arguments.
        let raw = check(unsafe { libc::kqueue() } as isize);
        if raw < 0 {
            return Err(io::Error::from_raw_os_error(-raw));
        }
        // SAFETY: the kernel has just made it for us.
        let raw = unsafe { crate::sys::own(raw) };
        // SAFETY: it is open.
        rustix::io::fcntl_setfd(unsafe { borrow(raw.as_raw()) }, FdFlags::CLOEXEC)?;
        Ok(Queue { raw })
    }

    /// The queue as a descriptor that others wait for.
    pub(super) fn into_descriptor(self) -> OwnedDescriptor {
        self.raw
    }

    pub(super) fn is_simulated(&self) -> bool {
        false
    }

    /// Asks for changes, then waits for events, and gives back how many there are.
    pub(super) fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, i32> {
        kevent(self.raw.as_raw(), changes, events, timeout)
    }
}

/// [`Queue::kevent`] of a queue that is somebody else's.
pub(super) fn kevent(
    queue: RawDescriptor,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<Duration>,
) -> Result<usize, i32> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both lists are valid for their lengths, the structure is the kernel's own, and the time is
    // null or lives on.
    let result = unsafe {
        libc::kevent(
            queue,
            changes.as_ptr().cast(),
            changes.len() as _,
            events.as_mut_ptr().cast(),
            events.len() as _,
            timeout,
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(result as usize) }
}

/// Some systems refuse a time that is too long for them. A wait that ends after a day finds nothing and goes on.
fn timespec(timeout: Duration) -> libc::timespec {
    let timeout = timeout.min(Duration::from_secs(24 * 3600));
    libc::timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ }
}
