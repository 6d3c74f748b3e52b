//! Readiness of sockets, on the same port: `IOCTL_AFD_POLL`, which is what `select` rests on.
//!
//! There is at most one poll of a socket in the kernel, with the union of what its waiters want. It ends once,
//! when anything of that is there, and tells all of them; whoever is left then is polled for again. A waiter
//! that wants more than the poll in the kernel asks for has it cancelled, and its packet starts the next one.
//!
//! What a poll tells was so when it ended, and its packet may come late: by then a receive may have taken what was
//! there. A waiter that came when the poll was in the kernel already, and that does nothing but wait, is therefore
//! told by the next one, which each record counts.
//!
//! A poll belongs to the driver and not to an operation: its record is freed when its packet has come and the
//! socket is closed, in whatever order that happens. The device that is asked is in `device.rs`.

use std::cell::{Cell, RefCell, UnsafeCell};

use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS};

use super::super::numbers as errno;
use super::super::status::Status;
use super::device::{Device, base_of};
use super::port;
use super::region::{FromZero, Region};
use crate::slot::NIL;

/// Bytes to receive, or the peer's end of the stream.
pub(super) const RECEIVE: u32 = 0x01;
pub(super) const RECEIVE_EXPEDITED: u32 = 0x02;
pub(super) const SEND: u32 = 0x04;
pub(super) const DISCONNECT: u32 = 0x08;
pub(super) const ABORT: u32 = 0x10;
pub(super) const LOCAL_CLOSE: u32 = 0x20;
pub(super) const ACCEPT: u32 = 0x80;
pub(super) const CONNECT_FAIL: u32 = 0x100;

/// What makes a socket worth a look of its readers.
pub(super) const READABLE: u32 = RECEIVE | DISCONNECT | ABORT | ACCEPT | CONNECT_FAIL | LOCAL_CLOSE;
/// And of its writers. An abort is told to them too.
pub(super) const WRITABLE: u32 = SEND | ABORT | CONNECT_FAIL | LOCAL_CLOSE;

/// The system's block of a call's end: the first words of an `OVERLAPPED`.
#[repr(C)]
pub(super) struct StatusBlock {
    pub(super) status: usize,
    pub(super) information: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PollInfo {
    timeout: i64,
    handles: u32,
    exclusive: u32,
    handle: HANDLE,
    events: u32,
    status: NTSTATUS,
}

/// As the system's own headers lay them out.
const _: () = {
    const WORD: usize = size_of::<usize>();
    assert!(size_of::<StatusBlock>() == 2 * WORD);
    assert!(size_of::<PollInfo>() == 32 && std::mem::offset_of!(PollInfo, handle) == 16);
    assert!(std::mem::offset_of!(PollInfo, events) == 16 + WORD);
};

#[cfg(pelton_iocp_elsewhere)]
impl PollInfo {
    /// Which socket it asks of.
    pub(super) fn socket(&self) -> crate::sys::RawDescriptor {
        self.handle.addr() as crate::sys::RawDescriptor
    }
}

/// Where a poll is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum At {
    /// Free, or of a socket that nobody waits for.
    Rest = 0,
    /// In the kernel.
    Kernel = 1,
    /// In the kernel, and asked to end.
    Cancelled = 2,
}

/// One poll. Its first words are what the kernel writes, so that a packet leads to it.
#[repr(C)]
pub(super) struct Poll {
    block: UnsafeCell<StatusBlock>,
    info: UnsafeCell<PollInfo>,
    /// The socket below whatever has been put on top of it.
    base: Cell<usize>,
    pub(super) at: Cell<At>,
    /// What the one in the kernel asks for.
    pub(super) asked: Cell<u32>,
    /// How often it has been given to the kernel.
    pub(super) round: Cell<u32>,
    /// The entry of the socket, and its name; no entry where that is closed.
    pub(super) fd: Cell<u32>,
    pub(super) named: Cell<u32>,
    next: Cell<u32>,
}

// SAFETY: numbers, of which zero is `At::Rest`.
unsafe impl FromZero for Poll {}

/// The polls of one driver.
pub(super) struct Polls {
    /// The device, which is associated; none where it was not needed yet, or could not be had.
    device: RefCell<Option<Device>>,
    records: Region<Poll>,
    free: Cell<u32>,
    in_kernel: Cell<u32>,
}

