//! One room per kernel, all with the same surface.
//!
//! A room turns the one list of operations ([`Op`](crate::Op)) into its kernel's calls. It gets a slot
//! that is busy, whose descriptor cannot be closed before the operation ends, and the memory that the
//! operation owns. It keeps the promise that every operation it was given ends exactly once, through
//! [`Core::finish`](crate::core::Core::finish), and it never ends one inside the call that started it
//! other than by leaving the slot done.
//!
//! | call | when |
//! |---|---|
//! | `start` | an operation was submitted |
//! | `restart` | one that waited for a pooled buffer may try again |
//! | `cancel` | one operation is to end soon; it still ends by itself |
//! | `cancel_fd` | the same for all on one descriptor |
//! | `close` | nothing is in flight on a descriptor any more |
//! | `wait` | submit all that is staged and wait: one entry into the kernel |
//! | `reap` | dispatch what has completed |

use std::ffi::c_void;
use std::ptr::NonNull;
use std::time::Duration;

use crate::config::{Backend, Config, Error};
use crate::core::{Core, OnCompletion};
use crate::descriptor::Entry;
use crate::op::Op;
use crate::payload::Memory;
use crate::seam::Seam;
use crate::slot::{OpId, Slot};

mod attempt;
pub(crate) mod calls;
mod descriptor;
mod epoll;
#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) mod fake;
pub(crate) mod file;
pub(crate) mod socket;
mod unix;
pub(crate) mod uring;

#[cfg(feature = "sim")]
use attempt::shutdown_arg;
pub use descriptor::OwnedDescriptor;
pub(crate) use descriptor::own;
pub use unix::RawDescriptor;
#[cfg(any(test, feature = "fake-kernel", feature = "sim"))]
pub(crate) use unix::end_message;
#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) use unix::part_base;
pub(crate) use unix::{
    AddressLength, AddressStorage, MessageEnd, MessageHeader, NO_DESCRIPTOR, Part, WakeSource,
    control, errno, message_end, message_header, name_message, part, part_len, part_skip,
    socket_address, write_address,
};

pub(crate) use uring::bufring::BufRing as BufferRing;

/// The kernel that a driver runs on.
// One per driver, never moved after construction: the size of the largest does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Room {
    Uring(uring::Uring),
    Epoll(epoll::Epoll),
    #[cfg(any(test, feature = "fake-kernel"))]
    Fake(fake::Fake),
}

/// Receives what is there, or says `EAGAIN`. The descriptor is open.
pub(crate) fn recv_now(raw: RawDescriptor, buf: &mut [u8]) -> i32 {
    attempt::recv(raw, buf.as_mut_ptr(), buf.len())
}

/// Sends what there is room for, or says `EAGAIN`. The descriptor is open.
pub(crate) fn send_now(raw: RawDescriptor, bytes: &[u8]) -> i32 {
    attempt::send(raw, bytes)
}

/// What came of a try of an operation that has no slot yet.
pub(crate) enum Try {
    /// It is over: so many bytes have been sent.
    Sent(usize),
    /// It is over, with this error.
    Failed(i32),
    /// It is to begin, with so many bytes sent already.
    Begun(u32),
}

macro_rules! in_room {
    ($room:expr, $kernel:ident => $call:expr) => {
        match $room {
            Room::Uring($kernel) => $call,
            Room::Epoll($kernel) => $call,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake($kernel) => $call,
        }
    };
}

impl Room {
    /// The room that the settings ask for, or the best that works here and why a better one does not.
    pub(crate) fn choose(config: &Config) -> Result<(Room, Option<String>), Error> {
        let (wanted, simulated) = calls::placed(config.wanted()?);
        match wanted {
            Backend::IoUring => uring::Uring::new(config, simulated)
                .map(|room| (Room::Uring(room), None))
                .map_err(|reason| Error::Unsupported { backend: Backend::IoUring, reason }),
            Backend::Epoll => Room::epoll(config, simulated, None),
            #[cfg(feature = "sim")]
            Backend::Sim => unreachable!("it is one of the others, on a simulated system"),
            Backend::Auto => match uring::Uring::new(config, simulated) {
                Ok(room) => Ok((Room::Uring(room), None)),
                Err(reason) => {
                    let reason = uring::setup::for_fallback(&reason);
                    Room::epoll(config, simulated, Some(format!("{reason}; using epoll")))
                }
            },
        }
    }

