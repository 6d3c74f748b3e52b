//! Receives and sends in the kernel's words, and connects.

use windows_sys::Win32::Networking::WinSock::{
    AF_INET6, SO_UPDATE_CONNECT_CONTEXT, SOCKADDR_IN, SOCKADDR_IN6, SOL_SOCKET, WSABUF,
};
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0};

use super::super::numbers as errno;
use super::super::status::Began;
use super::super::windows::calls::socket_error;
use super::super::windows::{AddressLength, AddressStorage};
use super::extension::Extensions;
use super::home::Home;
use super::win32::{WSARecv, WSASend, bind, setsockopt};

/// No place in a file.
pub(super) fn nowhere() -> OVERLAPPED_0 {
    OVERLAPPED::default().Anonymous
}

/// Gives a call to the kernel that uses the slot's home, and takes that back where no packet comes.
pub(super) fn with_home(
    home: &Home,
    generation: u32,
    skips: bool,
    call: impl FnOnce(*mut OVERLAPPED) -> bool,
) -> Began {
    let ok = call(home.give(generation, nowhere()));
    let skips = skips || mutant!("iocp-success-is-the-end");
    let began = Began::of(ok, if ok { 0 } else { socket_error() }, skips);
    if began != Began::Posts {
        home.take_back();
    }
    began
}

/// Receives into these buffers; into none, where it only waits for something to be there.
///
/// # Safety
/// The socket is open and the memory of the buffers nobody else's, both until the packet has come, where one
/// does. The buffers themselves are looked at before this returns.
pub(super) unsafe fn recv(
    home: &Home,
    generation: u32,
    skips: bool,
    socket: usize,
    buffers: *const WSABUF,
    n: u32,
) -> Began {
    with_home(home, generation, skips, |overlapped| {
        let flags = home.recv_flags.get();
        let mut received = 0;
        // SAFETY: by the caller. The home is the kernel's from here to the packet.
        unsafe {
            *flags = 0;
            WSARecv(socket, buffers, n, &mut received, flags, overlapped, None) == 0
        }
    })
}

/// Sends these buffers.
///
/// # Safety
/// As for [`recv`], but that the memory may be read by others.
pub(super) unsafe fn send(
    home: &Home,
    generation: u32,
    skips: bool,
    socket: usize,
    buffers: *const WSABUF,
    n: u32,
) -> Began {
    with_home(home, generation, skips, |overlapped| {
        let mut sent = 0;
        // SAFETY: by the caller.
        unsafe { WSASend(socket, buffers, n, &mut sent, 0, overlapped, None) == 0 }
    })
}

/// Connects a stream socket, which is bound first where it is not yet: the system wants that.
///
/// # Safety
/// The socket is open and the address valid, until the packet has come, where one does.
pub(super) unsafe fn connect(
    calls: &Extensions,
    home: &Home,
    generation: u32,
    skips: bool,
    socket: usize,
    address: *const AddressStorage,
    len: AddressLength,
) -> Began {
    #[cfg(pelton_mutants)]
    if mutant!("iocp-connect-blocks") {
        // SAFETY: by the caller.
        return match unsafe { super::super::windows::calls::connect_waiting(socket, address, len) }
        {
            0 => Began::Ended,
            error => Began::Failed(-error),
        };
    }
    let Some(connect) = calls.connect else { return Began::Failed(errno::ENOSYS) };
    // SAFETY: the family is the first word of any address.
    let family = unsafe { (*address).ss_family };
    if let Err(error) = bind_anywhere(socket, family) {
        return Began::Failed(error);
    }
    with_home(home, generation, skips, |overlapped| {
        let (nothing, mut sent) = (std::ptr::null(), 0);
        // SAFETY: by the caller.
        unsafe { connect(socket, address.cast(), len, nothing, 0, &mut sent, overlapped) != 0 }
    })
}

/// Makes a connected socket one like any other: before that it has no peer, no options and no directions.
pub(super) fn connected(socket: usize) -> i32 {
    if mutant!("iocp-connect-context") {
        return 0;
    }
    // SAFETY: the socket is open; there is no argument.
    let failed =
        unsafe { setsockopt(socket, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, std::ptr::null(), 0) };
    if failed == 0 { 0 } else { -socket_error() }
}

fn bind_anywhere(socket: usize, family: u16) -> Result<(), i32> {
    let v4 = SOCKADDR_IN { sin_family: family, ..SOCKADDR_IN::default() };
    let v6 = SOCKADDR_IN6 { sin6_family: family, ..SOCKADDR_IN6::default() };
    // SAFETY: either is a whole address of its family, and is copied.
    let failed = unsafe {
        if family == AF_INET6 {
            bind(socket, (&raw const v6).cast(), size_of::<SOCKADDR_IN6>() as i32)
        } else {
            bind(socket, (&raw const v4).cast(), size_of::<SOCKADDR_IN>() as i32)
        }
    };
    match if failed == 0 { 0 } else { socket_error() } {
        // It is bound already.
        0 | errno::WSAEINVAL => Ok(()),
        error => Err(error),
    }
}
