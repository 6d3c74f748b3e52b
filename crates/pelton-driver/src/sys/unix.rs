//! What the rooms of Unix share: descriptors, addresses, vectors, and the object behind a wake.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{BorrowedFd, RawFd};

#[cfg_attr(target_os = "linux", path = "unix/linux.rs")]
#[cfg_attr(target_vendor = "apple", path = "unix/apple.rs")]
#[cfg_attr(not(any(target_os = "linux", target_vendor = "apple")), path = "unix/bsd.rs")]
pub(crate) mod native;
mod wake;
pub(crate) mod watch;

pub(crate) use super::attempt::read_cached;
pub use super::descriptor::OwnedDescriptor;
pub(crate) use super::descriptor::own;
pub(crate) use wake::WakeSource;

pub(crate) mod datagram;
pub(crate) mod messages;

/// A descriptor as the system numbers it.
pub type RawDescriptor = RawFd;

/// A descriptor of the system's that somebody has open.
pub type BorrowedDescriptor<'a> = BorrowedFd<'a>;

pub(crate) const NO_DESCRIPTOR: RawDescriptor = -1;

pub(crate) type AddressStorage = libc::sockaddr_storage;
pub(crate) type AddressFamily = libc::sa_family_t;
pub(crate) type AddressLength = libc::socklen_t;
/// Where an address says what it is: behind its length, on systems where it has one.
pub(crate) const FAMILY_AT: usize = std::mem::offset_of!(AddressStorage, ss_family);
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

/// The numbers of the descriptors in the messages that carry them. One that the system could not make is an error's.
fn numbers_in(messages: &[&[u8]]) -> impl Iterator<Item = RawDescriptor> {
    let numbers = messages.iter().flat_map(|data| data.chunks_exact(4));
    numbers
        .filter_map(|number| Some(i32::from_ne_bytes(*number.first_chunk()?)))
        .filter(|number| *number >= 0)
}

/// Sees to it that programs which are started do not get the descriptors in these messages. One that is started
/// between the receive and this does.
pub(crate) fn keep_from_programs(messages: &[&[u8]]) {
    for number in numbers_in(messages) {
        // SAFETY: the system has just made it, for whoever received it, who has not been told yet.
        let descriptor = unsafe { borrow(number) };
        let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
    }
}

/// The descriptors in the messages that carry them, which the system has just made for whoever received those. Each
/// message is looked at once.
pub(crate) fn received_descriptors(messages: &[&[u8]]) -> Vec<OwnedDescriptor> {
    let numbers = numbers_in(messages);
    // SAFETY: they are nobody else's: the system made them with the message, and this is called once for it.
    numbers.map(|number| unsafe { own(number) }).collect()
}

/// Receives what is there, or says `EAGAIN`. The descriptor is open.
pub(crate) fn recv_now(raw: RawDescriptor, buf: &mut [u8]) -> i32 {
    super::attempt::recv(raw, buf.as_mut_ptr(), buf.len())
}

/// Sends what there is room for, or says `EAGAIN`. The descriptor is open.
pub(crate) fn send_now(raw: RawDescriptor, bytes: &[u8]) -> i32 {
    super::attempt::send(raw, bytes)
}

/// How a datagram is received: on a stream `MSG_TRUNC` would throw the bytes away, elsewhere it has the
/// system tell how long the datagram was.
pub(crate) fn receive_flags(stream: bool) -> i32 {
    messages::RECEIVE | if stream { 0 } else { messages::WHOLE_LENGTH }
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
    if len < FAMILY_AT + size_of::<AddressFamily>() {
        return None;
    }
    // SAFETY: the family is within `len`; each form is read only where its whole size is within `len`, and
    // unaligned, because the storage is bytes to this function.
    unsafe {
        let family = storage.cast::<u8>().add(FAMILY_AT).cast::<AddressFamily>();
        let family = i32::from(family.read_unaligned());
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

pub(crate) use borrow as borrow_descriptor;

#[cfg(pelton_iocp_elsewhere)]
pub(crate) use super::iocp::OfRoom;

/// What a descriptor's entry in the table keeps for a room of this system: nothing beyond what it has.
#[cfg(not(pelton_iocp_elsewhere))]
pub(crate) struct OfRoom;

#[cfg(not(pelton_iocp_elsewhere))]
impl OfRoom {
    pub(crate) const fn new() -> OfRoom {
        OfRoom
    }

    pub(crate) fn clear(&self) {}
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

/// What helps where something of the system's has run out.
pub(crate) fn cure(error: &io::Error) -> Option<&'static str> {
    use rustix::io::Errno;
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some(
            "raise RLIMIT_NOFILE (`ulimit -n`, LimitNOFILE= of the systemd unit) or close some descriptors, \
             and try again",
        ),
        Errno::NFILE => Some(
            "the system's table of open files is full: raise fs.file-max with sysctl, or find out who holds \
             the files (`lsof`), and try again",
        ),
        Errno::NOMEM => {
            Some("raise the container's memory limit, or end something else, and try again")
        }
        _ => None,
    }
}

/// The numbers of errors that rooms give by themselves, as [`io::Error::raw_os_error`] has them on this system.
pub mod errno {
    pub use libc::{
        EAFNOSUPPORT, EAGAIN, EALREADY, EBADF, ECANCELED, ECONNABORTED, ECONNREFUSED, ECONNRESET,
        EDESTADDRREQ, EINPROGRESS, EINTR, EINVAL, EIO, EISCONN, EMFILE, EMSGSIZE, ENFILE, ENOBUFS,
        ENOENT, ENOMEM, ENOSYS, ENOTCONN, ENOTSOCK, ENOTTY, EOPNOTSUPP, EPIPE, ESPIPE, ESRCH,
    };
}
