//! Winsock is started once for the process, and stays.

use std::io;
use std::sync::OnceLock;

use windows_sys::Win32::Networking::WinSock::{WSADATA, WSAStartup};

use super::super::errno;

const VERSION: u16 = 0x0202;

/// Starts Winsock, if this process has not done so through here.
///
/// # Errors
/// It cannot be had, or not in the version that everything here rests on.
pub(crate) fn ensure() -> io::Result<()> {
    static STARTED: OnceLock<i32> = OnceLock::new();
    let error = *STARTED.get_or_init(|| {
        // SAFETY: plain data, for which all zeros are as good as anything.
        let mut data: WSADATA = unsafe { std::mem::zeroed() };
        // SAFETY: the data is ours to be filled. Winsock counts its starts, and this one is never taken back:
        // sockets may outlive every driver.
        match unsafe { WSAStartup(VERSION, &mut data) } {
            0 if data.wVersion != VERSION => errno::WSAVERNOTSUPPORTED,
            error => error,
        }
    });
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}
