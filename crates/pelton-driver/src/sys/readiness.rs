//! The rooms of readiness, epoll and kqueue: try first, wait for an edge.
//!
//! # Who knows what, and when
//!
//! - A descriptor is registered once for edges, when an operation on it first has to wait (epoll: for both
//!   directions; kqueue: for each by itself), and stays registered until it is closed. No operation costs a
//!   call to register.
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

use std::io;
use std::time::Duration;

use super::attempt::{Attempt, attempt, attempt_of, interest_arg, shutdown_arg};
use super::unix::{NO_DESCRIPTOR, errno};
use super::{Ticks, calls};
use crate::blocking::{self, FileJob};
use crate::config::Error;
use crate::core::{Core, Distance, Fifo, OnCompletion};
use crate::descriptor::{Entry, Fd, flags};
use crate::notify::Notifier;
use crate::op::{Form, Kind, Op};
use crate::parked::Parked;
use crate::payload::Memory;
use crate::prefetch::{FEW, prefetch};
use crate::slot::{OpId, Slot, State, Token, bits};

mod sendfile;
mod usual;

/// The event data of the wake source: no table entry has this number.
pub(crate) const WAKE: u64 = u64::MAX;
/// How many items one multishot operation may yield before others have their turn.
const SHARE: usize = 16;
/// For how many events at a time memory is asked for before it is needed: few enough that what has come is still there
/// when it is used.
const AHEAD: usize = 16;

/// What a room of readiness asks its kernel.
pub(crate) trait Poller {
    /// What an event tells, as the kernel has it.
    type Bits;

    /// True where a registration outlives the descriptor's close as long as there are duplicates of it.
    const OUTLIVES_CLOSE: bool;

    /// The flag of a descriptor that says that it is watched in this direction.
    fn watched(direction: Direction) -> u16;

    fn is_simulated(&self) -> bool;

    /// Watches the driver's wake source.
    fn prepare(&self, core: &Core) -> Result<(), Error>;

    /// Watches a descriptor for edges, and sets the flag that says so. One that is there already is an edge.
    fn register(
        &self,
        core: &Core,
        index: u32,
        entry: &Entry,
        direction: Direction,
    ) -> io::Result<()>;

    /// Watches a descriptor no more, which stays open.
    fn forget(&self, core: &Core, entry: &Entry);

    /// True when there are events that have not been taken.
    fn has_events(&self) -> bool;

    /// Waits for events, unless there are some that have not been taken. Tells of each descriptor that it cannot
    /// watch although [`Poller::register`] has said so, with a positive `errno`.
    fn wait(
        &self,
        core: &Core,
        timeout: Option<Duration>,
        refused: impl FnMut(Fd, Direction, i32),
    ) -> io::Result<()>;

    /// How many events have not been taken.
    fn left(&self) -> usize {
        0
    }

    /// The numbers of the entries that the next events are of; as many as there are, or as there is room for. One that is
    /// of none may say any number.
    fn ahead(&self, into: &mut [u32]) -> usize {
        let _ = into;
        0
    }

    /// The next event: what it carries, and what it tells.
    fn next(&self) -> Option<(u64, Self::Bits)>;

    /// The flags of an entry that an event sets.
    fn ready(bits: Self::Bits) -> u16;
}

/// The room of a kernel that tells of readiness.
pub(crate) struct Readiness<P> {
    /// Descriptors that may still be ready and have operations left to try.
    listed: Fifo<u32>,
    poller: P,
}

impl<P: Poller> Readiness<P> {
    pub(crate) fn on(poller: P) -> Readiness<P> {
        Readiness { poller, listed: Fifo::new() }
    }

    #[allow(dead_code, reason = "not every poller is asked for more than a room needs")]
    pub(super) fn poller(&self) -> &P {
        &self.poller
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.poller.is_simulated()
    }

    pub(crate) fn prepare(&self, core: &Core) -> Result<(), Error> {
        self.poller.prepare(core)
    }

