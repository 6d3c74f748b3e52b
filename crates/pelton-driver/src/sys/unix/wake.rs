//! What another thread breaks a driver's wait with.

use std::io;
use std::os::fd::RawFd;

use super::{borrow, native, set_nonblocking};
use crate::sys::calls;
use crate::sys::descriptor::OwnedDescriptor;

/// The kernel object through which another thread breaks a driver's wait: an eventfd, or a pipe where
/// there is none.
///
/// It is never read on the eventfd: both rooms watch for edges, and every write is one. (Reading an
/// eventfd *through* the ring hung on one kernel, so the ring polls it.)
#[derive(Debug)]
pub(crate) struct WakeSource {
    write: OwnedDescriptor,
    /// The end to watch, where it is another one.
    read: Option<OwnedDescriptor>,
}

impl WakeSource {
    /// One of the system, or of this thread's simulated one.
    pub(crate) fn new(simulated: bool) -> io::Result<WakeSource> {
        if simulated {
            return Ok(WakeSource { write: calls::eventfd_simulated()?, read: None });
        }
        match native::wake_object()? {
            Some(write) => Ok(WakeSource { write: write.into(), read: None }),
            None => WakeSource::pipe(),
        }
    }

    /// The fallback: a pipe, with its flags set at once where the system can, else afterwards.
    pub(crate) fn pipe() -> io::Result<WakeSource> {
        let (read, write) = match native::pipe2() {
            Ok(ends) => ends,
            Err(rustix::io::Errno::NOSYS) => {
                let (read, write) = rustix::pipe::pipe()?;
                for end in [&read, &write] {
                    rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
                    set_nonblocking(std::os::fd::AsFd::as_fd(end))?;
                }
                (read, write)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(WakeSource { write: write.into(), read: Some(read.into()) })
    }

    /// The descriptor to watch for edges.
    pub(crate) fn watch(&self) -> RawFd {
        self.read.as_ref().unwrap_or(&self.write).as_raw()
    }

    /// Makes an edge. Any thread.
    pub(crate) fn signal(&self) -> io::Result<()> {
        let raw = self.write.as_raw();
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
    pub(crate) fn drain(&self) {
        if let Some(read) = &self.read {
            let mut bytes = [0; 512];
            // SAFETY: it is open as long as this lives.
            let read = unsafe { borrow(read.as_raw()) };
            while rustix::io::read(read, &mut bytes[..]).is_ok_and(|n| n == bytes.len()) {}
        }
    }
}

#[cfg(all(test, not(miri)))] // They ask the kernel.
mod tests;
