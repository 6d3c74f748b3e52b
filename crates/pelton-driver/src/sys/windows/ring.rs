//! No kernel of Windows takes a ring of buffers: the pool fills its buffers for the room.

/// A ring that does not exist.
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
