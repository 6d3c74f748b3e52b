//! The room of Windows: overlapped calls on a completion port.
//!
//! # Who knows what, and when
//!
//! - Every call that posts a packet has a place where the kernel writes how it went, and the packet carries the
//!   address of that place: the slot's own home (`home.rs`), the record of one of several accepts
//!   (`accept.rs`), or that of a socket's poll (`afd.rs`). How it went is read there and never from the packet.
//! - A call that has succeeded at once posts a packet too, unless its handle skips that, which only sockets of
//!   Pelton's own do. One function says which of them it is (`Began::of`), and each call is answered once.
//! - A descriptor is associated with the port when its first operation begins, and for good.
//! - A cancel asks the kernel for the end of one call, by its place. The operation ends with its packet.
//! - What receives into pooled buffers waits for bytes without one: by a receive of nothing on a stream, by a
//!   poll on other sockets.
//! - An operation that waits for readiness is in the queue of its direction in the descriptors' table, as in the
//!   rooms of readiness.

mod accept;
mod accepting;
mod afd;
mod associating;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/device.rs")]
mod device;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/extension.rs")]
mod extension;
mod file;
mod home;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/messages.rs")]
mod messages;
mod of_room;
mod owed;
mod own;
mod pipe;
mod port;
mod readiness;
mod region;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/sendfile.rs")]
mod sendfile;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/sharing.rs")]
mod sharing;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/signals.rs")]
mod signals;
mod stream;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/mod.rs")]
mod win32;

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use windows_sys::Win32::Networking::WinSock::WSABUF;

use accept::Aheads;
use afd::Polls;
use extension::Extensions;
use home::{Home, Stage};
use port::{Batch, Packet};
use region::Region;
use win32::{Buffers, WSARecv, WSASend};

pub(crate) use of_room::OfRoom;

