//! One reactor on the calling thread: its settings, `block_on`, `spawn`.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pelton_driver::{Backend, Config, ConfigError, Driver, Error};

use crate::fault::{self, Fault};
use crate::handle::{Handle, Shared};
use crate::reactor::{Place, Reactor};
use crate::task::JoinHandle;

/// What a completion does to the task that waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dispatch {
    /// It polls the task there and then.
    #[default]
    Inline,
    /// It queues the task, behind those that are queued already.
    Queued,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) batch: usize,
    pub(crate) dispatch: Dispatch,
    pub(crate) on_fault: Arc<dyn Fn(&Fault) + Send + Sync>,
    /// The driver's, which has it as well.
    pub(crate) shutdown_timeout: Duration,
}

/// Settings of a [`Runtime`].
///
/// ```
/// let runtime = pelton::Builder::new().backend(pelton::Backend::Epoll).build()?;
/// assert_eq!(runtime.backend(), pelton::Backend::Epoll);
/// assert_eq!(runtime.block_on(async { 6 * 7 }), 42);
/// # Ok::<(), pelton::driver::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    config: Config,
    /// Forced, whatever the configuration says.
    backend: Option<Backend>,
    settings: Settings,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// The default settings: the best backend that works here, or the one that `PELTON_BACKEND` names.
    pub fn new() -> Builder {
        let on_fault = Arc::new(fault::print);
        let config = Config::default();
        let shutdown_timeout = config.shutdown_timeout;
        let settings =
            Settings { batch: 61, dispatch: Dispatch::Inline, on_fault, shutdown_timeout };
        Builder { config, backend: None, settings }
    }

    /// Forces a backend, also against the one of [`Builder::driver`], whichever of the two is called first.
    /// [`Builder::build`] fails where it cannot run.
    pub fn backend(mut self, backend: Backend) -> Builder {
        self.backend = Some(backend);
        self
    }

    /// The settings of the driver beneath: queue sizes, limits, the pool of buffers. All of them are replaced:
    /// what an earlier call said is forgotten.
    pub fn driver(mut self, config: Config) -> Builder {
        self.settings.shutdown_timeout = config.shutdown_timeout;
        self.config = config;
        self
    }

    /// How many polls of queued tasks there are before the reactor looks at the kernel again. At least 1.
    pub fn batch(mut self, polls: usize) -> Builder {
        self.settings.batch = polls;
        self
    }

    /// What a completion does to the task that waits for it.
    pub fn dispatch(mut self, dispatch: Dispatch) -> Builder {
        self.settings.dispatch = dispatch;
        self
    }

    /// Whom to tell of faults that no call can return to anyone. By default a line goes to stderr.
    pub fn on_fault(mut self, hook: impl Fn(&Fault) + Send + Sync + 'static) -> Builder {
        self.settings.on_fault = Arc::new(hook);
        self
    }

    /// Makes the runtime, for the calling thread.
    ///
    /// # Errors
    /// A setting is wrong, the backend that was forced cannot run here, or the system refused something
    /// that every backend needs. The error says which and what to do.
    pub fn build(mut self) -> Result<Runtime, Error> {
        if let Some(backend) = self.backend {
            self.config.backend = backend;
        }
        if self.settings.batch == 0 {
            return Err(Error::Config(ConfigError {
                field: "batch",
                reason: "0 is not at least 1: no task would ever be polled".into(),
            }));
        }
        let driver = Driver::new(self.config)?;
        let shared = Arc::new(Shared::new(driver.notifier(), driver.backend(), driver.fallback()));
        Ok(Runtime { reactor: Rc::new(Reactor::new(driver, shared, self.settings)) })
    }
}

/// One reactor, on the thread that made it.
///
/// Dropping the runtime drops every task, and waits a bounded time for the kernel to let go of what they
/// had in flight.
pub struct Runtime {
    reactor: Rc<Reactor>,
}

impl Runtime {
    /// A runtime with the default settings.
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn new() -> Result<Runtime, Error> {
        Builder::new().build()
    }

