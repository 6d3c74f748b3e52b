//! Sending from a file through the ring: what is read into memory of the operation's own is sent, in turns.
//!
//! The ring can splice, but only between a pipe and something else, by threads of the kernel's: for each chunk a
//! hand-over to one of those and back, twice, and a pipe for each operation. A read of what the page cache has and
//! a send for which there is room are both over in the entry that submits them.

use super::Uring;
use super::entry::{self, Sqe};
use crate::core::{Core, OnCompletion};
use crate::payload;
use crate::slot::Slot;
use crate::sys::unix::{RawDescriptor, errno};

impl Uring {
    /// The next entry: to send what was read, or to read some more.
    pub(super) fn send_file_entry(
        &self,
        core: &Core,
        slot: &Slot,
        raw: RawDescriptor,
    ) -> Option<Sqe> {
        let user_data = core.arena.id(slot).user_data();
        let source = payload::source_of(slot);
        let chunk = source.chunk()?;
        if let (ptr, left @ 1..) = chunk.left() {
            return Some(entry::send(raw, ptr, left, true, user_data).into());
        }
        let done = slot.progress.get();
        let file = core.fds.get(source.file.get())?.raw.get();
        let offset = source.offset.wrapping_add(done.into());
        let len = (source.len - done).min(chunk.room());
        Some(entry::read(file, chunk.start(), len, offset, user_data))
    }

    /// True while it is the socket that is waited for, and not the disk.
    pub(super) fn is_sending(slot: &Slot) -> bool {
        payload::source_of(slot).chunk().is_some_and(|chunk| chunk.left().1 > 0)
    }

    #[cold]
    pub(super) fn dispatch_send_file(
        &self,
        core: &Core,
        slot: &Slot,
        result: i32,
        on: &mut dyn OnCompletion,
    ) {
        if result < 0 {
            let is_cancel = result == -errno::ECANCELED;
            let result = if is_cancel { core.cancelled(slot) } else { result };
            return core.finish_now(slot, result, on);
        }
        let source = payload::source_of(slot);
        if let Some(chunk) = source.chunk().filter(|_| result > 0) {
            if Uring::is_sending(slot) {
                chunk.sent(result as u32);
                slot.progress.set(slot.progress.get() + result as u32);
            } else {
                chunk.fill(result as u32);
            }
        }
        // Nothing was read at the end of the file.
        if result == 0 || slot.progress.get() >= source.len {
            core.finish_now(slot, slot.progress.get() as i32, on);
        } else if super::reap::may_restart(core, slot) {
            self.restart(core, slot);
        } else {
            core.finish_now(slot, core.cancelled(slot), on);
        }
    }
}