use super::numbers as errno;
use super::status::{self, Began, Status};
use super::windows;
use super::windows::calls::{self, socket_error};
use super::windows::{KEY_ROOM, KEY_WAKE, RawDescriptor, buffer, raw_of};
use super::{NO_DESCRIPTOR, Try, WakeSource};
use crate::config::{Config, Error};
use crate::core::{Core, Fifo, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::{Interest, Kind, Op};
use crate::payload::{self, Item, MAX_TRANSFER, Memory};
use crate::scratch::MAX_PARTS;
use crate::slot::{OpId, Slot, State, bits};

/// The most bytes of a send that are the kernel's at once.
const MOST_HELD: u32 = 1 << 20;
/// How many items one multishot operation may yield before others have their turn.
const SHARE: usize = 16;
/// The most accepts of one driver that are in the kernel at once.
const MOST_AHEAD: u32 = 1 << 16;

pub(crate) struct Iocp {
    homes: Region<Home>,
    aheads: Aheads,
    polls: Polls,
    batch: Batch,
    extensions: Extensions,
    /// Operations that go on at the next tick.
    listed: Fifo<OpId>,
    /// Room for the names of those that a poll has told of.
    told: Cell<Vec<OpId>>,
    /// What was given back to the user, and still has its packets come here.
    given_back: associating::GivenBack,
    /// The listeners that this driver shares with others.
    shared: sharing::Shared,
    /// What waits for handles that are no sockets.
    signals: signals::Signals,
}

/// How far a step of an operation has led.
enum Step {
    /// A call is in the kernel: its packet goes on.
    Posted,
    /// It has ended, with this result.
    Done(i32),
    /// There may be something to receive, but no pooled buffer to receive into.
    NoBuffer,
    /// It waits until its descriptor is readable.
    Wait,
    /// It has yielded this, and there may be more.
    Yield(Item),
}

impl Iocp {
    pub(crate) fn new(config: &Config) -> Result<Iocp, Error> {
        if !config.batch_wait.is_zero() {
            return Err(Error::Unsupported {
                backend: crate::config::Backend::Iocp,
                reason: "`batch_wait` needs io_uring: leave it at zero".into(),
            });
        }
        let no_memory = |what| Error::Os { what, error: io::ErrorKind::OutOfMemory.into() };
        let homes = || no_memory("memory for operations (lower `max_operations`)");
        let sockets = || no_memory("memory for sockets (lower `max_descriptors`)");
        Ok(Iocp {
            homes: Region::new(config.max_operations).ok_or_else(homes)?,
            aheads: Aheads::new(MOST_AHEAD).ok_or_else(sockets)?,
            // A record may outlive its socket until its packet has come.
            polls: Polls::new(config.max_descriptors.saturating_mul(2)).ok_or_else(sockets)?,
            batch: Batch::new(),
            extensions: extension::get()
                .map_err(|error| Error::Os { what: "Winsock and its extensions", error })?,
            listed: Fifo::new(),
            told: Cell::new(Vec::new()),
            given_back: associating::GivenBack::default(),
            shared: sharing::Shared::default(),
            signals: signals::Signals::default(),
        })
    }

    pub(crate) fn is_simulated(&self) -> bool {
        cfg!(pelton_iocp_elsewhere)
    }

    /// The port is what other threads wake.
    pub(crate) fn wake_source(&self) -> io::Result<WakeSource> {
        WakeSource::port_of()
    }

    pub(crate) fn prepare(&self, _: &Core) -> Result<(), Error> {
        // The port is there already: it is what other threads wake.
        Ok(())
    }

    pub(crate) fn start(
        &self,
        core: &Core,
        slot: &Slot,
        _: OpId,
        op: Op,
        entry: &Entry,
        memory: Memory,
    ) {
        let Some(home) = self.homes.get_or_grow(core.arena.index(slot)) else {
            let _ = core.finish(slot, -errno::ENOBUFS);
            return;
        };
        if let Op::Own { form, .. } = op {
            // Its call may be in the kernel already.
            return self.start_own(core, slot, home, entry, form);
        }
        home.take_back();
        match op {
            Op::Recv { .. }
            | Op::RecvPooled { .. }
            | Op::RecvMulti { .. }
            | Op::RecvVectored { .. }
            | Op::RecvMsg { .. }
            | Op::Send { .. }
            | Op::SendVectored { .. }
            | Op::SendMsg { .. } => self.begin(core, slot, home, entry, Some(memory)),
            Op::Accept { .. } | Op::AcceptMulti { .. } => self.accept(core, slot, home, entry),
            Op::Connect { .. } => self.connect(core, slot, home, entry),
            Op::SendFile { .. } => self.begin_send_file(core, slot, home, entry),
            Op::Read { message, .. } => {
                slot.progress.set(if message { payload::WANTS_MESSAGE } else { 0 });
                self.begin_pipe(core, slot, home, entry, Some(memory));
            }
            Op::Write { .. } => self.begin_pipe(core, slot, home, entry, Some(memory)),
            Op::ConnectPipe { .. } => self.begin_pipe(core, slot, home, entry, None),
            Op::Poll { interest, .. } => {
                let raw = raw_of(entry);
                slot.progress.set(u32::from(interest == Interest::Writable));
                if windows::pipe::is_pipe(raw) {
                    self.begin_pipe(core, slot, home, entry, None);
                } else if raw.socket().is_none() {
                    self.await_signal(core, slot, home, raw, interest);
                } else {
                    self.park(core, slot, entry);
                }
            }
            Op::ReadAt { offset, .. } => {
                self.transfer(core, slot, home, entry, memory, (offset, false));
            }
            Op::WriteAt { offset, .. } => {
                self.transfer(core, slot, home, entry, memory, (offset, true));
            }
            Op::Sync { .. } => match raw_of(entry) {
                RawDescriptor::Socket(_) => {
                    let _ = core.finish(slot, -errno::EINVAL);
                }
                raw => file::sync(core, slot, raw),
            },
            Op::Shutdown { how, .. } => {
                let result = calls::shutdown(raw_of(entry), how);
                let fd = slot.fd.get();
                let _ = core.finish(slot, result);
                if result == 0 {
                    self.shut(core, fd, entry, how);
                }
            }
            Op::Own { .. } => unreachable!("it has begun"),
            Op::Nop
            | Op::Close { .. }
            | Op::Timeout { .. }
            | Op::Cancel { .. }
            | Op::CancelFd { .. }
            | Op::Wake => unreachable!("the driver itself answers {op:?}"),
        }
    }

    pub(crate) fn restart(&self, core: &Core, slot: &Slot) {
        let (Some(entry), Some(home)) = (core.entry_of(slot), self.home_of(core, slot)) else {
            return;
        };
        self.begin(core, slot, home, entry, None);
        if slot.state.get() == State::Done {
            core.announce(slot);
        }
    }

    /// Sends on a socket on which no older send waits, without a slot. What is refused, or has to wait, is for
    /// [`Iocp::start`].
    #[inline]
    pub(crate) fn try_send(&self, core: &Core, entry: &Entry, bytes: &[u8], all: bool) -> Try {
        let Some(socket) = raw_of(entry).socket() else { return Try::Begun(0) };
        if entry.of_room.sends.get() > 0 || bytes.len() > MAX_TRANSFER {
            return Try::Begun(0);
        }
        // SAFETY: the entry is open, and nothing else runs meanwhile.
        let result = unsafe { calls::send(socket, bytes) };
        if result >= 0 {
            if all && (result as usize) < bytes.len() {
                return Try::Begun(result as u32);
            }
            core.counters().at_once(Kind::Send);
            return Try::Sent(result as usize);
        }
        match -result {
            errno::EAGAIN | errno::EINTR => Try::Begun(0),
            error => {
                core.counters().at_once(Kind::Send);
                if !entry.has(flags::STREAM) {
                    return Try::Failed(-messages::message_sent(entry, error, 0));
                }
                let result = -status::of_send(error);
                Try::Failed(-status::of_reset(result, true, &entry.of_room.reset_told))
            }
        }
    }

    pub(crate) fn cancel(&self, core: &Core, slot: &Slot) {
        let (Some(entry), Some(home)) = (core.entry_of(slot), self.home_of(core, slot)) else {
            return;
        };
        if slot.has(bits::LINKED) {
            if entry.readers.remove(&core.arena, slot) || entry.writers.remove(&core.arena, slot) {
                core.finish_later(slot, core.cancelled(slot));
            }
            return;
        }
        match home.stage.get() {
            Stage::InKernel if awaits_signal(slot, entry) => {
                self.cancel_signal(core, slot, home);
            }
            Stage::InKernel => self.cancel_call(core, slot, home, entry),
            Stage::Listed if home.ahead.get() == 0 => {
                home.take_back();
                core.finish_later(slot, core.cancelled(slot));
            }
            // With the blocking pool, in the middle of its own dispatch, or an accept.
            _ if is_accept(slot) => self.cancel_accepts(home, entry),
            _ => {}
        }
    }

    /// Asks for the end of a call in the kernel, which ends by its packet, whatever the answer.
    fn cancel_call(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) {
        let found = port::cancel(raw_of(entry).handle(), home.overlapped());
        if mutant!("iocp-freed-when-not-found") && !found {
            home.take_back();
            core.finish_later(slot, core.cancelled(slot));
        }
    }

    /// A direction of a socket has been shut down: receives that wait see the end of the stream, which the system
    /// does not tell them.
    pub(crate) fn shut(&self, core: &Core, fd: u32, entry: &Entry, how: Shutdown) {
        if how == Shutdown::Write {
            return;
        }
        entry.of_room.read_shut.set(true);
        if entry.in_flight() == 0 {
            return;
        }
        for at in 0..core.arena.used() {
            let Some(slot) = core.arena.get(at) else { break };
            let waits = matches!(slot.state.get(), State::Busy | State::Orphan)
                && slot.fd.get() == fd
                && is_receive(slot);
            let Some(home) = self.home_of(core, slot).filter(|_| waits) else { continue };
            if home.stage.get() == Stage::InKernel {
                port::cancel(raw_of(entry).handle(), home.overlapped());
            } else if entry.readers.remove(&core.arena, slot) {
                core.finish_later(slot, 0);
            }
        }
    }

    pub(crate) fn close(&self, core: &Core, entry: &Entry, closer: Option<&Slot>) {
        self.forget_poll(entry);
        self.unshare(entry);
        // SAFETY: the driver owns the descriptor, nothing is in flight on it, and its entry goes now.
        let result = unsafe { calls::close(to_close(entry)) };
        entry.raw.set(NO_DESCRIPTOR);
        core.counters().closes.add(1);
        if let Some(closer) = closer {
            core.finish_later(closer, result);
        }
    }

    pub(crate) fn forget(&self, _: &Core, entry: &Entry) {
        self.forget_poll(entry);
        self.unshare(entry);
        self.give_back(entry);
    }

    #[inline(always)]
    pub(crate) fn has_work(&self) -> bool {
        self.listed.len() > 0 || self.batch.has_left() || !self.aheads.owed.is_empty()
    }

    pub(crate) fn wait(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        if self.batch.has_left() {
            // A callback panicked in the middle of the last batch: its packets come only once.
            return Ok(());
        }
        core.counters().enters.add(1);
        self.batch.wait(core.shared.wake.port(), timeout)
    }

    pub(crate) fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
        for _ in 0..self.listed.len() {
            let Some(id) = self.listed.pop() else { break };
            self.go_on(core, id, on);
        }
        if !self.aheads.owed.is_empty() {
            self.owed(core, on);
        }
        while let Some(packet) = self.batch.next() {
            self.dispatch(core, packet, on);
        }
    }

    /// Accepts that have ended and whose packets could not be posted.
    #[cold]
    fn owed(&self, core: &Core, on: &mut impl OnCompletion) {
        // One by one, so that none is lost where a callback panics.
        while let Some(overlapped) = self.aheads.owed.take() {
            if let Some(number) = self.aheads.find(overlapped) {
                self.accepted(core, number, on);
            }
        }
    }

    /// Before the room is dropped with no operation in flight: polls that were cancelled with their sockets may
    /// still be in the kernel, which writes to their records. What does not come back soon is left behind.
    pub(crate) fn retire(&self, core: &Core) {
        let give_up = crate::sys::calls::now() + Duration::from_secs(1);
        while self.polls.in_kernel() > 0 && crate::sys::calls::now() < give_up {
            if self.wait(core, Some(Duration::from_millis(20))).is_err() {
                break;
            }
            while let Some(packet) = self.batch.next() {
                self.poll_only(packet);
            }
        }
        if self.polls.in_kernel() > 0 {
            core.counters().leaked.add(u64::from(self.polls.in_kernel()));
            self.polls.leak();
        }
    }

    fn poll_only(&self, packet: Packet) {
        if let Some(number) = self.polls.find(packet.overlapped)
            && let Some(poll) = self.polls.get(number)
        {
            let _ = self.polls.ended(poll);
            self.polls.release(number);
        }
    }

    fn dispatch(&self, core: &Core, packet: Packet, on: &mut impl OnCompletion) {
        if packet.key == KEY_WAKE {
            // The driver has cleared its latch already.
            return;
        }
        if packet.key == KEY_ROOM {
            // By where it points to, which is not looked at before it is known to be ours.
            if let Some(index) = self.homes.find(packet.overlapped) {
                return self.completed(core, index, packet, on);
            }
            if let Some(number) = self.aheads.find(packet.overlapped) {
                return self.accepted(core, number, on);
            }
            if let Some(number) = self.polls.find(packet.overlapped) {
                return self.polled(core, number, on);
            }
        }
        // Somebody has posted it who has not been asked to.
        core.counters().stale.add(1);
    }

    /// The packet of a slot's own call has come.
    fn completed(
        &self,
        core: &Core,
        index: u32,
        #[cfg_attr(not(pelton_mutants), allow(unused_variables))] packet: Packet,
        on: &mut impl OnCompletion,
    ) {
        let Some(home) = self.homes.get(index).filter(|home| home.stage.get() == Stage::InKernel)
        else {
            return core.counters().stale.add(1);
        };
        let id = OpId::new(index, home.generation.get());
        let Some(slot) = core.in_flight(id.user_data()) else { return };
        let Some(entry) = core.entry_of(slot) else { return };
        if slot.kind.get() == Kind::Own && slot.has(bits::ASKED) {
            // Whoever makes the call has ticked before saying so.
            return home.stage.set(Stage::Ended);
        }
        core.counters().completions.add(1);
        let (status, bytes) = home.ended();
        #[cfg(pelton_mutants)]
        let status = if mutant!("iocp-status-of-packet") { Status(packet.status) } else { status };
        if awaits_signal(slot, entry) {
            self.signals.over(index);
            return core.finish_now(slot, readiness::POLLIN, on);
        }
        if sends(slot) {
            entry.of_room.sends.set(entry.of_room.sends.get() - 1);
        }
        if slot.kind.get() == Kind::SendFile {
            return self.file_sent(core, slot, home, entry, (status, bytes), on);
        }
        if pipe::is_pipes(slot.kind.get()) {
            return self.pipe_ended(core, slot, home, entry, (status, bytes), on);
        }
        match self.after(core, slot, entry, status, bytes) {
            Some(result) => core.finish_now(slot, told(slot, entry, result), on),
            None => self.run(core, slot, home, entry, on),
        }
    }

    /// What a call that has ended means for its operation: a result, or that it goes on.
    fn after(
        &self,
        core: &Core,
        slot: &Slot,
        entry: &Entry,
        status: Status,
        bytes: usize,
    ) -> Option<i32> {
        let mut error = status.socket_error();
        if error == errno::ECANCELED
            && is_receive(slot)
            && entry.of_room.read_shut.get()
            && !slot.has(bits::CANCELLED)
        {
            error = errno::WSAESHUTDOWN;
        }
        let unwanted = slot.has(bits::CANCELLED) || entry.has(flags::CLOSING);
        match slot.kind.get() {
            Kind::Recv | Kind::RecvVectored => Some(status::of_recv(error, bytes)),
            Kind::RecvPooled | Kind::RecvMulti if error != 0 => Some(status::of_recv(error, 0)),
            // Nothing was received yet: that there is something is all that is known.
            Kind::RecvPooled | Kind::RecvMulti => unwanted.then(|| core.cancelled(slot)),
            Kind::Send | Kind::SendVectored => {
                // Also where it was cancelled in the middle.
                let finished = sent(core, slot, bytes);
                match error {
                    0 if finished => Some(how_much(core, slot)),
                    0 if unwanted => Some(core.cancelled(slot)),
                    0 => None,
                    errno::ECANCELED => Some(core.cancelled(slot)),
                    error => Some(messages::message_sent(entry, error, 0)),
                }
            }
            Kind::SendMsg => Some(messages::message_sent(entry, error, bytes)),
            Kind::Own => Some(own::said(entry, status, bytes)),
            Kind::Connect if error == 0 => Some(match raw_of(entry).socket() {
                Some(socket) => stream::connected(socket),
                None => -errno::ENOTSOCK,
            }),
            Kind::ReadAt => Some(match status::of_file(file_error(status)) {
                // Past what any file system holds, which some call an error.
                errno::EINVAL if slot.offset() >= 1 << 56 => 0,
                error => status::of_read(error, bytes),
            }),
            Kind::WriteAt => Some(match status::of_file(file_error(status)) {
                0 => bytes as i32,
                error => -error,
            }),
            _ => Some(-error),
        }
    }

    /// Begins an operation that receives or sends, in the call that starts it.
    fn begin(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry, memory: Option<Memory>) {
        match self.step(core, slot, home, entry, memory) {
            Step::Posted => {}
            Step::Done(result) => {
                core.counters().completions.add(1);
                let _ = core.finish(slot, told(slot, entry, result));
            }
            Step::NoBuffer => core.stall(slot),
            Step::Wait => self.park(core, slot, entry),
            Step::Yield(item) => {
                // The rest at the next tick, in turn with the others.
                self.list(core, slot, home);
                core.yielded_later(slot, item);
            }
        }
    }

    /// Goes on with an operation in a tick's dispatch, as far as that leads.
    fn run(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        on: &mut impl OnCompletion,
    ) {
        let mut share = SHARE;
        loop {
            match self.step(core, slot, home, entry, None) {
                Step::Posted => return,
                Step::Done(result) => {
                    return core.finish_now(slot, told(slot, entry, result), on);
                }
                Step::NoBuffer => return core.stall(slot),
                Step::Wait => {
                    return self.park_now(core, slot, entry, on);
                }
                Step::Yield(item) => {
                    let unfinished = Unfinished { room: self, core, slot, home };
                    core.yielded(slot, item, on);
                    std::mem::forget(unfinished);
                }
            }
            // The callback may have cancelled it or closed its descriptor, which this operation ends by here:
            // no kernel has it.
            if slot.has(bits::CANCELLED) || entry.has(flags::CLOSING) {
                return core.finish_now(slot, core.cancelled(slot), on);
            }
            share -= 1;
            if share == 0 {
                return self.list(core, slot, home);
            }
        }
    }

    /// Goes on with an operation that was listed, if it is still there.
    fn go_on(&self, core: &Core, id: OpId, on: &mut impl OnCompletion) {
        let Some(slot) = core.arena.find(id) else { return };
        let (Some(home), Some(entry)) = (self.home_of(core, slot), core.entry_of(slot)) else {
            return;
        };
        if home.stage.get() != Stage::Listed {
            return;
        }
        home.take_back();
        let unwanted = slot.has(bits::CANCELLED) || entry.has(flags::CLOSING);
        if unwanted && home.ahead.get() > 0 && is_accept(slot) {
            // The packets of what it has in the kernel end it.
        } else if unwanted {
            core.finish_now(slot, core.cancelled(slot), on);
        } else if is_accept(slot) {
            self.refill(core, slot, home, entry, on);
        } else {
            self.run(core, slot, home, entry, on);
        }
    }

    fn list(&self, core: &Core, slot: &Slot, home: &Home) {
        home.stage.set(Stage::Listed);
        self.listed.push(core.arena.id(slot));
    }

    /// Makes the next call of an operation that receives or sends.
    fn step(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        memory: Option<Memory>,
    ) -> Step {
        let Some(socket) = raw_of(entry).socket() else { return Step::Done(-errno::ENOTSOCK) };
        if slot.kind.get() == Kind::Own {
            return self.attempt(core, slot, entry);
        }
        if let Err(error) = self.associate(core, entry, true) {
            return Step::Done(-error);
        }
        match slot.kind.get() {
            Kind::RecvMsg => return self.receive_message(core, slot, entry, socket),
            Kind::SendMsg => return self.send_message(core, slot, home, entry, socket),
            _ => {}
        }
        let pooled = matches!(slot.kind.get(), Kind::RecvPooled | Kind::RecvMulti);
        if pooled {
            self.receive_pooled(core, slot, home, entry, socket)
        } else if matches!(slot.kind.get(), Kind::Recv | Kind::RecvVectored) {
            self.receive(core, slot, home, entry, socket, memory)
        } else {
            self.send(core, slot, home, entry, socket, memory)
        }
    }

    fn receive(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        socket: usize,
        memory: Option<Memory>,
    ) -> Step {
        let (one, many);
        let (buffers, n, room) = if slot.kind.get() == Kind::RecvVectored {
            let block = core.scratch.get(slot.progress.get());
            // SAFETY: the header stands in the slot's scratch block.
            many = Buffers::of(unsafe { &*block.message() });
            (many.as_ptr(), many.len(), block.bytes())
        } else {
            let Some(memory) = memory.or_else(|| core.memory_again(slot)) else {
                return Step::Done(core.cancelled(slot));
            };
            one = buffer(memory.ptr, memory.len);
            (&raw const one, 1, memory.len)
        };
        if !entry.has(flags::STREAM) {
            // A message that is too long would fail and post all the same: it is tried, and waited for.
            // SAFETY: the memory is the operation's own, nobody else touches it, and the call does not wait.
            return match unsafe { receive_now(socket, buffers, n) } {
                Err(errno::EAGAIN | errno::EINTR) => Step::Wait,
                Err(error) => match messages::heard(socket, error) {
                    Some(error) => Step::Done(status::of_recv(error, room)),
                    None => self.receive(core, slot, home, entry, socket, memory),
                },
                Ok(n) => Step::Done(n as i32),
            };
        }
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        // SAFETY: the slot owns the memory and keeps the socket open until its last completion, which is not
        // before the packet.
        let began = unsafe { stream::recv(home, generation, skips, socket, buffers, n) };
        match began {
            Began::Posts => Step::Posted,
            Began::Ended => {
                let (status, bytes) = home.ended();
                Step::Done(status::of_recv(status.socket_error(), bytes))
            }
            Began::Failed(error) => Step::Done(status::of_recv(error, 0)),
        }
    }

    /// Receives into a buffer of the pool, which is taken when there is something for it.
    fn receive_pooled(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        socket: usize,
    ) -> Step {
        loop {
            let Some(buffer) = core.pool.pick() else { return Step::NoBuffer };
            let (ptr, room) = buffer.rest();
            // SAFETY: the unfilled rest of a pooled buffer that is with this room; an operation in flight keeps
            // its socket open.
            let result = unsafe { calls::recv(socket, ptr, room as usize) };
            let result = match result {
                n if n >= 0 => n,
                error => match -error {
                    errno::EINTR => continue,
                    errno::EAGAIN => match self.await_bytes(slot, home, entry, socket) {
                        Some(step) => return step,
                        None => continue,
                    },
                    error if entry.has(flags::STREAM) => status::of_recv(error, room as usize),
                    error => match messages::heard(socket, error) {
                        Some(error) => status::of_recv(error, room as usize),
                        None => continue,
                    },
                },
            };
            if result <= 0 {
                return Step::Done(result);
            }
            let lease = core.pool.commit(buffer, result as u32);
            if slot.kind.get() == Kind::RecvMulti {
                return Step::Yield(Item::Lease(lease));
            }
            payload::put_lease(slot, lease);
            return Step::Done(result);
        }
    }

    /// Waits for bytes, with no buffer for them. None where they have come meanwhile.
    fn await_bytes(&self, slot: &Slot, home: &Home, entry: &Entry, socket: usize) -> Option<Step> {
        if !entry.has(flags::STREAM) {
            return Some(Step::Wait);
        }
        let nothing = buffer(std::ptr::null_mut(), 0);
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        // SAFETY: there is no memory to write to; the slot keeps the socket open.
        let began = unsafe { stream::recv(home, generation, skips, socket, &nothing, 1) };
        match began {
            Began::Posts => Some(Step::Posted),
            Began::Ended => {
                let (status, _) = home.ended();
                let error = status.socket_error();
                (error != 0).then(|| Step::Done(status::of_recv(error, 0)))
            }
            Began::Failed(error) => Some(Step::Done(status::of_recv(error, 0))),
        }
    }

    /// Sends what may be sent at once, and has the kernel hold a part of the rest.
    ///
    /// Not all of it: what the kernel holds when a send is cancelled it may have sent or not, and a send that is
    /// to send only some must not wait until its peer has taken everything.
    fn send(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        socket: usize,
        memory: Option<Memory>,
    ) -> Step {
        let mut memory = memory;
        // Sockets whose successes post packets are tried without one.
        let mut try_first = !entry.of_room.skips.get() || !slot.has(bits::ALL);
        loop {
            let (one, many);
            let (buffers, n, first) = if slot.kind.get() == Kind::SendVectored {
                // SAFETY: the header stands in the slot's scratch block, and its parts in that too.
                many = Buffers::of(unsafe { &*core.scratch.get(slot.progress.get()).message() });
                (many.as_ptr(), many.len(), buffer(std::ptr::null_mut(), 0))
            } else {
                let Some(memory) = memory.take().or_else(|| core.memory_again(slot)) else {
                    return Step::Done(core.cancelled(slot));
                };
                // Asked again the owner may show less than has been sent already: then nothing is left.
                let sent = (slot.progress.get() as usize).min(memory.len);
                slot.arg.set((memory.len - sent) as u32);
                one = buffer(memory.ptr.wrapping_add(sent), memory.len - sent);
                (&raw const one, 1, one)
            };
            if try_first && entry.of_room.sends.get() == 0 {
                // SAFETY: the memory is the operation's own, and the call does not wait.
                match unsafe { send_now(socket, buffers, n) } {
                    Ok(n) => {
                        if let Some(result) =
                            self.after(core, slot, entry, Status::SUCCESS, n as usize)
                        {
                            return Step::Done(result);
                        }
                        continue;
                    }
                    Err(errno::EINTR) => continue,
                    Err(errno::EAGAIN) => try_first = false,
                    Err(error) => return Step::Done(messages::message_sent(entry, error, 0)),
                }
                // The owner is not asked again for what it has just shown.
                if slot.kind.get() == Kind::Send {
                    let sent = slot.progress.get() as usize;
                    let ptr = first.buf.wrapping_sub(sent);
                    memory = Some(Memory { ptr, len: sent + first.len as usize });
                    continue;
                }
            }
            // SAFETY: as many parts as were said.
            let (held, n) = unsafe { held(buffers, n) };
            let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
            // SAFETY: the slot owns the memory and keeps the socket open until its last completion, which is not
            // before the packet.
            let began = unsafe { stream::send(home, generation, skips, socket, held.as_ptr(), n) };
            match began {
                Began::Posts => {
                    entry.of_room.sends.set(entry.of_room.sends.get() + 1);
                    return Step::Posted;
                }
                Began::Ended => {
                    let (status, bytes) = home.ended();
                    if let Some(result) = self.after(core, slot, entry, status, bytes) {
                        return Step::Done(result);
                    }
                }
                Began::Failed(error) => {
                    return Step::Done(messages::message_sent(entry, error, 0));
                }
            }
        }
    }

    fn connect(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) {
        let block = core.scratch.get(slot.progress.get());
        let Some(socket) = raw_of(entry).socket() else {
            let _ = core.finish(slot, -errno::ENOTSOCK);
            return;
        };
        // SAFETY: the address was written into the block when the operation was submitted.
        let len = unsafe { *block.address_len.get() };
        if !entry.has(flags::STREAM) {
            // SAFETY: as above; the call only says where to send to.
            let result = unsafe { calls::connect(socket, block.address.get(), len) };
            let _ = core.finish(slot, result);
            return;
        }
        if let Err(error) = self.associate(core, entry, true) {
            let _ = core.finish(slot, -error);
            return;
        }
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        let address = block.address.get().cast();
        // SAFETY: the address stands in the slot's block, and the slot keeps the socket open, until its last
        // completion.
        let began = unsafe {
            stream::connect(&self.extensions, home, generation, skips, socket, address, len)
        };
        let result = match began {
            Began::Posts => return,
            Began::Ended => {
                let (status, bytes) = home.ended();
                self.after(core, slot, entry, status, bytes).unwrap_or(0)
            }
            Began::Failed(error) => -error,
        };
        let _ = core.finish(slot, result);
    }

    fn transfer(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        memory: Memory,
        (offset, write): (u64, bool),
    ) {
        slot.set_offset(offset);
        let raw = raw_of(entry);
        if let RawDescriptor::Socket(_) = raw {
            let _ = core.finish(slot, -errno::ESPIPE);
            return;
        }
        if !entry.has(flags::WAITS)
            && let Err(error) = self.associate(core, entry, true)
        {
            if error != errno::EINVAL {
                let _ = core.finish(slot, -error);
                return;
            }
            if !calls::is_file(raw) {
                // A pipe, or whatever else has no places, and whose calls would wait for ever.
                let _ = core.finish(slot, -errno::ESPIPE);
                return;
            }
            // It was not opened for overlapped calls.
            entry.set(flags::WAITS);
        }
        if entry.has(flags::WAITS) {
            return file::transfer_on_pool(core, slot, raw, memory, offset, write);
        }
        let (generation, skips) = (slot.generation.get(), entry.of_room.skips.get());
        // SAFETY: the slot owns the memory and keeps the handle open until its last completion, which is not
        // before the packet.
        let began = unsafe { file::transfer(home, generation, skips, raw, memory, offset, write) };
        let result = match began {
            Began::Posts => return,
            Began::Ended => {
                let (status, bytes) = home.ended();
                self.after(core, slot, entry, status, bytes).unwrap_or(0)
            }
            Began::Failed(error) if write => -status::of_file(error),
            // Past what any file system holds, which some call an error.
            Began::Failed(errno::EINVAL) if offset >= 1 << 56 => 0,
            Began::Failed(error) => status::of_read(status::of_file(error), 0),
        };
        core.counters().completions.add(1);
        let _ = core.finish(slot, result);
    }

    fn home_of(&self, core: &Core, slot: &Slot) -> Option<&Home> {
        self.homes.get(core.arena.index(slot))
    }
}

