//! Where a read from a file goes: what the page cache has can be copied at once, by a system call of its own,
//! or through the ring.
//!
//! One call costs less than an entry into the ring for one read, and more than a share of an entry that many
//! reads have together. So on io_uring reads go through the ring where several are to be had at a time: some are
//! in flight already, or other tasks wait for their turn, which may read too. Whether they did is known when the
//! turn is over. If there were few, reads are made at once for a while, before that is tried again.

use std::cell::Cell;

/// From how many reads in one turn on the ring is the cheaper way: an entry into the kernel costs as much as
/// five calls more than five entries of the queue.
const MANY: u32 = 6;

/// How many reads are made at once after a turn with too few.
const ALONE: u32 = 64;

#[derive(Default)]
pub(crate) struct Reads {
    /// Through the ring, in this turn.
    together: Cell<u32>,
    /// Still to be made at once.
    alone: Cell<u32>,
}

impl Reads {
    /// Whether the next read is to go through the ring. `others` says whether there may be more of them.
    #[inline]
    pub(crate) fn go_together(&self, others: impl FnOnce() -> bool) -> bool {
        let alone = self.alone.get();
        if alone > 0 {
            self.alone.set(alone - 1);
            return false;
        }
        let together = self.together.get();
        if together == 0 && !others() {
            return false;
        }
        self.together.set(together + 1);
        true
    }

    /// A turn is over.
    #[inline(always)]
    pub(crate) fn turn_over(&self) {
        if self.together.get() > 0 {
            self.look_back();
        }
    }

    #[cold]
    #[inline(never)]
    fn look_back(&self) {
        if self.together.replace(0) < MANY {
            self.alone.set(ALONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_by_itself_never_waits_for_others() {
        let reads = Reads::default();
        assert!((0..1000).all(|_| !reads.go_together(|| false)));
    }

    #[test]
    fn many_go_together_turn_after_turn() {
        let reads = Reads::default();
        for _ in 0..10 {
            assert!((0..MANY).all(|_| reads.go_together(|| true)));
            reads.turn_over();
        }
    }

    #[test]
    fn after_too_few_there_is_a_pause_before_the_next_trial() {
        let reads = Reads::default();
        assert!(reads.go_together(|| true));
        reads.turn_over();
        assert!((0..ALONE).all(|_| !reads.go_together(|| true)));
        assert!(reads.go_together(|| true));
    }
}
