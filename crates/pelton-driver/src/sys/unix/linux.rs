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
pub(crate) fn pipe2() -> Result<(OwnedFd, OwnedFd), Errno> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
}
