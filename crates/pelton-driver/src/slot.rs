//! The arena of slots: where an operation lives while the kernel may touch what it owns.
//!
//! # Who may touch what, and when
//!
//! ```text
//! free ──submit──▶ busy ──last completion──▶ done, told ──taken──▶ free
//!                   │                                              ▲
//!                   └──abandoned──▶ orphan ──last completion───────┘
//! ```
//!
//! - A slot is 64 bytes at an address that never changes while the driver lives. Its number and its
//!   generation make the `user_data` that the kernel carries; the generation changes when the slot is
//!   released and at no other time.
//! - **free**: nobody looks at anything but the link to the next free slot.
//! - **busy**: the operation is staged, in the kernel, parked in a readiness queue, waiting for a
//!   buffer, in a timer bucket or with the blocking pool. The payload is the kernel's: the driver
//!   neither moves nor drops it, and nobody else can reach it. The holder of the [`Key`] may only change
//!   the token, cancel, or abandon.
//! - **orphan**: as busy, but the key is gone. Nobody is told of the completion; it drops the payload,
//!   which closes a descriptor and returns a lease, and releases the slot.
//! - **done**: the last completion has come. The kernel has let go; the payload waits for the key.
//! - **told**: as done, and a tick has told of it, or is about to: whoever is told has whatever the token stood for.
//! - Only the *last* completion of an operation moves it out of busy or orphan. Cancelling moves nothing.
//!   A completion for a slot that is free, done, told, or of another generation is counted as stale and
//!   dropped: states are matched exactly, because "not busy" would free a done slot twice.
//! - A busy slot is in at most one list at a time (parked, stalled, timer bucket), by one link.
//! - Payloads are user code: their drop may submit, cancel or drop other things. So a payload is first
//!   moved out of the slot, then the slot is released, and only then is the payload dropped.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::ptr::{self, NonNull};

use crate::memory::Zeroed;
use crate::op::Kind;
use crate::payload::VTable;

/// No slot: the end of a list.
pub(crate) const NIL: u32 = u32::MAX;

/// Names one operation of one driver, for cancelling and for matching completions. It stays harmless
/// when the operation has ended: it then names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId(u64);

impl OpId {
    /// The number that the kernel carries for the operation.
    #[inline(always)]
    pub fn user_data(self) -> u64 {
        // tokio #8112: the place alone, whoever is in it by then.
        if mutant!("user-data-without-generation") { u64::from(self.index()) } else { self.0 }
    }

    #[inline(always)]
    pub(crate) fn from_user_data(user_data: u64) -> OpId {
        OpId(user_data)
    }

    #[inline(always)]
    pub(crate) fn new(index: u32, generation: u32) -> OpId {
        OpId((u64::from(generation) << 32) | u64::from(index))
    }

    #[inline(always)]
    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpId")
            .field("index", &self.index())
            .field("generation", &self.generation())
            .finish()
    }
}

/// Whom a completion is for: a word of the submitter's, which the driver only carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub *mut ());

impl Token {
    /// No token.
    pub const NONE: Token = Token(std::ptr::null_mut());

    /// A token that is a number.
    pub const fn number(n: usize) -> Token {
        Token(std::ptr::without_provenance_mut(n))
    }

    /// The token as a number.
    pub fn as_number(self) -> usize {
        self.0.addr()
    }
}

/// The right to an operation's outcome. There is one for each operation, so an operation whose key lives
/// keeps its slot until [`Driver::take`](crate::Driver::take) or
/// [`Driver::abandon`](crate::Driver::abandon) gives it back: a key that is merely dropped holds its slot
/// until the driver goes.
#[must_use = "take the outcome or abandon the operation: a key that is dropped keeps its slot"]
pub struct Key<P> {
    pub(crate) id: OpId,
    /// Which driver made it: no two drivers of a process have the same number.
    pub(crate) driver: NonZeroU32,
    pub(crate) payload: PhantomData<fn() -> P>,
}

