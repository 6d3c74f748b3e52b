//! Sending from a file, in the rooms of readiness.
//!
//! A call that sends from a file waits for no socket that does not block, but for the disk. So it is made by a
//! thread of the blocking pool: it sends as much as there is room for, or as it is to send at a time, and its result
//! comes home, where the operation goes on, or is parked until the socket is ready. What happens on the socket
//! meanwhile is an edge that nobody has waited for: so before it is parked the socket is asked once more, by the
//! thread that takes the edges.

use super::{Direction, Poller, Readiness};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::payload;
use crate::slot::{Slot, State, bits};
use crate::sys::unix::errno;
use crate::sys::{calls, sendfile};

/// The most bytes that one call sends, so that a cancel does not wait for long.
const AT_ONCE: u32 = 1 << 20;

impl<P: Poller> Readiness<P> {
    /// Has a thread send some more. Whoever dispatches tells of its end, where no thread can be had.
    pub(super) fn send_from_file(&self, core: &Core, slot: &Slot, entry: &Entry) {
        let source = payload::source_of(slot);
        let Some(file) = core.fds.get(source.file.get()) else { return };
        let done = slot.progress.get();
        let (socket, file) = (entry.raw.get(), file.raw.get());
        let (offset, len) = (source.offset.wrapping_add(done.into()), source.len - done);
        let call = move || {
            loop {
                // SAFETY: the slot keeps both descriptors open until this call's result has come back to the
                // driver, or is leaked.
                let result = unsafe { sendfile::send(socket, file, offset, len.min(AT_ONCE)) };
                if result != -errno::EINTR {
                    return result;
                }
            }
        };
        self.pool_job(core, slot, Box::new(call));
    }

    /// The result of such a call has come home.
    pub(crate) fn file_sent(
        &self,
        core: &Core,
        slot: &Slot,
        result: i32,
        on: &mut dyn OnCompletion,
    ) {
        let Some(entry) = core.entry_of(slot) else { return };
        let unwanted = slot.state.get() != State::Busy
            || slot.has(bits::CANCELLED)
            || entry.has(flags::CLOSING);
        if result > 0 {
            slot.progress.set(slot.progress.get() + result as u32);
        }
        let sent = slot.progress.get();
        let is_over = result == 0 || sent >= payload::source_of(slot).len;
        match -result {
            errno::EAGAIN => {}
            error if error > 0 => return core.finish_now(slot, result, on),
            _ if is_over => return core.finish_now(slot, sent as i32, on),
            _ => {}
        }
        if unwanted {
            return core.finish_now(slot, core.cancelled(slot), on);
        }
        if result == -errno::EAGAIN && calls::poll(entry.raw.get(), libc::POLLOUT) == 0 {
            entry.unset(flags::WRITABLE);
            let _ = self.park(core, slot, entry, Direction::Out);
        } else {
            self.send_from_file(core, slot, entry);
        }
        if slot.state.get() == State::Done {
            core.announce(slot);
        }
    }
}
