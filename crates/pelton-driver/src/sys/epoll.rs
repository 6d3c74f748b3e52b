//! What epoll is asked: the selector of the readiness room on Linux.
//!
//! A descriptor is registered for both directions at once and for edges, with its place in the table and its
//! generation as the event's data, so that no operation costs an `epoll_ctl`.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::calls;
use super::descriptor::OwnedDescriptor;
use super::readiness::{Direction, Poller, Readiness, WAKE, data_of};
use super::unix::{RawDescriptor, check, errno, last_errno};
use crate::config::Error;
use crate::core::Core;
use crate::descriptor::{Entry, Fd, flags};
use crate::slot::OpId;

const EVENTS: usize = 256;
const MOST_EVENTS: usize = 4096;

/// The room of epoll.
pub(crate) type Epoll = Readiness<Selector>;

impl Epoll {
    /// Makes the selector, of the system or of this thread's simulated one.
    pub(crate) fn new(simulated: bool) -> Result<Epoll, Error> {
        let epoll = create(simulated).map_err(|error| Error::Os { what: "epoll_create", error })?;
        Ok(Readiness::on(Selector {
            epoll,
            events: UnsafeCell::new(room_for(EVENTS)),
            filled: Cell::new(0),
            dispatched: Cell::new(0),
            pwait2: Cell::new(true),
        }))
    }
}

pub(crate) struct Selector {
    epoll: OwnedDescriptor,
    events: UnsafeCell<Box<[libc::epoll_event]>>,
    /// How many of `events` the last wait has filled, and how many of those have been dispatched.
    filled: Cell<u32>,
    dispatched: Cell<u32>,
    pwait2: Cell<bool>,
}

impl Selector {
    fn control(&self, what: i32, raw: i32, events: i32, data: u64) -> io::Result<()> {
        let result = calls::epoll_ctl(self.epoll.as_raw(), what, raw, events as u32, data);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }

    #[inline(always)]
    fn wait_for_events(&self, core: &Core, timeout: Option<Duration>) -> io::Result<()> {
        if self.has_events() {
            // A callback panicked in the middle of the last batch: its edges come only once.
            return Ok(());
        }
        core.counters().enters.add(1);
        // SAFETY: one thread, and no user code runs while this reference lives.
        let events = unsafe { &mut *self.events.get() };
        if self.filled.get() as usize == events.len() {
            grow(events);
        }
        self.filled.set(0);
        self.dispatched.set(0);
        let n = epoll_wait(self.epoll.as_raw(), events, timeout, &self.pwait2);
        if n < 0 {
            return refused(-n);
        }
        self.filled.set(n as u32);
        Ok(())
    }
}

impl Poller for Selector {
    type Bits = u32;

    const OUTLIVES_CLOSE: bool = true;

    #[inline(always)]
    fn watched(_: Direction) -> u16 {
        flags::REGISTERED
    }

    fn is_simulated(&self) -> bool {
        self.epoll.is_simulated()
    }

    fn prepare(&self, core: &Core) -> Result<(), Error> {
        let edges = libc::EPOLLIN | libc::EPOLLET;
        self.control(libc::EPOLL_CTL_ADD, core.shared.wake.watch(), edges, WAKE)
            .map_err(|error| Error::Os { what: "epoll_ctl for the wake source", error })
    }

    #[cold]
    fn register(&self, core: &Core, index: u32, entry: &Entry, _: Direction) -> io::Result<()> {
        let both = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        core.counters().registrations.add(1);
        self.control(libc::EPOLL_CTL_ADD, entry.raw.get(), both, data_of(index, entry))?;
        entry.set(flags::REGISTERED);
        Ok(())
    }

    fn forget(&self, core: &Core, entry: &Entry) {
        if entry.has(flags::REGISTERED) {
            entry.unset(flags::REGISTERED);
            core.counters().registrations.add(1);
            let _ = self.control(libc::EPOLL_CTL_DEL, entry.raw.get(), 0, 0);
        }
    }

    #[inline(always)]
    fn has_events(&self) -> bool {
        self.dispatched.get() < self.filled.get()
    }

    #[inline(always)]
    fn wait(
        &self,
        core: &Core,
        timeout: Option<Duration>,
        _: impl FnMut(Fd, Direction, i32),
    ) -> io::Result<()> {
        self.wait_for_events(core, timeout)
    }

    #[inline(always)]
    fn left(&self) -> usize {
        (self.filled.get() - self.dispatched.get()) as usize
    }

    #[inline(always)]
    fn ahead(&self, into: &mut [u32]) -> usize {
        // SAFETY: as in `next`.
        let events = unsafe { &*self.events.get() };
        let events = &events[self.dispatched.get() as usize..self.filled.get() as usize];
        for (event, entry) in events.iter().zip(&mut *into) {
            *entry = OpId::from_user_data(event.u64).index();
        }
        events.len().min(into.len())
    }

    #[inline(always)]
    fn next(&self) -> Option<(u64, u32)> {
        let at = self.dispatched.get();
        if at >= self.filled.get() {
            return None;
        }
        self.dispatched.set(at + 1);
        // SAFETY: one thread; the event is copied and the reference ends before user code runs.
        let event = unsafe { (&*self.events.get())[at as usize] };
        Some((event.u64, event.events))
    }

