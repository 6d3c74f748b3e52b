//! The outcome of a task that another thread spawned: a promise on the reactor, a handle elsewhere.

use std::fmt;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::task::sync::{Arc, Mutex, MutexGuard};
use crate::task::{JoinError, JoinHandle};

/// A promise and its handle.
pub(crate) fn pair<T>() -> (Promise<T>, RemoteJoinHandle<T>) {
    let state = Arc::new(Mutex::new(Remote {
        outcome: None,
        taken: false,
        waiter: None,
        task: None,
        aborted: false,
    }));
    (Promise { state: state.clone() }, RemoteJoinHandle { state })
}

/// The outcome of a future that was spawned onto a reactor from elsewhere. Can be awaited on any thread
/// and any executor. Dropping it detaches the task.
#[must_use = "await the outcome, or `detach` to say that nobody waits for it"]
pub struct RemoteJoinHandle<T> {
    state: Arc<Mutex<Remote<T>>>,
}

impl<T> RemoteJoinHandle<T> {
    /// Asks to cancel the task: its future is dropped, on its reactor's thread.
    pub fn abort(&self) {
        let mut state = lock(&self.state);
        state.aborted = true;
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Lets the task go on with nobody waiting for it.
    pub fn detach(self) {}

    /// True once the task has ended.
    pub fn is_finished(&self) -> bool {
        let state = lock(&self.state);
        state.outcome.is_some() || state.taken
    }
}

impl<T> Future for RemoteJoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.state);
        if let Some(outcome) = state.outcome.take() {
            state.taken = true;
            return Poll::Ready(outcome);
        }
        if state.taken {
            return Poll::Ready(Err(JoinError::taken()));
        }
        let before = state.waiter.replace(cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl<T> fmt::Debug for RemoteJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJoinHandle").finish_non_exhaustive()
    }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Remote<T> {
    outcome: Option<Result<T, JoinError>>,
    taken: bool,
    waiter: Option<Waker>,
    task: Option<Waker>,
    aborted: bool,
}

fn lock<T>(state: &Mutex<Remote<T>>) -> MutexGuard<'_, Remote<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An outcome that will be there, or a cancellation when this is dropped.
pub(crate) struct Promise<T> {
    state: Arc<Mutex<Remote<T>>>,
}

impl<T> Promise<T> {
    fn keep(self, outcome: Result<T, JoinError>) {
        lock(&self.state).outcome = Some(outcome);
    }

    /// True when the task is to be stopped; when that is asked for later, `waker` is woken.
    fn must_stop(&self, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        let before = state.task.replace(waker.clone());
        let aborted = state.aborted;
        drop(state);
        drop(before);
        aborted
    }
}

impl<T: Send + 'static> Promise<T> {
    /// Waits for the task and keeps the promise; stops the task when that is asked for.
    pub(crate) async fn follow(self, task: JoinHandle<T>) {
        let mut task = AbortOnDrop(task);
        let outcome = std::future::poll_fn(|cx| {
            if self.must_stop(cx.waker()) {
                task.0.abort();
            }
            Pin::new(&mut task.0).poll(cx)
        })
        .await;
        self.keep(outcome);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.outcome.is_none() && !state.taken {
            state.outcome = Some(Err(JoinError::cancelled()));
        }
        let (waiter, task) = (state.waiter.take(), state.task.take());
        drop(state);
        drop(task);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

#[cfg(all(test, any(loom, shuttle)))]
mod models;
