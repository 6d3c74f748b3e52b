//! A descriptor that somebody owns, of the system or of a simulated one.

use std::fmt;
use std::mem::ManuallyDrop;
use std::num::NonZeroI32;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use super::calls;
use super::unix::RawDescriptor;

/// A descriptor that is closed when it is dropped: a socket, a pipe, a file, of the system or of a
/// simulated one.
///
/// Whatever owns a descriptor of the system becomes one ([`From`]). The way back is
/// `OwnedFd::try_from`, which gives a simulated one back as it was: it is no descriptor of the system.
///
/// ```
/// use pelton_driver::OwnedDescriptor;
/// use std::os::fd::{AsRawFd, OwnedFd};
/// use std::os::unix::net::UnixStream;
///
/// let (one, _other) = UnixStream::pair()?;
/// let number = one.as_raw_fd();
/// let descriptor = OwnedDescriptor::from(one);
/// assert_eq!(descriptor.as_raw(), number);
/// let back = UnixStream::from(OwnedFd::try_from(descriptor).expect("of the system"));
/// assert_eq!(back.as_raw_fd(), number);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct OwnedDescriptor {
    /// The complement of the number, which no valid one makes zero: an option costs nothing.
    complement: NonZeroI32,
}

const _: () = assert!(size_of::<Option<OwnedDescriptor>>() == size_of::<RawDescriptor>());

impl OwnedDescriptor {
    /// The number. Those of a simulated system mean nothing to the real one.
    #[inline(always)]
    pub fn as_raw(&self) -> RawDescriptor {
        !self.complement.get()
    }

    /// True when it is one of a simulated system.
    #[inline(always)]
    pub fn is_simulated(&self) -> bool {
        calls::is_simulated(self.as_raw())
    }

    /// Gives up the ownership of the number.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> RawDescriptor {
        ManuallyDrop::new(self).as_raw()
    }
}

/// Takes ownership of a descriptor that the system, or a simulated one, has just made for us.
///
/// # Safety
/// `raw` is open and nobody else owns it.
#[inline(always)]
pub(crate) unsafe fn own(raw: RawDescriptor) -> OwnedDescriptor {
    debug_assert!(raw >= 0, "no descriptor has the number {raw}");
    // SAFETY: an open descriptor's number is not negative, so its complement is, and so not zero.
    OwnedDescriptor { complement: unsafe { NonZeroI32::new_unchecked(!raw) } }
}

impl<T: Into<OwnedFd>> From<T> for OwnedDescriptor {
    #[inline]
    fn from(owner: T) -> OwnedDescriptor {
        // SAFETY: it was open and somebody's, who has just given up its ownership.
        unsafe { own(owner.into().into_raw_fd()) }
    }
}

impl TryFrom<OwnedDescriptor> for std::net::UdpSocket {
    type Error = OwnedDescriptor;

    /// The socket as the standard library has it, whatever kind it is; not one of a simulated system.
    fn try_from(descriptor: OwnedDescriptor) -> Result<std::net::UdpSocket, OwnedDescriptor> {
        OwnedFd::try_from(descriptor).map(std::net::UdpSocket::from)
    }
}

impl TryFrom<OwnedDescriptor> for OwnedFd {
    type Error = OwnedDescriptor;

    /// The system's descriptor.
    ///
    /// # Errors
    /// It is one of a simulated system, and comes back.
    #[inline]
    fn try_from(descriptor: OwnedDescriptor) -> Result<OwnedFd, OwnedDescriptor> {
        if descriptor.is_simulated() {
            return Err(descriptor);
        }
        // SAFETY: it is open, and was the other's alone, which has just given up its ownership.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor.into_raw()) })
    }
}

impl Drop for OwnedDescriptor {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it owns the number, which nobody uses after this.
        unsafe { calls::close_quietly(self.as_raw()) };
    }
}

impl fmt::Debug for OwnedDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedDescriptor").field(&self.as_raw()).finish()
    }
}

#[cfg(all(test, not(miri)))] // They ask the kernel.
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_closes_its_number_once_and_only_while_it_owns_it() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let number = one.as_raw_fd();
        let descriptor = OwnedDescriptor::from(one);
        assert_eq!((descriptor.as_raw(), descriptor.is_simulated()), (number, false));
        // Given up and taken over again: still open.
        // SAFETY: the number was this descriptor's alone, which has given it up.
        let descriptor = unsafe { own(descriptor.into_raw()) };
        other.set_nonblocking(true).unwrap();
        let error = other.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "it is closed already");
        drop(descriptor);
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "it is open still");
    }

    #[test]
    fn a_descriptor_of_the_system_becomes_one_again() {
        let (one, _other) = UnixStream::pair().unwrap();
        let number = one.as_raw_fd();
        let back = OwnedFd::try_from(OwnedDescriptor::from(one)).unwrap();
        assert_eq!(back.as_raw_fd(), number);
        assert_eq!(
            format!("{:?}", OwnedDescriptor::from(back)),
            format!("OwnedDescriptor({number})")
        );
    }
}
