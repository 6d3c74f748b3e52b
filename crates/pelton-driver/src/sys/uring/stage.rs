//! Staging: entries on their way into the submission queue, and those that find it full.

use super::Uring;
use super::entry::{Lean, Sqe};
use crate::core::Core;

impl Uring {
    /// Stages an entry. No call, unless the queue is full.
    pub(super) fn push(&self, core: &Core, sqe: Sqe) {
        if !self.push_now(sqe) {
            self.push_full(core, sqe);
        }
    }

    /// As `push`, for the entries that nearly all are: half as much is written.
    #[inline(always)]
    pub(super) fn push_lean(&self, core: &Core, sqe: Lean) {
        // SAFETY: an entry that is free is zero where a lean one says nothing: what was rich has been made so
        // again after the kernel took it (`clean`). What it points at belongs to a slot that stays busy until
        // the operation's last completion.
        unsafe {
            match self.ring.sqe_seen() {
                Some(place) => sqe.write(place.cast()),
                None => self.push_unseen(core, sqe.into()),
            }
        }
    }

    /// `push`, where it is to be looked how far the kernel has come. By itself, so that whoever pushes has nothing to keep
    /// for after the look.
    #[cold]
    #[inline(never)]
    fn push_unseen(&self, core: &Core, sqe: Sqe) {
        self.push(core, sqe);
    }

    fn push_now(&self, sqe: Sqe) -> bool {
        // SAFETY: the entry is written whole, here, and what it points at belongs to a slot that stays
        // busy until the operation's last completion, or to nobody but the kernel.
        unsafe {
            match self.ring.sqe() {
                Some(place) => place.cast::<Sqe>().write(sqe),
                None => return false,
            }
        }
        if sqe.is_rich() {
            // SAFETY: one thread; plain numbers.
            unsafe { &mut *self.rich.get() }.push(self.ring.last_staged());
        }
        true
    }

    /// Makes the entries zero again that are not, where the kernel has taken them. Behind every entry into the
    /// kernel, which is when it takes them, and so before any can be staged again.
    #[cold]
    pub(super) fn clean(&self) {
        // SAFETY: one thread; plain numbers.
        let rich = unsafe { &mut *self.rich.get() };
        rich.retain(|place| match self.ring.reclaim(*place) {
            // SAFETY: the kernel has taken the entry and reads it no more, and nobody has staged it since.
            Some(entry) => unsafe {
                entry.cast::<Sqe>().write(Sqe::NOTHING);
                false
            },
            None => true,
        });
    }

    #[cold]
    fn push_full(&self, core: &Core, sqe: Sqe) {
        core.counters().sq_full.add(1);
        // Submits and does not wait. An error leaves the entries staged, and this one goes behind them.
        core.counters().enters.add(1);
        let _ = self.entered(core, self.ring.enter(0, None, false));
        self.unload();
        // SAFETY: one thread; entries are plain data.
        let backlog = unsafe { &mut *self.backlog.get() };
        if !backlog.is_empty() || !self.push_now(sqe) {
            if mutant!("cancel-lost-when-full") && sqe.is_cancel() {
                return;
            }
            backlog.push_back(sqe);
        }
    }

    /// Moves entries from the backlog to the queue, as far as there is room.
    pub(super) fn unload(&self) {
        // SAFETY: one thread; entries are plain data.
        let backlog = unsafe { &mut *self.backlog.get() };
        while let Some(sqe) = backlog.front() {
            if !self.push_now(*sqe) {
                break;
            }
            backlog.pop_front();
        }
    }

    pub(super) fn has_backlog(&self) -> bool {
        // SAFETY: one thread; entries are plain data.
        !unsafe { &*self.backlog.get() }.is_empty()
    }
}
