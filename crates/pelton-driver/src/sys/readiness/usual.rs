//! What is usual, and short: a send on a descriptor that is ready, and one receive that waits for an edge.
//!
//! All that is not so simple goes the long way, in the file above, which knows every case.

use super::{Poller, Readiness, forget_readable};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::Kind;
use crate::payload::{self, MAX_TRANSFER};
use crate::slot::{Slot, Standing, bits, plain};
use crate::sys::Try;
use crate::sys::attempt::{recv, send};
use crate::sys::unix::errno;

impl<P: Poller> Readiness<P> {
    /// Sends on a descriptor that may be ready and on which no older send waits. Most sends are over then, and
    /// never have a slot. What is refused, or has to be tried again, is for [`Readiness::start`].
    #[inline(always)]
    pub(crate) fn try_send(&self, core: &Core, entry: &Entry, bytes: &[u8], all: bool) -> Try {
        let free = entry.has(flags::WRITABLE) && entry.writers.is_empty();
        if !free || bytes.len() > MAX_TRANSFER {
            return Try::Begun(0);
        }
        let result = send(entry.raw.get(), bytes);
        if result < 0 {
            return self.try_failed(core, entry, result);
        }
        if all && (result as usize) < bytes.len() {
            return Try::Begun(result as u32);
        }
        core.counters().at_once(Kind::Send);
        Try::Sent(result as usize)
    }

    #[cold]
    #[inline(never)]
    fn try_failed(&self, core: &Core, entry: &Entry, result: i32) -> Try {
        match -result {
            errno::EAGAIN => entry.unset(flags::WRITABLE),
            errno::EINTR => {}
            error => {
                core.counters().at_once(Kind::Send);
                return Try::Failed(error);
            }
        }
        Try::Begun(0)
    }

    /// What nearly all that is parked is: one receive, with nothing special about it. Tries it, and does nothing
    /// where it is something else.
    #[inline(always)]
    pub(super) fn run_plain(&self, core: &Core, entry: &Entry, on: &mut impl OnCompletion) {
        const RECV: Standing = plain(Kind::Recv, bits::LINKED);
        const RECV_POOLED: Standing = plain(Kind::RecvPooled, bits::LINKED);
        if !entry.has(flags::READABLE) {
            return;
        }
        let Some(slot) = entry.readers.only(&core.arena) else { return };
        // What it is, is known in its own arm: what comes after is told of it, and does not ask again.
        let (result, kind, now) = match slot.standing() {
            RECV => {
                let Some(memory) = core.memory_of_plain(slot, Kind::Recv, bits::LINKED) else {
                    return self.unwanted(core, slot, entry, on);
                };
                let result = recv(entry.raw.get(), memory.ptr, memory.len);
                if result > 0 && (result as usize) < memory.len {
                    forget_readable(entry);
                }
                (result, Kind::Recv, plain(Kind::Recv, 0))
            }
            RECV_POOLED => {
                let Some(buffer) = core.pool.pick() else { return };
                let (ptr, room) = buffer.rest();
                let result = recv(entry.raw.get(), ptr, room as usize);
                if result > 0 {
                    payload::put_lease(slot, core.pool.commit(buffer, result as u32));
                    if (result as u32) < room {
                        forget_readable(entry);
                    }
                }
                (result, Kind::RecvPooled, plain(Kind::RecvPooled, 0))
            }
            _ => return,
        };
        if result < 0 && is_no_end(entry, result) {
            return;
        }
        // Its owner may have submitted another one meanwhile.
        if slot.is_alone() {
            entry.readers.forget_only();
        } else {
            entry.readers.remove(&core.arena, slot);
        }
        let counters = core.counters();
        counters.completions.add(1);
        counters.ended(kind);
        slot.set_standing(now);
        core.finish_plain(slot, slot.id(), entry, result, on);
    }

    /// Ends a receive that nobody wants any more, as its owner has brought about when it was asked for memory.
    #[cold]
    #[inline(never)]
    fn unwanted(&self, core: &Core, slot: &Slot, entry: &Entry, on: &mut dyn OnCompletion) {
        if slot.has(bits::LINKED) {
            entry.readers.remove(&core.arena, slot);
        }
        core.counters().completions.add(1);
        core.finish_now(slot, core.cancelled(slot), on);
    }
}

/// True for a result that is not the end of an operation: it is to be tried again, now or when it is ready.
#[cold]
fn is_no_end(entry: &Entry, result: i32) -> bool {
    if result == -errno::EAGAIN {
        entry.unset(flags::READABLE);
    }
    matches!(-result, errno::EAGAIN | errno::EINTR)
}
