//! Timers: a hierarchical wheel whose entries are the slots of timeout operations.
//!
//! Eight levels of 64 buckets. A bucket of level 0 is 2^16 ns (66 µs) wide, a bucket of each further
//! level 64 times as wide as one of the level below, so that the wheel covers every moment that fits in
//! 64 bits of nanoseconds. An entry is put where its moment first differs from the wheel's, in groups of
//! six bits; when the wheel reaches a bucket of a higher level, its entries move down. Inserting and
//! cancelling touch one bucket; nothing is allocated, because the entry is the operation's slot: its
//! payload, which a timeout does not need for a buffer, holds the moment and the links.
//!
//! Moments are rounded up, so a timer never fires early, and at most one bucket late.

use std::cell::{Cell, UnsafeCell};

use crate::slot::{Arena, NIL, Slot, bits};

const LEVELS: usize = 8;
const BUCKETS: usize = 64;
const BUCKET_BITS: u32 = 6;
const GRAIN_BITS: u32 = 16;

/// What a timeout's slot holds as its payload.
struct Node {
    /// In nanoseconds since the driver's start.
    due: Cell<u64>,
    next: Cell<u32>,
    previous: Cell<u32>,
    /// Which bucket it is in: level * 64 + bucket. [`LOOSE`] when it is in none.
    place: Cell<u16>,
}

const LOOSE: u16 = u16::MAX;

const _: () = assert!(size_of::<Node>() <= 24 && align_of::<Node>() <= 8);

#[inline(always)]
fn node(slot: &Slot) -> &Node {
    // SAFETY: called for timeouts alone, into whose payload `insert` has written a node. It consists of
    // cells, has no drop, and nobody but this file reads or writes it while the slot is a timeout's.
    unsafe { &*slot.payload().cast::<Node>() }
}

/// A moment in grains, rounded up. The very last one, after 584 years, would need one more bit.
#[inline(always)]
fn grains(nanos: u64) -> u64 {
    let early = mutant!("timer-rounds-down");
    let grains = if early { nanos >> GRAIN_BITS } else { nanos.div_ceil(1 << GRAIN_BITS) };
    grains.min((1 << (LEVELS as u32 * BUCKET_BITS)) - 1)
}

