//! The tick: one entry into the kernel, and everything that is told of around it: completions, timers, and
//! what other threads have left.

use std::io;
use std::time::Duration;

use super::{Driver, MOST_WAITING, Tick};
use crate::core::{Completion, Distance, OnCompletion};
use crate::op::Kind;
use crate::slot::{OpId, State, Token, bits};
use crate::sys::{Ticks, calls, in_room};

impl Driver {
    /// Submits everything that is staged, waits for completions, a timer, or a notification from another
    /// thread, and tells `on` of each completion; at most for `timeout`, and for ever where that is none.
    /// With a timeout of zero it does not wait.
    ///
    /// A tick may return early and with nothing, for instance on a signal. In the usual case it enters the
    /// kernel once.
    ///
    /// # Errors
    /// The kernel refused to wait for a reason that trying again does not mend, or the call came from
    /// inside a tick's callback. Nothing in flight is lost.
    #[inline]
    pub fn tick(&self, timeout: Option<Duration>, on: impl FnMut(Completion)) -> io::Result<Tick> {
        self.tick_with(timeout, on)
    }

    /// [`Driver::tick`] for one that implements [`OnCompletion`] itself.
    ///
    /// # Errors
    /// As for [`Driver::tick`].
    #[inline]
    pub fn tick_with(&self, timeout: Option<Duration>, on: impl OnCompletion) -> io::Result<Tick> {
        in_room!(&*self.room, room => self.tick_in(room, timeout, on))
    }

    #[inline(always)]
    fn tick_in(
        &self,
        room: &impl Ticks,
        timeout: Option<Duration>,
        on: impl OnCompletion,
    ) -> io::Result<Tick> {
        if self.ticking.replace(true) {
            return Err(io::Error::new(
                io::ErrorKind::Deadlock,
                "a tick was asked for from inside a tick's callback",
            ));
        }
        let ticking = Ticking { driver: self };
        let core = &*self.core;
        core.counters().ticks.add(1);
        let mut on = Telling { driver: self, told: 0, on };
        let mut must_act = self.woken.get();
        if core.ready.len() > 0 {
            self.deliver_ready(&mut on);
            // Whoever has been told of something must get to act on it: no waiting then.
            let told = on.told > 0 && !mutant!("waits-after-telling");
            must_act |= told || core.ready.len() > 0;
        }
        if !core.stalled.is_empty() && !mutant!("stall-not-restarted") {
            self.restart_stalled();
            must_act |= core.ready.len() > 0;
        }
        let mut timeout = if must_act || room.has_work() { Some(Duration::ZERO) } else { timeout };
        if !core.wheel.is_empty() {
            timeout = self.or_next_timer(timeout);
        }
        let waited = self.wait(room, timeout);
        // After every wait, whether it was broken by a wake or not; then drain.
        if core.shared.latch.clear() {
            // Kept here until it has been acted on, which a callback that panics puts off.
            self.woken.set(true);
        }
        if waited.is_ok() {
            room.reap(core, &mut on);
        }
        if !core.wheel.is_empty() {
            self.fire_timers(&mut on);
        }
        let woken = self.woken.get();
        if woken {
            self.come_home(&mut on);
            self.woken.set(false);
        }
        drop(ticking);
        self.settle();
        waited.map(|()| Tick { completions: on.told, woken })
    }

    #[inline(always)]
    fn wait(&self, room: &impl Ticks, timeout: Option<Duration>) -> io::Result<()> {
        let core = &*self.core;
        let may_sleep = || core.shared.latch.try_sleep() || mutant!("sleeps-without-latch");
        let timeout = if timeout == Some(Duration::ZERO) || !may_sleep() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        room.wait(core, timeout)
    }

    /// A multishot operation whose items nobody takes is cancelled, so that it hoards neither connections
    /// nor buffers.
    fn bound_multishot(&self, id: OpId) {
        if let Some(slot) = self.core.arena.find(id)
            && slot.state.get() == State::Busy
            && crate::items::waiting(slot) >= MOST_WAITING
            && !slot.has(bits::CANCELLED)
        {
            self.core.counters().unclaimed.add(1);
            self.cancel_slot(slot);
        }
    }

