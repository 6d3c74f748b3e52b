//! The calls on a descriptor that need no completion, and what is asked of the system that is no operation.
//!
//! Results are as completions carry them: 0 and more, or the negated number of an error (`errno.rs`).

use std::io;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use std::time::{Instant, SystemTime};

use windows_sys::Win32::Foundation::{CloseHandle, GetLastError};
use windows_sys::Win32::Networking::WinSock::{
    FIONBIO, MSG_PEEK, SD_BOTH, SD_RECEIVE, SD_SEND, SEND_RECV_FLAGS, SIO_UDP_CONNRESET,
    SIO_UDP_NETRESET, SO_TYPE, SOCK_STREAM, SOCKADDR, SOCKET_ERROR, SOL_SOCKET, WSAGetLastError,
    WSAIoctl, closesocket, connect as ws_connect, getsockopt, ioctlsocket, recv as ws_recv,
    recvfrom, send as ws_send, sendto, shutdown as ws_shutdown,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_TYPE_DISK, FlushFileBuffers, GetFileType, ReadFile, WriteFile,
};
use windows_sys::Win32::System::IO::{GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Threading::CreateEventW;

use super::super::{errno, status};
use super::offset::at_offset;
use super::{AddressLength, AddressStorage, RawDescriptor};
use crate::config::Backend;
use crate::message::Received;

/// There is no simulated system on Windows.
#[inline(always)]
pub(crate) fn is_simulated(_: RawDescriptor) -> bool {
    false
}

/// The clock that does not go back.
#[inline(always)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock.
#[inline(always)]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// A random word of a simulated world's: there is none.
#[inline(always)]
pub(crate) fn random() -> Option<u64> {
    None
}

/// The addresses of a name from a simulated world's table: there is none.
#[inline(always)]
pub(crate) fn resolve(_: &str, _: u16) -> Option<io::Result<Vec<std::net::SocketAddr>>> {
    // Before the first name is looked up.
    match super::startup::ensure() {
        Ok(()) => None,
        Err(error) => Some(Err(error)),
    }
}

/// Gives a job of the blocking pool back: no simulated world runs it.
#[inline(always)]
pub(crate) fn run_blocking(job: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> {
    Err(job)
}

/// Which room is wanted, and that it is not on a simulated system.
pub(crate) fn placed(wanted: Backend) -> (Backend, bool) {
    (wanted, false)
}

/// What the last call of Winsock's said.
#[cold]
pub(crate) fn socket_error() -> i32 {
    // SAFETY: reads a word of this thread's.
    unsafe { WSAGetLastError() }
}

/// What the last call of the system's said.
#[cold]
pub(crate) fn system_error() -> i32 {
    // SAFETY: reads a word of this thread's.
    unsafe { GetLastError() as i32 }
}

/// Closes a socket as a socket, and anything else as a handle.
///
/// # Safety
/// The caller owns the number, and nobody uses it after this.
pub(crate) unsafe fn close(raw: RawDescriptor) -> i32 {
    match raw {
        RawDescriptor::Socket(socket) => {
            // SAFETY: the caller says that it is his to close.
            if unsafe { closesocket(socket as usize) } == 0 { 0 } else { -socket_error() }
        }
        RawDescriptor::Handle(handle) => {
            // SAFETY: as above.
            if unsafe { CloseHandle(handle) } != 0 { 0 } else { -system_error() }
        }
    }
}

/// Makes a socket whose simple calls never block; overlapped ones do not mind. Other handles stay as they are.
/// Cannot tell whether it was one already.
pub(crate) fn set_nonblocking(raw: RawDescriptor) -> io::Result<bool> {
    if let Some(socket) = raw.socket() {
        let mut yes = 1;
        // SAFETY: the caller has it open; the argument is a word of ours.
        if unsafe { ioctlsocket(socket, FIONBIO, &mut yes) } != 0 {
            return Err(io::Error::from_raw_os_error(socket_error()));
        }
    }
    Ok(true)
}

/// True for a stream socket.
pub(crate) fn is_stream(raw: RawDescriptor) -> io::Result<bool> {
    let Some(socket) = raw.socket() else { return Ok(false) };
    let (mut kind, mut len) = (0_i32, size_of::<i32>() as i32);
    let to = (&raw mut kind).cast();
    // SAFETY: the caller has it open; both are ours to be written.
    if unsafe { getsockopt(socket, SOL_SOCKET, SO_TYPE, to, &mut len) } != 0 {
        return Err(io::Error::from_raw_os_error(socket_error()));
    }
    Ok(kind == SOCK_STREAM)
}

/// `recv` on a socket that does not block.
///
/// # Safety
/// The socket is open, and `ptr` valid for writes of `len` bytes that nobody else touches.
pub(crate) unsafe fn recv(socket: usize, ptr: *mut u8, len: usize) -> i32 {
    let len = i32::try_from(len).unwrap_or(i32::MAX);
    // SAFETY: by the caller.
    let n = unsafe { ws_recv(socket, ptr, len, 0) };
    if n == SOCKET_ERROR { -socket_error() } else { n }
}

/// `send` on a socket that does not block.
///
/// # Safety
/// The socket is open.
pub(crate) unsafe fn send(socket: usize, bytes: &[u8]) -> i32 {
    let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    const NO_FLAGS: SEND_RECV_FLAGS = 0;
    // SAFETY: by the caller; a slice is valid for reads.
    let n = unsafe { ws_send(socket, bytes.as_ptr(), len, NO_FLAGS) };
    if n == SOCKET_ERROR { -socket_error() } else { n }
}

/// `connect`, of a socket for which that says only where to send to: it does not wait.
///
/// # Safety
/// The socket is open; `len` bytes of the address are valid.
pub(crate) unsafe fn connect(
    socket: usize,
    address: *const MaybeUninit<AddressStorage>,
    len: AddressLength,
) -> i32 {
    // SAFETY: by the caller.
    let failed = unsafe { ws_connect(socket, address.cast::<SOCKADDR>(), len) };
    if failed == SOCKET_ERROR {
        return -socket_error();
    }
    tell_of_resets(socket, true);
    0
}

/// `connect` of a stream, which waits. For a test of what finds that.
///
/// # Safety
/// The socket is open; `len` bytes of the address are valid.
#[cfg(pelton_mutants)]
pub(crate) unsafe fn connect_waiting(
    socket: usize,
    address: *const AddressStorage,
    len: AddressLength,
) -> i32 {
    // SAFETY: by the caller.
    let failed = unsafe { ws_connect(socket, address.cast::<SOCKADDR>(), len) };
    if failed == SOCKET_ERROR { -socket_error() } else { 0 }
}

/// Whether a datagram socket is told that something it sent has found nobody. Off, because that would end receives
/// that wait for others; on for one that is connected. A system that does not know the request does no harm.
pub(crate) fn tell_of_resets(socket: usize, on: bool) {
    let (on, mut n) = (i32::from(on), 0);
    for request in [SIO_UDP_CONNRESET, SIO_UDP_NETRESET] {
        let (value, len, none) = ((&raw const on).cast(), size_of::<i32>() as u32, ptr::null_mut());
        // SAFETY: the caller has the socket open; the argument is a word of ours, and the call does not wait.
        unsafe { WSAIoctl(socket, request, value, len, none, 0, &mut n, ptr::null_mut(), None) };
    }
}

/// `shutdown`.
pub(crate) fn shutdown(raw: RawDescriptor, how: Shutdown) -> i32 {
    let Some(socket) = raw.socket() else { return -errno::ENOTSOCK };
    let how = match how {
        Shutdown::Read => SD_RECEIVE,
        Shutdown::Write => SD_SEND,
        Shutdown::Both => SD_BOTH,
    };
    // SAFETY: plain arguments.
    if unsafe { ws_shutdown(socket, how) } == 0 { 0 } else { -socket_error() }
}

/// True for a file on a disk.
pub(crate) fn is_file(raw: RawDescriptor) -> bool {
    // SAFETY: plain arguments.
    unsafe { GetFileType(raw.handle()) == FILE_TYPE_DISK }
}

/// Reads from a file, on a thread that may wait, whether its calls do that or not.
///
/// # Safety
/// The handle is open, and `ptr` valid for writes of `len` bytes that nobody else touches.
pub(crate) unsafe fn pread(raw: RawDescriptor, ptr: *mut u8, len: usize, offset: u64) -> i32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let read = |n: *mut u32, overlapped: *mut OVERLAPPED| {
        // SAFETY: by the caller: all of it is there until the call is over, which `waited` waits for.
        unsafe { ReadFile(raw.handle(), ptr, len, n, overlapped) }
    };
    waited(raw, offset, read).unwrap_or_else(file_read_failed)
}

/// Makes a call on a file, and waits until it is over: how many bytes, or what was wrong.
///
/// The handle may be one whose calls go on, and may be associated with somebody's port. So it signals an event, whose
/// lowest bit says that no packet is to be posted.
fn waited(
    raw: RawDescriptor,
    offset: u64,
    call: impl FnOnce(*mut u32, *mut OVERLAPPED) -> i32,
) -> Result<i32, i32> {
    // SAFETY: an event of no name that is reset by a new call.
    let event = unsafe { CreateEventW(ptr::null(), 1, 0, ptr::null()) };
    if event.is_null() {
        return Err(system_error());
    }
    // SAFETY: it has just been made, and nobody else owns it.
    let event = unsafe { OwnedHandle::from_raw_handle(event) };
    let signal = event.as_raw_handle().map_addr(|address| address | 1);
    let mut overlapped =
        OVERLAPPED { Anonymous: at_offset(offset), hEvent: signal, ..OVERLAPPED::default() };
    let mut n = 0;
    let mut done = call(&mut n, &mut overlapped);
    if done == 0 && system_error() == errno::IO_PENDING {
        // SAFETY: the handle is open, and the call was made on it with this `OVERLAPPED`. When this returns the kernel
        // has written that for the last time.
        done = unsafe { GetOverlappedResult(raw.handle(), &overlapped, &mut n, 1) };
    }
    if done != 0 { Ok(n as i32) } else { Err(system_error()) }
}

/// What a read of a file ends with that has failed: at the end of the file it has read nothing.
pub(crate) fn file_read_failed(error: i32) -> i32 {
    if error == errno::HANDLE_EOF { 0 } else { -status::of_file(error) }
}

/// Writes to a file, on a thread that may wait, whether its calls do that or not.
///
/// # Safety
/// The handle is open, and `ptr` valid for reads of `len` bytes.
pub(crate) unsafe fn pwrite(raw: RawDescriptor, ptr: *const u8, len: usize, offset: u64) -> i32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let write = |n: *mut u32, overlapped: *mut OVERLAPPED| {
        // SAFETY: as for `pread`.
        unsafe { WriteFile(raw.handle(), ptr, len, n, overlapped) }
    };
    waited(raw, offset, write).unwrap_or_else(|error| -status::of_file(error))
}

