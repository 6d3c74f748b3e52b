//! One try of an operation on a descriptor that may be ready: what the readiness rooms have in common.

use std::io;
use std::net::Shutdown;

use super::calls;
use super::descriptor::{OwnedDescriptor, own};
use super::unix::native::POLL_IN;
use super::unix::{
    AddressLength, AddressStorage, RawDescriptor, borrow, check, errno, receive_flags,
};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::op::{Interest, Kind};
use crate::payload::{self, Item, Memory};
use crate::seam;
use crate::slot::{Slot, bits};

/// How a try went.
pub(crate) enum Attempt {
    /// It has ended, with this result.
    Done(i32),
    /// It has ended, with this many bytes, and had room for more.
    Drained(i32),
    /// It has not, and the descriptor is not ready any more.
    Again,
    /// There may be something to receive, but no pooled buffer to receive into.
    NoBuffer,
    /// A multishot operation has yielded this and goes on.
    Yield(Item),
}

/// Tries a slot's operation once, or for a send of everything as often as it makes progress.
///
/// `memory` is what the operation owns, where that is known; otherwise the payload is asked again.
#[inline(never)]
pub(crate) fn attempt(
    core: &Core,
    slot: &Slot,
    raw: RawDescriptor,
    memory: Option<Memory>,
) -> Attempt {
    attempt_of(slot.kind.get(), core, slot, raw, memory)
}

/// [`attempt`], for a kind that the caller knows, and with it the compiler.
#[inline(always)]
pub(crate) fn attempt_of(
    kind: Kind,
    core: &Core,
    slot: &Slot,
    raw: RawDescriptor,
    memory: Option<Memory>,
) -> Attempt {
    loop {
        let attempt = attempt_once(kind, core, slot, raw, memory);
        if let Attempt::Done(result) = attempt {
            if result == -errno::EINTR {
                continue;
            }
            // No readiness ever tells of room at a Unix socket's listener: that goes to whoever connects.
            if result == -errno::EAGAIN && kind != Kind::Connect {
                return Attempt::Again;
            }
        }
        return attempt;
    }
}

#[inline(always)]
fn attempt_once(
    kind: Kind,
    core: &Core,
    slot: &Slot,
    raw: RawDescriptor,
    memory: Option<Memory>,
) -> Attempt {
    match kind {
        Kind::Recv => {
            let Some(memory) = memory.or_else(|| core.memory_again(slot)) else {
                return Attempt::Done(core.cancelled(slot));
            };
            received(recv(raw, memory.ptr, memory.len), memory.len)
        }
        Kind::RecvPooled | Kind::RecvMulti => recv_pooled(core, slot, raw, kind == Kind::RecvMulti),
        Kind::Send => send_some(core, slot, raw, memory, send),
        Kind::RecvVectored => {
            let message = core.scratch.get(slot.progress.get()).message();
            // SAFETY: the header and its parts stand in the slot's scratch block, and the parts name
            // memory that the slot owns.
            Attempt::Done(unsafe { calls::recvmsg(raw, message) })
        }
        Kind::SendVectored => send_vectored(core, slot, raw),
        Kind::Read => {
            let Some(memory) = memory.or_else(|| core.memory_again(slot)) else {
                return Attempt::Done(core.cancelled(slot));
            };
            // SAFETY: as in `recv`. Not drained where it is less than there is room for: only the try that finds
            // nothing is sure to be followed by an edge.
            Attempt::Done(unsafe { calls::read(raw, memory.ptr, memory.len) })
        }
        Kind::Write => send_some(core, slot, raw, memory, write),
        Kind::RecvMsg => Attempt::Done(receive_message(core, slot, raw)),
        Kind::SendMsg => Attempt::Done(send_message(core, slot, raw)),
        Kind::Accept => {
            let block = core.scratch.get(slot.progress.get());
            let result = accept(raw, block.address.get().cast(), block.address_len.get());
            match result {
                Ok(descriptor) => {
                    payload::put_descriptor(slot, descriptor);
                    core.counters().accepts.add(1);
                    Attempt::Done(0)
                }
                Err(result) => Attempt::Done(result),
            }
        }
        Kind::AcceptMulti => match accept(raw, std::ptr::null_mut(), std::ptr::null_mut()) {
            Ok(descriptor) => {
                core.counters().accepts.add(1);
                Attempt::Yield(Item::Connection(descriptor))
            }
            Err(result) => Attempt::Done(result),
        },
        Kind::Connect => connect(core, slot, raw),
        Kind::Poll => poll_now(slot, raw),
        Kind::Own => Attempt::Done(seam::attempt(core, slot, raw)),
        // Not waited for by readiness.
        Kind::Nop
        | Kind::ConnectPipe
        | Kind::ReadAt
        | Kind::WriteAt
        | Kind::Sync
        | Kind::Shutdown
        | Kind::Close
        | Kind::Timeout
        | Kind::Cancel
        | Kind::CancelFd
        | Kind::Wake => unreachable!("{kind:?} is never tried on readiness"),
    }
}

