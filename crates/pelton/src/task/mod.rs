//! Tasks: the executor of one reactor's thread, and what other threads may touch of it.
//!
//! # The parts
//! A task is a **header** and a **body**. The body is the box with the future and, once that has
//! finished, the output: one allocation per task, none per poll or wake. The header is what everybody
//! else points to. It lives in the **slab**, in memory that is neither moved nor freed while the reactor
//! lives, and so remains a header for ever: *type-stable*. The reactor's **core** holds the slab, the run
//! queue, the counters, and the stack for wakes from other threads.
//!
//! # Who may touch what, when
//! | what | who | when |
//! |---|---|---|
//! | `Header::state`, `next`, `body`, `joiner`; all of `Local` | the owner's thread | always: plain cells |
//! | `Header::word` | any thread that holds a reference, and the owner | by read-modify-write (the owner may also look) |
//! | `Header::remote_next` | the thread that set `NOTIFIED`; then the owner | until its push succeeded; from taking the stack to clearing `NOTIFIED` |
//! | `Core::remote` | any thread that holds a reference to any header | always: atomics, and a notifier that is `Sync` |
//! | a body | whoever set `RUNNING`, or took it out of the header | until it clears the bit; until it has freed the box |
//!
//! Nothing here is reached through `&mut`. User code (a future's poll or drop, an output's drop, a foreign
//! waker's clone, wake or drop, a panic's payload) may call back into any of it: spawn, wake, abort,
//! drop handles, clear the tasks. So every place that runs user code first takes out what it works on and
//! brings the state in order, and afterwards reads anew what it needs. It also runs under `contain` or
//! `catch_unwind` wherever an unwind would pass through the executor.
//!
//! # The states of a header
//! ```text
//!            spawn            poll: ready, panic; abort; clear
//!   free ───────────▶ live ───────────────────┬─ handle ───▶ done ──taken, dropped──▶ dead
//!    ▲             (QUEUED, RUNNING)          └─ no handle ──────────────────────────▶ dead
//!    └──────────────── settled: word is zero (else zombie, until it is) ◀───────────────┘
//! ```
//! A dead header is *settled*, that is buried, by whoever takes back the last local claim on it: the
//! run queue its link (`QUEUED`: a task can end while it is queued), the join handle itself (`HANDLE`),
//! the poll its return (`RUNNING`). It is used again only when its word is zero too: no `Waker` is
//! counted, and it is not on the remote stack.
//!
//! # Tokens
//! An operation in flight remembers who waits for it by a [`Token`]: a header's address that counts
//! nothing. The future of an operation may be moved to another task, or forgotten, and the token outlive
//! its task. Then it finds a dead header, and nothing happens, or one that is used again, and that task is
//! polled once for nothing, which every future must bear. Join handles remember who waits in the same way.
//! What makes this sound is the slab, and that a token is followed by its own reactor only.
//!
//! # Wakers
//! The waker that a poll passes to the future is *lent*: it counts nothing, since the header stays for as long as
//! the poll lasts and the reference cannot outlive it. It stands in the body, made once. A clone counts, in the
//! word. All of a reactor's wakers have one table, which no other's have while one of them exists: so the table's
//! address alone says that a waker's header is one of ours. A wake on the owner's thread looks at the state and
//! queues. A wake on any other goes over the remote stack (`remote.rs` says why none is lost) and then notifies the
//! driver. The drop of a waker ends in one decrement, after which it touches nothing: the header may be used again,
//! or freed, that very moment.
//!
//! # The end
//! When the reactor ends, all futures are dropped on its thread. Wakers may live on in other threads, and
//! handles on this one. Then slab and core stay, and are counted down by header: each that somebody still
//! refers to is marked `ORPHANED`, and the decrement that takes its last reference counts it down; the one
//! that reaches zero frees slab, core and notifier, on whatever thread it runs. A handle's claim becomes a
//! counted reference for this. What is never dropped (a forgotten waker) keeps this memory, and it alone.
//! A wake of an orphan does nothing.
//!
//! # Soundness rests on
//! 1. A `HeaderRef` is kept only where something holds the header's memory (the list is at its type).
//! 2. `RUNNING` is set for as long as user code may be inside a body, and nobody enters one that runs.
//! 3. A body is in its header exactly while live or done; it is taken out before it is freed.
//! 4. The word never rises from zero, but by the owner: a reference is made of another, or of a lent waker.
//! 5. Only `HeaderRef::release`, `HeaderRef::settle` and `Core::end` can free the slab, each as the last
//!    thing that it does, and none takes a reference to what it may free.

mod body;
mod core;
mod header;
mod join;
mod queue;
mod remote;
mod root;
mod slab;
pub(crate) mod sync;
#[cfg(feature = "sim")]
pub(crate) mod turning;
mod waker;
mod yield_now;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use std::future::Future;
use std::ptr::NonNull;
use std::task::{RawWakerVTable, Waker};

