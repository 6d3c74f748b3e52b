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
mod connect;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/device.rs")]
mod device;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/extension.rs")]
mod extension;
mod file;
mod home;
#[cfg(windows)]
mod lookup;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/messages.rs")]
mod messages;
mod of_room;
mod owed;
mod own;
mod pipe;
mod port;
mod readiness;
mod receive;
mod region;
mod send;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/sendfile.rs")]
mod sendfile;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/sharing.rs")]
mod sharing;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/signals.rs")]
mod signals;
mod steps;
mod stream;
#[cfg_attr(pelton_iocp_elsewhere, path = "elsewhere/mod.rs")]
mod win32;

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use accept::Aheads;
use afd::Polls;
use extension::Extensions;
use home::{Home, Stage};
use port::{Batch, Packet};
use region::Region;
use steps::told;

pub(crate) use of_room::OfRoom;

/// Whether a test has this port refuse the packet that is about to wake its driver.
#[cfg(all(test, pelton_iocp_elsewhere))]
pub(crate) fn refuses_wake(port: super::RawDescriptor) -> bool {
    win32::REFUSED_WAKE.take(port)
}

use super::numbers as errno;
use super::status::{self, Status};
use super::windows;
use super::windows::calls;
use super::windows::{KEY_ROOM, KEY_WAKE, RawDescriptor, buffer, raw_of};
use super::{NO_DESCRIPTOR, Ticks, Try, WakeSource};
use crate::config::{Config, Error};
use crate::core::{Core, Fifo, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::{Interest, Kind, Op};
use crate::payload::{self, Item, MAX_TRANSFER, Memory};
use crate::slot::{OpId, Slot, State, bits};

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
            _ if slot.kind.get().is_accept() => self.cancel_accepts(home, entry),
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

    fn home_of(&self, core: &Core, slot: &Slot) -> Option<&Home> {
        self.homes.get(core.arena.index(slot))
    }
}

impl Ticks for Iocp {
    #[inline(always)]
    fn has_work(&self) -> bool {
        self.listed.len() > 0 || self.batch.has_left() || !self.aheads.owed.is_empty()
    }

    fn wait(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        if self.batch.has_left() {
            // A callback panicked in the middle of the last batch: its packets come only once.
            return Ok(());
        }
        core.counters().enters.add(1);
        self.batch.wait(core.shared.wake.port(), timeout)
    }

    fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
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

/// The error of a file's operation, where it has one.
fn file_error(status: Status) -> i32 {
    status.file_error().unwrap_or_else(|| win32::error_of(status))
}

/// What of a descriptor is closed: a socket as a socket.
fn to_close(entry: &Entry) -> RawDescriptor {
    let raw = raw_of(entry);
    if mutant!("iocp-socket-closed-as-handle") { RawDescriptor::Handle(raw.handle()) } else { raw }
}
