//! The calls of Windows that the room makes, made of a simulated system: for tests, on Linux.
//!
//! They have the names, the arguments and the manners of the real ones: an error is remembered for whoever asks, a
//! wait that brings nothing leaves a count that is not to be read, a cancel that finds nothing says so. What the
//! simulated system does beneath, and what it leaves open, is in `sim/port.rs`. It cannot show what a real one does
//! of which neither knows.

#![allow(non_snake_case, clippy::too_many_arguments, reason = "they are the system's")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
#[cfg(test)]
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use windows_sys::Win32::Networking::WinSock::{
    SO_UPDATE_ACCEPT_CONTEXT, SO_UPDATE_CONNECT_CONTEXT, SOCKADDR, WSABUF,
};
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_ENTRY};
use windows_sys::Win32::System::Memory::MEM_COMMIT;
use windows_sys::Win32::System::Threading::INFINITE;
use windows_sys::Win32::System::WindowsProgramming::FILE_SKIP_COMPLETION_PORT_ON_SUCCESS;

pub(super) use windows_sys::Win32::Foundation::HANDLE;

use crate::scratch::MAX_PARTS;
use crate::sim::calls as kernel;
use crate::sim::port::Call;
use crate::sim::port_calls as sim;
use crate::sys::numbers as errno;
use crate::sys::status::Status;
use crate::sys::windows::calls::set_error;
use crate::sys::windows::{MessageHeader, RawDescriptor, RawSocket, buffer};

#[cfg(test)]
mod tests;

fn number(handle: HANDLE) -> crate::sys::RawDescriptor {
    handle.addr() as crate::sys::RawDescriptor
}

/// What Winsock's calls return.
fn socket_result(error: i32) -> i32 {
    if error == 0 {
        return 0;
    }
    set_error(error);
    -1
}

/// What the system's other calls return.
fn bool_result(error: i32) -> i32 {
    if error == 0 {
        return 1;
    }
    set_error(error);
    0
}

/// What tests have the system refuse.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refused {
    /// A wait fails without saying why.
    pub(crate) wait: bool,
    /// There is no device for polls.
    pub(crate) device: bool,
}

#[cfg(test)]
thread_local! {
    pub(crate) static REFUSED: std::cell::Cell<Refused> =
        const { std::cell::Cell::new(Refused { wait: false, device: false }) };
}

/// The port that refuses the next packet which wakes its driver, from any thread.
#[cfg(test)]
pub(crate) static REFUSED_WAKE: RefusedWake = RefusedWake(AtomicI32::new(-1));

#[cfg(test)]
pub(crate) struct RefusedWake(AtomicI32);

#[cfg(test)]
impl RefusedWake {
    fn set(&self, driver: &crate::Driver) {
        self.0.store(number(driver.notifier().shared.wake.port()), Ordering::SeqCst);
    }

