//! A descriptor that somebody owns: a socket or a handle of the system.

use std::fmt;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::windows::io::{
    AsRawHandle, AsRawSocket, AsSocket, BorrowedHandle, BorrowedSocket, FromRawHandle,
    FromRawSocket, IntoRawHandle, IntoRawSocket, OwnedHandle, OwnedSocket, RawHandle, RawSocket,
};

use windows_sys::Win32::Foundation::HANDLE;

/// A descriptor as the system numbers it. Sockets and other handles are closed by different calls, so it says
/// which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawDescriptor {
    /// A socket of Winsock's.
    Socket(RawSocket),
    /// Any other handle: a file, a pipe.
    Handle(RawHandle),
}

impl RawDescriptor {
    /// The number as the system's general calls take it. A socket of a provider that has no handles of the
    /// system is none there.
    #[inline(always)]
    pub(crate) fn handle(self) -> HANDLE {
        match self {
            RawDescriptor::Socket(socket) => std::ptr::without_provenance_mut(socket as usize),
            RawDescriptor::Handle(handle) => handle,
        }
    }

    /// The socket, where it is one.
    #[inline(always)]
    pub(crate) fn socket(self) -> Option<usize> {
        match self {
            RawDescriptor::Socket(socket) => Some(socket as usize),
            RawDescriptor::Handle(_) => None,
        }
    }
}

/// A descriptor that is closed when it is dropped: a socket by `closesocket`, any other handle by `CloseHandle`.
///
/// Whatever owns a socket or a handle of the system becomes one ([`From`]). The way back is
/// `OwnedSocket::try_from` or `OwnedHandle::try_from`, which give one of the other kind back as it was.
///
/// ```
/// use pelton_driver::OwnedDescriptor;
/// use std::net::UdpSocket;
/// use std::os::windows::io::OwnedSocket;
///
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// let address = socket.local_addr()?;
/// let descriptor = OwnedDescriptor::from(socket);
/// let back = UdpSocket::from(OwnedSocket::try_from(descriptor).expect("a socket"));
/// assert_eq!(back.local_addr()?, address);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct OwnedDescriptor {
    raw: RawDescriptor,
}

// SAFETY: handles and sockets belong to the process, not to a thread; the pointer in one is a number.
unsafe impl Send for OwnedDescriptor {}
// SAFETY: as above; a shared reference only tells the number.
unsafe impl Sync for OwnedDescriptor {}

impl OwnedDescriptor {
    /// The number.
    #[inline(always)]
    pub fn as_raw(&self) -> RawDescriptor {
        self.raw
    }

    /// True when it is one of a simulated system: never on Windows.
    #[inline(always)]
    pub fn is_simulated(&self) -> bool {
        false
    }

    /// Gives up the ownership of the number.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> RawDescriptor {
        ManuallyDrop::new(self).raw
    }
}

/// Takes ownership of a descriptor that the system has just made for us.
///
/// # Safety
/// `raw` is open and nobody else owns it.
#[inline(always)]
pub(crate) unsafe fn own(raw: RawDescriptor) -> OwnedDescriptor {
    debug_assert_ne!(raw, super::NO_DESCRIPTOR);
    OwnedDescriptor { raw }
}

macro_rules! from_sockets {
    ($($owner:ty)+) => {$(
        impl From<$owner> for OwnedDescriptor {
            #[inline]
            fn from(owner: $owner) -> OwnedDescriptor {
                // SAFETY: it was open and somebody's, who has just given up its ownership.
                unsafe { own(RawDescriptor::Socket(owner.into_raw_socket())) }
            }
        }
    )+};
}

macro_rules! from_handles {
    ($($owner:ty)+) => {$(
        impl From<$owner> for OwnedDescriptor {
            #[inline]
            fn from(owner: $owner) -> OwnedDescriptor {
                // SAFETY: it was open and somebody's, who has just given up its ownership.
                unsafe { own(RawDescriptor::Handle(owner.into_raw_handle())) }
            }
        }
    )+};
}

