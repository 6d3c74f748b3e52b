//! By a `pidfd`, and by inotify.

use std::io;
use std::path::Path;
use std::process::Child;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::directory::{Directory, Format};
use crate::sys::OwnedDescriptor;

/// A `pidfd`, which is readable from the child's end on. None: there is no such process any more.
pub(crate) fn child(child: &Child) -> io::Result<Option<OwnedDescriptor>> {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // One that has ended and was not waited for is still there, and so its number is nobody else's.
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => Ok(Some(descriptor.into())),
        Err(Errno::SRCH) => Ok(None),
        Err(Errno::NOSYS) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "waiting for a process needs Linux 5.3"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory whose changes are told.
pub(crate) fn directory(path: &Path) -> io::Result<Directory> {
    let told = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MODIFY
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO;
    let descriptor = watched(path, told)?;
    Ok(Directory { descriptor, keep: None, format: Format::Inotify })
}

/// What a queue would tell, where there is none.
#[cfg(not(any(pelton_kqueue_elsewhere, test)))]
pub(crate) fn told(_: std::os::fd::BorrowedFd<'_>) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Watches a directory for some of what inotify tells. That it has gone is told in any case.
pub(crate) fn watched(path: &Path, told: WatchFlags) -> io::Result<OwnedDescriptor> {
    let descriptor = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // Not of what has been removed and is open still.
    let how = WatchFlags::ONLYDIR | WatchFlags::EXCL_UNLINK;
    add_watch(&descriptor, path, told | how)?;
    Ok(descriptor.into())
}