impl Polls {
    pub(super) fn new(capacity: u32) -> Option<Polls> {
        Some(Polls {
            records: Region::new(capacity)?,
            free: Cell::new(NIL),
            device: RefCell::new(None),
            in_kernel: Cell::new(0),
        })
    }

    /// How many are in the kernel.
    pub(super) fn in_kernel(&self) -> u32 {
        self.in_kernel.get()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Poll> {
        self.records.get(number)
    }

    /// The poll that a packet is of.
    pub(super) fn find<P>(&self, pointer: *const P) -> Option<u32> {
        self.records
            .find(pointer)
            .filter(|number| self.get(*number).is_some_and(|poll| poll.at.get() != At::Rest))
    }

    /// A record for a socket.
    ///
    /// # Errors
    /// Readiness cannot be had of this socket, or at all.
    pub(super) fn claim(&self, port: HANDLE, socket: usize) -> Result<u32, i32> {
        self.open(port)?;
        let base = base_of(socket)?;
        let number = match self.records.get(self.free.get()) {
            Some(poll) => self.free.replace(poll.next.get()),
            None => self.records.used(),
        };
        let poll = self.records.get_or_grow(number).ok_or(errno::ENOBUFS)?;
        debug_assert_eq!(poll.at.get(), At::Rest);
        poll.base.set(base);
        Ok(number)
    }

    /// Gives a record back: nothing of it is in the kernel.
    pub(super) fn release(&self, number: u32) {
        if let Some(poll) = self.get(number) {
            debug_assert_eq!(poll.at.get(), At::Rest);
            poll.fd.set(NIL);
            poll.next.set(self.free.replace(number));
        }
    }

    /// Polls for these events.
    ///
    /// # Errors
    /// What the system said. Nothing is in the kernel then.
    pub(super) fn start(&self, poll: &Poll, events: u32) -> Result<(), i32> {
        let device = self.device.borrow();
        let Some(device) = &*device else { return Err(errno::ENOSYS) };
        debug_assert_eq!(poll.at.get(), At::Rest);
        let info = PollInfo {
            timeout: i64::MAX,
            handles: 1,
            exclusive: 0,
            handle: std::ptr::without_provenance_mut(poll.base.get()),
            events,
            status: 0,
        };
        let (block, place) = (poll.block.get(), poll.info.get());
        // SAFETY: the record is at rest, so both places are ours to write; from the call to its packet they are
        // the kernel's, and the record is neither freed nor started again before that. The packet carries the
        // record's address.
        let status = unsafe {
            block.write(StatusBlock { status: Status::PENDING.0 as usize, information: 0 });
            place.write(info);
            device.poll(block, place)
        };
        if !status.is_success() {
            return Err(status.socket_error());
        }
        // Also where it ended at once: the device posts a packet for each.
        poll.at.set(At::Kernel);
        poll.round.set(poll.round.get().wrapping_add(1));
        poll.asked.set(events);
        self.in_kernel.set(self.in_kernel.get() + 1);
        Ok(())
    }

    /// Asks the poll in the kernel to end. Its packet comes in any case.
    pub(super) fn cancel(&self, poll: &Poll) {
        if poll.at.get() != At::Kernel {
            return;
        }
        poll.at.set(At::Cancelled);
        if let Some(device) = &*self.device.borrow() {
            device.cancel(poll.block.get());
        }
    }

    /// The packet of a poll has come: which events there are, or what went wrong. None for one that was
    /// cancelled.
    pub(super) fn ended(&self, poll: &Poll) -> Result<u32, i32> {
        poll.at.set(At::Rest);
        self.in_kernel.set(self.in_kernel.get() - 1);
        // SAFETY: its packet has come: the kernel has written both for the last time.
        let (status, info) =
            unsafe { (Status((*poll.block.get()).status as u32), *poll.info.get()) };
        if status.is_cancelled() {
            return Ok(0);
        }
        match status.socket_error() {
            0 if info.handles == 0 => Ok(0),
            0 => Ok(info.events),
            error => Err(error),
        }
    }

    /// Leaves the records behind for good: the kernel may still write to them.
    pub(super) fn leak(&self) {
        self.records.leak();
    }

    /// Opens the device, if it is not open yet.
    fn open(&self, port: HANDLE) -> Result<(), i32> {
        let mut device = self.device.borrow_mut();
        if device.is_none() {
            let opened = Device::open().ok_or(errno::ENOSYS)?;
            port::associate(port, opened.handle(), false)?;
            *device = Some(opened);
        }
        Ok(())
    }
}
