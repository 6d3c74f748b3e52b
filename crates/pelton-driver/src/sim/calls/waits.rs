//! The calls by which a thread waits: on an instance of epoll, and on a ring. They let the world go on, and so its time.

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::io_uring::{IoringRegisterOp, io_uring_params};

use super::{call, here, on_file};
use crate::sim::fault::Fault;
use crate::sim::file::Kind;
use crate::sim::state::{MICRO, State};
use crate::sim::world::World;
use crate::sys::RawDescriptor;

/// How often a wait looks again at what its looking has brought about.
const MOST_ROUNDS: u32 = 64;

pub(crate) fn epoll_create() -> i32 {
    call(|state| {
        let file = state.epoll_create();
        state.driver_fd(file, "an epoll instance")
    })
}

pub(crate) fn epoll_ctl(
    epoll: RawDescriptor,
    what: i32,
    fd: RawDescriptor,
    events: u32,
    data: u64,
) -> i32 {
    on_file(epoll, |state, epoll| state.epoll_control(epoll, what, fd, events, data))
}

pub(crate) fn epoll_wait(
    epoll: RawDescriptor,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> i32 {
    let Some(world) = World::current() else { return -libc::EBADF };
    let Some(id) = world.with(|state| state.of_fd(epoll)) else { return -libc::EBADF };
    let most = events.len();
    let timeout = timeout.map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX >> 1));
    let broken = world.with(|state| {
        let number = state.epoll_number(id);
        state.enters();
        if timeout == Some(0) {
            return None;
        }
        if state.fault_of(Fault::EnterInterrupted, id, number, "was interrupted in its wait") {
            return Some(-libc::EINTR);
        }
        let early = state.fault_of(Fault::EnterEarly, id, number, "ended its wait early");
        early.then_some(0)
    });
    if let Some(result) = broken {
        // Not for nothing, or a loop that asks again would never let time pass.
        world.with(|state| state.advance(state.now + MICRO));
        return result;
    }
    if timeout == Some(0) {
        world.pass();
    }
    let mut taken = world.with(|state| state.epoll_take(id, most));
    if taken.is_empty() && timeout != Some(0) {
        let hosted =
            world.with(|state| state.current_proc.is_some() && state.epoll_waits(id, timeout));
        if !hosted {
            let limit =
                timeout.map(|timeout| world.with(|state| state.now.saturating_add(timeout)));
            world.wait(limit, |state| {
                taken = state.epoll_take(id, most);
                !taken.is_empty()
            });
        }
    }
    for (event, (bits, data)) in events.iter_mut().zip(&taken) {
        *event = libc::epoll_event { events: *bits, u64: *data };
    }
    taken.len() as i32
}

// Rings.

/// `io_uring_setup`: the ring's descriptor, with the parameters filled in.
pub(crate) fn ring_setup(
    entries: u32,
    params: &mut io_uring_params,
) -> Result<RawDescriptor, Errno> {
    here(|state| {
        let file = state.ring_setup(entries, params)?;
        let fd = state.driver_fd(file, "a ring");
        if fd < 0 { Err(Errno::from_raw_os_error(-fd)) } else { Ok(fd) }
    })
    .unwrap_or(Err(Errno::NOSYS))
}

/// What `mmap` gives: the memory of both queues, and that of the submission entries. It lives as long as the
/// ring's descriptor is open.
pub(crate) fn ring_memory(ring: RawDescriptor) -> Option<(*mut u8, *mut u8, Rc<dyn Any>)> {
    here(|state| {
        let file = state.of_fd(ring)?;
        match &state.file(file)?.kind {
            Kind::Ring(ring) => Some(ring.memory()),
            _ => None,
        }
    })
    .flatten()
}

/// # Safety
/// As `io_uring_enter`: every staged entry is whole, and what it names is valid until its last completion.
pub(crate) unsafe fn ring_enter(
    ring: RawDescriptor,
    submit: u32,
    wait: u32,
    getevents: bool,
    timeout: Option<Duration>,
    min_wait: u32,
) -> Result<u32, Errno> {
    let world = World::current().ok_or(Errno::BADF)?;
    let id = world.with(|state| state.of_fd(ring)).ok_or(Errno::BADF)?;
    if getevents {
        world.with(|state| state.enters());
    }
    if wait == 0 {
        world.pass();
    }
    let taken = world.with(|state| state.enter_begin(id, submit, getevents))?;
    if wait == 0 || taken < submit {
        return Ok(taken);
    }
    let answer = |errno| if taken > 0 { Ok(taken) } else { Err(errno) };
    let there = |state: &mut State| {
        // Work may spill into the overflow again, which a wait of the kernel's brings over before it sleeps.
        for _ in 0..MOST_ROUNDS {
            if !state.has_work(id) || state.completions(id) >= wait {
                break;
            }
            let _ = state.enter_begin(id, 0, true);
        }
        state.completions(id)
    };
    if world.with(there) >= wait {
        return Ok(taken);
    }
    let number = world.with(|state| state.ring_number(id));
    for (fault, errno, story) in [
        (Fault::EnterInterrupted, Errno::INTR, "was interrupted in its wait"),
        (Fault::EnterEarly, Errno::TIME, "ended its wait early"),
    ] {
        if world.with(|state| state.fault_of(fault, id, number, story)) {
            world.with(|state| state.advance(state.now + MICRO));
            return answer(errno);
        }
    }
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX >> 1);
    let timeout = timeout.map(nanos);
    if world.with(|state| state.current_proc.is_some()) {
        // The scheduler of the world's reactors waits, not this call.
        world.with(|state| state.wait_begins(id, timeout));
        return answer(Errno::TIME);
    }
    let now = world.with(|state| state.now);
    let mut wait = wait;
    if min_wait > 0 {
        let gather = now.saturating_add(u64::from(min_wait) * MICRO);
        world.wait(Some(gather), |state| there(state) >= wait);
        wait = 1;
    }
    let limit = timeout.map(|timeout| now.saturating_add(timeout));
    if world.wait(limit, |state| there(state) >= wait) { Ok(taken) } else { answer(Errno::TIME) }
}

/// # Safety
/// As `io_uring_register`.
pub(crate) unsafe fn ring_register(
    ring: RawDescriptor,
    op: IoringRegisterOp,
    arg: *mut std::ffi::c_void,
    count: u32,
) -> Result<u32, Errno> {
    here(|state| {
        let file = state.of_fd(ring).ok_or(Errno::BADF)?;
        // SAFETY: by the caller.
        unsafe { state.ring_register(file, op, arg, count) }
    })
    .unwrap_or(Err(Errno::BADF))
}
