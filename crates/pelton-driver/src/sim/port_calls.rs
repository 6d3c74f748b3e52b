//! The calls of the simulated system that are Windows's alone, as the room of completion ports makes them. Errors
//! are positive here, 0 is none.

use std::time::Duration;

use super::calls::{RawFile, here};
use super::fault::Fault;
use super::file::{File, Kind};
use super::port::{Call, Overlapped, Packet};
use super::state::MICRO;
use super::stream::Context;
use super::world::World;
use crate::sys::RawDescriptor;

/// A completion port: its descriptor, or a negated error.
pub(crate) fn port() -> i32 {
    here(|state| {
        let file = state.port_create();
        state.driver_fd(file, "a completion port")
    })
    .unwrap_or(-libc::EBADF)
}

/// The device through which sockets are polled.
pub(crate) fn device() -> i32 {
    here(|state| {
        let file = state.new_file(Kind::Device, false);
        state.new_fd(file)
    })
    .unwrap_or(-libc::EBADF)
}

pub(crate) fn associate(port: RawDescriptor, fd: RawDescriptor, key: usize) -> i32 {
    here(|state| match (state.of_fd(port), state.of_fd(fd)) {
        (Some(port), Some(file)) => state.port_associate(port, file, key),
        _ => libc::EBADF,
    })
    .unwrap_or(libc::EBADF)
}

/// Successes on this file that come at once post no packet.
pub(crate) fn skip_successes(fd: RawDescriptor) {
    here(|state| {
        let file = state.of_fd(fd)?;
        state.file_mut(file)?.bound.as_mut()?.skips = true;
        Some(())
    });
}

/// Ends an association.
pub(crate) fn dissociate(fd: RawDescriptor) -> bool {
    here(|state| {
        let file = state.of_fd(fd)?;
        state.file_mut(file)?.bound.take().map(drop)
    })
    .flatten()
    .is_some()
}

/// True for two descriptors of one file.
pub(crate) fn is_same(one: RawDescriptor, other: RawDescriptor) -> bool {
    here(|state| state.of_fd(one).is_some() && state.of_fd(one) == state.of_fd(other))
        .unwrap_or(false)
}

/// Makes an overlapped call. `device` is what a poll is in flight on.
///
/// # Safety
/// The `OVERLAPPED`, the parts and what the call names are valid, and nobody else touches them, until the packet has
/// been taken; where there will be none, until this returns.
pub(crate) unsafe fn overlapped(
    fd: RawDescriptor,
    device: Option<RawDescriptor>,
    place: *mut Overlapped,
    call: Call,
    parts: Vec<(*mut u8, usize)>,
) -> i32 {
    here(|state| {
        let Some(file) = state.of_fd(fd) else { return libc::ENOTSOCK };
        let device = device.and_then(|device| state.of_fd(device));
        // SAFETY: by the caller.
        unsafe { state.overlapped(file, device, place, call, parts) }
    })
    .unwrap_or(libc::EBADF)
}

/// Asks for the end of one call on a file, or of all. False where none is found.
pub(crate) fn cancel(fd: RawDescriptor, which: Option<*const Overlapped>) -> bool {
    here(|state| state.of_fd(fd).is_some_and(|file| state.cancel_overlapped(file, which)))
        .unwrap_or(false)
}

/// The same for a poll.
pub(crate) fn cancel_poll(device: RawDescriptor, which: *const Overlapped) -> bool {
    here(|state| state.of_fd(device).is_some_and(|device| state.cancel_poll(device, which)))
        .unwrap_or(false)
}

/// Waits for packets; none where nothing has come in time.
pub(crate) fn wait(
    port: RawDescriptor,
    most: usize,
    timeout: Option<Duration>,
) -> Result<Vec<Packet>, i32> {
    let world = World::current().ok_or(libc::EBADF)?;
    let id = world.with(|state| state.of_fd(port)).ok_or(libc::EBADF)?;
    let timeout = timeout.map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX >> 1));
    let early = world.with(|state| {
        let number = state.port_number(id);
        state.enters();
        timeout != Some(0) && state.fault_of(Fault::EnterEarly, id, number, "ended its wait early")
    });
    if early {
        // Not for nothing, or a loop that asks again would never let time pass.
        world.with(|state| state.advance(state.now + MICRO));
        return Ok(Vec::new());
    }
    if timeout == Some(0) {
        world.pass();
    }
    let mut taken = world.with(|state| state.port_take(id, most));
    if taken.is_empty() && timeout != Some(0) {
        if world.with(|state| state.current_proc.is_some()) {
            // The scheduler of the world's reactors waits, not this call.
            world.with(|state| state.port_waits(id, timeout));
            return Ok(taken);
        }
        let limit = timeout.map(|timeout| world.with(|state| state.now.saturating_add(timeout)));
        world.wait(limit, |state| {
            taken = state.port_take(id, most);
            !taken.is_empty()
        });
    }
    Ok(taken)
}

/// Makes a connected socket one like any other: one that was connected, or one that was accepted by a listener.
pub(crate) fn update_context(fd: RawDescriptor, listener: Option<RawDescriptor>) -> i32 {
    here(|state| {
        if let Some(listener) = listener {
            let file = state.of_fd(listener).and_then(|file| state.file(file));
            if !matches!(file, Some(File { kind: Kind::Listener(_), .. })) {
                return libc::ENOTSOCK;
            }
        }
        let Some(file) = state.of_fd(fd) else { return libc::ENOTSOCK };
        match state.stream_mut(file) {
            Some(stream) if stream.context == Context::Missing => {
                stream.context = Context::None;
                0
            }
            _ => libc::ENOTCONN,
        }
    })
    .unwrap_or(libc::EBADF)
}

/// What a descriptor is to Windows.
pub(crate) fn kind_of(fd: RawDescriptor) -> RawFile {
    here(|state| match state.of_fd(fd).and_then(|file| state.file(file)).map(|file| &file.kind) {
        Some(Kind::Stream(_) | Kind::Listener(_) | Kind::Datagram(_)) => RawFile::Socket,
        Some(Kind::Disk(_)) => RawFile::Disk,
        Some(Kind::Pipe(_)) => RawFile::Pipe,
        _ => RawFile::Other,
    })
    .unwrap_or(RawFile::Other)
}

/// What no program may do, and nobody would be told of.
pub(crate) fn wrong(what: impl FnOnce(&str) -> String, fd: RawDescriptor) {
    here(|state| {
        let name = state.of_fd(fd).map_or("nothing".into(), |file| state.file_name(file));
        state.violation(what(&name));
    });
}
