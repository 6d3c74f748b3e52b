//! What Windows has: completion ports.

use super::{Room, not_here};
use crate::config::{Backend, Config, Error};

pub(crate) use crate::sys::absent::Absent as Uring;
pub(crate) use crate::sys::absent::Absent as Epoll;
pub(crate) use crate::sys::absent::Absent as Kqueue;
pub(crate) use crate::sys::absent::NoRing as BufferRing;
pub(crate) use crate::sys::iocp::Iocp;

/// What to use instead of another system's backend.
pub(super) const INSTEAD: &str = "this is Windows: use iocp, or leave it at `auto`";

pub(crate) fn open(
    wanted: Backend,
    config: &Config,
    _: bool,
) -> Result<(Room, Option<String>), Error> {
    match wanted {
        Backend::Auto | Backend::Iocp => Ok((Room::Iocp(Iocp::new(config)?), None)),
        other => Err(not_here(other)),
    }
}
