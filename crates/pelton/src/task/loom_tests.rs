//! The interleavings of what threads share, all of them: `RUSTFLAGS="--cfg loom" cargo test --release`.
//!
//! Besides what the tests assert, loom fails a model in which a header is used by one thread while it is
//! given to another task or freed by another (`Life`), or its remote link has two users (`Handed`).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize as Count, Ordering as Order};
use std::task::{Poll, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use loom::thread;

use super::*;

/// The driver's wake latch, as the driver uses it.
#[derive(Clone)]
struct Latch {
    state: Arc<AtomicU32>,
    kernel: Arc<AtomicUsize>,
    /// Fails the next wake through the kernel.
    broken: Arc<AtomicBool>,
}

const RUNNING_LATCH: u32 = 0;
const SLEEPING: u32 = 1;
const RAISED: u32 = 2;

impl Latch {
    fn new() -> Latch {
        Latch {
            state: Arc::new(AtomicU32::new(RUNNING_LATCH)),
            kernel: Arc::new(AtomicUsize::new(0)),
            broken: Arc::new(AtomicBool::new(false)),
        }
    }

    fn clear(&self) {
        self.state.swap(RUNNING_LATCH, Ordering::AcqRel);
    }

    fn try_sleep(&self) -> bool {
        self.state
            .compare_exchange(RUNNING_LATCH, SLEEPING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Notify for Latch {
    fn notify(&self) -> io::Result<()> {
        if self.state.swap(RAISED, Ordering::AcqRel) == SLEEPING {
            if self.broken.swap(false, Ordering::AcqRel) {
                let _ = self.state.compare_exchange(
                    RAISED,
                    SLEEPING,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                return Err(io::Error::other("broken"));
            }
            self.kernel.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// A notifier that only says whether the core exists.
struct Quiet(std::sync::Arc<Count>);

impl Quiet {
    fn tasks() -> (Tasks, std::sync::Arc<Count>) {
        let cores = std::sync::Arc::new(Count::new(1));
        (Tasks::new(Quiet(cores.clone())), cores)
    }
}

impl Notify for Quiet {
    fn notify(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Order::SeqCst);
    }
}

/// A task that hands out its waker in the first poll and ends in the second; `polls` counts them.
fn waiter(waker: Rc<Cell<Option<Waker>>>, polls: Rc<Cell<usize>>) -> impl Future<Output = ()> {
    poll_fn(move |cx| {
        polls.set(polls.get() + 1);
        if polls.get() == 1 {
            waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    })
}

/// Spawns such a task and lets it wait.
fn waiting(tasks: &Tasks) -> (Waker, Rc<Cell<usize>>, JoinHandle<()>) {
    let (slot, polls) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(0)));
    let handle = tasks.spawn(waiter(slot.clone(), polls.clone()));
    assert_eq!(tasks.run_queued(1), 1);
    (slot.take().expect("polled"), polls, handle)
}

#[test]
fn a_remote_wake_against_a_drain_is_seen_or_keeps_the_owner_awake() {
    loom::model(|| {
        let latch = Latch::new();
        let tasks = Tasks::new(latch.clone());
        let (waker, polls, handle) = waiting(&tasks);
        let data = Arc::new(AtomicUsize::new(0));
        let other = {
            let data = data.clone();
            thread::spawn(move || {
                data.store(1, Ordering::Relaxed);
                waker.wake();
            })
        };
        latch.clear();
        tasks.drain_remote();
        tasks.run_queued(1);
        if polls.get() == 2 {
            assert_eq!(
                data.load(Ordering::Relaxed),
                1,
                "what was done before the wake is seen by the poll"
            );
        }
        let slept = !tasks.has_queued() && latch.try_sleep();
        other.join().unwrap();
        if slept && polls.get() == 1 {
            assert_eq!(latch.kernel.load(Ordering::Acquire), 1, "asleep with a task woken");
        }
        latch.clear();
        tasks.drain_remote();
        tasks.run_queued(1);
        assert_eq!(polls.get(), 2);
        assert!(handle.is_finished());
    });
}

#[test]
fn a_wake_that_finds_the_task_notified_is_ordered_before_its_poll() {
    // Three threads that all wake, poll and drop: more switches than this show nothing new.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (tasks, _) = Quiet::tasks();
        let slot = Rc::new(Cell::new(None));
        let flags = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let (kept, seen) = (slot.clone(), flags.clone());
        let handle = tasks.spawn(poll_fn(move |cx| {
            kept.set(Some(cx.waker().clone()));
            let both = seen.0.load(Ordering::Relaxed) + seen.1.load(Ordering::Relaxed);
            if both == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        tasks.run_queued(1);
        let waker = slot.take().expect("polled");
        let threads = [true, false].map(|first| {
            let (waker, flags) = (waker.clone(), flags.clone());
            thread::spawn(move || {
                if first { &flags.0 } else { &flags.1 }.store(1, Ordering::Relaxed);
                waker.wake();
            })
        });
        drop(waker);
        tasks.drain_remote();
        tasks.run_queued(1);
        drop(slot.take());
        for thread in threads {
            thread.join().unwrap();
        }
        tasks.drain_remote();
        tasks.run_queued(1);
        assert!(handle.is_finished(), "whichever wake came last, the poll it led to saw both");
        drop(slot.take());
    });
}

#[test]
fn two_remote_wakes_push_one_task_once_and_two_tasks_both() {
    loom::model(|| {
        let (tasks, _) = Quiet::tasks();
        let (first, first_polls, _first) = waiting(&tasks);
        let (second, second_polls, _second) = waiting(&tasks);
        let same = first.clone();
        let other = thread::spawn(move || {
            first.wake();
            second.wake();
        });
        let third = thread::spawn(move || same.wake());
        let early = tasks.drain_remote();
        tasks.run_queued(usize::MAX);
        other.join().unwrap();
        third.join().unwrap();
        let late = tasks.drain_remote();
        tasks.run_queued(usize::MAX);
        assert_eq!((first_polls.get(), second_polls.get()), (2, 2));
        assert!((2..=3).contains(&(early + late)));
    });
}

#[test]
fn a_failed_notification_is_made_up_for_by_a_wake_of_the_same_task() {
    loom::model(|| {
        let latch = Latch::new();
        latch.broken.store(true, Ordering::Relaxed);
        let tasks = Tasks::new(latch.clone());
        let (waker, polls, _handle) = waiting(&tasks);
        assert!(latch.try_sleep());
        let again = waker.clone();
        let other = thread::spawn(move || waker.wake());
        again.wake_by_ref();
        other.join().unwrap();
        // The owner's own wake was local. A third, remote and after both, finds the debt if there is one.
        let last = thread::spawn(move || again.wake());
        last.join().unwrap();
        assert_eq!(latch.kernel.load(Ordering::Acquire), 1);
        latch.clear();
        tasks.drain_remote();
        tasks.run_queued(1);
        assert_eq!(polls.get(), 2);
    });
}

#[test]
fn a_remote_wake_against_the_end_of_its_task_and_the_next_use_of_the_header() {
    loom::model(|| {
        let (tasks, cores) = Quiet::tasks();
        let (waker, polls, handle) = waiting(&tasks);
        let other = thread::spawn(move || waker.wake());
        handle.abort();
        drop(handle);
        // Whether or not this uses the header again, the thread must be done with it by then.
        let (next_waker, next_polls, next) = waiting(&tasks);
        drop(next_waker);
        tasks.drain_remote();
        tasks.run_queued(usize::MAX);
        let (third_waker, _, third) = waiting(&tasks);
        drop(third_waker);
        other.join().unwrap();
        tasks.drain_remote();
        tasks.run_queued(usize::MAX);
        assert_eq!(polls.get(), 1, "the first task had ended");
        assert_eq!(next_polls.get(), 1, "its wake is not for the next");
        drop((next, third, tasks));
        assert_eq!(cores.load(Order::SeqCst), 0);
    });
}

#[test]
fn a_waker_dropped_by_another_thread_against_the_scan_for_zombies() {
    loom::model(|| {
        let (tasks, _) = Quiet::tasks();
        let (waker, _, handle) = waiting(&tasks);
        handle.abort();
        drop(handle);
        let other = thread::spawn(move || drop(waker));
        // No free header: this scans, and uses the zombie if its waker is gone.
        let next = tasks.spawn(async {});
        let headers = tasks.counts().headers;
        other.join().unwrap();
        let last = tasks.spawn(async {});
        assert!(headers <= 2 && tasks.counts().headers == 2);
        drop((next, last));
    });
}

#[test]
fn a_last_waker_dropped_by_another_thread_against_the_end_of_the_reactor() {
    loom::model(|| {
        let (tasks, cores) = Quiet::tasks();
        let (waker, _, _handle) = waiting(&tasks);
        let other = thread::spawn(move || drop(waker));
        drop(_handle);
        drop(tasks);
        other.join().unwrap();
        assert_eq!(cores.load(Order::SeqCst), 0, "freed by the one or by the other, once");
    });
}

#[test]
fn two_wakers_used_by_other_threads_against_the_end_of_the_reactor() {
    loom::model(|| {
        let (tasks, cores) = Quiet::tasks();
        let (first, first_polls, first_handle) = waiting(&tasks);
        let (second, second_polls, second_handle) = waiting(&tasks);
        drop((first_handle, second_handle));
        let one = thread::spawn(move || first.wake());
        let two = thread::spawn(move || {
            let again = second.clone();
            drop(second);
            drop(again);
        });
        drop(tasks);
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!((first_polls.get(), second_polls.get()), (1, 1));
        assert_eq!(cores.load(Order::SeqCst), 0);
    });
}

#[test]
fn one_tasks_wakers_in_two_threads_against_the_end_with_a_handle_left() {
    loom::model(|| {
        let (tasks, cores) = Quiet::tasks();
        let (waker, polls, handle) = waiting(&tasks);
        let again = waker.clone();
        let one = thread::spawn(move || waker.wake());
        let two = thread::spawn(move || again.wake());
        drop(tasks);
        assert_eq!(cores.load(Order::SeqCst), 1, "the handle holds it");
        assert!(handle.is_finished());
        drop(handle);
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!(polls.get(), 1);
        assert_eq!(cores.load(Order::SeqCst), 0);
    });
}

#[test]
fn a_root_woken_by_another_thread_is_notified() {
    loom::model(|| {
        let latch = Latch::new();
        let tasks = Tasks::new(latch.clone());
        let root = tasks.root();
        assert!(root.take_notified());
        let waker = root.waker().clone();
        let other = thread::spawn(move || waker.wake());
        latch.clear();
        tasks.drain_remote();
        let early = root.take_notified();
        let slept = latch.try_sleep();
        other.join().unwrap();
        assert!(early || !slept || latch.kernel.load(Ordering::Acquire) == 1);
        latch.clear();
        tasks.drain_remote();
        assert!(early != root.take_notified());
        drop(root);
    });
}
