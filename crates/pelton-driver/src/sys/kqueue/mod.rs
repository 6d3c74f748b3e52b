//! What kqueue is asked: the queue of the readiness room on macOS and the BSDs.
//!
//! - Each direction of a descriptor is a filter of its own, added when an operation first has to wait for it and
//!   told of as edges (`EV_CLEAR`). A reader so costs nothing when there is room to send, and the two know nothing
//!   of each other.
//! - Changes wait for the tick, which tells all of them before it looks for events (`changes.rs`).
//! - An event carries the place and the generation of a table entry. A descriptor's filters go with its close, and
//!   what the kernel has told already finds another generation.
//! - Other threads wake by `EVFILT_USER` on the queue itself; where the system has none, by a pipe.
//!
//! The queue's calls are in `kevent.rs`, which `elsewhere.rs` can stand in for.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use super::readiness::{Direction, Poller, Readiness, data_of, named};
use super::unix::{NO_DESCRIPTOR, OwnedDescriptor, WakeSource, errno};
use crate::config::{Backend, Config, Error};
use crate::core::Core;
use crate::descriptor::{Entry, Fd, flags};
use changes::{Changes, Refused};
use event::{Event, Filter};
use kevent::Kevent;

mod changes;
mod event;
#[cfg_attr(any(pelton_kqueue_elsewhere, target_os = "linux"), path = "elsewhere.rs")]
mod kevent;
#[cfg_attr(any(pelton_kqueue_elsewhere, target_os = "linux"), path = "single_elsewhere.rs")]
pub(crate) mod single;
mod wake;

pub(crate) use kevent::Queue;

const EVENTS: usize = 256;
const MOST_EVENTS: usize = 4096;

/// What is asked of a kernel queue, or of something that stands for one.
trait Calls {
    /// Asks for changes, then waits for events, and gives back how many there are. Where a change has a receipt
    /// or is refused, there are those and nothing else, in the order of the changes.
    fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, i32>;
}

impl Calls for Queue {
    fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, i32> {
        Queue::kevent(self, changes, events, timeout)
    }
}

/// The room of kqueue.
pub(crate) type Kqueue = Readiness<Selector>;

impl Kqueue {
    /// Makes the queue, of the system or of this thread's simulated one.
    pub(crate) fn new(config: &Config, simulated: bool) -> Result<Kqueue, Error> {
        if !config.batch_wait.is_zero() {
            return Err(Error::Unsupported {
                backend: Backend::Kqueue,
                reason: "`batch_wait` needs io_uring: leave it at zero".into(),
            });
        }
        let queue = Queue::new(simulated).map_err(|error| Error::Os { what: "kqueue", error })?;
        let nothing = Event::NOTHING;
        Ok(Readiness::on(Selector {
            queue: Arc::new(queue),
            changes: Changes::default(),
            events: UnsafeCell::new(vec![Kevent::asking(nothing); EVENTS]),
            filled: Cell::new(0),
            dispatched: Cell::new(0),
        }))
    }

    /// What other threads wake the driver with.
    pub(crate) fn wake_source(&self) -> io::Result<WakeSource> {
        self.poller().wake_source()
    }

    /// Something that is readable when a child has ended; none where it has.
    pub(crate) fn watch_child(&self, child: &Child) -> io::Result<Option<OwnedDescriptor>> {
        single::child(child)
    }
}

pub(crate) struct Selector {
    /// Shared with those who wake.
    queue: Arc<Queue>,
    changes: Changes,
    events: UnsafeCell<Vec<Kevent>>,
    /// How many of `events` the last wait has filled, and how many of those have been dispatched.
    filled: Cell<usize>,
    dispatched: Cell<usize>,
}

