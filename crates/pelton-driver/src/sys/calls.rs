//! Every call that the rooms make on a descriptor, in one place: a descriptor of a simulated system (feature
//! `sim`) is asked of that system, any other of the real one.
//!
//! The two are told apart by the number. Without the feature there is nothing to tell apart, and nothing
//! here costs an instruction. Results are as completions carry them: 0 and more, or a negated `errno`.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Instant, SystemTime};

use super::descriptor::OwnedDescriptor;
use super::unix::{
    AddressLength, AddressStorage, MessageHeader, NO_DESCRIPTOR, RawDescriptor, borrow, check,
    native,
};
use crate::config::Backend;
use crate::message::Received;
#[cfg(feature = "sim")]
use crate::sim::calls as sim;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(in crate::sys) use linux::*;

/// True for the number of a descriptor of a simulated system.
#[inline(always)]
pub(crate) fn is_simulated(raw: RawDescriptor) -> bool {
    #[cfg(feature = "sim")]
    return sim::owns(raw);
    #[cfg(not(feature = "sim"))]
    {
        let _ = raw;
        false
    }
}

/// The clock that does not go back: the world's in a world, else the system's.
#[inline(always)]
pub(crate) fn now() -> Instant {
    #[cfg(feature = "sim")]
    if let Some(now) = sim::now() {
        return now;
    }
    Instant::now()
}

/// The wall clock: the world's in a world, else the system's.
#[inline(always)]
pub(crate) fn wall() -> SystemTime {
    #[cfg(feature = "sim")]
    if let Some(wall) = sim::wall() {
        return wall;
    }
    SystemTime::now()
}

/// A random word of the world's; none outside of a world.
#[inline(always)]
pub(crate) fn random() -> Option<u64> {
    #[cfg(feature = "sim")]
    return sim::random();
    #[cfg(not(feature = "sim"))]
    None
}

/// The addresses of a name from the world's table; none outside of a world.
#[inline(always)]
pub(crate) fn resolve(host: &str, port: u16) -> Option<io::Result<Vec<std::net::SocketAddr>>> {
    #[cfg(feature = "sim")]
    return sim::resolve(host, port);
    #[cfg(not(feature = "sim"))]
    {
        let _ = (host, port);
        None
    }
}

/// Has the world run a job of the blocking pool, in its own order; gives it back outside of a world.
#[inline(always)]
pub(crate) fn run_blocking(job: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> {
    #[cfg(feature = "sim")]
    return sim::run_blocking(job);
    #[cfg(not(feature = "sim"))]
    Err(job)
}

/// Which room is wanted, and whether on a simulated system: on that of this thread's world where there is
/// one, whatever was asked for.
pub(crate) fn placed(wanted: Backend) -> (Backend, bool) {
    #[cfg(feature = "sim")]
    {
        if wanted == Backend::Sim {
            sim::enter_default();
        }
        if sim::in_world() {
            let wanted = match wanted {
                Backend::Sim | Backend::Auto if sim::prefers_ports() => Backend::Iocp,
                Backend::Sim | Backend::Auto if sim::prefers_readiness() => Backend::Epoll,
                Backend::Sim => Backend::Auto,
                other => other,
            };
            return (wanted, true);
        }
    }
    (wanted, false)
}

/// `close`.
///
/// # Safety
/// The caller owns the number, and nobody uses it after this.
#[inline(always)]
pub(crate) unsafe fn close(raw: RawDescriptor) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::close(raw);
    }
    // SAFETY: the caller says that it is his to close.
    check(unsafe { libc::close(raw) as isize })
}

/// [`close`], of which nobody wants to know how it went.
///
/// # Safety
/// As for [`close`].
#[inline(always)]
pub(super) unsafe fn close_quietly(raw: RawDescriptor) {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        sim::close(raw);
        return;
    }
    // SAFETY: the caller says that it is his to close.
    drop(unsafe { OwnedFd::from_raw_fd(raw) });
}

