//! Submission: what the payload owns goes into a slot, and the operation to the room, or to the driver where
//! no kernel needs to answer it.

use std::io;
use std::marker::PhantomData;

use super::{Driver, Launched, Recipient, Refused, Started, bad_descriptor};
use crate::core::Core;
use crate::descriptor::Fd;
use crate::op::{Kind, Op, Submission};
use crate::payload::{Leftover, MAX_TRANSFER, Payload, Plain};
use crate::slot::{Flight, Key, NIL, OpId, Slot, State, Token, bits, plain};
use crate::sys::{Try, errno};

impl Driver {
    /// Submits an operation. Its completion is told of by a tick, even where it has ended already, and never
    /// inside this call: by a later tick, or, submitted from inside a tick's callback, perhaps by that one.
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
        let Begun { slot, id, done } = self.start(submission, token)?;
        if done {
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
        let Begun { slot, id, done } = self.start(submission, token)?;
        if done {
            return Ok(Started::Done(self.take_done::<P>(slot)));
        }
        Ok(Started::Pending(self.key(id)))
    }

    /// [`Driver::submit`] for a runtime, which says at once if the operation has ended already: then no tick
    /// tells of it. A send on a descriptor that is ready may be over before it has a slot, and then `whom` is not
    /// asked for a token.
    ///
    /// # Errors
    /// As for [`Driver::submit`].
    ///
    /// # Safety
    /// The submission's descriptor, if it has one, is this driver's, and is neither closed nor detached before
    /// this returns, by whatever the payload's own code may do.
    #[inline(always)]
    pub unsafe fn launch<P: Payload>(
        &self,
        submission: Submission<P>,
        whom: impl Recipient,
    ) -> Result<Launched<P>, Box<Refused<P>>> {
        // What nearly all do is compiled into whoever launches, and calls nothing after which it would have to go on:
        // that keeps what it works on in registers.
        let sent = 'seldom: {
            if let Op::Send { fd, all } = submission.op
                && P::SENDS
                && self.room.tries_sends()
            {
                let bytes = submission.payload.bytes();
                // SAFETY: the caller says that it is open.
                let entry = unsafe { self.core.fds.get_used(fd.index) };
                debug_assert_eq!(entry.generation.get(), fd.generation);
                match self.room.try_send(&self.core, entry, bytes, all) {
                    Try::Sent(n) => return Ok(Launched::Over(submission.payload.sent(n))),
                    Try::Failed(error) => {
                        let error = io::Error::from_raw_os_error(error);
                        return Ok(Launched::Over(submission.payload.refuse(error)));
                    }
                    Try::Begun(sent) => break 'seldom sent,
                }
            }
            let Some(token) = whom.known() else { break 'seldom 0 };
            let (kind, bits) = (submission.op.kind(), bits_of(submission.op));
            let Some(slot) = self.core.arena.claim_again(kind, bits, token.0) else {
                break 'seldom 0;
            };
            // SAFETY: the caller says so.
            let Begun { slot, done, .. } = unsafe { self.start_in(slot, submission, 0, true) }?;
            if done {
                // Where it has announced itself, as a close does: the notice finds another generation.
                return Ok(Launched::Landed(self.take_done::<P>(slot)));
            }
            return Ok(Launched::Flying(Flight::new(slot)));
        };
        let token = whom.token();
        // SAFETY: the caller says so.
        match unsafe { self.launch_aside(submission, token, sent) } {
            Aside::Flying(flight) => Ok(Launched::Flying(flight)),
            Aside::Landed(output) => {
                whom.forget(token);
                Ok(Launched::Landed(*output))
            }
            Aside::Refused(refused) => {
                whom.forget(token);
                Err(refused)
            }
        }
    }

    /// [`Driver::launch`], for what goes on as few do, with `sent` bytes sent.
    ///
    /// # Safety
    /// As for [`Driver::launch`].
    #[cold]
    #[inline(never)]
    unsafe fn launch_aside<P: Payload>(
        &self,
        submission: Submission<P>,
        token: Token,
        sent: u32,
    ) -> Aside<P> {
        // SAFETY: the caller says so.
        match unsafe { self.start_on(submission, token, sent, true) } {
            Ok(Begun { slot, done: true, .. }) => {
                Aside::Landed(Box::new(self.take_done::<P>(slot)))
            }
            Ok(Begun { slot, .. }) => Aside::Flying(Flight::new(slot)),
            Err(refused) => Aside::Refused(refused),
        }
    }

    /// Submits a [timeout](Submission::timeout) for one who counts time as the driver does: in nanoseconds since
    /// [`Driver::start_time`].
    ///
    /// # Errors
    /// There are too many operations (`max_operations`).
    #[inline]
    pub fn submit_timeout(&self, nanos: u64, token: Token) -> Result<Key<Plain>, Refused<Plain>> {
        let core = &*self.core;
        let Some(slot) = core.arena.claim(Kind::Timeout, 0, token.0) else {
            return Err(Refused { error: too_many_operations(), payload: Plain });
        };
        core.counters().started(Kind::Timeout);
        core.wheel.insert(&core.arena, slot, nanos);
        Ok(self.key(core.arena.id(slot)))
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
        // SAFETY: nothing is said of the descriptor.
        unsafe { self.start_on(submission, token, 0, false) }.map_err(|refused| *refused)
    }

