//! The epoll room: try first, wait for an edge.
//!
//! # Who knows what, and when
//!
//! - A descriptor is registered once, for both directions and for edges, when an operation on it first
//!   has to wait, and stays registered until it is closed. No operation costs an `epoll_ctl`.
//! - The table's entry remembers for each direction whether it *may* be ready. It may at the start, and
//!   after every edge; it is not after a try that found nothing, nor after a receive from a stream that
//!   was shorter than its buffer: then the stream is empty, and if more comes that makes a new edge.
//!   After a hang-up nothing is forgotten any more: no further edge would come.
//! - An operation whose direction may be ready, with no older one waiting, is tried at once. Otherwise it
//!   is parked in the queue of its direction, in order, and tried when an edge comes.
//! - An event carries the number and the generation of a table entry, and nothing else, so that one for a
//!   descriptor that has been closed meanwhile finds nobody.
//! - A descriptor whose multishot operation has had its share of one tick is listed, and goes on at the
//!   next one, which does not wait.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use super::attempt::{Attempt, attempt, attempt_of, interest_arg, shutdown_arg};
use super::calls;
use super::descriptor::OwnedDescriptor;
use super::unix::{NO_DESCRIPTOR, RawDescriptor, check, errno, last_errno};
use crate::blocking::{self, FileJob};
use crate::config::Error;
use crate::core::{Core, Fifo, OnCompletion};
use crate::descriptor::{Entry, Fd, flags};
use crate::notify::Notifier;
use crate::op::{Form, Kind, Op};
use crate::parked::Parked;
use crate::payload::Memory;
use crate::slot::{OpId, Slot, State, bits};

mod usual;

/// The event data of the wake source: no table entry has this number.
const WAKE: u64 = u64::MAX;
const EVENTS: usize = 256;
const MOST_EVENTS: usize = 4096;
/// How many items one multishot operation may yield before others have their turn.
const SHARE: usize = 16;

pub(crate) struct Epoll {
    epoll: OwnedDescriptor,
    events: UnsafeCell<Vec<libc::epoll_event>>,
    /// How many of `events` the last wait has filled, and how many of those have been dispatched.
    filled: Cell<usize>,
    dispatched: Cell<usize>,
    /// Descriptors that may still be ready and have operations left to try.
    listed: Fifo<u32>,
    pwait2: Cell<bool>,
}

