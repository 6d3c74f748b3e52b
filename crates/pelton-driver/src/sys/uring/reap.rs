//! Reaping: what a completion means for the operation that it is of.
//!
//! An operation ends with its last completion, and some of those are not the operation's end: an
//! interruption; a descriptor that does not block and has nothing (the ring then polls it first); a send
//! of everything that was cut short; a pooled receive that found no buffer, which waits for one; a
//! multishot operation that the kernel stopped because its completion queue was full. In all of these the
//! slot stays busy and is submitted again, unless a cancel was asked for meanwhile or the descriptor is
//! closing.

use super::entry;
use super::ring::{Batch, Cqe, Ring};
use super::{CANCEL, Uring, WAKE};
use crate::core::{Core, OnCompletion};
use crate::descriptor::flags;
use crate::op::Kind;
use crate::payload::{self, Item};
use crate::seam;
use crate::slot::{NIL, OpId, Slot, Standing, State, bits, plain};
use crate::sys::descriptor::own;
use crate::sys::unix::errno;

impl Uring {
    #[inline(always)]
    pub(super) fn reap_all(&self, core: &Core, on: &mut impl OnCompletion) {
        let mut reaping = Reaping { core, ring: &self.ring, batch: self.ring.batch() };
        // Bounded by what is there now, so that a tick ends.
        while let Some(cqe) = reaping.batch.next() {
            if !self.dispatch_plain(core, cqe, on) {
                // As numbers: a reference to the whole would keep it out of registers.
                self.dispatch(core, cqe.user_data, cqe.res, cqe.flags, on);
            }
        }
        drop(reaping);
        let overflows = self.ring.cq_overflows();
        if overflows != self.overflows.get() {
            core.counters().cq_overflows.add(overflows - self.overflows.replace(overflows));
        }
    }

    /// What nearly all completions are: an end with success, of an operation with nothing special about it.
    /// False, with nothing done, for any other.
    #[inline(always)]
    fn dispatch_plain(&self, core: &Core, cqe: Cqe, on: &mut impl OnCompletion) -> bool {
        const RECV: Standing = plain(Kind::Recv, 0);
        const RECV_POOLED: Standing = plain(Kind::RecvPooled, 0);
        const SEND: Standing = plain(Kind::Send, 0);
        const SEND_ALL: Standing = plain(Kind::Send, bits::ALL);
        let id = OpId::from_user_data(cqe.user_data);
        let slot = core.arena.place(id);
        // The whole name: another one is that of an operation that has gone, or of none at all.
        if slot.id() != id && !mutant!("user-data-without-generation") {
            return false;
        }
        let mut result = cqe.res;
        if result < 0 {
            return false;
        }
        match slot.standing() {
            RECV => core.counters().ended(Kind::Recv),
            SEND_ALL | SEND => {
                if (result as u32) < slot.arg.get() {
                    return false;
                }
                result += slot.progress.get() as i32;
                core.counters().ended(Kind::Send);
            }
            RECV_POOLED => {
                if let Some(buffer) = cqe.buffer()
                    && let Some(lease) =
                        core.pool.received(buffer, result as u32, cqe.buffer_more())
                {
                    payload::put_lease(slot, lease);
                }
                core.counters().ended(Kind::RecvPooled);
            }
            _ => return false,
        }
        if mutant!("ioxide-244") && result == 0 && slot.kind.get() != Kind::Send {
            self.fail_sends(core, slot.fd.get());
        }
        // SAFETY: these kinds are operations on a descriptor, and are in flight since it was found.
        let entry = unsafe { core.fds.get_used(slot.fd.get()) };
        core.finish_plain(slot, id, entry, result, on);
        true
    }

