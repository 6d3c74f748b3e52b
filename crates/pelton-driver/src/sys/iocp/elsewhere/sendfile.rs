//! Sending from a file: the simulated system has no `TransmitFile`, and says so.

use super::home::Home;
use super::{Iocp, errno};
use crate::core::{Core, OnCompletion};
use crate::descriptor::Entry;
use crate::slot::Slot;
use crate::sys::status::Status;

impl Iocp {
    pub(super) fn begin_send_file(&self, core: &Core, slot: &Slot, _: &Home, _: &Entry) {
        let _ = core.finish(slot, -errno::ENOSYS);
    }

    pub(super) fn file_sent(
        &self,
        core: &Core,
        slot: &Slot,
        _: &Home,
        _: &Entry,
        _: (Status, usize),
        on: &mut impl OnCompletion,
    ) {
        core.finish_now(slot, -errno::ENOSYS, on);
    }
}