impl Epoll {
    /// Makes the selector, of the system or of this thread's simulated one.
    pub(crate) fn new(simulated: bool) -> Result<Epoll, Error> {
        let epoll = create(simulated).map_err(|error| Error::Os { what: "epoll_create", error })?;
        Ok(Epoll {
            epoll,
            events: UnsafeCell::new(vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS]),
            filled: Cell::new(0),
            dispatched: Cell::new(0),
            listed: Fifo::new(),
            pwait2: Cell::new(true),
        })
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.epoll.is_simulated()
    }

    pub(crate) fn prepare(&self, core: &Core) -> Result<(), Error> {
        let edges = libc::EPOLLIN | libc::EPOLLET;
        self.control(libc::EPOLL_CTL_ADD, core.shared.wake.watch(), edges, WAKE)
            .map_err(|error| Error::Os { what: "epoll_ctl for the wake source", error })
    }

    fn control(&self, what: i32, raw: i32, events: i32, data: u64) -> io::Result<()> {
        let result = calls::epoll_ctl(self.epoll.as_raw(), what, raw, events as u32, data);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }

    #[inline(always)]
    pub(crate) fn start(
        &self,
        core: &Core,
        slot: &Slot,
        _: OpId,
        op: Op,
        entry: &Entry,
        memory: Memory,
    ) {
        match op {
            // The kinds that nearly all are, compiled into whoever submits them.
            Op::Recv { .. } | Op::RecvPooled { .. } => {
                self.begin(core, slot, entry, Direction::In, |core, slot, raw| {
                    attempt_of(op.kind(), core, slot, raw, Some(memory))
                });
            }
            Op::Send { .. } => {
                self.begin(core, slot, entry, Direction::Out, |core, slot, raw| {
                    attempt_of(Kind::Send, core, slot, raw, Some(memory))
                });
            }
            Op::RecvVectored { .. } | Op::RecvMsg { .. } | Op::Accept { .. } => {
                self.begin_any(core, slot, entry, Direction::In, Some(memory));
            }
            Op::AcceptMulti { .. } | Op::RecvMulti { .. } => {
                self.begin_any(core, slot, entry, Direction::In, None);
            }
            Op::SendVectored { .. } | Op::SendMsg { .. } => {
                self.begin_any(core, slot, entry, Direction::Out, Some(memory));
            }
            Op::Connect { .. } => self.connect(core, slot, entry),
            Op::Poll { interest, .. } => {
                slot.progress.set(interest_arg(interest));
                let direction = Direction::of(slot);
                // The level counts: ask the kernel, whatever the last edge said.
                self.tried(
                    core,
                    slot,
                    entry,
                    direction,
                    attempt(core, slot, entry.raw.get(), None),
                );
            }
            Op::ReadAt { offset, .. } => self.file_job(core, slot, entry, memory, offset, false),
            Op::WriteAt { offset, .. } => self.file_job(core, slot, entry, memory, offset, true),
            Op::Sync { data_only, .. } => self.sync(core, slot, entry, data_only),
            Op::Shutdown { how, .. } => {
                let _ = core.finish(slot, calls::shutdown(entry.raw.get(), shutdown_arg(how)));
            }
            Op::Own { form: Form::Ready(interest), .. } => {
                slot.progress.set(interest_arg(interest));
                self.begin_any(core, slot, entry, Direction::of(slot), None);
            }
            Op::Own { form: Form::Entry | Form::Overlapped, .. } => {
                unreachable!("the seam refuses {op:?} here")
            }
            Op::Nop
            | Op::Close { .. }
            | Op::Timeout { .. }
            | Op::Cancel { .. }
            | Op::CancelFd { .. }
            | Op::Wake => unreachable!("the driver itself answers {op:?}"),
        }
    }

    pub(crate) fn restart(&self, core: &Core, slot: &Slot) {
        let Some(entry) = core.entry_of(slot) else { return };
        let direction = Direction::of(slot);
        self.begin_any(core, slot, entry, direction, None);
        if slot.state.get() == State::Done {
            core.announce(slot);
        }
    }

    pub(crate) fn cancel(&self, core: &Core, slot: &Slot) {
        let Some(entry) = core.entry_of(slot) else { return };
        // An operation that is in no queue is with the blocking pool, and ends when the pool has done it.
        if slot.has(bits::LINKED) && Direction::of(slot).queue(entry).remove(&core.arena, slot) {
            core.finish_later(slot, core.cancelled(slot));
        }
    }

    pub(crate) fn cancel_fd(&self, core: &Core, entry: &Entry) {
        for queue in [&entry.readers, &entry.writers] {
            while let Some(slot) = queue.pop(&core.arena) {
                if slot.has(bits::ASKED) {
                    // Its owner is asked for its memory right now. The descriptor is closing, and whoever
                    // asks sees that and ends the operation.
                } else {
                    core.finish_later(slot, core.cancelled(slot));
                }
            }
        }
    }

    pub(crate) fn close(&self, core: &Core, entry: &Entry, closer: Option<&Slot>) {
        let raw = entry.raw.get();
        if entry.has(flags::FOREIGN) {
            // The user may have duplicates, which would keep the registration and its edges alive.
            self.forget(core, entry);
        }
        // SAFETY: the driver owns the descriptor, nothing is in flight on it, and its entry goes now.
        let result = unsafe { calls::close(raw) };
        entry.raw.set(NO_DESCRIPTOR);
        core.counters().closes.add(1);
        if let Some(closer) = closer {
            // An interrupted close has closed: the number is free again.
            core.finish_later(closer, if result == -errno::EINTR { 0 } else { result });
        }
    }

    pub(crate) fn forget(&self, core: &Core, entry: &Entry) {
        if entry.has(flags::REGISTERED) {
            entry.unset(flags::REGISTERED);
            core.counters().registrations.add(1);
            let _ = self.control(libc::EPOLL_CTL_DEL, entry.raw.get(), 0, 0);
        }
    }

    #[inline(always)]
    pub(crate) fn has_work(&self) -> bool {
        self.listed.len() > 0 || self.dispatched.get() < self.filled.get()
    }

    pub(crate) fn wait(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        if self.dispatched.get() < self.filled.get() {
            // A callback panicked in the middle of the last batch: its edges come only once.
            return Ok(());
        }
        core.counters().enters.add(1);
        // SAFETY: one thread, and no user code runs while this reference lives.
        let events = unsafe { &mut *self.events.get() };
        if self.filled.get() == events.len() && events.len() < MOST_EVENTS {
            events.resize(events.len() * 4, libc::epoll_event { events: 0, u64: 0 });
        }
        self.filled.set(0);
        self.dispatched.set(0);
        match self.epoll_wait(events, timeout) {
            Ok(n) => self.filled.set(n),
            // The tick goes on with what there is; nothing is lost, edges stay with the kernel.
            Err(errno::EINTR) if !mutant!("ioxide-220") => {}
            Err(error) => return Err(io::Error::from_raw_os_error(error)),
        }
        Ok(())
    }

    fn epoll_wait(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> Result<usize, i32> {
        let (raw, len) = (self.epoll.as_raw(), events.len() as i32);
        if let Some(result) = calls::epoll_wait_simulated(raw, events, timeout) {
            return if result < 0 { Err(-result) } else { Ok(result as usize) };
        }
        if self.pwait2.get() {
            let timespec = timeout.map(|timeout| libc::timespec {
                tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            });
            let timespec = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            let no_mask = std::ptr::null::<libc::sigset_t>();
            // SAFETY: the events are ours to fill, `len` of them; the time is null or lives on.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    raw,
                    events.as_mut_ptr(),
                    len,
                    timespec,
                    no_mask,
                    0,
                )
            };
            if result >= 0 {
                return Ok(result as usize);
            }
            let error = last_errno();
            // Older than Linux 5.11, or a filter that does not know the call.
            if error != errno::ENOSYS && error != libc::EPERM {
                return Err(error);
            }
            self.pwait2.set(false);
        }
        // Rounded up: a wait that is cut to 0 ms would spin until the timer is due.
        let millis = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: as above.
        let result = unsafe { libc::epoll_wait(raw, events.as_mut_ptr(), len, millis) };
        if result >= 0 { Ok(result as usize) } else { Err(last_errno()) }
    }

    pub(crate) fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
        for _ in 0..self.listed.len() {
            let Some(index) = self.listed.pop() else { break };
            let Some(entry) = core.fds.get(index) else { continue };
            entry.unset(flags::LISTED);
            self.run(core, index, entry, on);
        }
        while self.dispatched.get() < self.filled.get() {
            let at = self.dispatched.get();
            self.dispatched.set(at + 1);
            // SAFETY: one thread; the event is copied and the reference ends before user code runs.
            let event = unsafe { (&*self.events.get())[at] };
            let (bits, data) = (event.events, event.u64);
            if data == WAKE {
                core.shared.wake.drain();
                continue;
            }
            let id = OpId::from_user_data(data);
            let fd = Fd { index: id.index(), generation: id.generation() };
            let Some(entry) = core.fds.find(fd).or_else(|| closing(core, fd)) else {
                core.counters().stale.add(1);
                continue;
            };
            entry.flags.set(entry.flags.get() | ready(bits));
            let unfinished = Unfinished { room: self, index: id.index(), entry };
            self.run_plain(core, entry, on);
            if !entry.writers.is_empty()
                || (entry.has(flags::READABLE) && !entry.readers.is_empty())
            {
                self.run(core, id.index(), entry, on);
            }
            std::mem::forget(unfinished);
        }
    }

    /// Tries what is parked on a descriptor as far as its readiness goes.
    ///
    /// User code runs whenever an operation ends. It may cancel what is parked, which empties the queues,
    /// and close the descriptor, whose entry stays as it is until the driver has finished this tick.
    #[inline(never)]
    fn run(&self, core: &Core, index: u32, entry: &Entry, on: &mut impl OnCompletion) {
        let unfinished = Unfinished { room: self, index, entry };
        self.run_one_way(core, index, entry, Direction::In, on);
        self.run_one_way(core, index, entry, Direction::Out, on);
        std::mem::forget(unfinished);
    }

    #[inline(always)]
    fn run_one_way(
        &self,
        core: &Core,
        index: u32,
        entry: &Entry,
        direction: Direction,
        on: &mut impl OnCompletion,
    ) {
        let queue = direction.queue(entry);
        let mut share = SHARE;
        while let Some(slot) = queue.first(&core.arena) {
            if !entry.has(direction.ready()) {
                break;
            }
            core.counters().completions.add(1);
            // The kinds that nearly all are, compiled into this loop.
            let attempt = match (direction, slot.kind.get()) {
                (Direction::In, Kind::Recv) => {
                    attempt_of(Kind::Recv, core, slot, entry.raw.get(), None)
                }
                (Direction::In, Kind::RecvPooled) => {
                    attempt_of(Kind::RecvPooled, core, slot, entry.raw.get(), None)
                }
                _ => attempt(core, slot, entry.raw.get(), None),
            };
            match attempt {
                Attempt::Done(result) => {
                    // Its owner, asked for its memory, may have closed the descriptor.
                    if slot.has(bits::LINKED) {
                        queue.pop(&core.arena);
                    }
                    let next = queue.first(&core.arena).filter(|_| mutant!("libxev-234"));
                    core.finish_now(slot, result, on);
                    // libxev #234: it was parked when the batch began, and may have ended since.
                    if let Some(next) = next.filter(|next| !next.has(bits::LINKED)) {
                        core.finish_now(next, 0, on);
                    }
                }
                Attempt::Drained(result) => {
                    forget_readable(entry);
                    queue.pop(&core.arena);
                    core.finish_now(slot, result, on);
                }
                Attempt::Again => entry.unset(direction.ready()),
                Attempt::NoBuffer => {
                    queue.pop(&core.arena);
                    core.stall(slot);
                }
                Attempt::Yield(item) => {
                    core.yielded(slot, item, on);
                    share -= 1;
                    if share == 0 {
                        if !mutant!("share-not-listed") {
                            self.list(index, entry);
                        }
                        break;
                    }
                }
            }
        }
    }

    fn list(&self, index: u32, entry: &Entry) {
        if !entry.has(flags::LISTED) {
            entry.set(flags::LISTED);
            self.listed.push(index);
        }
    }

    #[inline(always)]
    fn begin(
        &self,
        core: &Core,
        slot: &Slot,
        entry: &Entry,
        direction: Direction,
        attempt: impl FnOnce(&Core, &Slot, RawDescriptor) -> Attempt,
    ) {
        if !entry.has(direction.ready()) || !direction.queue(entry).is_empty() {
            return self.park(core, slot, entry, direction);
        }
        match attempt(core, slot, entry.raw.get()) {
            Attempt::Done(result) if result >= 0 => {
                core.counters().completions.add(1);
                let _ = core.finish(slot, result);
            }
            attempt => self.tried(core, slot, entry, direction, attempt),
        }
    }

    /// Begins an operation of any kind.
    #[inline(never)]
    fn begin_any(
        &self,
        core: &Core,
        slot: &Slot,
        entry: &Entry,
        direction: Direction,
        memory: Option<Memory>,
    ) {
        self.begin(core, slot, entry, direction, |core, slot, raw| {
            attempt(core, slot, raw, memory)
        });
    }

    #[inline(never)]
    fn tried(&self, core: &Core, slot: &Slot, entry: &Entry, direction: Direction, first: Attempt) {
        match first {
            Attempt::Done(result) => {
                core.counters().completions.add(1);
                let _ = core.finish(slot, result);
            }
            Attempt::Drained(result) => {
                forget_readable(entry);
                core.counters().completions.add(1);
                let _ = core.finish(slot, result);
            }
            Attempt::Again => {
                entry.unset(direction.ready());
                self.park(core, slot, entry, direction);
            }
            Attempt::NoBuffer if mutant!("ioxide-93") => {
                let _ = core.finish(slot, -libc::ENOBUFS);
            }
            Attempt::NoBuffer => core.stall(slot),
            Attempt::Yield(item) => {
                core.yielded_later(slot, item);
                self.park(core, slot, entry, direction);
                if slot.has(bits::LINKED) && !mutant!("share-not-listed") {
                    // The rest at the next tick, in turn with the others.
                    self.list(slot.fd.get(), entry);
                }
            }
        }
    }

    /// Puts an operation into the queue of its direction. The registration reports an edge if the
    /// descriptor became ready since it was tried.
    #[inline(always)]
    fn park(&self, core: &Core, slot: &Slot, entry: &Entry, direction: Direction) {
        if !entry.has(flags::REGISTERED)
            && let Err(error) = self.register(core, slot.fd.get(), entry)
        {
            let _ = core.finish(slot, -error.raw_os_error().unwrap_or(libc::EIO));
            return;
        }
        direction.queue(entry).push(&core.arena, slot);
    }

    #[cold]
    fn register(&self, core: &Core, index: u32, entry: &Entry) -> io::Result<()> {
        let both = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let data = u64::from(entry.named()) << 32 | u64::from(index);
        core.counters().registrations.add(1);
        self.control(libc::EPOLL_CTL_ADD, entry.raw.get(), both, data)?;
        entry.set(flags::REGISTERED);
        Ok(())
    }

    fn connect(&self, core: &Core, slot: &Slot, entry: &Entry) {
        match attempt(core, slot, entry.raw.get(), None) {
            Attempt::Done(result) => {
                let _ = core.finish(slot, result);
            }
            _ => {
                // From now on "already connected" is this operation's success.
                slot.set(bits::POLLING);
                entry.unset(flags::WRITABLE);
                self.park(core, slot, entry, Direction::Out);
            }
        }
    }

    fn file_job(
        &self,
        core: &Core,
        slot: &Slot,
        entry: &Entry,
        memory: Memory,
        offset: u64,
        write: bool,
    ) {
        let (raw, memory) = (entry.raw.get(), ForThread(memory));
        let call = move || {
            // As a whole, so that the closure takes the wrapper and not the pointer in it.
            let ForThread(memory) = { memory };
            loop {
                // SAFETY: the slot that owns the memory and keeps the descriptor open stays busy until
                // this call's result has come back to the driver, or is leaked.
                let result = unsafe {
                    if write {
                        calls::pwrite(raw, memory.ptr, memory.len, offset)
                    } else {
                        calls::pread(raw, memory.ptr, memory.len, offset)
                    }
                };
                if result != -errno::EINTR {
                    return result;
                }
            }
        };
        self.pool_job(core, slot, Box::new(call));
    }

    fn sync(&self, core: &Core, slot: &Slot, entry: &Entry, data_only: bool) {
        let raw = entry.raw.get();
        let call = move || {
            loop {
                // The slot keeps the descriptor open until the result is home.
                let result = calls::fsync(raw, data_only);
                if result != -errno::EINTR {
                    return result;
                }
            }
        };
        self.pool_job(core, slot, Box::new(call));
    }

    /// Has the blocking pool make a call. The slot stays in flight until its result has come home.
    fn pool_job(&self, core: &Core, slot: &Slot, call: Box<dyn FnOnce() -> i32 + Send>) {
        core.counters().blocking_jobs.add(1);
        let job = FileJob { call, user_data: core.arena.id(slot).user_data() };
        let home = Notifier { shared: core.shared.clone() };
        if !blocking::submit(job, core.replies.clone(), home) {
            let _ = core.finish(slot, -libc::EAGAIN);
        }
    }
}

