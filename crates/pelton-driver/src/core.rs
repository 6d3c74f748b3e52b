//! What every room works on: the slots, the descriptors, the timers, the pool, and the one way in which
//! an operation ends.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use crate::blocking::Replies;
use crate::counters::Counters;
use crate::descriptor::{Entry, Fd, Table, flags};
use crate::items::Items;
use crate::notify::Shared;
use crate::op::Kind;
use crate::payload::{self, Item, Leftover, Memory};
use crate::pool;
use crate::prefetch::CROWD;
use crate::scratch::{NO_SCRATCH, Scratch};
use crate::slot::{Arena, OpId, Slot, SlotList, State, Token, bits, plain};
use crate::sys::{calls, errno};
use crate::timer::Wheel;

/// Tells of one completion. The outcome stays in the driver until it is taken with the operation's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub id: OpId,
    /// Whom it is for, as it was said at submission or since.
    pub token: Token,
    /// True when the operation is multishot and goes on.
    pub more: bool,
}

/// Whom a tick tells of completions. Closures are.
///
/// For one that wants to be sure that being told costs no call: a tick tells from several places, most of
/// them cold, and a compiler does not put a closure into all of them.
pub trait OnCompletion {
    /// Called once for each completion, from inside the tick.
    fn on_completion(&mut self, completion: Completion);

    /// A completion with this token is likely to be told of soon, after others. Called, where readiness is waited for
    /// (epoll, kqueue), for some where there are many, twice: from afar, and when what was asked for then may have come near. What it will need may be asked for; nothing
    /// else is to be done here. The token may be one that was given long ago.
    #[inline(always)]
    fn comes(&mut self, token: Token, distance: Distance) {
        let _ = (token, distance);
    }
}

/// How far off a completion is that [comes](OnCompletion::comes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Time to ask for what the token itself names.
    Far,
    /// Time to ask for what is found there.
    Near,
}

impl<F: FnMut(Completion)> OnCompletion for F {
    #[inline(always)]
    fn on_completion(&mut self, completion: Completion) {
        self(completion);
    }
}

/// In this order: what every operation and every tick looks at lies together, in as few lines of memory as can be.
#[repr(C, align(64))]
pub(crate) struct Core {
    pub(crate) arena: Arena,
    pub(crate) fds: Table,
    pub(crate) shared: Arc<Shared>,
    /// Pooled receives that found no buffer.
    pub(crate) stalled: SlotList,
    pub(crate) pool: pool::Owner,
    /// Operations that ended outside a tick's dispatch: their completions are delivered by the next tick,
    /// never inside the call that ended them.
    pub(crate) ready: Fifo<OpId>,
    /// Closing descriptors on which nothing is in flight any more.
    pub(crate) closable: Fifo<u32>,
    pub(crate) wheel: Wheel,
    pub(crate) items: Items,
    pub(crate) scratch: Scratch,
    pub(crate) replies: Arc<Replies>,
    /// `Wake` operations.
    pub(crate) wakes: SlotList,
    pub(crate) id: NonZeroU32,
    pub(crate) start: Instant,
}

impl Core {
    /// True where there are so many descriptors that what is known of one has left the near caches when its turn comes.
    #[inline(always)]
    pub(crate) fn is_crowded(&self) -> bool {
        self.fds.len() > CROWD
    }

    #[inline(always)]
    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The operation that a completion is for, if it is in flight. Counts the completion as stale
    /// otherwise.
    #[inline(always)]
    pub(crate) fn in_flight(&self, user_data: u64) -> Option<&Slot> {
        let slot = self.arena.find(OpId::from_user_data(user_data)).filter(|slot| {
            // Exactly these two: a done slot has had its last completion. And one that is in a list or a
            // timer's bucket is with the driver: no kernel has it to complete.
            matches!(slot.state.get(), State::Busy | State::Orphan) && !slot.has(bits::LINKED)
        });
        if slot.is_none() {
            self.count_stale();
        }
        slot
    }

