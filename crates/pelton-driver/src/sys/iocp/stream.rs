//! Receives and sends in the kernel's words.

use windows_sys::Win32::Networking::WinSock::WSABUF;
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0};

use super::super::status::Began;
use super::super::windows::calls::socket_error;
use super::home::Home;
use super::win32::{WSARecv, WSASend};

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
