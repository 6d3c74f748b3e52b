//! What a runtime does with a [`Flight`]: the calls that take a [`Key`], without the look whether it is of this
//! driver. A future holds its flight beside the socket whose driver has launched it, so there is nothing to
//! find out, on a path where that look would be a tenth of the work.

use std::marker::PhantomData;

use super::Driver;
use crate::payload::Payload;
use crate::slot::{Flight, Key, Slot, State, Token};

impl Driver {
    /// True when the operation has ended and its outcome can be taken.
    ///
    /// # Safety
    /// This driver has launched the flight.
    #[inline(always)]
    pub unsafe fn has_landed<P>(&self, flight: &Flight<P>) -> bool {
        // SAFETY: as the caller says.
        unsafe { self.slot_in(flight) }.has_ended()
    }

    /// True when the operation has landed and a tick has told of it: who that was has the token, and its outcome can
    /// be taken without a look at that.
    ///
    /// # Safety
    /// This driver has launched the flight.
    #[inline(always)]
    pub unsafe fn is_told_of<P>(&self, flight: &Flight<P>) -> bool {
        // SAFETY: as the caller says.
        unsafe { self.slot_in(flight) }.state.get() == State::Told
    }

    /// Takes the outcome of an operation that [has landed](Driver::has_landed).
    ///
    /// # Safety
    /// This driver has launched the flight, and it has landed.
    #[inline(always)]
    pub unsafe fn land<P: Payload>(&self, flight: Flight<P>) -> P::Output {
        // SAFETY: as the caller says.
        let slot = unsafe { self.slot_in(&flight) };
        debug_assert!(slot.has_ended());
        self.take_done::<P>(slot)
    }

    /// Whom the operation's completion is for.
    ///
    /// # Safety
    /// This driver has launched the flight.
    #[inline(always)]
    pub unsafe fn token_in<P>(&self, flight: &Flight<P>) -> Token {
        // SAFETY: as the caller says.
        Token(unsafe { self.slot_in(flight) }.token.get())
    }

    /// Says whom the operation's completion is for from now on.
    ///
    /// # Safety
    /// This driver has launched the flight.
    #[inline(always)]
    pub unsafe fn set_token_in<P>(&self, flight: &Flight<P>, token: Token) {
        // SAFETY: as the caller says.
        unsafe { self.slot_in(flight) }.token.set(token.0);
    }

    /// The flight as a key, which every safe call takes.
    ///
    /// # Safety
    /// This driver has launched the flight.
    pub unsafe fn key_of<P>(&self, flight: Flight<P>) -> Key<P> {
        // SAFETY: as the caller says.
        let slot = unsafe { self.slot_in(&flight) };
        Key { id: self.core.arena.id(slot), driver: self.core.id, payload: PhantomData }
    }

    /// The key as a flight.
    ///
    /// # Errors
    /// The key comes back where it is of another driver.
    pub fn flight_of<P>(&self, key: Key<P>) -> Result<Flight<P>, Key<P>> {
        match self.slot_of(&key) {
            Some(slot) => Ok(Flight::new(slot)),
            None => Err(key),
        }
    }

    /// # Safety
    /// This driver has launched the flight.
    #[inline(always)]
    unsafe fn slot_in<P>(&self, flight: &Flight<P>) -> &Slot {
        // SAFETY: the slot lies in this driver's arena, says the caller, which lives as long as `self`, and all
        // that ever changes in a slot is in cells. It is still the flight's: a flight is unique, and only
        // giving it up releases its slot.
        unsafe { flight.slot.as_ref() }
    }
}
