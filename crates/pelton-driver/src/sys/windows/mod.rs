//! What the room of Windows rests on: descriptors, addresses, vectors, and the port behind a wake.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Networking::WinSock::{
    ADDRESS_FAMILY, AF_INET, AF_INET6, SOCKADDR_IN, SOCKADDR_IN6, SOCKADDR_STORAGE, WSABUF, WSAMSG,
};
use windows_sys::Win32::System::IO::{CreateIoCompletionPort, PostQueuedCompletionStatus};

pub(crate) use std::os::windows::io::RawSocket;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use crate::descriptor::Entry;
use crate::payload::Memory;

pub(crate) mod calls;
mod datagram;
pub(super) mod descriptor;
pub mod errno;
pub(crate) mod file;
pub(crate) mod messages;
pub(crate) mod offset;
pub(crate) mod pipe;
pub(crate) mod socket;
pub(crate) mod startup;
pub(crate) mod watch;

pub use descriptor::{BorrowedDescriptor, OwnedDescriptor, RawDescriptor};
pub(crate) use descriptor::{borrow_descriptor, own};
#[cfg(any(test, feature = "fake-kernel", feature = "sim"))]
pub(crate) use messages::end_message;
pub(crate) use messages::{
    MessageEnd, keep_from_programs, message_end, name_message, received_descriptors,
};

pub(crate) const NO_DESCRIPTOR: RawDescriptor =
    RawDescriptor::Socket(std::os::windows::io::RawSocket::MAX);

pub(crate) type AddressFamily = ADDRESS_FAMILY;
/// Where an address says what it is.
pub(crate) const FAMILY_AT: usize = 0;
pub(crate) type AddressStorage = SOCKADDR_STORAGE;
pub(crate) type AddressLength = i32;
pub(crate) type MessageHeader = WSAMSG;
pub(crate) type Part = WSABUF;

/// Memory as the system is told of it. Its lengths have 32 bits: what is longer is cut short, which a transfer
/// may be at any time.
pub(crate) fn part(ptr: *mut u8, len: usize) -> Part {
    WSABUF { len: u32::try_from(len).unwrap_or(u32::MAX), buf: ptr }
}

/// The same, for a call.
pub(crate) use part as buffer;

#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) fn part_base(part: &Part) -> *mut u8 {
    part.buf
}

pub(crate) fn part_len(part: &Part) -> usize {
    part.len as usize
}

/// Takes `n` bytes, fewer than it has, off the front of a part.
pub(crate) fn part_skip(part: &mut Part, n: usize) {
    part.buf = part.buf.wrapping_add(n);
    part.len -= n as u32;
}

pub(crate) fn message_header(parts: *mut Part, len: usize) -> MessageHeader {
    WSAMSG { lpBuffers: parts, dwBufferCount: len as u32, ..WSAMSG::default() }
}

/// Receives what is there, or says `EAGAIN`. The descriptor is open.
pub(crate) fn recv_now(raw: RawDescriptor, buf: &mut [u8]) -> i32 {
    let Some(socket) = raw.socket() else { return -errno::ENOTSOCK };
    // SAFETY: the memory is borrowed for the call, and the caller has the descriptor open.
    unsafe { calls::recv(socket, buf.as_mut_ptr(), buf.len()) }
}

/// Sends what there is room for, or says `EAGAIN`. The descriptor is open.
pub(crate) fn send_now(raw: RawDescriptor, bytes: &[u8]) -> i32 {
    let Some(socket) = raw.socket() else { return -errno::ENOTSOCK };
    // SAFETY: the caller has the descriptor open.
    unsafe { calls::send(socket, bytes) }
}

