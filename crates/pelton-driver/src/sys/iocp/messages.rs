//! Datagrams with an address and control messages.
//!
//! The header, the address and the control messages stand in the operation's scratch block. A receive is tried, and
//! waited for by a poll: an overlapped one that does not fit fails at once, and whether it posts a packet too is
//! not the same on every system. So one that is cancelled takes no datagram either. A send for which there is no
//! room is overlapped: none of its failures posts.

use windows_sys::Win32::Networking::WinSock::{
    MSG_CTRUNC, MSG_TRUNC, SOCKADDR, SOCKADDR_STORAGE, WSABUF, WSASendMsg, getpeername,
};

use super::receive::receive_now;
use super::send::{held, send_now};
use super::{Iocp, Step, stream};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::scratch::Block;
use crate::slot::Slot;
use crate::sys::numbers as errno;
use crate::sys::status::{self, Began};
use crate::sys::windows::calls::socket_error;
use crate::sys::windows::{MessageHeader, messages, raw_of};

impl Iocp {
    pub(super) fn receive_message(
        &self,
        core: &Core,
        slot: &Slot,
        entry: &Entry,
        socket: usize,
    ) -> Step {
        let block = core.scratch.get(slot.progress.get());
        if entry.has(flags::STREAM) {
            return receive_on_stream(block, socket);
        }
        let Some(receive) = self.extensions.receive_message else {
            return Step::Done(-errno::ENOSYS);
        };
        loop {
            // Anew for each call, which writes to it.
            let header = block.datagram(true);
            let mut spacious = Spacious::default();
            // SAFETY: no kernel has the header, which is the block's alone.
            let user = spacious.lend(unsafe { &mut *header });
            let (mut n, none) = (0, std::ptr::null_mut());
            // SAFETY: the header and all that it names stand in the slot's scratch block or here, or are memory that
            // the slot owns; the slot keeps the socket open. Without an `OVERLAPPED` it is over when it returns.
            let failed = unsafe { receive(socket, header, &mut n, none, None) };
            let error = if failed == 0 { 0 } else { socket_error() };
            // SAFETY: the call is over; the user's room is as long as it says, and the block's.
            let header = unsafe {
                spacious.give_back(&mut *header, user);
                &mut *header
            };
            return match error {
                0 => Step::Done(n as i32),
                errno::EAGAIN | errno::EINTR => Step::Wait,
                errno::WSAEMSGSIZE | errno::MORE_DATA => {
                    // The whole room is filled, which not every system tells.
                    header.dwFlags |= MSG_TRUNC;
                    Step::Done(block.bytes() as i32)
                }
                error => match heard(socket, error) {
                    Some(error) => Step::Done(-error),
                    None => continue,
                },
            };
        }
    }

