//! The wake latch: one word that decides whether a thread must enter the kernel to wake a driver.
//!
//! Everything that crosses threads (posted closures, remote task wakes, results of the blocking pool,
//! requests to stop) goes through queues that the owner drains, and through this one latch.
//!
//! | state | who put it there | what a producer does after its push |
//! |---|---|---|
//! | `RUNNING` | the owner, after every wait | nothing: the owner looks at the latch before it sleeps |
//! | `SLEEPING` | the owner, just before it waits | it must wake the owner through the kernel |
//! | `NOTIFIED` | a producer | nothing: somebody has seen to it already |
//!
//! The owner drains **after** [`WakeLatch::clear`] and a producer raises **after** its push. Both are
//! read-modify-writes on one word, so either the producer's raise comes first, and the clear
//! synchronises with it and the drain sees the item; or the clear comes first, and the raise leaves
//! `NOTIFIED` behind, which keeps the owner from sleeping. A plain store in `clear` would lose the
//! second case. Between two clears at most one producer is told to enter the kernel.
//!
//! When the wake itself fails the producer rolls the latch back, so that the next one tries again
//! instead of trusting a wake that never happened.

use crate::sync::{AtomicU32, Ordering};

const RUNNING: u32 = 0;
const SLEEPING: u32 = 1;
const NOTIFIED: u32 = 2;

/// What [`WakeLatch::raise`] asks of the thread that raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raise {
    /// The owner is awake and will look before it sleeps: nothing to do.
    Awake,
    /// The owner sleeps, or is about to: wake it through the kernel.
    MustWake,
    /// Somebody raised since the last clear: nothing to do.
    Coalesced,
}

/// See the module's essay.
#[derive(Debug)]
pub struct WakeLatch {
    state: AtomicU32,
}

impl WakeLatch {
    /// A latch whose owner runs.
    pub fn new() -> WakeLatch {
        WakeLatch { state: AtomicU32::new(RUNNING) }
    }

    /// Any thread, after its push: says whether the owner must be woken through the kernel.
    #[inline]
    pub fn raise(&self) -> Raise {
        match self.state.swap(NOTIFIED, Ordering::AcqRel) {
            SLEEPING => Raise::MustWake,
            NOTIFIED => Raise::Coalesced,
            _ => Raise::Awake,
        }
    }

    /// The thread that was told [`Raise::MustWake`] and could not: the next raise tries again.
    pub fn roll_back(&self) {
        if mutant!("roll-back-missing") {
            return;
        }
        // A failure means that the owner woke for another reason and cleared: nothing to undo.
        let _ =
            self.state.compare_exchange(NOTIFIED, SLEEPING, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The owner, before it waits: false when somebody raised since the last clear, and the wait must
    /// not block.
    #[inline]
    pub fn try_sleep(&self) -> bool {
        self.state.compare_exchange(RUNNING, SLEEPING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The owner, after every wait and before it drains: true when somebody raised.
    #[inline]
    pub fn clear(&self) -> bool {
        if mutant!("latch-plain-store") {
            // ioxide #96: a raise between the two is lost.
            let before = self.state.load(Ordering::Acquire);
            self.state.store(RUNNING, Ordering::Release);
            return before == NOTIFIED;
        }
        self.state.swap(RUNNING, Ordering::AcqRel) == NOTIFIED
    }

    /// True when somebody raised since the last clear. A hint for the owner: it orders nothing.
    #[inline]
    pub fn is_raised(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }
}

impl Default for WakeLatch {
    fn default() -> WakeLatch {
        WakeLatch::new()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn one_producer_per_sleep_is_told_to_wake() {
        let latch = WakeLatch::new();
        assert_eq!(latch.raise(), Raise::Awake);
        assert!(!latch.try_sleep(), "raised while running: the owner may not sleep");
        assert!(latch.clear());
        assert!(latch.try_sleep());
        assert_eq!(latch.raise(), Raise::MustWake);
        assert_eq!(latch.raise(), Raise::Coalesced);
        assert!(latch.clear());
        assert!(!latch.clear());
    }

    #[test]
    fn a_failed_wake_is_rolled_back_so_that_the_next_one_wakes() {
        let latch = WakeLatch::new();
        assert!(latch.try_sleep());
        assert_eq!(latch.raise(), Raise::MustWake);
        latch.roll_back();
        assert_eq!(latch.raise(), Raise::MustWake);
        latch.clear();
        latch.roll_back();
        assert_eq!(latch.raise(), Raise::Awake, "a roll-back after the owner woke undoes nothing");
    }
}

#[cfg(all(test, any(loom, shuttle)))]
mod models {
    use super::*;
    use crate::sync::model::*;

    /// An owner that drains and sleeps while producers push: nothing is stranded.
    #[test]
    fn no_item_is_stranded_behind_a_sleeping_owner() {
        check(|| {
            let latch = Arc::new(WakeLatch::new());
            let items = Arc::new(AtomicUsize::new(0));
            let kernel = Arc::new(AtomicUsize::new(0));
            let producers: Vec<_> = (0..OTHERS)
                .map(|_| {
                    let (latch, items, kernel) = (latch.clone(), items.clone(), kernel.clone());
                    thread::spawn(move || {
                        items.fetch_add(1, Ordering::Relaxed);
                        if latch.raise() == Raise::MustWake {
                            kernel.fetch_add(1, Ordering::Release);
                        }
                    })
                })
                .collect();
            latch.clear();
            let mut drained = items.swap(0, Ordering::Relaxed);
            let slept = latch.try_sleep();
            for producer in producers {
                producer.join().unwrap();
            }
            if slept && drained < OTHERS {
                assert_eq!(
                    kernel.load(Ordering::Acquire),
                    1,
                    "asleep with work and no wake under way"
                );
            }
            latch.clear();
            drained += items.swap(0, Ordering::Relaxed);
            assert_eq!(drained, OTHERS);
        });
    }

    /// A wake that fails is not trusted by the producers after it.
    #[test]
    fn a_failed_wake_leaves_the_next_producer_to_wake() {
        check(|| {
            let latch = Arc::new(WakeLatch::new());
            assert!(latch.try_sleep());
            let other = {
                let latch = latch.clone();
                thread::spawn(move || {
                    if latch.raise() == Raise::MustWake {
                        latch.roll_back();
                    }
                })
            };
            let mine = latch.raise();
            other.join().unwrap();
            if mine != Raise::MustWake {
                assert_eq!(latch.raise(), Raise::MustWake);
            }
        });
    }
}