    /// Starts an operation. True where it has ended.
    #[inline(always)]
    pub(crate) fn start(
        &self,
        core: &Core,
        slot: &Slot,
        _: OpId,
        op: Op,
        entry: &Entry,
        memory: Memory,
    ) -> bool {
        match op {
            // What most receives do when they are made is to wait for an answer: that alone is compiled into whoever
            // submits them.
            Op::Recv { .. } | Op::RecvPooled { .. }
                if !entry.has(flags::READABLE) || !entry.readers.is_empty() =>
            {
                return self.park(core, slot, entry, Direction::In);
            }
            Op::Recv { .. } | Op::RecvPooled { .. } => {
                self.begin_any(core, slot, entry, Direction::In, Some(memory));
            }
            Op::Send { .. } => self.begin_any(core, slot, entry, Direction::Out, Some(memory)),
            Op::RecvVectored { .. } | Op::RecvMsg { .. } | Op::Accept { .. } => {
                self.begin_any(core, slot, entry, Direction::In, Some(memory));
            }
            Op::AcceptMulti { .. } | Op::RecvMulti { .. } => {
                self.begin_any(core, slot, entry, Direction::In, None);
            }
            Op::Read { .. } => self.begin_any(core, slot, entry, Direction::In, Some(memory)),
            Op::SendVectored { .. } | Op::SendMsg { .. } | Op::Write { .. } => {
                self.begin_any(core, slot, entry, Direction::Out, Some(memory));
            }
            Op::SendFile { .. } => self.begin_any(core, slot, entry, Direction::Out, None),
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
            Op::ConnectPipe { .. } => {
                let _ = core.finish(slot, -errno::EOPNOTSUPP);
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
        slot.state.get() == State::Done
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
        if P::OUTLIVES_CLOSE && entry.has(flags::FOREIGN) {
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
        self.poller.forget(core, entry);
    }

    /// A descriptor cannot be watched: what waits for that ends with the kernel's error, and the next one that
    /// has to wait asks again.
    #[cold]
    fn refused(&self, core: &Core, fd: Fd, direction: Direction, errno: i32) {
        let Some(entry) = named(core, fd) else { return };
        entry.unset(P::watched(direction));
        while let Some(slot) = direction.queue(entry).pop(&core.arena) {
            core.finish_later(slot, -errno);
        }
    }

    /// Goes on with the descriptors that have had their share of the tick before.
    #[cold]
    #[inline(never)]
    fn reap_listed(&self, core: &Core, on: &mut impl OnCompletion) {
        for _ in 0..self.listed.len() {
            let Some(index) = self.listed.pop() else { break };
            let Some(entry) = core.fds.get(index) else { continue };
            entry.unset(flags::LISTED);
            self.run(core, index, entry, on);
        }
    }

    /// Takes events until there are few left, and looks ahead.
    #[inline(never)]
    fn reap_many(&self, core: &Core, on: &mut impl OnCompletion) {
        while self.poller.left() >= FEW {
            self.look_ahead(core, on);
            for _ in 0..AHEAD {
                let Some((data, bits)) = self.poller.next() else { break };
                self.dispatch(core, data, bits, on);
            }
        }
    }

    #[inline(always)]
    fn dispatch(&self, core: &Core, data: u64, bits: P::Bits, on: &mut impl OnCompletion) {
        if data == WAKE {
            core.shared.wake.drain();
            return;
        }
        let id = OpId::from_user_data(data);
        let fd = Fd { index: id.index(), generation: id.generation() };
        let Some(entry) = named(core, fd) else {
            return core.count_stale();
        };
        entry.flags.set(entry.flags.get() | P::ready(bits));
        let unfinished = Unfinished { room: self, index: id.index(), entry };
        self.run_plain(core, entry, on);
        if !entry.writers.is_empty() || (entry.has(flags::READABLE) && !entry.readers.is_empty()) {
            self.run(core, id.index(), entry, on);
        }
        std::mem::forget(unfinished);
    }

    /// Asks for the memory that the next events will need, in steps: where each leads to is found in what the one
    /// before has asked for.
    #[inline(always)]
    fn look_ahead(&self, core: &Core, on: &mut impl OnCompletion) {
        let mut entries = [0; AHEAD];
        let found = self.poller.ahead(&mut entries);
        let entries = &entries[..found];
        for &entry in entries {
            prefetch(core.fds.place(entry));
        }
        let (mut slots, mut found) = ([None; AHEAD], 0);
        for &entry in entries {
            if let Some(entry) = core.fds.get(entry)
                && let Some(slot) = core.arena.get(entry.readers.last())
            {
                prefetch(slot);
                slots[found] = Some(slot);
                found += 1;
            }
        }
        for distance in [Distance::Far, Distance::Near] {
            for slot in slots[..found].iter().flatten() {
                // In flight, so that the token is whom to tell.
                if slot.state.get() == State::Busy {
                    on.comes(Token(slot.token.get()), distance);
                }
            }
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
                Attempt::Away => {
                    queue.pop(&core.arena);
                    self.send_from_file(core, slot, entry);
                    if slot.state.get() == State::Done {
                        core.announce(slot);
                    }
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
        if !entry.has(direction.ready()) || !direction.queue(entry).is_empty() {
            let _ = self.park(core, slot, entry, direction);
            return;
        }
        let first = attempt(core, slot, entry.raw.get(), memory);
        self.tried(core, slot, entry, direction, first);
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
                let _ = self.park(core, slot, entry, direction);
            }
            Attempt::Away => self.send_from_file(core, slot, entry),
            Attempt::NoBuffer if mutant!("ioxide-93") => {
                let _ = core.finish(slot, -libc::ENOBUFS);
            }
            Attempt::NoBuffer => core.stall(slot),
            Attempt::Yield(item) => {
                core.yielded_later(slot, item);
                let _ = self.park(core, slot, entry, direction);
                if slot.has(bits::LINKED) && !mutant!("share-not-listed") {
                    // The rest at the next tick, in turn with the others.
                    self.list(slot.fd.get(), entry);
                }
            }
        }
    }

    /// Puts an operation into the queue of its direction. The registration reports an edge if the
    /// descriptor became ready since it was tried. True where it cannot be made, and has ended the operation.
    #[inline(always)]
    fn park(&self, core: &Core, slot: &Slot, entry: &Entry, direction: Direction) -> bool {
        if !entry.has(P::watched(direction)) && self.cannot_watch(core, slot, entry, direction) {
            return true;
        }
        direction.queue(entry).push(&core.arena, slot);
        false
    }

    /// Registers a descriptor. True where that cannot be, and has ended the operation.
    #[cold]
    #[inline(never)]
    fn cannot_watch(&self, core: &Core, slot: &Slot, entry: &Entry, direction: Direction) -> bool {
        match self.poller.register(core, slot.fd.get(), entry, direction) {
            Ok(()) => false,
            Err(error) => {
                let _ = core.finish(slot, -error.raw_os_error().unwrap_or(libc::EIO));
                true
            }
        }
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
                let _ = self.park(core, slot, entry, Direction::Out);
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

impl<P: Poller> Ticks for Readiness<P> {
    #[inline(always)]
    fn has_work(&self) -> bool {
        self.listed.len() > 0 || self.poller.has_events()
    }

    #[inline(always)]
    fn wait(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        self.poller.wait(core, timeout, |fd, direction, errno| {
            self.refused(core, fd, direction, errno);
        })
    }

    #[inline(always)]
    fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
        if self.listed.len() > 0 {
            self.reap_listed(core, on);
        }
        if core.is_crowded() {
            self.reap_many(core, on);
        }
        while let Some((data, bits)) = self.poller.next() {
            self.dispatch(core, data, bits, on);
        }
    }
}

/// The word by which an event names a descriptor.
pub(crate) fn data_of(index: u32, entry: &Entry) -> u64 {
    u64::from(entry.named()) << 32 | u64::from(index)
}

/// The entry of a descriptor that an event names, unless it has been closed.
#[inline(always)]
pub(crate) fn named(core: &Core, fd: Fd) -> Option<&Entry> {
    core.fds.find(fd).or_else(|| closing(core, fd))
}

/// The entry of a descriptor that is closing, with operations in flight: they have named it as events do.
#[cold]
fn closing(core: &Core, fd: Fd) -> Option<&Entry> {
    core.fds.get(fd.index).filter(|entry| entry.named() == fd.generation && entry.has(flags::OPEN))
}

/// A descriptor whose queues are being tried: where user code panics they go on at the next tick,
/// because no further edge comes for what is ready already.
struct Unfinished<'a, P: Poller> {
    room: &'a Readiness<P>,
    index: u32,
    entry: &'a Entry,
}

impl<P: Poller> Drop for Unfinished<'_, P> {
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

/// What is waited for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Something to receive, or to accept.
    In,
    /// Room to send, or the end of a connect.
    Out,
}

impl Direction {
    fn of(slot: &Slot) -> Direction {
        match slot.kind.get() {
            Kind::Send
            | Kind::SendVectored
            | Kind::SendMsg
            | Kind::SendFile
            | Kind::Write
            | Kind::Connect => Direction::Out,
            Kind::Poll | Kind::Own if slot.progress.get() != 0 => Direction::Out,
            _ => Direction::In,
        }
    }

    #[inline(always)]
    pub(crate) fn queue(self, entry: &Entry) -> &Parked {
        match self {
            Direction::In => &entry.readers,
            Direction::Out => &entry.writers,
        }
    }

    #[inline(always)]
    pub(crate) fn ready(self) -> u16 {
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