/// What is told of the end of an operation that receives or sends on a stream.
fn told(slot: &Slot, entry: &Entry, result: i32) -> i32 {
    if entry.has(flags::STREAM) && (sends(slot) || is_receive(slot)) {
        status::of_reset(result, sends(slot), &entry.of_room.reset_told)
    } else {
        result
    }
}

fn is_receive(slot: &Slot) -> bool {
    use Kind::{Recv, RecvMsg, RecvMulti, RecvPooled, RecvVectored};
    matches!(slot.kind.get(), Recv | RecvMulti | RecvPooled | RecvVectored | RecvMsg)
}

fn sends(slot: &Slot) -> bool {
    matches!(slot.kind.get(), Kind::Send | Kind::SendVectored | Kind::SendMsg | Kind::SendFile)
}

/// Of one in the kernel: it waits for a handle to be signalled. A poll of a pipe is a read of nothing.
fn awaits_signal(slot: &Slot, entry: &Entry) -> bool {
    slot.kind.get() == Kind::Poll && !windows::pipe::is_pipe(raw_of(entry))
}

fn is_accept(slot: &Slot) -> bool {
    matches!(slot.kind.get(), Kind::Accept | Kind::AcceptMulti)
}

/// Counts bytes that have been sent. True when the operation has nothing left to send.
fn sent(core: &Core, slot: &Slot, bytes: usize) -> bool {
    // One that sends nothing would go on for ever.
    let all = slot.has(bits::ALL) && bytes > 0;
    if slot.kind.get() == Kind::SendVectored {
        let block = core.scratch.get(slot.progress.get());
        block.skip(bytes);
        return block.bytes() == 0 || !all;
    }
    slot.progress.set(slot.progress.get() + bytes as u32);
    // While a send is in the kernel this says how much it was given: it is in no list.
    bytes == slot.arg.get() as usize || !all
}