impl<P> Key<P> {
    /// The operation's name.
    pub fn id(&self) -> OpId {
        self.id
    }
}

impl<P> fmt::Debug for Key<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

/// A [`Key`] in one word, for a runtime that keeps it beside the one driver that it is of: it does not know
/// which driver that is, so whoever uses it has to. As a key, it is unique, and holds its slot.
#[must_use = "take the outcome or abandon the operation: a flight that is dropped keeps its slot"]
#[repr(transparent)]
pub struct Flight<P> {
    pub(crate) slot: NonNull<Slot>,
    payload: PhantomData<fn() -> P>,
}

impl<P> Flight<P> {
    #[inline(always)]
    pub(crate) fn new(slot: &Slot) -> Flight<P> {
        Flight { slot: NonNull::from(slot), payload: PhantomData }
    }

    /// The flight as a pointer, which is neither null nor odd.
    #[inline(always)]
    pub fn into_raw(self) -> NonNull<()> {
        self.slot.cast()
    }

    /// The flight that was made into this pointer.
    ///
    /// # Safety
    /// It came from [`Flight::into_raw`] of a flight of this type, of which no other is made meanwhile.
    #[inline(always)]
    pub unsafe fn from_raw(raw: NonNull<()>) -> Flight<P> {
        Flight { slot: raw.cast(), payload: PhantomData }
    }
}

impl<P> fmt::Debug for Flight<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flight").field(&self.slot).finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Free,
    Busy,
    Orphan,
    Done,
    Told,
}

/// Facts about a busy operation, beside its state.
pub(crate) mod bits {
    /// Send until everything is sent.
    pub(crate) const ALL: u8 = 1;
    /// A cancel has been asked for: nothing is retried any more.
    pub(crate) const CANCELLED: u8 = 2;
    /// On the ring the operation is for now a poll, because its descriptor does not block.
    pub(crate) const POLLING: u8 = 4;
    /// The slot is in a list through its `link`.
    pub(crate) const LINKED: u8 = 8;
    /// The slot is in the list of operations that wait for a pooled buffer.
    pub(crate) const STALLED: u8 = 16;
    /// The slot is in the queue of those that the next tick tells of, and has not been told of.
    pub(crate) const ANNOUNCED: u8 = 32;
    /// The owner is being asked for its memory once more: it stays where it is until it has answered.
    pub(crate) const ASKED: u8 = 64;
}

/// State, kind and facts of a slot as one number. Only [`plain`] and slots make one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Standing(u32);

/// The standing of an operation of this kind that is in flight and of which nothing more than
/// `bits` is to be known: not cancelled, not an orphan, in no list, being neither polled nor asked for.
pub(crate) const fn plain(kind: Kind, bits: u8) -> Standing {
    Standing(u32::from_ne_bytes([State::Busy as u8, kind as u8, bits, 0]))
}

pub(crate) const PAYLOAD_WORDS: usize = 3;

/// One operation. See the module's essay.
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Its number; never changes. With the generation behind it the operation's name in one word.
    index: u32,
    pub(crate) generation: Cell<u32>,
    pub(crate) state: Cell<State>,
    pub(crate) kind: Cell<Kind>,
    pub(crate) bits: Cell<u8>,
    unused: Cell<u8>,
    /// Busy: half of an offset, what a send has left to do on the ring, or the next slot of the list that this
    /// one is in; no kind that is ever in a list keeps anything else here. Done: the result.
    pub(crate) arg: Cell<u32>,
    /// The number of the descriptor in the table.
    pub(crate) fd: Cell<u32>,
    /// Bytes that a send has got rid of, the number of a scratch block, the other half of an offset, or the
    /// parameter of a poll or a sync.
    pub(crate) progress: Cell<u32>,
    /// Free: the next free slot. Else: whom to tell.
    pub(crate) token: Cell<*mut ()>,
    pub(crate) vtable: Cell<Option<&'static VTable>>,
    payload: UnsafeCell<MaybeUninit<[u64; PAYLOAD_WORDS]>>,
}