    fn epoll(
        config: &Config,
        simulated: bool,
        fallback: Option<String>,
    ) -> Result<(Room, Option<String>), Error> {
        if config.batch_wait.is_zero() {
            return Ok((Room::Epoll(epoll::Epoll::new(simulated)?), fallback));
        }
        let because = fallback.map_or(String::new(), |reason| format!(" ({reason})"));
        Err(Error::Unsupported {
            backend: Backend::Epoll,
            reason: format!("`batch_wait` needs io_uring{because}: leave it at zero"),
        })
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "sim")]
            room if room.is_simulated() => Backend::Sim,
            Room::Uring(_) => Backend::IoUring,
            Room::Epoll(_) => Backend::Epoll,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => Backend::Auto,
        }
    }

    /// True when the room runs on a simulated system.
    pub(crate) fn is_simulated(&self) -> bool {
        match self {
            Room::Uring(uring) => uring.is_simulated(),
            Room::Epoll(epoll) => epoll.is_simulated(),
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => false,
        }
    }

    /// True when the room fills one pooled buffer with several receives.
    pub(crate) fn fills_buffers_piecewise(&self) -> bool {
        match self {
            Room::Uring(uring) => uring.fills_buffers_piecewise(),
            Room::Epoll(_) => true,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => true,
        }
    }

    /// True when descriptors must not block: readiness is tried, not waited for in the kernel.
    pub(crate) fn wants_nonblocking(&self) -> bool {
        matches!(self, Room::Epoll(_))
    }

    pub(crate) fn prepare(&self, core: &Core) -> Result<(), Error> {
        in_room!(self, kernel => kernel.prepare(core))
    }

    #[inline(always)]
    pub(crate) fn start(
        &self,
        core: &Core,
        slot: &Slot,
        id: OpId,
        op: Op,
        entry: &Entry,
        memory: Memory,
    ) {
        match self {
            Room::Uring(uring) => uring.start(core, slot, id, op, entry, memory),
            Room::Epoll(epoll) => epoll.start(core, slot, op, entry, memory),
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(fake) => fake.start(core, slot, op, entry, memory),
        }
    }

    /// Reads what is cached, without a wait and without an operation.
    #[inline(always)]
    pub(crate) fn read_cached(&self, entry: &Entry, memory: Memory, offset: u64) -> Option<i32> {
        match self {
            Room::Uring(_) | Room::Epoll(_) => attempt::read_cached(entry, memory, offset),
            // Its descriptors are nobody's.
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => None,
        }
    }

    /// True where [`Room::try_send`] is worth a call.
    #[inline(always)]
    pub(crate) fn tries_sends(&self) -> bool {
        matches!(self, Room::Epoll(_))
    }

    /// Sends on a descriptor that may be ready, for an operation that has not begun.
    #[inline(always)]
    pub(crate) fn try_send(&self, core: &Core, entry: &Entry, bytes: &[u8], all: bool) -> Try {
        match self {
            Room::Epoll(epoll) => epoll.try_send(core, entry, bytes, all),
            _ => Try::Begun(0),
        }
    }

    /// The form of an operation of the user's own that there is beside the closure.
    pub(crate) fn seam(&self) -> Seam {
        match self {
            Room::Uring(_) => Seam::Ring,
            Room::Epoll(_) => Seam::Readiness,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => Seam::Ring,
        }
    }

    /// Where a call finds its `OVERLAPPED`, in a room that has such calls.
    pub(crate) fn overlapped(&self, _: &Slot) -> Option<NonNull<c_void>> {
        match self {
            Room::Uring(_) | Room::Epoll(_) => None,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => None,
        }
    }

    pub(crate) fn restart(&self, core: &Core, slot: &Slot) {
        in_room!(self, kernel => kernel.restart(core, slot));
    }

    pub(crate) fn cancel(&self, core: &Core, slot: &Slot) {
        in_room!(self, kernel => kernel.cancel(core, slot));
    }

    pub(crate) fn cancel_fd(&self, core: &Core, entry: &Entry) {
        in_room!(self, kernel => kernel.cancel_fd(core, entry));
    }

    /// True when the operations on a descriptor must be cancelled one by one, not with `cancel_fd`.
    pub(crate) fn cancels_one_by_one(&self, entry: &Entry) -> bool {
        match self {
            Room::Uring(uring) => uring.cancels_one_by_one(entry),
            _ => false,
        }
    }

    pub(crate) fn close(&self, core: &Core, entry: &Entry, closer: Option<&Slot>) {
        in_room!(self, kernel => kernel.close(core, entry, closer));
    }

    /// A descriptor is given back to the user: nothing is in flight on it.
    pub(crate) fn forget(&self, core: &Core, entry: &Entry) {
        if let Room::Epoll(epoll) = self {
            epoll.forget(core, entry);
        }
    }

    /// True when a wait would return at once because there is something to reap.
    #[inline(always)]
    pub(crate) fn has_work(&self) -> bool {
        in_room!(self, kernel => kernel.has_work())
    }

    /// `Some(ZERO)` does not wait, and need not enter the kernel when there is nothing to submit.
    #[inline(always)]
    pub(crate) fn wait(&self, core: &Core, timeout: Option<Duration>) -> std::io::Result<()> {
        in_room!(self, kernel => kernel.wait(core, timeout))
    }

    #[inline(always)]
    pub(crate) fn reap(&self, core: &Core, on: &mut impl OnCompletion) {
        in_room!(self, kernel => kernel.reap(core, on));
    }

    /// True when entries wait to be taken by the kernel.
    pub(crate) fn has_staged(&self) -> bool {
        match self {
            Room::Uring(uring) => uring.has_staged(),
            _ => false,
        }
    }

    /// Before the room is dropped with nothing in flight, or leaked with something.
    pub(crate) fn retire(&self, core: &Core) {
        if let Room::Uring(_) = self {
            // The buffers must be out of the kernel's ring before the pool's memory goes.
            drop(core.pool.detach());
        }
    }
}
