//! Every call that the rooms make on a descriptor, in one place: a descriptor of a simulated system (feature
//! `sim`) is asked of that system, any other of the real one.
//!
//! The two are told apart by the number. Without the feature there is nothing to tell apart, and nothing
//! here costs an instruction. Results are as completions carry them: 0 and more, or a negated `errno`.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Instant, SystemTime};

use super::unix::{RawDescriptor, borrow, check};
use crate::config::Backend;
#[cfg(feature = "sim")]
use crate::sim::calls as sim;

/// True for the number of a descriptor of a simulated system.
#[inline(always)]
pub(crate) fn is_simulated(raw: RawDescriptor) -> bool {
    #[cfg(feature = "sim")]
    return sim::owns(raw);
    #[cfg(not(feature = "sim"))]
    {
        let _ = raw;
        false
    }
}

/// The clock that does not go back: the world's in a world, else the system's.
#[inline(always)]
pub(crate) fn now() -> Instant {
    #[cfg(feature = "sim")]
    if let Some(now) = sim::now() {
        return now;
    }
    Instant::now()
}

/// The wall clock: the world's in a world, else the system's.
#[inline(always)]
pub(crate) fn wall() -> SystemTime {
    #[cfg(feature = "sim")]
    if let Some(wall) = sim::wall() {
        return wall;
    }
    SystemTime::now()
}

/// A random word of the world's; none outside of a world.
#[inline(always)]
pub(crate) fn random() -> Option<u64> {
    #[cfg(feature = "sim")]
    return sim::random();
    #[cfg(not(feature = "sim"))]
    None
}

/// The addresses of a name from the world's table; none outside of a world.
#[inline(always)]
pub(crate) fn resolve(host: &str, port: u16) -> Option<io::Result<Vec<std::net::SocketAddr>>> {
    #[cfg(feature = "sim")]
    return sim::resolve(host, port);
    #[cfg(not(feature = "sim"))]
    {
        let _ = (host, port);
        None
    }
}

/// Has the world run a job of the blocking pool, in its own order; gives it back outside of a world.
#[inline(always)]
pub(crate) fn run_blocking(job: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> {
    #[cfg(feature = "sim")]
    return sim::run_blocking(job);
    #[cfg(not(feature = "sim"))]
    Err(job)
}

/// Which room is wanted, and whether on a simulated system: on that of this thread's world where there is
/// one, whatever was asked for.
pub(crate) fn placed(wanted: Backend) -> (Backend, bool) {
    #[cfg(feature = "sim")]
    {
        if wanted == Backend::Sim {
            sim::enter_default();
        }
        if sim::in_world() {
            let wanted = match wanted {
                Backend::Sim | Backend::Auto if sim::prefers_readiness() => Backend::Epoll,
                Backend::Sim => Backend::Auto,
                other => other,
            };
            return (wanted, true);
        }
    }
    (wanted, false)
}

/// `close`.
///
/// # Safety
/// The caller owns the number, and nobody uses it after this.
#[inline(always)]
pub(crate) unsafe fn close(raw: RawDescriptor) -> i32 {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::close(raw);
    }
    // SAFETY: the caller says that it is his to close.
    check(unsafe { libc::close(raw) as isize })
}

/// [`close`], of which nobody wants to know how it went.
///
/// # Safety
/// As for [`close`].
#[inline(always)]
pub(super) unsafe fn close_quietly(raw: RawDescriptor) {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        sim::close(raw);
        return;
    }
    // SAFETY: the caller says that it is his to close.
    drop(unsafe { OwnedFd::from_raw_fd(raw) });
}

/// Makes a descriptor that never blocks, if it is not one already. True when it had to.
pub(crate) fn set_nonblocking(raw: RawDescriptor) -> io::Result<bool> {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::set_nonblocking(raw).map_err(super::unix::error_of);
    }
    // SAFETY: the caller has it open.
    super::unix::set_nonblocking(unsafe { borrow(raw) })
}

/// True for a stream socket.
pub(crate) fn is_stream(raw: RawDescriptor) -> bool {
    #[cfg(feature = "sim")]
    if sim::owns(raw) {
        return sim::is_stream(raw);
    }
    // SAFETY: the caller has it open.
    rustix::net::sockopt::socket_type(unsafe { borrow(raw) })
        .is_ok_and(|socket| socket == rustix::net::SocketType::STREAM)
}
