//! The room of another system's: it has a room's surface, and there is none.
//!
//! So every list of the rooms names all of them, on every system, and the compiler takes out those that cannot be.

#![allow(dead_code, reason = "no system lacks all of them")]

use std::io;
use std::process::Child;
use std::time::Duration;

use super::{OwnedDescriptor, RawDescriptor, Ticks, Try, WakeSource};
use crate::config::Error;
use crate::core::{Core, OnCompletion};
use crate::descriptor::Entry;
use crate::op::Op;
use crate::payload::Memory;
use crate::slot::{OpId, Slot};

#[derive(Debug)]
pub(crate) enum Absent {}

impl Absent {
    pub(crate) fn is_simulated(&self) -> bool {
        match *self {}
    }

    pub(crate) fn fills_buffers_piecewise(&self) -> bool {
        match *self {}
    }

    pub(crate) fn wake_source(&self) -> io::Result<WakeSource> {
        match *self {}
    }

    /// As a queue that other threads wake.
    pub(crate) fn wake(&self) -> Result<(), i32> {
        match *self {}
    }

    pub(crate) fn watch_child(&self, _: &Child) -> io::Result<Option<OwnedDescriptor>> {
        match *self {}
    }

    pub(crate) fn prepare(&self, _: &Core) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn start(&self, _: &Core, _: &Slot, _: OpId, _: Op, _: &Entry, _: Memory) -> bool {
        match *self {}
    }

    pub(crate) fn try_send(&self, _: &Core, _: &Entry, _: &[u8], _: bool) -> Try {
        match *self {}
    }

    pub(crate) fn file_sent(&self, _: &Core, _: &Slot, _: i32, _: &mut dyn OnCompletion) {
        match *self {}
    }

    pub(crate) fn restart(&self, _: &Core, _: &Slot) {
        match *self {}
    }

    pub(crate) fn cancel(&self, _: &Core, _: &Slot) {
        match *self {}
    }

    pub(crate) fn cancel_fd(&self, _: &Core, _: &Entry) {
        match *self {}
    }

    pub(crate) fn close(&self, _: &Core, _: &Entry, _: Option<&Slot>) {
        match *self {}
    }

    pub(crate) fn forget(&self, _: &Core, _: &Entry) {
        match *self {}
    }

    pub(crate) fn overlapped(
        &self,
        _: &Core,
        _: &Slot,
    ) -> io::Result<std::ptr::NonNull<std::ffi::c_void>> {
        match *self {}
    }

    pub(crate) fn listens(&self, _: RawDescriptor, _: bool) {
        match *self {}
    }

    pub(crate) fn shut(&self, _: &Core, _: u32, _: &Entry, _: std::net::Shutdown) {
        match *self {}
    }

    pub(crate) fn has_staged(&self) -> bool {
        match *self {}
    }

    pub(crate) fn retire(&self, _: &Core) {
        match *self {}
    }
}

impl Ticks for Absent {
    fn has_work(&self) -> bool {
        match *self {}
    }

    fn wait(&self, _: &Core, _: Option<Duration>) -> io::Result<()> {
        match *self {}
    }

    fn reap(&self, _: &Core, _: &mut impl OnCompletion) {
        match *self {}
    }
}

/// A ring of buffers that no kernel of this system takes: the pool fills its buffers for the room.
pub(crate) enum NoRing {}

impl NoRing {
    /// # Safety
    /// There is none to call it on.
    pub(crate) unsafe fn push(&self, _: *mut u8, _: u32, _: u16) {
        match *self {}
    }

    pub(crate) fn publish(&self) {
        match *self {}
    }
}
