//! Operations that wait until a socket is ready.

use super::afd::{self, At};
use super::{Iocp, errno};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::Kind;
use crate::slot::{NIL, OpId, Slot, bits};
use crate::sys::windows::raw_of;

/// What a poll is told of, in the numbers of `poll` elsewhere.
pub(super) const POLLIN: i32 = 0x1;
const POLLOUT: i32 = 0x4;
const POLLERR: i32 = 0x8;
const POLLHUP: i32 = 0x10;
const POLLRDHUP: i32 = 0x2000;

impl Iocp {
    /// Puts an operation into the queue of its direction and has its socket polled, in the call that starts it.
    pub(super) fn park(&self, core: &Core, slot: &Slot, entry: &Entry) {
        queue_of(slot, entry).push(&core.arena, slot);
        // What one that is in the kernel by now tells may be over.
        let late =
            self.polls.get(entry.of_room.poll.get()).is_some_and(|poll| poll.at.get() != At::Rest);
        if let Err(error) = self.poll(core, slot.fd.get(), entry) {
            queue_of(slot, entry).remove(&core.arena, slot);
            let _ = core.finish(slot, -error);
            return;
        }
        if let Some(home) = self.home_of(core, slot)
            && let Some(poll) = self.polls.get(entry.of_room.poll.get())
        {
            home.round.set(poll.round.get().wrapping_add(u32::from(late)));
        }
    }

    /// The same in a tick's dispatch.
    pub(super) fn park_now(
        &self,
        core: &Core,
        slot: &Slot,
        entry: &Entry,
        on: &mut impl OnCompletion,
    ) {
        queue_of(slot, entry).push(&core.arena, slot);
        if let Err(error) = self.poll(core, slot.fd.get(), entry) {
            queue_of(slot, entry).remove(&core.arena, slot);
            core.finish_now(slot, -error, on);
        }
    }

    /// Sees to it that the poll of a socket asks for what its waiters want.
    fn poll(&self, core: &Core, fd: u32, entry: &Entry) -> Result<(), i32> {
        let mut wanted = 0;
        if !entry.readers.is_empty() {
            wanted |= afd::READABLE;
        }
        if !entry.writers.is_empty() {
            wanted |= afd::WRITABLE;
        }
        let number = match entry.of_room.poll.get() {
            NIL => {
                let socket = raw_of(entry).socket().ok_or(errno::ENOTSOCK)?;
                let number = self.polls.claim(core.shared.wake.port(), socket)?;
                entry.of_room.poll.set(number);
                number
            }
            number => number,
        };
        let Some(poll) = self.polls.get(number) else { return Err(errno::EIO) };
        poll.fd.set(fd);
        poll.named.set(entry.named());
        match poll.at.get() {
            At::Rest if wanted != 0 => {
                core.counters().registrations.add(1);
                self.polls.start(poll, wanted)
            }
            // Its packet starts the next one, with what is wanted then.
            At::Kernel if wanted & !poll.asked.get() != 0 => {
                self.polls.cancel(poll);
                Ok(())
            }
            At::Rest | At::Kernel | At::Cancelled => Ok(()),
        }
    }

    /// The packet of a poll has come.
    pub(super) fn polled(&self, core: &Core, number: u32, on: &mut impl OnCompletion) {
        let Some(poll) = self.polls.get(number) else { return };
        let ended = self.polls.ended(poll);
        let entry = core.fds.get(poll.fd.get()).filter(|entry| {
            entry.of_room.poll.get() == number
                && entry.named() == poll.named.get()
                && entry.has(flags::OPEN)
        });
        let Some(entry) = entry else {
            // Its socket has been closed meanwhile.
            return self.polls.release(number);
        };
        core.counters().completions.add(1);
        let again = Again { room: self, core, fd: poll.fd.get(), entry };
        let mut told = self.told.take();
        told.clear();
        // An error is told to all; events to those that they concern.
        let events = ended.unwrap_or(u32::MAX);
        for (bits, queue) in [(afd::READABLE, &entry.readers), (afd::WRITABLE, &entry.writers)] {
            if events & bits != 0 {
                queue.each(&core.arena, |slot| {
                    if ended.is_err() || !self.is_late(core, slot, poll.round.get()) {
                        told.push(core.arena.id(slot));
                    }
                });
            }
        }
        for id in &told {
            self.ready(core, *id, entry, ended, on);
        }
        self.told.set(told);
        drop(again);
    }

    /// Whether an operation waits for nothing but the level, and since after the poll of this round began.
    fn is_late(&self, core: &Core, slot: &Slot, round: u32) -> bool {
        let since = self.home_of(core, slot).map_or(round, |home| home.round.get());
        slot.kind.get() == Kind::Poll && since.wrapping_sub(round).cast_signed() > 0
    }

    /// Goes on with an operation whose socket may be ready, if it still waits for that.
    fn ready(
        &self,
        core: &Core,
        id: OpId,
        entry: &Entry,
        ended: Result<u32, i32>,
        on: &mut impl OnCompletion,
    ) {
        let Some(slot) = core.arena.find(id).filter(|slot| slot.has(bits::LINKED)) else { return };
        if !queue_of(slot, entry).remove(&core.arena, slot) {
            return;
        }
        let Some(home) = self.home_of(core, slot) else { return };
        match ended {
            Err(error) => core.finish_now(slot, -error, on),
            Ok(events) if slot.kind.get() == Kind::Poll => {
                core.finish_now(slot, as_poll_says(events), on);
            }
            Ok(_) => self.run(core, slot, home, entry, on),
        }
    }

    /// A socket goes, and nobody waits for it any more: so does its poll, now or with its packet.
    pub(super) fn forget_poll(&self, entry: &Entry) {
        let number = entry.of_room.poll.replace(NIL);
        let Some(poll) = self.polls.get(number) else { return };
        poll.fd.set(NIL);
        match poll.at.get() {
            At::Rest => self.polls.release(number),
            At::Kernel | At::Cancelled => self.polls.cancel(poll),
        }
    }
}

fn queue_of<'a>(slot: &Slot, entry: &'a Entry) -> &'a crate::parked::Parked {
    if matches!(slot.kind.get(), Kind::Poll | Kind::Own) && slot.progress.get() != 0 {
        &entry.writers
    } else {
        &entry.readers
    }
}

fn as_poll_says(events: u32) -> i32 {
    let is = |bits: u32, what: i32| if events & bits != 0 { what } else { 0 };
    is(afd::RECEIVE | afd::ACCEPT | afd::RECEIVE_EXPEDITED, POLLIN)
        | is(afd::DISCONNECT, POLLIN | POLLRDHUP)
        | is(afd::SEND, POLLOUT)
        | is(afd::ABORT | afd::CONNECT_FAIL | afd::LOCAL_CLOSE, POLLERR | POLLHUP)
}

/// Polls again for whoever is left, also where a callback panics: the poll that has ended told only once.
struct Again<'a> {
    room: &'a Iocp,
    core: &'a Core,
    fd: u32,
    entry: &'a Entry,
}

impl Drop for Again<'_> {
    fn drop(&mut self) {
        let (core, entry) = (self.core, self.entry);
        if mutant!("iocp-poll-not-rearmed") {
            return;
        }
        if entry.readers.is_empty() && entry.writers.is_empty() {
            return;
        }
        if let Err(error) = self.room.poll(core, self.fd, entry) {
            for queue in [&entry.readers, &entry.writers] {
                while let Some(slot) = queue.pop(&core.arena) {
                    core.finish_later(slot, -error);
                }
            }
        }
    }
}
