//! The one surface of the driver: submit, cancel, tick, take, wake.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::blocking::Replies;
use crate::config::{Backend, Config, Error};
use crate::core::{Completion, Core, Fifo, OnCompletion};
use crate::counters::Counters;
use crate::descriptor::{Fd, Table, flags};
use crate::items::Items;
use crate::latch::WakeLatch;
use crate::notify::{Notifier, Shared};
use crate::op::{Kind, Op, Submission};
use crate::payload::{Leftover, MAX_TRANSFER, Multishot, Payload};
use crate::pool::Pool;
use crate::scratch::Scratch;
use crate::slot::{Arena, Key, NIL, OpId, Slot, SlotList, State, Token, bits};
use crate::sys::{OwnedDescriptor, Room, WakeSource, errno, own, set_nonblocking};
use crate::timer::Wheel;

/// How many items of a multishot operation may wait to be taken before it is cancelled.
pub const MOST_WAITING: u32 = 128;

static LAST_ID: AtomicU32 = AtomicU32::new(0);

/// A number that no other driver of this process has or will have: keys rest on it.
fn fresh_id() -> Option<NonZeroU32> {
    let before = LAST_ID
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| last.checked_add(1))
        .ok()?;
    NonZeroU32::new(before + 1)
}

/// What drivers had to leave behind. Nobody ever looks at it again.
static LEFT_BEHIND: Mutex<Vec<AtomicPtr<LeftBehind>>> = Mutex::new(Vec::new());

struct LeftBehind {
    _core: Box<Core>,
    _room: Room,
}

/// Operations in, completions out, on one thread.
///
/// A driver owns what its operations use: [attach](Driver::attach) a descriptor, [submit](Driver::submit)
/// operations on it, and [tick](Driver::tick). A tick submits everything that is staged and waits, in one
/// entry into the kernel, and tells of what has completed. The outcome is [taken](Driver::take) with the
/// operation's key, buffer and all; an operation that nobody wants any more is
/// [abandoned](Driver::abandon), and what it owns stays in the driver until the kernel has let go.
///
/// Every method takes `&self` and may be called from inside a tick's callback, `tick` itself excepted.
///
/// ```
/// use pelton_driver::{Config, Driver, Submission, Token};
/// use std::time::{Duration, Instant};
///
/// let driver = Driver::new(Config::default())?;
/// let deadline = Instant::now() + Duration::from_millis(1);
/// let timer = driver.submit(Submission::timeout(deadline), Token::number(7)).map_err(|r| r.error)?;
/// let mut told = false;
/// while !told {
///     driver.tick(None, |completion| told = completion.token == Token::number(7))?;
/// }
/// assert!(Instant::now() >= deadline);
/// driver.take(timer).expect("it is done")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Driver {
    core: ManuallyDrop<Box<Core>>,
    room: ManuallyDrop<Room>,
    backend: Backend,
    fallback: Option<String>,
    ticking: Cell<bool>,
    /// Another thread has notified, and what it left has not been taken in yet.
    woken: Cell<bool>,
    replies: UnsafeCell<VecDeque<(u64, i32)>>,
    shutdown_timeout: Duration,
}

/// A submission that was not accepted, with what it owned.
pub struct Refused<P> {
    /// Why.
    pub error: io::Error,
    /// What the submission owned: nothing is lost.
    pub payload: P,
}

impl<P: Payload> Refused<P> {
    /// The refusal as the operation's outcome: the error, with the buffer if there was one.
    pub fn into_output(self) -> P::Output {
        self.payload.refuse(self.error)
    }
}

impl<P> fmt::Debug for Refused<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

/// How a submission began, where the caller wants to know at once.
pub enum Started<P: Payload> {
    /// It has ended already: the descriptor was ready, or the submission was refused by the system. No
    /// completion will be told of.
    Done(P::Output),
    /// It is in flight.
    Pending(Key<P>),
}

/// What a tick did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Completions that were told of.
    pub completions: usize,
    /// Another thread has notified the driver since the last tick: drain what it may have pushed.
    pub woken: bool,
}