    /// Runs a future, and whatever has been spawned, until the future ends. Tasks that are left go on at
    /// the next call.
    ///
    /// # Panics
    /// A reactor runs on this thread already: waiting for one from inside would wait for ever. A panic of
    /// the future itself goes on to the caller.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _entered = self.reactor.enter().expect(
            "`block_on` was called from inside a reactor, which would wait for itself: `await` the future, or spawn it",
        );
        let root = self.reactor.tasks.root();
        let mut future = pin!(future);
        loop {
            let outcome = self
                .reactor
                .turn(&root, || future.as_mut().poll(&mut Context::from_waker(root.waker())));
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    /// Runs whatever has been spawned until [`Handle::shutdown`]. Can be called again after that.
    pub fn run(&self) {
        self.block_on(shutdown_requested());
        self.reactor.shared.inbox.clear_stop();
    }

    /// Spawns a task, from outside [`Runtime::block_on`]. It runs when the runtime does.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.reactor.tasks.spawn(future)
    }

    /// Reaches this reactor from other threads.
    pub fn handle(&self) -> Handle {
        Handle { shared: self.reactor.shared.clone() }
    }

    /// The backend that runs.
    pub fn backend(&self) -> Backend {
        self.reactor.driver.backend()
    }

    #[cfg(feature = "sim")]
    pub(crate) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Why a better backend does not run, in words.
    pub fn fallback(&self) -> Option<&str> {
        self.reactor.driver.fallback()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let entered = self.reactor.enter();
        self.reactor.end();
        // Here and not with the driver, which an object that outlives the runtime may keep.
        self.reactor.leave();
        drop(entered);
    }
}

/// Runs a future on a new reactor on this thread, with the default settings.
///
/// # Panics
/// The reactor cannot be made: the message says why and what to do. Use [`Runtime::new`] to get that as an
/// error. And as [`Runtime::block_on`].
///
/// ```
/// assert_eq!(pelton::block_on(async { "done" }), "done");
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    match Runtime::new() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("cannot make a reactor: {error}"),
    }
}

/// Spawns a task on this thread's reactor, where it stays: it need not be `Send`.
///
/// Dropping the [`JoinHandle`] detaches the task; [`JoinHandle::abort`] cancels it.
///
/// # Panics
/// No reactor runs on this thread.
///
/// ```
/// # pelton::block_on(async {
/// let local = std::rc::Rc::new(7);
/// let task = pelton::spawn(async move { *local });
/// assert_eq!(task.await.unwrap(), 7);
/// # });
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    Reactor::current().tasks.spawn(future)
}

/// Makes a future of this thread pass for one that may be sent to another, for code that asks for `Send`
/// though it stays where it is: a handler of axum, a service of tonic.
///
/// The promise is kept at run time: on another thread than this one, a poll or a drop panics.
///
/// ```
/// # use std::time::Duration;
/// fn handler() -> impl Future<Output = &'static str> + Send {
///     pelton::sendable(async {
///         pelton::time::sleep(Duration::from_millis(1)).await; // is not `Send`
///         "done"
///     })
/// }
/// assert_eq!(pelton::block_on(handler()), "done");
/// ```
pub fn sendable<F: Future>(future: F) -> impl Future<Output = F::Output> + Send {
    send_wrapper::SendWrapper::new(future)
}

/// Ends when [`Handle::shutdown`] has been called for this thread's reactor.
///
/// # Panics
/// No reactor runs on this thread.
pub async fn shutdown_requested() {
    let mut waiter = StopWaiter { reactor: Reactor::current(), place: None };
    poll_fn(|cx| {
        if waiter.reactor.shared.inbox.stop_requested() {
            return Poll::Ready(());
        }
        waiter.reactor.wait_for_stop(cx.waker(), &mut waiter.place);
        Poll::Pending
    })
    .await;
}

/// Somebody who waits for the end, until dropped.
struct StopWaiter {
    reactor: Rc<Reactor>,
    place: Option<Place>,
}

impl Drop for StopWaiter {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.reactor.stop_waiting(place);
        }
    }
}
