//! Readiness of sockets, on the same port: `IOCTL_AFD_POLL`, which is what `select` rests on.
//!
//! There is at most one poll of a socket in the kernel, with the union of what its waiters want. It ends once,
//! when anything of that is there, and tells all of them; whoever is left then is polled for again. A waiter
//! that wants more than the poll in the kernel asks for has it cancelled, and its packet starts the next one.
//!
//! A poll belongs to the driver and not to an operation: its record is freed when its packet has come and the
//! socket is closed, in whatever order that happens. The calls are not in any import library and are looked up
//! when they are first needed.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS};
use windows_sys::Win32::Networking::WinSock::{SIO_BASE_HANDLE, SIO_BSP_HANDLE_POLL, WSAIoctl};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};

use super::super::errno;
use super::super::status::Status;
use super::super::windows::calls::socket_error;
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

const IOCTL_AFD_POLL: u32 = 0x0001_2024;

/// The system's block of a call's end: the first words of an `OVERLAPPED`.
#[repr(C)]
struct StatusBlock {
    status: usize,
    information: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct PollInfo {
    timeout: i64,
    handles: u32,
    exclusive: u32,
    handle: HANDLE,
    events: u32,
    status: NTSTATUS,
}

#[repr(C)]
struct UnicodeString {
    length: u16,
    maximum_length: u16,
    buffer: *const u16,
}

#[repr(C)]
struct ObjectAttributes {
    length: u32,
    root: HANDLE,
    name: *const UnicodeString,
    attributes: u32,
    security: *const c_void,
    quality: *const c_void,
}

/// As the system's own headers lay them out.
const _: () = {
    const WORD: usize = size_of::<usize>();
    assert!(size_of::<StatusBlock>() == 2 * WORD && size_of::<UnicodeString>() == 2 * WORD);
    assert!(size_of::<PollInfo>() == 32 && std::mem::offset_of!(PollInfo, handle) == 16);
    assert!(std::mem::offset_of!(PollInfo, events) == 16 + WORD);
    assert!(size_of::<ObjectAttributes>() == 6 * WORD);
};

type NtCreateFile = unsafe extern "system" fn(
    *mut HANDLE,
    u32,
    *const ObjectAttributes,
    *mut StatusBlock,
    *const i64,
    u32,
    u32,
    u32,
    u32,
    *const c_void,
    u32,
) -> NTSTATUS;
type NtDeviceIoControlFile = unsafe extern "system" fn(
    HANDLE,
    HANDLE,
    *const c_void,
    *mut c_void,
    *mut StatusBlock,
    u32,
    *const c_void,
    u32,
    *mut c_void,
    u32,
) -> NTSTATUS;
type NtCancelIoFileEx =
    unsafe extern "system" fn(HANDLE, *const StatusBlock, *mut StatusBlock) -> NTSTATUS;

/// A function as it is found, whose type is not known.
type Found = unsafe extern "system" fn() -> isize;

/// The calls, by their names in the system's own library.
#[derive(Clone, Copy)]
struct Calls {
    create: NtCreateFile,
    control: NtDeviceIoControlFile,
    cancel: NtCancelIoFileEx,
}

impl Calls {
    fn get() -> Option<Calls> {
        static FOUND: OnceLock<Option<Calls>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let name: Vec<u16> = "ntdll.dll\0".encode_utf16().collect();
            // SAFETY: a name that ends; the library is in every process and stays.
            let library = unsafe { GetModuleHandleW(name.as_ptr()) };
            if library.is_null() {
                return None;
            }
            // SAFETY: names that end; the functions are documented to be of these types.
            unsafe {
                let find = |name: &[u8]| GetProcAddress(library, name.as_ptr());
                Some(Calls {
                    create: std::mem::transmute::<Found, NtCreateFile>(find(b"NtCreateFile\0")?),
                    control: std::mem::transmute::<Found, NtDeviceIoControlFile>(find(
                        b"NtDeviceIoControlFile\0",
                    )?),
                    cancel: std::mem::transmute::<Found, NtCancelIoFileEx>(find(
                        b"NtCancelIoFileEx\0",
                    )?),
                })
            }
        })
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
    /// The entry of the socket, and its name; no entry where that is closed.
    pub(super) fd: Cell<u32>,
    pub(super) named: Cell<u32>,
    next: Cell<u32>,
}

// SAFETY: numbers, of which zero is `At::Rest`.
unsafe impl FromZero for Poll {}