    pub(super) fn send_message(
        &self,
        core: &Core,
        slot: &Slot,
        home: &super::Home,
        entry: &Entry,
        socket: usize,
    ) -> Step {
        let block = core.scratch.get(slot.progress.get());
        let header = block.datagram(false);
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        let began = if entry.has(flags::STREAM) {
            // SAFETY: the call that wrote it is over, and the kernel does not have it.
            let (parts, n) = unsafe { ((*header).lpBuffers, (*header).dwBufferCount) };
            if entry.of_room.sends.get() == 0 {
                // SAFETY: the parts name memory of the operation's own, and the call does not wait.
                match unsafe { send_now(socket, parts, n) } {
                    Ok(n) => return Step::Done(n as i32),
                    Err(errno::EAGAIN | errno::EINTR) => {}
                    Err(error) => return Step::Done(-status::of_send(error)),
                }
            }
            // SAFETY: as many parts as the header says.
            let (parts, n) = unsafe { held(parts, n) };
            // SAFETY: the slot owns the memory and keeps the socket open until its last completion, which is not
            // before the packet.
            unsafe { stream::send(home, generation, skips, socket, parts.as_ptr(), n) }
        } else {
            let mut n = 0;
            let none = std::ptr::null_mut();
            // Behind those that wait.
            if entry.of_room.sends.get() == 0 {
                // SAFETY: as above; without an `OVERLAPPED` it is over when it returns.
                if unsafe { WSASendMsg(socket, header, 0, &mut n, none, None) } == 0 {
                    return Step::Done(n as i32);
                }
                match socket_error() {
                    errno::EAGAIN | errno::EINTR => {}
                    // What Wine says of one that is connected nowhere, and is told no address.
                    errno::WSAEINVAL if block.address().is_none() && !is_connected(socket) => {
                        return Step::Done(-errno::EDESTADDRREQ);
                    }
                    error => return Step::Done(-of_sent(socket, error)),
                }
            }
            stream::with_home(home, generation, skips, |overlapped| {
                // SAFETY: the header and what it names stand in the slot's block or are the slot's, until its last
                // completion, which is not before the packet.
                unsafe { WSASendMsg(socket, header, 0, &mut n, overlapped, None) == 0 }
            })
        };
        match began {
            Began::Posts => {
                entry.of_room.sends.set(entry.of_room.sends.get() + 1);
                Step::Posted
            }
            Began::Ended => {
                let (status, bytes) = home.ended();
                Step::Done(message_sent(entry, status.socket_error(), bytes))
            }
            Began::Failed(error) => Step::Done(message_sent(entry, error, 0)),
        }
    }
}

/// What a send of a message ends with.
pub(super) fn message_sent(entry: &Entry, error: i32, bytes: usize) -> i32 {
    let datagrams = raw_of(entry).socket().filter(|_| !entry.has(flags::STREAM));
    said_of_send(datagrams, error, bytes)
}

/// What a send says, on a stream or on this socket of datagrams.
fn said_of_send(datagrams: Option<usize>, error: i32, bytes: usize) -> i32 {
    match (error, datagrams) {
        (0, _) => i32::try_from(bytes).unwrap_or(i32::MAX),
        (errno::ECANCELED, _) => -errno::ECANCELED,
        (error, Some(socket)) => -of_sent(socket, error),
        (error, None) => -status::of_send(error),
    }
}

/// What a datagram socket has heard of what it sent before: that nobody is there, where it is connected. One that
/// is not is told nothing, as elsewhere: whom of many it would be about it could not say.
pub(super) fn heard(socket: usize, error: i32) -> Option<i32> {
    match error {
        errno::ECONNRESET | errno::WSAENETRESET => {
            is_connected(socket).then_some(errno::ECONNREFUSED)
        }
        error => Some(error),
    }
}

/// What a send of a datagram says that has failed.
fn of_sent(socket: usize, error: i32) -> i32 {
    match error {
        errno::ENOTCONN => errno::EDESTADDRREQ,
        error => heard(socket, error).unwrap_or(error),
    }
}

fn is_connected(socket: usize) -> bool {
    let mut storage = SOCKADDR_STORAGE::default();
    let mut len = size_of::<SOCKADDR_STORAGE>() as i32;
    // SAFETY: both are ours to be written, and the caller has the socket open.
    unsafe { getpeername(socket, (&raw mut storage).cast::<SOCKADDR>(), &mut len) == 0 }
}

/// `WSARecvMsg` is of datagrams: a stream has no sender and no messages.
fn receive_on_stream(block: &Block, socket: usize) -> Step {
    // SAFETY: the header stands in the block of an operation that no kernel has.
    let header = unsafe { &mut *block.datagram(true) };
    (header.namelen, header.Control.len) = (0, 0);
    // SAFETY: the parts name memory of the operation's own, and the call does not wait.
    match unsafe { receive_now(socket, header.lpBuffers, header.dwBufferCount) } {
        Ok(n) => Step::Done(n as i32),
        Err(errno::EAGAIN | errno::EINTR) => Step::Wait,
        Err(error) => Step::Done(status::of_recv(error, 0)),
    }
}

