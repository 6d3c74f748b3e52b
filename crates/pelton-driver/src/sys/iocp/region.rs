//! Memory at addresses that never change, reserved at the start and taken from the system as it is used: the
//! homes of what the kernel writes to while an operation is in flight.
//!
//! Because a region is one range, a pointer that a packet carries can be told to be of it, and of which place,
//! without looking where it points to. A packet that somebody else has posted is found out that way.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_NOACCESS, PAGE_READWRITE,
};

use super::win32::{VirtualAlloc, VirtualFree};

/// What the system gives out at once.
const STEP: usize = 64 * 1024;

/// A type for which memory that is zero is a valid value, and that needs no drop.
///
/// # Safety
/// It is as that says.
pub(super) unsafe trait FromZero {}

/// Places for values of one type, by number.
pub(super) struct Region<T> {
    base: NonNull<u8>,
    capacity: u32,
    /// Bytes that the system has given out.
    committed: Cell<usize>,
    /// Places that have been used at least once.
    used: Cell<u32>,
    /// Nobody frees it.
    left_behind: Cell<bool>,
    places: PhantomData<T>,
}

impl<T: FromZero> Region<T> {
    /// Reserves room. None where the system refuses even that.
    pub(super) fn new(capacity: u32) -> Option<Region<T>> {
        let len = (capacity as usize).checked_mul(size_of::<T>())?.next_multiple_of(STEP);
        // SAFETY: a range of addresses of the system's choice, of which nothing is used yet.
        let base = unsafe { VirtualAlloc(std::ptr::null(), len, MEM_RESERVE, PAGE_NOACCESS) };
        let base = NonNull::new(base.cast::<u8>())?;
        debug_assert!(base.as_ptr().addr().is_multiple_of(align_of::<T>()));
        Some(Region {
            base,
            capacity,
            committed: Cell::new(0),
            used: Cell::new(0),
            left_behind: Cell::new(false),
            places: PhantomData,
        })
    }

    /// The place with this number, made usable if it never was. None beyond the capacity, or without memory.
    #[inline(always)]
    pub(super) fn get_or_grow(&self, index: u32) -> Option<&T> {
        if index >= self.used.get() {
            self.grow(index)?;
        }
        self.get(index)
    }

    /// The place with this number, if it has ever been used.
    #[inline(always)]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        if index >= self.used.get() {
            return None;
        }
        // SAFETY: below `used` memory has been given out, was zero, which is a valid value, and nobody makes a
        // `&mut` to it: all that changes is in cells.
        Some(unsafe { self.base.cast::<T>().add(index as usize).as_ref() })
    }

    /// Leaves the memory behind for good when the region goes.
    pub(super) fn leak(&self) {
        self.left_behind.set(true);
    }

    /// How many places have been used.
    pub(super) fn used(&self) -> u32 {
        self.used.get()
    }

    /// The number of the place that a pointer points to, if it is the start of one that has been used.
    #[inline(always)]
    pub(super) fn find<P>(&self, pointer: *const P) -> Option<u32> {
        let offset = pointer.addr().wrapping_sub(self.base.as_ptr().addr());
        let index = offset / size_of::<T>();
        let is_start = offset.is_multiple_of(size_of::<T>()) && index < self.used.get() as usize;
        is_start.then_some(index as u32)
    }

    #[cold]
    fn grow(&self, index: u32) -> Option<()> {
        if index >= self.capacity {
            return None;
        }
        let wanted = (index as usize + 1) * size_of::<T>();
        if wanted > self.committed.get() {
            let from = self.committed.get();
            let len = wanted.next_multiple_of(STEP) - from;
            // SAFETY: within what was reserved, and beyond what has been given out.
            let start = unsafe { self.base.add(from) };
            // SAFETY: as above; the new memory is zero.
            let given =
                unsafe { VirtualAlloc(start.as_ptr().cast(), len, MEM_COMMIT, PAGE_READWRITE) };
            if given.is_null() {
                return None;
            }
            self.committed.set(from + len);
        }
        self.used.set(index + 1);
        Some(())
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        if self.left_behind.get() {
            return;
        }
        // SAFETY: reserved by `new`, and nobody has a reference to a place any more. Whoever owns the region sees
        // to it that no kernel writes to it any more, or leaks it.
        unsafe { VirtualFree(self.base.as_ptr().cast(), 0, MEM_RELEASE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(#[allow(dead_code)] Cell<[u64; 5]>);

    // SAFETY: numbers.
    unsafe impl FromZero for Place {}

    #[test]
    fn places_stay_where_they_are_and_are_found_by_their_address_alone() {
        let region = Region::<Place>::new(100_000).unwrap();
        let first: *const Place = region.get_or_grow(0).unwrap();
        let last: *const Place = region.get_or_grow(99_999).unwrap();
        assert!(std::ptr::eq(first, region.get(0).unwrap()));
        assert_eq!((region.find(first), region.find(last)), (Some(0), Some(99_999)));
        let beyond = last.wrapping_add(1);
        let within = first.wrapping_byte_add(8);
        for strange in [std::ptr::null(), beyond, within, first.wrapping_sub(1)] {
            assert_eq!(region.find(strange), None, "{strange:?}");
        }
        assert!(region.get_or_grow(100_000).is_none());
    }

    #[test]
    fn a_place_that_was_never_used_is_nobodys() {
        let region = Region::<Place>::new(8).unwrap();
        let third: *const Place = region.get_or_grow(2).unwrap();
        assert!(region.get(3).is_none());
        assert_eq!(region.find(third.wrapping_add(1)), None);
    }
}
