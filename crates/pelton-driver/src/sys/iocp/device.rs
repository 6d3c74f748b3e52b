//! The device below Winsock, `\Device\Afd`, and the calls by which it is opened and asked. They are in no import
//! library, and are looked up when they are first needed.

use std::ffi::c_void;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS};
use windows_sys::Win32::Networking::WinSock::{SIO_BASE_HANDLE, SIO_BSP_HANDLE_POLL, WSAIoctl};

use super::super::numbers as errno;
use super::super::status::Status;
use super::super::windows::calls::socket_error;
use super::afd::{PollInfo, StatusBlock};
use super::lookup::{Found, NTDLL, find};

const IOCTL_AFD_POLL: u32 = 0x0001_2024;

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
    assert!(size_of::<UnicodeString>() == 2 * WORD && size_of::<ObjectAttributes>() == 6 * WORD);
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
            let create = find(NTDLL, c"NtCreateFile")?;
            let control = find(NTDLL, c"NtDeviceIoControlFile")?;
            let cancel = find(NTDLL, c"NtCancelIoFileEx")?;
            // SAFETY: the functions are documented to be of these types.
            unsafe {
                Some(Calls {
                    create: std::mem::transmute::<Found, NtCreateFile>(create),
                    control: std::mem::transmute::<Found, NtDeviceIoControlFile>(control),
                    cancel: std::mem::transmute::<Found, NtCancelIoFileEx>(cancel),
                })
            }
        })
    }
}

/// Where polls are asked of. Closed when it is dropped.
pub(super) struct Device {
    handle: HANDLE,
    calls: Calls,
}

impl Device {
    /// Opens it. None: this system has none, and no readiness is to be had.
    pub(super) fn open() -> Option<Device> {
        let calls = Calls::get()?;
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
        let mut handle = std::ptr::null_mut();
        let mut block = StatusBlock { status: 0, information: 0 };
        // SAFETY: all that it is given lives on during the call, which does not wait.
        let status = unsafe {
            (calls.create)(
                &mut handle,
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
        Status(status as u32).is_success().then_some(Device { handle, calls })
    }

    pub(super) fn handle(&self) -> HANDLE {
        self.handle
    }

    /// Asks what `info` says.
    ///
    /// # Safety
    /// Both places are the caller's; where this succeeds they are the kernel's until the packet has come.
    pub(super) unsafe fn poll(&self, block: *mut StatusBlock, info: *mut PollInfo) -> Status {
        let len = size_of::<PollInfo>() as u32;
        let (none, none_called) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: by the caller. The packet carries the block's address, as the argument for a call that there is
        // none of.
        let status = unsafe {
            (self.calls.control)(
                self.handle,
                none,
                none_called,
                block.cast(),
                block,
                IOCTL_AFD_POLL,
                info.cast(),
                len,
                info.cast(),
                len,
            )
        };
        Status(status as u32)
    }

    /// Asks a poll to end.
    pub(super) fn cancel(&self, poll: *const StatusBlock) {
        let mut block = StatusBlock { status: 0, information: 0 };
        // SAFETY: the device is open; what the pointer says is only compared.
        unsafe { (self.calls.cancel)(self.handle, poll, &mut block) };
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody uses it after this.
        unsafe { windows_sys::Win32::Foundation::CloseHandle(self.handle) };
    }
}

/// The socket of the system below the providers that have been put on top of it.
pub(super) fn base_of(socket: usize) -> Result<usize, i32> {
    let mut last = errno::EINVAL;
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
