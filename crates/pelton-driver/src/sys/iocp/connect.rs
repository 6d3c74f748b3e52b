//! Connecting: a socket is bound first, because the system wants that, and told of its connection as soon as it has one.

use windows_sys::Win32::Networking::WinSock::{
    AF_INET6, AF_UNIX, SO_UPDATE_CONNECT_CONTEXT, SOCKADDR_IN, SOCKADDR_IN6, SOCKADDR_UN,
    SOL_SOCKET,
};

use super::Iocp;
use super::errno;
use super::extension::Extensions;
use super::home::Home;
use super::status::Began;
use super::stream::with_home;
use super::win32::{bind, setsockopt};
use super::windows::calls::{self, socket_error};
use super::windows::{AddressLength, AddressStorage, raw_of};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::slot::Slot;

impl Iocp {
    /// Begins to connect.
    pub(super) fn connect(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) {
        let block = core.scratch.get(slot.progress.get());
        let Some(socket) = raw_of(entry).socket() else {
            let _ = core.finish(slot, -errno::ENOTSOCK);
            return;
        };
        // SAFETY: the address was written into the block when the operation was submitted.
        let len = unsafe { *block.address_len.get() };
        if !entry.has(flags::STREAM) {
            // SAFETY: as above; the call only says where to send to.
            let result = unsafe { calls::connect(socket, block.address.get(), len) };
            let _ = core.finish(slot, result);
            return;
        }
        if let Err(error) = self.associate(core, entry, true) {
            let _ = core.finish(slot, -error);
            return;
        }
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        let address = block.address.get().cast();
        // SAFETY: the address stands in the slot's block, and the slot keeps the socket open, until its last
        // completion.
        let began =
            unsafe { connect(&self.extensions, home, generation, skips, socket, address, len) };
        let result = match began {
            Began::Posts => return,
            Began::Ended => {
                let (status, bytes) = home.ended();
                self.after(core, slot, entry, status, bytes).unwrap_or(0)
            }
            Began::Failed(error) => -error,
        };
        let _ = core.finish(slot, result);
    }
}

/// Connects a stream socket, which is bound first where it is not yet: the system wants that.
///
/// # Safety
/// The socket is open and the address valid, until the packet has come, where one does.
unsafe fn connect(
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
    let unix = SOCKADDR_UN { sun_family: family, ..SOCKADDR_UN::default() };
    // SAFETY: each is a whole address of its family, and is copied.
    let failed = unsafe {
        match family {
            AF_INET6 => bind(socket, (&raw const v6).cast(), size_of::<SOCKADDR_IN6>() as i32),
            // No name: the family, and an empty path.
            AF_UNIX => bind(socket, (&raw const unix).cast(), size_of::<u16>() as i32 + 1),
            _ => bind(socket, (&raw const v4).cast(), size_of::<SOCKADDR_IN>() as i32),
        }
    };
    match if failed == 0 { 0 } else { socket_error() } {
        // It is bound already.
        0 | errno::WSAEINVAL => Ok(()),
        error => Err(error),
    }
}