/// Makes a descriptor that never blocks, if it is not one already. True when it had to. Where a send cannot say
/// that it raises no signal, that is said of the socket here.
pub(crate) fn set_nonblocking(raw: RawDescriptor) -> io::Result<bool> {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::set_nonblocking(raw).map_err(super::unix::error_of);
    }
    native::without_signal(raw);
    // SAFETY: the caller has it open.
    super::unix::set_nonblocking(unsafe { borrow(raw) })
}

/// True for a stream socket. A guess would not do: a receive of a message from what is taken for a datagram socket
/// asks for the datagram's whole length, which on a stream throws the bytes away and says that they are there.
pub(crate) fn is_stream(raw: RawDescriptor) -> io::Result<bool> {
    use rustix::io::Errno;
    use rustix::net::SocketType;
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return Ok(sim::is_stream(raw));
    }
    // SAFETY: the caller has it open.
    match rustix::net::sockopt::socket_type(unsafe { borrow(raw) }) {
        Ok(socket) => Ok(socket == SocketType::STREAM),
        // No socket, or a path that nothing can be received from.
        Err(Errno::NOTSOCK | Errno::BADF) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// True for a file on a disk, or in memory.
pub(crate) fn is_file(raw: RawDescriptor) -> bool {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::is_file(raw);
    }
    // SAFETY: the caller has it open.
    let stat = rustix::fs::fstat(unsafe { borrow(raw) });
    stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
}

/// `recv`, which does not wait.
///
/// # Safety
/// `raw` is open, and `ptr` valid for writes of `len` bytes that nobody else touches.
#[inline(always)]
pub(super) unsafe fn recv(raw: RawDescriptor, ptr: *mut u8, len: usize) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::recv(raw, ptr, len) };
    }
    // SAFETY: by the caller; `MaybeUninit` may hold anything.
    let memory = unsafe { std::slice::from_raw_parts_mut(ptr.cast::<MaybeUninit<u8>>(), len) };
    // SAFETY: by the caller; and what is open has a number.
    let fd = unsafe {
        std::hint::assert_unchecked(raw != NO_DESCRIPTOR);
        borrow(raw)
    };
    match rustix::net::recv(fd, memory, rustix::net::RecvFlags::DONTWAIT) {
        Ok((_, n)) => n.min(len) as i32,
        Err(error) => -error.raw_os_error(),
    }
}

/// `send`, which does not wait and raises no signal.
///
/// # Safety
/// `raw` is open.
#[inline(always)]
pub(super) unsafe fn send(raw: RawDescriptor, bytes: &[u8]) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: a slice is valid for reads.
        return unsafe { sim::send(raw, bytes.as_ptr(), bytes.len()) };
    }
    // SAFETY: as in `recv`.
    let fd = unsafe {
        std::hint::assert_unchecked(raw != NO_DESCRIPTOR);
        borrow(raw)
    };
    match rustix::net::send(fd, bytes, native::SEND) {
        Ok(n) => n.min(bytes.len()) as i32,
        Err(error) => -error.raw_os_error(),
    }
}

/// `read`, of a descriptor that does not block.
///
/// # Safety
/// `raw` is open, and `ptr` valid for writes of `len` bytes that nobody else touches.
pub(super) unsafe fn read(raw: RawDescriptor, ptr: *mut u8, len: usize) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::read(raw, ptr, len) };
    }
    // SAFETY: by the caller.
    check(unsafe { libc::read(raw, ptr.cast(), len) })
}

/// `write`, on a descriptor that does not block.
///
/// # Safety
/// `raw` is open.
pub(super) unsafe fn write(raw: RawDescriptor, bytes: &[u8]) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: a slice is valid for reads.
        return unsafe { sim::write(raw, bytes.as_ptr(), bytes.len()) };
    }
    // SAFETY: by the caller; a slice is valid for reads.
    check(unsafe { libc::write(raw, bytes.as_ptr().cast(), bytes.len()) })
}

/// `recvmsg`, which does not wait.
///
/// # Safety
/// The header and what it names are valid, and nobody else touches them.
#[inline(always)]
pub(super) unsafe fn recvmsg(raw: RawDescriptor, header: *mut MessageHeader) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::recvmsg(raw, header) };
    }
    // SAFETY: by the caller.
    check(unsafe { libc::recvmsg(raw, header, libc::MSG_DONTWAIT) })
}

