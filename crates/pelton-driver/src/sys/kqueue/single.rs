//! Queues of one filter, for what is no descriptor, or is not waited for as one: a process, a directory.
//!
//! Such a queue is a descriptor itself, readable when its filter has something to tell, and the room waits for that
//! as for any other. So the filter belongs to the queue, and goes with it; what it tells reaches whoever waits for the
//! queue's entry in the table, by number and generation, and never an operation's slot that is free by then.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use super::Queue;
use super::event::{Event, Filter};
use super::kevent::{self, Kevent, flags, notes};
use crate::directory::notes as words;
use crate::directory::{Directory, Format};
use crate::sys::unix::{OwnedDescriptor, errno};

/// A queue that is readable from the child's end on. None: it has ended.
pub(crate) fn child(child: &Child) -> io::Result<Option<OwnedDescriptor>> {
    let queue = Queue::new(false)?;
    let filter = Event {
        ident: child.id() as usize,
        filter: Filter::Process,
        flags: flags::ADD | flags::ONESHOT,
        fflags: notes::EXIT,
        ..Event::NOTHING
    };
    match add(&queue, filter) {
        Ok(()) => Ok(Some(queue.into_descriptor())),
        // Some systems say this of one that has ended and was not waited for; others tell of it by the filter.
        Err(errno::ESRCH) => Ok(None),
        Err(error) => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A queue that is readable when something in the directory has changed.
pub(crate) fn directory(path: &Path) -> io::Result<Directory> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = OwnedDescriptor::from(open(path, flags, Mode::empty())?);
    let queue = Queue::new(false)?;
    let filter = Event {
        ident: directory.as_raw() as usize,
        filter: Filter::Vnode,
        flags: flags::ADD | flags::CLEAR,
        fflags: notes::CHANGED | notes::GONE,
        ..Event::NOTHING
    };
    add(&queue, filter).map_err(io::Error::from_raw_os_error)?;
    let descriptor = queue.into_descriptor();
    // The filter goes when the directory's descriptor is closed.
    Ok(Directory { descriptor, keep: Some(directory), format: Format::Word })
}

/// What has happened in the directory of such a queue, in one word. `WouldBlock`: nothing.
pub(crate) fn told(queue: BorrowedFd<'_>) -> io::Result<u32> {
    let mut events = [Kevent::asking(Event::NOTHING)];
    loop {
        match kevent::kevent(queue.as_raw_fd(), &[], &mut events, Some(Duration::ZERO)) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => break,
            Err(errno::EINTR) => {}
            Err(error) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
    let happened = events[0].told().fflags;
    let bit = |notes: u32, bit: u32| if happened & notes != 0 { bit } else { 0 };
    Ok(bit(notes::CHANGED, words::CHANGED) | bit(notes::GONE, words::GONE))
}

/// Adds a filter; no room for a receipt, so that a refusal is the call's.
fn add(queue: &Queue, filter: Event) -> Result<(), i32> {
    loop {
        match queue.kevent(&[Kevent::asking(filter)], &mut [], Some(Duration::ZERO)) {
            Ok(_) => return Ok(()),
            Err(errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
