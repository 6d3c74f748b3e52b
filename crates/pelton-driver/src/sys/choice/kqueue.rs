//! What macOS and the BSDs have: kqueue.

use super::{Room, not_here};
use crate::config::{Backend, Config, Error};

pub(crate) use crate::sys::absent::Absent as Uring;
pub(crate) use crate::sys::absent::Absent as Epoll;
pub(crate) use crate::sys::absent::Absent as Iocp;
pub(crate) use crate::sys::absent::NoRing as BufferRing;
pub(crate) use crate::sys::kqueue::{Kqueue, Queue, single};

/// What to use instead of another system's backend.
pub(super) const INSTEAD: &str = "this system has kqueue: use that, or leave it at `auto`";

pub(crate) fn open(
    wanted: Backend,
    config: &Config,
    simulated: bool,
) -> Result<(Room, Option<String>), Error> {
    match wanted {
        Backend::Auto | Backend::Kqueue => {
            Ok((Room::Kqueue(Kqueue::new(config, simulated)?), None))
        }
        other => Err(not_here(other)),
    }
}
