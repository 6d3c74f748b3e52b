//! The join handle: how one task waits for another's output, or stops it.
//!
//! A handle is a claim (`HANDLE`) on its task's header, which is not used again while the handle lives.
//! Handles stay on their reactor's thread, so the claim is a plain bit; only the end of the reactor
//! turns it into a counted reference (`ORPHAN`), for handles that outlive it.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::body::contain;
use super::core::add;
use super::header::{ABORT, DEAD, DONE, HANDLE, HeaderRef, Joiner, RUNNING};
use super::waker;

/// The owner's side of a task: a future of its output.
///
/// Awaiting a handle yields the task's output, or a [`JoinError`] if the task was cancelled or panicked.
/// Dropping a handle *detaches* the task, which runs on; [`abort`](JoinHandle::abort) stops it. A handle
/// stays on its reactor's thread, as its task does. Cancelling the wait (dropping the future that awaits
/// a `&mut` handle) loses nothing: the handle can be awaited again.
///
/// A handle may outlive its reactor. A task that had finished by then still delivers; every other has
/// been cancelled.
///
/// ```
/// pelton::block_on(async {
///     let seven = pelton::spawn(async { 7 });
///     assert_eq!(seven.await.unwrap(), 7);
///
///     let endless = pelton::spawn(std::future::pending::<()>());
///     endless.abort();
///     assert!(endless.await.unwrap_err().is_cancelled());
/// });
/// ```
pub struct JoinHandle<T> {
    task: Task,
    output: PhantomData<fn() -> T>,
}

enum Task {
    /// The header, on which this handle has its claim.
    Spawned(HeaderRef),
    /// Never spawned: the reactor was shutting down.
    Refused,
    /// The output was delivered.
    Taken,
}

impl<T> JoinHandle<T> {
    /// `header` is of a task with this output, `HANDLE` is set on it, and no other handle is made.
    pub(super) fn spawned(header: HeaderRef) -> JoinHandle<T> {
        JoinHandle { task: Task::Spawned(header), output: PhantomData }
    }

    pub(super) fn refused() -> JoinHandle<T> {
        JoinHandle { task: Task::Refused, output: PhantomData }
    }

    /// Cancels the task: drops its future before this returns, or, if this is called from within the
    /// task itself, as soon as its poll returns.
    ///
    /// The handle then resolves to an error of which [`JoinError::is_cancelled`] holds. A task that has
    /// finished, or whose last poll finishes it in spite of this, delivers its output as if nothing had
    /// happened. What a panicking drop of the future throws becomes the handle's error.
    pub fn abort(&self) {
        let Task::Spawned(header) = self.task else { return };
        if header.has(DONE) {
            return;
        }
        if header.has(RUNNING) {
            header.set(ABORT);
        } else {
            // Should the future's drop end the reactor, this handle's claim still holds the core.
            header.core().cancel(header);
        }
    }

    /// Lets the task run on without a handle; what it returns is dropped. The same as dropping the handle,
    /// for those who like to say so.
    pub fn detach(self) {}

    /// True once awaiting this handle would not wait: the task has finished, panicked or been cancelled.
    pub fn is_finished(&self) -> bool {
        match self.task {
            Task::Spawned(header) => header.has(DONE),
            Task::Refused | Task::Taken => true,
        }
    }
}

// The handle does not contain a `T`, whatever that is.
impl<T> Unpin for JoinHandle<T> {}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let header = match self.task {
            Task::Spawned(header) => header,
            Task::Refused => {
                self.task = Task::Taken;
                return Poll::Ready(Err(JoinError::cancelled()));
            }
            Task::Taken => return Poll::Ready(Err(JoinError::taken())),
        };
        if !header.has(DONE) {
            let joiner = match Joiner::stored_as(header, cx) {
                Some(joiner) => joiner,
                None => return Poll::Pending,
            };
            // To make a foreign waker may have run user code, which may have finished the task.
            if !header.has(DONE) {
                let former = header.joiner.replace(joiner);
                // User code again, if it was a foreign one; nothing is in the making any more.
                drop(former);
                return Poll::Pending;
            }
        }
        let Some(body) = header.body.take() else { unreachable!("a finished task has an output") };
        header.state.set((header.state.get() & !(DONE | HANDLE)) | DEAD);
        self.task = Task::Taken;
        header.settle();
        // SAFETY: the task was done, so the body held its output, which is a `T` says `spawned`; it was
        // taken out of the header, so the box is ours.
        Poll::Ready(unsafe { body.take::<T>() })
    }
}