/// The flags that an event sets.
#[inline(always)]
fn ready(bits: u32) -> u16 {
    const IN: u32 = libc::EPOLLIN as u32;
    const OUT: u32 = libc::EPOLLOUT as u32;
    const _: () = assert!(IN << 3 == flags::READABLE as u32 && OUT << 2 == flags::WRITABLE as u32);
    let usual = ((bits & IN) << 3 | (bits & OUT) << 2) as u16;
    if bits & !(IN | OUT) == 0 { usual } else { usual | unusual(bits) }
}

#[cold]
fn unusual(bits: u32) -> u16 {
    let has = |what: i32| bits & what as u32 != 0;
    let mut set = 0;
    if has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) {
        set |= flags::READABLE | flags::HUNG_UP;
    }
    if has(libc::EPOLLHUP | libc::EPOLLERR) {
        set |= flags::WRITABLE;
    }
    set
}

/// The entry of a descriptor that is closing, with operations in flight: they have named it as events do.
#[cold]
fn closing(core: &Core, fd: Fd) -> Option<&Entry> {
    core.fds.get(fd.index).filter(|entry| entry.named() == fd.generation && entry.has(flags::OPEN))
}

/// A descriptor whose queues are being tried: where user code panics they go on at the next tick,
/// because no further edge comes for what is ready already.
struct Unfinished<'a> {
    room: &'a Epoll,
    index: u32,
    entry: &'a Entry,
}