    /// Counts a completion, or an event, that is for nobody any more.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_stale(&self) {
        self.counters().stale.add(1);
    }

    /// Nothing is in flight any more on the descriptor of this operation, which is closing.
    #[cold]
    #[inline(never)]
    fn may_close(&self, slot: &Slot) {
        self.closable.push(slot.fd.get());
    }

    /// The last completion of an operation: the kernel has let go. True when somebody waits to be told;
    /// an orphan drops what it owns, which runs user code, and is released.
    #[inline(always)]
    #[must_use = "tell the holder, now or through `ready`"]
    pub(crate) fn finish(&self, slot: &Slot, result: i32) -> bool {
        debug_assert!(!slot.has(bits::LINKED));
        self.counters().ended(slot.kind.get());
        if let Some(entry) = self.fds.get(slot.fd.get()) {
            if slot.has(bits::CANCELLED | bits::FROM_FILE) {
                self.finish_counted(slot, entry);
            }
            // libxev #231: a descriptor is not closed where what was on it was cancelled.
            let left = mutant!("libxev-231") && slot.has(bits::CANCELLED);
            if entry.let_go() && !left {
                self.may_close(slot);
            }
        }
        if slot.state.get() == State::Busy {
            slot.arg.set(result as u32);
            slot.state.set(State::Done);
            true
        } else {
            self.finish_orphan(slot, result);
            false
        }
    }

    /// [`Core::finish_now`] for a slot that is [plain](crate::slot::plain), without the count by kind.
    #[inline(always)]
    pub(crate) fn finish_plain(
        &self,
        slot: &Slot,
        id: OpId,
        entry: &Entry,
        result: i32,
        on: &mut impl OnCompletion,
    ) {
        if entry.let_go() {
            self.may_close(slot);
        }
        slot.arg.set(result as u32);
        slot.state.set(State::Told);
        on.on_completion(Completion { id, token: Token(slot.token.get()), more: false });
    }

    /// The end of an operation that is counted in more than one place.
    #[inline(never)]
    fn finish_counted(&self, slot: &Slot, entry: &Entry) {
        if slot.has(bits::CANCELLED) && !mutant!("cancelled-not-lowered") {
            entry.cancelled.set(entry.cancelled.get() - 1);
        }
        if slot.has(bits::FROM_FILE) {
            slot.unset(bits::FROM_FILE);
            let file = payload::source_of(slot).file.get();
            if self.fds.get(file).is_some_and(Entry::let_go) {
                self.closable.push(file);
            }
        }
    }

    /// Counts an operation that is about to begin as in flight on the file that it sends from.
    ///
    /// # Errors
    /// It is not open here, or is none; or `to` is no stream. Not every system would refuse that by itself: a pipe
    /// would be read, and a file written to.
    pub(crate) fn hold_file(&self, slot: &Slot, file: Fd, to: &Entry) -> io::Result<()> {
        let Some(entry) = self.fds.find(file) else {
            return Err(io::Error::from_raw_os_error(errno::EBADF));
        };
        if !to.has(flags::STREAM) {
            let what = "a file is sent over a stream socket: write it to anything else";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if !entry.has(flags::SENT_FROM) && !calls::is_file(entry.raw.get()) {
            let what = "only a file is sent from: read what is none, and send that";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        entry.hold();
        entry.set(flags::SENT_FROM);
        slot.set(bits::FROM_FILE);
        payload::source_of(slot).file.set(file.index);
        Ok(())
    }

    /// True for an operation in flight on a descriptor.
    pub(crate) fn is_on(&self, slot: &Slot, index: u32) -> bool {
        matches!(slot.state.get(), State::Busy | State::Orphan)
            && (slot.fd.get() == index
                || (slot.has(bits::FROM_FILE) && payload::source_of(slot).file.get() == index))
    }

    #[cold]
    fn finish_orphan(&self, slot: &Slot, result: i32) {
        debug_assert_eq!(slot.state.get(), State::Orphan);
        self.counters().orphans.sub(1);
        slot.arg.set(result as u32);
        self.discard(slot);
    }

    /// Ends an operation outside a tick's dispatch.
    pub(crate) fn finish_later(&self, slot: &Slot, result: i32) {
        if self.finish(slot, result) {
            self.announce(slot);
        }
    }

    /// Lets the next tick tell of a slot, once however often this is called before.
    #[inline(always)]
    pub(crate) fn announce(&self, slot: &Slot) {
        if !slot.has(bits::ANNOUNCED) {
            slot.set(bits::ANNOUNCED);
            self.ready.push(self.arena.id(slot));
        }
    }

    /// Ends an operation in a tick's dispatch.
    #[inline(always)]
    pub(crate) fn finish_now(
        &self,
        slot: &Slot,
        result: i32,
        on: &mut (impl OnCompletion + ?Sized),
    ) {
        let id = self.arena.id(slot);
        if self.finish(slot, result) {
            // A notice of an item may be on its way: it must not tell of the end a second time.
            slot.unset(bits::ANNOUNCED);
            slot.state.set(State::Told);
            on.on_completion(Completion { id, token: Token(slot.token.get()), more: false });
        }
    }

    /// One of several completions of a multishot operation.
    pub(crate) fn yielded(&self, slot: &Slot, item: Item, on: &mut (impl OnCompletion + ?Sized)) {
        if slot.state.get() == State::Orphan {
            // Nobody will take it: a connection is closed, a buffer goes back.
            drop(item);
            return;
        }
        self.items.push(slot, item);
        let (id, token) = (self.arena.id(slot), Token(slot.token.get()));
        on.on_completion(Completion { id, token, more: true });
    }

    /// As [`Core::yielded`], outside a tick's dispatch: one notice is on its way at a time.
    pub(crate) fn yielded_later(&self, slot: &Slot, item: Item) {
        self.yielded(slot, item, &mut |_: Completion| self.announce(slot));
    }

    /// Asks an operation's owner for its memory once more: for a retry, or for the rest of a send. None
    /// when nobody wants the operation any more: end it with [`Core::cancelled`].
    ///
    /// The owner is user code. It may cancel or abandon this very operation, or close its descriptor,
    /// which must neither move nor drop the owner while it answers: so they are only noted.
    #[inline(always)]
    pub(crate) fn memory_again(&self, slot: &Slot) -> Option<Memory> {
        slot.set(bits::ASKED);
        let asking = Asking { core: self, slot };
        let memory = payload::memory_again(slot);
        std::mem::forget(asking);
        slot.unset(bits::ASKED);
        let wanted = slot.state.get() == State::Busy
            && !slot.has(bits::CANCELLED)
            && self.entry_of(slot).is_some_and(|entry| !entry.has(flags::CLOSING));
        wanted.then_some(memory)
    }

    /// Runs code of an operation's owner on what is in its slot, as [`Core::memory_again`] does. The second of the
    /// outcome is false when nobody wants the operation any more.
    pub(crate) fn asked<R>(&self, slot: &Slot, f: impl FnOnce() -> R) -> (R, bool) {
        slot.set(bits::ASKED);
        let asking = Asking { core: self, slot };
        let answer = f();
        std::mem::forget(asking);
        slot.unset(bits::ASKED);
        let wanted = slot.state.get() == State::Busy
            && !slot.has(bits::CANCELLED)
            && self.entry_of(slot).is_none_or(|entry| !entry.has(flags::CLOSING));
        (answer, wanted)
    }

    /// [`Core::memory_again`] for one that is [plain](crate::slot::plain), with these bits; and it is afterwards.
    /// None where it is not any more: its owner has done something that is to be looked at.
    #[inline(always)]
    pub(crate) fn memory_of_plain(&self, slot: &Slot, kind: Kind, bits: u8) -> Option<Memory> {
        let asked = plain(kind, bits | bits::ASKED);
        slot.set_standing(asked);
        let asking = Asking { core: self, slot };
        let memory = payload::memory_again(slot);
        std::mem::forget(asking);
        if slot.standing() != asked {
            slot.unset(bits::ASKED);
            return None;
        }
        slot.set_standing(plain(kind, bits));
        Some(memory)
    }

    /// What an operation that is cancelled ends with: what it has done already, or `ECANCELED`.
    pub(crate) fn cancelled(&self, slot: &Slot) -> i32 {
        let done = match slot.kind.get() {
            Kind::Send | Kind::Write | Kind::SendFile => slot.progress.get() as i32,
            Kind::SendVectored => self.scratch.get(slot.progress.get()).skipped() as i32,
            _ => 0,
        };
        if done > 0 && !mutant!("cancel-forgets") { done } else { -errno::ECANCELED }
    }

    /// Drops what the slot of an operation owns that has ended, and releases it, in the order that allows the drop
    /// to run the driver.
    pub(crate) fn discard(&self, slot: &Slot) {
        if slot.kind.get() == Kind::RecvMsg && slot.result() >= 0 {
            // Descriptors may have come with it, which are closed where nobody takes them.
            drop(self.scratch.get(slot.progress.get()).received(slot.result() as usize));
        }
        let leftover = Leftover::take(slot);
        let items = slot.kind.get().is_multishot().then(|| self.items.take_all(slot));
        let orphan = slot.state.get() == State::Orphan;
        self.release(slot);
        if mutant!("orphan-leaks") && orphan {
            return std::mem::forget(leftover);
        }
        if mutant!("items-leak") {
            return std::mem::forget(items);
        }
        drop(leftover);
        drop(items);
    }

    /// Releases a slot whose payload has been taken.
    #[inline(always)]
    pub(crate) fn release(&self, slot: &Slot) {
        if uses_scratch(slot.kind.get()) {
            self.scratch.release(slot.progress.get());
            slot.progress.set(NO_SCRATCH);
        }
        self.arena.release(slot);
    }

    /// The descriptor of an operation in flight: it cannot be closed before the operation has ended.
    #[inline(always)]
    pub(crate) fn entry_of(&self, slot: &Slot) -> Option<&Entry> {
        self.fds.get(slot.fd.get())
    }

    /// Parks a pooled receive until a buffer comes back.
    pub(crate) fn stall(&self, slot: &Slot) {
        self.counters().stalls.add(1);
        slot.set(bits::STALLED);
        self.stalled.push(&self.arena, slot);
    }

    /// Takes a stalled receive out again, if a buffer may be had.
    pub(crate) fn unstall(&self) -> Option<&Slot> {
        let slot = self.stalled.pop(&self.arena)?;
        slot.unset(bits::STALLED);
        Some(slot)
    }

    /// A moment in nanoseconds since the driver's start; the last one that can be said for any later.
    #[inline]
    pub(crate) fn nanos(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.start);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into())
    }

    /// Cancels what the driver itself holds: a timer, a wake, a receive without a buffer. True when it was
    /// one of these, which has then ended.
    pub(crate) fn cancel_own(&self, slot: &Slot) -> bool {
        let own = match slot.kind.get() {
            Kind::Timeout => self.wheel.remove(&self.arena, slot),
            Kind::Wake => self.wakes.remove(&self.arena, slot),
            _ if slot.has(bits::STALLED) => {
                slot.unset(bits::STALLED);
                self.stalled.remove(&self.arena, slot)
            }
            _ => false,
        };
        if own {
            self.finish_later(slot, -errno::ECANCELED);
        }
        own
    }
}

