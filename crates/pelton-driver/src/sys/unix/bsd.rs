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
pub(crate) fn pipe2() -> Result<(OwnedFd, OwnedFd), Errno> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
}
