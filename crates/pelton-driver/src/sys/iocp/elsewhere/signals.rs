//! Waits for handles that are no sockets: the simulated system has none that are signalled.

use super::{Home, Iocp};
use crate::core::Core;
use crate::op::Interest;
use crate::slot::Slot;
use crate::sys::numbers as errno;
use crate::sys::windows::RawDescriptor;

#[derive(Default)]
pub(super) struct Signals(());

impl Signals {
    pub(super) fn over(&self, _: u32) {}
}

impl Iocp {
    pub(super) fn await_signal(
        &self,
        core: &Core,
        slot: &Slot,
        _: &Home,
        _: RawDescriptor,
        _: Interest,
    ) {
        let _ = core.finish(slot, -errno::ENOTSOCK);
    }

    pub(super) fn cancel_signal(&self, _: &Core, _: &Slot, _: &Home) {
        let Signals(()) = self.signals;
    }
}