use pelton_driver::{Distance, prefetch};

pub use join::{JoinError, JoinHandle};
pub(crate) use remote::Notify;
pub(crate) use root::RootTask;
pub use yield_now::yield_now;

use self::body::Body;
pub(crate) use self::body::contain;
use self::core::{Core, add};
use self::header::{DEAD, DONE, HANDLE, Header, HeaderRef, QUEUED, ROOT, RUNNING, TASK};

/// How deep a refused future's drop may spawn further futures that are refused in turn. Beyond it they
/// are forgotten, and counted, so that a drop that always spawns its like comes to an end.
const MAX_REFUSALS: u32 = 8;

/// The tasks of one reactor. See the module's essay.
pub(crate) struct Tasks {
    core: NonNull<Core>,
    /// The core's: told from all others' without a look at the core.
    table: &'static RawWakerVTable,
}

/// Who waits: names a task or a root of one [`Tasks`], without keeping it.
///
/// A pointer and not a number, so that it can pass through a driver's slot without losing its provenance.
/// The low bits of the address are clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Token(NonNull<Header>);

impl Token {
    #[inline]
    pub(crate) fn into_raw(self) -> *mut () {
        self.0.as_ptr().cast()
    }

    /// `None` for the null pointer. Any other must come from [`Token::into_raw`] by the time that the
    /// token is used; see [`Resuming::resume`].
    #[inline]
    pub(crate) fn from_raw(raw: *mut ()) -> Option<Token> {
        NonNull::new(raw.cast::<Header>()).map(Token)
    }
}

/// Which tasks are queued, not polled, when they are [resumed](Resuming::resume).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued(u32);

impl Queued {
    /// Those that cannot be polled now.
    pub(crate) const NEEDED: Queued = Queued(QUEUED | RUNNING | DONE | DEAD | ROOT);
    /// All of them.
    pub(crate) const ALL: Queued = Queued(Queued::NEEDED.0 | TASK);
}

/// What [`Tasks`] counted since it was made, and how things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskCounts {
    /// Tasks whose future still exists.
    pub(crate) live: usize,
    /// Tasks in the run queue, some of which may have ended since they were queued.
    pub(crate) queued: usize,
    pub(crate) spawned: u64,
    pub(crate) polls: u64,
    /// Panics of futures, of outputs' drops and of foreign wakers that were caught here.
    pub(crate) panics: u64,
    /// Futures that were forgotten, because drops during shutdown did not stop spawning.
    pub(crate) forgotten: u64,
    /// Headers in use or ready for use, 64 bytes each.
    pub(crate) headers: usize,
}

impl Tasks {
    /// Tasks of the calling thread. `notifier` is called by other threads after each push of a task that
    /// they woke.
    pub(crate) fn new(notifier: impl Notify) -> Tasks {
        let core = Core::new(Box::new(notifier));
        // SAFETY: it has just been made.
        Tasks { table: unsafe { core.as_ref() }.table.get(), core }
    }

    #[inline]
    fn core(&self) -> &Core {
        // SAFETY: the core exists until the drop of `self` counts it down. It changes by cells and atomics
        // only, and `Tasks` stays on its thread, which is the cells' owner.
        unsafe { self.core.as_ref() }
    }

