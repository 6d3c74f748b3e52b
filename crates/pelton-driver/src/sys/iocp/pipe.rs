//! Pipes: reads and writes, clients that are waited for, and a read of nothing that ends when there is something.
//!
//! A handle that is no socket posts a packet for every call that has not failed at once, so none of these ends in
//! the call that makes it, but for errors. A read of a message that is longer than its buffer is a warning, which
//! posts, too.

use windows_sys::Win32::System::IO::OVERLAPPED;

use super::home::{Home, Stage};
use super::send::{how_much, sent};
use super::stream::nowhere;
use super::win32::{ConnectNamedPipe, ReadFile, WriteFile};
use super::{Iocp, errno, file_error};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::Kind;
use crate::payload::{EMPTY, MORE, Memory, WANTS_MESSAGE};
use crate::slot::{Slot, bits};
use crate::sys::status::{self, Began, PipeRead, Status};
use crate::sys::windows::calls::system_error;
use crate::sys::windows::{RawDescriptor, pipe, raw_of};

/// The most bytes of a write that are the kernel's at once: what has been read of those when it is cancelled is not
/// told. A message is never cut.
const MOST_WRITTEN: usize = 64 * 1024;
/// What a poll says of a pipe that can be read.
const POLLIN: i32 = 1;

/// True for the operations that are in this file, in the kernel.
pub(super) fn is_pipes(kind: Kind) -> bool {
    matches!(kind, Kind::Read | Kind::Write | Kind::ConnectPipe | Kind::Poll)
}

impl Iocp {
    /// Begins an operation on a pipe.
    pub(super) fn begin_pipe(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        memory: Option<Memory>,
    ) {
        if let Some(result) = self.pipe_step(core, slot, home, entry, memory) {
            core.counters().completions.add(1);
            let _ = core.finish(slot, result);
        }
    }

    /// The packet of an operation on a pipe has come.
    pub(super) fn pipe_ended(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        (status, bytes): (Status, usize),
        on: &mut impl OnCompletion,
    ) {
        let ended = after(core, slot, entry, status, bytes);
        if let Some(result) = ended.or_else(|| self.pipe_step(core, slot, home, entry, None)) {
            core.finish_now(slot, result, on);
        }
    }

    /// Makes the next call of an operation on a pipe. Its result, where none is in the kernel.
    fn pipe_step(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        memory: Option<Memory>,
    ) -> Option<i32> {
        let raw = raw_of(entry);
        let RawDescriptor::Handle(handle) = raw else { return Some(-errno::EOPNOTSUPP) };
        if !pipe::is_pipe(raw) {
            return Some(-errno::EOPNOTSUPP);
        }
        if let Err(error) = self.associate(core, entry, true) {
            // Invalid, where it was not opened for overlapped calls.
            return Some(-error);
        }
        let mut memory = memory;
        loop {
            let kind = slot.kind.get();
            let readable = kind == Kind::Read || (kind == Kind::Poll && slot.progress.get() == 0);
            if readable && entry.of_room.empty_message.get() {
                if kind == Kind::Poll {
                    return Some(POLLIN);
                }
                entry.of_room.empty_message.set(false);
                if slot.progress.get() & WANTS_MESSAGE != 0 {
                    slot.progress.set(slot.progress.get() | EMPTY);
                    return Some(0);
                }
            }
            let part = match kind {
                Kind::Read | Kind::Write => {
                    let Some(memory) = memory.take().or_else(|| core.memory_again(slot)) else {
                        return Some(core.cancelled(slot));
                    };
                    if kind == Kind::Read { memory } else { next_part(slot, entry, memory) }
                }
                Kind::Poll if !readable => return Some(-errno::EOPNOTSUPP),
                _ => Memory::NONE,
            };
            let nowhere_to = home.recv_flags.get().cast();
            let len = u32::try_from(part.len).unwrap_or(u32::MAX);
            // SAFETY: the slot owns the memory and keeps the handle open until its last completion, which is not
            // before the packet; the home is the kernel's until then. A read of nothing writes nowhere.
            let began = with_home(home, slot, |overlapped, none| unsafe {
                match kind {
                    Kind::Write => WriteFile(handle, part.ptr, len, none, overlapped),
                    Kind::ConnectPipe => ConnectNamedPipe(handle, overlapped),
                    Kind::Read => ReadFile(handle, part.ptr, len, none, overlapped),
                    _ => ReadFile(handle, nowhere_to, 0, none, overlapped),
                }
            });
            let ended = match began {
                Began::Posts => return None,
                Began::Ended => {
                    let (status, bytes) = home.ended();
                    after(core, slot, entry, status, bytes)
                }
                Began::Failed(error) => of_error(core, slot, entry, error, 0),
            };
            if ended.is_some() {
                return ended;
            }
        }
    }
}