    /// Whether the packet is refused that is about to be posted.
    pub(crate) fn take(&self, port: crate::sys::RawDescriptor) -> bool {
        self.0.compare_exchange(port, -1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

// Ports.

/// # Safety
/// Plain arguments.
pub(super) unsafe fn CreateIoCompletionPort(
    handle: HANDLE,
    port: HANDLE,
    key: usize,
    _threads: u32,
) -> HANDLE {
    match sim::associate(number(port), number(handle), key) {
        0 => port,
        error => {
            set_error(error);
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// Plain arguments.
pub(super) unsafe fn SetFileCompletionNotificationModes(handle: HANDLE, modes: u8) -> i32 {
    if u32::from(modes) & FILE_SKIP_COMPLETION_PORT_ON_SUCCESS != 0 {
        sim::skip_successes(number(handle));
    }
    1
}

/// # Safety
/// There is room for so many entries.
pub(super) unsafe fn GetQueuedCompletionStatusEx(
    port: HANDLE,
    entries: *mut OVERLAPPED_ENTRY,
    count: u32,
    removed: *mut u32,
    milliseconds: u32,
    _alertable: i32,
) -> i32 {
    // SAFETY: by the caller. What it says of a wait that brings nothing is not to be read.
    unsafe { *removed = 1 };
    #[cfg(test)]
    if REFUSED.get().wait {
        return bool_result_without_error();
    }
    let timeout = (milliseconds != INFINITE).then(|| Duration::from_millis(milliseconds.into()));
    let packets = match sim::wait(number(port), count as usize, timeout) {
        Ok(packets) if packets.is_empty() => return bool_result(errno::WAIT_TIMEOUT),
        Ok(packets) => packets,
        Err(error) => return bool_result(error),
    };
    for (at, packet) in packets.iter().enumerate() {
        // Of how it went a packet says nothing: nobody promises that it does.
        let entry = OVERLAPPED_ENTRY {
            lpCompletionKey: packet.key,
            lpOverlapped: packet.overlapped.cast(),
            ..OVERLAPPED_ENTRY::default()
        };
        // SAFETY: by the caller, there are no more than was said.
        unsafe { entries.add(at).write(entry) };
    }
    // SAFETY: by the caller.
    unsafe { *removed = packets.len() as u32 };
    1
}

#[cfg(test)]
fn bool_result_without_error() -> i32 {
    set_error(0);
    0
}

/// # Safety
/// The pointer is only compared.
pub(super) unsafe fn CancelIoEx(handle: HANDLE, overlapped: *const OVERLAPPED) -> i32 {
    let found = sim::cancel(number(handle), Some(overlapped.cast()));
    bool_result(if found { 0 } else { errno::NOT_FOUND })
}

/// Of every call of this thread's on a handle.
///
/// # Safety
/// Plain arguments.
#[cfg(pelton_mutants)]
pub(super) unsafe fn CancelIo(handle: HANDLE) -> i32 {
    sim::cancel(number(handle), None);
    1
}

/// Ends an association.
pub(super) fn dissociate(handle: HANDLE) -> bool {
    sim::dissociate(number(handle))
}

pub(super) fn is_same(one: HANDLE, other: HANDLE) -> bool {
    sim::is_same(number(one), number(other))
}

/// The number of an error for a status that only the system knows.
pub(super) fn error_of(status: Status) -> i32 {
    match status.0 {
        0xC000_0185 => libc::EIO,
        0xC000_0904 => libc::EFBIG,
        _ => libc::EINVAL,
    }
}

// Sockets.

/// # Safety
/// As the real one: with an `OVERLAPPED` the memory and that are the system's until the packet; without one it is
/// over when this returns.
pub(super) unsafe fn WSARecv(
    socket: usize,
    buffers: *const WSABUF,
    count: u32,
    received: *mut u32,
    _flags: *mut u32,
    overlapped: *mut OVERLAPPED,
    _routine: Option<fn()>,
) -> i32 {
    // SAFETY: by the caller.
    unsafe { transfer(socket, buffers, count, received, overlapped, Call::Receive) }
}

/// # Safety
/// As for [`WSARecv`].
pub(super) unsafe fn WSASend(
    socket: usize,
    buffers: *const WSABUF,
    count: u32,
    sent: *mut u32,
    _flags: u32,
    overlapped: *mut OVERLAPPED,
    _routine: Option<fn()>,
) -> i32 {
    // SAFETY: by the caller.
    unsafe { transfer(socket, buffers, count, sent, overlapped, Call::Send) }
}

/// # Safety
/// As for [`WSARecv`].
unsafe fn transfer(
    socket: usize,
    buffers: *const WSABUF,
    count: u32,
    transferred: *mut u32,
    overlapped: *mut OVERLAPPED,
    call: Call,
) -> i32 {
    // SAFETY: by the caller.
    let buffers = unsafe { std::slice::from_raw_parts(buffers, count as usize) };
    if !overlapped.is_null() {
        let parts = buffers.iter().map(|part| (part.buf, part.len as usize)).collect();
        // SAFETY: by the caller.
        let error = unsafe { sim::overlapped(socket as i32, None, overlapped.cast(), call, parts) };
        return socket_result(error);
    }
    let part = |part: &WSABUF| crate::sys::part(part.buf, part.len as usize);
    let mut parts: Vec<_> = buffers.iter().map(part).collect();
    let mut header = crate::sys::message_header(parts.as_mut_ptr(), parts.len());
    // SAFETY: by the caller.
    let result = unsafe {
        match call {
            Call::Receive => kernel::recvmsg(socket as i32, &mut header),
            _ => kernel::sendmsg(socket as i32, &header),
        }
    };
    if result < 0 {
        return socket_result(-result);
    }
    // SAFETY: by the caller.
    unsafe { *transferred = result as u32 };
    0
}

/// Binds to any address of the family that is said.
///
/// # Safety
/// An address starts with its family.
pub(super) unsafe fn bind(socket: usize, name: *const SOCKADDR, _len: i32) -> i32 {
    // SAFETY: by the caller.
    let family = unsafe { name.cast::<u16>().read() };
    let any: SocketAddr = match i32::from(family) == libc::AF_INET6 {
        true => (Ipv6Addr::UNSPECIFIED, 0).into(),
        false => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    socket_result(-kernel::bind(socket as i32, any))
}

/// # Safety
/// The value is as long as is said.
pub(super) unsafe fn setsockopt(
    socket: usize,
    _level: i32,
    option: i32,
    value: *const u8,
    _len: i32,
) -> i32 {
    socket_result(match option {
        SO_UPDATE_ACCEPT_CONTEXT => {
            // SAFETY: it is the number of a listener.
            let listener = unsafe { value.cast::<usize>().read_unaligned() };
            sim::update_context(socket as i32, Some(listener as i32))
        }
        SO_UPDATE_CONNECT_CONTEXT => sim::update_context(socket as i32, None),
        _ => libc::ENOPROTOOPT,
    })
}

/// A socket for an accept.
pub(super) fn fresh_socket(family: i32) -> Result<RawSocket, i32> {
    match kernel::socket(family == libc::AF_INET6, kernel::SocketKind::Stream, true) {
        error if error < 0 => Err(-error),
        socket => Ok(socket as RawSocket),
    }
}

/// What a socket is bound to.
pub(super) type Name = SocketAddr;

pub(super) fn name_of(raw: RawDescriptor) -> Result<Name, i32> {
    let socket = raw.socket().ok_or(errno::ENOTSOCK)?;
    kernel::local_addr(socket as i32).map_err(|error| -error)
}

pub(super) fn family_of(raw: RawDescriptor) -> Result<i32, i32> {
    name_of(raw).map(|name| if name.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET })
}

/// The buffers that a message header names.
pub(super) struct Buffers {
    all: [WSABUF; MAX_PARTS],
    count: u32,
}

impl Buffers {
    #[allow(clippy::unnecessary_cast)] // With other C libraries the number has another type.
    pub(super) fn of(header: &MessageHeader) -> Buffers {
        let mut all = [buffer(std::ptr::null_mut(), 0); MAX_PARTS];
        let count = header.msg_iovlen as usize;
        for (at, place) in all.iter_mut().enumerate().take(count) {
            // SAFETY: the header stands in a scratch block, with as many parts as it says.
            let part = unsafe { &*header.msg_iov.add(at) };
            *place = buffer(part.iov_base.cast(), part.iov_len);
        }
        Buffers { all, count: count as u32 }
    }

    pub(super) fn as_ptr(&self) -> *const WSABUF {
        self.all.as_ptr()
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }
}

// Files.

/// # Safety
/// The memory and the `OVERLAPPED` are the system's until the packet.
pub(super) unsafe fn ReadFile(
    handle: HANDLE,
    ptr: *mut u8,
    len: u32,
    _read: *mut u32,
    overlapped: *mut OVERLAPPED,
) -> i32 {
    // SAFETY: by the caller.
    unsafe { file(handle, ptr, len, overlapped, Call::Read) }
}

/// # Safety
/// As for [`ReadFile`].
pub(super) unsafe fn WriteFile(
    handle: HANDLE,
    ptr: *const u8,
    len: u32,
    _written: *mut u32,
    overlapped: *mut OVERLAPPED,
) -> i32 {
    // SAFETY: by the caller.
    unsafe { file(handle, ptr.cast_mut(), len, overlapped, Call::Write) }
}

/// # Safety
/// As for [`ReadFile`].
unsafe fn file(
    handle: HANDLE,
    ptr: *mut u8,
    len: u32,
    overlapped: *mut OVERLAPPED,
    call: fn(u64) -> Call,
) -> i32 {
    if sim::kind_of(number(handle)) == kernel::RawFile::Pipe {
        let call = if matches!(call(0), Call::Read(_)) { Call::Receive } else { Call::Send };
        let parts = vec![(ptr, len as usize)];
        // SAFETY: by the caller.
        let error =
            unsafe { sim::overlapped(number(handle), None, overlapped.cast(), call, parts) };
        return bool_result(error);
    }
    // SAFETY: by the caller; the union is two numbers here.
    let place = unsafe { (*overlapped).Anonymous.Anonymous };
    let offset = u64::from(place.Offset) | u64::from(place.OffsetHigh) << 32;
    let parts = vec![(ptr, len as usize)];
    // SAFETY: by the caller.
    let error =
        unsafe { sim::overlapped(number(handle), None, overlapped.cast(), call(offset), parts) };
    bool_result(error)
}

/// No pipe has a name here, nor a client to wait for.
///
/// # Safety
/// Plain arguments.
pub(super) unsafe fn ConnectNamedPipe(_: HANDLE, _: *mut OVERLAPPED) -> i32 {
    bool_result(errno::EOPNOTSUPP)
}

// Memory.

static RESERVED: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);

/// # Safety
/// Plain arguments, or a range that has been reserved.
pub(super) unsafe fn VirtualAlloc(
    at: *const c_void,
    len: usize,
    how: u32,
    _protection: u32,
) -> *mut c_void {
    if how & MEM_COMMIT != 0 {
        // It has been there since it was reserved.
        return at.cast_mut();
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory, of the system's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return std::ptr::null_mut();
    }
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    reserved.get_or_insert_default().insert(start.addr(), len);
    start
}

/// # Safety
/// It was reserved, and nobody uses it any more.
pub(super) unsafe fn VirtualFree(start: *mut c_void, _len: usize, _how: u32) -> i32 {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(len) = reserved.get_or_insert_default().remove(&start.addr()) else { return 0 };
    // SAFETY: by the caller.
    unsafe { libc::munmap(start, len) };
    1
}
