//! The completion port: what is associated with it, and how packets come out of it in batches.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::time::Duration;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_ENTRY};
use windows_sys::Win32::System::Threading::INFINITE;
use windows_sys::Win32::System::WindowsProgramming::{
    FILE_SKIP_COMPLETION_PORT_ON_SUCCESS, FILE_SKIP_SET_EVENT_ON_HANDLE,
};

use super::super::numbers as errno;
use super::super::windows::KEY_ROOM;
use super::super::windows::calls::system_error;
#[cfg(pelton_mutants)]
use super::win32;
use super::win32::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatusEx,
    SetFileCompletionNotificationModes,
};

const BATCH: usize = 256;

// The layout that the system fills: four words, the last of them half used.
const _: () = {
    assert!(size_of::<OVERLAPPED_ENTRY>() == 4 * size_of::<usize>());
    assert!(
        std::mem::offset_of!(OVERLAPPED_ENTRY, dwNumberOfBytesTransferred)
            == 3 * size_of::<usize>()
    );
};

/// One packet, as far as it is looked at: the rest of it is read from the operation itself.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    pub(super) key: usize,
    pub(super) overlapped: *mut OVERLAPPED,
    /// What the packet itself says of how it went, which nobody promises.
    #[cfg(pelton_mutants)]
    pub(super) status: u32,
}

#[cfg(pelton_mutants)]
fn said(packet: &OVERLAPPED_ENTRY) -> u32 {
    packet.Internal as u32
}

/// The packets of one wait.
pub(super) struct Batch {
    entries: UnsafeCell<Vec<OVERLAPPED_ENTRY>>,
    /// How many the last wait has brought, and how many of those have been taken.
    filled: Cell<usize>,
    taken: Cell<usize>,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            entries: UnsafeCell::new(vec![OVERLAPPED_ENTRY::default(); BATCH]),
            filled: Cell::new(0),
            taken: Cell::new(0),
        }
    }

    /// True when some have come and were not taken: a callback has panicked in the middle of a batch.
    pub(super) fn has_left(&self) -> bool {
        self.taken.get() < self.filled.get()
    }

    pub(super) fn next(&self) -> Option<Packet> {
        let at = self.taken.get();
        if at >= self.filled.get() {
            return None;
        }
        self.taken.set(at + 1);
        // SAFETY: one thread; it is copied, and the reference ends here.
        let entry = unsafe { &(&*self.entries.get())[at] };
        Some(Packet {
            key: entry.lpCompletionKey,
            overlapped: entry.lpOverlapped,
            #[cfg(pelton_mutants)]
            status: said(entry),
        })
    }

    /// Waits for packets.
    ///
    /// # Errors
    /// The system refused for a reason that is none of those which only say that nothing has come.
    pub(super) fn wait(&self, port: HANDLE, timeout: Option<Duration>) -> io::Result<()> {
        self.filled.set(0);
        self.taken.set(0);
        let mut n = 0;
        // SAFETY: one thread, and no other code runs while this reference lives.
        let entries = unsafe { &mut *self.entries.get() };
        // Not alertable: nobody's calls run inside of the wait.
        // SAFETY: the port is open, and the entries are ours to be filled, as many as is said.
        let came = unsafe {
            GetQueuedCompletionStatusEx(
                port,
                entries.as_mut_ptr(),
                entries.len() as u32,
                &mut n,
                milliseconds(timeout),
                0,
            )
        };
        if came != 0 {
            self.filled.set((n as usize).min(entries.len()));
            return Ok(());
        }
        // What `n` says then is not to be trusted.
        match system_error() {
            0 | errno::WAIT_TIMEOUT | errno::WAIT_IO_COMPLETION => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The timeout as the system takes it. Rounded up: a wait that is cut to nothing would spin until its timer is
/// due. One that is too long for the system is as long as it can be, which is not for ever.
fn milliseconds(timeout: Option<Duration>) -> u32 {
    let Some(timeout) = timeout else { return INFINITE };
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    u32::try_from(millis).unwrap_or(INFINITE).min(INFINITE - 1)
}

/// Has everything on a handle complete at the port, from now on and for good. With `skip`, successes that come
/// at once post no packet; says whether the system agreed to that.
///
/// # Errors
/// It is associated already, with this port or another (`ERROR_INVALID_PARAMETER`, which is also what a handle
/// gets whose calls wait), or it is no handle for that.
pub(super) fn associate(port: HANDLE, handle: HANDLE, skip: bool) -> Result<bool, i32> {
    // SAFETY: plain arguments, both open.
    if unsafe { CreateIoCompletionPort(handle, port, KEY_ROOM, 0) }.is_null() {
        return Err(system_error());
    }
    let modes = modes(skip);
    // SAFETY: as above.
    let set = unsafe { SetFileCompletionNotificationModes(handle, modes) } != 0;
    Ok(set && skip)
}

/// Nobody waits for the handle's own event. Packets are left out only where that was asked for.
fn modes(skip: bool) -> u8 {
    let skip = if skip { FILE_SKIP_COMPLETION_PORT_ON_SUCCESS } else { 0 };
    (FILE_SKIP_SET_EVENT_ON_HANDLE | skip) as u8
}

/// Asks for the end of one call. Whatever the system says to that, the call ends by its own packet: where it
/// finds none to cancel the packet is on its way.
///
/// Says whether it was found, which decides nothing.
pub(super) fn cancel(handle: HANDLE, overlapped: *const OVERLAPPED) -> bool {
    #[cfg(pelton_mutants)]
    if mutant!("iocp-cancel-by-thread") {
        // SAFETY: as below.
        return unsafe { win32::CancelIo(handle) } != 0;
    }
    // SAFETY: the handle is open, because an operation in flight keeps it so; the pointer is only compared.
    unsafe { CancelIoEx(handle, overlapped) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(windows)]
    use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;

    #[test]
    fn a_timeout_is_rounded_up_and_never_for_ever_by_mistake() {
        assert_eq!(milliseconds(None), INFINITE);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_micros(1001))), 2);
        assert_eq!(milliseconds(Some(Duration::MAX)), INFINITE - 1);
        assert_eq!(milliseconds(Some(Duration::from_millis(u64::from(INFINITE)))), INFINITE - 1);
    }

    #[test]
    fn handles_of_users_keep_all_their_packets() {
        assert_eq!(u32::from(modes(false)), FILE_SKIP_SET_EVENT_ON_HANDLE);
        assert_ne!(u32::from(modes(true)) & FILE_SKIP_COMPLETION_PORT_ON_SUCCESS, 0);
    }

    #[test]
    #[cfg(windows)] // A simulated system has ports in its worlds alone.
    fn a_wait_for_nothing_is_no_error_and_one_on_no_port_is() {
        // SAFETY: plain arguments.
        let port =
            unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, std::ptr::null_mut(), 0, 1) };
        let batch = Batch::new();
        batch.wait(port, Some(Duration::ZERO)).unwrap();
        assert!(!batch.has_left() && batch.next().is_none());
        // SAFETY: it is ours.
        unsafe { windows_sys::Win32::Foundation::CloseHandle(port) };
        assert!(batch.wait(port, Some(Duration::ZERO)).is_err());
    }
}
