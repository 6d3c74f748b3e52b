//! What the BSDs have, or spell in their own way.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use socket2::{Domain, Protocol, Socket, Type};

use super::{AddressLength, AddressStorage, RawDescriptor, check};

/// How to send without a wait and without a signal.
pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// What to ask `poll` for where one wants to read: the end of the stream counts as readable.
pub(crate) const POLL_IN: i16 = libc::POLLIN;

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

/// No read says that it would wait: all of them go to the blocking pool.
///
/// # Safety
/// Nothing is touched.
#[inline(always)]
pub(crate) unsafe fn pread_cached(_: RawDescriptor, _: *mut u8, _: usize, _: u64) -> i32 {
    -libc::EOPNOTSUPP
}

/// Writes what the system still holds of a file to the disk.
pub(crate) fn fsync(raw: RawDescriptor, data_only: bool) -> i32 {
    // SAFETY: plain arguments.
    check(unsafe { if data_only { libc::fdatasync(raw) } else { libc::fsync(raw) } } as isize)
}

/// The queue itself is what wakes, or else a pipe.
pub(crate) fn wake_object() -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

/// A pipe whose ends have their flags from the start. `ENOSYS`: there is none here.
pub(crate) fn pipe2(nonblocking: bool) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = if nonblocking { PipeFlags::NONBLOCK } else { PipeFlags::empty() };
    pipe_with(PipeFlags::CLOEXEC | flags)
}

/// The numbers of control messages, and of the options that ask for them. There is no
/// packet information of IPv4, and datagrams are neither cut nor put together.
pub(crate) mod messages {
    use libc::{IPPROTO_IP, IPPROTO_IPV6};

    /// The number of no message, and of no option.
    #[allow(dead_code, reason = "some systems have them all")]
    const NONE: (i32, i32) = (-1, -1);

    /// What `libc` has names for on some of these systems alone.
    #[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
    mod named {
        use super::{IPPROTO_IP, IPPROTO_IPV6};

        pub(super) const HOPS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTTL);
        pub(super) const HOPS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_HOPLIMIT);
        pub(super) const CLASS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTOS);
        pub(super) const RECEIVE_HOPS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT);
    }

    #[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
    mod named {
        pub(super) use super::{
            NONE as HOPS_V4, NONE as HOPS_V6, NONE as CLASS_V4, NONE as RECEIVE_HOPS_V6,
        };
    }

    pub(crate) const PACKET_INFO_V4: (i32, i32) = NONE;
    pub(crate) const PACKET_INFO_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_PKTINFO);
    pub(crate) const HOPS_V4: (i32, i32) = named::HOPS_V4;
    pub(crate) const HOPS_V4_SENT: (i32, i32) = (IPPROTO_IP, libc::IP_TTL);
    pub(crate) const HOPS_V6: (i32, i32) = named::HOPS_V6;
    pub(crate) const CLASS_V4: (i32, i32) = named::CLASS_V4;
    pub(crate) const CLASS_V4_SENT: (i32, i32) = (IPPROTO_IP, libc::IP_TOS);
    pub(crate) const CLASS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_TCLASS);
    pub(crate) const SEGMENTS: (i32, i32) = NONE;
    pub(crate) const SEGMENTS_SENT: (i32, i32) = NONE;
    pub(crate) type SegmentLen = u16;

    pub(crate) const RECEIVE_PACKET_INFO_V4: (i32, i32) = NONE;
    pub(crate) const RECEIVE_PACKET_INFO_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
    pub(crate) const RECEIVE_HOPS_V4: (i32, i32) = named::HOPS_V4;
    pub(crate) const RECEIVE_HOPS_V6: (i32, i32) = named::RECEIVE_HOPS_V6;
    pub(crate) const RECEIVE_CLASS_V4: (i32, i32) = named::CLASS_V4;
    pub(crate) const RECEIVE_CLASS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVTCLASS);
    pub(crate) const RECEIVE_SEGMENTS: (i32, i32) = NONE;

    /// How a message is received: descriptors that come with it do not survive an `exec`, where that can be said.
    pub(crate) const RECEIVE: i32 = libc::MSG_CMSG_CLOEXEC;
    /// How a datagram is received, so that the system tells how long it was, where it does.
    pub(crate) const WHOLE_LENGTH: i32 = 0;
}