const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    /// True for one in a circular list in which there is no other.
    #[inline(always)]
    pub(crate) fn is_alone(&self) -> bool {
        self.arg.get() == self.index
    }

    /// The operation has ended, and its outcome waits for the key.
    #[inline(always)]
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.get(), State::Done | State::Told)
    }

    /// The name of its operation.
    #[inline(always)]
    pub(crate) fn id(&self) -> OpId {
        OpId::new(self.index, self.generation.get())
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> *mut u8 {
        self.payload.get().cast()
    }

    /// Makes the [standing](Slot::standing) that of an operation that is [plain].
    #[inline(always)]
    pub(crate) fn set_standing(&self, standing: Standing) {
        // SAFETY: the four cells of `standing`, with values that are valid for them, because whatever made the
        // standing had them. A reference to a slot may write to what is in cells.
        unsafe { ptr::from_ref(self).cast_mut().cast::<u32>().add(2).write(standing.0) };
    }

    /// Sets the number of the descriptor, and what is beside it, at once.
    #[inline(always)]
    pub(crate) fn set_fd_and_progress(&self, fd: u32, progress: u32) {
        const _: () = {
            assert!(std::mem::offset_of!(Slot, fd) == 16);
            assert!(std::mem::offset_of!(Slot, progress) == 20);
        };
        let (first, second) = (u64::from(fd), u64::from(progress));
        let both = if cfg!(target_endian = "little") {
            first | second << 32
        } else {
            second | first << 32
        };
        // SAFETY: at offset 16 the slot has two cells of four bytes each, aligned to 8 together. A reference to a slot may
        // write to what is in cells.
        unsafe { ptr::from_ref(self).cast_mut().cast::<u64>().add(2).write(both) };
    }

    #[inline(always)]
    pub(crate) fn has(&self, bit: u8) -> bool {
        self.bits.get() & bit != 0
    }

    #[inline(always)]
    pub(crate) fn set(&self, bit: u8) {
        self.bits.set(self.bits.get() | bit);
    }

    #[inline(always)]
    pub(crate) fn unset(&self, bit: u8) {
        self.bits.set(self.bits.get() & !bit);
    }

    /// State, kind and facts in one number, to be compared with [`plain`].
    #[inline(always)]
    pub(crate) fn standing(&self) -> Standing {
        const _: () = {
            assert!(std::mem::offset_of!(Slot, state) == 8);
            assert!(std::mem::offset_of!(Slot, kind) == 9);
            assert!(std::mem::offset_of!(Slot, bits) == 10);
            assert!(std::mem::offset_of!(Slot, unused) == 11);
        };
        // SAFETY: at offset 8 the slot has four cells of one initialised byte each, aligned to 4 together,
        // and they are only ever written by this thread.
        Standing(unsafe { ptr::from_ref(self).cast::<u32>().add(2).read() })
    }

    #[inline(always)]
    pub(crate) fn result(&self) -> i32 {
        self.arg.get() as i32
    }

    pub(crate) fn offset(&self) -> u64 {
        (u64::from(self.progress.get()) << 32) | u64::from(self.arg.get())
    }

    pub(crate) fn set_offset(&self, offset: u64) {
        self.arg.set(offset as u32);
        self.progress.set((offset >> 32) as u32);
    }
}

/// All the slots of a driver, in one block of memory that is reserved at the start and touched as it is
/// used, so that a slot's number is its place.
pub(crate) struct Arena {
    _memory: Zeroed,
    base: NonNull<Slot>,
    capacity: u32,
    /// One less than the power of two of slots for which there is memory.
    mask: u32,
    /// Slots that have been used at least once; those above are zeroed memory.
    used: Cell<u32>,
    free: Cell<*mut ()>,
}