/// How much a send has sent.
fn how_much(core: &Core, slot: &Slot) -> i32 {
    match slot.kind.get() {
        Kind::SendVectored => core.scratch.get(slot.progress.get()).skipped() as i32,
        _ => slot.progress.get() as i32,
    }
}

/// Receives what is there, without a wait.
///
/// # Safety
/// The socket is open and does not block; the buffers are valid for writes and nobody else's.
unsafe fn receive_now(socket: usize, buffers: *const WSABUF, n: u32) -> Result<u32, i32> {
    let (mut received, mut flags) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: by the caller; without an `OVERLAPPED` it is over when it returns.
    let failed = unsafe { WSARecv(socket, buffers, n, &mut received, &mut flags, none, None) };
    if failed == 0 { Ok(received) } else { Err(socket_error()) }
}

/// As many parts of a send as the kernel is to hold at once, the last of them perhaps cut short.
///
/// # Safety
/// There are `n` parts.
unsafe fn held(parts: *const WSABUF, n: u32) -> ([WSABUF; MAX_PARTS], u32) {
    let mut held = [buffer(std::ptr::null_mut(), 0); MAX_PARTS];
    let (mut room, mut count) = (MOST_HELD, 0);
    while count < MAX_PARTS.min(n as usize) && room > 0 {
        // SAFETY: `count` is less than `n`, says the caller.
        let WSABUF { len, buf } = unsafe { *parts.add(count) };
        held[count] = WSABUF { len: len.min(room), buf };
        room -= held[count].len;
        count += 1;
    }
    (held, count as u32)
}