impl Drop for Unfinished<'_> {
    #[cold]
    fn drop(&mut self) {
        self.room.list(self.index, self.entry);
    }
}

/// Memory of an operation in flight, on its way to a thread of the pool.
struct ForThread(Memory);

// SAFETY: the memory is the kernel's, as far as the driver is concerned, until the job's result has come
// home: the thread that runs the job is the only one that touches it.
unsafe impl Send for ForThread {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl Direction {
    fn of(slot: &Slot) -> Direction {
        match slot.kind.get() {
            Kind::Send | Kind::SendVectored | Kind::SendMsg | Kind::Connect => Direction::Out,
            Kind::Poll | Kind::Own if slot.progress.get() != 0 => Direction::Out,
            _ => Direction::In,
        }
    }

    #[inline(always)]
    fn queue(self, entry: &Entry) -> &Parked {
        match self {
            Direction::In => &entry.readers,
            Direction::Out => &entry.writers,
        }
    }

    #[inline(always)]
    fn ready(self) -> u16 {
        match self {
            Direction::In => flags::READABLE,
            Direction::Out => flags::WRITABLE,
        }
    }
}

/// A stream that filled less than the buffer is empty: the next receive need not find that out.
#[inline(always)]
fn forget_readable(entry: &Entry) {
    let forgets = mutant!("hangup-forgotten") && entry.has(flags::STREAM);
    if entry.flags.get() & (flags::STREAM | flags::HUNG_UP) == flags::STREAM || forgets {
        entry.unset(flags::READABLE);
    }
}

fn create(simulated: bool) -> io::Result<OwnedDescriptor> {
    if simulated {
        return calls::epoll_create_simulated();
    }
    use rustix::event::epoll;
    match epoll::create(epoll::CreateFlags::CLOEXEC) {
        Ok(epoll) => Ok(epoll.into()),
        Err(rustix::io::Errno::NOSYS) => {
            // SAFETY: a plain argument, which must not be 0.
            let raw = check(unsafe { libc::epoll_create(1) as isize });
            if raw < 0 {
                return Err(io::Error::from_raw_os_error(-raw));
            }
            // SAFETY: the kernel has just made it for us.
            let epoll = unsafe { OwnedFd::from_raw_fd(raw) };
            rustix::io::fcntl_setfd(&epoll, rustix::io::FdFlags::CLOEXEC)?;
            Ok(epoll.into())
        }
        Err(error) => Err(error.into()),
    }
}