impl Selector {
    fn wake_source(&self) -> io::Result<WakeSource> {
        match wake::watch(&*self.queue) {
            Ok(()) => Ok(WakeSource::queue(self.queue.clone())),
            // The system has no such filter.
            Err(errno::EINVAL | errno::ENOSYS) => WakeSource::pipe(),
            Err(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Tells the kernel of what has changed.
    #[cold]
    fn tell(&self, core: &Core, mut refused: impl FnMut(Fd, Direction, i32)) -> io::Result<bool> {
        let number = |fd| {
            let entry = named(core, fd)?;
            Some((entry.raw.get(), data_of(fd.index, entry)))
        };
        let told = self.changes.tell(&*self.queue, number, |Refused { fd, direction, errno }| {
            refused(fd, direction, errno);
        });
        told.map_err(io::Error::from_raw_os_error)
    }
}

impl Poller for Selector {
    type Bits = Event;

    /// A queue knows a descriptor by its number, and forgets it when that is closed.
    const OUTLIVES_CLOSE: bool = false;

    #[inline(always)]
    fn watched(direction: Direction) -> u16 {
        match direction {
            Direction::In => flags::REGISTERED,
            Direction::Out => flags::REGISTERED_OUT,
        }
    }

    fn is_simulated(&self) -> bool {
        self.queue.is_simulated()
    }

    fn prepare(&self, core: &Core) -> Result<(), Error> {
        let pipe = core.shared.wake.watch();
        if pipe == NO_DESCRIPTOR {
            return Ok(());
        }
        wake::watch_pipe(&*self.queue, pipe).map_err(|error| Error::Os {
            what: "kevent for the wake source",
            error: io::Error::from_raw_os_error(error),
        })
    }

    fn register(
        &self,
        core: &Core,
        index: u32,
        entry: &Entry,
        direction: Direction,
    ) -> io::Result<()> {
        core.counters().registrations.add(1);
        self.changes.add(Fd { index, generation: entry.named() }, direction);
        entry.set(Selector::watched(direction));
        Ok(())
    }

    fn forget(&self, core: &Core, entry: &Entry) {
        for direction in [Direction::In, Direction::Out] {
            if entry.has(Selector::watched(direction)) {
                entry.unset(Selector::watched(direction));
                core.counters().registrations.add(1);
                self.changes.delete(entry.raw.get(), direction);
            }
        }
    }

    #[inline(always)]
    fn has_events(&self) -> bool {
        self.dispatched.get() < self.filled.get()
    }

    fn wait(
        &self,
        core: &Core,
        timeout: Option<Duration>,
        refused: impl FnMut(Fd, Direction, i32),
    ) -> io::Result<()> {
        // Before anything else: no tick ends with a filter that should be gone.
        let refused = !self.changes.is_empty() && self.tell(core, refused)?;
        if self.has_events() {
            // A callback panicked in the middle of the last batch: its edges come only once.
            return Ok(());
        }
        core.counters().enters.add(1);
        // SAFETY: one thread, and no user code runs while this reference lives.
        let events = unsafe { &mut *self.events.get() };
        if self.filled.get() == events.len() && events.len() < MOST_EVENTS {
            events.resize(events.len() * 4, events[0]);
        }
        self.filled.set(0);
        self.dispatched.set(0);
        // What has been refused is to be told of.
        let timeout = if refused { Some(Duration::ZERO) } else { timeout };
        match self.queue.kevent(&[], events, timeout) {
            Ok(n) => self.filled.set(n),
            // The tick goes on with what there is; nothing is lost, edges stay with the kernel.
            Err(errno::EINTR) => {}
            Err(error) => return Err(io::Error::from_raw_os_error(error)),
        }
        Ok(())
    }

    #[inline(always)]
    fn next(&self) -> Option<(u64, Event)> {
        let at = self.dispatched.get();
        if at >= self.filled.get() {
            return None;
        }
        self.dispatched.set(at + 1);
        // SAFETY: one thread; the event is copied and the reference ends before user code runs.
        let event = unsafe { (&*self.events.get())[at] }.told();
        Some((event.udata, event))
    }

    fn ready(event: Event) -> u16 {
        ready(&event)
    }
}

/// The flags that an event sets: as epoll's would, so that the room above knows no difference.
///
/// The end of what can be received is a hang-up, behind which no further edge comes; the end of what can be sent
/// is only room to send, and the try finds out. An error counts for both directions, whichever filter tells of it.
fn ready(event: &Event) -> u16 {
    let ended = event.flags & kevent::flags::EOF != 0;
    let failed = event.flags & kevent::flags::ERROR != 0 || (ended && event.fflags != 0);
    let mut set = match event.filter {
        Filter::Read => flags::READABLE,
        Filter::Write => flags::WRITABLE,
        Filter::User | Filter::Process | Filter::Vnode | Filter::Other => 0,
    };
    if failed || (ended && event.filter == Filter::Read) {
        set |= flags::READABLE | flags::HUNG_UP;
    }
    if failed {
        set |= flags::WRITABLE;
    }
    set
}

#[cfg(test)]
mod tests;
