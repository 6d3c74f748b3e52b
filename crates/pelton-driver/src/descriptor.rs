//! The table of descriptors: which the driver owns, what is in flight on each, and what is known of
//! their readiness.
//!
//! An operation names a descriptor by its place in this table and a generation, never by the number
//! that the system uses again as soon as it is closed. So an operation can neither reach a descriptor
//! after its close nor the next one that gets the same number: a staged entry, a parked retry or a
//! stale event finds another generation. A descriptor is closed when nothing is in flight on it any
//! more; until then its number cannot be reused.

use std::cell::Cell;

use crate::memory::Zeroed;
use crate::parked::Parked;
use crate::slot::NIL;
use crate::sys::{OfRoom, RawDescriptor};

/// A descriptor that a driver owns. Belongs to the driver that attached it; when it has been closed it
/// names nothing, and operations on it fail with `EBADF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fd {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What is known of a descriptor.
pub(crate) mod flags {
    /// In use.
    pub(crate) const OPEN: u16 = 1;
    /// Closed for new operations, waiting for those in flight.
    pub(crate) const CLOSING: u16 = 2;
    /// Known to the readiness selector.
    pub(crate) const REGISTERED: u16 = 4;
    /// May be readable: nothing said otherwise since the last edge.
    pub(crate) const READABLE: u16 = 8;
    /// May be writable: nothing said otherwise since the last edge.
    pub(crate) const WRITABLE: u16 = 16;
    /// The peer has closed or there was an error: readiness is not forgotten after a short receive.
    pub(crate) const HUNG_UP: u16 = 32;
    /// A byte stream: a receive that is shorter than its buffer has emptied it.
    pub(crate) const STREAM: u16 = 64;
    /// In the list of descriptors that are ready and have operations left to try.
    pub(crate) const LISTED: u16 = 128;
    /// Cannot be read without a wait: what the page cache has is not asked for.
    pub(crate) const WAITS: u16 = 512;
    /// Known to the readiness selector for sending, where it knows directions by themselves.
    #[allow(dead_code, reason = "epoll knows both directions together")]
    pub(crate) const REGISTERED_OUT: u16 = 2048;
    /// Came from the user, who may have duplicates of it: they keep a registration alive after the close.
    pub(crate) const FOREIGN: u16 = 256;
    /// A file that has been sent from: operations on other descriptors may be in flight on it as well.
    pub(crate) const SENT_FROM: u16 = 4096;
    /// Stays the user's: it is not closed.
    pub(crate) const BORROWED: u16 = 1024;

    const _: () = {
        let all = [
            OPEN,
            CLOSING,
            REGISTERED,
            REGISTERED_OUT,
            READABLE,
            WRITABLE,
            HUNG_UP,
            STREAM,
            LISTED,
            WAITS,
            FOREIGN,
            BORROWED,
            SENT_FROM,
        ];
        let (mut at, mut seen) = (0, 0);
        while at < all.len() {
            assert!(
                all[at].is_power_of_two() && seen & all[at] == 0,
                "each flag is a bit of its own"
            );
            seen |= all[at];
            at += 1;
        }
    };
}

pub(crate) struct Entry {
    pub(crate) raw: Cell<RawDescriptor>,
    /// Odd while operations may be submitted, which then name it; even from the beginning of the close to
    /// the next use of the entry.
    pub(crate) generation: Cell<u32>,
    /// Twice the number of operations in flight, and one more while it is not closing: so zero, which is one
    /// look, says that it is closing and nothing is in flight any more.
    holds: Cell<u32>,
    /// How many of those in flight have been asked to cancel, one by one.
    pub(crate) cancelled: Cell<u32>,
    /// While closing: the slot of the close operation, or none. While free: the next free entry.
    pub(crate) closer: Cell<u32>,
    pub(crate) flags: Cell<u16>,
    pub(crate) misses: Misses,
    pub(crate) readers: Parked,
    pub(crate) writers: Parked,
    /// What the room of this system keeps beside it.
    pub(crate) of_room: OfRoom,
}

// There is one for each connection.
const _: () = assert!(size_of::<Entry>() == 32 || cfg!(any(windows, pelton_iocp_elsewhere)));

