//! Datagrams with an address and control messages, of a simulated system: it has no `WSARecvMsg`, and is asked as
//! other rooms ask it.

use super::send::{held, send_now};
use super::win32::Buffers;
use super::{Home, Iocp, Step, errno, stream};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::sim::calls as kernel;
use crate::slot::Slot;
use crate::sys::status::{self, Began};
use crate::sys::unix::receive_flags;
use crate::sys::windows::raw_of;

impl Iocp {
    pub(super) fn receive_message(
        &self,
        core: &Core,
        slot: &Slot,
        entry: &Entry,
        socket: usize,
    ) -> Step {
        let header = core.scratch.get(slot.progress.get()).datagram(true);
        let how = receive_flags(entry.has(flags::STREAM));
        // SAFETY: the header and all that it names stand in the slot's scratch block, or are memory that the slot
        // owns; the slot keeps the socket open. It is over when it returns.
        match -unsafe { kernel::receive_message(socket as i32, header, how) } {
            errno::EAGAIN | errno::EINTR => Step::Wait,
            error if error > 0 => match heard(socket, error) {
                Some(error) => Step::Done(-error),
                None => self.receive_message(core, slot, entry, socket),
            },
            done => Step::Done(-done),
        }
    }

    pub(super) fn send_message(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        socket: usize,
    ) -> Step {
        let header = core.scratch.get(slot.progress.get()).datagram(false);
        if !entry.has(flags::STREAM) {
            // SAFETY: as above. Datagrams never wait here.
            return match unsafe { kernel::sendmsg(socket as i32, header) } {
                done if done >= 0 => Step::Done(done),
                error if error == -errno::EINTR => {
                    self.send_message(core, slot, home, entry, socket)
                }
                error => Step::Done(-of_sent(socket, -error)),
            };
        }
        // SAFETY: the header is the block's, and no kernel has it.
        let parts = Buffers::of(unsafe { &*header });
        if entry.of_room.sends.get() == 0 {
            // SAFETY: the parts name memory of the operation's own, and the call does not wait.
            match unsafe { send_now(socket, parts.as_ptr(), parts.len()) } {
                Ok(n) => return Step::Done(n as i32),
                Err(errno::EAGAIN | errno::EINTR) => {}
                Err(error) => return Step::Done(-status::of_send(error)),
            }
        }
        // SAFETY: as many parts as the header says.
        let (parts, n) = unsafe { held(parts.as_ptr(), parts.len()) };
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        // SAFETY: the slot owns the memory and keeps the socket open until its last completion, which is not before
        // the packet.
        match unsafe { stream::send(home, generation, skips, socket, parts.as_ptr(), n) } {
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
    match (error, raw_of(entry).socket()) {
        (0, _) => i32::try_from(bytes).unwrap_or(i32::MAX),
        (errno::ECANCELED, _) => -errno::ECANCELED,
        (error, Some(socket)) if !entry.has(flags::STREAM) => -of_sent(socket, error),
        (error, _) => -status::of_send(error),
    }
}

/// What a datagram socket has heard of what it sent before. The simulated system tells it as it is to be told.
pub(super) fn heard(_socket: usize, error: i32) -> Option<i32> {
    Some(error)
}

fn of_sent(socket: usize, error: i32) -> i32 {
    match error {
        errno::ENOTCONN => errno::EDESTADDRREQ,
        error => heard(socket, error).unwrap_or(error),
    }
}