    /// The flags that an event sets.
    #[inline(always)]
    fn ready(bits: u32) -> u16 {
        const IN: u32 = libc::EPOLLIN as u32;
        const OUT: u32 = libc::EPOLLOUT as u32;
        const _: () =
            assert!(IN << 3 == flags::READABLE as u32 && OUT << 2 == flags::WRITABLE as u32);
        let usual = ((bits & IN) << 3 | (bits & OUT) << 2) as u16;
        if bits & !(IN | OUT) == 0 { usual } else { usual | unusual(bits) }
    }
}

/// The last wait has brought as much as there was room for.
#[cold]
fn grow(events: &mut Box<[libc::epoll_event]>) {
    if events.len() < MOST_EVENTS {
        *events = room_for(events.len() * 4);
    }
}

fn room_for(events: usize) -> Box<[libc::epoll_event]> {
    vec![libc::epoll_event { events: 0, u64: 0 }; events].into()
}

/// A wait that has brought nothing, because of an error.
#[cold]
fn refused(error: i32) -> io::Result<()> {
    if error == errno::EINTR && !mutant!("ioxide-220") {
        // The tick goes on with what there is; nothing is lost, edges stay with the kernel.
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(error))
}

/// Waits for events, and says how many they are, or which error there was, negated; to the nanosecond where the kernel can, which `pwait2` remembers.
#[inline(always)]
pub(super) fn epoll_wait(
    raw: RawDescriptor,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
    pwait2: &Cell<bool>,
) -> i32 {
    if let Some(result) = calls::epoll_wait_simulated(raw, events, timeout) {
        return result;
    }
    let timeout = match timeout {
        None => None,
        Some(Duration::ZERO) => Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
        Some(timeout) => return epoll_wait_for(raw, events, timeout, pwait2),
    };
    const _: () = {
        assert!(size_of::<libc::epoll_event>() == size_of::<epoll::Event>());
        assert!(align_of::<libc::epoll_event>() == align_of::<epoll::Event>());
    };
    // SAFETY: both are the kernel's own record of an event, in which any numbers stand.
    let events =
        unsafe { std::slice::from_raw_parts_mut(events.as_mut_ptr().cast(), events.len()) };
    // SAFETY: the instance is open as long as its room is, which waits.
    let epoll = unsafe { BorrowedFd::borrow_raw(raw) };
    match epoll::wait::<_, &mut [epoll::Event]>(epoll, events, timeout) {
        Ok(n) => n as i32,
        Err(error) => -error.raw_os_error(),
    }
}

/// `epoll_pwait2`, or `epoll_wait` where there is none.
#[inline(never)]
fn epoll_wait_for(
    raw: RawDescriptor,
    events: &mut [libc::epoll_event],
    timeout: Duration,
    pwait2: &Cell<bool>,
) -> i32 {
    let len = events.len() as i32;
    if pwait2.get() {
        let timespec = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let timespec = std::ptr::from_ref(&timespec);
        let no_mask = std::ptr::null::<libc::sigset_t>();
        let call = libc::SYS_epoll_pwait2;
        // SAFETY: the events are ours to fill, `len` of them; the time lives on.
        let result =
            unsafe { libc::syscall(call, raw, events.as_mut_ptr(), len, timespec, no_mask, 0) };
        if result >= 0 {
            return result as i32;
        }
        let error = last_errno();
        // Older than Linux 5.11, or a filter that does not know the call.
        if error != errno::ENOSYS && error != libc::EPERM {
            return -error;
        }
        pwait2.set(false);
    }
    // Rounded up: a wait that is cut to 0 ms would spin until the timer is due.
    let millis = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
    // SAFETY: as above.
    let result = unsafe { libc::epoll_wait(raw, events.as_mut_ptr(), len, millis) };
    if result >= 0 { result } else { -last_errno() }
}

#[cold]
fn unusual(bits: u32) -> u16 {
    let has = |what: i32| bits & what as u32 != 0;
    let mut set = 0;
    if has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) {
        set |= flags::READABLE | flags::HUNG_UP;
    }
    if has(libc::EPOLLHUP | libc::EPOLLERR) {
        set |= flags::WRITABLE;
    }
    set
}

/// Makes a selector, of the system or of this thread's simulated one.
pub(super) fn create(simulated: bool) -> io::Result<OwnedDescriptor> {
    if simulated {
        return calls::epoll_create_simulated();
    }
    use rustix::event::epoll;
    match epoll::create(epoll::CreateFlags::CLOEXEC) {
        Ok(epoll) => Ok(epoll.into()),
        Err(rustix::io::Errno::NOSYS) => {
            // SAFETY: a plain argument, which must not be 0.
            let raw = check(unsafe { libc::epoll_create(1) as isize });
            if raw < 0 {
                return Err(io::Error::from_raw_os_error(-raw));
            }
            // SAFETY: the kernel has just made it for us.
            let epoll = unsafe { OwnedFd::from_raw_fd(raw) };
            rustix::io::fcntl_setfd(&epoll, rustix::io::FdFlags::CLOEXEC)?;
            Ok(epoll.into())
        }
        Err(error) => Err(error.into()),
    }
}
