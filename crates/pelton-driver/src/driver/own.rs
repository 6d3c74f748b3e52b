//! What the seam needs of a driver, and descriptors that stay the user's.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use super::Driver;
use crate::core::Core;
use crate::descriptor::{Fd, flags};
use crate::slot::{Key, OpId};
use crate::sys::{RawDescriptor, Room, calls};

impl Driver {
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    pub(crate) fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }

    pub(crate) fn settle_now(&self) {
        self.settle();
    }

    pub(crate) fn key_for<P>(&self, id: OpId) -> Key<P> {
        Key { id, driver: self.core.id, payload: PhantomData }
    }

    pub(crate) fn owns<P>(&self, key: &Key<P>) -> bool {
        key.driver == self.core.id
    }

    /// Enters a descriptor that is not the driver's to close.
    pub(crate) fn associate_raw(&self, raw: RawDescriptor) -> io::Result<Fd> {
        if self.room.wants_nonblocking() {
            calls::set_nonblocking(raw)?;
        }
        let stream = if calls::is_stream(raw)? { flags::STREAM } else { 0 };
        let known = flags::FOREIGN | flags::BORROWED | stream;
        self.core.fds.insert(raw, known).ok_or_else(super::table_is_full)
    }
}
