//! Pipes, of the system or of a simulated one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::descriptor::OwnedDescriptor;
use super::socket::Wants;
use super::unix::{native, set_nonblocking};

/// The two ends of a pipe, the one to read from first.
pub(crate) fn pair(wants: Wants) -> io::Result<(OwnedDescriptor, OwnedDescriptor)> {
    #[cfg(feature = "sim")]
    if wants.simulated {
        use super::descriptor::own;
        let (read, write) =
            crate::sim::calls::pipe(wants.nonblocking).map_err(super::unix::error_of)?;
        // SAFETY: the simulated system has just made both for us.
        return Ok(unsafe { (own(read), own(write)) });
    }
    let (read, write) = ends(wants.nonblocking)?;
    Ok((read.into(), write.into()))
}

/// A pipe that does not survive an `exec`, with its flags set at once where the system can, else afterwards.
pub(crate) fn ends(nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    match native::pipe2(nonblocking) {
        Err(Errno::NOSYS) => {}
        ends => return Ok(ends?),
    }
    let (read, write) = rustix::pipe::pipe()?;
    for end in [&read, &write] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
        if nonblocking {
            set_nonblocking(end.as_fd())?;
        }
    }
    Ok((read, write))
}
