//! Reaching a reactor from other threads.
//!
//! Everything that crosses goes into a queue first and then raises the driver's one wake latch: posted
//! closures here, woken tasks in the task module, results of the blocking pool in the driver. So at most
//! one wake enters the kernel between two waits of the reactor, whoever and however many they are.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pelton_driver::{Backend, Counters, Notifier, Snapshot};

use crate::reactor::Reactor;
use crate::task::JoinError;

type Post = Box<dyn FnOnce() + Send>;

pub(crate) struct Shared {
    notifier: Notifier,
    posts: Mutex<Posts>,
    stop: AtomicBool,
    backend: Backend,
    fallback: Option<String>,
}

#[derive(Default)]
struct Posts {
    queue: Vec<Post>,
    closed: bool,
}

impl Shared {
    pub(crate) fn new(notifier: Notifier, backend: Backend, fallback: Option<&str>) -> Shared {
        Shared {
            notifier,
            posts: Mutex::default(),
            stop: AtomicBool::new(false),
            backend,
            fallback: fallback.map(str::to_owned),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_posts(&self) -> Vec<Post> {
        std::mem::take(&mut self.lock().queue)
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Lets a reactor that was asked to stop be run again.
    pub(crate) fn clear_stop(&self) {
        self.stop.store(false, Ordering::Release);
    }

    /// The reactor has ended: what was posted is dropped, and nothing is accepted any more.
    pub(crate) fn close(&self) {
        let mut posts = self.lock();
        posts.closed = true;
        let left = std::mem::take(&mut posts.queue);
        drop(posts);
        // Outside the lock: what a closure owns is user code.
        drop(left);
    }

    fn post(&self, post: Post) -> Result<(), Closed> {
        let mut posts = self.lock();
        if posts.closed {
            drop(posts);
            return Err(Closed(()));
        }
        // compio #984: nobody drains while this thread waits for room.
        while mutant!("compio-984") && posts.queue.len() >= 4 {
            drop(posts);
            std::thread::yield_now();
            posts = self.lock();
        }
        posts.queue.push(post);
        drop(posts);
        // A wake that the kernel refuses is counted and rolled back; the closure stays queued, and runs
        // with the reactor's next wake, whoever makes it.
        let _ = self.notifier.notify();
        Ok(())
    }
}

/// Reaches one reactor from any thread. Cheap to clone. Outlives its reactor, and then says [`Closed`].
///
/// ```
/// let runtime = pelton::Runtime::new()?;
/// let handle = runtime.handle();
/// let thread = std::thread::spawn(move || {
///     handle.post(|| println!("on the reactor's thread")).unwrap();
///     handle.shutdown();
/// });
/// runtime.run();
/// thread.join().unwrap();
/// # Ok::<(), pelton::driver::Error>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// The reactor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed(pub(crate) ());

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor has ended")
    }
}

impl std::error::Error for Closed {}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> io::Error {
        io::Error::new(io::ErrorKind::BrokenPipe, closed)
    }
}

impl Handle {
    /// The handle of this thread's reactor.
    ///
    /// # Panics
    /// No reactor runs on this thread.
    #[track_caller]
    pub fn current() -> Handle {
        Handle { shared: Reactor::current().shared.clone() }
    }

    /// The handle of this thread's reactor, if one runs here.
    pub fn try_current() -> Option<Handle> {
        Reactor::try_current().map(|reactor| Handle { shared: reactor.shared.clone() })
    }

    /// Runs a closure on the reactor's thread, soon, and never inside this call. Closures run in the order
    /// in which they were posted; one that panics is counted, told of as a [`Fault`](crate::Fault), and
    /// harms nobody.
    ///
    /// # Errors
    /// The reactor has ended; the closure is dropped.
    pub fn post(&self, f: impl FnOnce() + Send + 'static) -> Result<(), Closed> {
        self.shared.post(Box::new(f))
    }

    /// Spawns a future onto the reactor. It is polled on the reactor's thread, and resumes there whatever
    /// wakes it.
    ///
    /// After the reactor's end the future is dropped and the handle yields a cancellation.
    pub fn spawn<F>(&self, future: F) -> RemoteJoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_with(move || future)
    }

    /// As [`Handle::spawn`], for a future that is not `Send`: it is made on the reactor's thread.
    pub fn spawn_with<M, F>(&self, make: M) -> RemoteJoinHandle<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let state = Arc::new(Mutex::new(Remote {
            outcome: None,
            taken: false,
            waiter: None,
            task: None,
            aborted: false,
        }));
        let promise = Promise { state: state.clone() };
        let _ = self.shared.post(Box::new(move || {
            let task = Reactor::current().tasks.spawn(async move { make().await });
            let abort = AbortOnDrop(task);
            Reactor::current().tasks.spawn(follow(abort, promise)).detach();
        }));
        RemoteJoinHandle { state }
    }

    /// Asks the reactor to end: [`shutdown_requested`](crate::shutdown_requested) and
    /// [`Runtime::run`](crate::Runtime::run) return. Asking again changes nothing.
    pub fn shutdown(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.shared.notifier.notify();
    }

    /// True once the reactor has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// The reactor's counters now, without stopping it.
    pub fn snapshot(&self) -> Snapshot {
        self.counters().snapshot()
    }

    /// The reactor's live counters. Only the reactor's own thread may change them.
    pub fn counters(&self) -> &Counters {
        self.shared.notifier.counters()
    }

    /// The backend that the reactor runs on.
    pub fn backend(&self) -> Backend {
        self.shared.backend
    }

    /// Why a better backend does not run, in words.
    pub fn fallback(&self) -> Option<&str> {
        self.shared.fallback.as_deref()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("backend", &self.shared.backend).finish_non_exhaustive()
    }
}

/// Waits for the task and keeps the promise; stops the task when that is asked for.
async fn follow<T: Send + 'static>(mut task: AbortOnDrop<T>, promise: Promise<T>) {
    let outcome = std::future::poll_fn(|cx| {
        let mut state = lock(&promise.state);
        if state.aborted {
            task.0.abort();
        }
        state.task = Some(cx.waker().clone());
        drop(state);
        Pin::new(&mut task.0).poll(cx)
    })
    .await;
    promise.keep(outcome);
}

struct AbortOnDrop<T>(crate::JoinHandle<T>);

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
struct Promise<T> {
    state: Arc<Mutex<Remote<T>>>,
}

impl<T> Promise<T> {
    fn keep(self, outcome: Result<T, JoinError>) {
        lock(&self.state).outcome = Some(outcome);
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