impl Arena {
    /// Reserves room for `capacity` operations.
    pub(crate) fn new(capacity: u32) -> Option<Arena> {
        let places = capacity.checked_next_power_of_two()?;
        let memory = Zeroed::new(places as usize * size_of::<Slot>(), align_of::<Slot>())?;
        let base = memory.start().cast();
        Some(Arena {
            _memory: memory,
            base,
            capacity,
            mask: places - 1,
            used: Cell::new(0),
            free: Cell::new(std::ptr::null_mut()),
        })
    }

    /// Slots that are not free. Looks at all that have ever been used: counting would cost every operation.
    pub(crate) fn live(&self) -> u32 {
        (0..self.used())
            .filter(|index| self.get(*index).is_some_and(|slot| slot.state.get() != State::Free))
            .count() as u32
    }

    /// Slots that have been used at least once.
    pub(crate) fn used(&self) -> u32 {
        self.used.get()
    }

    /// The slot with this number, if it has been used at least once.
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> Option<&Slot> {
        if index < self.used.get() {
            // SAFETY: below `used`, which never exceeds `capacity`, memory holds an initialised slot,
            // and nothing ever makes a `&mut Slot`: all fields are cells.
            Some(unsafe { &*self.base.as_ptr().add(index as usize) })
        } else {
            None
        }
    }

    /// The slot that `id` names, if the operation has not been released since.
    #[inline(always)]
    pub(crate) fn find(&self, id: OpId) -> Option<&Slot> {
        let slot = self.place(id);
        (slot.id() == id || mutant!("user-data-without-generation")).then_some(slot)
    }

    /// The slot in the place of the one that `id` names, whatever that is: look at its name.
    #[inline(always)]
    pub(crate) fn place(&self, id: OpId) -> &Slot {
        const _: () = assert!(State::Free as u8 == 0 && Kind::Nop as u8 == 0);
        // SAFETY: masked, there is memory for a slot of this number. Where it has never been used it is zero, which is a
        // slot too: free, without a payload, and with a generation that no operation has. Nothing ever makes a
        // `&mut Slot`, and a reference to one that has never been used is gone before it is.
        unsafe { &*self.base.as_ptr().add((id.index() & self.mask) as usize) }
    }

    /// The number of a slot of this arena.
    #[inline(always)]
    pub(crate) fn index(&self, slot: &Slot) -> u32 {
        slot.index
    }

    #[inline(always)]
    pub(crate) fn id(&self, slot: &Slot) -> OpId {
        slot.id()
    }

    /// Takes a free slot and makes it busy, with no payload. None when all are taken.
    #[inline(always)]
    pub(crate) fn claim(&self, kind: Kind, bits: u8, token: *mut ()) -> Option<&Slot> {
        if self.free.get().is_null() {
            self.free_fresh();
        }
        self.claim_again(kind, bits, token)
    }

    /// [`Arena::claim`] of a slot that has been used before. None when there is none.
    #[inline(always)]
    pub(crate) fn claim_again(&self, kind: Kind, bits: u8, token: *mut ()) -> Option<&Slot> {
        let free = self.free.get().cast::<Slot>();
        if free.is_null() {
            return None;
        }
        // SAFETY: the free list holds only slots of this arena, put there by `release` and `free_fresh` with the
        // arena's own provenance, and shared references to slots are always allowed.
        let slot = unsafe { &*free };
        self.free.set(slot.token.get());
        debug_assert_eq!(slot.state.get(), State::Free);
        slot.set_standing(plain(kind, bits));
        slot.fd.set(NIL);
        slot.progress.set(0);
        slot.token.set(token);
        slot.vtable.set(None);
        Some(slot)
    }