/// Reads from a file what the page cache has, without a wait: as much as was asked for, or all up to the end
/// of the file. None where that is not to be had: then the read has to wait, as a whole, because a read that is
/// cut short by what happens to be cached surprises everybody. It is not tried each time where it was in vain
/// before.
#[inline]
pub(crate) fn read_cached(entry: &Entry, memory: Memory, offset: u64) -> Option<i32> {
    if entry.has(flags::WAITS) || !entry.misses.may_try() {
        return None;
    }
    let mut done = 0;
    while done < memory.len {
        let at = offset.checked_add(done as u64)?;
        // SAFETY: the memory is the operation's own, exclusively, while its slot is busy, or borrowed for this
        // call alone, and `done` is less than its length. The descriptor is open: an operation keeps it so, and
        // nothing else runs meanwhile.
        let result = unsafe {
            calls::pread_cached(entry.raw.get(), memory.ptr.add(done), memory.len - done, at)
        };
        match result {
            0 => break,
            1.. => done += result as usize,
            _ => {
                if -result != errno::EAGAIN && -result != errno::EINTR {
                    // No file, or on a file system that cannot say: asking again would be in vain.
                    entry.set(flags::WAITS);
                }
                entry.misses.missed();
                return None;
            }
        }
    }
    entry.misses.hit();
    Some(done as i32)
}

#[inline(always)]
pub(crate) fn recv(raw: RawDescriptor, ptr: *mut u8, len: usize) -> i32 {
    // SAFETY: the memory belongs to the operation's slot, or is the unfilled rest of a pooled buffer that
    // is with this room: nobody else touches it during the call. An operation in flight keeps its
    // descriptor open.
    unsafe { calls::recv(raw, ptr, len) }
}

#[inline]
fn recv_pooled(core: &Core, slot: &Slot, raw: RawDescriptor, multi: bool) -> Attempt {
    let Some(buffer) = core.pool.pick() else { return Attempt::NoBuffer };
    let (ptr, room) = buffer.rest();
    let result = recv(raw, ptr, room as usize);
    if result <= 0 {
        return Attempt::Done(result);
    }
    let lease = core.pool.commit(buffer, result as u32);
    if multi {
        return Attempt::Yield(Item::Lease(lease));
    }
    payload::put_lease(slot, lease);
    received(result, room as usize)
}

#[inline(always)]
fn received(result: i32, room: usize) -> Attempt {
    if result > 0 && (result as usize) < room {
        Attempt::Drained(result)
    } else {
        Attempt::Done(result)
    }
}

/// Sends once, on a descriptor that is open: an operation in flight keeps it so, or it has just been found.
#[inline(always)]
pub(crate) fn send(raw: RawDescriptor, bytes: &[u8]) -> i32 {
    // SAFETY: as the documentation demands, which is for this module and its rooms.
    unsafe { calls::send(raw, bytes) }
}

/// Writes once, on a descriptor that is open, as for [`send`].
fn write(raw: RawDescriptor, bytes: &[u8]) -> i32 {
    // SAFETY: as for `send`.
    unsafe { calls::write(raw, bytes) }
}

#[inline]
fn send_some(
    core: &Core,
    slot: &Slot,
    raw: RawDescriptor,
    memory: Option<Memory>,
    send: impl Fn(RawDescriptor, &[u8]) -> i32,
) -> Attempt {
    let Some(memory) = memory.or_else(|| core.memory_again(slot)) else {
        return Attempt::Done(core.cancelled(slot));
    };
    loop {
        // Asked again the owner may show less than has been sent already: then there is nothing left.
        let sent = (slot.progress.get() as usize).min(memory.len);
        let sent = if mutant!("send-from-zero") { 0 } else { sent };
        // SAFETY: `sent <= len`, and the bytes belong to the slot's owner, which nobody changes while the
        // slot is busy. A null pointer stands only for no bytes, which `Vec` and slices never give.
        let rest = unsafe {
            let ptr = if memory.ptr.is_null() { std::ptr::dangling_mut() } else { memory.ptr };
            std::slice::from_raw_parts(ptr.add(sent), memory.len - sent)
        };
        let result = send(raw, rest);
        if result < 0 {
            return Attempt::Done(result);
        }
        let n = result as usize;
        slot.progress.set((sent + n) as u32);
        let all = slot.has(bits::ALL) && !mutant!("short-send-is-the-end");
        if n == rest.len() || !all || n == 0 {
            return Attempt::Done((sent + n) as i32);
        }
    }
}

