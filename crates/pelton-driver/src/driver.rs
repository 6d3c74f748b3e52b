//! The one surface of the driver: submit, cancel, tick, take, wake. Here: the driver itself, its descriptors,
//! and the outcomes that are taken.

mod datagrams;
mod end;
mod flight;
mod own;
mod pipes;
mod shutdown;
mod sockets;
mod submit;
mod tick;
mod unix_sockets;
mod watch;

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::blocking::Replies;
use crate::buf::IoBufMut;
use crate::config::{Backend, Config, Error};
use crate::core::{Core, Fifo};
use crate::counters::Counters;
use crate::descriptor::{Fd, Table, flags};
use crate::items::Items;
use crate::latch::WakeLatch;
use crate::notify::{Notifier, Shared};
use crate::op::Kind;
use crate::payload::{Memory, Multishot, Payload};
use crate::pool::Pool;
use crate::scratch::Scratch;
use crate::slot::{Arena, Flight, Key, OpId, Slot, SlotList, State, Token, bits};
use crate::sys::{BorrowedDescriptor, OwnedDescriptor, Room, borrow_descriptor, calls, errno, own};
use crate::timer::Wheel;

pub use datagrams::DatagramOption;
pub use sockets::ListenOptions;

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
#[repr(C)] // What every tick looks at lies together.
pub struct Driver {
    /// In here and not behind a pointer, which every operation would have to follow.
    core: ManuallyDrop<Core>,
    ticking: Cell<bool>,
    /// Another thread has notified, and what it left has not been taken in yet.
    woken: Cell<bool>,
    backend: Backend,
    room: ManuallyDrop<Room>,
    fallback: Option<String>,
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

/// How an operation of a runtime's began.
pub enum Launched<P: Payload> {
    /// It was over before it had a token.
    Over(P::Output),
    /// It is over.
    Landed(P::Output),
    /// It has begun.
    Flying(Flight<P>),
}

/// Whom the completion of an operation is for that is [launched](Driver::launch).
pub trait Recipient {
    /// The token, where it is at hand.
    fn known(&self) -> Option<Token>;

    /// The token, which may have to be made.
    fn token(&self) -> Token;

    /// What was made for a token is not needed: the operation has ended, and nobody is told of it. Never called for
    /// one that was at hand.
    fn forget(&self, token: Token);
}

impl Recipient for Token {
    fn known(&self) -> Option<Token> {
        Some(*self)
    }

    fn token(&self) -> Token {
        *self
    }

    fn forget(&self, _: Token) {}
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
        let wake = room
            .wake_source()
            .map_err(|error| Error::Os { what: "the object that wakes", error })?;
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
        let pool = Pool::make(buffers, len, shared.clone())
            .ok_or_else(|| no_memory("memory for the pool (lower `pool_buffers`)"))?;
        let core = Core {
            id,
            start: calls::now(),
            arena: Arena::new(config.max_operations)
                .ok_or_else(|| no_memory("memory for operations (lower `max_operations`)"))?,
            fds: Table::new(config.max_descriptors, id.get())
                .ok_or_else(|| no_memory("memory for descriptors (lower `max_descriptors`)"))?,
            scratch: Scratch::new(),
            items: Items::new(),
            wheel: Wheel::new(),
            pool,
            shared,
            replies: Arc::new(Replies::default()),
            ready: Fifo::new(),
            stalled: SlotList::new(),
            wakes: SlotList::new(),
            closable: Fifo::new(),
        };
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