    #[cold]
    fn deliver_ready(&self, on: &mut dyn OnCompletion) {
        let core = &*self.core;
        for _ in 0..core.ready.len() {
            let Some(id) = core.ready.pop() else { break };
            // Taken or abandoned meanwhile: nobody waits to be told.
            let mut found = core.arena.find(id);
            if mutant!("libxev-227") {
                // Whatever is in that place now.
                found = core.arena.get(id.index());
            }
            let Some(slot) = found else { continue };
            // Told of already, or its items have been taken.
            if !slot.has(bits::ANNOUNCED) && !mutant!("libxev-227") {
                continue;
            }
            slot.unset(bits::ANNOUNCED);
            let more = slot.state.get() == State::Busy;
            if slot.state.get() == State::Done {
                slot.state.set(State::Told);
            }
            if slot.state.get() != State::Orphan {
                on.on_completion(Completion { id, token: Token(slot.token.get()), more });
            }
        }
    }

    /// Buffers have come back: as many receives as there are buffers may try again.
    #[cold]
    fn restart_stalled(&self) {
        let core = &*self.core;
        for _ in 0..core.pool.available() {
            let Some(slot) = core.unstall() else { break };
            self.room.restart(core, slot);
        }
    }

    /// The timeout, or until the next timer is due if that is sooner.
    #[inline(never)]
    fn or_next_timer(&self, timeout: Option<Duration>) -> Option<Duration> {
        let core = &*self.core;
        if timeout == Some(Duration::ZERO) {
            return timeout;
        }
        // Reseau #107: the deadline of a read that is parked is not waited for.
        if mutant!("reseau-107") && core.counters().snapshot().in_flight_total() > core.wheel.len()
        {
            return timeout;
        }
        let next = core.wheel.next()?;
        let until = Duration::from_nanos(next.saturating_sub(core.nanos(calls::now())));
        Some(timeout.map_or(until, |timeout| timeout.min(until)))
    }

    fn fire_timers(&self, on: &mut dyn OnCompletion) {
        let core = &*self.core;
        core.wheel.advance(&core.arena, core.nanos(calls::now()), |slot| {
            core.counters().timers_fired.add(1);
            core.finish_now(slot, 0, on);
        });
    }

    /// What other threads have left: results of the blocking pool, and the wake itself.
    #[cold]
    fn come_home(&self, on: &mut dyn OnCompletion) {
        let core = &*self.core;
        // SAFETY: one thread, and not inside another tick: nobody else holds the queue, and the reference
        // ends before user code runs.
        core.replies.drain(unsafe { &mut *self.replies.get() });
        // SAFETY: as above. One by one, so that none is lost where a callback panics.
        while let Some((user_data, result)) = unsafe { &mut *self.replies.get() }.pop_front() {
            if let Some(slot) = core.in_flight(user_data) {
                core.counters().completions.add(1);
                if slot.kind.get() == Kind::SendFile {
                    self.room.file_sent(core, slot, result, on);
                } else {
                    core.finish_now(slot, result, on);
                }
            }
        }
        let mut wakes = 0;
        let mut at = core.wakes.first(&core.arena);
        while let Some(slot) = at {
            // Those that are here now: one that the callback submits waits for the next wake.
            wakes += 1;
            at = core.arena.get(slot.arg.get());
        }
        for _ in 0..wakes {
            let Some(slot) = core.wakes.pop(&core.arena) else { break };
            core.finish_now(slot, 0, on);
        }
    }
}

/// Tells of completions, counts them, and keeps multishot operations within their bounds.
struct Telling<'a, T> {
    driver: &'a Driver,
    told: usize,
    on: T,
}

impl<T: OnCompletion> OnCompletion for Telling<'_, T> {
    #[inline(always)]
    fn on_completion(&mut self, completion: Completion) {
        self.told += 1;
        self.on.on_completion(completion);
        if completion.more {
            self.driver.bound_multishot(completion.id);
        }
    }

    #[inline(always)]
    fn comes(&mut self, token: Token, distance: Distance) {
        self.on.comes(token, distance);
    }
}

/// Ends a tick, also where a callback panics.
struct Ticking<'a> {
    driver: &'a Driver,
}

impl Drop for Ticking<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.driver.ticking.set(false);
    }
}
