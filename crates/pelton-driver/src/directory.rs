//! Directories that are watched for changes.
//!
//! A [`Directory`] is opened, which may block and can be done on any thread, and given to a driver, which makes a
//! [`DirectoryWatch`] of it. A watch has one operation in flight at a time, one of its own kind through the
//! [seam](crate::Prepared): [`DirectoryWatch::submit`] begins it, and [`DirectoryWatch::take_in`] makes changes of what
//! it has brought, which [`DirectoryWatch::next`] yields one by one.
//!
//! # What the systems tell
//!
//! | | Linux | Windows | macOS and the BSDs |
//! |---|---|---|---|
//! | by | inotify | `ReadDirectoryChangesW` | a kernel queue (`EVFILT_VNODE`) |
//! | which entry has changed | yes | yes | no: [`Change::Rescan`] for everything |
//! | content of an entry | [`Change::Modified`] at each write | when the system notes it, at the latest when it is closed | not told |
//! | more than the system keeps | [`Change::Rescan`] | [`Change::Rescan`] | is one change |
//!
//! Only the directory itself is watched, not those in it. A change may be told more than once, and a new file be told
//! as created and modified. What has happened since the last look and has been undone may be told or not. Where one
//! system says less, a program that answers [`Change::Rescan`] by looking at the directory anew works everywhere.

pub(crate) mod notes;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use crate::config::Backend;
use crate::descriptor::{Fd, flags};
use crate::driver::Driver;
use crate::payload::Own;
use crate::slot::{Key, Token};
use crate::sys::{OwnedDescriptor, system_watch as system};

use notes::Told;

/// Bytes that changes are told in at a time. Over a network Windows takes no more than 64 KiB.
const ROOM: usize = 32 * 1024;

/// What has changed in a directory. Names are those of its entries, without the directory's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// An entry is there that was not: it was made here, or moved here from elsewhere.
    Created(OsString),
    /// An entry is not there any more: it was removed, or moved elsewhere.
    Removed(OsString),
    /// The content of an entry has changed.
    Modified(OsString),
    /// An entry has got another name, of one that may have been there before.
    Renamed {
        /// Its name before.
        from: OsString,
        /// Its name now.
        to: OsString,
    },
    /// Anything may have changed: there was more than the system keeps, or it does not say what it was. Look at the
    /// directory anew.
    Rescan,
}

/// How the bytes of a change are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "no system has all of them")]
pub(crate) enum Format {
    /// As inotify tells.
    Inotify,
    /// As `ReadDirectoryChangesW` does.
    Records,
    /// A word of `sys/kqueue`.
    Word,
}

/// A directory that can be watched, and is not yet. What changes from now on is told to whoever watches it, except on
/// Windows, where it is what changes from the first [`DirectoryWatch::submit`] on.
#[derive(Debug)]
pub struct Directory {
    pub(crate) descriptor: OwnedDescriptor,
    /// What has to stay open as long.
    pub(crate) keep: Option<OwnedDescriptor>,
    pub(crate) format: Format,
}

impl Directory {
    /// Opens a directory, to be watched by a driver on this backend. May block.
    ///
    /// # Errors
    /// What the system said: `NotFound`, or `NotADirectory`. `Unsupported`: it is a simulated system, on which
    /// nothing tells of changes.
    pub fn open(path: impl AsRef<Path>, backend: Backend) -> io::Result<Directory> {
        #[cfg(feature = "sim")]
        if backend == Backend::Sim {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a simulated system does not tell of changes in a directory: look at the directory instead",
            ));
        }
        system::directory(path.as_ref(), backend == Backend::Kqueue)
    }
}

impl Driver {
    /// Watches a directory.
    ///
    /// # Errors
    /// The table is full (`max_descriptors`).
    ///
    /// ```
    /// use pelton_driver::{Change, Config, Directory, Driver, Token};
    ///
    /// let driver = Driver::new(Config::default())?;
    /// # let path = std::env::temp_dir().join(format!("pelton-watched-{}", std::process::id()));
    /// # std::fs::create_dir(&path)?;
    /// let mut watch = driver.watch_directory(Directory::open(&path, driver.backend())?)?;
    /// let told = watch.submit(&driver, Token::NONE)?;
    /// std::fs::write(path.join("new"), "")?;
    /// watch.take_in(driver.finish(told, None, |_| {})?)?;
    /// let change = watch.next();
    /// assert!(matches!(change, Some(Change::Created(_) | Change::Rescan)), "{change:?}");
    /// driver.close(watch.fd());
    /// # std::fs::remove_dir_all(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch_directory(&self, directory: Directory) -> io::Result<DirectoryWatch> {
        let Directory { descriptor, keep, format } = directory;
        let fd = self.insert(descriptor, flags::FOREIGN)?;
        Ok(DirectoryWatch {
            fd,
            _keep: keep,
            format,
            buffer: Some(ChangeBuffer::new()),
            changes: VecDeque::new(),
            half: None,
            has_gone: false,
        })
    }
}

/// What an operation of a [`DirectoryWatch`] owns.
pub struct ChangeBuffer {
    /// Words, because Windows writes words.
    words: Vec<u32>,
}

