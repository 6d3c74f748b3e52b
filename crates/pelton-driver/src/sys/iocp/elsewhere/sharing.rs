//! Listeners that several drivers share: the simulated system lets each have one of its own on the same address.

use windows_sys::Win32::Foundation::HANDLE;

use super::Iocp;
use super::accept::Ahead;
use crate::descriptor::Entry;
use crate::sys::RawDescriptor;
use crate::sys::numbers as errno;

#[derive(Default)]
pub(super) struct Shared(());

impl Iocp {
    pub(crate) fn listens(&self, _: RawDescriptor, _: bool) {}

    /// True for a listener whose packets go to another port.
    pub(super) fn is_shared(&self, entry: &Entry) -> bool {
        let Shared(()) = self.shared;
        entry.of_room.by_event.get()
    }

    pub(super) fn unshare(&self, _: &Entry) {}
}

/// There are no events to wait for.
pub(super) enum Signal {}

impl Signal {
    pub(super) fn new() -> Result<Signal, i32> {
        Err(errno::ENOSYS)
    }

    pub(super) fn event(&self) -> HANDLE {
        match *self {}
    }

    pub(super) fn watch(&mut self, _: &Ahead) -> Result<(), i32> {
        match *self {}
    }

    pub(super) fn unwatch(&mut self) {
        match *self {}
    }
}