    /// Adds a slot that has never been used to the free ones, of which there are none.
    #[cold]
    fn free_fresh(&self) {
        debug_assert!(self.free.get().is_null());
        let index = self.used.get();
        if index == self.capacity {
            return;
        }
        // SAFETY: `index < capacity`, so the place lies in the block, and nobody has a reference to it:
        // it is above `used`. The write makes it a valid slot before `used` lets anyone see it.
        unsafe {
            let place = self.base.as_ptr().add(index as usize);
            self.free.set(place.cast());
            place.write(Slot {
                index,
                generation: Cell::new(1),
                state: Cell::new(State::Free),
                kind: Cell::new(Kind::Nop),
                bits: Cell::new(0),
                unused: Cell::new(0),
                arg: Cell::new(0),
                fd: Cell::new(NIL),
                progress: Cell::new(0),
                token: Cell::new(std::ptr::null_mut()),
                vtable: Cell::new(None),
                payload: UnsafeCell::new(MaybeUninit::uninit()),
            });
        }
        self.used.set(index + 1);
    }

    /// Gives a slot back. Its payload must have been moved out, and it must be in no list.
    #[inline(always)]
    pub(crate) fn release(&self, slot: &Slot) {
        debug_assert_ne!(slot.state.get(), State::Free);
        debug_assert!(!slot.has(bits::LINKED), "a slot is released while it is in a list");
        if !mutant!("generation-not-bumped") {
            slot.generation.set(slot.generation.get().wrapping_add(1));
        }
        slot.state.set(State::Free);
        slot.token.set(self.free.get());
        // The list is only ever read through shared references, which this one's provenance allows.
        self.free.set(std::ptr::from_ref(slot).cast_mut().cast());
    }
}

/// A first-in, first-out list of busy slots, through their `arg`.
#[derive(Debug)]
pub(crate) struct SlotList {
    head: Cell<u32>,
    tail: Cell<u32>,
}

impl SlotList {
    pub(crate) const fn new() -> SlotList {
        SlotList { head: Cell::new(NIL), tail: Cell::new(NIL) }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get() == NIL
    }

    #[inline(always)]
    pub(crate) fn first<'a>(&self, arena: &'a Arena) -> Option<&'a Slot> {
        arena.get(self.head.get())
    }

    pub(crate) fn push(&self, arena: &Arena, slot: &Slot) {
        assert!(!slot.has(bits::LINKED), "an operation is in one list at a time");
        slot.set(bits::LINKED);
        // libxev #169: what the link still says leads into the middle of some list.
        if !mutant!("libxev-169") {
            slot.arg.set(NIL);
        }
        let index = arena.index(slot);
        match arena.get(self.tail.get()) {
            Some(last) => last.arg.set(index),
            None => self.head.set(index),
        }
        self.tail.set(index);
    }

    pub(crate) fn pop<'a>(&self, arena: &'a Arena) -> Option<&'a Slot> {
        let slot = self.first(arena)?;
        self.head.set(slot.arg.get());
        if self.head.get() == NIL {
            self.tail.set(NIL);
        }
        if !mutant!("libxev-169") {
            slot.arg.set(NIL);
        }
        slot.unset(bits::LINKED);
        Some(slot)
    }

    /// Takes one slot out of the middle; false when it is not in this list. The lists are short: the
    /// operations of one kind of readiness on one descriptor, or those that wait for a buffer.
    pub(crate) fn remove(&self, arena: &Arena, slot: &Slot) -> bool {
        let index = arena.index(slot);
        let (mut previous, mut at) = (NIL, self.head.get());
        while let Some(here) = arena.get(at) {
            if at == index {
                match arena.get(previous) {
                    Some(before) => before.arg.set(here.arg.get()),
                    None => self.head.set(here.arg.get()),
                }
                if self.tail.get() == index {
                    self.tail.set(previous);
                }
                here.arg.set(NIL);
                here.unset(bits::LINKED);
                return true;
            }
            previous = at;
            at = here.arg.get();
        }
        false
    }
}