impl ChangeBuffer {
    fn new() -> ChangeBuffer {
        ChangeBuffer { words: vec![0; ROOM / 4] }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let len = self.words.len() * 4;
        // SAFETY: words are bytes of any value, four each, and borrowed as long.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), len) }
    }
}

impl fmt::Debug for ChangeBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeBuffer").finish_non_exhaustive()
    }
}

/// A directory that a driver watches.
///
/// It does not know its driver, which owns the descriptor: [close](Driver::close) that at the end.
pub struct DirectoryWatch {
    fd: Fd,
    _keep: Option<OwnedDescriptor>,
    format: Format,
    /// There while no operation has it.
    buffer: Option<ChangeBuffer>,
    changes: VecDeque<Change>,
    /// The old name of an entry whose new one has not been told yet, and what joins the two.
    half: Option<(OsString, u32)>,
    has_gone: bool,
}

impl DirectoryWatch {
    /// The descriptor.
    pub fn fd(&self) -> Fd {
        self.fd
    }

    /// Begins to wait for changes. It ends when there are some, and is [taken in](DirectoryWatch::take_in) then.
    ///
    /// Cancelled: no change is lost, as the next one tells of it.
    ///
    /// # Errors
    /// The descriptor has been closed, there are too many operations, an operation is under way, or the system refused
    /// the call. [`DirectoryWatch::has_gone`] tells whether that is because the directory has gone.
    pub fn submit(&mut self, driver: &Driver, token: Token) -> io::Result<Key<Own<ChangeBuffer>>> {
        let Some(buffer) = self.buffer.take() else {
            let what = "the watch waits for changes already: take in what that brings first";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        };
        system::wait_for_changes(driver, self.fd, buffer, token, self.format).map_err(|refused| {
            self.buffer = Some(refused.payload.0);
            self.has_gone |= system::says_gone(&refused.error);
            refused.error
        })
    }

    /// Takes in what an operation has brought, for [`DirectoryWatch::next`]. The next one can be submitted then.
    ///
    /// # Errors
    /// What the operation failed with, if that is not only that the directory has gone
    /// ([`DirectoryWatch::has_gone`]).
    pub fn take_in(&mut self, outcome: (io::Result<usize>, ChangeBuffer)) -> io::Result<()> {
        let (said, mut buffer) = outcome;
        let taken = match said {
            Ok(len) => {
                let bytes = buffer.bytes();
                let len = len.min(bytes.len());
                self.hear(&bytes[..len]);
                Ok(())
            }
            Err(error) if system::says_lost(&error) => {
                self.lost();
                Ok(())
            }
            Err(error) if system::says_gone(&error) => {
                self.settle();
                self.has_gone = true;
                Ok(())
            }
            Err(error) => Err(error),
        };
        self.buffer = Some(buffer);
        taken
    }

    /// The next change.
    #[allow(clippy::should_implement_trait, reason = "more may come after none")]
    pub fn next(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// True while the old name of an entry is known and not the new one, which usually is told in the same moment.
    /// [`DirectoryWatch::settle`] when it has not come by then.
    pub fn has_half_a_rename(&self) -> bool {
        self.half.is_some()
    }

    /// Waits no longer for the new name of an entry: it is gone from this directory.
    pub fn settle(&mut self) {
        if let Some((from, _)) = self.half.take() {
            self.changes.push_back(Change::Removed(from));
        }
    }

    /// True when the directory itself has been removed: no more changes come.
    pub fn has_gone(&self) -> bool {
        self.has_gone
    }

    fn lost(&mut self) {
        self.settle();
        if self.changes.back() != Some(&Change::Rescan) {
            self.changes.push_back(Change::Rescan);
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            // There was more than there was room for.
            return self.lost();
        }
        let whole = match self.format {
            Format::Inotify => notes::inotify(bytes, |told| self.told(told)),
            Format::Records => notes::records(bytes, |told| self.told(told)),
            Format::Word => notes::word(bytes, |told| self.told(told)),
        };
        if !whole {
            self.lost();
        }
    }

    fn told(&mut self, told: Told<'_>) {
        if let Told::NewName(name, cookie) = told
            && let Some((from, _)) = self.half.take_if(|(_, half)| *half == cookie)
        {
            let to = system::name(name);
            return self.changes.push_back(Change::Renamed { from, to });
        }
        if told == Told::Lost {
            return self.lost();
        }
        // The two halves come one behind the other. In between, the order counts more than that they belong together.
        self.settle();
        match told {
            Told::Created(name) | Told::NewName(name, _) => {
                self.changes.push_back(Change::Created(system::name(name)));
            }
            Told::Removed(name) => self.changes.push_back(Change::Removed(system::name(name))),
            Told::Modified(name) => self.changes.push_back(Change::Modified(system::name(name))),
            Told::OldName(name, cookie) => self.half = Some((system::name(name), cookie)),
            Told::Gone => self.has_gone = true,
            Told::Lost | Told::Nothing => {}
        }
    }
}

impl fmt::Debug for DirectoryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryWatch").field("fd", &self.fd).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
