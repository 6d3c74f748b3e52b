//! A kernel queue that epoll plays, so that the room runs where there is none: for tests, on Linux.
//!
//! It does what the room relies on, as the BSDs document it: each filter is added and removed by itself, and told
//! of as an edge, one that is there already among them; a change that is refused or wants a receipt is answered in
//! its place, and then there are no events; a trigger wakes from any thread, and several are one. It is the
//! simulated system's epoll in a simulated world.
//!
//! Where it differs: an added filter may tell of the other one's edge again, and a wait may end with nothing, for a
//! file that is open still by another number. The room must bear with both. It cannot show how a real kernel tells
//! of ends and errors.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::event::{Event, Filter};
use crate::sys::calls;
use crate::sys::descriptor::OwnedDescriptor;
use crate::sys::epoll::{create, epoll_wait};
use crate::sys::unix::{RawDescriptor, WakeSource, errno};

pub(super) mod flags {
    pub(crate) const ADD: u32 = 1;
    pub(crate) const DELETE: u32 = 2;
    pub(crate) const CLEAR: u32 = 0x20;
    pub(crate) const RECEIPT: u32 = 0x40;
    pub(crate) const ERROR: u32 = 0x4000;
    pub(crate) const EOF: u32 = 0x8000;
    pub(crate) const TRIGGER: u32 = 0x0100_0000;
}

/// What epoll is given for the wake source.
const USER: u64 = u64::MAX;

#[derive(Clone, Copy)]
pub(super) struct Kevent(Event);

impl Kevent {
    pub(super) fn asking(event: Event) -> Kevent {
        Kevent(event)
    }

    pub(super) fn told(&self) -> Event {
        self.0
    }
}

pub(crate) struct Queue {
    epoll: OwnedDescriptor,
    user: WakeSource,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// What epoll has told, and those of its events that found no room.
    heard: Vec<libc::epoll_event>,
    left: VecDeque<Event>,
    /// What the events of a descriptor's filters carry.
    filters: HashMap<RawDescriptor, Filters>,
    user: Option<u64>,
    /// What the next change for a descriptor fails with, for a test; 0 for nothing.
    #[cfg(test)]
    refusal: i32,
}

#[derive(Clone, Copy, Default)]
struct Filters {
    /// Which file had the number when the last filter was added.
    file: (u64, u64),
    read: Option<u64>,
    write: Option<u64>,
}

impl Queue {
    pub(super) fn new(simulated: bool) -> io::Result<Queue> {
        let (epoll, user) = (create(simulated)?, WakeSource::new(simulated)?);
        Ok(Queue { epoll, user, notes: Mutex::default() })
    }

    pub(super) fn is_simulated(&self) -> bool {
        self.epoll.is_simulated()
    }

    pub(super) fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, i32> {
        let mut told = 0;
        for &Kevent(change) in changes {
            let error = self.change(change);
            if error == 0 && change.flags & flags::RECEIPT == 0 {
                continue;
            }
            let Some(place) = events.get_mut(told) else {
                return if error == 0 { Ok(told) } else { Err(error) };
            };
            let flags = change.flags | flags::ERROR;
            *place = Kevent(Event { flags, data: error.into(), ..change });
            told += 1;
        }
        if told > 0 || events.is_empty() { Ok(told) } else { self.wait(events, timeout) }
    }

    /// Whether there is a filter for reading a descriptor, and one for writing.
    #[cfg(test)]
    pub(super) fn watches(&self, raw: RawDescriptor) -> (bool, bool) {
        let filters = self.notes().filters.get(&raw).copied().unwrap_or_default();
        (filters.read.is_some(), filters.write.is_some())
    }

