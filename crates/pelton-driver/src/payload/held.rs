//! An owner in a slot, its type forgotten: how it gets in and out again.

use std::mem::MaybeUninit;

use super::Memory;
use crate::slot::{PAYLOAD_WORDS, Slot};

/// What can be done with a payload whose type has been forgotten.
pub(crate) struct VTable {
    /// Drops the payload in place.
    pub(super) drop: unsafe fn(*mut u8),
    /// Asks the payload for its memory once more, for a short send or a retry.
    pub(super) memory: unsafe fn(*mut u8) -> Memory,
}

/// A payload that has been moved out of its slot because nobody will take it. Dropping it runs user code.
pub(crate) struct Leftover {
    bytes: MaybeUninit<[u64; PAYLOAD_WORDS]>,
    vtable: Option<&'static VTable>,
}

impl Leftover {
    /// Moves the payload out, so that the slot can be released before the payload is dropped.
    ///
    /// The kernel must have let go of the payload.
    pub(crate) fn take(slot: &Slot) -> Leftover {
        // SAFETY: the payload's bytes are moved, not copied: with its vtable gone the slot counts as
        // empty. Reading 24 bytes of `MaybeUninit` is right whatever they hold.
        let bytes = unsafe { slot.payload().cast::<MaybeUninit<[u64; PAYLOAD_WORDS]>>().read() };
        Leftover { bytes, vtable: slot.vtable.take() }
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(vtable) = self.vtable {
            // SAFETY: the vtable was set together with a payload of its type, which was moved here.
            unsafe { (vtable.drop)(self.bytes.as_mut_ptr().cast()) };
        }
    }
}

/// Asks the payload in a slot for its memory once more.
pub(crate) fn memory_again(slot: &Slot) -> Memory {
    match slot.vtable.get() {
        // SAFETY: the vtable was set together with the payload that is still in the slot.
        Some(vtable) => unsafe { (vtable.memory)(slot.payload()) }.clamped(),
        None => Memory::NONE,
    }
}

/// An owner of type `T` in a slot.
pub(super) struct Held<T>(std::marker::PhantomData<T>);

impl<T: 'static> Held<T> {
    const INLINE: bool = size_of::<T>() <= PAYLOAD_WORDS * 8 && align_of::<T>() <= 8;

    /// Moves `value` into a slot that holds nothing.
    #[inline(always)]
    pub(super) fn put(slot: &Slot, value: T, vtable: &'static VTable) {
        debug_assert!(slot.vtable.get().is_none());
        // SAFETY: the slot holds nothing, so nothing is overwritten, and its 24 bytes, aligned to 8,
        // have room for a `T` where `INLINE` says so and for a pointer otherwise.
        unsafe {
            if Self::INLINE {
                store(slot.payload().cast::<T>(), value);
            } else {
                slot.payload().cast::<*mut T>().write(Box::into_raw(Box::new(value)));
            }
        }
        slot.vtable.set(Some(vtable));
    }

    /// Where the owner is.
    ///
    /// # Safety
    /// `payload` holds what `put` put there.
    #[inline(always)]
    pub(super) unsafe fn at(payload: *mut u8) -> *mut T {
        if Self::INLINE {
            payload.cast()
        } else {
            // SAFETY: the caller says that `put` wrote a pointer here.
            unsafe { payload.cast::<*mut T>().read() }
        }
    }

    /// Moves the owner out of a slot that is released next.
    ///
    /// # Safety
    /// The slot holds a `T`, and the kernel has let go of it. Nobody takes it again: the slot is done, the caller
    /// has its key, and releases it whatever happens.
    #[inline(always)]
    pub(super) unsafe fn take_last(slot: &Slot) -> T {
        // SAFETY: the caller says that a `T` is here, which nobody takes again.
        unsafe {
            let at = Self::at(slot.payload());
            if Self::INLINE { load(at) } else { *Box::from_raw(at) }
        }
    }

    /// Moves the owner out.
    ///
    /// # Safety
    /// The slot holds a `T`, and the kernel has let go of it.
    pub(super) unsafe fn take(slot: &Slot) -> T {
        slot.vtable.set(None);
        // SAFETY: the caller says that a `T` is here; with the vtable gone nobody takes it again.
        unsafe { Self::take_last(slot) }
    }

    pub(super) unsafe fn drop(payload: *mut u8) {
        // SAFETY: the caller hands over a payload that holds a `T`, once.
        unsafe {
            let at = Self::at(payload);
            if Self::INLINE { at.drop_in_place() } else { drop(Box::from_raw(at)) }
        }
    }
}

type Word = MaybeUninit<usize>;

/// How many words a value consists of; none where that does not come out even.
const fn words<T>() -> usize {
    let (size, word) = (size_of::<T>(), size_of::<Word>());
    if align_of::<T>() == align_of::<Word>() && size / word <= PAYLOAD_WORDS {
        size / word
    } else {
        0
    }
}

/// Moves a value out of its place. As words where it consists of words: those stay in registers until they are
/// wanted, but bytes are copied from place to place.
///
/// # Safety
/// As for [`std::ptr::read`].
#[inline(always)]
unsafe fn load<T>(at: *const T) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the caller says that there is a value, which has as many words as `words` says. They are moved as
    // they are, initialised or not.
    unsafe {
        if words::<T>() == 0 {
            return at.read();
        }
        move_words(at.cast(), value.as_mut_ptr().cast(), words::<T>());
        value.assume_init()
    }
}

/// Moves a value into a place, as [`load`] does.
///
/// # Safety
/// As for [`std::ptr::write`].
#[inline(always)]
unsafe fn store<T>(at: *mut T, value: T) {
    // SAFETY: as in `load`; the value is not dropped here.
    unsafe {
        if words::<T>() == 0 {
            return at.write(value);
        }
        let value = MaybeUninit::new(value);
        move_words(value.as_ptr().cast(), at.cast(), words::<T>());
    }
}

/// # Safety
/// Both have room for that many words, at most [`PAYLOAD_WORDS`], and do not overlap.
#[inline(always)]
unsafe fn move_words(from: *const Word, to: *mut Word, words: usize) {
    // SAFETY: as the caller says.
    unsafe {
        to.write(from.read());
        if words > 1 {
            to.add(1).write(from.add(1).read());
        }
        if words > 2 {
            to.add(2).write(from.add(2).read());
        }
    }
}

pub(super) unsafe fn no_memory(_: *mut u8) -> Memory {
    Memory::NONE
}
