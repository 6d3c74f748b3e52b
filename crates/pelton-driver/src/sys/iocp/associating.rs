//! Which descriptors have their packets come to this driver's port.
//!
//! An association is for good, and belongs to what a handle names, not to the handle: a duplicate has it too. The
//! system says only that there is one, not with which port. So where it refuses a second one, it is looked up
//! whether the first was made here: in the table, for duplicates, and among what was given back.

use std::cell::RefCell;

use super::win32::{Name, dissociate, is_same, name_of};
use super::{Iocp, errno, port};
use crate::core::Core;
use crate::descriptor::{Entry, flags};
use crate::sys::windows::{RawDescriptor, calls, raw_of};

/// How many are remembered that were given back.
const MOST_REMEMBERED: usize = 1024;

/// Sockets that were given back: the number, the address, and whether successes post packets. By these a socket is
/// known again; a file cannot be, whose number may be another's that is like it in everything that can be asked.
pub(super) type GivenBack = RefCell<Vec<(RawDescriptor, Name, bool)>>;

impl Iocp {
    /// Has a descriptor's packets come here, from its first operation on.
    pub(super) fn associate(&self, core: &Core, entry: &Entry, may_skip: bool) -> Result<(), i32> {
        if entry.has(flags::REGISTERED) {
            return Ok(());
        }
        let raw = raw_of(entry);
        // Never on what came from the user, who may count on every packet.
        let may_skip = may_skip
            && !entry.has(flags::FOREIGN)
            && raw.socket().is_some()
            && self.extensions.are_handles;
        if entry.has(flags::STREAM) && !calls::is_stream(raw).unwrap_or(false) {
            // Its owner has said so and knew no better. A message that is longer than its buffer fails at once and
            // posts a packet too, or none: only what is received without a wait can be told of once.
            entry.unset(flags::STREAM);
        }
        core.counters().registrations.add(1);
        let skips = match port::associate(core.shared.wake.port(), raw.handle(), may_skip) {
            Ok(skips) => skips,
            Err(errno::EINVAL) => self.is_ours(core, raw).ok_or(errno::EINVAL)?,
            Err(error) => return Err(error),
        };
        entry.of_room.skips.set(skips);
        entry.set(flags::REGISTERED);
        Ok(())
    }

    /// Whether a descriptor is associated with this port already: then whether its successes skip their packets.
    #[cold]
    fn is_ours(&self, core: &Core, raw: RawDescriptor) -> Option<bool> {
        for at in 0..core.fds.len() {
            if let Some(other) = core.fds.get(at)
                && other.has(flags::OPEN)
                && other.has(flags::REGISTERED)
                && is_same(raw_of(other).handle(), raw.handle())
            {
                return Some(other.of_room.skips.get());
            }
        }
        let mut given_back = self.given_back.borrow_mut();
        let name = name_of(raw).ok()?;
        // The number alone may be another's by now.
        let at = given_back.iter().position(|(old, known, _)| *old == raw && *known == name)?;
        Some(given_back.swap_remove(at).2)
    }

    /// Remembers a descriptor that the user takes back.
    pub(super) fn give_back(&self, entry: &Entry) {
        let raw = raw_of(entry);
        if entry.has(flags::REGISTERED)
            && !dissociate(raw.handle())
            && let Ok(name) = name_of(raw)
        {
            let mut given_back = self.given_back.borrow_mut();
            given_back.retain(|(old, ..)| *old != raw);
            if given_back.len() == MOST_REMEMBERED {
                given_back.remove(0);
            }
            given_back.push((raw, name, entry.of_room.skips.get()));
        }
    }
}
