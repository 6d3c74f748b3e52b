//! How an operation that receives or sends goes from one call to its next.
//!
//! It begins in the call that submits it ([`Iocp::begin`]), goes on when a packet has come ([`Iocp::after`], then
//! [`Iocp::run`]), and is listed where it has yielded so much that others have their turn, or where user code has
//! panicked in its middle: then the next tick goes on with it ([`Iocp::go_on`]). Whichever way, a [`Step`] says what
//! became of the next call.

use super::home::{Home, Stage};
use super::send::{how_much, sent};
use super::status::{self, Status};
use super::{Iocp, SHARE, Step, connect, errno, file_error, is_receive, messages, own};
use super::{raw_of, sends};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::Kind;
use crate::payload::Memory;
use crate::slot::{OpId, Slot, State, bits};

impl Iocp {
    /// What a call that has ended means for its operation: a result, or that it goes on.
    pub(super) fn after(
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
                Some(socket) => connect::connected(socket),
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
    pub(super) fn begin(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        memory: Option<Memory>,
    ) {
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
    pub(super) fn run(
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
    pub(super) fn go_on(&self, core: &Core, id: OpId, on: &mut impl OnCompletion) {
        let Some(slot) = core.arena.find(id) else { return };
        let (Some(home), Some(entry)) = (self.home_of(core, slot), core.entry_of(slot)) else {
            return;
        };
        if home.stage.get() != Stage::Listed {
            return;
        }
        home.take_back();
        let unwanted = slot.has(bits::CANCELLED) || entry.has(flags::CLOSING);
        if unwanted && home.ahead.get() > 0 && slot.kind.get().is_accept() {
            // The packets of what it has in the kernel end it.
        } else if unwanted {
            core.finish_now(slot, core.cancelled(slot), on);
        } else if slot.kind.get().is_accept() {
            self.refill(core, slot, home, entry, on);
        } else {
            self.run(core, slot, home, entry, on);
        }
    }

    pub(super) fn list(&self, core: &Core, slot: &Slot, home: &Home) {
        home.stage.set(Stage::Listed);
        self.listed.push(core.arena.id(slot));
    }

    /// Makes the next call of an operation that receives or sends.
    pub(super) fn step(
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
}

/// What is told of the end of an operation that receives or sends on a stream.
pub(super) fn told(slot: &Slot, entry: &Entry, result: i32) -> i32 {
    if entry.has(flags::STREAM) && (sends(slot) || is_receive(slot)) {
        status::of_reset(result, sends(slot), &entry.of_room.reset_told)
    } else {
        result
    }
}

/// An operation that is between two calls while user code runs: where that panics it goes on at the next tick.
pub(super) struct Unfinished<'a> {
    pub(super) room: &'a Iocp,
    pub(super) core: &'a Core,
    pub(super) slot: &'a Slot,
    pub(super) home: &'a Home,
}

impl Drop for Unfinished<'_> {
    #[cold]
    fn drop(&mut self) {
        if matches!(self.slot.state.get(), State::Busy | State::Orphan) {
            self.room.list(self.core, self.slot, self.home);
        }
    }
}
