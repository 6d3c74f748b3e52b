//! What a descriptor's entry in the table keeps for this room.

use std::cell::Cell;

use crate::slot::NIL;

pub(crate) struct OfRoom {
    /// The record of the socket's poll, or none.
    pub(crate) poll: Cell<u32>,
    /// Successes of the handle that come at once post no packet.
    pub(crate) skips: Cell<bool>,
    /// Sends that are in the kernel.
    pub(crate) sends: Cell<u32>,
    /// A listener that is associated with another port: its accepts are told of by events.
    pub(crate) by_event: Cell<bool>,
    /// That it was reset has been told.
    pub(crate) reset_told: Cell<bool>,
    /// It has been shut down for receiving.
    pub(crate) read_shut: Cell<bool>,
    /// What is written to this pipe are messages, where that is known.
    pub(crate) messages: Cell<Option<bool>>,
    /// A message of no bytes has been taken from this pipe, and told to nobody yet.
    pub(crate) empty_message: Cell<bool>,
}

impl OfRoom {
    pub(crate) const fn new() -> OfRoom {
        OfRoom {
            poll: Cell::new(NIL),
            skips: Cell::new(false),
            sends: Cell::new(0),
            by_event: Cell::new(false),
            reset_told: Cell::new(false),
            read_shut: Cell::new(false),
            messages: Cell::new(None),
            empty_message: Cell::new(false),
        }
    }

    pub(crate) fn clear(&self) {
        self.poll.set(NIL);
        self.skips.set(false);
        self.sends.set(0);
        self.by_event.set(false);
        self.reset_told.set(false);
        self.read_shut.set(false);
        self.messages.set(None);
        self.empty_message.set(false);
    }
}