/// Sends what there is room for, without a wait.
///
/// # Safety
/// The socket is open and does not block; the buffers are valid for reads.
unsafe fn send_now(socket: usize, buffers: *const WSABUF, n: u32) -> Result<u32, i32> {
    let (mut sent, none) = (0, std::ptr::null_mut());
    // SAFETY: by the caller; without an `OVERLAPPED` it is over when it returns.
    let failed = unsafe { WSASend(socket, buffers, n, &mut sent, 0, none, None) };
    // SAFETY: by the caller.
    let is_something = || unsafe { (0..n as usize).any(|at| (*buffers.add(at)).len > 0) };
    match failed {
        // Something that is sent in no part waits for room.
        0 if sent == 0 && is_something() => Err(errno::EAGAIN),
        0 => Ok(sent),
        _ => Err(socket_error()),
    }
}

/// The error of a file's operation, where it has one.
fn file_error(status: Status) -> i32 {
    status.file_error().unwrap_or_else(|| win32::error_of(status))
}

/// What of a descriptor is closed: a socket as a socket.
fn to_close(entry: &Entry) -> RawDescriptor {
    let raw = raw_of(entry);
    if mutant!("iocp-socket-closed-as-handle") { RawDescriptor::Handle(raw.handle()) } else { raw }
}

/// An operation that is between two calls while user code runs: where that panics it goes on at the next tick.
struct Unfinished<'a> {
    room: &'a Iocp,
    core: &'a Core,
    slot: &'a Slot,
    home: &'a Home,
}

impl Drop for Unfinished<'_> {
    #[cold]
    fn drop(&mut self) {
        if matches!(self.slot.state.get(), State::Busy | State::Orphan) {
            self.room.list(self.core, self.slot, self.home);
        }
    }
}
