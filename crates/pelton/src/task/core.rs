//! The core: what all headers of one reactor share, and the life of a task, from poll to grave.

use std::cell::Cell;
use std::ptr::NonNull;

use super::body::{Polled, contain};
use super::header::{
    ABORT, DEAD, DONE, HANDLE, HeaderRef, Joiner, ONE, ORPHAN, ORPHANED, QUEUED, ROOT, RUNNING,
};
use super::queue::RunQueue;
use super::remote::{Notify, Remote};
use super::slab::Slab;
use super::sync::{self, AtomicUsize, Life, Ordering, Owner};
use super::waker::Table;

/// Allocated by `Tasks`; freed when `Tasks` and every reference to any header are gone.
pub(super) struct Core {
    pub(super) remote: Remote,
    /// That of this reactor's wakers.
    pub(super) table: Table,
    owner: Owner,
    /// After the end of the reactor: headers that somebody still refers to, and one for the end itself.
    orphans: AtomicUsize,
    life: Life,
    pub(super) local: Local,
}

/// The owner's thread only. In this order, which begins with what every turn of the loop looks at.
#[repr(C, align(128))]
pub(super) struct Local {
    pub(super) queue: RunQueue,
    pub(super) live: Cell<usize>,
    pub(super) spawned: Cell<u64>,
    pub(super) polls: Cell<u64>,
    pub(super) panics: Cell<u64>,
    /// Set by the first `clear`: nothing is spawned any more.
    pub(super) closing: Cell<bool>,
    /// How many refused futures are being dropped, one by the drop of the other.
    pub(super) refusing: Cell<u32>,
    pub(super) forgotten: Cell<u64>,
    /// Set during a poll to end the batch of polls that it belongs to.
    pub(super) pause: Cell<bool>,
    pub(super) slab: Slab,
}

