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
use std::process::Child;
use std::ptr::NonNull;
use std::time::Duration;

use crate::config::{Backend, Config, Error};
use crate::core::{Core, OnCompletion};
use crate::descriptor::Entry;
use crate::op::Op;
use crate::payload::Memory;
use crate::seam::Seam;
use crate::slot::{OpId, Slot, State};

mod absent;
#[cfg(unix)]
mod attempt;
#[cfg(unix)]
pub(crate) mod calls;
mod choice;
pub(crate) mod control;
#[cfg(unix)]
mod descriptor;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) mod fake;
#[cfg(unix)]
pub(crate) mod file;
#[cfg(any(windows, pelton_iocp_elsewhere))]
mod iocp;
#[cfg(all(unix, any(not(target_os = "linux"), pelton_kqueue_elsewhere, test)))]
mod kqueue;
// The numbers that the room of Windows compares: Windows's, but where it runs elsewhere.
#[cfg(any(pelton_iocp_elsewhere, all(test, not(windows))))]
#[cfg_attr(pelton_iocp_elsewhere, path = "iocp/elsewhere/numbers.rs")]
#[cfg_attr(not(pelton_iocp_elsewhere), path = "windows/errno.rs")]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "not all are compared everywhere")]
mod numbers;
#[cfg(unix)]
pub(crate) mod pipe;
#[cfg(unix)]
mod readiness;
#[cfg(unix)]
mod sendfile;
#[cfg(unix)]
pub(crate) mod socket;
#[cfg(any(windows, test, pelton_iocp_elsewhere))]
#[cfg_attr(not(windows), allow(dead_code, reason = "tested wherever the tests run"))]
mod status;
#[cfg(any(windows, test))]
#[cfg_attr(not(windows), allow(dead_code, reason = "tested wherever the tests run"))]
mod unique;
#[cfg(unix)]
mod unix;
#[cfg(target_os = "linux")]
pub(crate) mod uring;
#[cfg(any(windows, pelton_iocp_elsewhere))]
#[cfg_attr(pelton_iocp_elsewhere, path = "iocp/elsewhere/windows.rs")]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

#[cfg(feature = "sim")]
use attempt::shutdown_arg;
pub(crate) use choice::BufferRing;
#[cfg(any(test, feature = "fake-kernel", feature = "sim"))]
pub(crate) use system::end_message;
#[cfg(any(test, feature = "fake-kernel"))]
pub(crate) use system::part_base;
pub(crate) use system::watch as system_watch;
pub(crate) use system::{
    AddressFamily, AddressLength, AddressStorage, FAMILY_AT, MessageEnd, MessageHeader,
    NO_DESCRIPTOR, OfRoom, Part, WakeSource, borrow_descriptor, cure, keep_from_programs,
    message_end, message_header, name_message, own, part, part_len, part_skip, read_cached,
    received_descriptors, recv_now, send_now, socket_address, write_address,
};
pub use system::{BorrowedDescriptor, OwnedDescriptor, RawDescriptor, errno};
#[cfg(windows)]
use windows::errno as numbers;
#[cfg(windows)]
pub(crate) use windows::{calls, file, pipe, socket};

/// The kernel that a driver runs on. Those that this system has not got cannot be made.
// One per driver, never moved after construction: the size of the largest does not matter.
#[allow(clippy::large_enum_variant)]
#[repr(C, u8)] // What it is stands before what it is made of, and not somewhere in the middle.
#[allow(dead_code, reason = "no system makes all of them")]
pub(crate) enum Room {
    Uring(choice::Uring),
    Epoll(choice::Epoll),
    Kqueue(choice::Kqueue),
    Iocp(choice::Iocp),
    #[cfg(any(test, feature = "fake-kernel"))]
    Fake(fake::Fake),
}

/// What a tick asks of a room: a tick is compiled once for each, so that it finds out once which one it has.
pub(crate) trait Ticks {
    /// True when a wait would return at once because there is something to reap.
    fn has_work(&self) -> bool;

    /// `Some(ZERO)` does not wait, and need not enter the kernel when there is nothing to submit.
    fn wait(&self, core: &Core, timeout: Option<Duration>) -> std::io::Result<()>;

