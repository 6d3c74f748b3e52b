//! What another thread breaks a driver's wait with.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::{NO_DESCRIPTOR, borrow, native};
use crate::sys::calls;
use crate::sys::choice::Queue;
use crate::sys::descriptor::OwnedDescriptor;

/// The kernel object through which another thread breaks a driver's wait: an eventfd, a pipe where there is none,
/// or the driver's own queue.
///
/// It is never read on the eventfd: both rooms watch for edges, and every write is one. (Reading an
/// eventfd *through* the ring hung on one kernel, so the ring polls it.)
#[derive(Debug)]
pub(crate) struct WakeSource(Object);

#[derive(Debug)]
enum Object {
    Event(OwnedDescriptor),
    Pipe {
        read: OwnedDescriptor,
        write: OwnedDescriptor,
    },
    #[allow(dead_code, reason = "not every system has one")]
    Queue(Arc<Queue>),
}

impl WakeSource {
    /// One of the system, or of this thread's simulated one.
    pub(crate) fn new(simulated: bool) -> io::Result<WakeSource> {
        if simulated {
            return Ok(WakeSource(Object::Event(calls::eventfd_simulated()?)));
        }
        match native::wake_object()? {
            Some(event) => Ok(WakeSource(Object::Event(event.into()))),
            None => WakeSource::pipe(),
        }
    }

    /// A completion port of this thread's simulated system.
    #[cfg(pelton_iocp_elsewhere)]
    pub(crate) fn port_of() -> io::Result<WakeSource> {
        Ok(WakeSource(Object::Event(calls::port_simulated()?)))
    }

    /// The driver's port.
    #[cfg(pelton_iocp_elsewhere)]
    pub(crate) fn port(&self) -> *mut std::ffi::c_void {
        std::ptr::without_provenance_mut(self.watch() as usize)
    }

    /// The queue that a driver waits on.
    #[allow(dead_code, reason = "not every system has one")]
    pub(crate) fn queue(queue: Arc<Queue>) -> WakeSource {
        WakeSource(Object::Queue(queue))
    }

    /// The fallback: a pipe, with its flags set at once where the system can, else afterwards.
    pub(crate) fn pipe() -> io::Result<WakeSource> {
        let (read, write) = crate::sys::pipe::ends(true)?;
        Ok(WakeSource(Object::Pipe { read: read.into(), write: write.into() }))
    }

    /// The descriptor to watch for edges, which is none where the queue itself is what wakes.
    pub(crate) fn watch(&self) -> RawFd {
        match &self.0 {
            Object::Event(event) => event.as_raw(),
            Object::Pipe { read, .. } => read.as_raw(),
            Object::Queue(_) => NO_DESCRIPTOR,
        }
    }

    /// Makes an edge. Any thread.
    pub(crate) fn signal(&self) -> io::Result<()> {
        let raw = match &self.0 {
            Object::Event(write) | Object::Pipe { write, .. } => write.as_raw(),
            Object::Queue(queue) => return queue.wake().map_err(io::Error::from_raw_os_error),
        };
        if let Some(result) = calls::wake_simulated(raw) {
            return result;
        }
        loop {
            // SAFETY: it is open as long as this lives.
            match rustix::io::write(unsafe { borrow(raw) }, &1_u64.to_ne_bytes()) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                // Full: whoever filled it woke the owner, which has not drained yet.
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes out what a pipe holds, so that it never fills. An eventfd keeps its count: 2^64 wakes are
    /// more than a process has.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain(&self) {
        if let Object::Pipe { read, .. } = &self.0 {
            let mut bytes = [0; 512];
            // SAFETY: it is open as long as this lives.
            let read = unsafe { borrow(read.as_raw()) };
            while rustix::io::read(read, &mut bytes[..]).is_ok_and(|n| n == bytes.len()) {}
        }
    }
}

#[cfg(all(test, not(miri)))] // They ask the kernel.
mod tests;
