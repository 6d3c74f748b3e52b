//! The calls of Winsock that have to be asked for, of a simulated system.

#![allow(clippy::too_many_arguments, reason = "they are the system's")]

use std::ffi::c_void;
use std::io;
use std::net::SocketAddr;

use windows_sys::Win32::System::IO::OVERLAPPED;

use crate::sim::port::Call;
use crate::sim::port_calls as sim;
use crate::sys::windows::calls::set_error;
use crate::sys::windows::{AddressLength, AddressStorage};
use crate::sys::{socket_address, write_address};

type AcceptEx =
    unsafe fn(usize, usize, *mut c_void, u32, u32, u32, *mut u32, *mut OVERLAPPED) -> i32;
type ConnectEx = unsafe fn(
    usize,
    *const AddressStorage,
    AddressLength,
    *const c_void,
    u32,
    *mut u32,
    *mut OVERLAPPED,
) -> i32;
type Addresses = unsafe fn(
    *const c_void,
    u32,
    u32,
    u32,
    *mut *mut AddressStorage,
    *mut AddressLength,
    *mut *mut AddressStorage,
    *mut AddressLength,
);

#[derive(Clone, Copy)]
pub(super) struct Extensions {
    pub(super) accept: Option<AcceptEx>,
    pub(super) connect: Option<ConnectEx>,
    pub(super) addresses: Option<Addresses>,
    pub(super) are_handles: bool,
}

pub(super) fn get() -> io::Result<Extensions> {
    Ok(Extensions {
        accept: Some(accept),
        connect: Some(connect),
        addresses: Some(addresses),
        are_handles: true,
    })
}

/// # Safety
/// As `AcceptEx`: the block and the `OVERLAPPED` are the system's until the packet.
unsafe fn accept(
    listener: usize,
    socket: usize,
    block: *mut c_void,
    _received: u32,
    _local: u32,
    _remote: u32,
    _n: *mut u32,
    overlapped: *mut OVERLAPPED,
) -> i32 {
    let call = Call::Accept(socket as i32, block.cast());
    // SAFETY: by the caller.
    unsafe { begin(listener, overlapped, call) }
}

/// # Safety
/// As `ConnectEx`: the address is valid, and the `OVERLAPPED` is the system's until the packet.
unsafe fn connect(
    socket: usize,
    address: *const AddressStorage,
    len: AddressLength,
    _bytes: *const c_void,
    _count: u32,
    _n: *mut u32,
    overlapped: *mut OVERLAPPED,
) -> i32 {
    // SAFETY: by the caller.
    let Some(to) = (unsafe { socket_address(address, len) }) else {
        set_error(libc::EAFNOSUPPORT);
        return 0;
    };
    // SAFETY: by the caller.
    unsafe { begin(socket, overlapped, Call::Connect(to)) }
}

/// # Safety
/// As the calls above.
unsafe fn begin(socket: usize, overlapped: *mut OVERLAPPED, call: Call) -> i32 {
    // SAFETY: by the caller.
    match unsafe { sim::overlapped(socket as i32, None, overlapped.cast(), call, Vec::new()) } {
        0 => 1,
        error => {
            set_error(error);
            0
        }
    }
}

/// # Safety
/// As `GetAcceptExSockaddrs`: an accept has written the block, which is nobody else's now.
unsafe fn addresses(
    block: *const c_void,
    _received: u32,
    local_room: u32,
    _remote_room: u32,
    _local: *mut *mut AddressStorage,
    _local_len: *mut AddressLength,
    peer: *mut *mut AddressStorage,
    peer_len: *mut AddressLength,
) {
    // SAFETY: by the caller; the block has room for two addresses, of which the first is not looked at.
    unsafe {
        let Some(remote) = block.cast::<Option<SocketAddr>>().read_unaligned() else { return };
        let place = block.cast_mut().byte_add(local_room as usize).cast::<AddressStorage>();
        *peer_len = write_address(&remote, place);
        *peer = place;
    }
}
