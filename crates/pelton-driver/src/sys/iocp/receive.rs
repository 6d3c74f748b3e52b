//! Receiving on sockets: into the operation's own memory, which the kernel holds meanwhile, or into a buffer of the
//! pool, which is taken when there is something for it.

use windows_sys::Win32::Networking::WinSock::WSABUF;

use super::home::Home;
use super::status::{self, Began};
use super::win32::{Buffers, WSARecv};
use super::windows::calls::{self, socket_error};
use super::{Iocp, Step, buffer, errno, messages, stream};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::op::Kind;
use crate::payload::{self, Item, Memory};
use crate::slot::Slot;

impl Iocp {
    pub(super) fn receive(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        socket: usize,
        memory: Option<Memory>,
    ) -> Step {
        let (one, many);
        let (buffers, n, room) = if slot.kind.get() == Kind::RecvVectored {
            let block = core.scratch.get(slot.progress.get());
            // SAFETY: the header stands in the slot's scratch block.
            many = Buffers::of(unsafe { &*block.message() });
            (many.as_ptr(), many.len(), block.bytes())
        } else {
            let Some(memory) = memory.or_else(|| core.memory_again(slot)) else {
                return Step::Done(core.cancelled(slot));
            };
            one = buffer(memory.ptr, memory.len);
            (&raw const one, 1, memory.len)
        };
        if !entry.has(flags::STREAM) {
            // A message that is too long would fail and post all the same: it is tried, and waited for.
            // SAFETY: the memory is the operation's own, nobody else touches it, and the call does not wait.
            return match unsafe { receive_now(socket, buffers, n) } {
                Err(errno::EAGAIN | errno::EINTR) => Step::Wait,
                Err(error) => match messages::heard(socket, error) {
                    Some(error) => Step::Done(status::of_recv(error, room)),
                    None => self.receive(core, slot, home, entry, socket, memory),
                },
                Ok(n) => Step::Done(n as i32),
            };
        }
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        // SAFETY: the slot owns the memory and keeps the socket open until its last completion, which is not
        // before the packet.
        let began = unsafe { stream::recv(home, generation, skips, socket, buffers, n) };
        match began {
            Began::Posts => Step::Posted,
            Began::Ended => {
                let (status, bytes) = home.ended();
                Step::Done(status::of_recv(status.socket_error(), bytes))
            }
            Began::Failed(error) => Step::Done(status::of_recv(error, 0)),
        }
    }

    /// Receives into a buffer of the pool, which is taken when there is something for it.
    pub(super) fn receive_pooled(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        socket: usize,
    ) -> Step {
        loop {
            let Some(buffer) = core.pool.pick() else { return Step::NoBuffer };
            let (ptr, room) = buffer.rest();
            // SAFETY: the unfilled rest of a pooled buffer that is with this room; an operation in flight keeps
            // its socket open.
            let result = unsafe { calls::recv(socket, ptr, room as usize) };
            let result = match result {
                n if n >= 0 => n,
                error => match -error {
                    errno::EINTR => continue,
                    errno::EAGAIN => match self.await_bytes(slot, home, entry, socket) {
                        Some(step) => return step,
                        None => continue,
                    },
                    error if entry.has(flags::STREAM) => status::of_recv(error, room as usize),
                    error => match messages::heard(socket, error) {
                        Some(error) => status::of_recv(error, room as usize),
                        None => continue,
                    },
                },
            };
            if result <= 0 {
                return Step::Done(result);
            }
            let lease = core.pool.commit(buffer, result as u32);
            if slot.kind.get() == Kind::RecvMulti {
                return Step::Yield(Item::Lease(lease));
            }
            payload::put_lease(slot, lease);
            return Step::Done(result);
        }
    }

    /// Waits for bytes, with no buffer for them. None where they have come meanwhile.
    fn await_bytes(&self, slot: &Slot, home: &Home, entry: &Entry, socket: usize) -> Option<Step> {
        if !entry.has(flags::STREAM) {
            return Some(Step::Wait);
        }
        let nothing = buffer(std::ptr::null_mut(), 0);
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        // SAFETY: there is no memory to write to; the slot keeps the socket open.
        let began = unsafe { stream::recv(home, generation, skips, socket, &nothing, 1) };
        match began {
            Began::Posts => Some(Step::Posted),
            Began::Ended => {
                let (status, _) = home.ended();
                let error = status.socket_error();
                (error != 0).then(|| Step::Done(status::of_recv(error, 0)))
            }
            Began::Failed(error) => Some(Step::Done(status::of_recv(error, 0))),
        }
    }
}

/// Receives what is there, without a wait.
///
/// # Safety
/// The socket is open and does not block; the buffers are valid for writes and nobody else's.
pub(super) unsafe fn receive_now(
    socket: usize,
    buffers: *const WSABUF,
    n: u32,
) -> Result<u32, i32> {
    let (mut received, mut flags) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: by the caller; without an `OVERLAPPED` it is over when it returns.
    let failed = unsafe { WSARecv(socket, buffers, n, &mut received, &mut flags, none, None) };
    if failed == 0 { Ok(received) } else { Err(socket_error()) }
}
