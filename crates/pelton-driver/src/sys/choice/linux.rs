//! What Linux has: io_uring, and epoll where that cannot be had.

use super::{Room, not_here};
use crate::config::{Backend, Config, Error};

#[cfg(not(pelton_iocp_elsewhere))]
pub(crate) use crate::sys::absent::Absent as Iocp;
#[cfg(not(any(pelton_kqueue_elsewhere, test)))]
pub(crate) use crate::sys::absent::{Absent as Kqueue, Absent as Queue};
pub(crate) use crate::sys::epoll::Epoll;
#[cfg(pelton_iocp_elsewhere)]
pub(crate) use crate::sys::iocp::Iocp;
#[cfg(any(pelton_kqueue_elsewhere, test))]
pub(crate) use crate::sys::kqueue::{Kqueue, Queue, single};
/// Without a queue nobody asks for one.
#[cfg(not(any(pelton_kqueue_elsewhere, test)))]
pub(crate) use crate::sys::unix::watch::linux as single;
pub(crate) use crate::sys::uring::bufring::BufRing as BufferRing;
pub(crate) use crate::sys::uring::{Uring, setup};

/// What to use instead of another system's backend.
pub(super) const INSTEAD: &str = "this is Linux: use io_uring or epoll, or leave it at `auto`";

pub(crate) fn open(
    wanted: Backend,
    config: &Config,
    simulated: bool,
) -> Result<(Room, Option<String>), Error> {
    match wanted {
        Backend::IoUring => Uring::new(config, simulated)
            .map(|room| (Room::Uring(room), None))
            .map_err(|reason| Error::Unsupported { backend: Backend::IoUring, reason }),
        Backend::Epoll => epoll(config, simulated, None),
        Backend::Auto => match Uring::new(config, simulated) {
            Ok(room) => Ok((Room::Uring(room), None)),
            Err(reason) => {
                let reason = setup::for_fallback(&reason);
                epoll(config, simulated, Some(format!("{reason}; using epoll")))
            }
        },
        // For tests: epoll plays the queue.
        #[cfg(any(pelton_kqueue_elsewhere, test))]
        Backend::Kqueue => Ok((Room::Kqueue(Kqueue::new(config, simulated)?), None)),
        // For tests: a simulated system has ports.
        #[cfg(pelton_iocp_elsewhere)]
        Backend::Iocp if simulated => Ok((Room::Iocp(Iocp::new(config)?), None)),
        other => Err(not_here(other)),
    }
}

fn epoll(
    config: &Config,
    simulated: bool,
    fallback: Option<String>,
) -> Result<(Room, Option<String>), Error> {
    if config.batch_wait.is_zero() {
        return Ok((Room::Epoll(Epoll::new(simulated)?), fallback));
    }
    let because = fallback.map_or(String::new(), |reason| format!(" ({reason})"));
    Err(Error::Unsupported {
        backend: Backend::Epoll,
        reason: format!("`batch_wait` needs io_uring{because}: leave it at zero"),
    })
}
