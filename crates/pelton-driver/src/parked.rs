//! The operations that wait for one kind of readiness on one descriptor: first in, first out, in one word.
//!
//! There are two such queues in each entry of the descriptors' table, nearly always with none or one in
//! them, so they are kept small: the entry holds the last one, whose `arg` is the first one.

use std::cell::Cell;

use crate::slot::{Arena, NIL, Slot, bits};

/// A circular list of busy slots, through their `arg`.
#[derive(Debug)]
pub(crate) struct Parked {
    last: Cell<u32>,
}

impl Parked {
    pub(crate) const fn new() -> Parked {
        Parked { last: Cell::new(NIL) }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.last.get() == NIL
    }

    /// The number of the one that came last; that of none where there is none.
    pub(crate) fn last(&self) -> u32 {
        self.last.get()
    }

    /// The one that has waited longest.
    #[inline(always)]
    pub(crate) fn first<'a>(&self, arena: &'a Arena) -> Option<&'a Slot> {
        arena.get(arena.get(self.last.get())?.arg.get())
    }

    /// The one that is here, if it is the only one.
    #[inline(always)]
    pub(crate) fn only<'a>(&self, arena: &'a Arena) -> Option<&'a Slot> {
        let last = self.last.get();
        arena.get(last).filter(|slot| slot.arg.get() == last)
    }

    /// Takes out the only one, whose bits the caller sees to.
    #[inline(always)]
    pub(crate) fn forget_only(&self) {
        self.last.set(NIL);
    }

    /// Adds a slot that is in no list.
    #[inline(always)]
    pub(crate) fn push(&self, arena: &Arena, slot: &Slot) {
        assert!(!slot.has(bits::LINKED), "an operation is in one list at a time");
        slot.set(bits::LINKED);
        let index = arena.index(slot);
        match arena.get(self.last.get()) {
            Some(last) => slot.arg.set(last.arg.replace(index)),
            None => slot.arg.set(index),
        }
        self.last.set(index);
    }

    #[inline]
    pub(crate) fn pop<'a>(&self, arena: &'a Arena) -> Option<&'a Slot> {
        let last = arena.get(self.last.get())?;
        let first = arena.get(last.arg.get())?;
        self.take(first, last);
        Some(first)
    }

    /// Shows all of them, in their order.
    #[cfg_attr(unix, allow(dead_code, reason = "a room of Windows tells all of them at once"))]
    pub(crate) fn each<'a>(&self, arena: &'a Arena, mut show: impl FnMut(&'a Slot)) {
        let mut at = self.first(arena);
        while let Some(slot) = at {
            show(slot);
            let is_last = arena.index(slot) == self.last.get();
            at = if is_last { None } else { arena.get(slot.arg.get()) };
        }
    }

    /// Takes one slot out of the middle; false when it is not in this list.
    #[inline(never)]
    pub(crate) fn remove(&self, arena: &Arena, slot: &Slot) -> bool {
        let Some(last) = arena.get(self.last.get()) else { return false };
        let index = arena.index(slot);
        let mut before = last;
        loop {
            let at = before.arg.get();
            let Some(here) = arena.get(at) else { return false };
            if at == index {
                self.take(here, before);
                if self.last.get() == index && !self.is_empty() {
                    self.last.set(arena.index(before));
                }
                return true;
            }
            if at == self.last.get() {
                return false;
            }
            before = here;
        }
    }

    /// Takes `slot` out, which comes behind `before`. The caller sees to `last`, but for the only one.
    #[inline(always)]
    fn take(&self, slot: &Slot, before: &Slot) {
        if std::ptr::eq(slot, before) {
            self.last.set(NIL);
        } else {
            before.arg.set(slot.arg.get());
        }
        slot.arg.set(NIL);
        slot.unset(bits::LINKED);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::op::Kind;

    fn slots(arena: &Arena, n: usize) -> Vec<&Slot> {
        (0..n).map(|_| arena.claim(Kind::Recv, 0, std::ptr::null_mut()).unwrap()).collect()
    }

    fn drain(queue: &Parked, arena: &Arena) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop(arena)).map(|slot| arena.index(slot)).collect()
    }

    #[test]
    fn those_that_wait_come_out_in_the_order_in_which_they_came() {
        let arena = Arena::new(8).unwrap();
        let (all, queue) = (slots(&arena, 5), Parked::new());
        assert!(queue.is_empty() && queue.first(&arena).is_none() && queue.pop(&arena).is_none());
        for round in 1..=all.len() {
            for slot in &all[..round] {
                queue.push(&arena, slot);
            }
            assert_eq!(arena.index(queue.first(&arena).unwrap()), 0);
            assert_eq!(drain(&queue, &arena), (0..round as u32).collect::<Vec<_>>());
            assert!(queue.is_empty() && all.iter().all(|slot| !slot.has(bits::LINKED)));
        }
    }

    #[test]
    fn any_of_them_can_be_taken_out_and_the_others_keep_their_order() {
        for n in 1..=5 {
            for gone in 0..n {
                let arena = Arena::new(8).unwrap();
                let (all, queue) = (slots(&arena, n + 1), Parked::new());
                for slot in &all[..n] {
                    queue.push(&arena, slot);
                }
                assert!(!queue.remove(&arena, all[n]), "it is not in the list");
                assert!(queue.remove(&arena, all[gone]));
                assert!(!queue.remove(&arena, all[gone]), "it is not any more");
                queue.push(&arena, all[n]);
                let mut left: Vec<u32> = (0..=n as u32).collect();
                left.remove(gone);
                assert_eq!(drain(&queue, &arena), left, "{gone} of {n}");
            }
        }
    }
}
