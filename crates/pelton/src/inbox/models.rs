//! The queue of posts and the request to stop, with the driver's own wake latch.

use pelton_driver::{Raise, WakeLatch};

use super::*;
use crate::task::sync::AtomicUsize;
use crate::task::sync::model::{Arc, OTHERS, check, thread};

/// A reactor as its loop uses these: how often it slept, and what it ran.
#[derive(Default)]
struct Reactor {
    inbox: Inbox,
    latch: WakeLatch,
    /// Wakes through the kernel that are on their way, or there.
    kernel: AtomicUsize,
    ran: AtomicUsize,
}

impl Reactor {
    fn wake(&self) {
        if self.latch.raise() == Raise::MustWake {
            self.kernel.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn post(this: &Arc<Reactor>) -> bool {
        let reactor = this.clone();
        let post = Box::new(move || {
            reactor.ran.fetch_add(1, Ordering::Relaxed);
        });
        this.inbox.post(post, || this.wake())
    }

    /// One turn, with nothing to wait for but others. False when it would sleep and nobody has woken it.
    fn turn(&self) -> bool {
        self.latch.clear();
        let posts = self.inbox.take_posts();
        let busy = !posts.is_empty();
        for post in posts {
            post();
        }
        busy || self.inbox.stop_requested() || !self.latch.try_sleep() || {
            self.kernel.swap(0, Ordering::AcqRel) > 0
        }
    }

    fn ran(&self) -> usize {
        self.ran.load(Ordering::Relaxed)
    }
}

#[test]
fn what_is_posted_is_run_or_a_wake_is_on_its_way() {
    check(|| {
        let reactor = Arc::new(Reactor::default());
        let others: Vec<_> = (0..OTHERS)
            .map(|_| {
                let reactor = reactor.clone();
                thread::spawn(move || assert!(Reactor::post(&reactor)))
            })
            .collect();
        while reactor.turn() && reactor.ran() < OTHERS {}
        for other in others {
            other.join().unwrap();
        }
        let asleep_for_good = reactor.kernel.load(Ordering::Acquire) == 0;
        assert!(reactor.ran() == OTHERS || !asleep_for_good || reactor.latch.is_raised());
        reactor.turn();
        assert_eq!(reactor.ran(), OTHERS);
    });
}

#[test]
fn a_request_to_stop_is_seen_with_all_that_was_posted_before() {
    check(|| {
        let reactor = Arc::new(Reactor::default());
        let other = {
            let reactor = reactor.clone();
            thread::spawn(move || {
                Reactor::post(&reactor);
                reactor.inbox.ask_to_stop(|| reactor.wake());
            })
        };
        let mut stopped = false;
        loop {
            if reactor.inbox.stop_requested() {
                stopped = true;
                break;
            }
            if !reactor.turn() {
                break;
            }
        }
        if stopped {
            reactor.turn();
            assert_eq!(reactor.ran(), 1, "what was posted before the request is there with it");
        }
        other.join().unwrap();
        let woken = reactor.kernel.load(Ordering::Acquire) > 0 || reactor.latch.is_raised();
        assert!(stopped || woken, "asleep with a request and no wake under way");
        reactor.inbox.close();
    });
}

#[test]
fn a_post_against_the_reactors_end_is_run_dropped_or_refused_and_never_lost() {
    check(|| {
        let reactor = Arc::new(Reactor::default());
        let live = Arc::new(AtomicUsize::new(0));
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let others: Vec<_> = (0..OTHERS)
            .map(|_| {
                let (reactor, live) = (reactor.clone(), live.clone());
                thread::spawn(move || {
                    live.fetch_add(1, Ordering::Relaxed);
                    let owned = Counted(live);
                    reactor.inbox.post(Box::new(move || drop(owned)), || reactor.wake());
                })
            })
            .collect();
        reactor.turn();
        reactor.inbox.close();
        for other in others {
            other.join().unwrap();
        }
        assert!(reactor.inbox.is_closed() && reactor.inbox.take_posts().is_empty());
        assert_eq!(live.load(Ordering::Relaxed), 0, "what a closure owned is gone");
    });
}
