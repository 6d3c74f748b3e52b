//! Which rooms there are on this system, and which of them the settings get. Those of other systems are
//! [`Absent`](crate::sys::absent::Absent).

use super::Room;
use crate::config::{Backend, Error};

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(windows, path = "windows.rs")]
#[cfg_attr(not(any(target_os = "linux", windows)), path = "kqueue.rs")]
mod here;

pub(crate) use here::*;

/// A backend of another system's.
fn not_here(backend: Backend) -> Error {
    Error::Unsupported { backend, reason: here::INSTEAD.into() }
}