    #[inline(never)]
    fn dispatch(
        &self,
        core: &Core,
        user_data: u64,
        res: i32,
        flags: u32,
        on: &mut dyn OnCompletion,
    ) {
        let cqe = Cqe { user_data, res, flags };
        if cqe.user_data as u32 == NIL {
            return self.dispatch_internal(core, cqe);
        }
        let Some(slot) = core.in_flight(cqe.user_data) else { return };
        let result = cqe.res;
        if slot.kind.get() == Kind::Own {
            return self.dispatch_own(core, slot, cqe, on);
        }
        if slot.has(bits::POLLING) || (result < 0 && try_again(slot.kind.get(), result)) {
            return self.dispatch_again(core, slot, cqe, on);
        }
        if result == -errno::ECANCELED && slot.kind.get().is_accept() {
            if may_restart(core, slot) {
                // Roused, and not cancelled by anybody.
                return self.dispatch_again(core, slot, cqe, on);
            }
            self.rouse_accepts(core, slot);
        }
        let result = match slot.kind.get() {
            Kind::RecvPooled => {
                if let Some(buffer) = cqe.buffer() {
                    let n = result.max(0) as u32;
                    if let Some(lease) = core.pool.received(buffer, n, cqe.buffer_more()) {
                        payload::put_lease(slot, lease);
                    }
                }
                result
            }
            Kind::Send | Kind::Write
                if result >= 0
                    && (result as u32) < slot.arg.get()
                    && slot.has(bits::ALL)
                    && !mutant!("short-send-is-the-end") =>
            {
                return self.dispatch_short_send(core, slot, result, on);
            }
            Kind::Send | Kind::Write => {
                let sent = slot.progress.get() as i32;
                match result {
                    _ if result >= 0 => sent + result,
                    _ if result == -errno::ECANCELED => core.cancelled(slot),
                    error => error,
                }
            }
            Kind::SendFile => return self.dispatch_send_file(core, slot, result, on),
            Kind::RecvMulti => return self.dispatch_recv_multi(core, slot, cqe, on),
            Kind::Accept => {
                if mutant!("compio-315") && slot.state.get() == State::Orphan {
                    // Nobody waits for the connection, and nobody closes it.
                } else if result >= 0 {
                    core.counters().accepts.add(1);
                    // SAFETY: the kernel has just made it for this operation.
                    payload::put_descriptor(slot, unsafe { own(result) });
                }
                result.min(0)
            }
            Kind::AcceptMulti => return self.dispatch_accept_multi(core, slot, cqe, on),
            Kind::SendVectored => return self.dispatch_send_vectored(core, slot, result, on),
            _ => result,
        };
        core.finish_now(slot, result, on);
    }

    #[cold]
    fn dispatch_internal(&self, core: &Core, cqe: Cqe) {
        if cqe.user_data == WAKE {
            core.shared.wake.drain();
            if !cqe.more() && !mutant!("watch-not-rearmed") {
                self.watching.set(false);
                self.watch(core);
            }
        }
        if cqe.user_data >> 32 >= CANCEL
            && let Some(slot) = core.arena.get((cqe.user_data >> 32) as u32 - CANCEL as u32)
            && matches!(slot.state.get(), State::Busy | State::Orphan)
            && slot.has(bits::CANCELLED)
        {
            self.cancel_again(core, slot, cqe.res);
        }
        // Else a cancel that came too late, or a close that failed: nobody waits to hear of it.
    }

    /// A cancel has not found its target, which has not ended. Between two attempts at one operation the kernel
    /// has it in no list that a cancel looks through: what was ready again while it was about to wait is queued
    /// to be tried, and then goes on. So the cancel is made again, at the next entry, until the operation ends.
    /// The slot may be another operation's by now, which is being cancelled as well.
    #[cold]
    fn cancel_again(&self, core: &Core, slot: &Slot, result: i32) {
        if mutant!("reseau-134") {
            // Too late to cancel it, so it is taken to have ended: its completion is still on its way.
            return core.finish_later(slot, core.cancelled(slot));
        }
        let again = match slot.kind.get() {
            // What is with a disk cannot be cancelled, and ends by itself.
            Kind::ReadAt | Kind::WriteAt | Kind::Sync => false,
            Kind::SendFile if !Uring::is_sending(slot) => false,
            // With a thread of the kernel that may never hear of it.
            Kind::Own => result == -errno::ENOENT,
            _ => matches!(-result, errno::ENOENT | errno::EALREADY),
        };
        if again {
            self.cancel(core, slot);
        }
    }

    /// An accept has been cancelled. The kernel wakes one waiting accept for each connection, and until a cancelled
    /// one has ended it may be that one: then nobody tells the others, though a connection is there. So they are
    /// all taken out of the kernel and given to it again, which looks before it waits.
    #[cold]
    fn rouse_accepts(&self, core: &Core, ended: &Slot) {
        let Some(entry) = core.entry_of(ended) else { return };
        if entry.in_flight() < 2 || mutant!("accepts-not-roused") {
            return;
        }
        for at in 0..core.arena.used() {
            let Some(slot) = core.arena.get(at) else { break };
            let waits = slot.fd.get() == ended.fd.get() && slot.kind.get().is_accept();
            if waits && !std::ptr::eq(slot, ended) && may_restart(core, slot) {
                self.cancel(core, slot);
            }
        }
    }

