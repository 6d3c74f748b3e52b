//! What Apple's systems lack, or spell in their own way.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::{AddressLength, AddressStorage, RawDescriptor, borrow, check};

/// How to send without a wait. That it raises no signal is said once of the socket.
pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT;

/// What to ask `poll` for where one wants to read: the end of the stream counts as readable.
pub(crate) const POLL_IN: i16 = libc::POLLIN;

/// A socket that does not survive an `exec`, and raises no signal.
pub(crate) fn socket(
    domain: Domain,
    kind: Type,
    protocol: Protocol,
    nonblocking: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, Some(protocol))?;
    if nonblocking {
        socket.set_nonblocking(true)?;
    }
    Ok(socket)
}

/// There is no `accept4`: the connection gets its flags after it has been accepted.
///
/// # Safety
/// Nothing is touched.
#[inline(always)]
pub(crate) unsafe fn accept4(
    _: RawDescriptor,
    _: *mut AddressStorage,
    _: *mut AddressLength,
) -> i32 {
    -libc::ENOSYS
}

/// Has sends on a socket raise no signal. What is no socket has none to raise, and one whose peer has gone
/// already tells so with its first operation.
pub(crate) fn without_signal(raw: RawDescriptor) {
    // SAFETY: the caller has it open.
    let _ = socket2::SockRef::from(&unsafe { borrow(raw) }).set_nosigpipe(true);
}

/// No read says that it would wait: all of them go to the blocking pool.
///
/// # Safety
/// Nothing is touched.
#[inline(always)]
pub(crate) unsafe fn pread_cached(_: RawDescriptor, _: *mut u8, _: usize, _: u64) -> i32 {
    -libc::EOPNOTSUPP
}

/// Writes what the system still holds of a file to the disk. `fsync` alone leaves it with the drive, and there is
/// no way to leave out what describes the file.
pub(crate) fn fsync(raw: RawDescriptor, _: bool) -> i32 {
    // SAFETY: plain arguments.
    let result = check(unsafe { libc::fcntl(raw, libc::F_FULLFSYNC) as isize });
    match -result {
        // A file system that knows nothing of drives.
        libc::ENOTSUP | libc::ENOTTY | libc::EINVAL => {
            // SAFETY: as above.
            check(unsafe { libc::fsync(raw) as isize })
        }
        _ => result,
    }
}

/// The queue itself is what wakes, or else a pipe.
pub(crate) fn wake_object() -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

/// There is no `pipe2`: the ends get their flags after they have been made.
pub(crate) fn pipe2(_: bool) -> Result<(OwnedFd, OwnedFd), Errno> {
    Err(Errno::NOSYS)
}

/// The numbers of control messages, and of the options that ask for them. Datagrams
/// are neither cut nor put together.
pub(crate) mod messages {
    use libc::{IPPROTO_IP, IPPROTO_IPV6};

    /// The number of no message, and of no option.
    #[allow(dead_code, reason = "some systems have them all")]
    const NONE: (i32, i32) = (-1, -1);

    pub(crate) const PACKET_INFO_V4: (i32, i32) = (IPPROTO_IP, libc::IP_PKTINFO);
    pub(crate) const PACKET_INFO_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_PKTINFO);
    pub(crate) const HOPS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTTL);
    pub(crate) const HOPS_V4_SENT: (i32, i32) = (IPPROTO_IP, libc::IP_TTL);
    pub(crate) const HOPS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_HOPLIMIT);
    pub(crate) const CLASS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTOS);
    pub(crate) const CLASS_V4_SENT: (i32, i32) = (IPPROTO_IP, libc::IP_TOS);
    pub(crate) const CLASS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_TCLASS);
    pub(crate) const SEGMENTS: (i32, i32) = NONE;
    pub(crate) const SEGMENTS_SENT: (i32, i32) = NONE;
    pub(crate) type SegmentLen = u16;

    pub(crate) const RECEIVE_PACKET_INFO_V4: (i32, i32) = (IPPROTO_IP, libc::IP_PKTINFO);
    pub(crate) const RECEIVE_PACKET_INFO_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
    pub(crate) const RECEIVE_HOPS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTTL);
    pub(crate) const RECEIVE_HOPS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT);
    pub(crate) const RECEIVE_CLASS_V4: (i32, i32) = (IPPROTO_IP, libc::IP_RECVTOS);
    pub(crate) const RECEIVE_CLASS_V6: (i32, i32) = (IPPROTO_IPV6, libc::IPV6_RECVTCLASS);
    pub(crate) const RECEIVE_SEGMENTS: (i32, i32) = NONE;

    /// How a message is received: descriptors that come with it do not survive an `exec`, where that can be said.
    pub(crate) const RECEIVE: i32 = 0; // They are marked afterwards.
    /// How a datagram is received, so that the system tells how long it was, where it does.
    pub(crate) const WHOLE_LENGTH: i32 = 0;
}