impl Driver {
    /// Makes a driver for the calling thread.
    ///
    /// # Errors
    /// [`Error::Config`] names a bad setting. [`Error::Unsupported`] says why the backend that was forced
    /// cannot run here. [`Error::Os`] is a refusal by the system, such as too many descriptors.
    pub fn new(config: Config) -> Result<Driver, Error> {
        config.check()?;
        let (room, fallback) = Room::choose(&config)?;
        Driver::in_room(config, room, fallback)
    }

    /// Makes a driver on a kernel that a test plays.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub fn on_fake_kernel(config: Config, kernel: crate::FakeKernel) -> Result<Driver, Error> {
        config.check()?;
        Driver::in_room(config, Room::Fake(crate::sys::fake::Fake::new(kernel)), None)
    }

    fn in_room(config: Config, room: Room, fallback: Option<String>) -> Result<Driver, Error> {
        let id = fresh_id().ok_or_else(|| Error::Os {
            what: "four billion drivers have been made in this process",
            error: io::ErrorKind::QuotaExceeded.into(),
        })?;
        let no_memory = |what| Error::Os { what, error: io::ErrorKind::OutOfMemory.into() };
        let wake = WakeSource::new().map_err(|error| Error::Os { what: "eventfd", error })?;
        let shared = Arc::new(Shared {
            latch: WakeLatch::new(),
            wake,
            counters: Counters::default(),
            closed: AtomicBool::new(false),
        });
        let (mut buffers, mut len) = (config.pool_buffers, config.pool_buffer_len);
        if !room.fills_buffers_piecewise() {
            // A receive then takes a whole buffer, however little it brings: the same memory in more and
            // smaller buffers, so that they do not run out with many connections busy.
            while len > 4096 && buffers < 16384 {
                len /= 2;
                buffers *= 2;
            }
        }
        let pool = Pool::new(buffers, len, shared.clone())
            .ok_or_else(|| no_memory("memory for the pool (lower `pool_buffers`)"))?;
        let core = Box::new(Core {
            id,
            start: Instant::now(),
            arena: Arena::new(config.max_operations)
                .ok_or_else(|| no_memory("memory for operations (lower `max_operations`)"))?,
            fds: Table::new(config.max_descriptors, id.get())
                .ok_or_else(|| no_memory("memory for descriptors (lower `max_descriptors`)"))?,
            scratch: Scratch::new(),
            items: Items::new(),
            wheel: Wheel::new(),
            pool: Rc::new(pool),
            shared,
            replies: Arc::new(Replies::default()),
            ready: Fifo::new(),
            stalled: SlotList::new(),
            wakes: SlotList::new(),
            closable: Fifo::new(),
        });
        room.prepare(&core)?;
        Ok(Driver {
            backend: room.backend(),
            core: ManuallyDrop::new(core),
            room: ManuallyDrop::new(room),
            fallback,
            ticking: Cell::new(false),
            woken: Cell::new(false),
            replies: UnsafeCell::new(VecDeque::new()),
            shutdown_timeout: config.shutdown_timeout,
        })
    }

    /// The moment that the driver was made.
    pub fn start_time(&self) -> Instant {
        self.core.start
    }

    /// The backend that runs.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Why a better backend does not run, in words; none where the best one does or one was forced.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The driver's counters. [`Notifier::counters`] gives them to other threads.
    pub fn counters(&self) -> &Counters {
        self.core.counters()
    }

    /// Wakes this driver from other threads.
    pub fn notifier(&self) -> Notifier {
        Notifier { shared: self.core.shared.clone() }
    }

    /// True when descriptors made for this driver should not block. Sockets are then best made so;
    /// [`Driver::attach`] sees to it otherwise.
    pub fn wants_nonblocking(&self) -> bool {
        self.room.wants_nonblocking()
    }

    /// Gives the driver a descriptor of the user's: a socket, a pipe, a file.
    ///
    /// # Errors
    /// The table is full (`max_descriptors`), or the descriptor could not be made non-blocking where the
    /// backend needs that. The descriptor is then closed.
    pub fn attach(&self, descriptor: OwnedDescriptor) -> io::Result<Fd> {
        use std::os::fd::AsFd;
        if self.room.wants_nonblocking() {
            set_nonblocking(descriptor.as_fd())?;
        }
        let stream = rustix::net::sockopt::socket_type(&descriptor)
            .is_ok_and(|socket| socket == rustix::net::SocketType::STREAM);
        let known = flags::FOREIGN | if stream { flags::STREAM } else { 0 };
        self.insert(descriptor, known)
    }

    /// Gives the driver a stream socket that it has accepted itself, or that was made for it as
    /// [`Driver::wants_nonblocking`] says and has no duplicates. Costs no system call.
    pub fn attach_stream(&self, descriptor: OwnedDescriptor) -> io::Result<Fd> {
        self.insert(descriptor, flags::STREAM)
    }

    fn insert(&self, descriptor: OwnedDescriptor, known: u16) -> io::Result<Fd> {
        use std::os::fd::{AsRawFd, IntoRawFd};
        let fd = self.core.fds.insert(descriptor.as_raw_fd(), known).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the driver's table of descriptors is full: raise `max_descriptors`",
            )
        })?;
        let _ = descriptor.into_raw_fd();
        Ok(fd)
    }

    /// Takes a descriptor back from the driver.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor. `ResourceBusy`: operations are in flight on it; cancel
    /// them and take their outcomes first.
    pub fn detach(&self, fd: Fd) -> io::Result<OwnedDescriptor> {
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        if entry.in_flight.get() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "operations are in flight on the descriptor: cancel them first",
            ));
        }
        let raw = entry.raw.get();
        self.room.forget(&self.core, entry);
        self.core.fds.remove(fd.index);
        // SAFETY: the table owned the descriptor and has just forgotten it.
        Ok(unsafe { own(raw) })
    }

    /// Runs `f` with the system's descriptor: to set options, or to ask for addresses.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor.
    pub fn with_descriptor<R>(
        &self,
        fd: Fd,
        f: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> R,
    ) -> io::Result<R> {
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        // Counted as in flight, so that `f` cannot close it under its own feet.
        let hold = Hold::new(self, fd.index, entry);
        // SAFETY: the descriptor is open, and stays open while it is held.
        let result = f(unsafe { std::os::fd::BorrowedFd::borrow_raw(entry.raw.get()) });
        drop(hold);
        Ok(result)
    }

    /// Descriptors that the driver holds, those that wait to be closed among them.
    pub fn descriptors(&self) -> u32 {
        self.core.fds.open()
    }

    /// Operations that hold a slot: in flight, done and not taken, or abandoned and not finished.
    pub fn operations(&self) -> u32 {
        self.core.arena.live()
    }

    /// Submits an operation. Its completion is told of by a later tick, even where it has ended already.
    ///
    /// Nothing enters the kernel until the next tick, unless the descriptor may be ready (epoll) or the
    /// submission queue is full (io_uring).
    ///
    /// # Errors
    /// The descriptor is not open here (`EBADF`), the buffer has no room, or there are too many
    /// operations (`max_operations`). What the submission owned comes back.
    #[inline]
    pub fn submit<P: Payload>(
        &self,
        submission: Submission<P>,
        token: Token,
    ) -> Result<Key<P>, Refused<P>> {
        let Begun { slot, id } = self.start(submission, token)?;
        if slot.state.get() == State::Done {
            self.core.announce(slot);
        }
        Ok(self.key(id))
    }

    /// Submits an operation and says at once if it has ended already; then no tick tells of it.
    ///
    /// # Errors
    /// As for [`Driver::submit`].
    #[inline(always)]
    pub fn start_now<P: Payload>(
        &self,
        submission: Submission<P>,
        token: Token,
    ) -> Result<Started<P>, Refused<P>> {
        let Begun { slot, id } = self.start(submission, token)?;
        if slot.state.get() == State::Done {
            return Ok(Started::Done(self.take_done::<P>(slot)));
        }
        Ok(Started::Pending(self.key(id)))
    }

    /// [`Driver::submit`] for one who looks at once: also says if the operation has ended already, and then
    /// no tick tells of it.
    ///
    /// # Errors
    /// As for [`Driver::submit`].
    #[inline(always)]
    pub fn submit_and_look<P: Payload>(
        &self,
        submission: Submission<P>,
        token: Token,
    ) -> Result<(Key<P>, bool), Refused<P>> {
        let Begun { slot, id } = self.start(submission, token)?;
        Ok((self.key(id), slot.state.get() == State::Done))
    }

    #[inline(always)]
    fn key<P>(&self, id: OpId) -> Key<P> {
        Key { id, driver: self.core.id, payload: PhantomData }
    }

    #[inline(always)]
    fn start<P: Payload>(
        &self,
        submission: Submission<P>,
        token: Token,
    ) -> Result<Begun<'_>, Refused<P>> {
        let core = &**self.core;
        let Submission { op, payload } = submission;
        if let Op::ReadAt { offset, .. } | Op::WriteAt { offset, .. } = op
            && i64::try_from(offset).is_err()
        {
            return Err(Refused { error: no_such_offset(), payload });
        }
        let Some(slot) = core.arena.claim(op.kind(), token.0) else {
            return Err(Refused { error: too_many_operations(), payload });
        };
        let id = core.arena.id(slot);
        // The payload is user code: it may panic, and it may run the driver.
        let unplaced = Unplaced { core, slot };
        let memory = payload.place(core, slot);
        std::mem::forget(unplaced);
        let memory = match memory {
            Ok(memory) => memory,
            Err(error) => return Err(self.refuse(slot, error)),
        };
        let too_much = match op {
            Op::Send { all: true, .. } => memory.len > MAX_TRANSFER,
            Op::SendVectored { all: true, .. } => {
                core.scratch.get(slot.progress.get()).bytes() > MAX_TRANSFER
            }
            _ => false,
        };
        if too_much {
            return Err(self.refuse(slot, too_long()));
        }
        let memory = memory.clamped();
        // Looked up after the user code, which may have closed it.
        let Some(fd) = op.fd() else {
            core.counters().started(op.kind());
            self.start_own(slot, op);
            return Ok(Begun { slot, id });
        };
        let Some(entry) = core.fds.find(fd) else {
            return Err(self.refuse(slot, bad_descriptor()));
        };
        core.counters().started(op.kind());
        match op {
            Op::Close { .. } => self.start_close(slot, fd, entry),
            Op::CancelFd { .. } => {
                let found = entry.in_flight.get();
                self.cancel_each_on(fd.index, entry);
                let _ = core.finish(slot, found as i32);
            }
            _ => {
                entry.in_flight.set(entry.in_flight.get() + 1);
                slot.fd.set(fd.index);
                let all =
                    matches!(op, Op::Send { all: true, .. } | Op::SendVectored { all: true, .. });
                // Whatever its owner did while it was asked for its memory: the operation begins now.
                slot.bits.set(if all { bits::ALL } else { 0 });
                self.room.start(core, slot, id, op, entry, memory);
            }
        }
        Ok(Begun { slot, id })
    }

    /// Refuses a submission whose payload is in its slot already.
    #[cold]
    #[inline(never)]
    fn refuse<P: Payload>(&self, slot: &Slot, error: io::Error) -> Refused<P> {
        let _unplaced = Unplaced { core: &self.core, slot };
        Refused { error, payload: P::unplace(&self.core, slot) }
    }

    /// The operations that no kernel needs to answer.
    fn start_own(&self, slot: &Slot, op: Op) {
        let core = &**self.core;
        match op {
            Op::Timeout { deadline } => core.wheel.insert(&core.arena, slot, core.nanos(deadline)),
            Op::Wake => core.wakes.push(&core.arena, slot),
            Op::Cancel { target } => {
                let found = self.cancel(target);
                let _ = core.finish(slot, if found { 0 } else { -errno::ENOENT });
            }
            _ => {
                let _ = core.finish(slot, 0);
            }
        }
    }

    fn start_close(&self, slot: &Slot, fd: Fd, entry: &crate::descriptor::Entry) {
        entry.begin_close(self.core.arena.index(slot));
        self.begin_close(fd.index, entry);
    }

    /// Closes a descriptor and tells nobody: operations on it are refused from now on, those in flight are
    /// cancelled, and when the last of them has ended it is closed. Nothing happens where it is closed
    /// already.
    pub fn close(&self, fd: Fd) {
        if let Some(entry) = self.core.fds.find(fd) {
            entry.begin_close(NIL);
            self.begin_close(fd.index, entry);
        }
    }

    fn begin_close(&self, index: u32, entry: &crate::descriptor::Entry) {
        if entry.in_flight.get() == 0 {
            self.core.closable.push(index);
        } else {
            self.cancel_all_on(index, entry);
        }
        self.settle();
    }

    /// Cancels what is in flight on a descriptor that is closing: nothing on it is retried any more.
    fn cancel_all_on(&self, index: u32, entry: &crate::descriptor::Entry) {
        if entry.in_flight.get() == entry.cancelled.get() {
            // Whoever had them in flight has abandoned them, as is usual: nothing is left to cancel.
            return;
        }
        if self.room.cancels_one_by_one(entry) {
            return self.cancel_each_on(index, entry);
        }
        // Those that wait for a buffer are the driver's; the others are the room's.
        let core = &**self.core;
        let mut at = core.stalled.first(&core.arena);
        while let Some(slot) = at {
            let next = core.arena.get(slot.link.get());
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
    fn cancel_each_on(&self, index: u32, entry: &crate::descriptor::Entry) {
        let core = &**self.core;
        for at in 0..core.arena.used() {
            if entry.in_flight.get() == entry.cancelled.get() {
                break;
            }
            let Some(slot) = core.arena.get(at) else { break };
            if slot.fd.get() == index && matches!(slot.state.get(), State::Busy | State::Orphan) {
                self.cancel_slot(slot);
            }
        }
    }

    /// Closes the descriptors on which nothing is in flight any more. Not in the middle of a dispatch,
    /// which may still look at them.
    fn settle(&self) {
        if self.ticking.get() {
            return;
        }
        let core = &**self.core;
        while let Some(index) = core.closable.pop() {
            let Some(entry) = core.fds.get(index) else { continue };
            if entry.flags.get() & (flags::OPEN | flags::CLOSING) != flags::OPEN | flags::CLOSING
                || entry.in_flight.get() > 0
            {
                continue;
            }
            let closer = core.arena.get(entry.closer.get());
            self.room.close(core, entry, closer);
            core.fds.remove(index);
        }
    }

    /// Asks to cancel an operation. True when it was in flight: it then ends soon, with `ECANCELED` or with
    /// what it had done already, and its completion is told of as ever.
    ///
    /// Asking twice, or for one that has ended, does nothing. A close is not cancelled.
    pub fn cancel(&self, id: OpId) -> bool {
        let core = &**self.core;
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

    fn cancel_slot(&self, slot: &Slot) {
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
        }
        self.settle();
    }

    /// Gives up an operation: whoever was waiting has gone. It is cancelled, nobody is told of it, and what
    /// it owns is dropped when the kernel has let go; a connection or a buffer that it brings is closed or
    /// given back.
    pub fn abandon<P: Payload>(&self, key: Key<P>) {
        let Some(slot) = self.slot_of(&key) else { return };
        match slot.state.get() {
            State::Busy if slot.kind.get() == Kind::Timeout => {
                // The driver's own: it ends here and now, and owns nothing.
                self.core.wheel.remove(&self.core.arena, slot);
                self.core.counters().ended(Kind::Timeout);
                self.core.arena.release(slot);
            }
            State::Busy => {
                slot.state.set(State::Orphan);
                slot.token.set(std::ptr::null_mut());
                self.core.counters().orphans.add(1);
                self.cancel_slot(slot);
            }
            State::Done => self.core.discard(slot),
            State::Free | State::Orphan => {}
        }
    }

    /// Takes the outcome of an operation that has ended, with what it owned.
    ///
    /// # Errors
    /// The key comes back when the operation is still in flight, or belongs to another driver.
    #[inline(always)]
    pub fn take<P: Payload>(&self, key: Key<P>) -> Result<P::Output, Key<P>> {
        match self.slot_of(&key) {
            Some(slot) if slot.state.get() == State::Done => Ok(self.take_done::<P>(slot)),
            _ => Err(key),
        }
    }

    /// Takes the outcome if the operation has ended, and the key with it; else leaves the key.
    #[inline(always)]
    pub fn take_if_done<P: Payload>(&self, key: &mut Option<Key<P>>) -> Option<P::Output> {
        match self.poll_take(key, &mut { Token::NONE }) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[inline(always)]
    fn take_done<P: Payload>(&self, slot: &Slot) -> P::Output {
        // Released also where the buffer's own code panics.
        let _release = Release::<P> { core: &self.core, slot, payload: PhantomData };
        P::finish(&self.core, slot)
    }

    /// True when the operation has ended and its outcome can be taken.
    #[inline(always)]
    pub fn is_done<P>(&self, key: &Key<P>) -> bool {
        self.slot_of(key).is_some_and(|slot| slot.state.get() == State::Done)
    }

    /// The next thing that a multishot operation has yielded, if there is one. When there is none and
    /// [`Driver::is_done`], the operation has ended: [`Driver::take`] says how.
    pub fn next<P: Multishot>(&self, key: &Key<P>) -> Option<P::Item> {
        let slot = self.slot_of(key)?;
        let item = self.core.items.pop(slot).and_then(P::item);
        if slot.state.get() == State::Busy && crate::items::waiting(slot) == 0 {
            // The notice that may be on its way has nothing left to tell of.
            slot.unset(bits::ANNOUNCED);
        }
        item
    }

    /// How many things a multishot operation has yielded that nobody has taken.
    pub fn waiting<P: Multishot>(&self, key: &Key<P>) -> u32 {
        self.slot_of(key).map_or(0, crate::items::waiting)
    }

    /// [`Driver::take_if_done`], which also tells in `token` whom the completion was for.
    #[inline(always)]
    pub fn poll_take<P: Payload>(
        &self,
        key: &mut Option<Key<P>>,
        token: &mut Token,
    ) -> Poll<P::Output> {
        if let Some(held) = key
            && let Some(slot) = self.slot_of(held)
            && slot.state.get() == State::Done
        {
            *key = None;
            *token = Token(slot.token.get());
            return Poll::Ready(self.take_done::<P>(slot));
        }
        Poll::Pending
    }

    /// Whom the operation's completion is for.
    #[inline(always)]
    pub fn token<P>(&self, key: &Key<P>) -> Token {
        self.slot_of(key).map_or(Token::NONE, |slot| Token(slot.token.get()))
    }

    /// Says whom the operation's completion is for from now on.
    #[inline(always)]
    pub fn set_token<P>(&self, key: &Key<P>, token: Token) {
        if let Some(slot) = self.slot_of(key) {
            slot.token.set(token.0);
        }
    }

    #[inline(always)]
    fn slot_of<P>(&self, key: &Key<P>) -> Option<&Slot> {
        if key.driver != self.core.id {
            return None;
        }
        // The key's own: it is released only by giving up the key, so the generation is the key's too.
        self.core.arena.get(key.id.index())
    }

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
    pub fn tick(
        &self,
        timeout: Option<Duration>,
        mut on: impl FnMut(Completion),
    ) -> io::Result<Tick> {
        self.tick_with(timeout, &mut on)
    }

    /// [`Driver::tick`] for one that implements [`OnCompletion`] itself.
    ///
    /// # Errors
    /// As for [`Driver::tick`].
    #[inline]
    pub fn tick_with(
        &self,
        timeout: Option<Duration>,
        on: &mut impl OnCompletion,
    ) -> io::Result<Tick> {
        if self.ticking.replace(true) {
            return Err(io::Error::new(
                io::ErrorKind::Deadlock,
                "a tick was asked for from inside a tick's callback",
            ));
        }
        let ticking = Ticking { driver: self };
        let core = &**self.core;
        core.counters().ticks.add(1);
        let mut on = Telling { driver: self, told: 0, on };
        if core.ready.len() > 0 {
            self.deliver_ready(&mut on);
        }
        self.restart_stalled();
        // Whoever has been told of something must get to act on it: no waiting then.
        let must_act = on.told > 0 || core.ready.len() > 0 || self.woken.get();
        let timeout = if must_act || self.room.has_work() {
            Some(Duration::ZERO)
        } else {
            self.until_next_timer(timeout)
        };
        let waited = self.wait(timeout);
        // After every wait, whether it was broken by a wake or not; then drain.
        if core.shared.latch.clear() {
            // Kept here until it has been acted on, which a callback that panics puts off.
            self.woken.set(true);
        }
        if waited.is_ok() {
            self.room.reap(core, &mut on);
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
    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let core = &**self.core;
        let timeout = if timeout == Some(Duration::ZERO) || !core.shared.latch.try_sleep() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        self.room.wait(core, timeout)
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
        let core = &**self.core;
        for _ in 0..core.ready.len() {
            let Some(id) = core.ready.pop() else { break };
            // Taken or abandoned meanwhile: nobody waits to be told.
            let Some(slot) = core.arena.find(id) else { continue };
            // Told of already, or its items have been taken.
            if !slot.has(bits::ANNOUNCED) {
                continue;
            }
            slot.unset(bits::ANNOUNCED);
            let more = slot.state.get() == State::Busy;
            if slot.state.get() != State::Orphan {
                on.on_completion(Completion { id, token: Token(slot.token.get()), more });
            }
        }
    }

    /// Buffers have come back: as many receives as there are buffers may try again.
    fn restart_stalled(&self) {
        let core = &**self.core;
        if core.stalled.is_empty() {
            return;
        }
        for _ in 0..core.pool.available() {
            let Some(slot) = core.unstall() else { break };
            self.room.restart(core, slot);
        }
    }

    fn until_next_timer(&self, timeout: Option<Duration>) -> Option<Duration> {
        let core = &**self.core;
        if timeout == Some(Duration::ZERO) || core.wheel.is_empty() {
            return timeout;
        }
        let next = core.wheel.next()?;
        let until = Duration::from_nanos(next.saturating_sub(core.nanos(Instant::now())));
        Some(timeout.map_or(until, |timeout| timeout.min(until)))
    }

    fn fire_timers(&self, on: &mut dyn OnCompletion) {
        let core = &**self.core;
        core.wheel.advance(&core.arena, core.nanos(Instant::now()), |slot| {
            core.counters().timers_fired.add(1);
            core.finish_now(slot, 0, on);
        });
    }

    /// What other threads have left: results of the blocking pool, and the wake itself.
    #[cold]
    fn come_home(&self, on: &mut dyn OnCompletion) {
        let core = &**self.core;
        // SAFETY: one thread, and not inside another tick: nobody else holds the queue, and the reference
        // ends before user code runs.
        core.replies.drain(unsafe { &mut *self.replies.get() });
        // SAFETY: as above. One by one, so that none is lost where a callback panics.
        while let Some((user_data, result)) = unsafe { &mut *self.replies.get() }.pop_front() {
            if let Some(slot) = core.in_flight(user_data) {
                core.counters().completions.add(1);
                core.finish_now(slot, result, on);
            }
        }
        let mut wakes = 0;
        let mut at = core.wakes.first(&core.arena);
        while let Some(slot) = at {
            // Those that are here now: one that the callback submits waits for the next wake.
            wakes += 1;
            at = core.arena.get(slot.link.get());
        }
        for _ in 0..wakes {
            let Some(slot) = core.wakes.pop(&core.arena) else { break };
            core.finish_now(slot, 0, on);
        }
    }

    /// Cancels everything and waits until the kernel has let go of all, at most for `timeout`. Returns how
    /// many operations it has not let go of.
    fn drain(&self, timeout: Duration) -> u32 {
        let core = &**self.core;
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
                if entry.in_flight.get() == 0 {
                    core.closable.push(index);
                }
            }
        }
        self.settle();
        let give_up = Instant::now() + timeout;
        loop {
            let in_flight = self.orphans();
            if in_flight == 0 && core.fds.open() == 0 {
                // What is staged now is closes that nobody waits for: they must still reach the kernel.
                let _ = self.room.wait(core, Some(Duration::ZERO));
                return 0;
            }
            let left = give_up.saturating_duration_since(Instant::now());
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
    /// [`Config::shutdown_timeout`]. Closing a ring is no barrier, so what is still in flight then is left
    /// behind for good, memory, descriptors and all; [`Counters::leaked`] tells how many operations.
    fn drop(&mut self) {
        let left = if self.ticking.get() { u32::MAX } else { self.drain(self.shutdown_timeout) };
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
        let core = &**self.core;
        // Outcomes that nobody has taken.
        for index in 0..core.arena.used() {
            if let Some(slot) = core.arena.get(index)
                && slot.state.get() == State::Done
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

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("backend", &self.backend)
            .field("operations", &self.operations())
            .field("descriptors", &self.descriptors())
            .finish_non_exhaustive()
    }
}

/// Tells of completions, counts them, and keeps multishot operations within their bounds.
struct Telling<'a, T> {
    driver: &'a Driver,
    told: usize,
    on: &'a mut T,
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
}

/// An operation that was accepted. It may have ended already.
struct Begun<'a> {
    slot: &'a Slot,
    id: OpId,
}

/// A slot whose payload is being placed: on a panic, or when the submission is refused, it is released.
struct Unplaced<'a> {
    core: &'a Core,
    slot: &'a Slot,
}

impl Drop for Unplaced<'_> {
    fn drop(&mut self) {
        // Refused: the payload has been taken out again. Panicked: it is dropped after the release.
        let leftover = Leftover::take(self.slot);
        self.core.release(self.slot);
        drop(leftover);
    }
}

