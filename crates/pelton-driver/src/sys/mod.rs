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

use std::time::Duration;

use crate::config::{Backend, Config, Error};
use crate::core::{Core, OnCompletion};
use crate::descriptor::Entry;
use crate::op::Op;
use crate::payload::Memory;
use crate::slot::{OpId, Slot};

#[cfg(unix)]
mod attempt;
#[cfg(unix)]
pub(crate) mod calls;
#[cfg(unix)]
mod descriptor;
#[cfg(unix)]
mod epoll;
#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) mod fake;
#[cfg(unix)]
pub(crate) mod file;
#[cfg(windows)]
mod iocp;
#[cfg(unix)]
pub(crate) mod socket;
#[cfg(any(windows, test))]
#[cfg_attr(not(windows), allow(dead_code, reason = "tested wherever the tests run"))]
mod status;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) mod uring;
#[cfg(windows)]
mod windows;

#[cfg(feature = "sim")]
use attempt::shutdown_arg;
#[cfg(unix)]
pub use descriptor::OwnedDescriptor;
#[cfg(unix)]
pub(crate) use descriptor::own;
#[cfg(all(unix, any(test, feature = "fake-kernel")))]
pub(crate) use unix::part_base;
#[cfg(unix)]
pub(crate) use unix::{
    AddressLength, AddressStorage, MessageHeader, NO_DESCRIPTOR, OfRoom, Part, WakeSource,
    borrow_descriptor, cure, message_header, part, part_len, part_skip, socket_address,
    write_address,
};
#[cfg(unix)]
pub use unix::{BorrowedDescriptor, RawDescriptor, errno};
#[cfg(unix)]
pub(crate) use uring::bufring::BufRing as BufferRing;

#[cfg(windows)]
pub use windows::descriptor::OwnedDescriptor;
#[cfg(windows)]
pub(crate) use windows::descriptor::own;
#[cfg(all(windows, any(test, feature = "fake-kernel")))]
pub(crate) use windows::part_base;
#[cfg(windows)]
pub(crate) use windows::{
    AddressLength, AddressStorage, BufferRing, MessageHeader, NO_DESCRIPTOR, OfRoom, Part,
    WakeSource, borrow_descriptor, calls, file, message_header, part, part_len, part_skip, socket,
    socket_address, write_address,
};
#[cfg(windows)]
pub use windows::{BorrowedDescriptor, RawDescriptor, errno};

/// The kernel that a driver runs on.
// One per driver, never moved after construction: the size of the largest does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Room {
    #[cfg(unix)]
    Uring(uring::Uring),
    #[cfg(unix)]
    Epoll(epoll::Epoll),
    #[cfg(windows)]
    Iocp(iocp::Iocp),
    #[cfg(any(test, feature = "fake-kernel"))]
    Fake(fake::Fake),
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
            #[cfg(unix)]
            Room::Uring($kernel) => $call,
            #[cfg(unix)]
            Room::Epoll($kernel) => $call,
            #[cfg(windows)]
            Room::Iocp($kernel) => $call,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake($kernel) => $call,
        }
    };
}

impl Room {
    /// The room that the settings ask for, or the best that works here and why a better one does not.
    #[cfg(unix)]
    pub(crate) fn choose(config: &Config) -> Result<(Room, Option<String>), Error> {
        let (wanted, simulated) = calls::placed(config.wanted()?);
        match wanted {
            Backend::IoUring => uring::Uring::new(config, simulated)
                .map(|room| (Room::Uring(room), None))
                .map_err(|reason| Error::Unsupported { backend: Backend::IoUring, reason }),
            Backend::Epoll => Room::epoll(config, simulated, None),
            Backend::Iocp => Err(not_here(Backend::Iocp)),
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

    #[cfg(unix)]
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

    /// The room that the settings ask for: there is one.
    #[cfg(windows)]
    pub(crate) fn choose(config: &Config) -> Result<(Room, Option<String>), Error> {
        match calls::placed(config.wanted()?).0 {
            Backend::Auto | Backend::Iocp => Ok((Room::Iocp(iocp::Iocp::new(config)?), None)),
            other => Err(not_here(other)),
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "sim")]
            room if room.is_simulated() => Backend::Sim,
            #[cfg(unix)]
            Room::Uring(_) => Backend::IoUring,
            #[cfg(unix)]
            Room::Epoll(_) => Backend::Epoll,
            #[cfg(windows)]
            Room::Iocp(_) => Backend::Iocp,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => Backend::Auto,
        }
    }

