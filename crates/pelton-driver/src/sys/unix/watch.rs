//! What happens outside of the process's own descriptors: the end of a child, and changes in a directory. Each is
//! told by a descriptor that is readable then.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::BorrowedDescriptor;
use crate::descriptor::Fd;
use crate::directory::{ChangeBuffer, Directory, Format};
use crate::driver::{Driver, Refused};
use crate::op::Interest;
use crate::payload::Own;
use crate::seam::Ready;
use crate::slot::{Key, Token};
use crate::sys::choice::single;

#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(target_os = "linux")]
use linux as native;
#[cfg(not(target_os = "linux"))]
use single as native;

pub(crate) use native::child;

/// Opens a directory whose changes are told, by a kernel queue where that is what its driver has.
pub(crate) fn directory(path: &Path, by_queue: bool) -> io::Result<Directory> {
    if by_queue { single::directory(path) } else { native::directory(path) }
}

/// Begins to wait for changes.
pub(crate) fn wait_for_changes(
    driver: &Driver,
    fd: Fd,
    buffer: ChangeBuffer,
    token: Token,
    format: Format,
) -> Result<Key<Own<ChangeBuffer>>, Refused<Own<ChangeBuffer>>> {
    let attempt = move |buffer: &mut ChangeBuffer, ready: &Ready<'_>| {
        read(format, ready.descriptor()?, buffer)
    };
    driver.prepare(Some(fd), buffer)?.submit_when(token, Interest::Readable, attempt)
}

/// Reads what there is, as many bytes as are returned.
fn read(
    format: Format,
    fd: BorrowedDescriptor<'_>,
    buffer: &mut ChangeBuffer,
) -> io::Result<usize> {
    if format == Format::Word {
        let word = single::told(fd)?;
        buffer.bytes()[..4].copy_from_slice(&word.to_ne_bytes());
        return Ok(4);
    }
    loop {
        match rustix::io::read(fd, &mut *buffer.bytes()) {
            Err(Errno::INTR) => {}
            read => return Ok(read?),
        }
    }
}

/// A name as the system has written it.
pub(crate) fn name(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

/// No error says that changes were lost: that is told among them.
pub(crate) fn says_lost(_: &io::Error) -> bool {
    false
}

/// Nor that the directory has gone.
pub(crate) fn says_gone(_: &io::Error) -> bool {
    false
}