fn send_vectored(core: &Core, slot: &Slot, raw: RawDescriptor) -> Attempt {
    let block = core.scratch.get(slot.progress.get());
    loop {
        let message = block.message();
        // SAFETY: the header and its parts stand in the slot's scratch block, and the parts name memory
        // that the slot owns.
        let result = unsafe { calls::sendmsg(raw, message) };
        if result < 0 {
            return Attempt::Done(result);
        }
        block.skip(result as usize);
        if block.bytes() == 0 || !slot.has(bits::ALL) || result == 0 {
            return Attempt::Done(block.skipped() as i32);
        }
    }
}

/// Receives one datagram, with what goes with it.
fn receive_message(core: &Core, slot: &Slot, raw: RawDescriptor) -> i32 {
    let header = core.scratch.get(slot.progress.get()).datagram(true);
    let stream = core.entry_of(slot).is_none_or(|entry| entry.has(flags::STREAM));
    // SAFETY: the header and all that it names stand in the slot's scratch block, or are memory that the slot
    // or the block owns.
    unsafe { calls::receive_message(raw, header, receive_flags(stream)) }
}

/// Sends one datagram, with what goes with it.
fn send_message(core: &Core, slot: &Slot, raw: RawDescriptor) -> i32 {
    let header = core.scratch.get(slot.progress.get()).datagram(false);
    // SAFETY: as above.
    unsafe { calls::sendmsg(raw, header) }
}

/// Accepts one connection that neither blocks nor survives an `exec`.
fn accept(
    raw: RawDescriptor,
    address: *mut AddressStorage,
    len: *mut AddressLength,
) -> Result<OwnedDescriptor, i32> {
    // SAFETY: the address and its length are null, or stand in the scratch block of the operation.
    let result = unsafe { calls::accept(raw, address, len) };
    if result >= 0 {
        // SAFETY: the kernel has just made it for us.
        return Ok(unsafe { own(result) });
    }
    if result != -errno::ENOSYS {
        return Err(result);
    }
    // SAFETY: as above.
    let result = check(unsafe { libc::accept(raw, address.cast(), len) as isize });
    if result < 0 {
        return Err(result);
    }
    // SAFETY: the kernel has just made it for us.
    let descriptor = unsafe { own(result) };
    // SAFETY: it is open as long as it is owned here.
    let set = rustix::io::fcntl_setfd(unsafe { borrow(result) }, rustix::io::FdFlags::CLOEXEC)
        .map_err(io::Error::from)
        .and_then(|()| calls::set_nonblocking(result));
    match set {
        Ok(_) => Ok(descriptor),
        Err(error) => Err(-error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// Starts a connect, or looks how it went: a second call on the same socket tells.
fn connect(core: &Core, slot: &Slot, raw: RawDescriptor) -> Attempt {
    let block = core.scratch.get(slot.progress.get());
    // SAFETY: the address was written into the block when the operation was started.
    let result =
        unsafe { calls::connect(raw, block.address.get().cast(), *block.address_len.get()) };
    match -result {
        errno::EINPROGRESS | errno::EALREADY => Attempt::Again,
        // An interrupted connect goes on by itself.
        errno::EINTR => Attempt::Again,
        errno::EISCONN if slot.has(bits::POLLING) => Attempt::Done(0),
        _ => Attempt::Done(result),
    }
}

fn poll_now(slot: &Slot, raw: RawDescriptor) -> Attempt {
    match calls::poll(raw, poll_events(slot.progress.get())) {
        0 => Attempt::Again,
        events_or_error => Attempt::Done(events_or_error),
    }
}

/// The parameter of a poll in its slot.
pub(crate) fn interest_arg(interest: Interest) -> u32 {
    match interest {
        Interest::Readable => 0,
        Interest::Writable => 1,
    }
}

/// The system's bits for the parameter of a poll.
pub(crate) fn poll_events(arg: u32) -> i16 {
    if arg == 0 { POLL_IN } else { libc::POLLOUT }
}

/// The system's number for a direction to shut down.
pub(crate) fn shutdown_arg(how: Shutdown) -> i32 {
    match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    }
}
