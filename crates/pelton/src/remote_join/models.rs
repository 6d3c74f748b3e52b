//! The promise on its reactor against the handle on another thread.

use std::task::Wake;

use super::*;
use crate::task::sync::model::{check, thread};
use crate::task::sync::{AtomicUsize, Ordering};

/// Counts wakes.
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: std::sync::Arc<Bell>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Bell {
    fn new() -> (std::sync::Arc<Bell>, Waker) {
        let bell = std::sync::Arc::new(Bell(AtomicUsize::new(0)));
        (bell.clone(), bell.into())
    }

    fn rung(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

fn poll<T>(handle: &mut RemoteJoinHandle<T>, waker: &Waker) -> Poll<Result<T, JoinError>> {
    Pin::new(handle).poll(&mut Context::from_waker(waker))
}

#[test]
fn an_outcome_is_found_or_whoever_waits_for_it_is_woken() {
    check(|| {
        let (promise, mut handle) = pair();
        let (bell, waker) = Bell::new();
        let other = thread::spawn(move || promise.keep(Ok(7)));
        let early = poll(&mut handle, &waker);
        other.join().unwrap();
        if early.is_pending() {
            assert!(bell.rung(), "it waits, and nobody tells it");
            assert!(matches!(poll(&mut handle, &waker), Poll::Ready(Ok(7))));
        } else {
            assert!(matches!(early, Poll::Ready(Ok(7))));
        }
        assert!(matches!(poll(&mut handle, &waker), Poll::Ready(Err(_))), "taken once");
    });
}

#[test]
fn a_promise_that_is_dropped_is_a_cancellation_and_wakes() {
    check(|| {
        let (promise, mut handle) = pair::<u8>();
        let (bell, waker) = Bell::new();
        let other = thread::spawn(move || drop(promise));
        let early = poll(&mut handle, &waker);
        let finished = handle.is_finished();
        other.join().unwrap();
        let last = if early.is_pending() {
            assert!(bell.rung(), "it waits, and nobody tells it");
            poll(&mut handle, &waker)
        } else {
            assert!(finished);
            early
        };
        assert!(matches!(last, Poll::Ready(Err(error)) if error.is_cancelled()));
    });
}

#[test]
fn a_request_to_abort_is_seen_by_the_next_look_or_wakes_for_one() {
    check(|| {
        let (promise, handle) = pair::<u8>();
        let (bell, waker) = Bell::new();
        let other = thread::spawn(move || {
            handle.abort();
            handle
        });
        let early = promise.must_stop(&waker);
        let mut handle = other.join().unwrap();
        assert!(early || bell.rung(), "the task goes on, and nobody tells it");
        assert!(promise.must_stop(&waker));
        drop(promise);
        assert!(matches!(poll(&mut handle, &waker), Poll::Ready(Err(_))));
    });
}

#[test]
fn a_handle_that_is_dropped_while_the_promise_is_kept_leaves_nothing_behind() {
    check(|| {
        let (promise, mut handle) = pair();
        let (_bell, waker) = Bell::new();
        let value = std::sync::Arc::new(());
        let kept = value.clone();
        let other = thread::spawn(move || promise.keep(Ok(kept)));
        let _ = poll(&mut handle, &waker);
        drop(handle);
        other.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    });
}