from_sockets! { OwnedSocket TcpStream TcpListener UdpSocket socket2::Socket }
from_handles! {
    OwnedHandle File io::PipeReader io::PipeWriter
    std::process::ChildStdin std::process::ChildStdout std::process::ChildStderr
}

impl TryFrom<OwnedDescriptor> for std::net::UdpSocket {
    type Error = OwnedDescriptor;

    /// The socket as the standard library has it, whatever kind it is; not one of a simulated system.
    fn try_from(descriptor: OwnedDescriptor) -> Result<std::net::UdpSocket, OwnedDescriptor> {
        OwnedSocket::try_from(descriptor).map(std::net::UdpSocket::from)
    }
}

impl TryFrom<OwnedDescriptor> for OwnedSocket {
    type Error = OwnedDescriptor;

    /// The system's socket.
    ///
    /// # Errors
    /// It is another handle, and comes back.
    #[inline]
    fn try_from(descriptor: OwnedDescriptor) -> Result<OwnedSocket, OwnedDescriptor> {
        match descriptor.raw {
            RawDescriptor::Socket(socket) => {
                let _ = descriptor.into_raw();
                // SAFETY: it is open, and was the other's alone, which has just given up its ownership.
                Ok(unsafe { OwnedSocket::from_raw_socket(socket) })
            }
            RawDescriptor::Handle(_) => Err(descriptor),
        }
    }
}

impl TryFrom<OwnedDescriptor> for OwnedHandle {
    type Error = OwnedDescriptor;

    /// The system's handle.
    ///
    /// # Errors
    /// It is a socket, and comes back.
    #[inline]
    fn try_from(descriptor: OwnedDescriptor) -> Result<OwnedHandle, OwnedDescriptor> {
        match descriptor.raw {
            RawDescriptor::Handle(handle) => {
                let _ = descriptor.into_raw();
                // SAFETY: as above.
                Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
            }
            RawDescriptor::Socket(_) => Err(descriptor),
        }
    }
}

impl Drop for OwnedDescriptor {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it owns the number, which nobody uses after this.
        let _ = unsafe { super::calls::close(self.raw) };
    }
}

impl fmt::Debug for OwnedDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedDescriptor").field(&self.raw).finish()
    }
}

/// A descriptor of the system's that somebody has open: a socket ([`AsSocket`]), or another handle.
#[derive(Clone, Copy, Debug)]
pub enum BorrowedDescriptor<'a> {
    /// A socket.
    Socket(BorrowedSocket<'a>),
    /// Any other handle.
    Handle(BorrowedHandle<'a>),
}

impl BorrowedDescriptor<'_> {
    /// The number.
    pub fn as_raw(&self) -> RawDescriptor {
        match self {
            BorrowedDescriptor::Socket(socket) => RawDescriptor::Socket(socket.as_raw_socket()),
            BorrowedDescriptor::Handle(handle) => RawDescriptor::Handle(handle.as_raw_handle()),
        }
    }
}

impl AsSocket for BorrowedDescriptor<'_> {
    /// The socket.
    ///
    /// # Panics
    /// It is another handle.
    fn as_socket(&self) -> BorrowedSocket<'_> {
        match self {
            BorrowedDescriptor::Socket(socket) => *socket,
            BorrowedDescriptor::Handle(handle) => panic!("{handle:?} is no socket"),
        }
    }
}

/// A descriptor from the table, for one call.
///
/// # Safety
/// The descriptor stays open during the call.
pub(crate) unsafe fn borrow_descriptor(raw: RawDescriptor) -> BorrowedDescriptor<'static> {
    // SAFETY: the caller says so. The lifetime is as short as the caller keeps the value.
    unsafe {
        match raw {
            RawDescriptor::Socket(socket) => {
                BorrowedDescriptor::Socket(BorrowedSocket::borrow_raw(socket))
            }
            RawDescriptor::Handle(handle) => {
                BorrowedDescriptor::Handle(BorrowedHandle::borrow_raw(handle))
            }
        }
    }
}
