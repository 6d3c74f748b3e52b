//! Shutdown: everything is cancelled and waited for, and what the kernel does not let go of is left behind.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Driver;
use crate::core::Core;
use crate::descriptor::flags;
use crate::slot::{NIL, State};
use crate::sys::{Room, calls};

/// What drivers had to leave behind. Nobody ever looks at it again.
static LEFT_BEHIND: Mutex<Vec<AtomicPtr<LeftBehind>>> = Mutex::new(Vec::new());

struct LeftBehind {
    _core: Core,
    _room: Room,
}

impl Driver {
    /// Cancels everything and waits until the kernel has let go of all, at most for `timeout`. Returns how
    /// many operations it has not let go of.
    fn drain(&self, timeout: Duration) -> u32 {
        let core = &*self.core;
        for index in 0..core.arena.used() {
            let Some(slot) = core.arena.get(index) else { continue };
            if slot.state.get() == State::Busy {
                slot.state.set(State::Orphan);
                core.counters().orphans.add(1);
                self.cancel_slot(slot);
            }
        }
        for index in 0..core.fds.len() {
            let Some(entry) = core.fds.get(index) else { continue };
            if entry.flags.get() & (flags::OPEN | flags::CLOSING) == flags::OPEN {
                entry.begin_close(NIL);
                if entry.in_flight() == 0 {
                    core.closable.push(index);
                }
            }
        }
        self.settle();
        let timeout = if mutant!("close-is-no-barrier") { Duration::ZERO } else { timeout };
        let give_up = calls::now() + timeout;
        loop {
            let in_flight = self.orphans();
            if in_flight == 0 && core.fds.open() == 0 {
                // What is staged now is closes that nobody waits for: they must still reach the kernel, which
                // may take them piecemeal, or not at the first try.
                if !self.room.has_staged() || self.room.wait(core, Some(Duration::ZERO)).is_err() {
                    return 0;
                }
                if calls::now() < give_up {
                    continue;
                }
                return 0;
            }
            let left = give_up.saturating_duration_since(calls::now());
            if left.is_zero() {
                return in_flight.max(1);
            }
            if self.tick(Some(left.min(Duration::from_millis(50))), |_| {}).is_err() {
                return in_flight.max(1);
            }
        }
    }

    fn orphans(&self) -> u32 {
        self.core.counters().orphans.get() as u32
    }
}

impl Drop for Driver {
    /// Cancels everything in flight and waits until the kernel has let go, at most for
    /// [`Config::shutdown_timeout`](crate::Config::shutdown_timeout). Closing a ring is no barrier, so what
    /// is still in flight then is left behind for good, memory, descriptors and all;
    /// [`Counters::leaked`](crate::Counters::leaked) tells how many operations.
    fn drop(&mut self) {
        let left = if self.ticking.get() { u32::MAX } else { self.drain(self.shutdown_timeout) };
        let left = if mutant!("close-is-no-barrier") && left != u32::MAX {
            // What has been asked to cancel has not ended yet.
            let _ = self.tick(Some(Duration::ZERO), |_| {});
            0
        } else {
            left
        };
        self.core.shared.closed.store(true, Ordering::Release);
        if left > 0 {
            self.core.counters().leaked.set(u64::from(left));
            // Not freed, not unmapped, not closed: the kernel may still write into any of it.
            // SAFETY: neither is used after this.
            let behind = unsafe {
                LeftBehind {
                    _core: ManuallyDrop::take(&mut self.core),
                    _room: ManuallyDrop::take(&mut self.room),
                }
            };
            // Where a leak checker finds it: this is no leak by mistake.
            let all = LEFT_BEHIND.lock();
            let behind = AtomicPtr::new(Box::into_raw(Box::new(behind)));
            all.unwrap_or_else(PoisonError::into_inner).push(behind);
            return;
        }
        let core = &*self.core;
        // Outcomes that nobody has taken.
        for index in 0..core.arena.used() {
            if let Some(slot) = core.arena.get(index)
                && slot.has_ended()
                && !mutant!("compio-769")
            {
                core.discard(slot);
            }
        }
        self.room.retire(core);
        // SAFETY: neither is used after this; nothing is in flight, so the kernel holds none of it.
        unsafe {
            ManuallyDrop::drop(&mut self.room);
            ManuallyDrop::drop(&mut self.core);
        }
    }
}