/// `sendmsg`, which does not wait and raises no signal.
///
/// # Safety
/// The header and what it names are valid.
#[inline(always)]
pub(super) unsafe fn sendmsg(raw: RawDescriptor, header: *const MessageHeader) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::sendmsg(raw, header) };
    }
    // SAFETY: by the caller.
    check(unsafe { libc::sendmsg(raw, header, native::SEND.bits() as i32) })
}

/// `recvmsg` of one datagram, with these flags besides, which does not wait.
///
/// # Safety
/// The header and what it names are valid, and nobody else touches them.
pub(super) unsafe fn receive_message(
    raw: RawDescriptor,
    header: *mut MessageHeader,
    flags: i32,
) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::receive_message(raw, header, flags) };
    }
    // SAFETY: by the caller.
    check(unsafe { libc::recvmsg(raw, header, flags | libc::MSG_DONTWAIT) })
}

/// [`receive_message`] into one buffer, and what came of it; does not wait.
///
/// # Safety
/// `raw` is open, and `ptr` valid for writes of `len` bytes that nobody else touches.
pub(crate) unsafe fn receive_one(
    raw: RawDescriptor,
    ptr: *mut u8,
    len: usize,
    peek: bool,
    stream: bool,
) -> io::Result<Received> {
    let mut part = super::part(ptr, len);
    let mut header = super::message_header(&mut part, 1);
    let mut address = MaybeUninit::<AddressStorage>::zeroed();
    let address_len = size_of::<AddressStorage>() as AddressLength;
    let nothing = std::ptr::null_mut();
    super::name_message(&mut header, address.as_mut_ptr(), address_len, nothing, 0);
    let flags = super::unix::receive_flags(stream) | if peek { libc::MSG_PEEK } else { 0 };
    loop {
        // SAFETY: all that the header names is here, or the caller's.
        let result = unsafe { receive_message(raw, &mut header, flags) };
        if result == -libc::EINTR {
            continue;
        }
        let whole = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?;
        let end = super::message_end(&header);
        // SAFETY: all of the storage is initialised.
        let from = unsafe { super::socket_address(address.as_ptr(), end.address_len) };
        return Ok(Received {
            len: whole.min(len),
            from,
            truncated: end.truncated,
            whole_len: (!end.truncated || whole > len).then_some(whole),
            control_truncated: end.control_truncated,
        });
    }
}

/// `sendmsg` of one buffer, to an address where there is one; does not wait.
///
/// # Safety
/// `raw` is open.
pub(crate) unsafe fn send_one(
    raw: RawDescriptor,
    bytes: &[u8],
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    let mut part = super::part(bytes.as_ptr().cast_mut(), bytes.len());
    let mut header = super::message_header(&mut part, 1);
    let mut address = MaybeUninit::<AddressStorage>::zeroed();
    if let Some(to) = to {
        // SAFETY: there is room for a whole storage.
        let len = unsafe { super::write_address(&to, address.as_mut_ptr()) };
        super::name_message(&mut header, address.as_mut_ptr(), len, std::ptr::null_mut(), 0);
    }
    loop {
        // SAFETY: all that the header names is here, or the caller's.
        match unsafe { sendmsg(raw, &header) } {
            result if result == -libc::EINTR => {}
            result => {
                return usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            }
        }
    }
}

/// `accept4`: the connection neither blocks nor survives an `exec`.
///
/// # Safety
/// Both pointers are null, or valid and nobody else's.
#[inline(always)]
pub(super) unsafe fn accept(
    raw: RawDescriptor,
    address: *mut AddressStorage,
    len: *mut AddressLength,
) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::accept(raw, address, len, true) };
    }
    // SAFETY: by the caller.
    unsafe { native::accept4(raw, address, len) }
}

/// `connect`.
///
/// # Safety
/// `len` bytes of the address are valid.
#[inline(always)]
pub(super) unsafe fn connect(
    raw: RawDescriptor,
    address: *const AddressStorage,
    len: AddressLength,
) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::connect(raw, address, len) };
    }
    // SAFETY: by the caller.
    check(unsafe { libc::connect(raw, address.cast(), len) as isize })
}