    /// True when the room runs on a simulated system.
    pub(crate) fn is_simulated(&self) -> bool {
        match self {
            #[cfg(unix)]
            Room::Uring(uring) => uring.is_simulated(),
            #[cfg(unix)]
            Room::Epoll(epoll) => epoll.is_simulated(),
            #[cfg(windows)]
            Room::Iocp(_) => false,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => false,
        }
    }

    /// True when the room fills one pooled buffer with several receives.
    pub(crate) fn fills_buffers_piecewise(&self) -> bool {
        match self {
            #[cfg(unix)]
            Room::Uring(uring) => uring.fills_buffers_piecewise(),
            #[cfg(unix)]
            Room::Epoll(_) => true,
            #[cfg(windows)]
            Room::Iocp(_) => true,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => true,
        }
    }

    /// True when descriptors must not block: readiness is tried, not waited for in the kernel.
    pub(crate) fn wants_nonblocking(&self) -> bool {
        self.tries_sends()
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
            #[cfg(unix)]
            Room::Uring(uring) => uring.start(core, slot, id, op, entry, memory),
            #[cfg(unix)]
            Room::Epoll(epoll) => epoll.start(core, slot, op, entry, memory),
            #[cfg(windows)]
            Room::Iocp(iocp) => iocp.start(core, slot, id, op, entry, memory),
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(fake) => fake.start(core, slot, op, entry, memory),
        }
    }

    /// Reads what is cached, without a wait and without an operation.
    #[inline(always)]
    pub(crate) fn read_cached(&self, entry: &Entry, memory: Memory, offset: u64) -> Option<i32> {
        match self {
            #[cfg(unix)]
            Room::Uring(_) | Room::Epoll(_) => attempt::read_cached(entry, memory, offset),
            // Windows cannot say what it has in its cache.
            #[cfg(windows)]
            Room::Iocp(_) => {
                let _ = (entry, memory, offset);
                None
            }
            // Its descriptors are nobody's.
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => None,
        }
    }

    /// True where [`Room::try_send`] is worth a call.
    #[inline(always)]
    pub(crate) fn tries_sends(&self) -> bool {
        match self {
            #[cfg(unix)]
            Room::Epoll(_) => true,
            #[cfg(windows)]
            Room::Iocp(_) => true,
            _ => false,
        }
    }

    /// Sends on a descriptor that may be ready, for an operation that has not begun.
    #[inline(always)]
    pub(crate) fn try_send(&self, core: &Core, entry: &Entry, bytes: &[u8], all: bool) -> Try {
        match self {
            #[cfg(unix)]
            Room::Epoll(epoll) => epoll.try_send(core, entry, bytes, all),
            #[cfg(windows)]
            Room::Iocp(iocp) => iocp.try_send(core, entry, bytes, all),
            _ => Try::Begun(0),
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
            #[cfg(unix)]
            Room::Uring(uring) => uring.cancels_one_by_one(entry),
            // By its own packet's place: all on a handle would be its other owners' operations too.
            #[cfg(windows)]
            Room::Iocp(_) => {
                let _ = entry;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn close(&self, core: &Core, entry: &Entry, closer: Option<&Slot>) {
        in_room!(self, kernel => kernel.close(core, entry, closer));
    }

    /// A descriptor is given back to the user: nothing is in flight on it.
    pub(crate) fn forget(&self, core: &Core, entry: &Entry) {
        match self {
            #[cfg(unix)]
            Room::Epoll(epoll) => epoll.forget(core, entry),
            #[cfg(windows)]
            Room::Iocp(iocp) => iocp.forget(core, entry),
            _ => {}
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
            #[cfg(unix)]
            Room::Uring(uring) => uring.has_staged(),
            _ => false,
        }
    }

    /// Before the room is dropped with nothing in flight, or leaked with something.
    pub(crate) fn retire(&self, core: &Core) {
        match self {
            // The buffers must be out of the kernel's ring before the pool's memory goes.
            #[cfg(unix)]
            Room::Uring(_) => drop(core.pool.detach()),
            #[cfg(windows)]
            Room::Iocp(iocp) => iocp.retire(core),
            _ => {}
        }
    }
}

/// A backend of another system's.
fn not_here(backend: Backend) -> Error {
    let reason = if cfg!(windows) {
        "this is Windows: use `iocp`, or leave it at `auto`"
    } else {
        "it is for Windows: use io_uring or epoll, or leave it at `auto`"
    };
    Error::Unsupported { backend, reason: reason.into() }
}
