//! Where the kernel keeps its word of an operation: an `OVERLAPPED`, beside the slot and with its number.
//!
//! # Who may touch what, and when
//!
//! A slot has 64 bytes and no room for the 32 of an `OVERLAPPED`, so the homes are an arena of their own in
//! which the place of a slot's home is the slot's number. An operation has at most one call in the kernel at a
//! time, except for accepts (`accept.rs`).
//!
//! - **idle**: the home is the room's. It is zeroed before each call, because the kernel looks at all of it.
//! - **in the kernel**: from a call that posts a packet to that packet's dispatch. The kernel writes to the
//!   `OVERLAPPED`, and nobody else reads or writes it. The slot is busy or an orphan all this time, so it
//!   cannot be released, and so neither it nor its home can be used for anything else. Cancelling changes none
//!   of that, not even where the system says that there is nothing to cancel: its packet is on the way then.
//! - **listed**: nothing is in the kernel, and the operation goes on at the next tick.
//! - **ended**: the packet of a call that the user makes has come before the user has said that it was made.
//!
//! The home remembers the generation of the slot for which it went into the kernel. A packet for a home that
//! is not there, or of a slot that is of another generation, is counted as stale and dropped.

use std::cell::{Cell, UnsafeCell};

use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0};

use super::region::FromZero;
use crate::sys::status::Status;

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Idle = 0,
    InKernel = 1,
    Listed = 2,
    Ended = 3,
}

/// The home of one slot.
#[repr(C, align(64))]
pub(super) struct Home {
    overlapped: UnsafeCell<OVERLAPPED>,
    pub(super) generation: Cell<u32>,
    pub(super) stage: Cell<Stage>,
    /// Accepts: how many are in the kernel, the first of them, and the family of their sockets.
    pub(super) ahead: Cell<u32>,
    pub(super) first_ahead: Cell<u32>,
    pub(super) family: Cell<i32>,
    /// Accepts: what they end with, or 0.
    pub(super) error: Cell<i32>,
    /// Polls: the first of the socket's polls in the kernel that may tell of it.
    pub(super) round: Cell<u32>,
    /// What a receive says of what it has received, which the kernel may write when it ends.
    pub(super) recv_flags: UnsafeCell<u32>,
}

// The kernel is given pointers to the start.
const _: () = assert!(std::mem::offset_of!(Home, overlapped) == 0 && size_of::<Home>() == 64);

// SAFETY: numbers, of which zero is `Stage::Idle`, and an `OVERLAPPED`, for which zero says that it is idle.
unsafe impl FromZero for Home {}

impl Home {
    /// Empties the `OVERLAPPED` for a call on a slot of this generation, and gives it to the kernel.
    ///
    /// The call must follow at once. Where it posts no packet, [`Home::take_back`].
    #[inline]
    pub(super) fn give(&self, generation: u32, at: OVERLAPPED_0) -> *mut OVERLAPPED {
        debug_assert_ne!(self.stage.get(), Stage::InKernel, "one call is in the kernel at a time");
        self.generation.set(generation);
        self.stage.set(Stage::InKernel);
        let overlapped = self.overlapped.get();
        // SAFETY: the home was idle: no kernel looks at it.
        unsafe { overlapped.write(OVERLAPPED { Anonymous: at, ..OVERLAPPED::default() }) };
        overlapped
    }

    /// The call has posted nothing: the home is the room's again.
    #[inline]
    pub(super) fn take_back(&self) {
        self.stage.set(Stage::Idle);
    }

    /// Where it is, to cancel what is there.
    pub(super) fn overlapped(&self) -> *const OVERLAPPED {
        self.overlapped.get()
    }

    /// How the call has ended whose packet has come, or that has succeeded at once: its status and how many
    /// bytes.
    #[inline]
    pub(super) fn ended(&self) -> (Status, usize) {
        self.stage.set(Stage::Idle);
        // SAFETY: its packet has come, or there will be none: the kernel has written it for the last time.
        let overlapped = unsafe { &*self.overlapped.get() };
        // The status is the low word: the rest is not written on every system.
        (Status(overlapped.Internal as u32), overlapped.InternalHigh)
    }
}
