//! Ending early: operations that are cancelled or abandoned, and descriptors that are closed when nothing
//! is in flight on them any more.

use super::Driver;
use crate::descriptor::{Fd, flags};
use crate::op::Kind;
use crate::payload::{Leftover, Payload};
use crate::slot::{Key, NIL, OpId, Slot, State, bits};

impl Driver {
    /// Closes a descriptor and tells nobody: operations on it are refused from now on, those in flight are
    /// cancelled, and when the last of them has ended it is closed. Nothing happens where it is closed
    /// already.
    pub fn close(&self, fd: Fd) {
        if let Some(entry) = self.core.fds.find(fd) {
            entry.begin_close(NIL);
            self.begin_close(fd.index, entry);
        }
    }

    pub(super) fn begin_close(&self, index: u32, entry: &crate::descriptor::Entry) {
        if entry.in_flight() == 0 || mutant!("close-with-operations") {
            self.core.closable.push(index);
        } else {
            self.cancel_all_on(index, entry);
        }
        self.settle();
    }

    /// Cancels what is in flight on a descriptor that is closing: nothing on it is retried any more.
    fn cancel_all_on(&self, index: u32, entry: &crate::descriptor::Entry) {
        if entry.in_flight() == entry.cancelled.get() {
            // Whoever had them in flight has abandoned them, as is usual: nothing is left to cancel.
            return;
        }
        if self.room.cancels_one_by_one() || entry.has(flags::SENT_FROM) {
            return self.cancel_each_on(index, entry);
        }
        // Those that wait for a buffer are the driver's; the others are the room's.
        let core = &*self.core;
        let mut at = core.stalled.first(&core.arena);
        while let Some(slot) = at {
            let next = core.arena.get(slot.arg.get());
            if slot.fd.get() == index {
                core.cancel_own(slot);
                // Dropping what an orphan owned may have changed the list.
                at = core.stalled.first(&core.arena);
            } else {
                at = next;
            }
        }
        self.room.cancel_fd(core, entry);
    }

    /// Looks through all operations for those on a descriptor and cancels each, so that none is retried.
    #[cold]
    pub(super) fn cancel_each_on(&self, index: u32, entry: &crate::descriptor::Entry) {
        let core = &*self.core;
        for at in 0..core.arena.used() {
            if entry.in_flight() == entry.cancelled.get() {
                break;
            }
            let Some(slot) = core.arena.get(at) else { break };
            if core.is_on(slot, index) {
                self.cancel_slot(slot);
            }
        }
    }

    /// Closes the descriptors on which nothing is in flight any more. Not in the middle of a dispatch,
    /// which may still look at them.
    #[inline]
    pub(super) fn settle(&self) {
        if self.core.closable.len() > 0 && !self.ticking.get() {
            self.close_closable();
        }
    }

    #[cold]
    fn close_closable(&self) {
        let core = &*self.core;
        while let Some(index) = core.closable.pop() {
            let Some(entry) = core.fds.get(index) else { continue };
            if entry.flags.get() & (flags::OPEN | flags::CLOSING) != flags::OPEN | flags::CLOSING
                || (entry.in_flight() > 0 && !mutant!("close-with-operations"))
            {
                continue;
            }
            let closer = core.arena.get(entry.closer.get());
            if entry.has(flags::BORROWED) {
                // The user's: only forgotten.
                self.room.forget(core, entry);
                entry.raw.set(crate::sys::NO_DESCRIPTOR);
                closer.inspect(|closer| core.finish_later(closer, 0));
            } else {
                self.room.close(core, entry, closer);
            }
            core.fds.remove(index);
        }
    }

    /// Asks to cancel an operation. True when it was in flight: it then ends soon, with `ECANCELED` or with
    /// what it had done already, and its completion is told of as ever.
    ///
    /// Asking twice, or for one that has ended, does nothing. A close is not cancelled.
    pub fn cancel(&self, id: OpId) -> bool {
        let core = &*self.core;
        if mutant!("libxev-237") {
            // libxev #230: whoever is in that place, in whatever state.
            core.arena.get(id.index()).inspect(|slot| self.cancel_slot(slot));
            return true;
        }
        let Some(slot) = core.arena.find(id).filter(|slot| slot.state.get() == State::Busy) else {
            return false;
        };
        self.cancel_slot(slot);
        true
    }

    /// Asks to cancel everything that is in flight, as [`Driver::cancel`] does for one operation.
    pub fn cancel_all(&self) {
        for at in 0..self.core.arena.used() {
            if let Some(slot) = self.core.arena.get(at)
                && slot.state.get() == State::Busy
            {
                self.cancel_slot(slot);
            }
        }
    }

    pub(super) fn cancel_slot(&self, slot: &Slot) {
        if slot.has(bits::CANCELLED) || slot.kind.get() == Kind::Close {
            return;
        }
        slot.set(bits::CANCELLED);
        if let Some(entry) = self.core.entry_of(slot) {
            entry.cancelled.set(entry.cancelled.get() + 1);
        }
        if slot.has(bits::ASKED) {
            // Its owner is asked for its memory right now, and whoever asks ends it.
            return;
        }
        if !self.core.cancel_own(slot) {
            self.room.cancel(&self.core, slot);
            if mutant!("send-reused-early") && slot.kind.get() == Kind::Send {
                self.end_at_once(slot);
            }
            if mutant!("cancel-removes") && slot.kind.get() == Kind::Recv {
                self.end_at_once(slot);
            }
        }
        self.settle();
    }

    /// Ends an operation that is cancelled without its last completion: only mutants do.
    #[cold]
    fn end_at_once(&self, slot: &Slot) {
        if matches!(slot.state.get(), State::Busy | State::Orphan) {
            self.core.finish_later(slot, self.core.cancelled(slot));
        }
    }

    /// Gives up an operation: whoever was waiting has gone. It is cancelled, nobody is told of it, and what
    /// it owns is dropped when the kernel has let go; a connection or a buffer that it brings is closed or
    /// given back.
    pub fn abandon<P: Payload>(&self, key: Key<P>) {
        let Some(slot) = self.slot_of(&key) else { return };
        if mutant!("done-becomes-orphan") && slot.has_ended() {
            // Whatever is not busy must be an orphan: nothing will ever complete it.
            slot.state.set(State::Busy);
        }
        match slot.state.get() {
            State::Busy if slot.kind.get() == Kind::Timeout => {
                // The driver's own: it ends here and now, and owns nothing.
                self.core.wheel.remove(&self.core.arena, slot);
                self.core.counters().ended(Kind::Timeout);
                self.core.arena.release(slot);
            }
            State::Busy => {
                if mutant!("ioxide-221") && slot.kind.get() == Kind::Send {
                    // The kernel may read it still.
                    drop(Leftover::take(slot));
                }
                slot.state.set(State::Orphan);
                slot.token.set(std::ptr::null_mut());
                self.core.counters().orphans.add(1);
                self.cancel_slot(slot);
            }
            State::Done | State::Told => self.core.discard(slot),
            State::Free | State::Orphan => {}
        }
    }
}