/// The wheel of one driver. In this order, because its length is looked at by every tick.
#[repr(C)]
pub(crate) struct Wheel {
    len: Cell<u32>,
    /// The moment up to which everything has fired, in grains.
    now: Cell<u64>,
    /// For each level, which buckets are not empty.
    occupied: [Cell<u64>; LEVELS],
    /// Behind a pointer: 2 KiB would stand between what every tick looks at.
    heads: Box<UnsafeCell<[[u32; BUCKETS]; LEVELS]>>,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            now: Cell::new(0),
            occupied: Default::default(),
            heads: Box::new(UnsafeCell::new([[NIL; BUCKETS]; LEVELS])),
            len: Cell::new(0),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.get() == 0
    }

    /// How many timeouts there are.
    pub(crate) fn len(&self) -> u64 {
        self.len.get().into()
    }

    /// Enters a timeout that is due at `nanos` since the driver's start.
    #[inline]
    pub(crate) fn insert(&self, arena: &Arena, slot: &Slot, nanos: u64) {
        let fresh = Node {
            due: Cell::new(nanos),
            next: Cell::new(NIL),
            previous: Cell::new(NIL),
            place: Cell::new(LOOSE),
        };
        // SAFETY: a timeout's payload is this file's; a node fits, as asserted above, and drops nothing.
        unsafe { slot.payload().cast::<Node>().write(fresh) };
        self.len.set(self.len.get() + 1);
        slot.set(bits::LINKED);
        self.link(arena, slot, grains(nanos));
    }

    /// Takes a timeout out. False when it is in no bucket: it has fired.
    #[inline]
    pub(crate) fn remove(&self, arena: &Arena, slot: &Slot) -> bool {
        let gone = node(slot);
        let place = gone.place.get();
        if place == LOOSE {
            return false;
        }
        let (next, previous) = (gone.next.get(), gone.previous.get());
        if let Some(after) = arena.get(next) {
            node(after).previous.set(previous);
        }
        match arena.get(previous) {
            Some(before) => node(before).next.set(next),
            None if mutant!("timer-bucket-lost") => self.set_head(place, NIL),
            None => self.set_head(place, next),
        }
        gone.place.set(LOOSE);
        self.len.set(self.len.get() - 1);
        slot.unset(bits::LINKED);
        true
    }

    /// When something has to be done next, in nanoseconds since the driver's start. It may be that a
    /// timer fires then, or that timers which are still far move to a finer level.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next_bucket().map(|(_, _, start)| start.saturating_mul(1 << GRAIN_BITS))
    }

    /// Moves the wheel to `nanos` since the driver's start and calls `fire` with each timeout that is
    /// due. `fire` may insert and remove.
    pub(crate) fn advance(&self, arena: &Arena, nanos: u64, mut fire: impl FnMut(&Slot)) {
        let to = nanos >> GRAIN_BITS;
        while let Some((level, bucket, start)) = self.next_bucket() {
            if start > to {
                break;
            }
            self.now.set(start);
            let place = (level * BUCKETS + bucket) as u16;
            // Popped one by one from the head, so that `fire` may take out others of the same bucket.
            // Entries that move down never come back to this bucket, and an entry that `fire` puts in is
            // due after `now`: the loop ends.
            while let Some(slot) = arena.get(self.head(place)) {
                self.remove(arena, slot);
                let due = grains(node(slot).due.get());
                if due <= start {
                    fire(slot);
                } else {
                    self.len.set(self.len.get() + 1);
                    slot.set(bits::LINKED);
                    self.link(arena, slot, due);
                }
            }
        }
        if to > self.now.get() {
            self.now.set(to);
        }
    }

    #[inline]
    fn link(&self, arena: &Arena, slot: &Slot, due: u64) {
        // What is due already goes to the next bucket: the one of `now` has been emptied.
        let now = self.now.get();
        let at = due.max(now + 1);
        let level = ((63 - ((at ^ now) | 63).leading_zeros()) / BUCKET_BITS) as usize;
        let bucket = (at >> (level as u32 * BUCKET_BITS)) as usize % BUCKETS;
        let place = (level * BUCKETS + bucket) as u16;
        let first = self.head(place);
        let index = arena.index(slot);
        if let Some(first) = arena.get(first) {
            node(first).previous.set(index);
        }
        let linked = node(slot);
        linked.next.set(first);
        linked.previous.set(NIL);
        linked.place.set(place);
        self.set_head(place, index);
    }

    /// The earliest bucket that is not empty: its level, its number, and when it starts, in grains.
    fn next_bucket(&self) -> Option<(usize, usize, u64)> {
        let now = self.now.get();
        for (level, occupied) in self.occupied.iter().enumerate() {
            let occupied = occupied.get();
            if occupied == 0 {
                continue;
            }
            // Buckets of a level lie after the wheel's own position in it, and in its current round:
            // what differs in a higher group of bits is in a higher level.
            let shift = level as u32 * BUCKET_BITS;
            let position = (now >> shift) as u32 % BUCKETS as u32;
            let ahead = occupied.rotate_right(position).trailing_zeros();
            let bucket = (position + ahead) % BUCKETS as u32;
            let round = now & !((1_u64 << (shift + BUCKET_BITS)) - 1);
            return Some((level, bucket as usize, round + (u64::from(bucket) << shift)));
        }
        None
    }

    #[inline(always)]
    fn head(&self, place: u16) -> u32 {
        // SAFETY: one thread; the reference ends with the statement.
        let heads = unsafe { &*self.heads.get() };
        heads[usize::from(place) / BUCKETS][usize::from(place) % BUCKETS]
    }

    #[inline(always)]
    fn set_head(&self, place: u16, head: u32) {
        let (level, bucket) = (usize::from(place) / BUCKETS, usize::from(place) % BUCKETS);
        // SAFETY: one thread; the reference ends with the statement.
        unsafe { (*self.heads.get())[level][bucket] = head };
        let bit = 1_u64 << bucket;
        let occupied = self.occupied[level].get();
        self.occupied[level].set(if head == NIL { occupied & !bit } else { occupied | bit });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::op::Kind;

    fn drain(wheel: &Wheel, arena: &Arena, to: u64) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.advance(arena, to, |slot| fired.push(arena.index(slot)));
        fired
    }

    #[test]
    fn timers_fire_in_order_of_their_moments_and_never_early() {
        let arena = Arena::new(4096).unwrap();
        let wheel = Wheel::new();
        let mut state = 0x9E37_79B9_u64;
        let mut moments = Vec::new();
        let many = if cfg!(miri) { 150 } else { 2000 };
        for _ in 0..many {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // From under a bucket's width to many levels up.
            let nanos = (state >> 20) >> (state % 44);
            let slot = arena.claim(Kind::Timeout, 0, std::ptr::null_mut()).unwrap();
            wheel.insert(&arena, slot, nanos);
            moments.push(nanos);
        }
        let (mut now, mut last, mut count) = (0, 0, 0);
        while let Some(next) = wheel.next() {
            assert!(next > now || now == 0, "the wheel moves on");
            now = next.max(now);
            for index in drain(&wheel, &arena, now) {
                let due = moments[index as usize];
                assert!(due <= now, "fired {} ns early", due - now);
                assert!(now - due <= 2 << GRAIN_BITS, "fired {} ns late", now - due);
                assert!(due + (2 << GRAIN_BITS) >= last, "fired out of order");
                last = last.max(due);
                count += 1;
            }
        }
        assert_eq!(count, many);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_far_moment_is_accepted_and_waited_for_without_spinning() {
        let arena = Arena::new(16).unwrap();
        let wheel = Wheel::new();
        let far = (1_u64 << 33) * 1_000_000;
        let slot = arena.claim(Kind::Timeout, 0, std::ptr::null_mut()).unwrap();
        wheel.insert(&arena, slot, far);
        let mut wakes = 0;
        while let Some(next) = wheel.next() {
            wakes += 1;
            assert!(wakes <= LEVELS, "one wake for each level at most");
            let fired = drain(&wheel, &arena, next);
            assert_eq!(fired.is_empty(), next < far);
        }
        let end = arena.claim(Kind::Timeout, 0, std::ptr::null_mut()).unwrap();
        wheel.insert(&arena, end, u64::MAX);
        assert!(wheel.next().is_some());
        assert!(wheel.remove(&arena, end));
    }

    #[test]
    fn a_removed_timer_does_not_fire_and_removing_twice_says_so() {
        let arena = Arena::new(16).unwrap();
        let wheel = Wheel::new();
        let slots: Vec<_> = (0..3)
            .map(|_| {
                let slot = arena.claim(Kind::Timeout, 0, std::ptr::null_mut()).unwrap();
                wheel.insert(&arena, slot, 1_000_000);
                slot
            })
            .collect();
        assert!(wheel.remove(&arena, slots[1]));
        assert!(!wheel.remove(&arena, slots[1]));
        let mut fired = drain(&wheel, &arena, 2_000_000);
        fired.sort_unstable();
        assert_eq!(fired, [0, 2]);
        assert!(!wheel.remove(&arena, slots[0]), "it has fired");
        assert!(wheel.next().is_none());
    }

    #[test]
    fn a_timer_that_fires_may_take_out_its_neighbours_and_add_itself_again() {
        let arena = Arena::new(16).unwrap();
        let wheel = Wheel::new();
        let slots: Vec<_> = (0..4)
            .map(|_| {
                let slot = arena.claim(Kind::Timeout, 0, std::ptr::null_mut()).unwrap();
                wheel.insert(&arena, slot, 1_000_000);
                slot
            })
            .collect();
        let mut fired = 0;
        wheel.advance(&arena, 5_000_000, |slot| {
            fired += 1;
            for other in &slots {
                wheel.remove(&arena, other);
            }
            if fired == 1 {
                wheel.insert(&arena, slot, 0);
            }
        });
        assert_eq!(fired, 2, "the first one, and itself again; its neighbours were taken out");
        assert!(wheel.is_empty());
    }
}
