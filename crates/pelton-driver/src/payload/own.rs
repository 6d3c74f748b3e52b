//! What an operation of one's own has in its slot: a body, in a box, which begins with a head that the rooms know
//! how to use whatever the rest of it is.

use std::io;

use super::held::Held;
use super::{Memory, NoRoom, Payload, Sealed, VTable, outcome};
use crate::core::Core;
use crate::seam::{RawEntry, Ready};
use crate::slot::Slot;
use crate::sys::errno;

/// An operation of one's own, by the memory that it uses: it yields the result and the memory.
#[derive(Debug)]
pub struct Own<T>(pub T);

payload!([T: 'static] Own<T> => (io::Result<usize>, T));

/// What the rooms use of a body.
pub(crate) struct OwnHead {
    pub(crate) entry: RawEntry,
    /// Calls the closure of the body that this is the head of: 0 where it has said what came of it, or `EAGAIN`.
    pub(crate) call: unsafe fn(*mut OwnHead, Ready<'_>) -> i32,
    /// What the closure said.
    outcome: Option<io::Result<usize>>,
}

type Attempt<T> = Box<dyn FnMut(&mut T, &Ready<'_>) -> io::Result<usize>>;

#[repr(C)]
pub(crate) struct OwnBody<T> {
    pub(crate) head: OwnHead,
    pub(crate) attempt: Option<Attempt<T>>,
    pub(crate) memory: T,
}

// A body is never so small that it would stand in the slot itself, where it could not be reached by a pointer that
// outlives a look.
impl<T: 'static> OwnBody<T> {
    const TABLE: &'static VTable = &VTable { drop: Held::<OwnBody<T>>::drop, memory: Self::head };

    /// Puts a body with this memory into a slot that holds nothing.
    pub(crate) fn put(slot: &Slot, memory: T) {
        let head = OwnHead { entry: RawEntry::default(), call: Self::call, outcome: None };
        Held::put(slot, OwnBody { head, attempt: None, memory }, Self::TABLE);
    }

    /// Where the body of a slot is. The slot holds one of this type.
    pub(crate) fn of(slot: &Slot) -> *mut OwnBody<T> {
        // SAFETY: only `put` fills slots of this kind, and the type is that of whoever has the slot's only handle.
        unsafe { Held::at(slot.payload()) }
    }

    /// Takes the body out again. No kernel has it.
    pub(crate) fn take(slot: &Slot) -> OwnBody<T> {
        // SAFETY: as in `of`, and the caller says that it is not in flight.
        unsafe { Held::take(slot) }
    }

    unsafe fn head(payload: *mut u8) -> Memory {
        // SAFETY: the payload is a body of this type. No reference is made: the kernel may be at its memory.
        let body = unsafe { Held::<OwnBody<T>>::at(payload) };
        Memory { ptr: body.cast(), len: size_of::<OwnHead>() }
    }

    unsafe fn call(head: *mut OwnHead, ready: Ready<'_>) -> i32 {
        // SAFETY: the head stands at the start of a body of this type, and the pointer is one to the whole of it.
        // Operations with a closure have nothing in the kernel, so the body is this call's alone.
        let body = unsafe { &mut *head.cast::<OwnBody<T>>() };
        let Some(attempt) = &mut body.attempt else { return 0 };
        match attempt(&mut body.memory, &ready) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => -errno::EAGAIN,
            said => {
                body.head.outcome = Some(said);
                0
            }
        }
    }
}

#[allow(private_interfaces)]
impl<T: 'static> Sealed for Own<T> {
    type Outcome = (io::Result<usize>, T);

    fn place(self, _: &Core, _: &Slot) -> Result<Memory, NoRoom> {
        unreachable!("an operation of one's own is prepared")
    }

    fn refuse(self, error: io::Error) -> Self::Outcome {
        (Err(error), self.0)
    }

    fn unplace(_: &Core, slot: &Slot) -> Own<T> {
        Own(OwnBody::take(slot).memory)
    }

    fn finish(_: &Core, slot: &Slot) -> Self::Outcome {
        // SAFETY: a key of this type was made only for a slot that holds a body of it, and done means that the
        // kernel has let go.
        let OwnBody { head, memory, .. }: OwnBody<T> = unsafe { Held::take_last(slot) };
        (head.outcome.unwrap_or_else(|| outcome(slot)), memory)
    }
}
