//! Submission: what the payload owns goes into a slot, and the operation to the room, or to the driver where
//! no kernel needs to answer it.

use std::io;
use std::marker::PhantomData;

use super::{Driver, Launched, Refused, Started, bad_descriptor};
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
    /// tells of it. A send on a descriptor that is ready may be over before it has a slot, and then `token` is
    /// not asked for.
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
        token: impl FnOnce() -> Token,
    ) -> Result<Launched<P>, Box<Refused<P>>> {
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
                Try::Begun(n) => {
                    // SAFETY: the caller says so.
                    return match unsafe { self.launch_tried(submission, token(), n) } {
                        Tried::Flying(flight) => Ok(Launched::Flying(flight)),
                        Tried::Landed(output) => Ok(Launched::Landed(*output)),
                        Tried::Refused(refused) => Err(refused),
                    };
                }
            }
        }
        // SAFETY: the caller says so.
        let Begun { slot, done, .. } = unsafe { self.start_on(submission, token(), 0, true) }?;
        if done {
            // Where it has announced itself, as a close does: the notice finds another generation.
            return Ok(Launched::Landed(self.take_done::<P>(slot)));
        }
        Ok(Launched::Flying(Flight::new(slot)))
    }

    /// The rest of [`Driver::launch`], of a send that a try has not ended. By itself: whoever launches is spared all of
    /// it, and with it the question which room this is, which has been answered before the try.
    ///
    /// # Safety
    /// As for [`Driver::launch`].
    #[cold]
    #[inline(never)]
    unsafe fn launch_tried<P: Payload>(
        &self,
        submission: Submission<P>,
        token: Token,
        already: u32,
    ) -> Tried<P> {
        // SAFETY: the caller says so.
        match unsafe { self.start_on(submission, token, already, true) } {
            Ok(Begun { slot, done: true, .. }) => {
                Tried::Landed(Box::new(self.take_done::<P>(slot)))
            }
            Ok(Begun { slot, .. }) => Tried::Flying(Flight::new(slot)),
            Err(refused) => Tried::Refused(refused),
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
        let core = &*self.core;
        let Submission { op, payload } = submission;
        if let Op::ReadAt { offset, .. } | Op::WriteAt { offset, .. } = op
            && i64::try_from(offset).is_err()
        {
            return Err(Box::new(Refused { error: no_such_offset(), payload }));
        }
        let all = matches!(
            op,
            Op::Send { all: true, .. }
                | Op::SendVectored { all: true, .. }
                | Op::Write { all: true, .. }
        );
        let bits = if all { bits::ALL } else { 0 };
        let Some(slot) = core.arena.claim(op.kind(), bits, token.0) else {
            return Err(Box::new(Refused { error: too_many_operations(), payload }));
        };
        let id = core.arena.id(slot);
        // The payload is user code: it may panic, and it may run the driver.
        let unplaced = Unplaced { core, slot };
        let memory = payload.place(core, slot);
        std::mem::forget(unplaced);
        // Whatever its owner did while it was asked for its memory: the operation begins now.
        slot.set_standing(plain(op.kind(), bits));
        slot.fd.set(op.fd().map_or(NIL, |fd| fd.index));
        if let Op::Send { .. } = op {
            // By a try before this.
            slot.progress.set(sent);
        }
        let memory = match memory.and_then(P::enough) {
            Ok(memory) => memory,
            Err(no_room) => return Err(self.refuse(slot, no_room.error())),
        };
        let too_much = match op {
            Op::Send { all: true, .. } | Op::Write { all: true, .. } | Op::SendFile { .. } => {
                memory.len > MAX_TRANSFER
            }
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
        if let Op::SendFile { file, .. } = op
            && let Err(error) = core.hold_file(slot, file, entry)
        {
            return Err(self.refuse(slot, error));
        }
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

/// What became of a send that a try has not ended: small enough to be returned in registers.
enum Tried<P: Payload> {
    Flying(Flight<P>),
    Landed(Box<P::Output>),
    Refused(Box<Refused<P>>),
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