/// As much of what is left of a write as the kernel is to hold.
fn next_part(slot: &Slot, entry: &Entry, memory: Memory) -> Memory {
    // Asked again the owner may show less than has been written already: then nothing is left.
    let written = (slot.progress.get() as usize).min(memory.len);
    let left = memory.len - written;
    slot.arg.set(left as u32);
    let known = entry.of_room.messages.get();
    let messages = known.unwrap_or_else(|| pipe::writes_messages(raw_of(entry)));
    entry.of_room.messages.set(Some(messages));
    let len = if messages { left } else { left.min(MOST_WRITTEN) };
    Memory { ptr: memory.ptr.wrapping_add(written), len }
}

/// Gives a call to the kernel that uses the slot's home, and takes that back where no packet comes.
fn with_home(
    home: &Home,
    slot: &Slot,
    call: impl FnOnce(*mut OVERLAPPED, *mut u32) -> i32,
) -> Began {
    debug_assert_ne!(home.stage.get(), Stage::InKernel);
    let ok = call(home.give(slot.generation.get(), nowhere()), std::ptr::null_mut()) != 0;
    let began = Began::of(ok, if ok { 0 } else { system_error() }, false);
    if began != Began::Posts {
        home.take_back();
    }
    began
}

/// What a call that has ended means for its operation: a result, or that it goes on.
fn after(core: &Core, slot: &Slot, entry: &Entry, status: Status, bytes: usize) -> Option<i32> {
    let of_poll = slot.kind.get() == Kind::Poll;
    if of_poll && status == Status::SUCCESS && pipe::reads_messages(raw_of(entry)) {
        // Of a message that has something it reads nothing and leaves it there, and says so. Only one that has
        // nothing is read whole, and is gone.
        entry.of_room.empty_message.set(true);
    }
    of_error(core, slot, entry, file_error(status), bytes)
}

fn of_error(core: &Core, slot: &Slot, entry: &Entry, error: i32, bytes: usize) -> Option<i32> {
    let unwanted = slot.has(bits::CANCELLED) || entry.has(flags::CLOSING);
    match slot.kind.get() {
        Kind::Write => match error {
            0 if sent(core, slot, bytes) => Some(how_much(core, slot)),
            0 => unwanted.then(|| core.cancelled(slot)),
            errno::ECANCELED => {
                sent(core, slot, bytes);
                Some(core.cancelled(slot))
            }
            error => Some(-status::of_pipe_write(error)),
        },
        Kind::Read => match status::of_pipe_read(error, bytes) {
            PipeRead::Bytes(n) => Some(n),
            PipeRead::Part(n) => {
                slot.progress.set(slot.progress.get() | MORE);
                Some(n)
            }
            PipeRead::Nothing if slot.progress.get() & WANTS_MESSAGE != 0 => {
                slot.progress.set(slot.progress.get() | EMPTY);
                Some(0)
            }
            PipeRead::Nothing => unwanted.then(|| core.cancelled(slot)),
            PipeRead::End => Some(0),
            PipeRead::Failed(error) => Some(-error),
        },
        // That there is an end, or an error to collect, is something to read, too.
        Kind::Poll if error != errno::ECANCELED => Some(POLLIN),
        Kind::Poll => Some(-error),
        _ if error == 0 => Some(0),
        _ => Some(status::of_pipe_connect(error)),
    }
}