/// Room for the control messages of one receive. Where the user has less than those take, the system says of the
/// whole receive that it did not fit, and not always how many bytes it had; so it is given more.
#[repr(C, align(8))]
struct Spacious([u8; 512]);

impl Default for Spacious {
    fn default() -> Spacious {
        Spacious([0; 512])
    }
}

impl Spacious {
    /// Puts this room into the place of the user's, which is returned.
    fn lend(&mut self, header: &mut MessageHeader) -> WSABUF {
        let mine = WSABUF { buf: self.0.as_mut_ptr(), len: self.0.len() as u32 };
        std::mem::replace(&mut header.Control, mine)
    }

    /// Hands what has come to the user's room, as many whole messages as that takes, and says whether that is all.
    ///
    /// # Safety
    /// The user's room is valid for writes.
    unsafe fn give_back(&self, header: &mut MessageHeader, user: WSABUF) {
        let came = &self.0[..self.0.len().min(header.Control.len as usize)];
        let (mut taken, mut fits) = (0, true);
        while let Some((_, _, data)) = messages::first(&came[taken..]) {
            let end = taken + messages::HEADER + data.len();
            if end > user.len as usize {
                fits = false;
                break;
            }
            taken = came.len().min(user.len as usize).min(taken + messages::space(data.len()));
        }
        if taken > 0 {
            // SAFETY: by the caller, and not more than there is room for; both are there, and apart.
            unsafe { std::ptr::copy_nonoverlapping(came.as_ptr(), user.buf, taken) };
        }
        header.Control = WSABUF { buf: user.buf, len: taken as u32 };
        if !fits {
            header.dwFlags |= MSG_CTRUNC;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_control_messages_come_as_there_is_room_for() {
        let whole = messages::space(8);
        let len = whole as u32;
        for (room, taken) in [(0, 0), (8, 0), (len, whole), (len + 8, whole), (256, 2 * whole)] {
            let mut user = [0_u8; 256];
            let room = WSABUF { buf: user.as_mut_ptr(), len: room };
            let mut header = MessageHeader { Control: room, ..MessageHeader::default() };
            let mut spacious = Spacious::default();
            let lent = spacious.lend(&mut header);
            for at in [0, whole] {
                messages::write(&mut spacious.0[at..at + whole], 1, at as i32, &[7; 8]);
            }
            header.Control.len = 2 * whole as u32;
            // SAFETY: the room is ours.
            unsafe { spacious.give_back(&mut header, lent) };
            assert_eq!(header.Control.len as usize, taken, "room for {}", room.len);
            assert_eq!(header.dwFlags & MSG_CTRUNC != 0, taken < 2 * whole);
            let first = messages::first(&user[..taken]);
            assert_eq!(first, (taken > 0).then_some((1, 0, &[7_u8; 8][..])));
        }
    }

    #[test]
    fn a_socket_that_is_not_connected_is_told_of_no_reset() {
        crate::sys::windows::startup::ensure().unwrap();
        let one = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = std::os::windows::io::AsRawSocket::as_raw_socket(&one) as usize;
        assert_eq!(heard(socket, errno::ECONNRESET), None);
        assert_eq!(heard(socket, errno::WSAENETRESET), None);
        assert_eq!(heard(socket, errno::ENOBUFS), Some(errno::ENOBUFS));
        one.connect(one.local_addr().unwrap()).unwrap();
        assert_eq!(heard(socket, errno::ECONNRESET), Some(errno::ECONNREFUSED));
        assert_eq!(of_sent(socket, errno::ENOTCONN), errno::EDESTADDRREQ);
        // Also where a send had waited, and not a stream's.
        assert_eq!(said_of_send(Some(socket), errno::ECONNRESET, 0), -errno::ECONNREFUSED);
        assert_eq!(said_of_send(None, errno::ECONNRESET, 0), -errno::ECONNRESET);
        assert_eq!(said_of_send(None, errno::ENOTCONN, 0), -errno::EPIPE);
    }
}
