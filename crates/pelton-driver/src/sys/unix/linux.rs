//! What Linux alone has, or spells in its own way.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use socket2::{Domain, Protocol, Socket, Type};

use super::{AddressLength, AddressStorage, RawDescriptor, check, part};

/// How to send without a wait and without a signal.
pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// What to ask `poll` for where one wants to read: the end of the stream too.
pub(crate) const POLL_IN: i16 = libc::POLLIN | libc::POLLRDHUP;

/// A socket that does not survive an `exec`.
pub(crate) fn socket(
    domain: Domain,
    kind: Type,
    protocol: Protocol,
    nonblocking: bool,
) -> io::Result<Socket> {
    let kind = if nonblocking { kind.nonblocking() } else { kind };
    Socket::new(domain, kind, Some(protocol))
}

/// `accept4`: the connection neither blocks nor survives an `exec`. `ENOSYS`: there is none here.
///
/// # Safety
/// Both pointers are null, or valid and nobody else's.
#[inline(always)]
pub(crate) unsafe fn accept4(
    raw: RawDescriptor,
    address: *mut AddressStorage,
    len: *mut AddressLength,
) -> i32 {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: by the caller.
    check(unsafe { libc::accept4(raw, address.cast(), len, flags) as isize })
}

/// A socket on which a send raises no signal: each send says so.
#[inline(always)]
pub(crate) fn without_signal(_: RawDescriptor) {}

/// `preadv2` of one part, which does not wait: only what the page cache has.
///
/// # Safety
/// `ptr` is valid for writes of `len` bytes that nobody else touches.
#[inline(always)]
pub(crate) unsafe fn pread_cached(
    raw: RawDescriptor,
    ptr: *mut u8,
    len: usize,
    offset: u64,
) -> i32 {
    let part = part(ptr, len);
    let (low, high) = (offset as libc::c_ulong, (offset >> 32) as libc::c_ulong);
    let (call, nowait) = (libc::SYS_preadv2, libc::RWF_NOWAIT);
    // SAFETY: by the caller. The kernel takes the offset in two words, and on a 64-bit machine only the
    // first of them.
    check(unsafe { libc::syscall(call, raw, &raw const part, 1, low, high, nowait) as isize })
}

/// Writes what the system still holds of a file to the disk.
pub(crate) fn fsync(raw: RawDescriptor, data_only: bool) -> i32 {
    // SAFETY: plain arguments.
    check(unsafe { if data_only { libc::fdatasync(raw) } else { libc::fsync(raw) } } as isize)
}

/// An object that one descriptor wakes by; none where it takes a pipe.
pub(crate) fn wake_object() -> io::Result<Option<OwnedFd>> {
    match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
        Ok(object) => Ok(Some(object)),
        Err(Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A pipe whose ends have their flags from the start. `ENOSYS`: there is none here.
pub(crate) fn pipe2(nonblocking: bool) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = if nonblocking { PipeFlags::NONBLOCK } else { PipeFlags::empty() };
    pipe_with(PipeFlags::CLOEXEC | flags)
}

/// The numbers of control messages, and of the options that ask for them.
pub(crate) mod messages {
    use libc::{IPPROTO_IP, IPPROTO_IPV6};

    /// The number of no message, and of no option.
    #[allow(dead_code, reason = "some systems have them all")]
    const NONE: (i32, i32) = (-1, -1);

    pub(crate) const PACKET_INFO_V4: (i32, i32) = (IPPROTO_IP, libc::IP_PKTINFO);
    pub(crate) const PACKET_INFO_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_PKTINFO);
    pub(crate) const HOPS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_TTL);
    pub(crate) const HOPS_V4_SENT: (i32, i32) = (IPPROTO_IP, libc::IP_TTL);
    pub(crate) const HOPS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_HOPLIMIT);
    pub(crate) const CLASS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_TOS);
    pub(crate) const CLASS_V4_SENT: (i32, i32) = (IPPROTO_IP, libc::IP_TOS);
    pub(crate) const CLASS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_TCLASS);
    pub(crate) const SEGMENTS: (i32, i32) = (libc::SOL_UDP, libc::UDP_GRO);
    pub(crate) const SEGMENTS_SENT: (i32, i32) = (libc::SOL_UDP, libc::UDP_SEGMENT);
    pub(crate) type SegmentLen = u16;

    pub(crate) const RECEIVE_PACKET_INFO_V4: (i32, i32) = (IPPROTO_IP, libc::IP_PKTINFO);
    pub(crate) const RECEIVE_PACKET_INFO_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
    pub(crate) const RECEIVE_HOPS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTTL);
    pub(crate) const RECEIVE_HOPS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT);
    pub(crate) const RECEIVE_CLASS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTOS);
    pub(crate) const RECEIVE_CLASS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVTCLASS);
    pub(crate) const RECEIVE_SEGMENTS: (i32, i32) = (libc::SOL_UDP, libc::UDP_GRO);

    /// How a message is received: descriptors that come with it do not survive an `exec`, where that can be said.
    pub(crate) const RECEIVE: i32 = libc::MSG_CMSG_CLOEXEC;
    /// How a datagram is received, so that the system tells how long it was, where it does.
    pub(crate) const WHOLE_LENGTH: i32 = libc::MSG_TRUNC;
}
