//! Operations that accept, one connection or many.

use super::accept::{self, AHEAD, Ahead};
use super::home::{Home, Stage};
use super::steps::Unfinished;
use super::win32::family_of;
use super::{Iocp, errno, port};
use crate::core::{Core, OnCompletion};
use crate::descriptor::{Entry, flags};
use crate::op::Kind;
use crate::payload::{self, Item};
use crate::slot::{NIL, OpId, Slot, State, bits};
use crate::sys::OwnedDescriptor;
use crate::sys::status::Began;
use crate::sys::windows::raw_of;

impl Iocp {
    /// Begins to accept.
    pub(super) fn accept(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) {
        home.ahead.set(0);
        home.first_ahead.set(NIL);
        home.error.set(0);
        let begun = family_of(raw_of(entry))
            .and_then(|family| {
                home.family.set(family);
                // Its accepts are all told of by packets. Those of one that is shared are told of in another way, and
                // so they are where the packets of a duplicate go to somebody else.
                match self.is_shared(entry) {
                    true => Ok(()),
                    false => match self.associate(core, entry, false) {
                        Err(errno::EINVAL) => {
                            entry.of_room.by_event.set(true);
                            Ok(())
                        }
                        associated => associated,
                    },
                }
            })
            .and_then(|()| self.post_accept(core, slot, home, entry));
        if let Err(error) = begun {
            let _ = core.finish(slot, -error);
            return;
        }
        if slot.kind.get() == Kind::AcceptMulti {
            // One is enough; the others only spare the system a wait.
            let wanted = self.wanted(slot, entry);
            while home.ahead.get() < wanted && self.post_accept(core, slot, home, entry).is_ok() {}
        }
    }

