//! The calls of the system that the room makes, in one place: a build for tests (`--cfg pelton_iocp_elsewhere`) has
//! others of the same names, which ask a simulated system (`elsewhere/mod.rs`).

use std::os::windows::io::BorrowedSocket;
use std::sync::OnceLock;

use socket2::{Domain, Protocol, Socket, Type};
use windows_sys::Win32::Networking::WinSock::WSABUF;

pub(super) use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Foundation::RtlNtStatusToDosError;
pub(super) use windows_sys::Win32::Networking::WinSock::{WSARecv, WSASend, bind, setsockopt};
pub(super) use windows_sys::Win32::Storage::FileSystem::{
    ReadFile, SetFileCompletionNotificationModes, WriteFile,
};
#[cfg(pelton_mutants)]
pub(super) use windows_sys::Win32::System::IO::CancelIo;
pub(super) use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatusEx,
};
pub(super) use windows_sys::Win32::System::Memory::{VirtualAlloc, VirtualFree};
pub(super) use windows_sys::Win32::System::Pipes::ConnectNamedPipe;

use super::lookup::{Found, KERNELBASE, NTDLL, find};
use crate::sys::numbers as errno;
use crate::sys::status::Status;
use crate::sys::windows::{MessageHeader, RawDescriptor, RawSocket};

/// The buffers that a message header names.
pub(super) struct Buffers(*const WSABUF, u32);

impl Buffers {
    /// Those of a header. They are looked at as long as it is left as it is.
    pub(super) fn of(header: &MessageHeader) -> Buffers {
        Buffers(header.lpBuffers, header.dwBufferCount)
    }

    pub(super) fn as_ptr(&self) -> *const WSABUF {
        self.0
    }

    pub(super) fn len(&self) -> u32 {
        self.1
    }
}

/// A socket for an accept or a connect, whose simple calls never block.
pub(super) fn fresh_socket(family: i32) -> Result<RawSocket, i32> {
    let domain = Domain::from(family);
    let protocol = (domain != Domain::UNIX).then_some(Protocol::TCP);
    let socket = Socket::new(domain, Type::STREAM, protocol)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    match socket {
        Ok(socket) => Ok(std::os::windows::io::IntoRawSocket::into_raw_socket(socket)),
        Err(error) => Err(error.raw_os_error().unwrap_or(errno::ENOBUFS)),
    }
}

/// What a socket is bound to.
pub(super) type Name = socket2::SockAddr;

/// What an open socket is bound to, where it is.
pub(super) fn name_of(raw: RawDescriptor) -> Result<Name, i32> {
    let RawDescriptor::Socket(socket) = raw else { return Err(errno::ENOTSOCK) };
    // SAFETY: it is open, as its entry is, or just was, in the table.
    let socket = unsafe { BorrowedSocket::borrow_raw(socket) };
    let name = socket2::SockRef::from(&socket).local_addr();
    name.map_err(|error| error.raw_os_error().unwrap_or(errno::EINVAL))
}

/// The family of an open socket's addresses.
pub(super) fn family_of(raw: RawDescriptor) -> Result<i32, i32> {
    name_of(raw).map(|name| i32::from(name.family()))
}

/// The number of an error for a status that only the system knows.
#[cold]
pub(super) fn error_of(status: Status) -> i32 {
    // SAFETY: plain arguments.
    unsafe { RtlNtStatusToDosError(status.0 as i32) as i32 }
}

/// True for two handles that name the same thing, where the system can tell (from Windows 10).
pub(super) fn is_same(one: HANDLE, other: HANDLE) -> bool {
    type Compare = unsafe extern "system" fn(HANDLE, HANDLE) -> i32;
    static FOUND: OnceLock<Option<Compare>> = OnceLock::new();
    let compare = FOUND.get_or_init(|| {
        let found = find(KERNELBASE, c"CompareObjectHandles")?;
        // SAFETY: the function is documented to be of this type.
        Some(unsafe { std::mem::transmute::<Found, Compare>(found) })
    });
    // SAFETY: both are open.
    compare.is_some_and(|compare| unsafe { compare(one, other) } != 0)
}

/// Ends an association, where the system can do that (from Windows 8.1). Says whether it did.
pub(super) fn dissociate(handle: HANDLE) -> bool {
    #[repr(C)]
    struct Completion {
        port: HANDLE,
        key: *mut std::ffi::c_void,
    }
    type Set = unsafe extern "system" fn(HANDLE, *mut usize, *const Completion, u32, i32) -> i32;
    const REPLACE_COMPLETION: i32 = 0x3D;
    static FOUND: OnceLock<Option<Set>> = OnceLock::new();
    let set = FOUND.get_or_init(|| {
        let found = find(NTDLL, c"NtSetInformationFile")?;
        // SAFETY: the function is documented to be of this type.
        Some(unsafe { std::mem::transmute::<Found, Set>(found) })
    });
    let Some(set) = *set else { return false };
    let none = Completion { port: std::ptr::null_mut(), key: std::ptr::null_mut() };
    let mut block = [0_usize; 2];
    let len = size_of::<Completion>() as u32;
    // SAFETY: the handle is open; both arguments are ours.
    let status = unsafe { set(handle, block.as_mut_ptr(), &none, len, REPLACE_COMPLETION) };
    status >= 0
}
