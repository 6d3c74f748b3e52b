//! Sending from a file: `TransmitFile`, a piece at a time.
//!
//! The system itself takes up to 2^31 - 2 bytes in one call. A piece is smaller, because of one that is cancelled in
//! the middle it is not told how much was sent. Editions of Windows that are no servers make two such calls at a
//! time and have the others wait for them.

use windows_sys::Win32::Storage::FileSystem::GetFileSizeEx;

use super::home::Home;
use super::{Iocp, errno, told};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::payload;
use crate::slot::{Slot, bits};
use crate::sys::status::{self, Began, Status};
use crate::sys::windows::RawDescriptor;
use crate::sys::windows::calls::{self, socket_error, system_error};
use crate::sys::windows::offset::at_offset;

/// The most bytes that are the kernel's at once.
const AT_ONCE: u32 = 1 << 20;

impl Iocp {
    pub(super) fn begin_send_file(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) {
        if let Some(result) = self.send_file_step(core, slot, home, entry) {
            core.counters().completions.add(1);
            let _ = core.finish(slot, told(slot, entry, result));
        }
    }

    /// The packet of a piece has come.
    pub(super) fn file_sent(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        (status, bytes): (Status, usize),
        on: &mut impl OnCompletion,
    ) {
        let ended = after(core, slot, entry, status, bytes);
        if let Some(result) = ended.or_else(|| self.send_file_step(core, slot, home, entry)) {
            core.finish_now(slot, told(slot, entry, result), on);
        }
    }

    /// Sends the next piece. The operation's result, where none is in the kernel.
    fn send_file_step(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) -> Option<i32> {
        let Some(socket) = entry.raw.get().socket() else { return Some(-errno::ENOTSOCK) };
        let Some(transmit) = self.extensions.transmit_file else { return Some(-errno::ENOSYS) };
        if let Err(error) = self.associate(core, entry, true) {
            return Some(-error);
        }
        let source = payload::source_of(slot);
        let file = core.fds.get(source.file.get())?.raw.get();
        loop {
            let done = slot.progress.get();
            let offset = source.offset.saturating_add(done.into());
            let rest = match rest_of(file, offset) {
                Ok(rest) => rest,
                Err(error) => return Some(-error),
            };
            // All of the file, says the system to a length of nothing.
            let len = (source.len - done).min(AT_ONCE).min(u32::try_from(rest).unwrap_or(u32::MAX));
            if len == 0 {
                return Some(done as i32);
            }
            let overlapped = home.give(slot.generation.get(), at_offset(offset));
            let none = std::ptr::null();
            // SAFETY: the slot keeps the socket and the file open until its last completion, which is not before the
            // packet; the home is the kernel's until then.
            let ok = unsafe { transmit(socket, file.handle(), len, 0, overlapped, none, 0) } != 0;
            let skips = entry.of_room.skips.get();
            match Began::of(ok, if ok { 0 } else { socket_error() }, skips) {
                Began::Posts => {
                    entry.of_room.sends.set(entry.of_room.sends.get() + 1);
                    return None;
                }
                Began::Ended => {
                    let (status, bytes) = home.ended();
                    let ended = after(core, slot, entry, status, bytes);
                    if ended.is_some() {
                        return ended;
                    }
                }
                Began::Failed(error) => {
                    home.take_back();
                    return Some(-status::of_send(error));
                }
            }
        }
    }
}

/// What a piece that has ended means for its operation: a result, or that it goes on.
fn after(core: &Core, slot: &Slot, entry: &Entry, status: Status, bytes: usize) -> Option<i32> {
    let source = payload::source_of(slot);
    let sent = slot.progress.get() + (bytes as u32).min(source.len - slot.progress.get());
    slot.progress.set(sent);
    let unwanted = slot.has(bits::CANCELLED) || entry.has(flags::CLOSING);
    match status.socket_error() {
        // Nothing of something: it would go on for ever.
        0 if sent >= source.len || bytes == 0 => Some(sent as i32),
        0 => unwanted.then(|| core.cancelled(slot)),
        errno::ECANCELED => Some(core.cancelled(slot)),
        // It has become shorter meanwhile.
        _ if status == Status::END_OF_FILE => Some(sent as i32),
        error => Some(-status::of_send(error)),
    }
}

/// How much there is of a file from a place on.
fn rest_of(file: RawDescriptor, offset: u64) -> Result<u64, i32> {
    if file.socket().is_some() || !calls::is_file(file) {
        return Err(errno::ESPIPE);
    }
    let mut len = 0;
    // SAFETY: the operation keeps it open; the number is ours.
    if unsafe { GetFileSizeEx(file.handle(), &mut len) } == 0 {
        return Err(system_error());
    }
    Ok(len.unsigned_abs().saturating_sub(offset))
}