    /// Dispatches what has completed.
    fn reap(&self, core: &Core, on: &mut impl OnCompletion);
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

/// Whatever room it is, with its own type.
macro_rules! in_room {
    ($room:expr, $kernel:ident => $call:expr) => {
        match $room {
            $crate::sys::Room::Uring($kernel) => $call,
            $crate::sys::Room::Epoll($kernel) => $call,
            $crate::sys::Room::Kqueue($kernel) => $call,
            $crate::sys::Room::Iocp($kernel) => $call,
            #[cfg(any(test, feature = "fake-kernel"))]
            $crate::sys::Room::Fake($kernel) => $call,
        }
    };
}

pub(crate) use in_room;

impl Room {
    /// The room that the settings ask for, or the best that works here and why a better one does not.
    pub(crate) fn choose(config: &Config) -> Result<(Room, Option<String>), Error> {
        let (wanted, simulated) = calls::placed(config.wanted()?);
        choice::open(wanted, config, simulated)
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "sim")]
            room if room.is_simulated() => Backend::Sim,
            Room::Uring(_) => Backend::IoUring,
            Room::Epoll(_) => Backend::Epoll,
            Room::Kqueue(_) => Backend::Kqueue,
            Room::Iocp(_) => Backend::Iocp,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => Backend::Auto,
        }
    }

    /// True when the room runs on a simulated system.
    pub(crate) fn is_simulated(&self) -> bool {
        in_room!(self, kernel => kernel.is_simulated())
    }

    /// True when the room fills one pooled buffer with several receives.
    pub(crate) fn fills_buffers_piecewise(&self) -> bool {
        match self {
            Room::Uring(uring) => uring.fills_buffers_piecewise(),
            _ => true,
        }
    }

    /// True when descriptors must not block: readiness is tried, not waited for in the kernel.
    pub(crate) fn wants_nonblocking(&self) -> bool {
        self.tries_sends()
    }

    /// What other threads break its wait with.
    pub(crate) fn wake_source(&self) -> std::io::Result<WakeSource> {
        match self {
            Room::Kqueue(kqueue) => kqueue.wake_source(),
            Room::Iocp(iocp) => iocp.wake_source(),
            _ => WakeSource::new(self.is_simulated()),
        }
    }

    pub(crate) fn prepare(&self, core: &Core) -> Result<(), Error> {
        in_room!(self, kernel => kernel.prepare(core))
    }

    /// True where the operation has ended already, and nobody is told of it.
    #[inline(always)]
    pub(crate) fn start(
        &self,
        core: &Core,
        slot: &Slot,
        id: OpId,
        op: Op,
        entry: &Entry,
        memory: Memory,
    ) -> bool {
        match self {
            Room::Uring(uring) => {
                uring.start(core, slot, id, op, entry, memory);
                // Nothing ends before the kernel is entered, but for what says so itself.
                false
            }
            Room::Epoll(epoll) => epoll.start(core, slot, id, op, entry, memory),
            Room::Kqueue(kqueue) => kqueue.start(core, slot, id, op, entry, memory),
            Room::Iocp(iocp) => {
                iocp.start(core, slot, id, op, entry, memory);
                slot.state.get() == State::Done
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(fake) => {
                fake.start(core, slot, id, op, entry, memory);
                false
            }
        }
    }

    /// Reads what is cached, without a wait and without an operation.
    #[inline(always)]
    pub(crate) fn read_cached(&self, entry: &Entry, memory: Memory, offset: u64) -> Option<i32> {
        match self {
            // Its descriptors are nobody's.
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => None,
            Room::Iocp(_) => None,
            _ => read_cached(entry, memory, offset),
        }
    }

    /// True where [`Room::try_send`] is worth a call.
    #[inline(always)]
    pub(crate) fn tries_sends(&self) -> bool {
        matches!(self, Room::Epoll(_) | Room::Kqueue(_) | Room::Iocp(_))
    }

    /// Sends on a descriptor that may be ready, for an operation that has not begun.
    #[inline(always)]
    pub(crate) fn try_send(&self, core: &Core, entry: &Entry, bytes: &[u8], all: bool) -> Try {
        match self {
            Room::Epoll(epoll) => epoll.try_send(core, entry, bytes, all),
            Room::Kqueue(kqueue) => kqueue.try_send(core, entry, bytes, all),
            Room::Iocp(iocp) => iocp.try_send(core, entry, bytes, all),
            _ => Try::Begun(0),
        }
    }

    /// The form of an operation of the user's own that there is beside the closure.
    pub(crate) fn seam(&self) -> Seam {
        match self {
            Room::Uring(_) => Seam::Ring,
            Room::Epoll(_) | Room::Kqueue(_) => Seam::Readiness,
            Room::Iocp(_) => Seam::Overlapped,
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(_) => Seam::Ring,
        }
    }

    /// Where a call finds its `OVERLAPPED`, in a room that has such calls.
    pub(crate) fn overlapped(&self, core: &Core, slot: &Slot) -> std::io::Result<NonNull<c_void>> {
        if let Room::Iocp(iocp) = self {
            return iocp.overlapped(core, slot);
        }
        let what = "overlapped calls are those of IOCP: use the closure, `Prepared::submit_when`";
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, what))
    }

    /// The result of a call that sent from a file has come home from the blocking pool.
    pub(crate) fn file_sent(
        &self,
        core: &Core,
        slot: &Slot,
        result: i32,
        on: &mut dyn OnCompletion,
    ) {
        match self {
            Room::Epoll(epoll) => epoll.file_sent(core, slot, result, on),
            Room::Kqueue(kqueue) => kqueue.file_sent(core, slot, result, on),
            _ => core.finish_now(slot, result, on),
        }
    }

    pub(crate) fn restart(&self, core: &Core, slot: &Slot) {
        in_room!(self, kernel => kernel.restart(core, slot));
    }

    pub(crate) fn cancel(&self, core: &Core, slot: &Slot) {
        in_room!(self, kernel => kernel.cancel(core, slot));
    }

    pub(crate) fn cancel_fd(&self, core: &Core, entry: &Entry) {
        match self {
            Room::Epoll(epoll) => epoll.cancel_fd(core, entry),
            Room::Kqueue(kqueue) => kqueue.cancel_fd(core, entry),
            Room::Uring(_) | Room::Iocp(_) => unreachable!("operations are cancelled one by one"),
            #[cfg(any(test, feature = "fake-kernel"))]
            Room::Fake(fake) => fake.cancel_fd(core, entry),
        }
    }

    /// True when the operations on a descriptor must be cancelled one by one, not with `cancel_fd`: where the
    /// kernel has them. It would go by the open file, which a duplicate of the descriptor shares, and on io_uring
    /// it would not say which ones it has not found.
    pub(crate) fn cancels_one_by_one(&self) -> bool {
        matches!(self, Room::Uring(_) | Room::Iocp(_))
    }

    pub(crate) fn close(&self, core: &Core, entry: &Entry, closer: Option<&Slot>) {
        in_room!(self, kernel => kernel.close(core, entry, closer));
    }

    /// A descriptor is given back to the user: nothing is in flight on it.
    pub(crate) fn forget(&self, core: &Core, entry: &Entry) {
        match self {
            Room::Epoll(epoll) => epoll.forget(core, entry),
            Room::Kqueue(kqueue) => kqueue.forget(core, entry),
            Room::Iocp(iocp) => iocp.forget(core, entry),
            _ => {}
        }
    }

    /// Something that is readable when a child has ended; none where it has ended already.
    pub(crate) fn watch_child(&self, child: &Child) -> std::io::Result<Option<OwnedDescriptor>> {
        match self {
            Room::Kqueue(kqueue) => kqueue.watch_child(child),
            _ => system::watch::child(child),
        }
    }

    /// A listener has been made for this driver, and is in its table, or there was no room.
    pub(crate) fn listens(&self, raw: RawDescriptor, is_kept: bool) {
        if let Room::Iocp(iocp) = self {
            iocp.listens(raw, is_kept);
        }
    }

    /// A socket has been shut down on the spot.
    pub(crate) fn shut(&self, core: &Core, fd: u32, entry: &Entry, how: std::net::Shutdown) {
        if let Room::Iocp(iocp) = self {
            iocp.shut(core, fd, entry, how);
        }
    }

    /// See [`Ticks::has_work`].
    #[cfg(feature = "sim")]
    pub(crate) fn has_work(&self) -> bool {
        in_room!(self, kernel => kernel.has_work())
    }

    /// See [`Ticks::wait`].
    pub(crate) fn wait(&self, core: &Core, timeout: Option<Duration>) -> std::io::Result<()> {
        in_room!(self, kernel => kernel.wait(core, timeout))
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
        match self {
            // The buffers must be out of the kernel's ring before the pool's memory goes.
            Room::Uring(_) => drop(core.pool.detach()),
            Room::Iocp(iocp) => iocp.retire(core),
            _ => {}
        }
    }
}
