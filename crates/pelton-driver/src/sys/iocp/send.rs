//! Sending on sockets: what there is room for at once, and a part of the rest held by the kernel.

use windows_sys::Win32::Networking::WinSock::WSABUF;

use super::home::Home;
use super::status::{Began, Status};
use super::win32::{Buffers, WSASend};
use super::windows::calls::socket_error;
use super::{Iocp, Step, buffer, errno, messages, stream};
use crate::core::Core;
use crate::descriptor::Entry;
use crate::op::Kind;
use crate::payload::Memory;
use crate::scratch::MAX_PARTS;
use crate::slot::{Slot, bits};

/// The most bytes of a send that are the kernel's at once.
const MOST_HELD: u32 = 1 << 20;

impl Iocp {
    /// Sends what may be sent at once, and has the kernel hold a part of the rest.
    ///
    /// Not all of it: what the kernel holds when a send is cancelled it may have sent or not, and a send that is
    /// to send only some must not wait until its peer has taken everything.
    pub(super) fn send(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        socket: usize,
        memory: Option<Memory>,
    ) -> Step {
        let mut memory = memory;
        // Sockets whose successes post packets are tried without one.
        let mut try_first = !entry.of_room.skips.get() || !slot.has(bits::ALL);
        loop {
            let (one, many);
            let (buffers, n, first) = if slot.kind.get() == Kind::SendVectored {
                // SAFETY: the header stands in the slot's scratch block, and its parts in that too.
                many = Buffers::of(unsafe { &*core.scratch.get(slot.progress.get()).message() });
                (many.as_ptr(), many.len(), buffer(std::ptr::null_mut(), 0))
            } else {
                let Some(memory) = memory.take().or_else(|| core.memory_again(slot)) else {
                    return Step::Done(core.cancelled(slot));
                };
                // Asked again the owner may show less than has been sent already: then nothing is left.
                let sent = (slot.progress.get() as usize).min(memory.len);
                slot.arg.set((memory.len - sent) as u32);
                one = buffer(memory.ptr.wrapping_add(sent), memory.len - sent);
                (&raw const one, 1, one)
            };
            if try_first && entry.of_room.sends.get() == 0 {
                // SAFETY: the memory is the operation's own, and the call does not wait.
                match unsafe { send_now(socket, buffers, n) } {
                    Ok(n) => {
                        if let Some(result) =
                            self.after(core, slot, entry, Status::SUCCESS, n as usize)
                        {
                            return Step::Done(result);
                        }
                        continue;
                    }
                    Err(errno::EINTR) => continue,
                    Err(errno::EAGAIN) => try_first = false,
                    Err(error) => return Step::Done(messages::message_sent(entry, error, 0)),
                }
                // The owner is not asked again for what it has just shown.
                if slot.kind.get() == Kind::Send {
                    let sent = slot.progress.get() as usize;
                    let ptr = first.buf.wrapping_sub(sent);
                    memory = Some(Memory { ptr, len: sent + first.len as usize });
                    continue;
                }
            }
            // SAFETY: as many parts as were said.
            let (held, n) = unsafe { held(buffers, n) };
            let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
            // SAFETY: the slot owns the memory and keeps the socket open until its last completion, which is not
            // before the packet.
            let began = unsafe { stream::send(home, generation, skips, socket, held.as_ptr(), n) };
            match began {
                Began::Posts => {
                    entry.of_room.sends.set(entry.of_room.sends.get() + 1);
                    return Step::Posted;
                }
                Began::Ended => {
                    let (status, bytes) = home.ended();
                    if let Some(result) = self.after(core, slot, entry, status, bytes) {
                        return Step::Done(result);
                    }
                }
                Began::Failed(error) => {
                    return Step::Done(messages::message_sent(entry, error, 0));
                }
            }
        }
    }
}

/// Counts bytes that have been sent. True when the operation has nothing left to send.
pub(super) fn sent(core: &Core, slot: &Slot, bytes: usize) -> bool {
    // One that sends nothing would go on for ever.
    let all = slot.has(bits::ALL) && bytes > 0;
    if slot.kind.get() == Kind::SendVectored {
        let block = core.scratch.get(slot.progress.get());
        block.skip(bytes);
        return block.bytes() == 0 || !all;
    }
    slot.progress.set(slot.progress.get() + bytes as u32);
    // While a send is in the kernel this says how much it was given: it is in no list.
    bytes == slot.arg.get() as usize || !all
}

/// How much a send has sent.
pub(super) fn how_much(core: &Core, slot: &Slot) -> i32 {
    match slot.kind.get() {
        Kind::SendVectored => core.scratch.get(slot.progress.get()).skipped() as i32,
        _ => slot.progress.get() as i32,
    }
}

/// As many parts of a send as the kernel is to hold at once, the last of them perhaps cut short.
///
/// # Safety
/// There are `n` parts.
pub(super) unsafe fn held(parts: *const WSABUF, n: u32) -> ([WSABUF; MAX_PARTS], u32) {
    let mut held = [buffer(std::ptr::null_mut(), 0); MAX_PARTS];
    let (mut room, mut count) = (MOST_HELD, 0);
    while count < MAX_PARTS.min(n as usize) && room > 0 {
        // SAFETY: `count` is less than `n`, says the caller.
        let WSABUF { len, buf } = unsafe { *parts.add(count) };
        held[count] = WSABUF { len: len.min(room), buf };
        room -= held[count].len;
        count += 1;
    }
    (held, count as u32)
}

/// Sends what there is room for, without a wait.
///
/// # Safety
/// The socket is open and does not block; the buffers are valid for reads.
pub(super) unsafe fn send_now(socket: usize, buffers: *const WSABUF, n: u32) -> Result<u32, i32> {
    let (mut sent, none) = (0, std::ptr::null_mut());
    // SAFETY: by the caller; without an `OVERLAPPED` it is over when it returns.
    let failed = unsafe { WSASend(socket, buffers, n, &mut sent, 0, none, None) };
    // SAFETY: by the caller.
    let is_something = || unsafe { (0..n as usize).any(|at| (*buffers.add(at)).len > 0) };
    match failed {
        // Something that is sent in no part waits for room.
        0 if sent == 0 && is_something() => Err(errno::EAGAIN),
        0 => Ok(sent),
        _ => Err(socket_error()),
    }
}