    /// A completion of an operation of the user's own: the outcome as it is, or the word that its descriptor is
    /// ready.
    #[cold]
    fn dispatch_own(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        if !slot.has(seam::READY) {
            if cqe.more() {
                // A zero-copy send says first what it did, and when the memory is free after that.
                if !slot.has(bits::POLLING) {
                    slot.set(bits::POLLING);
                    slot.arg.set(cqe.res as u32);
                }
                return;
            }
            let result =
                if cqe.is_notice() && slot.has(bits::POLLING) { slot.result() } else { cqe.res };
            slot.unset(bits::POLLING);
            // What was interrupted by its cancel may say so in the kernel's own words ("restart me").
            let restarts = matches!(-result, 512..=514 | 516) && slot.has(bits::CANCELLED);
            return core.finish_now(slot, if restarts { core.cancelled(slot) } else { result }, on);
        }
        let Some(entry) = core.entry_of(slot) else { return };
        let result = match cqe.res {
            _ if !may_restart(core, slot) => core.cancelled(slot),
            error if error < 0 && error != -errno::EINTR => error,
            // Interrupted, it is called all the same, and says that it would block.
            _ => seam::attempt(core, slot, entry.raw.get()),
        };
        if result == -errno::EAGAIN {
            self.push_again(core, slot, entry.raw.get());
        } else {
            core.finish_now(slot, result, on);
        }
    }

    /// A completion that is not the operation's end.
    #[cold]
    fn dispatch_again(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        if let Some(buffer) = cqe.buffer() {
            // Nothing was received, so the buffer is still whole.
            let _ = core.pool.received(buffer, 0, cqe.buffer_more());
        }
        let result = cqe.res;
        if cqe.more() {
            return;
        }
        let polled = slot.has(bits::POLLING);
        if !mutant!("polling-kept") {
            slot.unset(bits::POLLING);
        }
        if !may_restart(core, slot) {
            // "Try again" is no outcome.
            let real = polled && result < 0 && !matches!(-result, errno::EINTR | errno::ECANCELED);
            return core.finish_now(slot, if real { result } else { core.cancelled(slot) }, on);
        }
        match -result {
            errno::ENOBUFS if !polled => core.stall(slot),
            errno::EAGAIN if !polled => {
                // A descriptor that does not block makes the ring give up at once: poll it first.
                slot.set(bits::POLLING);
                let Some(entry) = core.entry_of(slot) else { return };
                let events = if sends(slot.kind.get()) { libc::POLLOUT } else { libc::POLLIN };
                let sqe = entry::poll(entry.raw.get(), events, core.arena.id(slot).user_data());
                self.push(core, sqe);
            }
            error if polled && error > 0 && error != errno::EINTR => {
                core.finish_now(slot, result, on)
            }
            _ => self.restart(core, slot),
        }
    }

    #[cold]
    fn dispatch_short_send(
        &self,
        core: &Core,
        slot: &Slot,
        result: i32,
        on: &mut dyn OnCompletion,
    ) {
        let sent = slot.progress.get() + result as u32;
        slot.progress.set(sent);
        if result == 0 || !may_restart(core, slot) {
            return core.finish_now(slot, sent as i32, on);
        }
        slot.arg.set(slot.arg.get() - result as u32);
        self.restart(core, slot);
    }

    fn dispatch_send_vectored(
        &self,
        core: &Core,
        slot: &Slot,
        result: i32,
        on: &mut dyn OnCompletion,
    ) {
        if result == -errno::ECANCELED {
            return core.finish_now(slot, core.cancelled(slot), on);
        }
        if result < 0 {
            return core.finish_now(slot, result, on);
        }
        let block = core.scratch.get(slot.progress.get());
        block.skip(result as usize);
        if result == 0 || block.bytes() == 0 || !slot.has(bits::ALL) || !may_restart(core, slot) {
            return core.finish_now(slot, block.skipped() as i32, on);
        }
        self.restart(core, slot);
    }

    fn dispatch_recv_multi(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        let lease = cqe.buffer().and_then(|buffer| {
            core.pool.received(buffer, cqe.res.max(0) as u32, cqe.buffer_more())
        });
        let ended = lease.is_none();
        if let Some(lease) = lease {
            self.yielded(core, slot, cqe, Item::Lease(lease), on);
        }
        if mutant!("ioxide-244") && ended {
            self.fail_sends(core, slot.fd.get());
        }
        if !cqe.more() {
            self.end_or_rearm(core, cqe, ended, on);
        } else if mutant!("multishot-dropped-at-first") && slot.state.get() == State::Orphan {
            core.finish_now(slot, 0, on);
        }
    }

    /// ioxide #244: only a mutant does this.
    #[cold]
    fn fail_sends(&self, core: &Core, fd: u32) {
        for slot in (0..core.arena.used()).filter_map(|index| core.arena.get(index)) {
            let in_flight = slot.state.get() == State::Busy && !slot.has(bits::LINKED);
            if in_flight && slot.kind.get() == Kind::Send && slot.fd.get() == fd {
                core.finish_later(slot, -libc::EPIPE);
            }
        }
    }