/// Writes an address in the system's form; returns its length.
///
/// # Safety
/// `to` is valid for writes of a whole storage.
pub(crate) unsafe fn write_address(addr: &SocketAddr, to: *mut AddressStorage) -> AddressLength {
    let addr = socket2::SockAddr::from(*addr);
    // SAFETY: the caller says that there is room for a storage, which holds any address.
    unsafe {
        std::ptr::copy_nonoverlapping(
            addr.as_ptr().cast::<u8>(),
            to.cast::<u8>(),
            addr.len() as usize,
        );
    }
    addr.len()
}

/// Reads an IP address that the system has written.
///
/// # Safety
/// `len` bytes from `storage` are initialised, or fewer than a storage has when `len` says more.
pub(crate) unsafe fn socket_address(
    storage: *const AddressStorage,
    len: AddressLength,
) -> Option<SocketAddr> {
    let len = usize::try_from(len).ok()?.min(size_of::<AddressStorage>());
    if len < size_of::<ADDRESS_FAMILY>() {
        return None;
    }
    // SAFETY: the family comes first and is within `len`; each form is read only where its whole size is within
    // `len`, and unaligned, because the storage is bytes to this function. The unions in them are plain numbers.
    unsafe {
        let family = storage.cast::<ADDRESS_FAMILY>().read_unaligned();
        if family == AF_INET && len >= size_of::<SOCKADDR_IN>() {
            let v4 = storage.cast::<SOCKADDR_IN>().read_unaligned();
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.S_un.S_addr));
            return Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into());
        }
        if family == AF_INET6 && len >= size_of::<SOCKADDR_IN6>() {
            let v6 = storage.cast::<SOCKADDR_IN6>().read_unaligned();
            let ip = Ipv6Addr::from(v6.sin6_addr.u.Byte);
            let (port, scope) = (u16::from_be(v6.sin6_port), v6.Anonymous.sin6_scope_id);
            return Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, scope).into());
        }
    }
    None
}

pub(crate) use super::iocp::OfRoom;

/// The descriptor of an entry, as the room takes it.
#[inline(always)]
pub(crate) fn raw_of(entry: &Entry) -> RawDescriptor {
    entry.raw.get()
}

/// Reads what is cached: Windows cannot say what that is.
#[inline(always)]
pub(crate) fn read_cached(_: &Entry, _: Memory, _: u64) -> Option<i32> {
    None
}

/// What helps where something of the system's has run out: Windows has no limits that somebody sets.
pub(crate) fn cure(_: &io::Error) -> Option<&'static str> {
    None
}

/// The key of the packets that wake. Nothing that is associated has it, and whoever posts another packet to
/// this port is not answered.
pub(crate) const KEY_WAKE: usize = 1;
/// The key of everything that the room has associated.
pub(crate) const KEY_ROOM: usize = 2;

/// The object through which another thread breaks a driver's wait: the driver's completion port itself.
///
/// It belongs to what the driver shares with other threads and not to its room, so that a packet which is
/// posted while the driver goes finds a port, and not somebody else's handle.
#[derive(Debug)]
pub(crate) struct WakeSource {
    port: OwnedHandle,
}

impl WakeSource {
    pub(crate) fn new(_: bool) -> io::Result<WakeSource> {
        // SAFETY: plain arguments: a new port, for one thread.
        let port =
            unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, std::ptr::null_mut(), 0, 1) };
        if port.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it has just been made, and nobody else owns it.
        Ok(WakeSource { port: unsafe { OwnedHandle::from_raw_handle(port) } })
    }

    /// A port of a driver's.
    pub(crate) fn port_of() -> io::Result<WakeSource> {
        WakeSource::new(false)
    }

    /// The driver's port. Open as long as this lives.
    #[inline(always)]
    pub(crate) fn port(&self) -> HANDLE {
        self.port.as_raw_handle()
    }

    /// Posts the packet that wakes. Any thread.
    pub(crate) fn signal(&self) -> io::Result<()> {
        // SAFETY: the port is open as long as this lives; the packet points at nothing.
        let posted =
            unsafe { PostQueuedCompletionStatus(self.port(), 0, KEY_WAKE, std::ptr::null()) };
        if posted == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
