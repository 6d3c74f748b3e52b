//! What the rooms of Unix share: descriptors, addresses, vectors, and the object behind a wake.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{BorrowedFd, RawFd};

use super::calls;
use super::descriptor::OwnedDescriptor;

pub(crate) mod control;
pub(crate) mod datagram;

/// A descriptor as the system numbers it.
pub type RawDescriptor = RawFd;

pub(crate) const NO_DESCRIPTOR: RawDescriptor = -1;

pub(crate) type AddressStorage = libc::sockaddr_storage;
pub(crate) type AddressLength = libc::socklen_t;
pub(crate) type MessageHeader = libc::msghdr;
pub(crate) type Part = libc::iovec;

pub(crate) fn part(ptr: *mut u8, len: usize) -> Part {
    Part { iov_base: ptr.cast(), iov_len: len }
}

#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) fn part_base(part: &Part) -> *mut u8 {
    part.iov_base.cast()
}

pub(crate) fn part_len(part: &Part) -> usize {
    part.iov_len
}

/// Takes `n` bytes, fewer than it has, off the front of a part.
pub(crate) fn part_skip(part: &mut Part, n: usize) {
    part.iov_base = part.iov_base.wrapping_byte_add(n);
    part.iov_len -= n;
}

pub(crate) fn message_header(parts: *mut Part, len: usize) -> MessageHeader {
    // SAFETY: a message header is plain data for which all zeros says "nothing".
    let mut header: MessageHeader = unsafe { std::mem::zeroed() };
    header.msg_iov = parts;
    header.msg_iovlen = len as _;
    header
}

/// Names the address and the control messages in a message header, or room for them. Where there is no
/// length there is nothing.
pub(crate) fn name_message(
    header: &mut MessageHeader,
    address: *mut AddressStorage,
    address_len: AddressLength,
    control: *mut u8,
    control_len: usize,
) {
    if address_len > 0 {
        header.msg_name = address.cast();
        header.msg_namelen = address_len;
    }
    if control_len > 0 {
        header.msg_control = control.cast();
        header.msg_controllen = control_len as _;
    }
}

/// What the system has written into a message header.
pub(crate) struct MessageEnd {
    pub(crate) address_len: AddressLength,
    pub(crate) control_len: usize,
    pub(crate) truncated: bool,
    pub(crate) control_truncated: bool,
}

#[allow(clippy::unnecessary_cast)] // With other C libraries the number has another type.
pub(crate) fn message_end(header: &MessageHeader) -> MessageEnd {
    MessageEnd {
        address_len: header.msg_namelen,
        control_len: header.msg_controllen as usize,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        control_truncated: header.msg_flags & libc::MSG_CTRUNC != 0,
    }
}

/// Writes into a message header what a system would.
#[cfg(any(test, feature = "fake-kernel", feature = "sim"))]
pub(crate) fn end_message(header: &mut MessageHeader, end: &MessageEnd) {
    header.msg_namelen = end.address_len;
    header.msg_controllen = end.control_len as _;
    header.msg_flags = if end.truncated { libc::MSG_TRUNC } else { 0 }
        | if end.control_truncated { libc::MSG_CTRUNC } else { 0 };
}

/// How a datagram is received: on a stream `MSG_TRUNC` would throw the bytes away, elsewhere it has the
/// system tell how long the datagram was.
pub(crate) fn receive_flags(stream: bool) -> i32 {
    libc::MSG_CMSG_CLOEXEC | if stream { 0 } else { libc::MSG_TRUNC }
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
    let len = (len as usize).min(size_of::<AddressStorage>());
    if len < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: the family comes first on Linux and is within `len`; each form is read only where its whole
    // size is within `len`, and unaligned, because the storage is bytes to this function.
    unsafe {
        let family = i32::from(storage.cast::<libc::sa_family_t>().read_unaligned());
        if family == libc::AF_INET && len >= size_of::<libc::sockaddr_in>() {
            let v4 = storage.cast::<libc::sockaddr_in>().read_unaligned();
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            return Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into());
        }
        if family == libc::AF_INET6 && len >= size_of::<libc::sockaddr_in6>() {
            let v6 = storage.cast::<libc::sockaddr_in6>().read_unaligned();
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            return Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into());
        }
    }
    None
}

/// A descriptor from the table, for one call.
///
/// # Safety
/// The descriptor stays open during the call: its entry is open, or an operation is in flight on it.
pub(crate) unsafe fn borrow(raw: RawDescriptor) -> BorrowedFd<'static> {
    // SAFETY: the caller says so. The lifetime is as short as the caller keeps the value.
    unsafe { BorrowedFd::borrow_raw(raw) }
}

/// Turns the return value of a call into a result as completions carry it: negative errors.
pub(crate) fn check(result: isize) -> i32 {
    if result >= 0 { result as i32 } else { -last_errno() }
}

pub(crate) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The error that a positive `errno` stands for.
#[cfg(feature = "sim")]
pub(crate) fn error_of(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno.abs())
}

/// Makes a descriptor that never blocks, if it is not one already. True when it had to.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        return Ok(false);
    }
    fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    Ok(true)
}

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
        use rustix::event::{EventfdFlags, eventfd};
        match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
            Ok(write) => Ok(WakeSource { write: write.into(), read: None }),
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => WakeSource::pipe(),
            Err(error) => Err(error.into()),
        }
    }

    /// The fallback: a pipe, with its flags set at once where the system can, else afterwards.
    pub(crate) fn pipe() -> io::Result<WakeSource> {
        use rustix::pipe::{PipeFlags, pipe, pipe_with};
        let (read, write) = match pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) {
            Ok(ends) => ends,
            Err(rustix::io::Errno::NOSYS) => {
                let (read, write) = pipe()?;
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

/// The errors that the rooms tell apart, by the names of the system.
pub(crate) mod errno {
    pub(crate) use libc::{
        EAGAIN, EALREADY, EBADF, ECANCELED, EINPROGRESS, EINTR, EISCONN, ENOBUFS, ENOENT, ENOSYS,
    };
}

#[cfg(all(test, not(miri)))] // They ask the kernel.
mod tests;
