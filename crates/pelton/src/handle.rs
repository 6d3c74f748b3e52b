//! Reaching a reactor from other threads.
//!
//! Everything that crosses goes into a queue first and then raises the driver's one wake latch: posted
//! closures here, woken tasks in the task module, results of the blocking pool in the driver. So at most
//! one wake enters the kernel between two waits of the reactor, whoever and however many they are.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, mpsc};
use std::thread::ThreadId;

use pelton_driver::{Backend, Counters, Notifier, Snapshot};

use crate::inbox::{Inbox, Post};
use crate::reactor::Reactor;
use crate::remote_join::{self, RemoteJoinHandle};

pub(crate) struct Shared {
    notifier: Notifier,
    pub(crate) inbox: Inbox,
    backend: Backend,
    fallback: Option<String>,
    home: ThreadId,
}

impl Shared {
    /// On the reactor's thread.
    pub(crate) fn new(notifier: Notifier, backend: Backend, fallback: Option<&str>) -> Shared {
        let (inbox, fallback) = (Inbox::default(), fallback.map(str::to_owned));
        let home = std::thread::current().id();
        Shared { notifier, inbox, backend, fallback, home }
    }

    fn post(&self, post: Post) -> Result<(), Closed> {
        // A wake that the kernel refuses is counted and rolled back; the closure stays queued, and runs
        // with the reactor's next wake, whoever makes it.
        let wake = || drop(self.notifier.notify());
        if self.inbox.post(post, wake) { Ok(()) } else { Err(Closed(())) }
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

/// Why a [`Handle::call`] was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The reactor has ended, or did before it came to the call.
    Closed,
    /// Another reactor runs on this thread, and waiting would stop it.
    OnAnotherReactor,
    /// This is the reactor's own thread, and it does not run: waiting would have no end.
    NotRunning,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CallError::Closed => "the reactor has ended",
            CallError::OnAnotherReactor => {
                "a reactor's thread cannot wait for another one: use `spawn_with` and await it"
            }
            CallError::NotRunning => {
                "the reactor's thread cannot wait for it while it does not run: call it inside `run`"
            }
        })
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> io::Error {
        let kind = match error {
            CallError::Closed => io::ErrorKind::BrokenPipe,
            CallError::OnAnotherReactor | CallError::NotRunning => io::ErrorKind::Deadlock,
        };
        io::Error::new(kind, error)
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

    /// Runs a closure on the reactor's thread and waits for what it returns: at once where this is that
    /// thread, and otherwise as a posted closure, while this thread sleeps. What the closure panics with,
    /// the caller panics with.
    ///
    /// ```
    /// let runtime = pelton::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let thread = std::thread::spawn(move || {
    ///     let home = handle.call(|| std::thread::current().id()).unwrap();
    ///     assert_ne!(home, std::thread::current().id());
    ///     handle.shutdown();
    /// });
    /// runtime.run();
    /// thread.join().unwrap();
    /// # Ok::<(), pelton::driver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`CallError::Closed`]: the reactor has ended, and the closure was dropped.
    /// [`CallError::OnAnotherReactor`], [`CallError::NotRunning`]: waiting on this thread would stop another
    /// reactor, or have no end. In a simulation every reactor is on the one thread: await
    /// [`Handle::spawn_with`] there.
    pub fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, CallError> {
        match Reactor::try_current() {
            Some(here) if Arc::ptr_eq(&here.shared, &self.shared) => return Ok(f()),
            Some(_) => return Err(CallError::OnAnotherReactor),
            None if self.is_closed() => return Err(CallError::Closed),
            None if std::thread::current().id() == self.shared.home => {
                return Err(CallError::NotRunning);
            }
            None => {}
        }
        let (tell, told) = mpsc::channel();
        let call = move || {
            // Nobody sees what the closure left half done but through what it shares with its caller, who
            // panics too.
            let outcome = catch_unwind(AssertUnwindSafe(f));
            let _ = tell.send(outcome);
        };
        self.shared.post(Box::new(call)).map_err(|_| CallError::Closed)?;
        match told.recv() {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => resume_unwind(panic),
            // Dropped with the reactor's inbox.
            Err(mpsc::RecvError) => Err(CallError::Closed),
        }
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
        let (promise, handle) = remote_join::pair();
        let _ = self.shared.post(Box::new(move || {
            let task = Reactor::current().tasks.spawn(async move { make().await });
            Reactor::current().tasks.spawn(promise.follow(task)).detach();
        }));
        handle
    }

    /// Asks the reactor to end: [`shutdown_requested`](crate::shutdown_requested) and
    /// [`Runtime::run`](crate::Runtime::run) return. Asking again changes nothing.
    pub fn shutdown(&self) {
        self.shared.inbox.ask_to_stop(|| drop(self.shared.notifier.notify()));
    }

    /// True once the reactor has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.inbox.is_closed()
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
