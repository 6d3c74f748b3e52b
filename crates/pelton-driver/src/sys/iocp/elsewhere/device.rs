//! The device that sockets are polled through, of a simulated system.

use windows_sys::Win32::Foundation::HANDLE;

use super::afd::{PollInfo, StatusBlock};
use crate::sim::calls as kernel;
use crate::sim::port::Call;
use crate::sim::port_calls as sim;
use crate::sys::RawDescriptor;
use crate::sys::status::Status;

pub(super) struct Device(RawDescriptor);

impl Device {
    /// Opens it. None: this system has none, and no readiness is to be had.
    pub(super) fn open() -> Option<Device> {
        #[cfg(test)]
        if super::win32::REFUSED.get().device {
            return None;
        }
        let device = sim::device();
        (device >= 0).then_some(Device(device))
    }

    pub(super) fn handle(&self) -> HANDLE {
        std::ptr::without_provenance_mut(self.0 as usize)
    }

    /// Asks what `info` says.
    ///
    /// # Safety
    /// Both places are the caller's; where this succeeds they are the kernel's until the packet has come.
    pub(super) unsafe fn poll(&self, block: *mut StatusBlock, info: *mut PollInfo) -> Status {
        // SAFETY: by the caller.
        let socket = unsafe { (*info).socket() };
        let call = Call::Poll(info.cast());
        // SAFETY: by the caller.
        let error =
            unsafe { sim::overlapped(socket, Some(self.0), block.cast(), call, Vec::new()) };
        match error {
            0 => Status::SUCCESS,
            crate::sim::port::PENDING => Status::PENDING,
            _ => Status(0xC000_0008),
        }
    }

    /// Asks a poll to end.
    pub(super) fn cancel(&self, poll: *const StatusBlock) {
        sim::cancel_poll(self.0, poll.cast());
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        kernel::close(self.0);
    }
}

/// There is nothing on top of a simulated socket.
pub(super) fn base_of(socket: usize) -> Result<usize, i32> {
    Ok(socket)
}