    /// Refuses the next filter for a descriptor.
    #[cfg(test)]
    pub(super) fn refuse_next(&self, error: i32) {
        self.notes().refusal = error;
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Positive errors, 0 for none.
    fn change(&self, change: Event) -> i32 {
        if change.filter == Filter::User {
            return self.change_user(change);
        }
        let Ok(raw) = RawDescriptor::try_from(change.ident) else { return errno::EBADF };
        let mut notes = self.notes();
        #[cfg(test)]
        if notes.refusal != 0 {
            return std::mem::take(&mut notes.refusal);
        }
        let filters = notes.filters.entry(raw).or_default();
        let mut now = Filters { file: file_of(raw), ..*filters };
        let this = if change.filter == Filter::Read { &mut now.read } else { &mut now.write };
        if change.flags & flags::DELETE != 0 {
            if this.take().is_none() {
                return errno::ENOENT;
            }
        } else {
            *this = Some(change.udata);
        }
        let error = self.watch(raw, *filters, now);
        if error == errno::ENOENT && change.flags & flags::ADD != 0 {
            // Another file has the number now, and nothing is known of that.
            now = Filters { file: now.file, ..Filters::default() };
            *(if change.filter == Filter::Read { &mut now.read } else { &mut now.write }) =
                Some(change.udata);
            let error = self.watch(raw, Filters::default(), now);
            *filters = if error == 0 { now } else { Filters::default() };
            return error;
        }
        if error == 0 {
            *filters = now;
        }
        error
    }

    fn watch(&self, raw: RawDescriptor, before: Filters, now: Filters) -> i32 {
        let what = match (before.mask(), now.mask()) {
            (_, 0) => libc::EPOLL_CTL_DEL,
            (0, _) => libc::EPOLL_CTL_ADD,
            _ => libc::EPOLL_CTL_MOD,
        };
        let events = now.mask() | libc::EPOLLET as u32;
        let control = |what| -calls::epoll_ctl(self.epoll.as_raw(), what, raw, events, raw as u64);
        match control(what) {
            // It is known by a filter that was removed when the number was another file's.
            libc::EEXIST => control(libc::EPOLL_CTL_MOD),
            error => error,
        }
    }

    fn change_user(&self, change: Event) -> i32 {
        if change.flags & flags::ADD != 0 {
            let edges = (libc::EPOLLIN | libc::EPOLLET) as u32;
            self.notes().user = Some(change.udata);
            let raw = self.user.watch();
            return -calls::epoll_ctl(self.epoll.as_raw(), libc::EPOLL_CTL_ADD, raw, edges, USER);
        }
        if self.notes().user.is_none() {
            return errno::ENOENT;
        }
        if change.fflags & flags::TRIGGER == 0 {
            return 0;
        }
        // As some systems do.
        self.notes().user = Some(change.udata);
        match self.user.signal() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(errno::EIO),
        }
    }

    fn wait(&self, events: &mut [Kevent], timeout: Option<Duration>) -> Result<usize, i32> {
        let mut notes = self.notes();
        if notes.left.is_empty() {
            let mut heard = std::mem::take(&mut notes.heard);
            drop(notes);
            heard.resize(events.len(), libc::epoll_event { events: 0, u64: 0 });
            let n = epoll_wait(self.epoll.as_raw(), &mut heard, timeout, &Cell::new(true));
            notes = self.notes();
            for event in &heard[..n.max(0) as usize] {
                self.tell(&mut notes, event.events, event.u64);
            }
            notes.heard = heard;
            if n < 0 {
                return Err(-n);
            }
        }
        let mut told = 0;
        while told < events.len()
            && let Some(event) = notes.left.pop_front()
        {
            if notes.has(&event) {
                events[told] = Kevent(event);
                told += 1;
            }
        }
        Ok(told)
    }

    /// Makes of one of epoll's events those of the filters.
    fn tell(&self, notes: &mut Notes, bits: u32, data: u64) {
        let has = |what: i32| bits & what as u32 != 0;
        let fflags = u32::from(has(libc::EPOLLERR));
        let mut tell = |filter, ident, flags, udata| {
            notes.left.push_back(Event { ident, filter, flags, fflags, data: 0, udata });
        };
        if data == USER {
            self.user.drain();
            notes.user.iter().for_each(|&udata| tell(Filter::User, 0, flags::CLEAR, udata));
            return;
        }
        let raw = data as RawDescriptor;
        let Some(filters) = notes.filters.get(&raw) else { return };
        let ended = |what: i32| flags::CLEAR | if has(what) { flags::EOF } else { 0 };
        let broken = libc::EPOLLHUP | libc::EPOLLERR;
        if let Some(udata) = filters.read
            && has(libc::EPOLLIN | libc::EPOLLRDHUP | broken)
        {
            tell(Filter::Read, raw as usize, ended(libc::EPOLLRDHUP | broken), udata);
        }
        if let Some(udata) = filters.write
            && has(libc::EPOLLOUT | broken)
        {
            tell(Filter::Write, raw as usize, ended(broken), udata);
        }
    }
}

impl Notes {
    /// Whether the filter that an event is of is there still: it goes when its number is closed.
    fn has(&self, event: &Event) -> bool {
        let raw = event.ident as RawDescriptor;
        let Some(filters) = self.filters.get(&raw) else { return event.filter == Filter::User };
        let udata = match event.filter {
            Filter::Read => filters.read,
            Filter::Write => filters.write,
            _ => return true,
        };
        udata == Some(event.udata) && filters.file == file_of(raw)
    }
}

/// Which file has a number; nothing is told of simulated ones, which need not be told apart.
fn file_of(raw: RawDescriptor) -> (u64, u64) {
    if calls::is_simulated(raw) {
        return (0, 0);
    }
    // SAFETY: a plain number and room for the answer, which is all zeros where there is no such file.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(raw, &mut stat);
        (stat.st_dev, stat.st_ino)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Filters {
    fn mask(self) -> u32 {
        let read = if self.read.is_some() { libc::EPOLLIN | libc::EPOLLRDHUP } else { 0 };
        let write = if self.write.is_some() { libc::EPOLLOUT } else { 0 };
        (read | write) as u32
    }
}
