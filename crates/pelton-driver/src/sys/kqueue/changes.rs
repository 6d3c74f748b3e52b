//! The changes that wait to be told to the kernel.
//!
//! Nothing here is told when it is asked for: a tick tells all of it in one call, before it waits and also where it
//! does not wait. So an added filter costs no call of its own, and a removed one is gone when the tick is over.
//!
//! A descriptor that is closed takes its filters along, and its number may be another file's by the time that the
//! changes are told. So an addition names the descriptor by its entry and generation, and is left out where that
//! entry is not open any more; the order of what is left stays as it was asked for, because a number may be removed
//! and added again in one tick.

use std::cell::UnsafeCell;
use std::time::Duration;

use super::Calls;
use super::event::{Event, Filter};
use super::kevent::{Kevent, flags};
use crate::descriptor::Fd;
use crate::sys::NO_DESCRIPTOR;
use crate::sys::readiness::Direction;
use crate::sys::unix::{RawDescriptor, errno};

/// A filter that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) fd: Fd,
    pub(super) direction: Direction,
    /// Positive.
    pub(super) errno: i32,
}

#[derive(Clone, Copy)]
enum Change {
    Add { fd: Fd, direction: Direction },
    Delete { raw: RawDescriptor, direction: Direction },
}

#[derive(Default)]
pub(super) struct Changes {
    waiting: UnsafeCell<Vec<Change>>,
    /// What `tell` asks and is answered, kept so that it allocates nothing.
    told: UnsafeCell<(Vec<Kevent>, Vec<Kevent>)>,
}

impl Changes {
    /// Watches a descriptor for edges of one direction from the next tick on.
    pub(super) fn add(&self, fd: Fd, direction: Direction) {
        // SAFETY: one thread, and a push of plain data runs nobody's code.
        unsafe { &mut *self.waiting.get() }.push(Change::Add { fd, direction });
    }

    /// Stops watching a descriptor that stays open and is the user's from now on.
    pub(super) fn delete(&self, raw: RawDescriptor, direction: Direction) {
        // SAFETY: as above.
        unsafe { &mut *self.waiting.get() }.push(Change::Delete { raw, direction });
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        // SAFETY: as above.
        unsafe { &*self.waiting.get() }.is_empty()
    }

    /// Tells the kernel of everything that waits, each change with its own receipt, and `refused` of each addition
    /// that the kernel has not made. True when there was one. `number` says which number a descriptor has, if it is
    /// still open, and what its events are to carry.
    ///
    /// # Errors
    /// The kernel refused the call as a whole, and nothing is lost: all of it is told again the next time, which
    /// does no harm.
    #[cold]
    pub(super) fn tell(
        &self,
        calls: &impl Calls,
        number: impl Fn(Fd) -> Option<(RawDescriptor, u64)>,
        mut refused: impl FnMut(Refused),
    ) -> Result<bool, i32> {
        // SAFETY: one thread, and what is called while these references live runs nobody's code: the queue's call
        // and `number`, which only look. Whoever is refused may come back here, and is told when they are over.
        let (waiting, (asked, receipts)) =
            unsafe { (&mut *self.waiting.get(), &mut *self.told.get()) };
        waiting.retain(|change| match *change {
            Change::Add { fd, .. } => number(fd).is_some(),
            Change::Delete { .. } => true,
        });
        asked.clear();
        asked.extend(waiting.iter().map(|change| change.asked(&number)));
        receipts.clone_from(asked);
        let told = loop {
            match calls.kevent(asked, receipts, Some(Duration::ZERO)) {
                Ok(told) => break told,
                // What has been applied may be applied again.
                Err(errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        };
        let answered = waiting.drain(..).zip(&receipts[..told]);
        // Allocates only where there are some.
        let refusals: Vec<Refused> = answered.filter_map(refusal).collect();
        let any = !refusals.is_empty();
        // An operation that is refused ends here, and what an orphan owns is user code to drop.
        refusals.into_iter().for_each(&mut refused);
        Ok(any)
    }
}

/// What the kernel has refused of a change. A removed filter may have gone with its descriptor, or never have been
/// there.
fn refusal((change, receipt): (Change, &Kevent)) -> Option<Refused> {
    let (receipt, Change::Add { fd, direction }) = (receipt.told(), change) else { return None };
    let is_refused = receipt.flags & flags::ERROR != 0 && receipt.data != 0;
    is_refused.then_some(Refused { fd, direction, errno: receipt.data as i32 })
}

impl Change {
    fn asked(&self, number: impl Fn(Fd) -> Option<(RawDescriptor, u64)>) -> Kevent {
        let (raw, direction, flags, udata) = match *self {
            Change::Add { fd, direction } => {
                let (raw, data) = number(fd).unwrap_or((NO_DESCRIPTOR, u64::MAX));
                (raw, direction, flags::ADD | flags::CLEAR, data)
            }
            Change::Delete { raw, direction } => (raw, direction, flags::DELETE, 0),
        };
        let filter = match direction {
            Direction::In => Filter::Read,
            Direction::Out => Filter::Write,
        };
        let flags = flags | flags::RECEIPT;
        Kevent::asking(Event { ident: raw as usize, filter, flags, fflags: 0, data: 0, udata })
    }
}

#[cfg(test)]
mod tests;