    /// A refusal is seldom, and in a box so that it takes nothing from those that are none: what is returned in
    /// memory, be it by the coldest of branches, keeps the compiler from keeping the rest in registers.
    ///
    /// # Safety
    /// Where the descriptor `is_open`, as for [`Driver::launch`].
    #[inline(always)]
    unsafe fn start_on<P: Payload>(
        &self,
        submission: Submission<P>,
        token: Token,
        sent: u32,
        is_open: bool,
    ) -> Result<Begun<'_>, Box<Refused<P>>> {
        let (kind, bits) = (submission.op.kind(), bits_of(submission.op));
        let Some(slot) = self.core.arena.claim(kind, bits, token.0) else {
            let payload = submission.payload;
            return Err(Box::new(Refused { error: too_many_operations(), payload }));
        };
        // SAFETY: the caller says so.
        unsafe { self.start_in(slot, submission, sent, is_open) }
    }

    /// [`Driver::start_on`], in a slot that has been claimed for it.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn start_in<'a, P: Payload>(
        &'a self,
        slot: &'a Slot,
        submission: Submission<P>,
        sent: u32,
        is_open: bool,
    ) -> Result<Begun<'a>, Box<Refused<P>>> {
        let core = &*self.core;
        let Submission { op, payload } = submission;
        let bits = bits_of(op);
        let id = core.arena.id(slot);
        // The payload is user code: it may panic, and it may run the driver.
        let unplaced = Unplaced { core, slot };
        let memory = payload.place(core, slot);
        std::mem::forget(unplaced);
        // Whatever its owner did while it was asked for its memory: the operation begins now.
        slot.set_standing(plain(op.kind(), bits));
        let fd = op.fd().map_or(NIL, |fd| fd.index);
        if P::SCRATCH {
            slot.fd.set(fd);
        } else {
            // What has been sent is so by a try before this.
            slot.set_fd_and_progress(fd, sent);
        }
        let memory = match memory.and_then(P::enough) {
            Ok(memory) => memory,
            Err(no_room) => return Err(self.refuse(slot, no_room.error())),
        };
        if let Op::ReadAt { offset, .. } | Op::WriteAt { offset, .. } = op
            && i64::try_from(offset).is_err()
        {
            return Err(self.refuse(slot, no_such_offset()));
        }
        let too_much = match op {
            Op::Send { all: true, .. } | Op::Write { all: true, .. } => memory.len > MAX_TRANSFER,
            Op::SendVectored { all: true, .. } => {
                core.scratch.get(slot.progress.get()).bytes() > MAX_TRANSFER
            }
            _ => false,
        };
        if too_much {
            return Err(self.refuse(slot, too_long()));
        }
        let memory = match op {
            // Not too much, and none of the others is asked for more than it can be.
            Op::Send { all: true, .. } | Op::Recv { .. } | Op::ReadAt { .. } => memory,
            _ => memory.clamped(),
        };
        // Looked up after the user code, which may have closed it.
        let Some(fd) = op.fd() else {
            core.counters().started(op.kind());
            self.start_own(slot, op);
            return Ok(Begun { slot, id, done: slot.state.get() == State::Done });
        };
        let entry = if is_open {
            // SAFETY: the caller says so.
            let entry = unsafe { core.fds.get_used(fd.index) };
            debug_assert_eq!(entry.generation.get(), fd.generation);
            entry
        } else if let Some(entry) = core.fds.find(fd) {
            entry
        } else {
            return Err(self.refuse(slot, bad_descriptor()));
        };
        core.counters().started(op.kind());
        match op {
            // They are not in flight on it.
            Op::Close { .. } => {
                slot.fd.set(NIL);
                self.start_close(slot, fd, entry);
            }
            Op::CancelFd { .. } => {
                slot.fd.set(NIL);
                let found = entry.in_flight();
                self.cancel_each_on(fd.index, entry);
                let _ = core.finish(slot, found as i32);
            }
            _ => {
                entry.hold();
                let done = self.room.start(core, slot, id, op, entry, memory);
                return Ok(Begun { slot, id, done });
            }
        }
        Ok(Begun { slot, id, done: slot.state.get() == State::Done })
    }

    /// Refuses a submission whose payload is in its slot already.
    #[cold]
    #[inline(never)]
    fn refuse<P: Payload>(&self, slot: &Slot, error: io::Error) -> Box<Refused<P>> {
        let _unplaced = Unplaced { core: &self.core, slot };
        Box::new(Refused { error, payload: P::unplace(&self.core, slot) })
    }

    /// The operations that no kernel needs to answer.
    fn start_own(&self, slot: &Slot, op: Op) {
        let core = &*self.core;
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
}

/// What became of what was launched aside: small enough to be returned in registers.
enum Aside<P: Payload> {
    Flying(Flight<P>),
    Landed(Box<P::Output>),
    Refused(Box<Refused<P>>),
}

/// The facts about an operation that its submission says.
#[inline(always)]
fn bits_of(op: Op) -> u8 {
    let all = matches!(
        op,
        Op::Send { all: true, .. }
            | Op::SendVectored { all: true, .. }
            | Op::Write { all: true, .. }
    );
    if all { bits::ALL } else { 0 }
}

/// An operation that was accepted.
struct Begun<'a> {
    slot: &'a Slot,
    id: OpId,
    /// It has ended, and no tick tells of it, unless it was announced.
    done: bool,
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

#[cold]
#[inline(never)]
fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "more than 2 GiB cannot be sent in one operation: send it in slices",
    )
}

#[cold]
#[inline(never)]
fn no_such_offset() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the offset is past what a file can have (2^63 - 1)",
    )
}

#[cold]
#[inline(never)]
fn too_many_operations() -> io::Error {
    io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "too many operations are in flight: raise `max_operations`",
    )
}