    /// Gives one more accept to the kernel.
    fn post_accept(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) -> Result<(), i32> {
        let Some(listener) = raw_of(entry).socket() else { return Err(errno::ENOTSOCK) };
        let tell = self.is_shared(entry).then(|| core.shared.wake.port());
        loop {
            let number = self.aheads.claim(home.family.get())?;
            let Some(ahead) = self.aheads.get(number) else { return Err(errno::ENOBUFS) };
            // Those of a shared one are told of by an event in any case.
            let skips = entry.of_room.skips.get() && tell.is_none();
            match self.aheads.post(&self.extensions, listener, ahead, tell, skips) {
                Began::Posts | Began::Ended => {
                    ahead.slot.set(core.arena.index(slot));
                    ahead.generation.set(slot.generation.get());
                    ahead.next.set(home.first_ahead.replace(number));
                    home.ahead.set(home.ahead.get() + 1);
                    return Ok(());
                }
                Began::Failed(error) => {
                    self.aheads.release(number);
                    // The client has gone again, which concerns nobody.
                    if !accept::has_gone(error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Asks for the end of all accepts of an operation. Each ends by its own packet.
    pub(super) fn cancel_accepts(&self, home: &Home, entry: &Entry) {
        let mut at = home.first_ahead.get();
        while home.ahead.get() > 0
            && let Some(ahead) = self.aheads.get(at)
        {
            port::cancel(raw_of(entry).handle(), ahead.overlapped());
            at = ahead.next.get();
        }
    }

    /// The packet of an accept has come.
    pub(super) fn accepted(&self, core: &Core, number: u32, on: &mut impl OnCompletion) {
        let Some(ahead) = self.aheads.get(number) else { return };
        let status = ahead.ended();
        let id = OpId::new(ahead.slot.get(), ahead.generation.get());
        let Some(slot) = core.in_flight(id.user_data()).filter(|slot| slot.kind.get().is_accept())
        else {
            return self.aheads.release(number);
        };
        let (Some(home), Some(entry)) = (self.home_of(core, slot), core.entry_of(slot)) else {
            return self.aheads.release(number);
        };
        core.counters().completions.add(1);
        self.unlink(home, number, ahead);
        let connection = match status.socket_error() {
            0 => self.connection(entry, ahead),
            error => Err(error),
        };
        self.aheads.release(number);
        let unwanted = slot.has(bits::CANCELLED) || entry.has(flags::CLOSING);
        match connection {
            Ok((descriptor, peer)) if slot.kind.get() == Kind::Accept => {
                let block = core.scratch.get(slot.progress.get());
                match peer {
                    Some(peer) => {
                        block.set_address(&peer);
                    }
                    // SAFETY: the operation is over, and nobody else looks at its block.
                    None => unsafe { *block.address_len.get() = 0 },
                }
                payload::put_descriptor(slot, descriptor);
                core.counters().accepts.add(1);
                core.finish_now(slot, 0, on);
            }
            Ok((descriptor, _)) => {
                core.counters().accepts.add(1);
                if !unwanted {
                    self.refill_quietly(core, slot, home, entry);
                }
                let unfinished = Unfinished { room: self, core, slot, home };
                core.yielded(slot, Item::Connection(descriptor), on);
                std::mem::forget(unfinished);
                self.end_if_last(core, slot, home, entry, on);
            }
            Err(error) => {
                if accept::has_gone(error) && !unwanted {
                    self.refill_quietly(core, slot, home, entry);
                } else if error != errno::ECANCELED {
                    home.error.set(error);
                    self.cancel_accepts(home, entry);
                }
                self.end_if_last(core, slot, home, entry, on);
            }
        }
    }

    /// Fills up what is in the kernel, after a callback that has panicked.
    pub(super) fn refill(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        on: &mut impl OnCompletion,
    ) {
        self.refill_quietly(core, slot, home, entry);
        self.end_if_last(core, slot, home, entry, on);
    }

    fn refill_quietly(&self, core: &Core, slot: &Slot, home: &Home, entry: &Entry) {
        let wanted = self.wanted(slot, entry);
        while home.ahead.get() < wanted {
            if let Err(error) = self.post_accept(core, slot, home, entry) {
                home.error.set(error);
                return;
            }
        }
        home.error.set(0);
    }

    /// How many accepts of an operation are to be in the kernel.
    fn wanted(&self, slot: &Slot, entry: &Entry) -> u32 {
        // Those who share a listener take turns; of one that came from the user nobody knows.
        let is_alone = !self.is_shared(entry) && !entry.has(flags::FOREIGN);
        if slot.kind.get() == Kind::AcceptMulti && is_alone { AHEAD } else { 1 }
    }

    /// Ends an operation that has nothing in the kernel any more.
    fn end_if_last(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        on: &mut impl OnCompletion,
    ) {
        let in_flight = matches!(slot.state.get(), State::Busy | State::Orphan);
        if home.ahead.get() > 0 || !in_flight || home.stage.get() == Stage::Listed {
            return;
        }
        let unwanted = slot.has(bits::CANCELLED) || entry.has(flags::CLOSING);
        match home.error.get() {
            error if error != 0 && !unwanted => core.finish_now(slot, -error, on),
            _ => core.finish_now(slot, -errno::ECANCELED, on),
        }
    }

    fn connection(
        &self,
        entry: &Entry,
        ahead: &Ahead,
    ) -> Result<(OwnedDescriptor, Option<std::net::SocketAddr>), i32> {
        let Some(listener) = raw_of(entry).socket() else { return Err(errno::ENOTSOCK) };
        let peer = self.aheads.connected(&self.extensions, listener, ahead)?;
        ahead.take_socket().map(|socket| (socket, peer)).ok_or(errno::EIO)
    }

    /// Takes an accept out of its operation's list. There are a few at most.
    fn unlink(&self, home: &Home, number: u32, ahead: &Ahead) {
        home.ahead.set(home.ahead.get() - 1);
        if home.first_ahead.get() == number {
            return home.first_ahead.set(ahead.next.get());
        }
        let mut at = home.first_ahead.get();
        while let Some(other) = self.aheads.get(at) {
            if other.next.get() == number {
                return other.next.set(ahead.next.get());
            }
            at = other.next.get();
        }
    }
}