/// An owner that is being asked for its memory: where it panics its operation ends, because nothing
/// would ever complete it.
struct Asking<'a> {
    core: &'a Core,
    slot: &'a Slot,
}

impl Drop for Asking<'_> {
    #[cold]
    fn drop(&mut self) {
        let (core, slot) = (self.core, self.slot);
        slot.unset(bits::ASKED);
        if let Some(entry) = core.entry_of(slot).filter(|_| slot.has(bits::LINKED)) {
            let _ =
                entry.readers.remove(&core.arena, slot) || entry.writers.remove(&core.arena, slot);
        }
        core.finish_later(slot, core.cancelled(slot));
    }
}

/// True for the kinds whose `progress` is the number of a scratch block.
#[inline(always)]
pub(crate) fn uses_scratch(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Accept
            | Kind::Connect
            | Kind::SendVectored
            | Kind::RecvVectored
            | Kind::RecvMsg
            | Kind::SendMsg
    )
}

/// A first-in, first-out queue of plain values for one thread. Every tick asks how long it is and seldom more, so that
/// is here and the rest behind a pointer.
pub(crate) struct Fifo<T> {
    len: Cell<usize>,
    values: Box<UnsafeCell<VecDeque<T>>>,
}

impl<T: Copy> Fifo<T> {
    pub(crate) fn new() -> Fifo<T> {
        let values = Box::new(UnsafeCell::new(VecDeque::with_capacity(64)));
        Fifo { len: Cell::new(0), values }
    }

    #[inline]
    pub(crate) fn push(&self, value: T) {
        // SAFETY: one thread; a `Copy` value runs no code of its own, so no second reference is made.
        let values = unsafe { &mut *self.values.get() };
        values.push_back(value);
        self.len.set(values.len());
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        // SAFETY: as above.
        let values = unsafe { &mut *self.values.get() };
        let first = values.pop_front();
        self.len.set(values.len());
        first
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }
}
