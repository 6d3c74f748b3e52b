//! Wakes through the queue: a filter that nobody's descriptor triggers.

use std::time::Duration;

use super::event::{Event, Filter};
use super::kevent::{Kevent, flags};
use super::{Calls, Queue};
use crate::sys::readiness::WAKE;
use crate::sys::unix::{RawDescriptor, errno};

/// Any number does: filters of users are numbered by themselves.
const IDENT: usize = 0;

impl Queue {
    /// Breaks the wait of the queue's driver, or its next one. Any thread. Several before the driver looks are one.
    pub(crate) fn wake(&self) -> Result<(), i32> {
        trigger(self)
    }
}

/// Adds the filter that [`Queue::wake`] triggers. `EINVAL`: the system has none.
pub(super) fn watch(calls: &impl Calls) -> Result<(), i32> {
    told(calls, wake_event(flags::ADD | flags::CLEAR, 0))
}

/// Watches a pipe that is written to instead.
pub(super) fn watch_pipe(calls: &impl Calls, pipe: RawDescriptor) -> Result<(), i32> {
    let flags = flags::ADD | flags::CLEAR;
    let (ident, filter) = (pipe as usize, Filter::Read);
    told(calls, Event { ident, filter, flags, fflags: 0, data: 0, udata: WAKE })
}

pub(super) fn trigger(calls: &impl Calls) -> Result<(), i32> {
    // A trigger also replaces what the event carries, on some systems.
    told(calls, wake_event(0, flags::TRIGGER))
}

fn wake_event(flags: u32, fflags: u32) -> Event {
    Event { ident: IDENT, filter: Filter::User, flags, fflags, data: 0, udata: WAKE }
}

/// Tells of one change, and waits for nothing.
fn told(calls: &impl Calls, change: Event) -> Result<(), i32> {
    let change = Kevent::asking(Event { flags: change.flags | flags::RECEIPT, ..change });
    let mut receipt = [change];
    loop {
        match calls.kevent(&[change], &mut receipt, Some(Duration::ZERO)) {
            Ok(0) => return Ok(()),
            Ok(_) => break,
            Err(errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    let receipt = receipt[0].told();
    let refused = receipt.flags & flags::ERROR != 0 && receipt.data != 0;
    if refused { Err(receipt.data as i32) } else { Ok(()) }
}