    fn dispatch_accept_multi(&self, core: &Core, slot: &Slot, cqe: Cqe, on: &mut dyn OnCompletion) {
        let ended = cqe.res < 0;
        if !ended {
            core.counters().accepts.add(1);
            // SAFETY: the kernel has just made it for this operation.
            let connection = Item::Connection(unsafe { own(cqe.res) });
            self.yielded(core, slot, cqe, connection, on);
        }
        if !cqe.more() {
            self.end_or_rearm(core, cqe, ended, on);
        } else if mutant!("multishot-dropped-at-first") && slot.state.get() == State::Orphan {
            core.finish_now(slot, 0, on);
        }
    }

    /// Tells of an item. Where the callback panics the operation goes on all the same, or ends, if this was the
    /// last that the kernel has to say of it.
    fn yielded(&self, core: &Core, slot: &Slot, cqe: Cqe, item: Item, on: &mut dyn OnCompletion) {
        let unfinished = (!cqe.more()).then(|| Unfinished { room: self, core, cqe });
        core.yielded(slot, item, on);
        std::mem::forget(unfinished);
    }

    /// The kernel has let go of a multishot operation: because that has ended, or because there was no
    /// room to go on. Whoever was told of its last item may have cancelled or abandoned it, but the slot
    /// stays in flight until this.
    fn end_or_rearm(&self, core: &Core, cqe: Cqe, ended: bool, on: &mut dyn OnCompletion) {
        let Some(slot) = core.in_flight(cqe.user_data) else { return };
        if ended {
            return core.finish_now(slot, cqe.res.min(0), on);
        }
        if may_restart(core, slot) {
            if !mutant!("multishot-not-rearmed") {
                self.restart(core, slot);
            }
        } else {
            core.finish_now(slot, -errno::ECANCELED, on);
        }
    }
}

/// A multishot operation that the kernel has let go of, while user code is told of its last item.
struct Unfinished<'a> {
    room: &'a Uring,
    core: &'a Core,
    cqe: Cqe,
}

impl Drop for Unfinished<'_> {
    #[cold]
    fn drop(&mut self) {
        let core = self.core;
        let Some(slot) = core.in_flight(self.cqe.user_data) else { return };
        if may_restart(core, slot) {
            self.room.restart(core, slot);
        } else {
            core.finish_later(slot, -errno::ECANCELED);
        }
    }
}

/// Counts what has been taken from the completion queue and gives it back to the kernel, also where a
/// callback panics.
struct Reaping<'a> {
    core: &'a Core,
    ring: &'a Ring,
    batch: Batch<'a>,
}

impl Drop for Reaping<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let taken = self.batch.leave();
        self.ring.publish();
        self.core.counters().completions.add(u64::from(taken));
    }
}

/// True for results that are not the end of this operation.
#[cold]
fn try_again(kind: Kind, result: i32) -> bool {
    match -result {
        errno::EINTR if mutant!("interrupted-is-the-end") => false,
        errno::EAGAIN if mutant!("again-is-the-end") => false,
        errno::ENOBUFS if mutant!("ioxide-93") => false,
        errno::EINTR => !matches!(kind, Kind::Connect | Kind::Shutdown | Kind::Close),
        errno::EAGAIN => !matches!(
            kind,
            Kind::ReadAt | Kind::WriteAt | Kind::Sync | Kind::Shutdown | Kind::Close
        ),
        errno::ENOBUFS => matches!(kind, Kind::RecvPooled | Kind::RecvMulti),
        _ => false,
    }
}

fn sends(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Send
            | Kind::SendVectored
            | Kind::SendMsg
            | Kind::SendFile
            | Kind::Write
            | Kind::Connect
    )
}

pub(super) fn may_restart(core: &Core, slot: &Slot) -> bool {
    slot.state.get() == State::Busy
        && !slot.has(bits::CANCELLED)
        && core.entry_of(slot).is_some_and(|entry| !entry.has(flags::CLOSING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_ends_only_what_must_not_be_done_twice() {
        for kind in Kind::ALL {
            let once = matches!(kind, Kind::Connect | Kind::Shutdown | Kind::Close);
            assert_eq!(try_again(kind, -errno::EINTR), !once, "{kind:?}");
        }
    }

    #[test]
    fn only_receives_without_a_buffer_wait_for_one_and_only_sockets_are_polled() {
        for kind in Kind::ALL {
            let pooled = matches!(kind, Kind::RecvPooled | Kind::RecvMulti);
            assert_eq!(try_again(kind, -errno::ENOBUFS), pooled, "{kind:?}");
            assert!(!try_again(kind, -errno::ECANCELED) && !try_again(kind, -libc::ECONNRESET));
        }
        assert!(
            try_again(Kind::Accept, -errno::EAGAIN) && try_again(Kind::Connect, -errno::EAGAIN)
        );
        assert!(
            !try_again(Kind::ReadAt, -errno::EAGAIN) && !try_again(Kind::Close, -errno::EAGAIN)
        );
    }
}