/// How often a read without a wait has been in vain of late: each time in a row doubles how many are not
/// even tried, up to 63, and one that finds its bytes in the page cache forgets it all.
#[derive(Default)]
pub(crate) struct Misses {
    /// How many were left out after the last one in vain.
    pause: Cell<u8>,
    /// How many of them are still to come.
    left: Cell<u8>,
}

impl Misses {
    /// Whether to try now.
    #[inline(always)]
    pub(crate) fn may_try(&self) -> bool {
        let left = self.left.get();
        if left > 0 {
            self.left.set(left - 1);
        }
        left == 0
    }

    #[inline(always)]
    pub(crate) fn hit(&self) {
        self.pause.set(0);
    }

    #[cold]
    pub(crate) fn missed(&self) {
        let pause = (self.pause.get() << 1 | 1) & 63;
        self.pause.set(pause);
        self.left.set(pause);
    }

    fn clear(&self) {
        self.pause.set(0);
        self.left.set(0);
    }
}

impl Entry {
    /// The entry of an operation that is on no descriptor.
    pub(crate) fn nobody() -> Entry {
        Entry {
            raw: Cell::new(crate::sys::NO_DESCRIPTOR),
            generation: Cell::new(0),
            holds: Cell::new(0),
            cancelled: Cell::new(0),
            closer: Cell::new(NIL),
            flags: Cell::new(0),
            misses: Misses::default(),
            readers: Parked::new(),
            writers: Parked::new(),
            of_room: OfRoom::new(),
        }
    }

    /// The generation that operations on it have named, those before a close that has begun too.
    #[inline(always)]
    pub(crate) fn named(&self) -> u32 {
        self.generation.get().wrapping_sub(u32::from(self.has(flags::CLOSING)))
    }

    /// Closes it for new operations. `closer` is the slot of the close operation, or none.
    pub(crate) fn begin_close(&self, closer: u32) {
        if !self.has(flags::CLOSING) {
            self.set(flags::CLOSING);
            self.holds.set(self.holds.get() & !1);
            self.generation.set(self.generation.get().wrapping_add(1));
        }
        self.closer.set(closer);
    }

    /// How many operations are in flight on it.
    #[inline(always)]
    pub(crate) fn in_flight(&self) -> u32 {
        self.holds.get() >> 1
    }

    /// One more is in flight.
    #[inline(always)]
    pub(crate) fn hold(&self) {
        self.holds.set(self.holds.get() + 2);
    }

    /// One has ended. True when it was the last one, and the descriptor is to be closed now.
    #[inline(always)]
    pub(crate) fn let_go(&self) -> bool {
        debug_assert!(self.in_flight() > 0);
        let left = self.holds.get().wrapping_sub(2);
        self.holds.set(left);
        left == 0
    }

    #[inline(always)]
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags.get() & flag != 0
    }

    #[inline(always)]
    pub(crate) fn set(&self, flag: u16) {
        self.flags.set(self.flags.get() | flag);
    }

    #[inline(always)]
    pub(crate) fn unset(&self, flag: u16) {
        self.flags.set(self.flags.get() & !flag);
    }
}

/// The block begins with a line of memory, so that an entry lies in one and not in two.
const LINE: usize = 64;
const _: () = assert!(LINE.is_multiple_of(align_of::<Entry>()));

/// The table: entries in one block that is reserved at the start and touched as it is used.
pub(crate) struct Table {
    memory: Zeroed,
    /// Entries that have been used at least once.
    used: Cell<u32>,
    free: Cell<u32>,
    open: Cell<u32>,
    capacity: u32,
    first_generation: u32,
}

impl Table {
    /// Reserves room for `capacity` descriptors.
    pub(crate) fn new(capacity: u32, driver: u32) -> Option<Table> {
        Some(Table {
            memory: Zeroed::new(capacity as usize * size_of::<Entry>(), LINE)?,
            used: Cell::new(0),
            free: Cell::new(NIL),
            open: Cell::new(0),
            capacity,
            // Drivers start at different generations, so that a descriptor which is handed to the wrong
            // driver is refused there instead of naming some other connection.
            first_generation: driver.wrapping_mul(0x9E37_79B1) << 1,
        })
    }

    /// Descriptors that are open or closing.
    pub(crate) fn open(&self) -> u32 {
        self.open.get()
    }