#[inline]
pub(super) fn add(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

impl Core {
    pub(super) fn new(notifier: Box<dyn Notify>) -> NonNull<Core> {
        let core = Box::new(Core {
            remote: Remote::new(notifier),
            table: Table::new(),
            owner: sync::claim(),
            orphans: AtomicUsize::new(0),
            life: Life::new(),
            local: Local {
                queue: RunQueue::new(),
                slab: Slab::new(),
                live: Cell::new(0),
                spawned: Cell::new(0),
                polls: Cell::new(0),
                panics: Cell::new(0),
                closing: Cell::new(false),
                refusing: Cell::new(0),
                forgotten: Cell::new(0),
                pause: Cell::new(false),
            },
        });
        // SAFETY: a box's pointer is not null.
        unsafe { NonNull::new_unchecked(Box::into_raw(core)) }
    }

    #[inline]
    pub(super) fn is_owner(&self) -> bool {
        #[cfg(feature = "sim")]
        if !super::turning::may_be(std::ptr::from_ref(self).cast()) {
            return false;
        }
        sync::is_current(self.owner)
    }

    /// Owner's thread: queues the task, unless it is queued or has nothing left to poll. A task that runs
    /// is queued too, and polled again after this poll.
    #[inline]
    pub(super) fn wake_local(&self, header: HeaderRef) {
        let state = header.state.get();
        if state & (QUEUED | DONE | DEAD) != 0 {
            return;
        }
        if mutant!("wake-while-running") && state & RUNNING != 0 {
            return;
        }
        header.state.set(state | QUEUED);
        if state & ROOT == 0 {
            self.local.queue.push(header);
        }
    }

    /// Owner's thread: moves what other threads woke to the run queue.
    #[inline]
    pub(super) fn drain_remote(&self) -> usize {
        self.remote.drain(|header| self.wake_local(header))
    }

    /// Owner's thread: polls what is queued now, `max` links at most.
    pub(super) fn run_queued(&self, max: usize) -> usize {
        let mut polled = 0;
        for _ in 0..max.min(self.local.queue.len()) {
            if self.local.pause.get() {
                break;
            }
            let Some(header) = self.local.queue.pop() else { break };
            let state = header.state.get();
            if state & (RUNNING | DONE | DEAD) == 0 {
                self.poll(header, state & !QUEUED);
                polled += 1;
            } else if state & (RUNNING | DEAD) == RUNNING {
                // This call is made from within the task's own poll: later.
                self.local.queue.push(header);
            } else {
                header.state.set(state & !QUEUED);
                header.settle();
            }
        }
        polled
    }

    /// Owner's thread, header in this state, but for `QUEUED`, with a future that is not running: polls it once. No user code unwinds out
    /// of this. Whoever calls it keeps the reactor alive.
    #[inline(always)]
    pub(super) fn poll(&self, header: HeaderRef, state: u32) {
        debug_assert!(header.state.get() & !QUEUED == state);
        debug_assert!(state & (QUEUED | RUNNING | DONE | DEAD | ROOT) == 0);
        // SAFETY: a header has a body unless it is dead or a root.
        let body = unsafe { header.body.get().unwrap_unchecked() };
        header.state.set(state | RUNNING);
        add(&self.local.polls);
        // SAFETY: neither done nor dead: the body holds the future. `RUNNING` keeps everybody else (a
        // nested resume, an abort, `clear`) from using it, and the header from being used again until after
        // the poll.
        let polled = unsafe { body.poll() };
        if polled != Polled::Pending {
            return self.after_poll(header, polled);
        }
        debug_assert!(header.has(RUNNING));
        // Subtracted: the sign of what is left then comes with it.
        let left = header.state.get().wrapping_sub(RUNNING);
        header.state.set(left);
        if left & ABORT != 0 {
            self.cancel_late(header);
        }
    }

    /// The poll has ended the future.
    #[inline(never)]
    fn after_poll(&self, header: HeaderRef, polled: Polled) {
        if polled == Polled::Panicked {
            add(&self.local.panics);
        }
        self.finish(header);
    }

    /// [`Core::cancel`] of what was to be cancelled while it ran.
    #[cold]
    #[inline(never)]
    fn cancel_late(&self, header: HeaderRef) {
        self.cancel(header);
    }

    /// Owner's thread, header with a future that is not being polled: drops the future, here and now.
    pub(super) fn cancel(&self, header: HeaderRef) {
        let Some(body) = header.body.get() else { return };
        header.set(RUNNING);
        // SAFETY: as in `poll`.
        if unsafe { body.cancel() } {
            add(&self.local.panics);
        }
        self.finish(header);
    }

    /// The future has just been replaced by the output; `RUNNING` is still set.
    fn finish(&self, header: HeaderRef) {
        self.local.live.set(self.local.live.get() - 1);
        let state = header.state.get() & !ABORT;
        if state & HANDLE != 0 {
            // Everything is in order before the joiner is woken, because that may be anybody's code, and
            // may use or drop the handle. From there on the header is the handle's.
            let joiner = header.joiner.take();
            header.state.set((state & !RUNNING) | DONE);
            self.wake_joiner(joiner);
            return;
        }
        header.state.set(state | DEAD);
        if let Some(body) = header.body.take() {
            // SAFETY: the body holds the output, and was taken out of the header: it is ours.
            if unsafe { body.free() } {
                add(&self.local.panics);
            }
        }
        header.clear(RUNNING);
        header.settle();
    }

    fn wake_joiner(&self, joiner: Joiner) {
        if mutant!("joiner-not-woken") {
            return;
        }
        match joiner {
            Joiner::Ours(None) => {}
            Joiner::Ours(Some(header)) => self.wake_local(header),
            Joiner::Foreign(waker) => {
                if contain(|| waker.wake()) {
                    add(&self.local.panics);
                }
            }
        }
    }

    /// Owner's thread: drops every future. Whatever their drops do, this ends: nothing new is spawned,
    /// and every header is visited once.
    pub(super) fn clear(&self) {
        self.local.closing.set(true);
        self.local.slab.for_each(|header| {
            if header.has(DEAD | DONE | ROOT) {
                return;
            }
            if header.has(RUNNING) {
                // A task that clears its own reactor, or whose future is being dropped further up.
                header.set(ABORT);
            } else {
                self.cancel(header);
            }
        });
        self.drain_remote();
        while let Some(header) = self.local.queue.pop() {
            header.clear(QUEUED);
            header.settle();
        }
    }

    /// The end of the reactor, after `clear`: frees the core and the slab, or leaves that to whoever gives
    /// the last reference back. See the module's essay.
    ///
    /// # Safety
    /// The owner's thread, once. The caller does not use the core afterwards.
    pub(super) unsafe fn end(core: NonNull<Core>) {
        let mut gone = 1;
        {
            // SAFETY: the core exists until it is counted down, below.
            let this = unsafe { core.as_ref() };
            // Before any header can be counted down: each of them, and this function itself.
            this.orphans.store(this.local.slab.used() + 1, Ordering::Relaxed);
            this.local.slab.for_each(|header| {
                if header.has(HANDLE) {
                    header.set(ORPHAN);
                    header.word.fetch_add(ONE | ORPHANED, Ordering::AcqRel);
                } else if header.has(RUNNING) {
                    // Its poll is further up on this stack, which safe code cannot bring about. Nobody
                    // will count this header down, so nothing is freed under the future.
                } else {
                    // A root that was forgotten ends here too.
                    header.state.set(DEAD);
                    // Zero stays zero: without a reference nobody can make one.
                    let unreferenced = header.word.load(Ordering::Acquire) < ONE
                        || header.word.fetch_or(ORPHANED, Ordering::AcqRel) < ONE;
                    gone += usize::from(unreferenced);
                }
            });
        }
        // SAFETY: `gone` headers that nobody refers to, and our own one.
        unsafe { Core::count_down(core, gone) };
    }

    /// Any thread, after the end of the reactor: that many headers are not referred to any more. Frees
    /// the core and the slab with the last.
    ///
    /// # Safety
    /// The caller is the one to count these headers, and uses neither them nor the core afterwards.
    #[cold]
    pub(super) unsafe fn count_down(core: NonNull<Core>, headers: usize) {
        // SAFETY: the core exists until the count, of which the caller holds a part, is zero.
        let before = unsafe {
            (*core.as_ptr()).life.used();
            (*core.as_ptr()).orphans.fetch_sub(headers, Ordering::AcqRel)
        };
        if before == headers {
            // SAFETY: allocated by `Core::new`. Nobody refers to any header, so nobody else can reach the
            // core, and their last uses are ordered before by the count. What is dropped here is the
            // notifier, which may be dropped on any thread, and memory: all futures, outputs and joiners
            // were dropped on the owner's thread.
            let core = unsafe { Box::from_raw(core.as_ptr()) };
            core.life.ends();
            drop(core);
        }
    }
}
