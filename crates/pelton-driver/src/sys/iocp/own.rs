//! Operations of the user's own: closures that are called when a socket is ready, and overlapped calls that the user
//! makes with the `OVERLAPPED` of the slot's home.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use super::home::Stage;
use super::stream::nowhere;
use super::{Home, Iocp, Step, errno, file_error};
use crate::core::Core;
use crate::descriptor::Entry;
use crate::op::{Form, Interest};
use crate::seam;
use crate::slot::Slot;
use crate::sys::status::Status;
use crate::sys::windows::{RawDescriptor, raw_of};

impl Iocp {
    /// The `OVERLAPPED` of an operation that is prepared and about to be called. It counts as the kernel's from here
    /// on: only the user knows when the call is made.
    pub(crate) fn overlapped(&self, core: &Core, slot: &Slot) -> io::Result<NonNull<c_void>> {
        let Some(entry) = core.entry_of(slot) else {
            let what =
                "an overlapped call is one on a descriptor: prepare the operation for the one";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        self.associate(core, entry, true).map_err(io::Error::from_raw_os_error)?;
        let home = self.homes.get_or_grow(core.arena.index(slot));
        let home = home.ok_or_else(|| io::Error::from_raw_os_error(errno::ENOBUFS))?;
        // Of an operation before, whose call was never made.
        home.take_back();
        let place = home.give(slot.generation.get(), nowhere());
        NonNull::new(place.cast()).ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Begins an operation of the user's own; a call has been made by now.
    pub(super) fn start_own(
        &self,
        core: &Core,
        slot: &Slot,
        home: &Home,
        entry: &Entry,
        form: Form,
    ) {
        match form {
            Form::Ready(interest) => {
                home.take_back();
                slot.progress.set(u32::from(interest == Interest::Writable));
                self.begin(core, slot, home, entry, None);
            }
            Form::Overlapped => {
                let at_once = slot.progress.get() != 0;
                let is_over =
                    home.stage.get() == Stage::Ended || (at_once && entry.of_room.skips.get());
                if is_over {
                    let (status, bytes) = home.ended();
                    core.counters().completions.add(1);
                    let _ = core.finish(slot, said(entry, status, bytes));
                }
            }
            Form::Entry => unreachable!("the seam refuses entries here"),
        }
    }

    /// Calls the closure.
    pub(super) fn attempt(&self, core: &Core, slot: &Slot, entry: &Entry) -> Step {
        match seam::attempt(core, slot, entry.raw.get()) {
            result if result == -errno::EAGAIN => Step::Wait,
            result => Step::Done(result),
        }
    }
}

/// What an overlapped call of the user's has said, as it is.
pub(super) fn said(entry: &Entry, status: Status, bytes: usize) -> i32 {
    let error = match raw_of(entry) {
        RawDescriptor::Socket(_) => status.socket_error(),
        RawDescriptor::Handle(_) => file_error(status),
    };
    if error == 0 { i32::try_from(bytes).unwrap_or(i32::MAX) } else { -error }
}