    /// Entries that exist, free ones too.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.used.get()
    }

    /// Where the entry with this number is, or would be.
    #[inline(always)]
    pub(crate) fn place(&self, index: u32) -> *mut Entry {
        self.memory.start().as_ptr().cast::<Entry>().wrapping_add(index as usize)
    }

    /// The entry with this number, whether it is in use or not.
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> Option<&Entry> {
        if index < self.used.get() {
            // SAFETY: below `used`, which never exceeds the capacity, the block holds entries that `grow` has
            // written, and nothing ever makes a `&mut Entry`: all fields are cells.
            Some(unsafe { &*self.memory.start().as_ptr().cast::<Entry>().add(index as usize) })
        } else {
            None
        }
    }

    /// The entry with this number.
    ///
    /// # Safety
    /// The entry exists: some descriptor has, or had, this number.
    #[inline(always)]
    pub(crate) unsafe fn get_used(&self, index: u32) -> &Entry {
        debug_assert!(index < self.used.get());
        // SAFETY: the caller says that it is below `used`, and then as in `get`.
        unsafe { &*self.memory.start().as_ptr().cast::<Entry>().add(index as usize) }
    }

    /// The entry that `fd` names, if it is open and not closing.
    #[inline(always)]
    pub(crate) fn find(&self, fd: Fd) -> Option<&Entry> {
        // A name's generation is odd, and an entry's is only while it is open and not closing.
        // ioxide #242: whoever is in that place now.
        let any = |entry: &&Entry| {
            mutant!("ioxide-242")
                && entry.flags.get() & (flags::OPEN | flags::CLOSING) == flags::OPEN
        };
        self.get(fd.index).filter(|entry| entry.generation.get() == fd.generation || any(entry))
    }

    /// Enters a descriptor. None when the table is full.
    pub(crate) fn insert(&self, raw: RawDescriptor, known: u16) -> Option<Fd> {
        if self.open.get() == self.capacity {
            if mutant!("ioxide-92") {
                panic!("pop from an empty stack");
            }
            return None;
        }
        if self.free.get() == NIL {
            self.grow();
        }
        let index = self.free.get();
        let entry = self.get(index)?;
        self.free.set(entry.closer.get());
        entry.raw.set(raw);
        entry.holds.set(1);
        entry.cancelled.set(0);
        entry.closer.set(NIL);
        // Nothing is known yet, so the first operation of each direction tries.
        entry.flags.set(flags::OPEN | flags::READABLE | flags::WRITABLE | known);
        entry.misses.clear();
        entry.of_room.clear();
        entry.generation.set(entry.generation.get().wrapping_add(1));
        self.open.set(self.open.get() + 1);
        Some(Fd { index, generation: entry.generation.get() })
    }

    /// Frees an entry whose descriptor is gone or has been given away.
    pub(crate) fn remove(&self, index: u32) {
        let Some(entry) = self.get(index) else { return };
        debug_assert!(entry.readers.is_empty() && entry.writers.is_empty());
        entry.flags.set(0);
        // Even already where it was closed, odd where it was given away.
        entry.generation.set(entry.generation.get().wrapping_add(1) & !1);
        entry.closer.set(self.free.get());
        self.free.set(index);
        self.open.set(self.open.get() - 1);
    }

    #[cold]
    fn grow(&self) {
        let index = self.used.get();
        if index == self.capacity {
            return;
        }
        // SAFETY: `index` is below the capacity, for which there is room, and nobody has a reference to the
        // place: it is above `used`. The write makes it an entry before `used` lets anyone see it.
        unsafe {
            let generation = Cell::new(self.first_generation);
            self.place(index).write(Entry { generation, ..Entry::nobody() });
        }
        self.used.set(index + 1);
        self.free.set(index);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// How many reads are left out until one is tried.
    fn left_out(misses: &Misses) -> usize {
        (0..).take_while(|_| !misses.may_try()).count()
    }

    #[test]
    fn reads_in_vain_are_tried_ever_more_rarely_and_one_that_is_not_forgets_it() {
        let misses = Misses::default();
        assert_eq!(left_out(&misses), 0);
        for pause in [1, 3, 7, 15, 31, 63, 63] {
            misses.missed();
            assert_eq!(left_out(&misses), pause);
        }
        misses.hit();
        misses.missed();
        assert_eq!(left_out(&misses), 1);
    }
}