    /// Queues a new task. After [`clear`](Tasks::clear) the future is dropped at once instead, and the
    /// handle resolves to a cancellation.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let local = &self.core().local;
        if local.closing.get() {
            self.refuse(future);
            return JoinHandle::refused();
        }
        let header = local.slab.take(self.core);
        // SAFETY: only polls of this body use it, during which `RUNNING` keeps the header from being used again.
        let waker = unsafe { waker::lend(header) };
        header.body.set(Some(Body::new(future, waker)));
        header.state.set(TASK | HANDLE | QUEUED);
        local.queue.push(header);
        local.live.set(local.live.get() + 1);
        add(&local.spawned);
        JoinHandle::spawned(header)
    }

    #[cold]
    fn refuse<F>(&self, future: F) {
        let local = &self.core().local;
        let depth = local.refusing.get();
        if depth == MAX_REFUSALS {
            std::mem::forget(future);
            add(&local.forgotten);
            return;
        }
        local.refusing.set(depth + 1);
        if contain(|| drop(future)) {
            add(&local.panics);
        }
        local.refusing.set(depth);
    }

    /// A root for a `block_on`, notified to begin with.
    pub(crate) fn root(&self) -> RootTask<'_> {
        let header = self.core().local.slab.take(self.core);
        header.state.set(ROOT | QUEUED);
        RootTask::new(header, self)
    }

    /// Says that whoever runs on this thread is these tasks' reactor, until the guard is dropped.
    #[cfg(feature = "sim")]
    pub(crate) fn turning(&self) -> turning::Turning {
        turning::begin(self.core.as_ptr().cast_const().cast())
    }

    /// Moves what other threads woke to the run queue, first woken first, and says how many those were.
    ///
    /// Call it after the driver's wake latch was cleared: whatever was pushed before the latch was raised
    /// is seen then, and what is pushed later raises it again.
    #[inline]
    pub(crate) fn drain_remote(&self) -> usize {
        self.core().drain_remote()
    }

    /// Polls the tasks that are queued now, at most `max` of them, and says how many it polled. What is
    /// queued meanwhile waits for the next call.
    pub(crate) fn run_queued(&self, max: usize) -> usize {
        self.core().run_queued(max)
    }

    /// Ends the batch of polls that is under way behind this poll: the loop is to look at the kernel first.
    pub(crate) fn pause(&self) {
        self.core().local.pause.set(true);
    }

    /// A new batch begins.
    #[inline]
    pub(crate) fn begin_batch(&self) {
        self.core().local.pause.set(false);
    }

    /// True if the batch was ended early.
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.core().local.pause.get()
    }

    /// True if [`run_queued`](Tasks::run_queued) has something to do: the loop must not sleep.
    #[inline]
    pub(crate) fn has_queued(&self) -> bool {
        self.core().local.queue.len() != 0
    }

    /// The token of the task behind a waker, if it is one of these tasks (or a root). `None` for wakers
    /// of other reactors and other executors, which have to be cloned to be kept.
    #[inline(always)]
    pub(crate) fn token(&self, waker: &Waker) -> Option<Token> {
        let header = waker::header(waker, self.table)?;
        debug_assert!(header.core_ptr() == self.core);
        Some(Token(header.as_ptr()))
    }

    /// For whoever resumes many, one after the other.
    #[inline]
    pub(crate) fn resuming(&self, queued: Queued) -> Resuming<'_> {
        Resuming { core: self.core(), queued }
    }

    /// Tasks whose future exists.
    #[cfg(all(test, not(any(loom, shuttle))))]
    fn live(&self) -> usize {
        self.core().local.live.get()
    }

    /// The counters.
    pub(crate) fn counts(&self) -> TaskCounts {
        let local = &self.core().local;
        TaskCounts {
            live: local.live.get(),
            queued: local.queue.len(),
            spawned: local.spawned.get(),
            polls: local.polls.get(),
            panics: local.panics.get(),
            forgotten: local.forgotten.get(),
            headers: local.slab.used(),
        }
    }

    /// For shutdown: drops every future, on this thread and before this returns, but for one that is
    /// running (this may be called from within a poll), which is dropped after its poll. Handles of tasks
    /// that had not finished resolve to a cancellation. From now on [`spawn`](Tasks::spawn) refuses, so
    /// that whatever drops spawn or wake, this ends and nothing is left.
    pub(crate) fn clear(&self) {
        self.core().clear();
    }
}

/// Resumes waiting tasks.
#[derive(Clone, Copy)]
pub(crate) struct Resuming<'a> {
    core: &'a Core,
    queued: Queued,
}

impl Resuming<'_> {
    /// Polls the waiting task here and now; if it is running or queued already, or is a root, or all are to be
    /// `queued`, sees to it that it is polled later. A task that has ended is left alone; should its header be in use again,
    /// its new task is polled, which is legal.
    ///
    /// # Safety
    /// The token came from [`Tasks::token`] of these very tasks, however long ago.
    #[inline(always)]
    pub(crate) unsafe fn resume(&self, token: Token) {
        // SAFETY: as the caller says, and our headers exist as long as we do.
        let header = unsafe { HeaderRef::new(token.0) };
        debug_assert!(std::ptr::eq(header.core(), self.core), "a token of other tasks");
        let state = header.state.get();
        if state & self.queued.0 != 0 {
            self.core.wake_local(header);
        } else {
            self.core.poll(header, state);
        }
    }

    /// Asks for the memory of a task that is about to be resumed: for its header, and then for its body.
    ///
    /// # Safety
    /// As for [`Resuming::resume`].
    #[inline(always)]
    pub(crate) unsafe fn comes(&self, token: Token, distance: Distance) {
        match distance {
            Distance::Far => prefetch(token.0.as_ptr()),
            Distance::Near => {
                // SAFETY: as the caller says, and our headers exist as long as we do.
                if let Some(body) = unsafe { HeaderRef::new(token.0) }.body.get() {
                    body.prefetch();
                }
            }
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.core().clear();
        // SAFETY: the owner's thread, as `Tasks` is not `Send`; once, and the last use of the core. All
        // futures have been dropped. No poll is under way, as it would borrow these tasks.
        unsafe { Core::end(self.core) };
    }
}