/// Brings what was written to a file to the disk. Windows knows no less than all of it.
pub(crate) fn fsync(raw: RawDescriptor) -> i32 {
    // SAFETY: plain arguments.
    if unsafe { FlushFileBuffers(raw.handle()) } != 0 { 0 } else { -system_error() }
}

/// `recvfrom` into one buffer, and what came of it, on a socket that does not block. Windows does not tell how long
/// a datagram was that did not fit.
///
/// # Safety
/// `raw` is open, and `ptr` valid for writes of `len` bytes that nobody else touches.
pub(crate) unsafe fn receive_one(
    raw: RawDescriptor,
    ptr: *mut u8,
    len: usize,
    peek: bool,
    _: bool,
) -> io::Result<Received> {
    let Some(socket) = raw.socket() else {
        return Err(io::Error::from_raw_os_error(errno::ENOTSOCK));
    };
    let room = i32::try_from(len).unwrap_or(i32::MAX);
    let mut address = MaybeUninit::<AddressStorage>::zeroed();
    let mut address_len = size_of::<AddressStorage>() as AddressLength;
    let flags = if peek { MSG_PEEK } else { 0 };
    let from = address.as_mut_ptr().cast();
    // SAFETY: by the caller; the address and its length are ours.
    let n = unsafe { recvfrom(socket, ptr, room, flags, from, &mut address_len) };
    let error = if n == SOCKET_ERROR { socket_error() } else { 0 };
    let truncated = error == errno::WSAEMSGSIZE;
    if error != 0 && !truncated {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: all of the storage is initialised.
    let from = unsafe { super::socket_address(address.as_ptr(), address_len) };
    let filled = if truncated { len } else { n as usize };
    let whole_len = (!truncated).then_some(filled);
    Ok(Received { len: filled, from, truncated, whole_len, control_truncated: false })
}

/// `sendto`, or `send` without an address, on a socket that does not block.
///
/// # Safety
/// `raw` is open.
pub(crate) unsafe fn send_one(
    raw: RawDescriptor,
    bytes: &[u8],
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    let Some(socket) = raw.socket() else {
        return Err(io::Error::from_raw_os_error(errno::ENOTSOCK));
    };
    let (mut address, mut address_len) = (MaybeUninit::<AddressStorage>::zeroed(), 0);
    let mut name = std::ptr::null();
    if let Some(to) = to {
        // SAFETY: there is room for a whole storage.
        address_len = unsafe { super::write_address(&to, address.as_mut_ptr()) };
        name = address.as_ptr().cast();
    }
    let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: by the caller; a slice is valid for reads, and the address is ours.
    let n = unsafe { sendto(socket, bytes.as_ptr(), len, 0, name, address_len) };
    if n == SOCKET_ERROR {
        Err(io::Error::from_raw_os_error(socket_error()))
    } else {
        Ok(n as usize)
    }
}
