//! What the room knows of Windows, where it runs on a simulated system: descriptors, addresses, simple calls.

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Networking::WinSock::WSABUF;

use crate::descriptor::Entry;
use crate::sim::calls::RawFile;
use crate::sim::port_calls as sim;
use crate::sys;
pub(crate) use crate::sys::{AddressLength, AddressStorage, MessageHeader, socket_address};

#[path = "../../windows/offset.rs"]
pub(crate) mod offset;

pub(crate) const KEY_WAKE: usize = crate::sim::port::KEY_WAKE;
pub(crate) const KEY_ROOM: usize = 2;

pub(crate) type RawSocket = u64;

/// A descriptor as Windows has it: a socket, or any other handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawDescriptor {
    Socket(RawSocket),
    Handle(HANDLE),
}

impl RawDescriptor {
    pub(crate) fn handle(self) -> HANDLE {
        match self {
            RawDescriptor::Socket(socket) => std::ptr::without_provenance_mut(socket as usize),
            RawDescriptor::Handle(handle) => handle,
        }
    }

    pub(crate) fn socket(self) -> Option<usize> {
        match self {
            RawDescriptor::Socket(socket) => Some(socket as usize),
            RawDescriptor::Handle(_) => None,
        }
    }

    /// The number in the simulated system.
    pub(crate) fn number(self) -> sys::RawDescriptor {
        self.handle().addr() as sys::RawDescriptor
    }
}

/// The descriptor of an entry, as the room takes it.
pub(crate) fn raw_of(entry: &Entry) -> RawDescriptor {
    let raw = entry.raw.get();
    match sim::kind_of(raw) {
        RawFile::Socket => RawDescriptor::Socket(raw as RawSocket),
        RawFile::Disk | RawFile::Pipe | RawFile::Other => {
            RawDescriptor::Handle(std::ptr::without_provenance_mut(raw as usize))
        }
    }
}

/// Takes ownership of a descriptor that the system has just made for us.
///
/// # Safety
/// It is open and nobody else owns it.
pub(crate) unsafe fn own(raw: RawDescriptor) -> sys::OwnedDescriptor {
    // SAFETY: by the caller.
    unsafe { sys::own(raw.number()) }
}

/// Memory as calls are told of it.
pub(crate) fn buffer(ptr: *mut u8, len: usize) -> WSABUF {
    WSABUF { len: u32::try_from(len).unwrap_or(u32::MAX), buf: ptr }
}

/// Pipes: of bytes, here.
pub(crate) mod pipe {
    use super::RawDescriptor;
    use crate::sim::calls::RawFile;

    pub(crate) fn is_pipe(raw: RawDescriptor) -> bool {
        crate::sim::port_calls::kind_of(raw.number()) == RawFile::Pipe
    }

    pub(crate) fn writes_messages(_: RawDescriptor) -> bool {
        false
    }

    pub(crate) fn reads_messages(_: RawDescriptor) -> bool {
        false
    }
}

pub(crate) mod calls {
    use std::cell::Cell;
    use std::io;
    use std::mem::MaybeUninit;
    use std::net::Shutdown;

    use super::{AddressLength, AddressStorage, RawDescriptor};
    use crate::sim::calls as sim;
    use crate::sim::calls::RawFile;
    use crate::sim::port_calls;
    use crate::sys::numbers as errno;

    thread_local! {
        static LAST_ERROR: Cell<i32> = const { Cell::new(0) };
    }

    /// Remembers what is wrong with the call that is about to say that something is.
    pub(crate) fn set_error(error: i32) {
        LAST_ERROR.set(error);
    }

    pub(crate) fn socket_error() -> i32 {
        LAST_ERROR.get()
    }

    pub(crate) fn system_error() -> i32 {
        LAST_ERROR.get()
    }

    /// # Safety
    /// The caller owns the number, and nobody uses it after this.
    pub(crate) unsafe fn close(raw: RawDescriptor) -> i32 {
        if let RawDescriptor::Handle(_) = raw
            && port_calls::kind_of(raw.number()) == RawFile::Socket
        {
            port_calls::wrong(|name| format!("{name} was closed as a handle"), raw.number());
        }
        sim::close(raw.number())
    }

    pub(crate) fn is_stream(raw: RawDescriptor) -> io::Result<bool> {
        Ok(sim::is_stream(raw.number()))
    }

    pub(crate) fn is_file(raw: RawDescriptor) -> bool {
        port_calls::kind_of(raw.number()) == RawFile::Disk
    }

    /// # Safety
    /// `ptr` is valid for writes of `len` bytes that nobody else touches.
    pub(crate) unsafe fn recv(socket: usize, ptr: *mut u8, len: usize) -> i32 {
        // SAFETY: by the caller.
        unsafe { sim::recv(socket as i32, ptr, len) }
    }

    /// # Safety
    /// The socket is open.
    pub(crate) unsafe fn send(socket: usize, bytes: &[u8]) -> i32 {
        // SAFETY: a slice is valid for reads.
        unsafe { sim::send(socket as i32, bytes.as_ptr(), bytes.len()) }
    }

    /// # Safety
    /// The socket is open; `len` bytes of the address are valid.
    pub(crate) unsafe fn connect(
        socket: usize,
        address: *const MaybeUninit<AddressStorage>,
        len: AddressLength,
    ) -> i32 {
        // SAFETY: by the caller.
        unsafe { sim::connect(socket as i32, address.cast(), len) }
    }

    /// `connect` of a stream, which waits. For a test of what finds that.
    ///
    /// # Safety
    /// The socket is open; `len` bytes of the address are valid.
    #[cfg(pelton_mutants)]
    pub(crate) unsafe fn connect_waiting(
        socket: usize,
        _: *const AddressStorage,
        _: AddressLength,
    ) -> i32 {
        let told = |name: &str| format!("a reactor's thread waited until {name} was connected");
        port_calls::wrong(told, socket as i32);
        -errno::WSAETIMEDOUT
    }

    pub(crate) fn shutdown(raw: RawDescriptor, how: Shutdown) -> i32 {
        match raw.socket() {
            Some(socket) => sim::shutdown(socket as i32, crate::sys::shutdown_arg(how)),
            None => -errno::ENOTSOCK,
        }
    }

    /// # Safety
    /// `ptr` is valid for writes of `len` bytes that nobody else touches.
    pub(crate) unsafe fn pread(raw: RawDescriptor, ptr: *mut u8, len: usize, offset: u64) -> i32 {
        // SAFETY: by the caller.
        unsafe { sim::pread(raw.number(), ptr, len, offset) }
    }

    /// # Safety
    /// `ptr` is valid for reads of `len` bytes.
    pub(crate) unsafe fn pwrite(
        raw: RawDescriptor,
        ptr: *const u8,
        len: usize,
        offset: u64,
    ) -> i32 {
        // SAFETY: by the caller.
        unsafe { sim::pwrite(raw.number(), ptr, len, offset) }
    }

    pub(crate) fn fsync(raw: RawDescriptor) -> i32 {
        sim::fsync(raw.number(), false)
    }
}