impl Joiner {
    /// What to store so that the polling task is woken; `None` if just that is stored already.
    fn stored_as(header: HeaderRef, cx: &Context<'_>) -> Option<Joiner> {
        if let Some(waiting) = waker::header(cx.waker(), header.core().table.get()) {
            return Some(Joiner::Ours(Some(waiting)));
        }
        let stored = header.joiner.take();
        let same = matches!(&stored, Joiner::Foreign(waker) if waker.will_wake(cx.waker()));
        // Back before the clone, which may panic or wake or finish the task.
        header.joiner.set(stored);
        if same { None } else { Some(Joiner::Foreign(cx.waker().clone())) }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let Task::Spawned(header) = self.task else { return };
        if !header.has(DONE) {
            let joiner = header.joiner.take();
            header.clear(HANDLE);
            // Foreign wakers may do and throw anything here; the header is no longer ours to touch.
            contain(|| drop(joiner));
            return;
        }
        header.state.set((header.state.get() & !DONE) | DEAD);
        if let Some(body) = header.body.take() {
            // The claim is kept across the output's drop, which may end the reactor: with it the header
            // and the core stay.
            // SAFETY: the task was done and the body was taken out: it holds the output, and is ours.
            if unsafe { body.free() } {
                add(&header.core().local.panics);
            }
        }
        header.clear(HANDLE);
        header.settle();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// Why a task has no output.
///
/// ```
/// pelton::block_on(async {
///     let broken = pelton::spawn(async { panic!("of no use") });
///     let error: pelton::JoinError = broken.await.map(|(): ()| ()).unwrap_err();
///     assert!(error.is_panic());
///     assert_eq!(error.to_string(), "the task panicked: of no use");
/// });
/// ```
pub struct JoinError {
    kind: Kind,
}

enum Kind {
    Cancelled,
    Panic(Payload),
    Taken,
}

/// What a panic carried, of which a shared reference shows nothing but text.
struct Payload(Box<dyn Any + Send>);

// SAFETY: through `&Payload` only `message` is reachable, which compares the type's id, a constant of
// the vtable, and hands out `str` and `String`, which are `Sync`.
unsafe impl Sync for Payload {}

impl Payload {
    fn message(&self) -> Option<&str> {
        match self.0.downcast_ref::<&'static str>() {
            Some(text) => Some(text),
            None => self.0.downcast_ref::<String>().map(String::as_str),
        }
    }
}

impl JoinError {
    pub(crate) fn cancelled() -> JoinError {
        JoinError { kind: Kind::Cancelled }
    }

    pub(crate) fn taken() -> JoinError {
        JoinError { kind: Kind::Taken }
    }

    pub(super) fn panic(payload: Box<dyn Any + Send>) -> JoinError {
        JoinError { kind: Kind::Panic(Payload(payload)) }
    }

    /// True if the task was aborted, or its reactor ended or was ending.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.kind, Kind::Cancelled)
    }

    /// True if the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.kind, Kind::Panic(_))
    }

    /// What the panic carried, to be raised again with [`std::panic::resume_unwind`]. Of any other error
    /// this is the error itself, so that raising it says what happened.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        self.try_into_panic().unwrap_or_else(|error| Box::new(error))
    }

    /// What the panic carried.
    ///
    /// # Errors
    /// The error itself, if the task did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.kind {
            Kind::Panic(Payload(payload)) => Ok(payload),
            _ => Err(self),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Cancelled => f.write_str("the task was cancelled"),
            Kind::Panic(payload) => match payload.message() {
                Some(message) => write!(f, "the task panicked: {message}"),
                None => f.write_str("the task panicked"),
            },
            Kind::Taken => {
                f.write_str("the task's output was delivered before: await a handle once")
            }
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> io::Error {
        io::Error::other(error)
    }
}
