//! What stands for a queue of one filter where there is none: something of Linux's that is readable when such a filter
//! would have something to tell.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Child;

use rustix::fs::inotify::WatchFlags;
use rustix::io::Errno;

use crate::directory::notes::{CHANGED, GONE};
use crate::directory::{Directory, Format};
use crate::sys::unix::{OwnedDescriptor, watch};

/// What inotify says when the watch has gone, with its directory.
const IGNORED: u32 = 0x8000;

/// A `pidfd`.
pub(crate) fn child(child: &Child) -> io::Result<Option<OwnedDescriptor>> {
    watch::linux::child(child)
}

/// What inotify tells of a directory, without what a queue does not tell: writes to what is in it.
pub(crate) fn directory(path: &Path) -> io::Result<Directory> {
    let told = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
    let descriptor = watch::linux::watched(path, told)?;
    Ok(Directory { descriptor, keep: None, format: Format::Word })
}

/// All of it in one word. `WouldBlock`: nothing has happened.
pub(crate) fn told(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut word = 0;
    loop {
        let mut bytes = [0; 4096];
        let len = match rustix::io::read(fd, &mut bytes[..]) {
            Ok(len) => len,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) if word != 0 => return Ok(word),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &bytes[..len];
        while let (Some(mask), Some(name)) = (word_at(rest, 4), word_at(rest, 12)) {
            word |= if mask & IGNORED != 0 { GONE } else { CHANGED };
            rest = rest.get(16 + name as usize..).unwrap_or(&[]);
        }
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
