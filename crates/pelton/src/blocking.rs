//! Calls that block, on threads of their own.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::reactor::Reactor;

/// Runs a call that blocks on a thread of the process's pool, and resumes here with what it returned.
///
/// Dropping the future does not stop the call: nothing can. Its result is then dropped.
///
/// # Errors
/// The system refuses threads altogether. A panic of the call goes on in the task that awaits it.
///
/// ```
/// # pelton::block_on(async {
/// let names = pelton::spawn_blocking(|| std::fs::read_dir(".").map(|dir| dir.count())).await??;
/// assert!(names > 0);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn spawn_blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = io::Result<T>> {
    struct State<T> {
        outcome: Option<std::thread::Result<T>>,
        waiter: Option<Waker>,
    }
    let state = Arc::new(Mutex::new(State { outcome: None, waiter: None }));
    let promise = state.clone();
    if let Some(reactor) = Reactor::try_current() {
        reactor.driver.counters().blocking_jobs.add(1);
    }
    let started = pelton_driver::blocking::run(move || {
        let outcome = catch_unwind(AssertUnwindSafe(call));
        let mut state = promise.lock().unwrap_or_else(PoisonError::into_inner);
        state.outcome = Some(outcome);
        let waiter = state.waiter.take();
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    });
    let mut started = Some(started);
    poll_fn(move |cx| {
        if let Some(Err(error)) = started.take() {
            return Poll::Ready(Err(error));
        }
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = state.outcome.take() {
            drop(state);
            return match outcome {
                Ok(value) => Poll::Ready(Ok(value)),
                Err(panic) => std::panic::resume_unwind(panic),
            };
        }
        let before = state.waiter.replace(cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    })
}