/// The polls of one driver.
pub(super) struct Polls {
    records: Region<Poll>,
    free: Cell<u32>,
    /// The device, and whether it is associated; none where it could not be had.
    device: Cell<Option<HANDLE>>,
    in_kernel: Cell<u32>,
}

impl Polls {
    pub(super) fn new(capacity: u32) -> Option<Polls> {
        Some(Polls {
            records: Region::new(capacity)?,
            free: Cell::new(NIL),
            device: Cell::new(None),
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
        let (Some(calls), Some(device)) = (Calls::get(), self.device.get()) else {
            return Err(errno::ENOSYS);
        };
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
        let len = size_of::<PollInfo>() as u32;
        // SAFETY: the record is at rest, so both places are ours to write; from the call to its packet they are
        // the kernel's, and the record is neither freed nor started again before that. The packet carries the
        // record's address, as the argument for a call that there is none of.
        let status = unsafe {
            block.write(StatusBlock { status: Status::PENDING.0 as usize, information: 0 });
            place.write(info);
            (calls.control)(
                device,
                std::ptr::null_mut(),
                std::ptr::null(),
                block.cast(),
                block,
                IOCTL_AFD_POLL,
                place.cast(),
                len,
                place.cast(),
                len,
            )
        };
        let status = Status(status as u32);
        if !status.is_success() {
            return Err(status.socket_error());
        }
        // Also where it ended at once: the device posts a packet for each.
        poll.at.set(At::Kernel);
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
        if let (Some(calls), Some(device)) = (Calls::get(), self.device.get()) {
            let mut block = StatusBlock { status: 0, information: 0 };
            // SAFETY: the device is open as long as this lives; the record is the one that was started.
            unsafe { (calls.cancel)(device, poll.block.get(), &mut block) };
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
        if self.device.get().is_some() {
            return Ok(());
        }
        let calls = Calls::get().ok_or(errno::ENOSYS)?;
        let name: Vec<u16> = "\\Device\\Afd\\Pelton".encode_utf16().collect();
        let bytes = (name.len() * 2) as u16;
        let name = UnicodeString { length: bytes, maximum_length: bytes, buffer: name.as_ptr() };
        let attributes = ObjectAttributes {
            length: size_of::<ObjectAttributes>() as u32,
            root: std::ptr::null_mut(),
            name: &name,
            attributes: 0,
            security: std::ptr::null(),
            quality: std::ptr::null(),
        };
        const SYNCHRONIZE: u32 = 0x0010_0000;
        const SHARE_READ_WRITE: u32 = 3;
        const OPEN: u32 = 1;
        let mut device = std::ptr::null_mut();
        let mut block = StatusBlock { status: 0, information: 0 };
        // SAFETY: all that it is given lives on during the call, which does not wait.
        let status = unsafe {
            (calls.create)(
                &mut device,
                SYNCHRONIZE,
                &attributes,
                &mut block,
                std::ptr::null(),
                0,
                SHARE_READ_WRITE,
                OPEN,
                0,
                std::ptr::null(),
                0,
            )
        };
        if !Status(status as u32).is_success() {
            // There is no such device: readiness cannot be had on this system.
            return Err(errno::ENOSYS);
        }
        if let Err(error) = port::associate(port, device, false) {
            close(device);
            return Err(error);
        }
        self.device.set(Some(device));
        Ok(())
    }
}

impl Drop for Polls {
    fn drop(&mut self) {
        if let Some(device) = self.device.get() {
            close(device);
        }
    }
}

fn close(device: HANDLE) {
    // SAFETY: it is ours, and nobody uses it after this.
    unsafe { windows_sys::Win32::Foundation::CloseHandle(device) };
}

/// The socket of the system below the providers that have been put on top of it.
fn base_of(socket: usize) -> Result<usize, i32> {
    let mut last = 0;
    for question in [SIO_BASE_HANDLE, SIO_BSP_HANDLE_POLL] {
        let (mut base, mut n) = (0_usize, 0);
        // SAFETY: the result is ours, of the size that is said, and the call returns at once.
        let failed = unsafe {
            WSAIoctl(
                socket,
                question,
                std::ptr::null(),
                0,
                (&raw mut base).cast(),
                size_of::<usize>() as u32,
                &mut n,
                std::ptr::null_mut(),
                None,
            )
        };
        if failed == 0 {
            return Ok(base);
        }
        last = socket_error();
    }
    Err(last)
}