    /// True when the driver runs on a simulated system (feature `sim`).
    pub fn is_simulated(&self) -> bool {
        self.room.is_simulated()
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
    /// On Windows one that is associated with another completion port, another driver's or anybody's, has
    /// operations of this one refused with `ERROR_INVALID_PARAMETER` when they are submitted; a file is read and
    /// written all the same.
    ///
    /// # Errors
    /// The table is full (`max_descriptors`), the descriptor could not be made non-blocking where the
    /// backend needs that, or the system did not say what kind of socket it is. The descriptor is then closed.
    pub fn attach(&self, descriptor: OwnedDescriptor) -> io::Result<Fd> {
        if self.room.wants_nonblocking() {
            calls::set_nonblocking(descriptor.as_raw())?;
        }
        let stream = calls::is_stream(descriptor.as_raw())?;
        let known = flags::FOREIGN | if stream { flags::STREAM } else { 0 };
        self.insert(descriptor, known)
    }

    /// Gives the driver a stream socket that it has accepted itself, or that was made for it as
    /// [`Driver::wants_nonblocking`] says and has no duplicates. Costs no system call.
    pub fn attach_stream(&self, descriptor: OwnedDescriptor) -> io::Result<Fd> {
        self.insert(descriptor, flags::STREAM)
    }

    pub(crate) fn insert(&self, descriptor: OwnedDescriptor, known: u16) -> io::Result<Fd> {
        let fd = self.core.fds.insert(descriptor.as_raw(), known).ok_or_else(table_is_full)?;
        let _ = descriptor.into_raw();
        Ok(fd)
    }

    /// Takes a descriptor back from the driver.
    ///
    /// It may be given to this driver again. On Windows it may be given to another only where the system can end
    /// an association with a port, which it can from Windows 8.1; before that another driver's operations on it are
    /// refused, as [`Driver::attach`] says.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor. `ResourceBusy`: operations are in flight on it; cancel
    /// them and take their outcomes first. `InvalidInput`: it was only [associated](Driver::associate).
    pub fn detach(&self, fd: Fd) -> io::Result<OwnedDescriptor> {
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        if entry.in_flight() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "operations are in flight on the descriptor: cancel them first",
            ));
        }
        if entry.has(flags::BORROWED) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the descriptor is only associated, and the user's already: close it here to end that",
            ));
        }
        let raw = entry.raw.get();
        self.room.forget(&self.core, entry);
        self.core.fds.remove(fd.index);
        // SAFETY: the table owned the descriptor and has just forgotten it.
        Ok(unsafe { own(raw) })
    }

    /// Runs `f` with the system's descriptor: to set options that the driver has no call for.
    ///
    /// # Errors
    /// `EBADF`: the driver has no such descriptor. `Unsupported`: it is one of a simulated system, which
    /// the real one does not know.
    pub fn with_descriptor<R>(
        &self,
        fd: Fd,
        f: impl FnOnce(BorrowedDescriptor<'_>) -> R,
    ) -> io::Result<R> {
        let entry = self.core.fds.find(fd).ok_or_else(bad_descriptor)?;
        if calls::is_simulated(entry.raw.get()) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the descriptor is one of a simulated system: use the calls of the driver or its socket \
                 (`local_addr`, `set_nodelay` and so on) instead of the system's",
            ));
        }
        // Counted as in flight, so that `f` cannot close it under its own feet.
        let hold = Hold::new(self, fd.index, entry);
        // SAFETY: the descriptor is open, and stays open while it is held.
        let result = f(unsafe { borrow_descriptor(entry.raw.get()) });
        drop(hold);
        Ok(result)
    }

    /// Puts the driver to sleep where it does not wait itself: between two ticks, whose waits do not block, of
    /// a reactor that a simulation turns. Whoever notifies it from then on reaches its kernel. False when
    /// there is something to do without a wait: tick again. Every tick wakes it up.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub fn park(&self) -> bool {
        let busy = self.core.ready.len() > 0 || self.woken.get() || self.room.has_work();
        !busy && self.core.shared.latch.try_sleep()
    }

    /// Reads from a file at `offset` bytes what the page cache has, at once and as one system call: no
    /// operation, no completion. Yields how much was read, which is less than there is room for only at the end
    /// of the file; 0 bytes are the end.
    ///
    /// None, and nothing read, where that cannot be had without a wait or not at all:
    /// [submit](Driver::submit) the read then, which also says what is wrong with it. A descriptor on which
    /// this was in vain is not asked each time: it pauses for one read, then three, and up to 63, until one
    /// finds its bytes.
    #[inline]
    pub fn read_cached<B: IoBufMut>(&self, fd: Fd, buf: &mut B, offset: u64) -> Option<usize> {
        // User code, which may close the descriptor: asked first. The memory stays where it is, because `buf`
        // is borrowed until the bytes have been counted, and the system call runs nobody's code.
        let mut spare = buf.spare();
        let memory = Memory { ptr: spare.as_mut_ptr(), len: spare.len() };
        if memory.len == 0 || i64::try_from(offset).is_err() {
            return None;
        }
        let entry = self.core.fds.find(fd)?;
        let read = self.room.read_cached(entry, memory.clamped(), offset)? as usize;
        self.core.counters().started(Kind::ReadAt);
        self.core.counters().ended(Kind::ReadAt);
        self.core.counters().completions.add(1);
        // SAFETY: the kernel has just written `read` bytes to the start of what `spare` gave, and nobody has
        // touched the buffer since.
        unsafe { buf.advance(read) };
        Some(read)
    }

    /// Descriptors that the driver holds, those that wait to be closed among them.
    pub fn descriptors(&self) -> u32 {
        self.core.fds.open()
    }

    /// Operations that hold a slot: in flight, done and not taken, or abandoned and not finished.
    pub fn operations(&self) -> u32 {
        self.core.arena.live()
    }

    /// Takes the outcome of an operation that has ended, with what it owned.
    ///
    /// # Errors
    /// The key comes back when the operation is still in flight, or belongs to another driver.
    #[inline(always)]
    pub fn take<P: Payload>(&self, key: Key<P>) -> Result<P::Output, Key<P>> {
        match self.slot_of(&key) {
            Some(slot) if slot.has_ended() => Ok(self.take_done::<P>(slot)),
            _ => Err(key),
        }
    }

    /// Takes the outcome if the operation has ended, and the key with it; else leaves the key.
    #[inline(always)]
    pub fn take_if_done<P: Payload>(&self, key: &mut Option<Key<P>>) -> Option<P::Output> {
        let slot = self.slot_of(key.as_ref()?)?;
        if !slot.has_ended() {
            return None;
        }
        *key = None;
        Some(self.take_done::<P>(slot))
    }

    #[inline(always)]
    fn take_done<P: Payload>(&self, slot: &Slot) -> P::Output {
        // Released also where the buffer's own code panics.
        let release = Release::<P> { core: &self.core, slot, payload: PhantomData };
        P::conclude(&self.core, slot, release)
    }

    /// True when the operation has ended and its outcome can be taken.
    #[inline(always)]
    pub fn is_done<P>(&self, key: &Key<P>) -> bool {
        self.slot_of(key).is_some_and(Slot::has_ended)
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

    /// [`Driver::set_token`] by an operation's name, for one who is told of it and has no key. Does nothing where
    /// the operation's outcome has been taken.
    pub fn set_token_of(&self, id: OpId, token: Token) {
        if let Some(slot) = self.core.arena.find(id) {
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

/// Keeps a descriptor from being closed.
struct Hold<'a> {
    driver: &'a Driver,
    index: u32,
    entry: &'a crate::descriptor::Entry,
}

impl<'a> Hold<'a> {
    fn new(driver: &'a Driver, index: u32, entry: &'a crate::descriptor::Entry) -> Hold<'a> {
        entry.hold();
        Hold { driver, index, entry }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.entry.let_go() {
            self.driver.core.closable.push(self.index);
            self.driver.settle();
        }
    }
}

#[cold]
fn table_is_full() -> io::Error {
    io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "the driver's table of descriptors is full: raise `max_descriptors`",
    )
}

#[cold]
#[inline(never)]
fn bad_descriptor() -> io::Error {
    io::Error::from_raw_os_error(errno::EBADF)
}