/// Releases a slot whose outcome has been taken.
struct Release<'a, P: Payload> {
    core: &'a Core,
    slot: &'a Slot,
    payload: PhantomData<P>,
}

impl<P: Payload> Drop for Release<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if P::MULTISHOT {
            // It may have yielded more than was taken.
            self.core.discard(self.slot);
        } else if P::SCRATCH {
            self.core.release(self.slot);
        } else {
            self.core.arena.release(self.slot);
        }
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

/// Keeps a descriptor from being closed.
struct Hold<'a> {
    driver: &'a Driver,
    index: u32,
    entry: &'a crate::descriptor::Entry,
}

impl<'a> Hold<'a> {
    fn new(driver: &'a Driver, index: u32, entry: &'a crate::descriptor::Entry) -> Hold<'a> {
        entry.in_flight.set(entry.in_flight.get() + 1);
        Hold { driver, index, entry }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.entry.in_flight.set(self.entry.in_flight.get() - 1);
        if self.entry.in_flight.get() == 0 && self.entry.has(flags::CLOSING) {
            self.driver.core.closable.push(self.index);
            self.driver.settle();
        }
    }
}

#[cold]
fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "more than 2 GiB cannot be sent in one operation: send it in slices",
    )
}

#[cold]
fn bad_descriptor() -> io::Error {
    io::Error::from_raw_os_error(errno::EBADF)
}

#[cold]
fn no_such_offset() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the offset is past what a file can have (2^63 - 1)",
    )
}

#[cold]
fn too_many_operations() -> io::Error {
    io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "too many operations are in flight: raise `max_operations`",
    )
}
