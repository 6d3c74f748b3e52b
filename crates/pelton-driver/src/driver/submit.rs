//! Submission: what the payload owns goes into a slot, and the operation to the room, or to the driver where
//! no kernel needs to answer it.

use std::io;
use std::marker::PhantomData;

use super::{Driver, Refused, Started, bad_descriptor};
use crate::core::Core;
use crate::descriptor::Fd;
use crate::op::{Op, Submission};
use crate::payload::{Leftover, MAX_TRANSFER, Payload};
use crate::slot::{Key, OpId, Slot, State, Token, bits};
use crate::sys::errno;

impl Driver {
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
        let done = slot.state.get() == State::Done;
        if done {
            // A close that ended at once has announced itself; its submitter knows.
            slot.unset(bits::ANNOUNCED);
        }
        Ok((self.key(id), done))
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

#[cold]
fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "more than 2 GiB cannot be sent in one operation: send it in slices",
    )
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
