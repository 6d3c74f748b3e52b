//! Sending from a file to a socket that does not block, on a thread that may wait for the disk.

use super::calls;
use super::unix::{RawDescriptor, errno, native};

/// How many bytes are copied at a time where the system does not send from files by itself.
const COPIED: usize = 64 * 1024;

/// Sends at most `len` bytes of a file from `offset` on: how many, 0 at its end, or a negated error. `EAGAIN`: the
/// socket has no room.
///
/// # Safety
/// Both descriptors are open.
pub(super) unsafe fn send(
    socket: RawDescriptor,
    file: RawDescriptor,
    offset: u64,
    len: u32,
) -> i32 {
    if !calls::is_simulated(socket) && !calls::is_simulated(file) {
        match native::send_file(socket, file, offset, len) {
            // There is no such call, or not for what this file is of.
            error if matches!(-error, errno::ENOSYS | errno::EINVAL | errno::EOPNOTSUPP) => {}
            result => return result,
        }
    }
    let mut bytes = vec![0; COPIED.min(len as usize)];
    // SAFETY: the file is open, by the caller, and the memory is ours.
    let n = unsafe { calls::pread(file, bytes.as_mut_ptr(), bytes.len(), offset) };
    if n <= 0 {
        return n;
    }
    // SAFETY: the socket is open, by the caller.
    match unsafe { calls::send(socket, &bytes[..n as usize]) } {
        // It takes nothing of something: that is no end of the file.
        0 => -errno::EAGAIN,
        result => result,
    }
}