/// `shutdown`.
#[inline(always)]
pub(super) fn shutdown(raw: RawDescriptor, how: i32) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::shutdown(raw, how);
    }
    // SAFETY: plain arguments.
    check(unsafe { libc::shutdown(raw, how) as isize })
}

/// `poll` of one descriptor, which does not wait: the events that are there, 0 for none.
#[inline(always)]
pub(super) fn poll(raw: RawDescriptor, events: i16) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::poll(raw, events);
    }
    let mut poll = libc::pollfd { fd: raw, events, revents: 0 };
    // SAFETY: one valid entry; the call returns at once.
    match check(unsafe { libc::poll(&mut poll, 1, 0) as isize }) {
        1 => i32::from(poll.revents),
        none_or_error => none_or_error,
    }
}

/// `preadv2` of one part, which does not wait: only what the page cache has.
///
/// # Safety
/// `ptr` is valid for writes of `len` bytes that nobody else touches.
#[inline(always)]
pub(super) unsafe fn pread_cached(
    raw: RawDescriptor,
    ptr: *mut u8,
    len: usize,
    offset: u64,
) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::pread_cached(raw, ptr, len, offset) };
    }
    // SAFETY: by the caller.
    unsafe { native::pread_cached(raw, ptr, len, offset) }
}

/// `pread`.
///
/// # Safety
/// `ptr` is valid for writes of `len` bytes that nobody else touches.
pub(super) unsafe fn pread(raw: RawDescriptor, ptr: *mut u8, len: usize, offset: u64) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::pread(raw, ptr, len, offset) };
    }
    let Ok(offset) = libc::off_t::try_from(offset) else { return -libc::EINVAL };
    // SAFETY: by the caller.
    check(unsafe { libc::pread(raw, ptr.cast(), len, offset) })
}

/// `pwrite`.
///
/// # Safety
/// `ptr` is valid for reads of `len` bytes.
pub(super) unsafe fn pwrite(raw: RawDescriptor, ptr: *const u8, len: usize, offset: u64) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        // SAFETY: by the caller.
        return unsafe { sim::pwrite(raw, ptr, len, offset) };
    }
    let Ok(offset) = libc::off_t::try_from(offset) else { return -libc::EINVAL };
    // SAFETY: by the caller.
    check(unsafe { libc::pwrite(raw, ptr.cast(), len, offset) })
}

/// `fsync`, or `fdatasync`.
pub(super) fn fsync(raw: RawDescriptor, data_only: bool) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::fsync(raw, data_only);
    }
    native::fsync(raw, data_only)
}

/// Makes an edge on a simulated wake source, from any thread; none for a real one.
#[inline(always)]
pub(super) fn wake_simulated(raw: RawDescriptor) -> Option<io::Result<()>> {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        #[cfg(all(test, pelton_iocp_elsewhere))]
        if super::iocp::refuses_wake(raw) {
            return Some(Err(super::unix::error_of(-libc::ENOMEM)));
        }
        if !sim::is_here(raw) {
            // The world is another thread's, which alone may touch it.
            sim::remote_wake(raw);
            return Some(Ok(()));
        }
        return Some(match sim::eventfd_write(raw) {
            result if result >= 0 || result == -libc::EAGAIN => Ok(()),
            error => Err(super::unix::error_of(error)),
        });
    }
    let _ = raw;
    None
}

/// A wake source of this thread's simulated system.
pub(super) fn eventfd_simulated() -> io::Result<OwnedDescriptor> {
    #[cfg(feature = "sim")]
    return made(sim::eventfd());
    #[cfg(not(feature = "sim"))]
    Err(io::ErrorKind::Unsupported.into())
}

/// A completion port of this thread's simulated system.
#[cfg(pelton_iocp_elsewhere)]
pub(super) fn port_simulated() -> io::Result<OwnedDescriptor> {
    made(crate::sim::port_calls::port())
}

/// What the simulated system has just made for us, or its error.
#[cfg(feature = "sim")]
fn made(result: i32) -> io::Result<OwnedDescriptor> {
    if result < 0 {
        return Err(super::unix::error_of(result));
    }
    // SAFETY: it has just been made, and nobody else knows of it.
    Ok(unsafe { super::descriptor::own(result) })
}
